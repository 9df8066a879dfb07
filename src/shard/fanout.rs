//! From a delivery to outboxes: the path that every message takes to every recipient.
//!
//! Part of the shard's core. What always holds: a session gets a row only if it is the one after its cursor;
//! any other sends it to catching up, so nothing is skipped and nothing comes twice; a full outbox does the same,
//! so a slow reader delays nobody and loses nothing. Per recipient nothing is looked up.

use std::sync::Arc;

use super::Shard;
use super::effects::Effects;
use super::outgoing::Outgoing;
use super::session::{Flags, NIL, Phase, Session};
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::ids::Origin;
use crate::contract::internal::{OrCount, Place};
use crate::contract::look::UserEventKind;
use crate::contract::message::{Message, Roster};
use crate::limits::OUTBOX_BYTES_MAX;
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use ringway_wire::request::Taken;

/// Bytes to one recipient after which a run ends: a quarter of an outbox, so that writing can begin.
pub(super) const RUN_BYTES_MAX: usize = OUTBOX_BYTES_MAX / 4;
/// Messages of one run.
pub(super) const RUN_ROWS_MAX: usize = 256;
/// Outboxes that a run gives at least so much are written when it is interrupted: a write of less costs more than
/// its bytes, and the next run may add to it.
const PART_WRITTEN_BYTES_MIN: usize = 4 * 1024;

/// What a step of the fan-out has put into outboxes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Delivered {
    /// Bytes that a recipient of all of it was given.
    pub(crate) recipient_bytes: usize,
    /// Bytes that all recipients together were given.
    pub(crate) bytes: usize,
    /// Whether outboxes are to be written before the next step.
    pub(crate) write: Write,
}

/// When the outboxes of a step are to be written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Write {
    /// Now: they are complete for a while, and in the cache.
    Now,
    /// When enough has come together.
    Later,
}

/// Consecutive durable messages to one roster.
pub(super) struct GroupRun<'d> {
    /// Their recipients.
    roster: &'d Arc<Roster>,
    rows: Vec<GroupRow<'d>>,
    /// Bytes that a recipient of all of them is given.
    bytes: usize,
}

/// One of them.
struct GroupRow<'d> {
    message: &'d Arc<Message>,
    /// Parallel to the roster's members.
    seqs: &'d [Seq],
    origin: Origin,
}

impl<'d> GroupRun<'d> {
    /// What stands at the front of `deliveries` and goes together; `None` if the first is no group message.
    pub(super) fn at_front(deliveries: &'d [Delivery]) -> Option<GroupRun<'d>> {
        let Some(Delivery::Group { roster: first, .. }) = deliveries.first() else { return None };
        let mut run = GroupRun { roster: first, rows: Vec::new(), bytes: 0 };
        for delivery in deliveries.iter().take(RUN_ROWS_MAX) {
            match delivery {
                Delivery::Group { message, roster, seqs, origin }
                    if Arc::ptr_eq(roster, first) && run.bytes < RUN_BYTES_MAX =>
                {
                    run.bytes += message.push.bytes().len();
                    run.rows.push(GroupRow { message, seqs, origin: *origin });
                }
                _ => break,
            }
        }
        Some(run)
    }

    /// How many messages.
    pub(super) fn len(&self) -> usize {
        self.rows.len()
    }
}

/// Where a part of a run has ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum PartEnd<Member> {
    /// Behind its last recipient.
    Through,
    /// Before this member of the roster.
    Before(Member),
}

impl<Member> PartEnd<Member> {
    /// What the step has done that ended here: a part of a run that gives each recipient `run_bytes`, and has given all of
    /// them together `bytes`.
    pub(super) fn delivered(&self, run_bytes: usize, bytes: usize) -> Delivered {
        match self {
            PartEnd::Through => Delivered { recipient_bytes: run_bytes, bytes, write: Write::Later },
            PartEnd::Before(_) if run_bytes >= PART_WRITTEN_BYTES_MIN => {
                Delivered { recipient_bytes: 0, bytes, write: Write::Now }
            }
            PartEnd::Before(_) => Delivered { recipient_bytes: 0, bytes, write: Write::Later },
        }
    }
}

/// Where a delivery's recipients stand with it.
#[derive(Default)]
struct Fallen {
    /// Sessions that stopped being live.
    slots: Vec<u32>,
    /// Those with an empty outbox: no write will make them go on.
    idle: Vec<u32>,
}

