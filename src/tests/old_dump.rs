//! A Redis that has lost what it was given, by an old dump or altogether: nothing of it is lost for those who were acked,
//! and nothing is mixed up.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use nix::sys::signal::Signal;
use ringway::ledger::redis::entry::Home;
use ringway_client::{Event, Row};
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;
use tempfile::TempDir;

use crate::cluster::{WRITER, create, keep_stores_from_writing, node, rows_until, send, told, wait_for_rows};
use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, address, log_in, pause, signal};
use crate::redis::{Ledger, Redis, Split};
use crate::services::Database;

/// Sends under a name until it is taken.
fn send_as(client: &mut Connection, to: Conversation, name: ClientMsgId, body: &str) -> (MsgId, bool) {
    for _ in 0..PATIENCE.as_millis() / 50 {
        let request = client.send(to, name, body.as_bytes()).unwrap();
        match client.answer(request, PATIENCE).unwrap() {
            Event::Sent { msg_id, repeat, .. } => return (msg_id, repeat),
            Event::Refused { .. } => pause(Duration::from_millis(50)),
            other => panic!("expected SendOk, heard {other:?}"),
        }
    }
    panic!("{body:?} is not taken");
}

/// What a number was given to, each time it was seen: never two things.
fn check_numbers(seen: &mut BTreeMap<Seq, MsgId>, rows: &[Row], gateway: &Gateway) {
    for row in rows {
        let before = *seen.entry(row.seq).or_insert(row.msg_id);
        assert_eq!(before, row.msg_id, "{:?} was given to two messages\n{}", row.seq, gateway.log());
    }
}

/// Whether the database gets what Redis loses.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Store {
    Writes,
    StandsStill,
}

/// `first_at`: the master of the ledger's first bucket; `goes_back`: the one that does, if the group
/// that is talked in is one for it.
fn an_old_dump_loses_nothing_that_was_acked<L: Ledger>(
    mut ledger: L,
    first_at: usize,
    goes_back: impl Fn(&L, GroupId) -> Option<usize>,
    store: Store,
) {
    let database = Database::create();
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut a, b) = (node(dir_a.path(), &ledger, &database, 1), node(dir_b.path(), &ledger, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let (to, lost) = loop {
        let group = create(&mut one, &[UserId(1), UserId(2), UserId(3)]);
        if let Some(lost) = goes_back(&ledger, group) {
            break (Conversation::Group(group), lost);
        }
    };
    let mut expected = BTreeSet::new();
    let mut say = |client: &mut Connection, body: String| {
        send(client, to, &body);
        expected.insert(body);
    };
    for index in 1..=20 {
        say(&mut one, format!("before {index}"));
    }
    wait_for_rows(&database, 60);
    let dump = ledger.masters()[lost].copy();
    if store == Store::StandsStill {
        keep_stores_from_writing(&ledger.masters()[first_at], &[&a, &b]);
    }
    let name = one.new_client_msg_id();
    let (first, _) = send_as(&mut one, to, name, "lost 0");
    for index in 1..=20 {
        say(&mut one, format!("lost {index}"));
        say(&mut two, format!("lost too {index}"));
    }
    if store == Store::Writes {
        wait_for_rows(&database, 3 * 61);
    }
    ledger.masters_mut()[lost].kill();
    ledger.masters()[lost].put_back(&dump);
    // Without it nothing is numbered, and who sends is told so on the connection that stays.
    let id = one.new_client_msg_id();
    let mut refused = false;
    a.wait_until("a sender is told to try again", |_| {
        let request = one.send(to, id, b"meanwhile").unwrap();
        // One that was on its way when Redis went is not answered before it is back.
        refused |= matches!(
            one.answer(request, Duration::from_millis(500)),
            Ok(Event::Refused { code: ErrorCode::RetryLater, .. })
        );
        refused
    });
    ledger.masters_mut()[lost].start_again();
    // A store writes again; what goes back may have had nothing against it.
    ledger.masters()[first_at].command(&["DEL", WRITER]).unwrap();
    send_as(&mut one, to, id, "meanwhile");
    for index in 1..=20 {
        say(&mut one, format!("after {index}"));
        say(&mut two, format!("after too {index}"));
    }
    say(&mut one, "the end".to_owned());
    expected.extend(["lost 0", "meanwhile"].map(str::to_owned));
    // Once at the beginning, and again now.
    let made =
        [&a, &b].iter().map(|node| node.log().matches("the cluster's ledger is made anew").count()).sum::<usize>();
    assert!(made >= 2, "the old dump was not noticed");
    // The same name is the same message, wherever it lies now.
    assert_eq!(send_as(&mut one, to, name, "lost 0"), (first, true));
    check_all_have_it([&a, &b], &database, &mut two, &expected);
}

/// Everybody has what is expected, once, live and from the inbox, and so has the database.
fn check_all_have_it([a, b]: [&Gateway; 2], database: &Database, two: &mut Connection, expected: &BTreeSet<String>) {
    // Live, in order; what was sent by the session itself came as answers.
    let mut seen = BTreeMap::new();
    let live = rows_until(two, "the end");
    check_numbers(&mut seen, &live, b);
    let bodies = |rows: &[Row]| told(rows).into_iter().map(|(_, body)| body).collect::<BTreeSet<_>>();
    let heard = bodies(&live);
    let missing: Vec<_> = expected.iter().filter(|body| !heard.contains(*body) && !body.contains("too")).collect();
    assert!(missing.is_empty(), "not delivered: {missing:?}\n{}", b.log());
    // And for who was not there, on either node.
    for gateway in [a, b] {
        let inbox = rows_until(&mut gateway.client(2, 7, Some(Seq(0))), "the end");
        check_numbers(&mut seen, &inbox, gateway);
        assert_eq!(&bodies(&inbox), expected, "{}", gateway.log());
        assert_eq!(told(&inbox).len(), expected.len(), "a message came under two numbers of its own");
        assert_eq!(bodies(&rows_until(&mut gateway.client(3, 7, Some(Seq(0))), "the end")), *expected);
    }
    wait_for_rows(database, 3 * expected.len() as u64);
    let twice: Vec<(u64, u64)> =
        database.rows("SELECT user_id, msg_id FROM inbox GROUP BY user_id, msg_id HAVING COUNT(*) > 1");
    assert_eq!(twice, [], "a message is in an inbox twice");
}

/// How all nodes go down.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Down {
    Stopped,
    Killed,
}

