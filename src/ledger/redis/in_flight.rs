//! What this node has taken and Redis has not settled: on its way, replied to but not read, or searched for.
//!
//! Owned by the engine. What always holds: calls are made in the order in which submissions were taken, and after a
//! lost session all that is not settled is called again in that order; what a sender sent behind something that is
//! searched for waits for it, and what was sent to a group behind something called at an older version of it; a submission
//! leaves when its entry is read, when an entry of the same name is, or when it is refused or known to be another's; and
//! whoever waits for it is answered within `SENDS_ANSWERED_MS`.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

use super::NOBODY;
use super::group_calls::GroupCalls;
use super::link::Reply;
use super::searches::Searches;
use crate::contract::ids::Origin;
use crate::contract::keyed::TableKey;
use crate::contract::message::Incoming;
use crate::contract::position::JournalPosition;
use crate::contract::store::Lookup;
use crate::contract::submission::{ChangeSubmission, MessageSubmission};
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::dedup::Name;
use crate::limits::{CLAIMS_S, CLAIMS_SLACK_S};
use ringway_wire::ids::{Conversation, GroupId, MsgId, UserId};

/// What was submitted.
#[derive(Debug)]
pub(super) enum Subject {
    /// A message.
    Message(MessageSubmission),
    /// A change of a group, as planned on this node's rosters.
    Change { submission: ChangeSubmission, record: ChangeRecord },
    /// A message of a former process; if it is to a group, its roster is whichever is current.
    Old(Incoming),
    /// A change of a former process, or generation, to be made on whichever roster is current.
    OldChange(ChangeRecord),
}

impl Subject {
    /// Nobody waits for it any more: it has no session, and a message takes whichever roster is current.
    fn let_go(self) -> Subject {
        match self {
            Subject::Message(MessageSubmission { incoming }) => Subject::Old(incoming),
            Subject::Change { submission, record } => {
                Subject::Change { submission: ChangeSubmission { origin: NOBODY, ..submission }, record }
            }
            other => other,
        }
    }

    pub(super) fn origin(&self) -> Origin {
        match self {
            Subject::Message(MessageSubmission { incoming }) => incoming.origin,
            Subject::Change { submission, .. } => submission.origin,
            Subject::Old(_) | Subject::OldChange(_) => NOBODY,
        }
    }

    /// As the log and the stream have it.
    pub(super) fn record(&self, msg_id: MsgId) -> Record<'_> {
        match self {
            Subject::Message(MessageSubmission { incoming }) | Subject::Old(incoming) => {
                message_record(msg_id, incoming)
            }
            Subject::Change { record, .. } | Subject::OldChange(record) => Record::Change(record.clone()),
        }
    }

    /// From a former process's log.
    pub(super) fn from_log(record: &Record<'_>) -> Option<(MsgId, Option<Name>, Subject)> {
        let (msg_id, incoming) = match record {
            Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, body, .. }) => {
                (*msg_id, Incoming::new(NOBODY, *sender, Conversation::User(*to), *client_msg_id, body))
            }
            Record::Group(GroupRecord { msg_id, sender, group, client_msg_id, body, .. }) => {
                (*msg_id, Incoming::new(NOBODY, *sender, Conversation::Group(*group), *client_msg_id, body))
            }
            Record::Change(record) => return Some((record.msg_id, None, Subject::OldChange(record.clone()))),
            Record::Roster(_) | Record::Mark(_) | Record::Withdrawn(_) => return None,
        };
        Some((msg_id, Some(Name::of(&incoming)), Subject::Old(incoming)))
    }
}

/// A message's own fields for its rows are empty: whoever follows the stream numbers them.
fn message_record(msg_id: MsgId, incoming: &Incoming) -> Record<'_> {
    let Incoming { sender, to, client_msg_id, .. } = *incoming;
    let body = incoming.body();
    match to {
        Conversation::User(to) => {
            let (sender_seq, recipient_seq) = Default::default();
            Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, sender_seq, recipient_seq, body })
        }
        Conversation::Group(group) => {
            let (roster_at, differences) = (JournalPosition(0), &[][..]);
            Record::Group(GroupRecord { msg_id, sender, group, client_msg_id, roster_at, differences, body })
        }
    }
}