impl Shard {
    /// Durable group messages to one roster, in order, to its members from `from` on, until `bytes_max` bytes have
    /// been handed out. Each recipient is given all of them before the next one's turn, so that its outbox is
    /// written in one piece; the other order touches every outbox once per message. Sessions may come and go
    /// between two parts: who comes asks the ledger where it stands, and is told after these.
    pub(super) fn deliver_group(&mut self, now: Now, run: &GroupRun<'_>, from: u32, bytes_max: usize) -> PartEnd<u32> {
        let mut sending: Vec<u32> = run.rows.iter().map(|row| self.sending_slot(row.origin)).collect();
        let per_row = sending.clone();
        sending.retain(|slot| *slot != NIL);
        sending.sort_unstable();
        sending.dedup();
        let Shard { audiences, directory, sessions, outgoing, effects, .. } = self;
        let audience = audiences.of(run.roster, directory, sessions);
        let mut fallen = Fallen::default();
        let mut pushes = 0;
        let mut senders = Vec::new();
        let mut end = PartEnd::Through;
        let waiting_max = outgoing.waiting_bytes.saturating_add(bytes_max);
        let start = audience.entries.partition_point(|entry| entry.member < from);
        let mut member = from;
        for entry in audience.entries.get(start..).or_count(Place::Fanout).unwrap_or_default() {
            // All sessions of a member belong to one part.
            if entry.member != member {
                if outgoing.waiting_bytes >= waiting_max {
                    end = PartEnd::Before(entry.member);
                    break;
                }
                member = entry.member;
            }
            let Some(session) = sessions.at_mut(entry.session).or_count(Place::Fanout) else { continue };
            if !sending.is_empty() && sending.binary_search(&entry.session).is_ok() {
                senders.push(*entry);
                continue;
            }
            for row in &run.rows {
                let Some(&seq) = row.seqs.get(entry.member as usize).or_count(Place::Fanout) else { continue };
                pushes += push_row(now, session, entry.session, row.message, seq, outgoing, effects, &mut fallen);
            }
        }
        self.fell_behind(now, std::mem::take(&mut fallen));
        // A sender's own rows come as answers, in their places among the others; an answer may find that the rows
        // before it made the session fall behind, so that has to be settled first.
        for entry in senders {
            for (row, sender) in run.rows.iter().zip(&per_row) {
                let Some(&seq) = row.seqs.get(entry.member as usize).or_count(Place::Fanout) else { continue };
                if *sender == entry.session {
                    if let Some(session) = self.sessions.at_mut(entry.session).or_count(Place::Fanout) {
                        session.newest = session.newest.max(seq);
                    }
                    self.send_ok(now, row.origin, row.message.msg_id, seq, row.message.sent_at_ms, Taken::Now);
                } else if let Some(session) = self.sessions.at_mut(entry.session).or_count(Place::Fanout) {
                    let Shard { outgoing, effects, .. } = self;
                    pushes += push_row(now, session, entry.session, row.message, seq, outgoing, effects, &mut fallen);
                    self.fell_behind(now, std::mem::take(&mut fallen));
                }
            }
        }
        self.counts.pushes_live_total += pushes;
        end
    }

    /// Takes a step: the next part of a run of group messages, or one delivery of another kind. `None` when the commit
    /// is used up; until then the steps are to be given the same commit.
    pub fn deliver_next(&mut self, now: Now, commit: &mut std::vec::IntoIter<Delivery>) -> Option<Delivered> {
        let waiting_before = self.outgoing.waiting_bytes;
        let given = |shard: &Shard| shard.outgoing.waiting_bytes.saturating_sub(waiting_before);
        if let Some(run) = GroupRun::at_front(commit.as_slice()) {
            let end = self.deliver_group(now, &run, self.run_from, self.config.fanout_part_bytes_max);
            let (len, delivered) = (run.len(), end.delivered(run.bytes, given(self)));
            drop(run);
            match end {
                PartEnd::Before(member) => self.run_from = member,
                PartEnd::Through => {
                    self.run_from = 0;
                    commit.by_ref().take(len).for_each(drop);
                }
            }
            return Some(delivered);
        }
        let delivery = commit.next()?;
        let recipient_bytes = match &delivery {
            Delivery::Direct { message, .. } => message.push.bytes().len(),
            _ => 1,
        };
        self.deliver(now, delivery);
        Some(Delivered { recipient_bytes, bytes: given(self), write: Write::Later })
    }

