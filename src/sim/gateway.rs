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
use ringway::contract::ids::{Origin, SessionRef, ShardId};
use ringway::contract::keyed::TableKey;
use ringway::contract::lane::{HandedOver, LaneEnvelope};
use ringway::contract::progress::Progress;
use ringway::contract::store::{Lookup, LookupAnswer, LookupFound, PagePurpose, StoreAnswer, StoreAsk};
use ringway::contract::submission::Submission;
use ringway::ledger::Engine;
use ringway::ledger::fair_queue::FairQueue;
use ringway::ledger::start::{Start, StartError};
use ringway::shard::Shard;
use ringway::store::keeper::{Keeper, Turn};
use ringway::store::{Store, StoreError};
use ringway_wire::ids::{GroupId, Seq, UserId};
use ringway_wire::schema::CloseReason;

use crate::brief::{brief_delivery, brief_submission, shows};
use crate::check::StoredRow;
use crate::disk::SimDisk;
use crate::events::Events;
use crate::model::{Checked, Violation, violated};
use crate::mutation::Mutation;
use crate::plan::{Plan, ROOMY, SECRET};
use crate::random::Random;
use crate::store::{Database, Sharing, SimStore};
use crate::wires::{SocketWork, Wires};

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
    pub lanes: Vec<VecDeque<Lane>>,
}

/// When what was handed in is on the gateway's own disk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Syncs {
    /// Before anything of it is handed out.
    BeforeShowing,
    /// Before Redis hears of it.
    BeforeCalling,
}