/// Neither a node nor the database has ever heard of what Redis loses: only the nodes' logs, and clients.
/// `first_at`: the master of the ledger's first bucket; `lost`: those that go back.
fn an_old_dump_put_back_while_no_node_runs_loses_nothing(
    mut ledger: impl Ledger,
    first_at: usize,
    lost: &[usize],
    down: Down,
) {
    let database = Database::create();
    let (dir_a, dir_b) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (mut a, mut b) = (node(dir_a.path(), &ledger, &database, 1), node(dir_b.path(), &ledger, &database, 2));
    let (mut one, mut two) = (a.client(1, 1, None), b.client(2, 1, None));
    let group = create(&mut one, &[UserId(1), UserId(2), UserId(3)]);
    let to = Conversation::Group(group);
    let mut expected = BTreeSet::new();
    let mut say = |client: &mut Connection, body: String| {
        send(client, to, &body);
        expected.insert(body);
    };
    (1..=20).for_each(|index| say(&mut one, format!("before {index}")));
    wait_for_rows(&database, 60);
    let dumps: Vec<_> = lost.iter().map(|at| ledger.masters()[*at].copy()).collect();
    keep_stores_from_writing(&ledger.masters()[first_at], &[&a, &b]);
    let name = one.new_client_msg_id();
    let (first, _) = send_as(&mut one, to, name, "lost 0");
    for index in 1..=20 {
        say(&mut one, format!("lost {index}"));
        say(&mut two, format!("lost too {index}"));
    }
    say(&mut one, "the last".to_owned());
    let mut seen = BTreeMap::new();
    let live = rows_until(&mut two, "the last");
    check_numbers(&mut seen, &live, &b);
    for node in [&mut a, &mut b] {
        match down {
            Down::Stopped => node.terminate(),
            Down::Killed => signal(node.pid(), Signal::SIGKILL).unwrap(),
        }
        node.wait();
    }
    for (at, dump) in std::iter::zip(lost, &dumps) {
        ledger.masters_mut()[*at].kill();
        ledger.masters()[*at].put_back(dump);
        ledger.masters_mut()[*at].start_again();
    }
    ledger.masters()[first_at].command(&["DEL", WRITER]).unwrap();

    let (a, b) = (node(dir_a.path(), &ledger, &database, 1), node(dir_b.path(), &ledger, &database, 2));
    // Who has seen more than Redis knows of is served, and what it is sent has other numbers.
    let mut one = a.returning_client(1, 1, Some(Seq(0)));
    let mut two = b.returning_client(2, 1, live.last().map(|row| row.seq));
    assert_eq!(send_as(&mut one, to, name, "lost 0"), (first, true));
    (1..=20).for_each(|index| say(&mut one, format!("after {index}")));
    expected.insert("lost 0".to_owned());
    // Each node makes again what it had submitted, and neither waits for the other.
    wait_for_rows(&database, 3 * expected.len() as u64);
    send(&mut one, to, "the end");
    expected.insert("the end".to_owned());
    check_numbers(&mut seen, &rows_until(&mut two, "the end"), &b);
    for gateway in [&a, &b] {
        let inbox = rows_until(&mut gateway.client(2, 7, Some(Seq(0))), "the end");
        check_numbers(&mut seen, &inbox, gateway);
        let bodies: BTreeSet<String> = told(&inbox).into_iter().map(|(_, body)| body).collect();
        assert_eq!(bodies, expected, "{}", gateway.log());
        assert_eq!(inbox.len(), expected.len(), "a message is in an inbox twice");
    }
    wait_for_rows(&database, 3 * expected.len() as u64);
}

