//! The process under test: shards, ledger, store and the bounded mailboxes between them, without threads.
//!
//! Owned by the world, dropped whole at a crash. What always holds: each mailbox is a FIFO with the bound it
//! has in the real gateway or a tighter one; a full one hands back; the ledger commits only when every shard has
//! room. Which mailbox goes on next is chance. What stays over a crash is in [`Durable`].

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::vec;

use futures_lite::future::block_on;
use ringway::auth::Authenticator;
use ringway::clock::Now;
use ringway::contract::delivery::Delivery;
use ringway::contract::ids::{ConnId, Origin, SessionRef, ShardId};
use ringway::contract::lane::{HandedOver, LaneEnvelope};
use ringway::contract::message::Incoming;
use ringway::contract::nodes::ToNodes;
use ringway::contract::progress::Progress;
use ringway::contract::store::{Lookup, LookupAnswer, LookupFound, PagePurpose, StoreAnswer, StoreAsk};
use ringway::contract::submission::{MessageSubmission, Submission};
use ringway::ledger::Engine;
use ringway::ledger::journal_engine::JournalEngine;
use ringway::ledger::start::{Start, StartError};
use ringway::shard::Shard;
use ringway::shard::effects::Closed;
use ringway::shard::route::Outlets;
use ringway::store::keeper::{Keeper, Turn};
use ringway::store::{Store, StoreError};
use ringway_wire::ids::{GroupId, Seq, UserId};
use ringway_wire::schema::CloseReason;

use crate::check::StoredRow;
use crate::disk::SimDisk;
use crate::events::Events;
use crate::model::{Checked, Violation, violated};
use crate::mutation::Mutation;
use crate::plan::{Plan, SECRET};
use crate::random::Random;
use crate::store::{Database, SimStore};

/// What outlives the process.
#[derive(Clone)]
pub(crate) struct Durable {
    pub disk: SimDisk,
    pub database: Database,
}

/// What crosses a lane: the core's envelopes, and connections (by their place in the world).
pub(crate) enum Lane {
    Core(LaneEnvelope),
    Connection(usize, HandedOver),
}

/// What waits for one shard.
#[derive(Default)]
pub(crate) struct Mailbox {
    commits: VecDeque<Vec<Delivery>>,
    /// What is left of the commit being handed in.
    commit: vec::IntoIter<Delivery>,
    answers: VecDeque<StoreAnswer>,
    /// One for each shard that sends.
    lanes: Vec<VecDeque<Lane>>,
}

/// The process.
pub(crate) struct Gateway {
    pub shards: Vec<Shard>,
    pub mail: Vec<Mailbox>,
    engine: JournalEngine<SimDisk>,
    keeper: Keeper<SimStore, SimDisk>,
    submissions: VecDeque<Submission>,
    asks: VecDeque<StoreAsk>,
    lookups: VecDeque<Lookup>,
    found: VecDeque<LookupAnswer>,
    retry_at_ms: u64,
    /// The store had nothing to apply when it last looked.
    store_is_idle: bool,
    durable: Durable,
    plan: Plan,
    random: Random,
    events: Events,
}

/// What a shard wants of its sockets.
#[derive(Default)]
pub(crate) struct SocketWork {
    pub dirty: Vec<ConnId>,
    pub cuts: Vec<ConnId>,
    pub handovers: Vec<(ConnId, ShardId, HandedOver)>,
    /// Connections whose shard has no room for them, with what their peers are told.
    pub refused: Vec<(ConnId, Vec<u8>)>,
}

/// What one shard's effects go to: bounded as the plan says.
struct Wires<'a> {
    from: usize,
    mail: &'a mut [Mailbox],
    submissions: &'a mut VecDeque<Submission>,
    asks: &'a mut VecDeque<StoreAsk>,
    plan: &'a Plan,
    work: SocketWork,
}

fn put<T>(queue: &mut VecDeque<T>, max: usize, what: T) -> Result<(), T> {
    if queue.len() >= max {
        return Err(what);
    }
    queue.push_back(what);
    Ok(())
}

