//! MySQL goes away, is killed or stands still under load: connections stay, acks go on, those who reconnect receive
//! everything, and in the end all of it is in the database, once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway::ids::{MsgId, Seq};

use crate::gateway::{Gateway, pause};
use crate::history::{Groups, check, make_groups, start_users};
use crate::services::{Database, MariaDb};
use crate::traffic::{Orders, User};

/// A gateway that stores in a MariaDB of its own, and users who talk.
struct Bed {
    mariadb: MariaDb,
    database: Database,
    gateway: Gateway,
    groups: Groups,
    orders: Arc<Orders>,
    users: Vec<JoinHandle<User>>,
}

impl Bed {
    fn start(dir: &Path, arguments: &[&str]) -> Bed {
        let mariadb = MariaDb::start(&dir.join("mariadb"), &[]);
        let database = Database::create_on(&mariadb.url());
        let data_dir = dir.join("data");
        std::fs::create_dir(&data_dir).unwrap();
        let mut command = Gateway::command(&data_dir, arguments);
        command.env("RINGWAY_STORE_URL", database.url());
        let gateway = Gateway::spawn(&data_dir, &mut command);
        let groups = make_groups(&gateway);
        let orders = Arc::new(Orders::default());
        let users = start_users(&[&data_dir], &groups, &orders, fastrand::u64(..));
        Bed { mariadb, database, gateway, groups, orders, users }
    }

    /// Waits until so many more messages were acked.
    fn acks_go_on(&mut self, more: u64) {
        let before = self.orders.acked.load(Ordering::Relaxed);
        let acked = &self.orders.acked;
        self.gateway.wait_until("acks go on", |_| acked.load(Ordering::Relaxed) >= before + more);
    }

    /// Lets half of the users come back, and waits until they have heard more after it.
    fn half_come_back(&mut self) {
        self.orders.come_back.fetch_add(1, Ordering::Relaxed);
        self.acks_go_on(200);
    }

    fn await_metric(&mut self, name: &str, value: u64) {
        self.gateway.wait_until(&format!("{name} is {value}"), |gateway| metric(gateway, name) == Some(value));
    }

    /// Everybody falls silent, everything is stored, and everything is compared with everything.
    fn finish(mut self) {
        self.orders.quiet.store(true, Ordering::Relaxed);
        let unacked = &self.orders.unacked;
        self.gateway.wait_until("everything is acked", |_| unacked.load(Ordering::Relaxed) == 0);
        self.orders.done.store(true, Ordering::Relaxed);
        let users: Vec<User> = self.users.drain(..).map(|user| user.join().unwrap()).collect();
        self.await_metric("ringway_store_unavailable", 0);
        self.gateway.wait_until("everything is stored", |gateway| {
            let durable = metric(gateway, "ringway_store_durable_position");
            durable.is_some() && durable == metric(gateway, "ringway_store_applied_position")
        });
        check(&self.gateway, &users, &self.groups);
        for user in &users {
            assert_eq!(user.reconnects, user.came_back, "user {} lost its connection", user.id);
        }
        check_database(&self.database, &users);
        self.gateway.terminate();
        assert!(self.gateway.wait().success());
    }
}

/// A metric without labels.
fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = gateway.admin_page("/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The database has every acked message and every row, once, and nothing else.
fn check_database(database: &Database, users: &[User]) {
    let mut messages: BTreeMap<u64, Vec<u8>> = BTreeMap::new();
    for (msg_id, body) in database.rows::<(u64, Vec<u8>)>("SELECT msg_id, body FROM messages") {
        messages.insert(msg_id, body);
    }
    let sent: usize = users.iter().map(|user| user.sent.len()).sum();
    assert_eq!(messages.len(), sent, "messages in the database");
    for user in users {
        for sent in &user.sent {
            let (msg_id, _) = sent.acked.unwrap();
            assert_eq!(messages.get(&msg_id.0), Some(&sent.body), "{msg_id:?} of user {}", user.id);
        }
        let query = format!("SELECT seq, msg_id FROM inbox WHERE user_id = {} ORDER BY seq", user.id.0);
        let stored: Vec<(Seq, MsgId)> =
            database.rows(&query).into_iter().map(|(seq, msg_id)| (Seq(seq), MsgId(msg_id))).collect();
        let received: Vec<(Seq, MsgId)> = user.rows.iter().map(|(seq, row)| (*seq, row.msg_id)).collect();
        assert_eq!(stored, received, "rows of user {}", user.id);
    }
    let rows: usize = users.iter().map(|user| user.rows.len()).sum();
    assert_eq!(database.count("inbox"), rows as u64, "nobody else has a row");
}

#[test]
fn a_database_that_is_stopped_and_started_under_load_drops_no_connection_and_loses_nothing() {
    let dir = tempfile::tempdir().unwrap();
    open_to_others(dir.path());
    let mut bed = Bed::start(dir.path(), &[]);
    bed.acks_go_on(500);
    bed.mariadb.stop();
    bed.acks_go_on(500);
    bed.await_metric("ringway_store_unavailable", 1);
    let readyz = bed.gateway.admin_page("/readyz");
    assert!(readyz.contains("503") && readyz.contains("the store takes no writes"), "{readyz}");
    // Those who come back are served from the journal.
    for _ in 0..5 {
        bed.half_come_back();
    }
    bed.mariadb.resume();
    bed.await_metric("ringway_store_unavailable", 0);
    bed.acks_go_on(500);
    let log = bed.gateway.log();
    assert_eq!(log.matches("the journal is not being applied to the store").count(), 1, "one line says so:\n{log}");
    assert!(log.contains("the journal is being applied to the store again"), "{log}");
    bed.finish();
}

#[test]
fn a_database_that_is_killed_in_the_middle_of_batches_has_everything_once() {
    let dir = tempfile::tempdir().unwrap();
    open_to_others(dir.path());
    // Without lingering there is a transaction on its way nearly always.
    let mut bed = Bed::start(dir.path(), &["--set", "store.linger_ms=0"]);
    for _ in 0..8 {
        bed.acks_go_on(200);
        pause(Duration::from_micros(fastrand::u64(..50_000)));
        bed.mariadb.kill();
        bed.half_come_back();
        bed.mariadb.resume();
    }
    bed.finish();
}

#[test]
fn a_database_that_stands_still_delays_nobody_and_goes_on_where_it_was() {
    let dir = tempfile::tempdir().unwrap();
    open_to_others(dir.path());
    let mut bed = Bed::start(dir.path(), &["--set", "store.linger_ms=0"]);
    bed.acks_go_on(500);
    for _ in 0..2 {
        bed.mariadb.signal(Signal::SIGSTOP);
        bed.half_come_back();
        pause(Duration::from_secs(3));
        bed.half_come_back();
        bed.mariadb.signal(Signal::SIGCONT);
        bed.acks_go_on(200);
    }
    bed.finish();
}

/// A server that is started by root runs as somebody else, who must get to its directory.
fn open_to_others(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}
