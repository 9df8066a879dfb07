//! From a delivery to outboxes: the path that every message takes to every recipient.
//!
//! Part of the shard's core. What always holds: a session gets a row only if it is the one after its cursor;
//! any other sends it to catching up, so nothing is skipped and nothing comes twice; a full outbox does the same,
//! so a slow reader delays nobody and loses nothing. Per recipient nothing is looked up.

use std::sync::Arc;

use super::Shard;
use super::audience::Entry;
use super::session::{Flags, NIL, Phase, Session};
use crate::clock::Now;
use crate::ids::{Conversation, GroupId, MsgId, Origin, Seq, UserId};
use crate::message::{Message, Roster};

/// Where a delivery's recipients stand with it.
#[derive(Default)]
struct Fallen {
    /// Sessions that stopped being live.
    count: u64,
    /// Those with an empty outbox: no write will make them go on.
    idle: Vec<u32>,
}

impl Shard {
    /// A durable group message.
    pub(super) fn deliver_group(
        &mut self,
        now: Now,
        message: &Arc<Message>,
        roster: &Arc<Roster>,
        seqs: &[Seq],
        origin: Origin,
    ) {
        let sending = self.sending_slot(origin);
        let Shard { audiences, directory, sessions, outgoing, effects, .. } = self;
        let audience = audiences.of(roster, directory, sessions);
        let frame_bytes = message.push.bytes().len();
        let mut fallen = Fallen::default();
        let mut pushes = 0;
        for &Entry { member, session: slot } in &audience.entries {
            let (Some(&seq), Some(session)) = (seqs.get(member as usize), sessions.at_mut(slot)) else { continue };
            session.newest = session.newest.max(seq);
            if slot == sending || session.phase != Phase::Live || seq <= session.cursor {
                continue;
            }
            if seq == session.cursor.next() && outgoing.has_room(session, frame_bytes) {
                session.cursor = seq;
                outgoing.push(session, slot, message, seq, now.mono_ms, &mut effects.dirty);
                pushes += 1;
            } else {
                fall_behind(session, slot, &mut fallen);
            }
        }
        self.counts.pushes_live_total += pushes;
        self.fell_behind(fallen);
        if sending != NIL {
            let seq = roster.position(message.sender).and_then(|at| seqs.get(at)).copied().unwrap_or_default();
            self.send_ok(now, origin, message.msg_id, seq, message.sent_at_ms, false);
        }
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
        self.push_row(now, message.sender, message, sender_seq, sending);
        if let Conversation::User(recipient) = message.to
            && recipient != message.sender
        {
            self.push_row(now, recipient, message, recipient_seq, sending);
        }
        if sending != NIL {
            self.send_ok(now, origin, message.msg_id, sender_seq, message.sent_at_ms, false);
        }
    }

    /// One row to all of a user's sessions here but the sending one.
    fn push_row(&mut self, now: Now, user: UserId, message: &Arc<Message>, seq: Seq, sending: u32) {
        let mut slot = self.directory.first_session(user);
        let mut fallen = Fallen::default();
        while let Some(session) = self.sessions.at_mut(slot) {
            let next = session.next_of_user;
            session.newest = session.newest.max(seq);
            if slot != sending && session.phase == Phase::Live && seq > session.cursor {
                if seq == session.cursor.next() && self.outgoing.has_room(session, message.push.bytes().len()) {
                    session.cursor = seq;
                    self.outgoing.push(session, slot, message, seq, now.mono_ms, &mut self.effects.dirty);
                    self.counts.pushes_live_total += 1;
                } else {
                    fall_behind(session, slot, &mut fallen);
                }
            }
            slot = next;
        }
        self.fell_behind(fallen);
    }

    /// An ephemeral message: to whoever is online and has room; it moves nobody's cursor.
    pub(super) fn deliver_ephemeral(
        &mut self,
        now: Now,
        message: &Arc<Message>,
        roster: Option<&Arc<Roster>>,
        origin: Origin,
    ) {
        let sending = self.sending_slot(origin);
        let frame_bytes = message.push.bytes().len();
        let Shard { audiences, directory, sessions, outgoing, effects, counts, .. } = self;
        let mut push = |session: &mut Session, slot: u32| {
            if slot == sending || !session.phase.is_open() {
                return;
            }
            if outgoing.has_room(session, frame_bytes) {
                outgoing.push(session, slot, message, Seq(0), now.mono_ms, &mut effects.dirty);
                counts.pushes_ephemeral_total += 1;
            } else {
                counts.shed.ephemeral += 1;
            }
        };
        match (message.to, roster) {
            (Conversation::Group(group), Some(roster)) => {
                // A durable message may have brought a newer roster already: then that one counts.
                let roster = match audiences.roster(group) {
                    Some(current) if current.version > roster.version => Arc::clone(current),
                    _ => Arc::clone(roster),
                };
                for &Entry { session: slot, .. } in &audiences.of(&roster, directory, sessions).entries {
                    if let Some(session) = sessions.at_mut(slot) {
                        push(session, slot);
                    }
                }
            }
            (Conversation::User(user), _) => {
                let mut slot = directory.first_session(user);
                while let Some(session) = sessions.at_mut(slot) {
                    let next = session.next_of_user;
                    push(session, slot);
                    slot = next;
                }
            }
            (Conversation::Group(GroupId(_)), None) => {}
        }
    }

    /// The sending session's slot, if it is on this shard and still there.
    fn sending_slot(&self, origin: Origin) -> u32 {
        if origin.session.shard == self.config.id { self.slot_of(origin.session.conn).unwrap_or(NIL) } else { NIL }
    }

    /// Answers a Send. Where the sender's row is the next one, the answer is the row; else a live session has
    /// missed something and catches up.
    pub(super) fn send_ok(&mut self, now: Now, origin: Origin, msg_id: MsgId, seq: Seq, sent_at_ms: u64, repeat: bool) {
        let Some(slot) = self.settle(origin) else { return };
        let Some(session) = self.sessions.at_mut(slot) else { return };
        let mut fallen = Fallen::default();
        if seq == session.cursor.next() {
            session.cursor = seq;
            session.newest = session.newest.max(seq);
        } else if seq > session.cursor && session.phase == Phase::Live {
            fall_behind(session, slot, &mut fallen);
        }
        self.counts.sends_total += u64::from(seq != Seq(0));
        self.fell_behind(fallen);
        self.reply(now, slot, |encoder| encoder.send_ok(origin.request_id, msg_id, seq, sent_at_ms, repeat));
        self.catch_up_done(slot);
    }

    fn fell_behind(&mut self, fallen: Fallen) {
        self.behind += fallen.count as usize;
        self.counts.fell_behind_total += fallen.count;
        for slot in fallen.idle {
            self.retry_page(slot);
        }
    }
}

/// A live session cannot be given the next row now: it reads pages when its outbox has drained.
#[cold]
fn fall_behind(session: &mut Session, slot: u32, fallen: &mut Fallen) {
    session.phase = Phase::Behind;
    fallen.count += 1;
    if session.outbox.is_none() && !session.flags.has(Flags::PAGE_ASKED) {
        fallen.idle.push(slot);
    }
}