impl Outlets for Wires<'_> {
    type Peer = ConnId;

    fn submit(&mut self, submission: Submission) -> Result<(), Submission> {
        put(self.submissions, self.plan.submissions_max, submission)
    }

    fn cross(&mut self, to: ShardId, envelope: LaneEnvelope) -> Result<(), LaneEnvelope> {
        let lane = &mut self.mail[usize::from(to.0)].lanes[self.from];
        put(lane, self.plan.lane_max, Lane::Core(envelope)).map_err(|refused| match refused {
            Lane::Core(envelope) => envelope,
            Lane::Connection(..) => unreachable!("it was an envelope"),
        })
    }

    fn ask(&mut self, ask: StoreAsk) -> Result<(), StoreAsk> {
        put(self.asks, self.plan.asks_max, ask)
    }

    /// There is no cluster here.
    fn notify_nodes(&mut self, envelope: ToNodes) -> Result<(), ToNodes> {
        Err(envelope)
    }

    fn hand_over(&mut self, conn: ConnId, to: ShardId, session: HandedOver) -> Result<(), (ConnId, HandedOver)> {
        if self.mail[usize::from(to.0)].lanes[self.from].len() >= self.plan.lane_max {
            return Err((conn, session));
        }
        self.work.handovers.push((conn, to, session));
        Ok(())
    }

    fn refuse(&mut self, _: Now, conn: ConnId, _: CloseReason, last: &[u8]) {
        self.work.refused.push((conn, last.to_vec()));
    }

    /// What a socket has taken is as good as read.
    fn unacknowledged(&mut self, _: ConnId) -> Option<u64> {
        None
    }

    fn closed(&mut self, _: &Closed) {}

    /// The world looks at every connection anyway.
    fn resume(&mut self, _: ConnId) {}

    fn cut(&mut self, conn: ConnId) {
        self.work.cuts.push(conn);
    }

    fn write(&mut self, dirty: &mut Vec<ConnId>) {
        self.work.dirty.append(dirty);
    }

    fn wake(&mut self) {}
}

impl Gateway {
    /// Starts on what the last process left: real recovery, real start. The error is why it refused.
    pub(crate) fn start(
        now: Now,
        durable: &Durable,
        plan: &Plan,
        random: &Random,
        events: &Events,
    ) -> Result<Gateway, String> {
        let mut store = SimStore::new(durable.database.clone());
        let progress = Arc::new(Progress::default());
        let begun = block_on(ask_store(&mut store, plan, random)).map_err(|error| error.to_string())?;
        let (engine, _) =
            begun.finish(durable.disk.clone(), progress.clone(), now).map_err(|error: StartError| error.to_string())?;
        let keeper = Keeper::new(store, durable.disk.clone(), progress, random.bits() as u64);
        let shard = |id| Shard::new(plan.shard_config(ShardId(id)), Authenticator::hs256(SECRET));
        let mailbox = |_| Mailbox { lanes: (0..plan.shards).map(|_| VecDeque::new()).collect(), ..Mailbox::default() };
        Ok(Gateway {
            shards: (0..plan.shards).map(shard).collect(),
            mail: (0..plan.shards).map(mailbox).collect(),
            engine,
            keeper,
            submissions: VecDeque::new(),
            asks: VecDeque::new(),
            lookups: VecDeque::new(),
            found: VecDeque::new(),
            retry_at_ms: 0,
            store_is_idle: false,
            durable: durable.clone(),
            plan: plan.clone(),
            random: random.clone(),
            events: events.clone(),
        })
    }