#[derive(Debug)]
pub(super) struct Flight {
    name: Option<Name>,
    /// Nobody used the name before this second of Redis's clock, or it would have been found.
    pub(super) known_s: u64,
    pub(super) subject: Subject,
}

/// All of it.
#[derive(Debug, Default)]
pub(super) struct InFlight {
    /// By message, which is the order of taking.
    pub(super) flights: BTreeMap<MsgId, Flight>,
    names: HashMap<Name, MsgId, TableKey>,
    /// Taken since the last commit.
    uncommitted: Vec<MsgId>,
    /// To be called, in order.
    pub(super) unsent: BTreeSet<MsgId>,
    /// Called: one list per call, in the order of calls.
    pub(super) called: VecDeque<Vec<MsgId>>,
    /// Replied to, with how far the stream must be read before the reply counts.
    pub(super) replied: VecDeque<(u64, MsgId, Reply)>,
    /// Messages to groups that were called and are not settled.
    pub(super) group_calls: GroupCalls,
    /// Searched for in the store before they are called.
    pub(super) searches: Searches,
    /// When each was taken, monotonic milliseconds, the oldest first: whoever waits for it is answered in time.
    unanswered: VecDeque<(u64, MsgId)>,
    /// Old ones that cannot be made on the groups as they are, but perhaps after another lost change has been made again.
    pub(super) deferred: Vec<MsgId>,
}

impl InFlight {
    pub(super) fn len(&self) -> usize {
        self.flights.len()
    }

    pub(super) fn unsent_count(&self) -> usize {
        self.unsent.len()
    }

    /// Something that this sender sent is still to be found in the store or not: what it sends waits behind it.
    pub(super) fn searches_for(&self, sender: UserId) -> bool {
        self.searches.any_of(sender)
    }

    /// One whose name Redis may have forgotten, or that had no room: it is searched for before it is called again.
    pub(super) fn search(&mut self, msg_id: MsgId) {
        if let Some(flight) = self.flights.get(&msg_id) {
            self.searches.add(msg_id, flight.name);
        }
    }

    /// One that was taken just now. `name`: with the second before which nobody used it.
    pub(super) fn add(&mut self, mono_ms: u64, msg_id: MsgId, name: Option<(Name, u64)>, subject: Subject) {
        if subject.origin() != NOBODY {
            self.unanswered.push_back((mono_ms, msg_id));
        }
        self.put(msg_id, name, subject);
        self.uncommitted.push(msg_id);
        self.unsent.insert(msg_id);
    }

    /// One of a former generation or process; [`Self::search_all`] comes next.
    pub(super) fn add_again(&mut self, msg_id: MsgId, name: Option<Name>, subject: Subject) {
        if !self.flights.contains_key(&msg_id) {
            self.put(msg_id, name.map(|name| (name, 0)), subject);
        }
    }

    fn put(&mut self, msg_id: MsgId, name: Option<(Name, u64)>, subject: Subject) {
        let (name, known_s) = (name.map(|(name, _)| name), name.map_or(0, |(_, known_s)| known_s));
        if let Some(name) = name {
            // One of a former process may have the name already.
            self.names.entry(name).or_insert(msg_id);
        }
        self.flights.insert(msg_id, Flight { name, known_s, subject });
    }

    /// What is on its way under this name.
    pub(super) fn of_name(&self, name: &Name) -> Option<MsgId> {
        self.names.get(name).copied()
    }

    /// Those that were taken before this time and that somebody still waits for: nobody does any more.
    pub(super) fn take_unanswered(&mut self, before_ms: u64) -> Vec<(MsgId, Origin)> {
        let mut origins = Vec::new();
        while let Some((taken_ms, msg_id)) = self.unanswered.front().copied() {
            if self.flights.contains_key(&msg_id) && taken_ms >= before_ms {
                break;
            }
            self.unanswered.pop_front();
            if let Some(flight) = self.flights.remove(&msg_id) {
                origins.push((msg_id, flight.subject.origin()));
                self.flights.insert(msg_id, Flight { subject: flight.subject.let_go(), ..flight });
            }
        }
        origins
    }

