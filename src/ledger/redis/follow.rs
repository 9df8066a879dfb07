//! From the stream's entries to deliveries, and to this node's copy.
//!
//! On the ledger's thread. What always holds: entries are taken in order and none is left out; an entry of this node
//! carries the session that sent it, so that its ack stands among its deliveries where its row does.

use std::sync::Arc;

use super::entry::{Entry, places, rows};
use super::link::Arrival;
use super::{NOBODY, RedisEngine};
use crate::ids::{Conversation, MsgId, Origin, RosterVersion, Seq, UserId};
use crate::journal::disk::Disk;
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::LedgerError;
use crate::ledger::sequence::sent_at_ms;
use crate::ledger::staged::Staged;
use crate::message::{Message, Roster};
use crate::shard::event::{Delivery, GroupAnnouncement};
use crate::wire::push::PushFrame;

impl<D: Disk> RedisEngine<D> {
    /// Takes entries in the stream's order.
    pub(super) fn follow(&mut self, entries: Vec<Arrival>) -> Result<(), LedgerError> {
        for Arrival { count, entry, rows } in entries {
            if count <= self.seen {
                continue;
            }
            if count != self.seen + 1 {
                return Err(LedgerError::Behind { seen: self.seen, next: count });
            }
            let decoded = Entry::decode(&entry).map_err(|_| LedgerError::Entry(count))?;
            self.take_entry(count, &decoded, &rows)?;
            self.seen = count;
            if self.copy.is_long() {
                self.copy.flush(count).map_err(LedgerError::Copy)?;
            }
        }
        Ok(())
    }

    fn take_entry(&mut self, count: u64, entry: &Entry<'_>, rows: &[u8]) -> Result<(), LedgerError> {
        if let Some(msg_id) = entry.record.msg_id() {
            self.ids.raise(msg_id);
            if entry.node == self.settings.node {
                self.log.read(msg_id, count);
            }
        }
        // Entries up to where the store was at start are in it: they only bring this node's numbers up to date.
        let stored = count <= self.stored_at_start;
        match &entry.record {
            Record::Group(record) => self.group_entry(count, entry.version, record, rows, stored),
            Record::Direct(record) => self.direct_entry(count, record, rows, stored),
            Record::Change(record) => self.change_entry(count, record, stored),
            Record::Roster(_) | Record::Mark(_) | Record::Withdrawn(_) => Err(LedgerError::Entry(count)),
        }
    }

    fn group_entry(
        &mut self,
        count: u64,
        version: RosterVersion,
        record: &GroupRecord<'_>,
        packed: &[u8],
        stored: bool,
    ) -> Result<(), LedgerError> {
        let current = self.groups.roster(record.group).filter(|roster| roster.version == version).cloned();
        let Some(roster) = current else {
            // The database was read a little later than its position: it has the message and a later change.
            self.settled(record.msg_id);
            return match stored {
                true => Ok(()),
                // The roster that the message went to is nowhere any more.
                false if count <= self.groups_at => Err(LedgerError::Late(count)),
                false => Err(LedgerError::Entry(count)),
            };
        };
        let packed: Vec<Seq> = rows(packed).collect();
        let seqs: Option<Arc<[Seq]>> =
            self.places_of(&roster).iter().map(|place| packed.get(*place as usize).copied()).collect();
        let seqs = seqs.filter(|seqs| seqs.len() == packed.len()).ok_or(LedgerError::Entry(count))?;
        for (member, seq) in std::iter::zip(roster.members(), seqs.iter()) {
            self.sequences.raise(member.slot, *seq);
        }
        if stored {
            self.settled(record.msg_id);
            return Ok(());
        }
        self.copy.push_group(record.clone(), &roster, &seqs).map_err(LedgerError::Copy)?;
        self.counters.messages += 1;
        self.counters.rows += seqs.len() as u64;
        let origin = self.settled(record.msg_id);
        let message = message(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body);
        self.staged.push(Staged::Delivery(Delivery::Group { message, roster, seqs, origin }));
        Ok(())
    }

    fn direct_entry(
        &mut self,
        count: u64,
        record: &DirectRecord<'_>,
        packed: &[u8],
        stored: bool,
    ) -> Result<(), LedgerError> {
        let mut seqs = rows(packed);
        let sender_seq = seqs.next().ok_or(LedgerError::Entry(count))?;
        let recipient_seq = seqs.next().unwrap_or(sender_seq);
        self.raise(record.sender, sender_seq);
        self.raise(record.to, recipient_seq);
        let origin = self.settled(record.msg_id);
        if stored {
            return Ok(());
        }
        let numbered = DirectRecord { sender_seq, recipient_seq, ..record.clone() };
        self.copy.push(&Record::Direct(numbered)).map_err(LedgerError::Copy)?;
        self.counters.messages += 1;
        self.counters.rows += 1 + u64::from(record.sender != record.to);
        let message = message(record.msg_id, record.sender, record.to(), record.client_msg_id, record.body);
        self.staged.push(Staged::Delivery(Delivery::Direct { message, sender_seq, recipient_seq, origin }));
        Ok(())
    }

    fn change_entry(&mut self, count: u64, record: &ChangeRecord, stored: bool) -> Result<(), LedgerError> {
        let known = self.groups.roster(record.group).map_or(RosterVersion(0), |roster| roster.version);
        let origin = self.settled(record.msg_id);
        let is_loaded = count <= self.groups_at && record.version <= known;
        if is_loaded || (stored && record.version.0 != known.0 + 1) {
            return Ok(());
        }
        let applied = self.groups.apply(record, &mut self.sequences);
        let roster = applied.ok().flatten().ok_or(LedgerError::Entry(count))?;
        self.groups.keep();
        self.places.remove(&record.group);
        self.changed_at.insert(record.group, count);
        if stored {
            return Ok(());
        }
        self.copy.push(&Record::Change(record.clone())).map_err(LedgerError::Copy)?;
        let ChangeRecord { kind, actor, ref users, .. } = *record;
        let announcement = Arc::new(GroupAnnouncement { kind, actor, users: users.clone() });
        self.staged.push(Staged::Delivery(Delivery::Changed { origin, roster, announcement }));
        Ok(())
    }

    /// It is in the stream: nothing of it flies any more. Returns the session that sent it, if that is one of ours.
    fn settled(&mut self, msg_id: MsgId) -> Origin {
        self.flying.remove(msg_id).map_or(NOBODY, |subject| subject.origin())
    }

    fn raise(&mut self, user: UserId, seq: Seq) {
        if let Some(slot) = self.sequences.assign(user) {
            self.sequences.raise(slot, seq);
        }
    }

    fn places_of(&mut self, roster: &Roster) -> Arc<[u32]> {
        match self.places.get(&roster.group) {
            Some((version, places)) if *version == roster.version => Arc::clone(places),
            _ => {
                let places: Arc<[u32]> = places(roster).into();
                self.places.insert(roster.group, (roster.version, Arc::clone(&places)));
                places
            }
        }
    }
}

fn message(
    msg_id: MsgId,
    sender: UserId,
    to: Conversation,
    client_msg_id: crate::ids::ClientMsgId,
    body: &[u8],
) -> Arc<Message> {
    let sent_at_ms = sent_at_ms(msg_id);
    let push = PushFrame::encode(msg_id, sender, to, sent_at_ms, body);
    Arc::new(Message { msg_id, sender, to, client_msg_id, sent_at_ms, push })
}