    /// Adds what this process counted: a run in which something never happened says nothing about it.
    pub(crate) fn tally(&self, reached: &mut BTreeMap<&'static str, u64>) {
        let ledger = self.engine.counters();
        let mut add = |what, count| *reached.entry(what).or_default() += count;
        add("repeats", ledger.repeats);
        add("look-ups", ledger.lookups);
        add("bounced", ledger.bounced);
        add("storage full", ledger.storage_full);
        add("rows applied", self.keeper.counters().rows);
        for shard in self.shards.iter().map(Shard::counters) {
            add("handed over", shard.handed_over_total);
            add("caught up", shard.pushes_caught_up_total);
            add("live", shard.pushes_live_total);
            add("ephemeral", shard.pushes_ephemeral_total);
            add("fell behind", shard.fell_behind_total);
            add("evicted", shard.closes_total[usize::from(CloseReason::SlowReader.0)]);
            add("shed submissions", shard.shed.submissions);
            add("shed lanes", shard.shed.lanes);
            add("shed asks", shard.shed.store_asks);
        }
    }

    /// Nothing is on its way between the threads.
    pub(crate) fn is_quiet(&self) -> bool {
        let mailbox = |m: &Mailbox| {
            m.commits.is_empty() && m.commit.len() == 0 && m.answers.is_empty() && m.lanes.iter().all(|l| l.is_empty())
        };
        self.mail.iter().all(mailbox)
            && self.submissions.is_empty()
            && self.asks.is_empty()
            && self.lookups.is_empty()
            && self.found.is_empty()
            && self.store_is_idle
    }

    /// How much waits, to be printed.
    pub(crate) fn waiting(&self) -> String {
        let commits: Vec<usize> = self.mail.iter().map(|m| m.commits.len()).collect();
        let answers: Vec<usize> = self.mail.iter().map(|m| m.answers.len()).collect();
        format!(
            "commits {commits:?}, answers {answers:?}, submissions {}, asks {}, lookups {}, found {}, store idle {}",
            self.submissions.len(),
            self.asks.len(),
            self.lookups.len(),
            self.found.len(),
            self.store_is_idle
        )
    }

    /// Moves what a shard wants done to where it goes; returns what concerns its sockets.
    pub(crate) fn route(&mut self, now: Now, at: usize) -> SocketWork {
        let mut wires = Wires {
            from: at,
            mail: &mut self.mail,
            submissions: &mut self.submissions,
            asks: &mut self.asks,
            plan: &self.plan,
            work: SocketWork::default(),
        };
        self.shards[at].route(now, &mut wires);
        wires.work
    }

    /// Puts a handed-over connection on its lane.
    pub(crate) fn hand_over(&mut self, from: usize, to: ShardId, connection: usize, handed: HandedOver) {
        self.mail[usize::from(to.0)].lanes[from].push_back(Lane::Connection(connection, handed));
    }

    /// A shard takes one item out of its mailbox, from a source that chance picks. Returns a connection that
    /// arrived.
    pub(crate) fn shard_turn(&mut self, now: Now, at: usize) -> Option<(usize, HandedOver)> {
        let (mail, shard) = (&mut self.mail[at], &mut self.shards[at]);
        let mut sources: Vec<usize> = Vec::new();
        sources.extend((mail.commit.len() > 0 || !mail.commits.is_empty()).then_some(0));
        sources.extend((!mail.answers.is_empty()).then_some(1));
        sources.extend(mail.lanes.iter().zip(2..).filter(|(lane, _)| !lane.is_empty()).map(|(_, source)| source));
        match *self.random.pick(&sources)? {
            0 => {
                if mail.commit.len() == 0 {
                    mail.commit = mail.commits.pop_front()?.into_iter();
                }
                // The rest of it later: whatever happens meanwhile must make no difference.
                shard.deliver_next(now, &mut mail.commit);
            }
            1 => shard.stored(now, mail.answers.pop_front()?),
            lane => match mail.lanes[lane - 2].pop_front()? {
                Lane::Core(envelope) => shard.lane(now, envelope),
                Lane::Connection(connection, handed) => return Some((connection, handed)),
            },
        }
        None
    }

