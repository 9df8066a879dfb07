//! From a message that is no repeat to its rows' numbers, its record and its deliveries.
//!
//! On the ledger's thread. What always holds: what is refused takes no number, and costs its sender and its group nothing;
//! a message counts against their limits as many rows as it makes.

use std::sync::Arc;

use super::JournalEngine;
use crate::clock::Now;
use crate::contract::delivery::Delivery;
use crate::contract::digest::digest;
use crate::contract::message::{Incoming, Message};
use crate::contract::submission::MessageSubmission;
use crate::journal::disk::Disk;
use crate::journal::record::{DirectRecord, GroupRecord, Record};
use crate::ledger::answers::Refusal;
use crate::ledger::dedup::{Known, Name};
use crate::spending::Recipient;
use ringway_wire::ids::{Conversation, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

impl<D: Disk> JournalEngine<D> {
    /// Numbers a message, or refuses it.
    pub(super) fn number(&mut self, now: Now, submission: MessageSubmission) {
        let Incoming { origin, to, .. } = submission.incoming;
        let numbered = match to {
            Conversation::User(to) => self.direct(now, to, submission.incoming),
            Conversation::Group(group) => self.group(now, group, submission.incoming),
        };
        if let Err(refusal) = numbered {
            self.answers.refuse(origin, refusal);
        }
    }

    fn direct(&mut self, now: Now, to: UserId, incoming: Incoming) -> Result<(), Refusal> {
        let Incoming { origin, sender, client_msg_id, .. } = incoming;
        let rows = if to == sender { 1 } else { 2 };
        self.check_recipient(&incoming)?;
        self.make_room(now)?;
        self.check_share(sender)?;
        let is_new = to != sender && self.sequences.slot(to).is_none();
        self.spend(now, &incoming, rows, if is_new { Recipient::New } else { Recipient::Known })?;
        let sender_slot = self.sequences.assign(sender).ok_or(Refusal::StorageFull)?;
        let to_slot = self.sequences.assign(to).ok_or(Refusal::StorageFull)?;
        let sender_seq = self.sequences.next(sender_slot);
        let recipient_seq = if to == sender { sender_seq } else { self.sequences.next(to_slot) };
        let msg_id = self.ids.next(now.unix_ms);
        let body = incoming.body();
        let batch_before = self.commit.batch.len();
        let record = DirectRecord { msg_id, sender, to, client_msg_id, sender_seq, recipient_seq, body };
        self.commit.batch.push(&Record::Direct(record));
        self.count_share(sender, batch_before, 1);
        let message = self.numbered(incoming, msg_id, sender_seq, rows);
        self.answers.stage(Delivery::Direct { message, sender_seq, recipient_seq, origin });
        Ok(())
    }

    /// What comes here is no repeat: who is not a member is refused. Its recipients are those who are members now.
    fn group(&mut self, now: Now, group: GroupId, incoming: Incoming) -> Result<(), Refusal> {
        let roster = self.groups.roster(group).cloned().ok_or(Refusal::Code(ErrorCode::UnknownGroup))?;
        let Incoming { origin, sender, client_msg_id, .. } = incoming;
        let sender_at = roster.position(sender).ok_or(Refusal::Code(ErrorCode::NotAMember))?;
        let batch_at = self.make_room(now)?;
        self.check_share(sender)?;
        self.spend(now, &incoming, roster.members().len(), Recipient::Known)?;
        let seqs: Arc<[Seq]> = roster.members().iter().map(|member| self.sequences.next(member.slot)).collect();
        // Parallel to the members.
        let sender_seq = seqs[sender_at];
        let msg_id = self.ids.next(now.unix_ms);
        let batch_before = self.commit.batch.len();
        let (roster_at, differences) = self.bases.differences(&roster, &seqs, &mut self.commit.batch, batch_at);
        let body = incoming.body();
        let record = GroupRecord { msg_id, sender, group, client_msg_id, roster_at, differences, body };
        self.commit.batch.push(&Record::Group(record));
        // A roster that this message is the first to refer to is indexed with it.
        let has_roster = roster_at.0 >= batch_at.0 + batch_before as u64;
        let weight = if has_roster { 1 + seqs.len() as u64 } else { 1 };
        self.count_share(sender, batch_before, weight);
        let message = self.numbered(incoming, msg_id, sender_seq, seqs.len());
        self.answers.stage(Delivery::Group { message, roster, seqs, origin });
        Ok(())
    }

    /// Whether the sender may write to the other user.
    pub(super) fn check_recipient(&self, incoming: &Incoming) -> Result<(), Refusal> {
        let permission = self.settings.policies.direct_messages.asked_by(incoming.origin, self.settings.shards);
        self.groups.check_recipient(permission, incoming, &self.sequences).map_err(Refusal::Code)
    }

    /// Takes so many rows of what the sender and the group may have; what the API sends counts for nobody.
    fn spend(&mut self, now: Now, incoming: &Incoming, rows: usize, recipient: Recipient) -> Result<(), Refusal> {
        if incoming.origin.is_api(self.settings.shards) {
            return Ok(());
        }
        let from_to = (incoming.sender, incoming.to);
        let taken = self.spending.take(now.mono_ms, &self.settings.traffic, from_to, rows, recipient);
        taken.map_err(Refusal::Limited)
    }

    /// Remembers a message that has its numbers.
    fn numbered(&mut self, incoming: Incoming, msg_id: MsgId, seq: Seq, rows: usize) -> Arc<Message> {
        let known = Known { msg_id, seq, digest: digest(incoming.to, incoming.body()) };
        self.window.insert(Name::of(&incoming), known);
        self.commit.messages += 1;
        self.commit.rows += rows;
        Arc::new(incoming.numbered(msg_id))
    }
}
