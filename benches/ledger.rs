//! The ledger's ceiling: numbering, the de-duplication window, and the journal with a real `fdatasync`.
//!
//! `cargo bench --bench ledger`. The real disk is the one that holds the target directory. What is measured
//! includes all that a commit does, encoding the pushes too; it leaves out the threads around the ledger.

#![expect(clippy::unwrap_used, reason = "a benchmark stops where it fails")]

use std::cell::Cell;
use std::io;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use divan::Bencher;
use divan::counter::ItemsCount;

use ringway::clock::Now;
use ringway::contract::delivery::Delivery;
use ringway::contract::ids::Origin;
use ringway::contract::message::{Incoming, Roster};
use ringway::contract::progress::Progress;
use ringway::contract::store::StorePosition;
use ringway::contract::submission::{ChangeSubmission, GroupChange, MessageSubmission, Submission};
use ringway::contract::traffic::TrafficLimits;
use ringway::journal::disk::{Directory, Disk, DiskFile};
use ringway::ledger::Engine;
use ringway::ledger::dedup::{Known, Name, Window};
use ringway::ledger::journal_engine::{JournalEngine, Settings};
use ringway::ledger::sequence::MsgIdSource;
use ringway::ledger::start::Start;
use ringway::rate::Rate;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, Seq, UserId};
use ringway_wire::request::Adding;

/// Limits that are looked at and never met: time stands still here, or nearly so.
const NEVER_MET: TrafficLimits = TrafficLimits::all(Rate::new(64_000_000, u32::MAX));
const TIME: u64 = 1_800_000_000_000;
const BODY: [u8; 100] = [7; 100];
/// Messages a commit takes in the benchmarks without a disk.
const COMMIT_MESSAGES: u64 = 100;

fn main() {
    divan::main();
}

/// A disk that takes everything and keeps nothing.
#[derive(Clone, Debug)]
struct NoDisk;

impl Disk for NoDisk {
    type File = NoDisk;
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(Vec::new())
    }
    fn create(&self, _: &str, _: u64) -> io::Result<NoDisk> {
        Ok(NoDisk)
    }
    fn open(&self, _: &str) -> io::Result<NoDisk> {
        Ok(NoDisk)
    }
    fn remove(&self, _: &str) -> io::Result<()> {
        Ok(())
    }
}

impl DiskFile for NoDisk {
    fn read_at(&self, _: u64, _: &mut [u8]) -> io::Result<usize> {
        Ok(0)
    }
    fn write_at(&self, _: u64, bytes: &[u8]) -> io::Result<()> {
        divan::black_box(bytes);
        Ok(())
    }
    fn sync(&self) -> io::Result<()> {
        Ok(())
    }
    fn size(&self) -> io::Result<u64> {
        Ok(0)
    }
}

struct Ledger<D: Disk> {
    engine: JournalEngine<D>,
    progress: Arc<Progress>,
    rosters: Vec<Arc<Roster>>,
    out: Vec<Vec<Delivery>>,
    body: Arc<[u8]>,
    sent: u64,
}

impl<D: Disk> Ledger<D> {
    /// A ledger with groups of `members`, each of other users of a million.
    fn new(disk: D, groups: u64, members: u64) -> Self {
        let settings = Settings { journal_bytes_max: u64::MAX, traffic: NEVER_MET, ..Settings::new(1, 1) };
        let progress = Arc::new(Progress::default());
        let now = Now { mono_ms: 0, unix_ms: TIME };
        let mut start = Start::new(settings, StorePosition::default());
        for user in 0..1_000_000 {
            start.newest_row(ringway::contract::store::NewestRow { user: UserId(user), seq: Seq(user % 1_000) });
        }
        let (mut engine, _) = start.finish(disk, progress.clone(), now).unwrap();
        let mut rng = fastrand::Rng::with_seed(1);
        for group in 0..groups {
            let actor = UserId(group);
            let users = (1..members).map(|_| UserId(rng.u64(..1_000_000))).collect();
            let change = GroupChange::Create(users);
            engine.submit(
                now,
                Submission::Change(ChangeSubmission { origin: Origin::default(), actor, change, adding: Adding::All }),
            );
        }
        let mut out = vec![Vec::new()];
        engine.commit(now, &mut out).unwrap();
        let rosters = out[0].drain(..).filter_map(|delivery| match delivery {
            Delivery::Changed { roster, .. } => Some(roster),
            _ => None,
        });
        let rosters = rosters.collect();
        Ledger { engine, progress, rosters, out, body: BODY[..].into(), sent: 0 }
    }

