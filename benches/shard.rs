//! The shard's core: one group message into 300 outboxes, and the timing wheel.
//!
//! `cargo bench --bench shard`. Whole shards through their public face; the ledger is played by this file.

use std::cell::RefCell;
use std::sync::Arc;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};

use ringway::auth::{Authenticator, mint_hs256};
use ringway::clock::Now;
use ringway::contract::delivery::Delivery;
use ringway::contract::ids::{ConnId, LedgerSlot, Origin, PeerAddress, ShardId};
use ringway::contract::message::{Message, Roster, RosterMember};
use ringway::contract::submission::Submission;
use ringway::contract::traffic::TrafficLimits;
use ringway::rate::Rate;
use ringway::shard::Shard;
use ringway::shard::config::ShardConfig;
use ringway::shard::wheel::Wheel;
use ringway_wire::frame::{Encoder, PushFrame};
use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;

/// Limits that are looked at and never met: time stands still here, or nearly so.
const NEVER_MET: TrafficLimits = TrafficLimits::all(Rate::new(64_000_000, u32::MAX));
const SECRET: &[u8] = b"a secret that is long enough for benchmarks";
const NOW: Now = Now { mono_ms: 1_000, unix_ms: 1_800_000_000_000 };
const MEMBERS: u64 = 500;
const ONLINE: u64 = 300;
const GROUP: GroupId = GroupId(1);

fn main() {
    divan::main();
}

/// A group of 500, 300 of them online on one shard among `others` sessions of strangers.
struct Room {
    shard: Shard,
    roster: Arc<Roster>,
    seq: u64,
    body: Vec<u8>,
}

impl Room {
    fn new(others: u64, body_bytes: usize) -> Self {
        let mut shard = Shard::new(
            ShardConfig { traffic: NEVER_MET, ..ShardConfig::new(ShardId(0), 1) },
            Authenticator::hs256(SECRET),
        );
        // The members' sessions lie among the others, as they do in a gateway that runs.
        let stride = others / ONLINE + 1;
        for at in 0..ONLINE * stride {
            let user = if at % stride == 0 { at / stride } else { 1_000_000 + at };
            login(&mut shard, UserId(user));
        }
        let member = |user| RosterMember { user: UserId(user), slot: LedgerSlot(user as u32), role: Role::Member };
        let roster = Arc::new(Roster::new(GROUP, RosterVersion(1), (0..MEMBERS).map(member).collect(), 1));
        let mut room = Room { shard, roster, seq: 0, body: vec![b'x'; body_bytes] };
        let delivery = room.next();
        room.shard.deliver(NOW, delivery);
        room.drain();
        room
    }

    fn next(&mut self) -> Delivery {
        self.seq += 1;
        let (msg_id, sender, to) = (MsgId(self.seq), UserId(0), Conversation::Group(GROUP));
        let push = PushFrame::encode(msg_id, sender, to, NOW.unix_ms, &self.body);
        let client_msg_id = ClientMsgId::default();
        let message = Arc::new(Message { msg_id, sender, to, client_msg_id, sent_at_ms: NOW.unix_ms, push });
        let seqs: Arc<[Seq]> = (0..MEMBERS).map(|_| Seq(self.seq)).collect();
        Delivery::Group { message, roster: Arc::clone(&self.roster), seqs, origin: Origin::default() }
    }

    /// Everything waiting was written.
    fn drain(&mut self) {
        let dirty: Vec<ConnId> = std::mem::take(&mut self.shard.effects().dirty);
        assert_eq!(dirty.len() as u64, ONLINE, "every member online has something to read");
        for conn in dirty {
            self.shard.written(NOW, conn, usize::MAX);
        }
    }
}

