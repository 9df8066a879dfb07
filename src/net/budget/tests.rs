#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use glommio::{LocalExecutorBuilder, Placement};

use super::*;
use crate::clock::Clock;

#[test]
fn what_a_queue_does_is_charged_to_its_budget() {
    const WORK_NS: u64 = 20_000_000;
    let executor = LocalExecutorBuilder::new(Placement::Unbound).make().unwrap();
    let spent = executor.run(async {
        let mut budgets = Budgets::new(Duration::from_millis(1));
        let work = async {
            let clock = Clock::start();
            while clock.mono_ns() < WORK_NS {
                glommio::executor().yield_task_queue_now().await;
            }
        };
        glommio::spawn_local_into(work, budgets.queue(Budget::Accept)).unwrap().await;
        let first = budgets.spent();
        let second = budgets.spent();
        [first, second]
    });
    for spent in spent {
        assert_eq!(spent.map(|spent| spent.name), ["accept", "sessions", "delivery", "timers"]);
        assert_eq!(spent.map(|spent| spent.shares), [100, 400, 1_000, 1_000]);
        assert!(spent[0].busy_ns >= WORK_NS / 2 && spent[0].turns > 0, "{spent:?}");
        assert_eq!((spent[1].busy_ns, spent[2].busy_ns), (0, 0));
    }
}