#[test]
fn an_old_dump_put_back_while_all_nodes_were_stopped_loses_nothing_and_gives_no_number_twice() {
    an_old_dump_put_back_while_no_node_runs_loses_nothing(Redis::start(), 0, &[0], Down::Stopped);
}

#[test]
fn an_old_dump_put_back_after_all_nodes_were_killed_loses_nothing_and_gives_no_number_twice() {
    an_old_dump_put_back_while_no_node_runs_loses_nothing(Redis::start(), 0, &[0], Down::Killed);
}

#[test]
fn old_dumps_of_all_masters_put_back_while_all_nodes_were_stopped_lose_nothing_and_give_no_number_twice() {
    let ledger = Split::start(3);
    let first = ledger.cluster.master_of(0);
    an_old_dump_put_back_while_no_node_runs_loses_nothing(ledger, first, &[0, 1, 2], Down::Stopped);
}

#[test]
fn an_old_dump_of_the_order_alone_put_back_after_all_nodes_were_killed_loses_nothing_and_gives_no_number_twice() {
    let ledger = Split::start(3);
    let first = ledger.cluster.master_of(0);
    an_old_dump_put_back_while_no_node_runs_loses_nothing(ledger, first, &[first], Down::Killed);
}

#[test]
fn a_redis_put_back_to_an_old_dump_loses_nothing_that_was_acked_and_stored() {
    an_old_dump_loses_nothing_that_was_acked(Redis::start(), 0, |_, _| Some(0), Store::Writes);
}

#[test]
fn a_redis_put_back_to_an_old_dump_loses_nothing_that_was_acked_and_not_stored() {
    an_old_dump_loses_nothing_that_was_acked(Redis::start(), 0, |_, _| Some(0), Store::StandsStill);
}

#[test]
fn a_master_with_the_order_put_back_to_an_old_dump_loses_nothing_that_was_acked() {
    let ledger = Split::start(3);
    let first = ledger.cluster.master_of(0);
    an_old_dump_loses_nothing_that_was_acked(ledger, first, |_, _| Some(first), Store::StandsStill);
}

#[test]
fn a_master_with_the_group_put_back_to_an_old_dump_loses_nothing_that_was_acked() {
    let ledger = Split::start(3);
    let first = ledger.cluster.master_of(0);
    let of_group = |ledger: &Split, group| {
        let master = ledger.cluster.master_of(Home::of_group(group).bucket(3));
        (master != first).then_some(master)
    };
    an_old_dump_loses_nothing_that_was_acked(ledger, first, of_group, Store::StandsStill);
}

/// What users of the test below are told, and tell.
#[derive(Default)]
struct Talk {
    ends: AtomicBool,
    acked: AtomicU64,
}

/// A user who sends one message after the other, each until it is acked, and remembers all that came.
struct Talker {
    user: u64,
    dir: PathBuf,
    to: Vec<Conversation>,
    talk: Arc<Talk>,
    random: fastrand::Rng,
    /// Message, and what it says.
    acked: Vec<(MsgId, String, Conversation)>,
    seen: BTreeMap<Seq, MsgId>,
    cursor: Seq,
    /// Sent and not acked.
    open: Option<(ClientMsgId, Conversation, String)>,
}