fn login(shard: &mut Shard, user: UserId) {
    let Ok(conn) = shard.accept(NOW, PeerAddress::default()) else { return };
    let token = mint_hs256(SECRET, user, None, NOW.unix_ms / 1000 + 3_600);
    let mut frame = Encoder::new().login(1, &token, DeviceId(1), Some(Seq(0))).to_vec();
    shard.receive(NOW, conn, &mut frame);
    while let Some(submission) = shard.effects().submissions.pop_front() {
        if let Submission::Position { origin, .. } = submission {
            shard.deliver(NOW, Delivery::Position { origin, newest: Seq(0), given: Seq(0) });
        }
    }
    shard.written(NOW, conn, usize::MAX);
    *shard.effects() = Default::default();
}

/// One message, the outboxes empty before: this is the paced case.
#[divan::bench(args = [0, 20_000], sample_size = 1, sample_count = 2_000)]
fn fan_out_into_300_empty_outboxes(bencher: Bencher<'_, '_>, others: u64) {
    let room = RefCell::new(Room::new(others, 100));
    bencher
        .counter(ItemsCount::new(ONLINE))
        .with_inputs(|| {
            let room = &mut *room.borrow_mut();
            if !room.shard.effects().is_empty() {
                room.drain();
            }
            room.next()
        })
        .bench_local_values(|delivery| room.borrow_mut().shard.deliver(NOW, delivery));
}

/// Twenty messages in one turn, as in a burst.
#[divan::bench(args = [0, 20_000], sample_size = 1, sample_count = 500)]
fn fan_out_of_20_messages_into_300_outboxes(bencher: Bencher<'_, '_>, others: u64) {
    let room = RefCell::new(Room::new(others, 100));
    bencher
        .counter(ItemsCount::new(20 * ONLINE))
        .with_inputs(|| {
            let room = &mut *room.borrow_mut();
            if !room.shard.effects().is_empty() {
                room.drain();
            }
            (0..20).map(|_| room.next()).collect::<Vec<_>>()
        })
        .bench_local_values(|deliveries| {
            let room = &mut *room.borrow_mut();
            for delivery in deliveries {
                room.shard.deliver(NOW, delivery);
            }
        });
}

/// One message and the end of its writes: what a delivery costs the core altogether.
#[divan::bench(sample_size = 1, sample_count = 2_000)]
fn fan_out_and_drain_300_outboxes(bencher: Bencher<'_, '_>) {
    let room = RefCell::new(Room::new(0, 100));
    bencher.counter(ItemsCount::new(ONLINE)).with_inputs(|| room.borrow_mut().next()).bench_local_values(|delivery| {
        let room = &mut *room.borrow_mut();
        room.shard.deliver(NOW, delivery);
        room.drain();
    });
}

/// Timers of a shard with half a million connections.
const TIMERS: u32 = 500_000;

fn wheel() -> Wheel {
    let mut wheel = Wheel::default();
    for id in 0..TIMERS {
        wheel.arm(id, 1 + id % 4_700);
    }
    wheel
}

#[divan::bench(sample_count = 200, sample_size = 1_000)]
fn wheel_moves_one_timer(bencher: Bencher<'_, '_>) {
    let mut wheel = wheel();
    let mut random = fastrand::Rng::with_seed(1);
    bencher.bench_local(move || {
        let id = random.u32(0..TIMERS);
        wheel.arm(black_box(id), 1 + id % 4_700);
    });
}

#[divan::bench(sample_count = 200, sample_size = 1_000)]
fn wheel_arms_and_cancels_one_timer(bencher: Bencher<'_, '_>) {
    let mut wheel = wheel();
    bencher.bench_local(move || {
        wheel.arm(black_box(TIMERS + 1), 4_000);
        wheel.cancel(black_box(TIMERS + 1));
    });
}

/// One tick: the hundred or so timers that are due come out and are armed again.
#[divan::bench(sample_count = 2_000, sample_size = 1)]
fn wheel_turns_one_tick_of_500_000_timers(bencher: Bencher<'_, '_>) {
    let mut wheel = wheel();
    let mut now = 0;
    let mut due = Vec::new();
    bencher.bench_local(move || {
        now += 1;
        wheel.advance(now, &mut due);
        for id in due.drain(..) {
            wheel.arm(id, now + 4_700);
        }
    });
}
