//! Kill the gateway again and again while users talk: nothing acked is lost, nothing comes twice, no number is
//! given twice, and everybody who comes back receives all of it.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use crate::gateway::{Gateway, pause};
use crate::history::{USERS, check, make_groups, start_users};
use crate::traffic::{Orders, User};

const STOPS: u32 = 20;

#[test]
fn nothing_acked_is_lost_when_the_process_is_killed_twenty_times() {
    storm(Stop::Kill, &["--shards", "1"]);
}

#[test]
fn nothing_acked_is_lost_when_two_shards_are_killed_twenty_times() {
    storm(Stop::Kill, &["--shards", "2"]);
}

#[test]
fn nobody_is_surprised_when_the_gateway_is_stopped_twenty_times() {
    storm(Stop::Terminate, &["--shards", "2"]);
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Stop {
    Kill,
    Terminate,
}

fn storm(stop: Stop, arguments: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let mut gateway = Gateway::start(dir.path(), arguments);
    let groups = make_groups(&gateway);
    let orders = Arc::new(Orders::default());
    let users = start_users(&[dir.path()], &groups, &orders, seed);

    for _ in 0..STOPS {
        let before = orders.acked.load(Ordering::Relaxed);
        gateway.wait_until("somebody is acked again", |_| orders.acked.load(Ordering::Relaxed) > before + 20);
        pause(Duration::from_micros(random.u64(..150_000)));
        match stop {
            Stop::Kill => gateway.kill(),
            Stop::Terminate => {
                gateway.terminate();
                let status = gateway.wait();
                assert!(status.success(), "a clean stop exits 0, not with {status}:\n{}", gateway.log());
            }
        }
        gateway = Gateway::start(dir.path(), arguments);
    }

    orders.quiet.store(true, Ordering::Relaxed);
    gateway.wait_until("everything is acked", |_| orders.unacked.load(Ordering::Relaxed) == 0);
    orders.done.store(true, Ordering::Relaxed);
    let users: Vec<User> = users.into_iter().map(|user| user.join().unwrap()).collect();
    let farewells: u64 = users.iter().map(|user| user.farewells).sum();
    if stop == Stop::Terminate {
        assert!(farewells >= u64::from(STOPS) * USERS / 2, "clients are told before a stop, {farewells} were");
    }
    check(&gateway, &users, &groups);
    for user in &users {
        assert!(user.reconnects > 0, "user {} never lost its connection", user.id);
    }
    gateway.terminate();
    assert!(gateway.wait().success());
}