impl Talker {
    fn run(mut self) -> Talker {
        while !(self.open.is_none() && self.talk.ends.load(Ordering::Relaxed)) {
            match self.connection() {
                Ok(()) => {}
                Err(
                    ConnectionError::Io(_)
                    | ConnectionError::Closed
                    | ConnectionError::TimedOut(_)
                    | ConnectionError::Closing { .. },
                ) => {
                    pause(Duration::from_millis(20));
                }
                Err(error) => panic!("user {}: {error}", self.user),
            }
        }
        self
    }

    fn connection(&mut self) -> Result<(), ConnectionError> {
        let addr = address(&self.dir, "listen").ok_or(ConnectionError::Closed)?;
        let mut client = log_in(addr, self.user, 1, Some(self.cursor))?;
        let mut live = self.cursor;
        while !(self.open.is_none() && self.talk.ends.load(Ordering::Relaxed)) {
            let (name, to, body) = match self.open.clone() {
                Some(open) => open,
                None => {
                    let to = self.to[self.random.usize(..self.to.len())];
                    let open = (client.new_client_msg_id(), to, format!("{} says {}", self.user, self.acked.len()));
                    self.open.insert(open).clone()
                }
            };
            let request = client.send(to, name, body.as_bytes())?;
            loop {
                match client.next(PATIENCE)?.ok_or(ConnectionError::Closed)? {
                    Event::Row(row) => {
                        assert!(row.seq > live, "user {}: numbers must rise", self.user);
                        live = row.seq;
                        self.remember(row.seq, row.msg_id);
                    }
                    Event::Sent { request: of, msg_id, seq, .. } if of == request => {
                        self.remember(seq, msg_id);
                        self.acked.push((msg_id, body, to));
                        self.open = None;
                        self.talk.acked.fetch_add(1, Ordering::Relaxed);
                        break;
                    }
                    Event::Refused { request: of, .. } if of == request => {
                        pause(Duration::from_millis(50));
                        break;
                    }
                    Event::Gap { .. } | Event::GroupChanged { .. } => {}
                    other => panic!("user {}: nobody asked for {other:?}", self.user),
                }
            }
            self.cursor = client.cursor();
        }
        Ok(())
    }

    fn remember(&mut self, seq: Seq, msg_id: MsgId) {
        let before = *self.seen.entry(seq).or_insert(msg_id);
        assert_eq!(before, msg_id, "user {}: {seq:?} was given to two messages", self.user);
    }
}

#[test]
fn nothing_acked_is_lost_and_no_number_has_two_messages_when_redis_loses_its_data_at_random() {
    data_are_lost_at_random(Redis::start());
}

#[test]
fn nothing_acked_is_lost_and_no_number_has_two_messages_when_masters_of_a_redis_cluster_lose_their_data_at_random() {
    data_are_lost_at_random(Split::start(3));
}

/// One of the masters, all of them now and then, loses its data in one of the ways there are.
fn lose_data(
    round: u32,
    random: &mut fastrand::Rng,
    ledger: &mut impl Ledger,
    nodes: &mut Vec<Gateway>,
    (dirs, database): (&[TempDir], &Database),
    progress: &impl Fn(&mut Vec<Gateway>),
) {
    let masters = ledger.masters().len();
    let first = random.usize(..masters);
    let lost = if random.u32(..4) == 0 { 0..masters } else { first..first + 1 };
    let dumps: Vec<_> = ledger.masters()[lost.clone()].iter().map(Redis::copy).collect();
    progress(nodes);
    pause(Duration::from_millis(random.u64(..300)));
    let how = random.u32(..4);
    println!("round {round}: masters {lost:?} lose their data, {how}");
    let flush = |ledger: &dyn Ledger| ledger.masters()[lost.clone()].iter().for_each(Redis::flush);
    match how {
        0 => flush(ledger),
        1 => {
            // One that stands still meanwhile finds the others gone on without it.
            let at = random.usize(..nodes.len());
            signal(nodes[at].pid(), Signal::SIGSTOP).unwrap();
            flush(ledger);
            pause(Duration::from_millis(random.u64(..3_000)));
            signal(nodes[at].pid(), Signal::SIGCONT).unwrap();
        }
        2 => {
            let at = random.usize(..nodes.len());
            flush(ledger);
            nodes.remove(at).kill();
            nodes.insert(at, node(dirs[at].path(), ledger, database, at as u16 + 1));
        }
        _ => {
            for (master, dump) in std::iter::zip(&mut ledger.masters_mut()[lost.clone()], &dumps) {
                master.kill();
                master.put_back(dump);
            }
            pause(Duration::from_millis(random.u64(..1_000)));
            ledger.masters_mut()[lost.clone()].iter_mut().for_each(Redis::start_again);
        }
    }
}