    /// The ledger takes what waits, up to a limit, and commits.
    pub(crate) fn ledger_turn(&mut self, now: Now) -> Checked {
        while let Some(answer) = self.found.pop_front() {
            self.engine.found(now, answer);
        }
        if self.mail.iter().any(|m| m.commits.len() >= self.plan.commits_max) {
            return Ok(());
        }
        let take = 1 + self.random.below(self.plan.commit_submissions_max);
        for _ in 0..take {
            if self.engine.full() {
                break;
            }
            let Some(submission) = self.submissions.pop_front() else { break };
            self.events.note(format!("the ledger takes {}", brief_submission(&submission)));
            if let Some(twin) = self.plan.mutation.twin(&submission) {
                self.engine.submit(now, twin);
            }
            self.engine.submit(now, submission);
        }
        let mut out: Vec<Vec<Delivery>> = self.mail.iter().map(|_| Vec::new()).collect();
        let committed = self.engine.commit(now, &mut out);
        if committed.is_err() || self.durable.disk.is_dead() {
            self.events.note(format!("the ledger dies in a commit: {committed:?}"));
            // The process stops here: nobody hears of this commit.
            self.durable.disk.die();
            return Ok(());
        }
        if self.plan.mutation != Mutation::LyingDisk
            && out.iter().flatten().any(shows)
            && self.durable.disk.has_unsynced()
        {
            return violated!("I1: the ledger hands out, and the journal is not synced");
        }
        for (mail, mut deliveries) in self.mail.iter_mut().zip(out) {
            for delivery in &mut deliveries {
                self.plan.mutation.distort(delivery);
                self.events.note(format!("the ledger hands out {}", brief_delivery(delivery)));
            }
            if !deliveries.is_empty() {
                mail.commits.push_back(deliveries);
            }
        }
        let mut lookups = Vec::new();
        self.engine.take_lookups(&mut lookups);
        for lookup in lookups {
            self.events.note(format!("the ledger asks for {:?} of {}", lookup.client_msg_id, lookup.sender));
            if self.lookups.len() < self.plan.asks_max {
                self.lookups.push_back(lookup);
            } else {
                self.found.push_back(LookupAnswer { lookup, found: LookupFound::Unavailable });
            }
        }
        Ok(())
    }

    /// The store answers one question, or applies.
    pub(crate) fn store_turn(&mut self, now: Now) {
        match self.random.below(3) {
            0 if !self.asks.is_empty() => {
                let Some(ask) = self.asks.pop_front() else { return };
                if let Some((shard, answer)) = block_on(self.keeper.ask(ask)) {
                    self.mail[usize::from(shard.0)].answers.push_back(answer);
                }
            }
            1 if !self.lookups.is_empty() => {
                let Some(lookup) = self.lookups.pop_front() else { return };
                let answer = block_on(self.keeper.lookup(lookup));
                self.events.note(format!("the store finds {:?} for {:?}", answer.found, lookup.client_msg_id));
                self.found.push_back(answer);
            }
            _ if self.random.chance(1, 30) => block_on(self.keeper.secure(now)),
            _ if now.mono_ms >= self.retry_at_ms => {
                let turn = block_on(self.keeper.turn(now));
                self.store_is_idle = matches!(turn, Turn::Idle);
                if !self.store_is_idle {
                    self.events.note(format!("the store: {turn:?}"));
                }
                if let Turn::RetryAt(at_ms) = turn {
                    self.retry_at_ms = at_ms;
                }
            }
            _ => {}
        }
    }

    /// Every user's whole inbox, as readers of the store see it.
    pub(crate) fn inboxes(&mut self, users: &[UserId]) -> Result<BTreeMap<UserId, Vec<StoredRow>>, Violation> {
        users.iter().map(|user| self.inbox(*user).map(|rows| (*user, rows))).collect()
    }