    fn now(&self) -> Now {
        Now { mono_ms: 0, unix_ms: TIME + self.sent / 500 }
    }

    fn send(&mut self) {
        self.sent += 1;
        let roster = self.rosters[self.sent as usize % self.rosters.len()].clone();
        let (sender, to) = (roster.members()[0].user, Conversation::Group(roster.group));
        self.submit(sender, to);
    }

    fn send_direct(&mut self) {
        self.sent += 1;
        let to = Conversation::User(UserId(self.sent * 7 % 1_000_000));
        self.submit(UserId(self.sent % 1_000_000), to);
    }

    fn submit(&mut self, sender: UserId, to: Conversation) {
        let name = ClientMsgId::from_parts(self.now().unix_ms, u128::from(self.sent) << 16);
        let incoming = Incoming::new(Origin::default(), sender, to, name, &self.body);
        let submission = MessageSubmission { incoming };
        self.engine.submit(self.now(), Submission::Message(submission));
    }

    fn commit(&mut self) {
        self.engine.commit(self.now(), &mut self.out).unwrap();
        self.out[0].clear();
        self.progress.advance_applied(self.engine.tail().into());
        self.progress.advance_secured(self.engine.tail());
    }
}

/// Everything but the disk, per message.
#[divan::bench(args = [1, 100], sample_count = 50, sample_size = 20)]
fn number_messages_to_500(bencher: Bencher<'_, '_>, groups: u64) {
    let mut ledger = Ledger::new(NoDisk, groups, 500);
    bencher.counter(ItemsCount::new(COMMIT_MESSAGES)).bench_local(|| {
        (0..COMMIT_MESSAGES).for_each(|_| ledger.send());
        ledger.commit();
    });
}

#[divan::bench(sample_count = 50, sample_size = 20)]
fn number_direct_messages(bencher: Bencher<'_, '_>) {
    let mut ledger = Ledger::new(NoDisk, 1, 2);
    bencher.counter(ItemsCount::new(COMMIT_MESSAGES)).bench_local(|| {
        (0..COMMIT_MESSAGES).for_each(|_| ledger.send_direct());
        ledger.commit();
    });
}

/// The whole commit of so many messages to 500, `fdatasync` included.
#[divan::bench(args = [1, 16, 100], sample_count = 200, sample_size = 1)]
fn commit_messages_to_500_durably(bencher: Bencher<'_, '_>, messages: u64) {
    let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("journal-{messages}"));
    std::fs::remove_dir_all(&path).ok();
    let mut ledger = Ledger::new(Directory::open(&path).unwrap(), 1, 500);
    bencher.counter(ItemsCount::new(messages)).bench_local(|| {
        (0..messages).for_each(|_| ledger.send());
        ledger.commit();
    });
    let counters = ledger.engine.counters();
    let bytes_a_message = counters.bytes / counters.messages;
    eprintln!(
        "  {messages}: {bytes_a_message} journal bytes a message, {} µs a sync",
        counters.syncs.sum_us() / counters.commits
    );
    std::fs::remove_dir_all(&path).ok();
}

fn window() -> (Window, Vec<Name>) {
    let mut window = Window::new(1, 0);
    let mut ids = MsgIdSource::new(0, MsgId(0));
    let names = (0..1_000_000u64).map(|at| {
        let sender = UserId(at % 50_000);
        let name = Name { sender, client_msg_id: ClientMsgId::from_parts(TIME, u128::from(at) << 16) };
        window.insert(name, Known { msg_id: ids.next(TIME + at / 4_000), seq: Seq(at), digest: at });
        name
    });
    let names = names.collect();
    (window, names)
}

/// Among a million entries: a repeat, and a name that is new.
#[divan::bench(args = [0, 1], sample_count = 50, sample_size = 10_000)]
fn look_up_in_the_window(bencher: Bencher<'_, '_>, new: u64) {
    let (window, names) = window();
    let at = Rc::new(Cell::new(0usize));
    bencher.bench_local(|| {
        at.set((at.get() + 7_919) % names.len());
        let mut name = names[at.get()];
        name.sender.0 += new * 1_000_000;
        window.seen(&name, TIME)
    });
}