    /// It is settled.
    pub(super) fn remove(&mut self, msg_id: MsgId) -> Option<Subject> {
        self.not_taken(msg_id);
        let flight = self.flights.remove(&msg_id)?;
        self.searches.remove(msg_id, flight.name.as_ref());
        if let Some(name) = flight.name
            && self.names.get(&name) == Some(&msg_id)
        {
            self.names.remove(&name);
        }
        Some(flight.subject)
    }

    /// The group that a message is addressed to; `None`: it is a change, one-to-one, or settled.
    pub(super) fn group_of(&self, msg_id: MsgId) -> Option<GroupId> {
        match &self.flights.get(&msg_id)?.subject {
            Subject::Message(MessageSubmission { incoming }) | Subject::Old(incoming) => match incoming.to {
                Conversation::Group(group) => Some(group),
                Conversation::User(_) => None,
            },
            Subject::Change { .. } | Subject::OldChange(_) => None,
        }
    }

    /// Redis has not taken it, or it is settled: it is not on its way any more.
    pub(super) fn not_taken(&mut self, msg_id: MsgId) {
        if let Some(group) = self.group_of(msg_id) {
            self.group_calls.ended(group, msg_id);
        }
    }

    /// What was taken since the last commit is on disk.
    pub(super) fn committed(&mut self) {
        self.uncommitted.clear();
    }

    /// It could not be written.
    pub(super) fn take_uncommitted(&mut self) -> Vec<Subject> {
        let uncommitted = std::mem::take(&mut self.uncommitted);
        self.unsent.retain(|msg_id| !uncommitted.contains(msg_id));
        uncommitted.into_iter().filter_map(|msg_id| self.remove(msg_id)).collect()
    }

    /// The session is over: all is called again in the next one.
    pub(super) fn lost(&mut self) {
        self.called.clear();
        self.replied.clear();
        self.deferred.clear();
        self.group_calls.clear();
        let unsearched =
            self.flights.iter().filter(|(msg_id, flight)| !self.searches.has(**msg_id, flight.name.as_ref()));
        self.unsent = unsearched.map(|(msg_id, _)| *msg_id).collect();
    }

    /// The generation is over: whether any of it is stored has to be found out first, when the store is at this entry.
    pub(super) fn search_all(&mut self, from: u64) {
        self.unsent.clear();
        self.deferred.clear();
        self.group_calls.clear();
        self.searches.add_all(from, self.flights.iter().map(|(msg_id, flight)| (*msg_id, flight.name)));
    }

    /// It is a message of a sender of whom something is searched for.
    pub(super) fn is_held(&self, msg_id: MsgId) -> bool {
        let name = self.flights.get(&msg_id).and_then(|flight| flight.name);
        name.is_some_and(|name| self.searches.any_of(name.sender))
    }

    /// Redis does not rely on its claims of that time any more.
    pub(super) fn is_forgotten(&self, msg_id: MsgId, redis_s: u64) -> bool {
        let named = self.flights.get(&msg_id).filter(|flight| flight.name.is_some());
        named.is_some_and(|flight| flight.known_s + CLAIMS_S <= redis_s + CLAIMS_SLACK_S)
    }

    /// A group has changed, or it is time to give up: what was deferred is tried again.
    pub(super) fn retry_deferred(&mut self) {
        self.unsent.extend(self.deferred.drain(..));
    }

    pub(super) fn replied(&mut self, replies: Vec<Reply>, count: u64) {
        let called = self.called.pop_front().unwrap_or_default();
        for (msg_id, reply) in std::iter::zip(called, replies) {
            if reply != Reply::Appended {
                self.replied.push_back((count, msg_id, reply));
            }
        }
    }

    /// Look-ups for what is searched for, [`Searches::take_lookups`].
    pub(super) fn take_lookups(&mut self, applied: u64, known_s: u64, out: &mut Vec<Lookup>) {
        self.unsent.extend(self.searches.take_lookups(applied, known_s, out));
    }
}