    fn inbox(&mut self, user: UserId) -> Result<Vec<StoredRow>, Violation> {
        let mut rows: Vec<StoredRow> = Vec::new();
        loop {
            let after = Seq(rows.last().map_or(0, |row| row.seq));
            let session = SessionRef::default();
            let ask = StoreAsk::Page { session, purpose: PagePurpose::CatchUp, user, after, rows_max: 256 };
            let page = match block_on(self.keeper.ask(ask)) {
                Some((_, StoreAnswer::Page { page, .. })) => page,
                other => return violated!("reading the inbox of {user} after {after}: {other:?}"),
            };
            if page.rows.is_empty() {
                return Ok(rows);
            }
            rows.extend(page.rows.iter().map(|(seq, message)| StoredRow {
                seq: seq.0,
                msg_id: message.msg_id,
                sender: message.sender,
                to: message.to,
                sent_at_ms: message.sent_at_ms,
                body: message.push.body().to_vec(),
            }));
        }
    }

    /// Every group that one of `users` is in, with its version and members, as the ledger has them.
    pub(crate) fn rosters(&mut self, now: Now, users: &[UserId]) -> BTreeMap<GroupId, (u32, BTreeSet<UserId>)> {
        let (origin, shards) = (Origin::default(), self.plan.shards);
        let mut groups = BTreeSet::new();
        for delivery in self.ask_ledger(now, users.iter().map(|user| Submission::Groups { origin, user: *user })) {
            if let Delivery::Groups { groups: entries, .. } = delivery {
                groups.extend(entries.iter().map(|entry| entry.group));
            }
        }
        let ask = groups.into_iter().map(|group| Submission::Roster { shard: ShardId::of_group(group, shards), group });
        let answers = self.ask_ledger(now, ask);
        let rosters = answers.into_iter().filter_map(|delivery| match delivery {
            Delivery::Roster { group, roster: Some(roster) } => {
                let members = roster.members().iter().map(|member| member.user).collect();
                Some((group, (roster.version.0, members)))
            }
            _ => None,
        });
        rosters.collect()
    }

    fn ask_ledger(&mut self, now: Now, asks: impl Iterator<Item = Submission>) -> Vec<Delivery> {
        let mut out: Vec<Vec<Delivery>> = self.mail.iter().map(|_| Vec::new()).collect();
        asks.for_each(|ask| self.engine.submit(now, ask));
        if self.engine.commit(now, &mut out).is_err() {
            return Vec::new();
        }
        out.into_iter().flatten().collect()
    }
}

/// What the ledger needs to know of the store before it reads the journal.
async fn ask_store(store: &mut SimStore, plan: &Plan, random: &Random) -> Result<Start, StoreError> {
    let settings = plan.ledger_settings(random.bits() as u64);
    let mut start = Start::new(settings, store.position().await?);
    store.newest_rows(&mut |row| start.newest_row(row)).await?;
    store.groups(&mut |group| start.group(&group)).await?;
    Ok(start)
}

/// Whether somebody learns of something new from it. (A repeat was durable before; behind it the remains of a
/// failed write may wait to be overwritten.)
fn shows(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Group { .. } | Delivery::Direct { .. } | Delivery::Changed { .. })
}

fn brief_submission(submission: &Submission) -> String {
    match submission {
        Submission::Message(MessageSubmission { incoming, roster_version, .. }) => {
            let Incoming { client_msg_id, sender, to, .. } = incoming;
            format!("{client_msg_id:?} of {sender} to {to:?} version {roster_version}")
        }
        other => format!("{other:?}"),
    }
}

fn brief_delivery(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Direct { message, sender_seq, recipient_seq, .. } => {
            format!("{:?} as {:?}: {sender_seq:?} {recipient_seq:?}", message.client_msg_id, message.msg_id)
        }
        Delivery::Group { message, roster, seqs, .. } => {
            let rows: Vec<_> = roster.members().iter().map(|m| m.user.0).zip(seqs.iter().map(|seq| seq.0)).collect();
            format!("{:?} as {:?}, version {}: {rows:?}", message.client_msg_id, message.msg_id, roster.version)
        }
        other => format!("{other:?}"),
    }
}
