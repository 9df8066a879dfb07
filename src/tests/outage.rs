//! MySQL goes away, is killed or stands still under load: connections stay, acks go on, those who reconnect receive
//! everything, and in the end all of it is in the database, once.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway_client::{Event, RequestId};
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE, UNLIMITED, pause};
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
pub(crate) fn metric(gateway: &Gateway, name: &str) -> Option<u64> {
    let page = gateway.admin_page("/metrics");
    page.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' ')?.parse().ok())
}

/// The database has every acked message and every row, once, and nothing else.
pub(crate) fn check_database(database: &Database, users: &[User]) {
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
    assert!(readyz.contains("200") && readyz.contains("degraded: the database takes no writes"), "{readyz}");
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

/// Sends so many at once; returns the numbers of those that were acked, and how many were refused as `STORAGE_FULL`.
pub(crate) fn send_some(sender: &mut Connection, count: usize, body: &[u8]) -> (Vec<MsgId>, usize) {
    let requests: Vec<RequestId> = (0..count)
        .map(|_| sender.send(Conversation::User(UserId(2)), sender.new_client_msg_id(), body).unwrap())
        .collect();
    let (mut acked, mut full) = (Vec::new(), 0);
    for request in requests {
        match sender.answer(request, PATIENCE).unwrap() {
            Event::Sent { msg_id, .. } => acked.push(msg_id),
            Event::Refused { code: ErrorCode::StorageFull, retry_after_ms, .. } => {
                assert!(retry_after_ms > 0);
                full += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    (acked, full)
}

/// The next rows, in order.
pub(crate) fn hear(receiver: &mut Connection, expected: &[MsgId]) {
    for msg_id in expected {
        match receiver.next(PATIENCE).unwrap() {
            Some(Event::Row(row)) => assert_eq!(row.msg_id, *msg_id),
            other => panic!("expected {msg_id:?}, heard {other:?}"),
        }
    }
}

pub(crate) fn is_there(client: &mut Connection) {
    let request = client.ping().unwrap();
    assert!(matches!(client.answer(request, PATIENCE).unwrap(), Event::Pong { .. }));
}

#[test]
fn a_journal_that_is_full_because_the_database_is_away_refuses_disconnects_nobody_and_recovers_by_itself() {
    let dir = tempfile::tempdir().unwrap();
    open_to_others(dir.path());
    let mut mariadb = MariaDb::start(&dir.path().join("mariadb"), &[]);
    let database = Database::create_on(&mariadb.url());
    let data_dir = dir.path().join("data");
    std::fs::create_dir(&data_dir).unwrap();
    let bytes_max = 128 << 20;
    let cap = format!("limits.journal_bytes_max={bytes_max}");
    let mut command = Gateway::command(&data_dir, &["--shards", "1", "--set", &cap]);
    command.env("RINGWAY_STORE_URL", database.url()).envs(UNLIMITED);
    let mut gateway = Gateway::spawn(&data_dir, &mut command);
    let (mut sender, mut receiver) = (gateway.client(1, 1, None), gateway.client(2, 1, Some(Seq(0))));
    let mut idle = gateway.client(3, 1, None);

    mariadb.stop();
    let body = vec![b'x'; 16_000];
    let mut all: Vec<MsgId> = Vec::new();
    loop {
        let (acked, full) = send_some(&mut sender, 32, &body);
        hear(&mut receiver, &acked);
        all.extend(acked);
        if full > 0 {
            break;
        }
        assert!(all.len() * body.len() < 2 * bytes_max, "it is never full");
    }
    println!("full after {} messages", all.len());
    gateway.wait_until("it says why", |gateway| gateway.admin_page("/readyz").contains("STORAGE_FULL"));
    assert!(gateway.admin_page("/readyz").contains("503"));
    assert_eq!(metric(&gateway, "ringway_journal_full"), Some(1));
    gateway.wait_until("it is counted", |gateway| metric(gateway, "ringway_ledger_storage_full_total") >= Some(1));
    // Whoever was there stays; who comes back is served; and what needs no journal goes on.
    [&mut sender, &mut receiver, &mut idle].into_iter().for_each(is_there);
    let known = all.len() - 10;
    let mut again = gateway.client(2, 2, Some(Seq(known as u64)));
    hear(&mut again, &all[known..]);
    assert_eq!(send_some(&mut sender, 1, &body), (vec![], 1), "nothing has changed");

    mariadb.resume();
    gateway.wait_until("messages are taken again", |_| {
        let (acked, _) = send_some(&mut sender, 1, &body);
        all.extend(&acked);
        !acked.is_empty()
    });
    hear(&mut receiver, &all[all.len() - 1..]);
    [&mut sender, &mut receiver, &mut idle, &mut again].into_iter().for_each(is_there);
    let stored = all.len() as u64;
    gateway.wait_until("everything is stored", |_| database.count("messages") >= stored);
    let rows: Vec<(u64, u64)> = database.rows("SELECT seq, msg_id FROM inbox WHERE user_id = 2 ORDER BY seq");
    assert!(rows.into_iter().eq((1..).zip(all.iter().map(|msg_id| msg_id.0))), "every row once, in order");
    assert_eq!((database.count("messages"), database.count("inbox")), (stored, 2 * stored));
    gateway.terminate();
    assert!(gateway.wait().success());
}

/// A server that is started by root runs as somebody else, who must get to its directory.
pub(crate) fn open_to_others(dir: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(dir, std::fs::Permissions::from_mode(0o755)).unwrap();
}
