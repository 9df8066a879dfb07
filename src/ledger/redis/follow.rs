//! From the stream's entries to numbered rows, to deliveries, and to this node's copy.
//!
//! On the ledger's thread. What always holds: entries are taken in order and none is left out, so every node gives each
//! row the same number, which is one more than the user's last; nothing but the entries and what they began from goes
//! into it, no clock and no setting of this node. An entry of this node carries the session that sent it, so that its
//! ack stands among its deliveries where its row does.

use std::sync::Arc;

use super::entry::Entry;
use super::link::Arrival;
use super::log::Submitted;
use super::windows::EntryRows;
use super::{NOBODY, RedisEngine};
use crate::contract::delivery::{Delivery, GroupAnnouncement};
use crate::contract::ids::Origin;
use crate::contract::message::Message;
use crate::contract::position::StreamPosition;
use crate::journal::disk::Disk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::LedgerError;
use crate::ledger::dedup::Name;
use crate::ledger::pending_delivery::PendingDelivery;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::push::PushFrame;

impl<D: Disk> RedisEngine<D> {
    /// Takes entries in the stream's order.
    pub(super) fn follow(&mut self, entries: Vec<Arrival>) -> Result<(), LedgerError> {
        for Arrival { count, entry } in entries {
            if count <= self.seen {
                continue;
            }
            if count != self.seen + 1 {
                return self.fell_behind(count);
            }
            let decoded = Entry::decode(&entry).map_err(|_| LedgerError::Entry(count))?;
            self.take_entry(count, &decoded)?;
            self.copy.end_entry(count);
            self.recent.push(count, &entry);
            self.seen = count;
            self.progress.report_followed(StreamPosition(count));
            if self.copy.is_long() {
                self.copy.flush().map_err(LedgerError::Copy)?;
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, count: u64, entry: &Entry<'_>) -> Result<(), LedgerError> {
        if let Some(msg_id) = entry.record.msg_id() {
            self.ids.raise(msg_id);
            if entry.node == self.settings.node {
                let what = match entry.record {
                    Record::Change(_) => Submitted::Change,
                    _ => Submitted::Message,
                };
                self.log.read(msg_id, count, what);
            }
        }
        match &entry.record {
            Record::Group(record) => self.group_entry(count, entry.version, record),
            Record::Direct(record) => self.direct_entry(count, record),
            Record::Change(record) => self.change_entry(count, record),
            Record::Roster(_) | Record::Mark(_) | Record::Withdrawn(_) => Err(LedgerError::Entry(count)),
        }
    }

    fn group_entry(&mut self, count: u64, version: RosterVersion, record: &GroupRecord<'_>) -> Result<(), LedgerError> {
        // Redis took it at this version, and changes stand in the stream where Redis took them.
        let current = self.groups.roster(record.group).filter(|roster| roster.version == version);
        let roster = Arc::clone(current.ok_or(LedgerError::Entry(count))?);
        let sender = roster.position(record.sender).ok_or(LedgerError::Entry(count))?;
        let seqs: Arc<[Seq]> = roster.members().iter().map(|member| self.sequences.next(member.slot)).collect();
        let mut rows = EntryRows::default();
        std::iter::zip(roster.members(), seqs.iter()).for_each(|(member, seq)| rows.add(member.user, *seq));
        self.numbered(count, record.msg_id, seqs.get(sender).copied().unwrap_or_default(), rows);
        self.copy.push_group(record.clone(), &roster, &seqs).map_err(LedgerError::Copy)?;
        self.counters.messages += 1;
        self.counters.rows += seqs.len() as u64;
        let origin = self.settled(record.msg_id);
        let sender_seq = seqs.get(sender).copied().unwrap_or_default();
        self.settle_name(
            &name_of(record.sender, record.client_msg_id),
            record.msg_id,
            sender_seq,
            record.to(),
            record.body,
        );
        let message = message(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body);
        self.deliveries.push(PendingDelivery::Delivery(Delivery::Group { message, roster, seqs, origin }));
        Ok(())
    }

    fn direct_entry(&mut self, count: u64, record: &DirectRecord<'_>) -> Result<(), LedgerError> {
        let mut rows = EntryRows::default();
        let sender_seq = self.next_of(record.sender).ok_or(LedgerError::Entry(count))?;
        rows.add(record.sender, sender_seq);
        let mut recipient_seq = sender_seq;
        if record.to != record.sender {
            recipient_seq = self.next_of(record.to).ok_or(LedgerError::Entry(count))?;
            rows.add(record.to, recipient_seq);
        }
        self.numbered(count, record.msg_id, sender_seq, rows);
        let origin = self.settled(record.msg_id);
        let numbered = DirectRecord { sender_seq, recipient_seq, ..record.clone() };
        self.copy.push(&Record::Direct(numbered)).map_err(LedgerError::Copy)?;
        self.counters.messages += 1;
        self.counters.rows += 1 + u64::from(record.sender != record.to);
        self.settle_name(
            &name_of(record.sender, record.client_msg_id),
            record.msg_id,
            sender_seq,
            record.to(),
            record.body,
        );
        let message = message(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body);
        self.deliveries.push(PendingDelivery::Delivery(Delivery::Direct {
            message,
            sender_seq,
            recipient_seq,
            origin,
        }));
        Ok(())
    }

    fn change_entry(&mut self, count: u64, record: &ChangeRecord) -> Result<(), LedgerError> {
        let applied = self.groups.apply(record, &mut self.sequences);
        let roster = applied.ok().flatten().ok_or(LedgerError::Entry(count))?;
        self.groups.keep();
        self.in_flight.retry_deferred();
        self.changed_at.insert(record.group, count);
        let mut members = EntryRows::default();
        roster.members().iter().for_each(|member| members.add(member.user, Seq(u64::from(member.role.0))));
        self.numbered(count, record.msg_id, Seq(0), members);
        let origin = self.settled(record.msg_id);
        self.copy.push(&Record::Change(record.clone())).map_err(LedgerError::Copy)?;
        let ChangeRecord { kind, actor, ref users, .. } = *record;
        let announcement = Arc::new(GroupAnnouncement { kind, actor, users: users.clone() });
        self.deliveries.push(PendingDelivery::Delivery(Delivery::Changed { origin, roster, announcement }));
        Ok(())
    }

    /// What is kept of every entry.
    fn numbered(&mut self, count: u64, msg_id: MsgId, sender_seq: Seq, rows: EntryRows) {
        self.senders.push(count, sender_seq);
        self.windows.take(count, msg_id, rows);
    }

    /// It is in the stream: nothing of it flies any more. Returns the session that sent it, if that is one of ours.
    fn settled(&mut self, msg_id: MsgId) -> Origin {
        self.in_flight.remove(msg_id).map_or(NOBODY, |subject| subject.origin())
    }

    fn next_of(&mut self, user: UserId) -> Option<Seq> {
        let slot = self.sequences.assign(user)?;
        Some(self.sequences.next(slot))
    }
}

fn name_of(sender: UserId, client_msg_id: ClientMsgId) -> Name {
    Name { sender, client_msg_id }
}

fn message(msg_id: MsgId, sender: UserId, to: Conversation, client_msg_id: ClientMsgId, body: &[u8]) -> Arc<Message> {
    let sent_at_ms = msg_id.sent_at_ms();
    let push = PushFrame::encode(msg_id, sender, to, sent_at_ms, body);
    Arc::new(Message { msg_id, sender, to, client_msg_id, sent_at_ms, push })
}
