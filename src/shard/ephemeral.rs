//! Ephemeral messages: made and numbered here, past the ledger, and handed out in runs like durable ones.
//!
//! Part of the shard's core. One to a user goes straight to that user's few sessions; one to a group waits here until its
//! group's turn comes. What always holds: the groups take turns, a part of a run each; each recipient is given a run in
//! one piece, in the order in which it came; a group message is answered when its last recipient has been given it on the
//! shard with most of its members, so that it counts among its sender's requests in flight until then; what waits is
//! bounded by `EPHEMERALS_WAITING_MAX`, `EPHEMERALS_GROUP_MAX` and `EPHEMERALS_BYTES_MAX`, and what one account has of it
//! by a share of these. It moves nobody's cursor, and who has no room goes without.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use super::Shard;
use super::fanout::{Delivered, PartEnd, RUN_BYTES_MAX, RUN_ROWS_MAX};
use super::session::Session;
use super::shares::{Share, Shares};
use super::traffic::Admission;
use crate::clock::Now;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::internal::{OrCount, Place, count};
use crate::contract::keyed::TableKey;
use crate::contract::lane::{Answers, LaneAnswer, LaneEnvelope};
use crate::contract::message::{Incoming, Message, Roster};
use crate::contract::nodes::Reach;
use crate::contract::policies::Permission;
use crate::contract::submission::Submission;
use crate::limits::{
    EPHEMERALS_ACCOUNT_BYTES_MAX, EPHEMERALS_ACCOUNT_MAX, EPHEMERALS_BYTES_MAX, EPHEMERALS_GROUP_MAX,
    EPHEMERALS_WAITING_MAX, RETRY_AFTER_MS,
};
use ringway_wire::ids::{Conversation, GroupId, MSG_ID_EPOCH_MS, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

/// What of those that wait may be one account's.
const SHARE: Share = Share { items: EPHEMERALS_ACCOUNT_MAX, bytes: EPHEMERALS_ACCOUNT_BYTES_MAX };
/// What a recipient without room counts for, in bytes put into outboxes: it is looked at all the same.
const SKIPPED_BYTES: usize = 32;

/// A group message that waits for its recipients here.
#[derive(Debug)]
pub(super) struct Ephemeral {
    pub(super) message: Arc<Message>,
    /// As its group's shard knew it.
    pub(super) roster: Arc<Roster>,
    /// The sending session, which gets no push.
    pub(super) origin: Origin,
    pub(super) answers: Answers,
}

impl Ephemeral {
    fn bytes(&self) -> usize {
        self.message.push.bytes().len()
    }
}

/// A group's.
#[derive(Debug, Default)]
struct Queue {
    messages: VecDeque<Ephemeral>,
    /// How far the ones at the front are that go together.
    run: Option<Run>,
}

/// The messages at the front of a queue that go together.
#[derive(Clone, Copy, Debug)]
struct Run {
    /// How many messages go together.
    len: usize,
    /// Bytes that a recipient of all of them is given.
    bytes: usize,
    /// The user that it goes on with; members may come and go between two parts.
    from: UserId,
}

impl Queue {
    /// The run that was begun, or a new one.
    fn run(&self) -> Run {
        self.run.unwrap_or_else(|| {
            let mut run = Run { len: 0, bytes: 0, from: UserId(0) };
            for waiting in self.messages.iter().take(RUN_ROWS_MAX) {
                if run.bytes >= RUN_BYTES_MAX {
                    break;
                }
                run.len += 1;
                run.bytes += waiting.bytes();
            }
            run
        })
    }

    /// The newest roster that is known for those of the run.
    fn roster(&self, run: Run, audience: Option<&Arc<Roster>>) -> Option<Arc<Roster>> {
        let carried = self.messages.iter().take(run.len).map(|waiting| &waiting.roster);
        carried.chain(audience).max_by_key(|roster| roster.version).cloned()
    }
}

/// All that wait in a shard.
#[derive(Debug)]
pub(super) struct Ephemerals {
    by_group: HashMap<GroupId, Queue, TableKey>,
    /// Groups with something that waits, each once.
    turns: VecDeque<GroupId>,
    count: usize,
    bytes: usize,
    shares: Shares,
}

impl Ephemerals {
    pub(super) fn new(key: TableKey) -> Self {
        Ephemerals {
            by_group: HashMap::with_hasher(key),
            turns: VecDeque::new(),
            count: 0,
            bytes: 0,
            shares: Shares::new(SHARE, Place::Fanout, key.derived(11)),
        }
    }

    /// How many wait.
    pub(super) fn count(&self) -> usize {
        self.count
    }

    /// Appends one; hands it back if there is no room, or none for its sender.
    fn push(&mut self, ephemeral: Ephemeral) -> Result<(), Ephemeral> {
        let bytes = ephemeral.bytes();
        let (group, sender) = (ephemeral.roster.group, ephemeral.message.sender);
        let of_group = self.by_group.get(&group).map_or(0, |queue| queue.messages.len());
        if self.count >= EPHEMERALS_WAITING_MAX
            || of_group >= EPHEMERALS_GROUP_MAX
            || self.bytes + bytes > EPHEMERALS_BYTES_MAX
            || !self.shares.has_room(sender, bytes)
        {
            return Err(ephemeral);
        }
        if of_group == 0 {
            self.turns.push_back(group);
        }
        self.by_group.entry(group).or_default().messages.push_back(ephemeral);
        self.count += 1;
        self.bytes += bytes;
        self.shares.take(sender, bytes);
        Ok(())
    }

    /// One of them waits no more.
    fn went_out(&mut self, ephemeral: &Ephemeral) {
        let bytes = ephemeral.bytes();
        self.count -= 1;
        self.bytes -= bytes;
        self.shares.give_back(ephemeral.message.sender, bytes);
    }

    /// The queue whose turn it is, taken out.
    fn take_turn(&mut self) -> Option<(GroupId, Queue)> {
        let group = self.turns.pop_front()?;
        let queue = self.by_group.remove(&group).or_count(Place::Fanout)?;
        Some((group, queue))
    }

    /// Puts it back for its next turn, if anything is left of it.
    fn put_back(&mut self, group: GroupId, queue: Queue) {
        if !queue.messages.is_empty() {
            self.by_group.insert(group, queue);
            self.turns.push_back(group);
        }
    }
}

impl Shard {
    /// Ephemeral messages wait for `deliver_ephemerals`.
    pub fn has_ephemerals(&self) -> bool {
        self.ephemerals.count() > 0
    }

    /// Takes a step: the next part of the run of the group whose turn it is. `None`: nothing waits.
    pub fn deliver_ephemerals(&mut self, now: Now) -> Option<Delivered> {
        let (group, mut queue) = self.ephemerals.take_turn()?;
        let run = queue.run();
        let waiting_before = self.outgoing.waiting_bytes;
        let end = self.deliver_ephemeral_run(now, &queue, run);
        match end {
            PartEnd::Before(user) => queue.run = Some(Run { from: user, ..run }),
            PartEnd::Through => {
                queue.run = None;
                let through: Vec<Ephemeral> = queue.messages.drain(..run.len.min(queue.messages.len())).collect();
                for ephemeral in through {
                    self.ephemerals.went_out(&ephemeral);
                    if ephemeral.answers == Answers::Here {
                        let Message { msg_id, sent_at_ms, .. } = *ephemeral.message;
                        self.answer_anywhere(now, ephemeral.origin, LaneAnswer::EphemeralSent { msg_id, sent_at_ms });
                    }
                }
            }
        }
        self.ephemerals.put_back(group, queue);
        let bytes = self.outgoing.waiting_bytes.saturating_sub(waiting_before);
        Some(end.delivered(run.bytes, bytes))
    }

    /// A run to the group's members from the run's user on, until enough bytes have been handed out.
    fn deliver_ephemeral_run(&mut self, now: Now, queue: &Queue, run: Run) -> PartEnd<UserId> {
        let messages = queue.messages.iter().take(run.len);
        let rows: Vec<(u32, &Arc<Message>)> =
            messages.map(|waiting| (self.sending_slot(waiting.origin), &waiting.message)).collect();
        let Shard { audiences, directory, sessions, outgoing, effects, counts, config, .. } = self;
        let group = queue.messages.front().map(|waiting| waiting.roster.group);
        // A durable message may have brought a newer roster already: then that one counts.
        let Some(roster) = queue.roster(run, group.and_then(|group| audiences.roster(group))).or_count(Place::Fanout)
        else {
            return PartEnd::Through;
        };
        let range = roster.range(config.id);
        let members = roster.members().get(range.clone()).or_count(Place::Rosters).unwrap_or_default();
        let mut member = (range.start + members.partition_point(|member| member.user < run.from)) as u32;
        let audience = audiences.of(&roster, directory, sessions);
        let start = audience.entries.partition_point(|entry| entry.member < member);
        let mut spent = 0;
        for entry in audience.entries.get(start..).or_count(Place::Fanout).unwrap_or_default() {
            // All sessions of a member belong to one part.
            if entry.member != member {
                if spent >= config.fanout_part_bytes_max {
                    let next = roster.members().get(entry.member as usize).or_count(Place::Fanout);
                    return next.map_or(PartEnd::Through, |next| PartEnd::Before(next.user));
                }
                member = entry.member;
            }
            let Some(session) = sessions.at_mut(entry.session).or_count(Place::Fanout) else { continue };
            if !session.phase.is_open() {
                continue;
            }
            for (_, message) in rows.iter().filter(|(sending, _)| *sending != entry.session) {
                let bytes = message.push.bytes().len();
                if outgoing.has_room(session, bytes) {
                    outgoing.push(session, entry.session, message, Seq(0), now.mono_ms, &mut effects.dirty);
                    counts.pushes_ephemeral_total += 1;
                    spent += bytes;
                } else {
                    counts.shed.ephemeral += 1;
                    spent += SKIPPED_BYTES;
                }
            }
        }
        PartEnd::Through
    }

    /// One from this shard to a group: to every shard with members and to the other nodes.
    pub(super) fn fan_out_ephemeral(&mut self, now: Now, incoming: Incoming, roster: &Arc<Roster>) {
        if self.admit_ephemeral(now, &incoming, roster.members().len()) == Admission::Refused {
            return;
        }
        let origin = incoming.origin;
        let message = self.ephemeral_message(now, incoming);
        self.spread_ephemeral(now, origin, &message, roster);
        self.ephemeral_to_nodes(origin, Reach::All, message);
    }

    /// To every shard with members. The one with the most of them answers: what is sent faster than it can be handed out
    /// waits there.
    pub(super) fn spread_ephemeral(&mut self, now: Now, origin: Origin, message: &Arc<Message>, roster: &Arc<Roster>) {
        let answering = roster.shards().max_by_key(|shard| roster.range(*shard).len());
        for shard in roster.shards() {
            let is_answering = answering == Some(shard) && origin != Origin::NOBODY;
            let answers = if is_answering { Answers::Here } else { Answers::Other };
            let (message, roster) = (Arc::clone(message), Arc::clone(roster));
            if shard == self.config.id {
                self.enqueue_ephemeral(now, Ephemeral { message, roster, origin, answers });
            } else {
                let envelope = LaneEnvelope::Ephemeral { message, roster: Some(roster), origin, answers };
                self.effects.lanes.push_back((shard, envelope));
            }
        }
    }

    /// One that has come to a shard of its recipients.
    pub(super) fn enqueue_ephemeral(&mut self, now: Now, ephemeral: Ephemeral) {
        if let Err(Ephemeral { origin, answers, .. }) = self.ephemerals.push(ephemeral) {
            self.ephemeral_refused(now, origin, answers);
        }
    }

    /// There was no room for one, here or in a lane.
    pub(super) fn ephemeral_refused(&mut self, now: Now, origin: Origin, answers: Answers) {
        self.counts.shed.ephemeral += 1;
        if answers == Answers::Here {
            self.refuse_anywhere(now, origin, ErrorCode::RetryLater, RETRY_AFTER_MS);
        }
    }

    /// One from this shard to a user.
    pub(super) fn send_ephemeral_direct(&mut self, now: Now, to: UserId, incoming: Incoming) {
        if self.admit_ephemeral(now, &incoming, 1) == Admission::Refused {
            return;
        }
        if self.config.policies.direct_messages == Permission::SharedGroup && to != incoming.sender {
            // Only the ledger knows who is in a group with whom.
            self.effects.submissions.push_back(Submission::Ephemeral(incoming));
            return;
        }
        self.send_permitted(now, incoming);
    }

    /// One that may go to its recipient.
    pub(super) fn send_permitted(&mut self, now: Now, incoming: Incoming) {
        let Conversation::User(to) = incoming.to else { return count(Place::Mailbox) };
        let origin = incoming.origin;
        let home = ShardId::of_user(to, self.config.shards);
        // What the API sends counts for nobody.
        let counts = home != self.config.id && !origin.is_api(self.config.shards);
        if counts && !self.into_lanes.take(incoming.sender) {
            return self.ephemeral_refused(now, origin, Answers::Here);
        }
        let message = self.ephemeral_message(now, incoming);
        let (msg_id, sent_at_ms) = (message.msg_id, message.sent_at_ms);
        if home == self.config.id {
            self.deliver_ephemeral_direct(now, &message, origin);
        } else {
            let answers = Answers::Other;
            self.effects.lanes.push_back((home, LaneEnvelope::Ephemeral { message, roster: None, origin, answers }));
        }
        self.answer_anywhere(now, origin, LaneAnswer::EphemeralSent { msg_id, sent_at_ms });
    }

    /// To whichever of the user's sessions has room, and on to the nodes where the user is too, unless it comes from one.
    pub(super) fn deliver_ephemeral_direct(&mut self, now: Now, message: &Arc<Message>, origin: Origin) {
        let Conversation::User(user) = message.to else { return };
        let sending = self.sending_slot(origin);
        let bytes = message.push.bytes().len();
        let Shard { directory, sessions, outgoing, effects, counts, .. } = self;
        let mut slot = directory.first_session(user);
        while let Some(session) = sessions.at_mut(slot) {
            let next = session.next_of_user;
            let is_recipient = |session: &Session| slot != sending && session.phase.is_open();
            if is_recipient(session) && outgoing.has_room(session, bytes) {
                outgoing.push(session, slot, message, Seq(0), now.mono_ms, &mut effects.dirty);
                counts.pushes_ephemeral_total += 1;
            } else if is_recipient(session) {
                counts.shed.ephemeral += 1;
            }
            slot = next;
        }
        if origin != Origin::NOBODY
            && let Some(reach) = self.remote_sessions.reach(user)
        {
            self.ephemeral_to_nodes(origin, reach, Arc::clone(message));
        }
    }

    /// It is numbered by the shard that makes it: its time, the shard in the place of the node (counted down from the
    /// highest, away from the nodes), and a counter. Nobody looks such a number up.
    fn ephemeral_message(&mut self, now: Now, incoming: Incoming) -> Arc<Message> {
        self.ephemeral_count = self.ephemeral_count.wrapping_add(1);
        let node = 0x3FF - (u64::from(self.config.id.0) & 0x3FF);
        let ms = now.unix_ms.saturating_sub(MSG_ID_EPOCH_MS);
        let msg_id = MsgId(ms << 22 | node << 12 | (self.ephemeral_count & 0xFFF));
        Arc::new(incoming.numbered(msg_id))
    }
}