    /// A durable one-to-one message.
    pub(super) fn deliver_direct(
        &mut self,
        now: Now,
        message: &Arc<Message>,
        sender_seq: Seq,
        recipient_seq: Seq,
        origin: Origin,
    ) {
        let sending = self.sending_slot(origin);
        self.push_to_user(now, message.sender, message, sender_seq, sending);
        if let Conversation::User(recipient) = message.to
            && recipient != message.sender
        {
            self.push_to_user(now, recipient, message, recipient_seq, sending);
        }
        if sending != NIL {
            self.send_ok(now, origin, message.msg_id, sender_seq, message.sent_at_ms, Taken::Now);
        }
    }

    /// One row to all of a user's sessions here but the sending one.
    fn push_to_user(&mut self, now: Now, user: UserId, message: &Arc<Message>, seq: Seq, sending: u32) {
        let mut slot = self.directory.first_session(user);
        let mut fallen = Fallen::default();
        while let Some(session) = self.sessions.at_mut(slot) {
            let next = session.next_of_user;
            if slot == sending {
                session.newest = session.newest.max(seq);
            } else {
                let Shard { outgoing, effects, counts, .. } = self;
                counts.pushes_live_total += push_row(now, session, slot, message, seq, outgoing, effects, &mut fallen);
            }
            slot = next;
        }
        self.fell_behind(now, fallen);
    }

    /// The user has rows in the store that were not delivered here: the user's sessions catch up.
    pub(super) fn missed(&mut self, now: Now, user: UserId, newest: Seq) {
        let mut slot = self.directory.first_session(user);
        let mut fallen = Fallen::default();
        while let Some(session) = self.sessions.at_mut(slot) {
            session.newest = session.newest.max(newest);
            if session.phase == Phase::Live && newest > session.cursor {
                fall_behind(session, slot, &mut fallen);
            }
            slot = session.next_of_user;
        }
        self.fell_behind(now, fallen);
    }

    /// The sending session's slot, if it is on this shard and still there.
    pub(super) fn sending_slot(&self, origin: Origin) -> u32 {
        if origin.session.shard == self.config.id { self.slot_of(origin.session.conn).unwrap_or(NIL) } else { NIL }
    }

    /// Answers a Send. Where the sender's row is the next one, the answer is the row; else a live session has
    /// missed something and catches up.
    pub(super) fn send_ok(&mut self, now: Now, origin: Origin, msg_id: MsgId, seq: Seq, sent_at_ms: u64, taken: Taken) {
        let Some(slot) = self.settle(origin) else { return };
        let Some(session) = self.sessions.at_mut(slot).or_count(Place::Fanout) else { return };
        let mut fallen = Fallen::default();
        if seq == session.cursor.next() {
            session.cursor = seq;
            session.newest = session.newest.max(seq);
        } else if seq > session.cursor && session.phase == Phase::Live {
            fall_behind(session, slot, &mut fallen);
        }
        self.counts.sends_total += u64::from(seq != Seq(0));
        self.fell_behind(now, fallen);
        self.reply(now, slot, |encoder| encoder.send_ok(origin.request_id, msg_id, seq, sent_at_ms, taken));
        self.catch_up_done(now, slot);
    }

    fn fell_behind(&mut self, now: Now, fallen: Fallen) {
        self.behind += fallen.slots.len();
        self.counts.fell_behind_total += fallen.slots.len() as u64;
        for slot in fallen.slots {
            self.note_of_session(now, slot, UserEventKind::Behind);
        }
        for slot in fallen.idle {
            self.retry_page(slot);
        }
    }
}

/// One row to one session that did not send it, if it is live and this is its next; returns how many were pushed.
#[expect(clippy::too_many_arguments, reason = "the shard's parts, borrowed one by one for the whole loop")]
#[inline]
fn push_row(
    now: Now,
    session: &mut Session,
    slot: u32,
    message: &Arc<Message>,
    seq: Seq,
    outgoing: &mut Outgoing,
    effects: &mut Effects,
    fallen: &mut Fallen,
) -> u64 {
    session.newest = session.newest.max(seq);
    if session.phase != Phase::Live || seq <= session.cursor {
        return 0;
    }
    if seq == session.cursor.next() && outgoing.has_room(session, message.push.bytes().len()) {
        session.cursor = seq;
        outgoing.push(session, slot, message, seq, now.mono_ms, &mut effects.dirty);
        return 1;
    }
    fall_behind(session, slot, fallen);
    0
}

/// A live session cannot be given the next row now: it reads pages when its outbox has drained.
#[cold]
fn fall_behind(session: &mut Session, slot: u32, fallen: &mut Fallen) {
    session.phase = Phase::Behind;
    fallen.slots.push(slot);
    if session.outbox.is_none() && !session.flags.has(Flags::PAGE_ASKED) {
        fallen.idle.push(slot);
    }
}