fn data_are_lost_at_random(mut ledger: impl Ledger) {
    let database = Database::create();
    let dirs: Vec<_> = (0..3).map(|_| tempfile::tempdir().unwrap()).collect();
    let mut nodes: Vec<Gateway> =
        (0..dirs.len()).map(|at| node(dirs[at].path(), &ledger, &database, at as u16 + 1)).collect();
    let seed = std::env::var("SEED").ok().and_then(|s| s.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    println!("SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let users: Vec<u64> = (1..=9).collect();
    let group = create(&mut nodes[0].client(1, 9, None), &users.iter().copied().map(UserId).collect::<Vec<_>>());
    let to: Vec<Conversation> = std::iter::once(Conversation::Group(group))
        .chain(users.iter().map(|user| Conversation::User(UserId(*user))))
        .collect();
    let talk = Arc::new(Talk::default());
    let talkers: Vec<_> = users
        .iter()
        .map(|user| {
            let dir: &Path = dirs[*user as usize % dirs.len()].path();
            let talker = Talker {
                user: *user,
                dir: dir.to_owned(),
                to: to.clone(),
                talk: Arc::clone(&talk),
                random: fastrand::Rng::with_seed(seed ^ user),
                acked: Vec::new(),
                seen: BTreeMap::new(),
                cursor: Seq(0),
                open: None,
            };
            std::thread::spawn(move || talker.run())
        })
        .collect();
    let progress = |nodes: &mut Vec<Gateway>| {
        let before = talk.acked.load(Ordering::Relaxed);
        nodes[0].wait_until("users are acked again", |_| talk.acked.load(Ordering::Relaxed) > before + 30);
    };
    for round in 0..8 {
        progress(&mut nodes);
        lose_data(round, &mut random, &mut ledger, &mut nodes, (&dirs, &database), &progress);
    }
    progress(&mut nodes);
    talk.ends.store(true, Ordering::Relaxed);
    let talkers: Vec<Talker> = talkers.into_iter().map(|talker| talker.join().unwrap()).collect();
    // Each node makes again what it had submitted, and none waits for the others.
    let rows_of = |talker: &Talker| -> usize {
        let rows = |to: &Conversation| match to {
            Conversation::Group(_) => users.len(),
            Conversation::User(to) => 2 - usize::from(*to == UserId(talker.user)),
        };
        talker.acked.iter().map(|(.., to)| rows(to)).sum()
    };
    wait_for_rows(&database, talkers.iter().map(rows_of).sum::<usize>() as u64);
    let last = "the very last";
    for user in &users {
        send(&mut nodes[0].client(100, *user, None), Conversation::User(UserId(*user)), last);
    }
    check_inboxes(&nodes, group, &talkers, last);
}

/// Every talker's inbox has what was acked to somebody and is his, on every node, once.
fn check_inboxes(nodes: &[Gateway], group: GroupId, talkers: &[Talker], last: &str) {
    for talker in talkers {
        let due: BTreeSet<(MsgId, String)> = talkers
            .iter()
            .flat_map(|other| other.acked.iter().map(move |acked| (other.user, acked)))
            .filter(|(sender, (.., to))| {
                let mine = [Conversation::Group(group), Conversation::User(UserId(talker.user))];
                *sender == talker.user || mine.contains(to)
            })
            .map(|(_, (msg_id, body, _))| (*msg_id, body.clone()))
            .collect();
        let mut seen = talker.seen.clone();
        for gateway in nodes {
            let inbox = rows_until(&mut gateway.client(talker.user, 7, Some(Seq(0))), last);
            check_numbers(&mut seen, &inbox, gateway);
            let mut told = told(&inbox);
            assert_eq!(told.len(), inbox.len(), "user {}: a message is in the inbox twice", talker.user);
            told.retain(|(_, body)| body != last);
            assert_eq!(told, due, "user {}\n{}", talker.user, gateway.log());
        }
    }
}