/// The process.
pub(crate) struct Gateway {
    pub shards: Vec<Shard>,
    pub mail: Vec<Mailbox>,
    engine: Box<dyn Engine>,
    keeper: Keeper<SimStore, SimDisk>,
    submissions: FairQueue,
    asks: VecDeque<StoreAsk>,
    lookups: VecDeque<Lookup>,
    found: VecDeque<LookupAnswer>,
    retry_at_ms: u64,
    /// The store had nothing to apply when it last looked.
    store_is_idle: bool,
    /// What its ledger writes to.
    disk: SimDisk,
    /// Nothing may be handed out before that disk has it; in a cluster Redis has it.
    syncs: Syncs,
    /// Why the process has ended by itself.
    pub ended: Option<String>,
    /// Answers to questions of the audit, while it asks.
    audited: Option<Vec<Delivery>>,
    plan: Plan,
    /// It has gone on from another snapshot.
    pub is_reloaded: bool,
    random: Random,
    events: Events,
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
        let mut store = SimStore::new(durable.database.clone(), Sharing::Alone);
        let progress = Arc::new(Progress::default());
        let begun = block_on(ask_store(&mut store, plan, random)).map_err(|error| error.to_string())?;
        let (engine, _) =
            begun.finish(durable.disk.clone(), progress.clone(), now).map_err(|error: StartError| error.to_string())?;
        let keeper = Keeper::new(store, durable.disk.clone(), progress, random.bits() as u64);
        let disk = durable.disk.clone();
        Ok(Gateway::new(Box::new(engine), keeper, (disk, Syncs::BeforeShowing), plan, (random, events)))
    }

    /// A process whose ledger and store are ready.
    pub(crate) fn new(
        engine: Box<dyn Engine>,
        keeper: Keeper<SimStore, SimDisk>,
        (disk, syncs): (SimDisk, Syncs),
        plan: &Plan,
        (random, events): (&Random, &Events),
    ) -> Gateway {
        let shard = |id| Shard::new(plan.shard_config(ShardId(id)), Authenticator::hs256(SECRET));
        let mailbox = |_| Mailbox { lanes: (0..plan.shards).map(|_| VecDeque::new()).collect(), ..Mailbox::default() };
        Gateway {
            shards: (0..plan.shards).map(shard).collect(),
            mail: (0..plan.shards).map(mailbox).collect(),
            engine,
            keeper,
            // Turns so short that they end.
            submissions: FairQueue::new(TableKey::new(plan.table_seed), plan.commit_submissions_max),
            asks: VecDeque::new(),
            lookups: VecDeque::new(),
            found: VecDeque::new(),
            retry_at_ms: 0,
            store_is_idle: false,
            disk,
            syncs,
            ended: None,
            audited: None,
            plan: plan.clone(),
            is_reloaded: false,
            random: random.clone(),
            events: events.clone(),
        }
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

    /// What the ledger says of itself.
    pub(crate) fn numbers(&self) -> bool {
        self.engine.counters().stands_still.is_none()
    }

    /// Why it does not number, to be printed.
    pub(crate) fn stands_still(&self) -> String {
        format!("{:?}", self.engine.counters().stands_still)
    }

    /// Nothing is on its way between the threads.
    pub(crate) fn is_quiet(&self) -> bool {
        let mailbox = |m: &Mailbox| {
            m.commits.is_empty() && m.commit.len() == 0 && m.answers.is_empty() && m.lanes.iter().all(|l| l.is_empty())
        };
        self.mail.iter().all(mailbox)
            && !self.shards.iter().any(Shard::has_ephemerals)
            && self.submissions.is_empty()
            && self.asks.is_empty()
            && self.lookups.is_empty()
            && self.found.is_empty()
            && self.store_is_idle
    }

    /// Its store has nothing to write that a stop would wait for.
    pub(crate) fn may_stop(&self) -> bool {
        self.keeper.is_settled()
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
        sources.extend(shard.has_ephemerals().then_some(2));
        sources.extend(mail.lanes.iter().zip(3..).filter(|(lane, _)| !lane.is_empty()).map(|(_, source)| source));
        match *self.random.pick(&sources)? {
            0 => {
                if mail.commit.len() == 0 {
                    mail.commit = mail.commits.pop_front()?.into_iter();
                }
                // The rest of it later: whatever happens meanwhile must make no difference.
                shard.deliver_next(now, &mut mail.commit);
            }
            1 => shard.stored(now, mail.answers.pop_front()?),
            2 => {
                shard.deliver_ephemerals(now);
            }
            lane => match mail.lanes[lane - 3].pop_front()? {
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
        let mut released = Vec::new();
        self.engine.take_released(&mut released);
        for (sender, rows) in released {
            self.submissions.charge_sender(sender, rows);
        }
        for _ in 0..take {
            if self.engine.full() {
                break;
            }
            let Some((_, submission)) = self.submissions.pop() else { break };
            self.events.note(format!("the ledger takes {}", brief_submission(&submission)));
            if let Some(twin) = self.plan.mutation.twin(&submission) {
                self.engine.submit(now, twin);
            }
            let rows_before = self.engine.staged_rows();
            self.engine.submit(now, submission);
            self.submissions.charge(self.engine.staged_rows() - rows_before);
        }
        let mut out: Vec<Vec<Delivery>> = self.mail.iter().map(|_| Vec::new()).collect();
        let committed = self.engine.commit(now, &mut out);
        if let Err(error) = committed {
            self.events.note(format!("the ledger ends in a commit: {error}"));
            // The process stops here: nobody hears of this commit.
            self.ended = Some(error.to_string());
            self.disk.die();
            return Ok(());
        }
        if self.disk.is_dead() {
            return Ok(());
        }
        if self.plan.mutation != Mutation::LyingDisk
            && self.syncs == Syncs::BeforeShowing
            && out.iter().flatten().any(shows)
            && self.disk.has_unsynced()
        {
            return violated!("I1: the ledger hands out, and the journal is not synced");
        }
        if let Some(audited) = &mut self.audited {
            for deliveries in &mut out {
                let of_audit = |d: &Delivery| matches!(d, Delivery::Groups { .. } | Delivery::Roster { .. });
                audited.extend(deliveries.extract_if(.., |delivery| of_audit(delivery)));
            }
        }
        for (mail, mut deliveries) in self.mail.iter_mut().zip(out) {
            for delivery in &mut deliveries {
                self.plan.mutation.distort(delivery);
                self.is_reloaded |= matches!(delivery, Delivery::Missed { .. } | Delivery::Reloaded { .. });
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

    /// Its store refuses no question any more.
    pub(crate) fn make_room_for_asks(&mut self) {
        self.plan.asks_max = ROOMY;
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
    pub(crate) fn rosters(&mut self, now: Now, users: &[UserId]) -> Rosters {
        self.ask_groups(now, users);
        let groups = self.commit_questions(now);
        self.ask_rosters(now, &groups);
        rosters_of(self.commit_questions(now))
    }

    /// In a cluster answers come when Redis has: from now on those to [`Self::ask_groups`] and [`Self::ask_rosters`] are
    /// kept for the audit.
    pub(crate) fn begin_audit(&mut self) {
        self.audited = Some(Vec::new());
    }

    /// How many have told of their groups, and of how many of those the members are not told yet.
    pub(crate) fn audited_groups(&self) -> (usize, usize) {
        let answers = self.audited.as_deref().unwrap_or_default();
        let mut groups = groups_of(answers);
        for answer in answers {
            if let Delivery::Roster { group, .. } = answer {
                groups.remove(group);
            }
        }
        (answers.iter().filter(|answer| matches!(answer, Delivery::Groups { .. })).count(), groups.len())
    }

    /// The rosters among them; shards get what they ask again.
    pub(crate) fn end_audit(&mut self) -> Rosters {
        rosters_of(self.audited.take().unwrap_or_default())
    }

    fn commit_questions(&mut self, now: Now) -> Vec<Delivery> {
        let mut out: Vec<Vec<Delivery>> = self.mail.iter().map(|_| Vec::new()).collect();
        match self.engine.commit(now, &mut out) {
            Ok(()) => out.into_iter().flatten().collect(),
            Err(_) => Vec::new(),
        }
    }

    /// Asks the ledger in which groups they are.
    pub(crate) fn ask_groups(&mut self, now: Now, users: &[UserId]) {
        let origin = Origin::default();
        users.iter().for_each(|user| self.engine.submit(now, Submission::Groups { origin, user: *user }));
    }

    /// Asks who is in the groups that it has told of.
    fn ask_rosters(&mut self, now: Now, answers: &[Delivery]) {
        for group in groups_of(answers) {
            let shard = ShardId::of_group(group, self.plan.shards);
            self.engine.submit(now, Submission::Roster { shard, group });
        }
    }

    /// The same of those that it has told the audit of.
    pub(crate) fn ask_audited_rosters(&mut self, now: Now) {
        let answers = self.audited.take().unwrap_or_default();
        self.ask_rosters(now, &answers);
        self.audited = Some(answers);
    }
}

fn groups_of(answers: &[Delivery]) -> BTreeSet<GroupId> {
    let mut groups = BTreeSet::new();
    for delivery in answers {
        if let Delivery::Groups { groups: entries, .. } = delivery {
            groups.extend(entries.iter().map(|entry| entry.group));
        }
    }
    groups
}

/// Groups with their versions and members.
pub(crate) type Rosters = BTreeMap<GroupId, (u32, BTreeSet<UserId>)>;

fn rosters_of(answers: Vec<Delivery>) -> Rosters {
    let rosters = answers.into_iter().filter_map(|delivery| match delivery {
        Delivery::Roster { group, roster: Some(roster) } => {
            let members = roster.members().iter().map(|member| member.user).collect();
            Some((group, (roster.version.0, members)))
        }
        _ => None,
    });
    rosters.collect()
}

/// What the ledger needs to know of the store before it reads the journal.
async fn ask_store(store: &mut SimStore, plan: &Plan, random: &Random) -> Result<Start, StoreError> {
    let settings = plan.ledger_settings(random.bits() as u64);
    let mut start = Start::new(settings, store.position().await?);
    store.newest_rows(&mut |row| start.newest_row(row)).await?;
    store.groups(&mut |group| start.group(&group)).await?;
    Ok(start)
}
