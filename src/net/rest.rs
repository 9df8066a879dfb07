//! The rest: the task that runs when no other has anything to do, and the only place where a shard's thread sleeps.
//!
//! One per shard, in the executor's own queue. It sleeps in the shard's own ring, with one system call, until a socket,
//! another thread or the time wants something; the executor itself never sleeps and never does I/O, it only divides the
//! time. What always holds: it is awake when all other tasks sleep (the last one wakes it), so the executor always has
//! something to run; the core's time passes at least every 40 ms while the shard has the CPU.
//!
//! Left to glommio 0.9, a sleep and a wake-up are ten system calls in three rings, and one sleep in some 5,000 on a busy
//! machine is by mistake, with tasks that are ready: when it finds its preemption timer expired before it has run a
//! single task, it takes this for having nothing to run.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tokio::sync::mpsc;

use crate::contract::ids::ShardId;
use crate::contract::report::Depths;
use crate::contract::report::Report;
use crate::contract::report::ShardReport;
use crate::net::shell::Door;

/// Time passes for the core so often while the shard is awake.
pub const TICK_MS: u64 = 20;
/// And so often while it sleeps: mostly it is woken by something else before.
const TICK_LATE_MS: u64 = 2 * TICK_MS;
/// Between two reports to control.
const REPORT_MS: u64 = 1_000;

/// What the rest does beside resting: it lets time pass, and reports.
pub struct Rest<F> {
    id: ShardId,
    door: Door,
    depths: F,
    reports: mpsc::Sender<Report>,
    ticked_ms: u64,
    reported_ms: u64,
}

impl<F: Fn() -> Depths> Rest<F> {
    /// Of a shard. `depths`: of its mailbox.
    pub fn new(id: ShardId, door: Door, depths: F, reports: mpsc::Sender<Report>) -> Self {
        Rest { id, door, depths, reports, ticked_ms: 0, reported_ms: 0 }
    }

    /// Runs until every other task has ended: each holds the door, so it is the gate that a drain waits for.
    pub async fn run(mut self) {
        while Rc::strong_count(&self.door) > 1 {
            if self.door.borrow().ready.is_over() {
                // The others see it too, and end.
                glommio::executor().yield_task_queue_now().await;
                continue;
            }
            self.tick_if_due();
            self.rest();
            self.sleep().await;
        }
        // What the core keeps for a second is passed on.
        self.door.borrow_mut().tick();
    }

    fn tick_if_due(&mut self) {
        let mut shell = self.door.borrow_mut();
        let now_ms = shell.clock.now().mono_ms;
        if now_ms < self.ticked_ms + TICK_MS {
            return;
        }
        self.ticked_ms = now_ms;
        shell.tick_at(now_ms + TICK_MS);
        shell.tick();
        if now_ms < self.reported_ms + REPORT_MS {
            return;
        }
        self.reported_ms = now_ms;
        let report = ShardReport {
            shard: self.id,
            core: shell.core.counters(),
            shell: shell.counters,
            depths: (self.depths)(),
            store_asks: shell.store_asks(),
            budgets: shell.spent(),
        };
        // Control that is behind gets the next one.
        drop(self.reports.try_send(Report::Shard(Box::new(report))));
    }

    /// Waits in the ring while nobody has anything to do, until the next tick.
    fn rest(&mut self) {
        let mut shell = self.door.borrow_mut();
        shell.hear();
        if !shell.is_idle() {
            return;
        }
        let began_ns = shell.clock.mono_ns();
        let until_ns = (self.ticked_ms + TICK_LATE_MS) * 1_000_000;
        if until_ns <= began_ns {
            return;
        }
        shell.ring.wait(Duration::from_nanos(until_ns - began_ns));
        let woken_ns = shell.clock.mono_ns();
        shell.budgets().rested(woken_ns - began_ns);
        shell.hear();
    }

    /// Until no other task has anything to do, or a tick is due.
    async fn sleep(&mut self) {
        let mut slept = false;
        poll_fn(|cx| {
            let mut shell = self.door.borrow_mut();
            if std::mem::replace(&mut slept, true) || shell.is_idle() || shell.ready.is_over() {
                return Poll::Ready(());
            }
            shell.rest_sleeps(cx.waker());
            Poll::Pending
        })
        .await;
    }
}
