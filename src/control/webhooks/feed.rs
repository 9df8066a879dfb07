//! What the journal has for endpoints: messages with their recipients, and changes of groups, in the ledger's order.
//!
//! On the webhooks' thread, one for each endpoint. What always holds: it reads nothing that is not durable; it reads a piece of
//! [`WEBHOOK_READ_BYTES`] at a time, and the next one only when all of that was taken; it changes nothing on disk. What the journal
//! no longer has is passed over, and said.

use std::collections::VecDeque;
use std::io::ErrorKind::NotFound;

use ringway_wire::ids::{Conversation, GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::GroupChangeKind;

use crate::contract::position::JournalPosition;
use crate::journal::JournalError;
use crate::journal::disk::Directory;
use crate::journal::reader::Reader;
use crate::journal::record::{Record, RosterRecord};
use crate::journal::segment::list_segments;
use crate::limits::WEBHOOK_READ_BYTES;

/// Something that endpoints may be told of.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FeedItem {
    /// Where its record lies.
    pub(super) at: JournalPosition,
    /// What it is.
    pub(super) what: FeedContent,
}

/// See [`FeedItem`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum FeedContent {
    /// A durable message.
    Message(FedMessage),
    /// A durable change of a group.
    Change(FedChange),
    /// All before it is a cluster's stream up to this entry.
    Mark(u64),
}

/// A message with all its rows but the sender's.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FedMessage {
    /// Its number.
    pub(super) msg_id: MsgId,
    /// Who sent it.
    pub(super) sender: UserId,
    /// Where it was addressed.
    pub(super) to: Conversation,
    /// What it says.
    pub(super) body: Vec<u8>,
    /// Who else has a row.
    pub(super) recipients: Vec<(UserId, Seq)>,
}

/// A change of a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct FedChange {
    /// Its number.
    pub(super) msg_id: MsgId,
    /// Which group.
    pub(super) group: GroupId,
    /// The version after it.
    pub(super) version: RosterVersion,
    /// What was done.
    pub(super) kind: GroupChangeKind,
    /// By whom.
    pub(super) actor: UserId,
    /// To whom.
    pub(super) users: Vec<UserId>,
    /// Who owns it from now on, if that changed.
    pub(super) new_owner: Option<UserId>,
}

/// See the module.
pub(super) struct JournalFeed {
    disk: Directory,
    ahead: Reader<Directory>,
    /// Goes to rosters.
    spot: Reader<Directory>,
    roster: Option<(JournalPosition, RosterRecord)>,
    items: VecDeque<FeedItem>,
    /// Where the next piece begins.
    reached: JournalPosition,
    /// Bytes that were no longer there.
    skipped_bytes: u64,
}

impl JournalFeed {
    /// Nothing is read yet.
    pub(super) fn new(disk: Directory, from: JournalPosition) -> JournalFeed {
        let (ahead, spot) = (Reader::new(disk.clone()), Reader::new(disk.clone()));
        JournalFeed { disk, ahead, spot, roster: None, items: VecDeque::new(), reached: from, skipped_bytes: 0 }
    }

    /// Goes on there: 0, a record, or what [`Self::position`] said.
    pub(super) fn seek(&mut self, to: JournalPosition) {
        self.items.clear();
        self.reached = to;
    }

    /// Where whoever has taken what came so far goes on.
    pub(super) fn position(&self) -> JournalPosition {
        self.items.front().map_or(self.reached, |item| item.at)
    }

    /// Bytes that were passed over since the last call.
    pub(super) fn take_skipped_bytes(&mut self) -> u64 {
        std::mem::take(&mut self.skipped_bytes)
    }

    /// What was read and not taken, from the first on. Reads on when there is nothing, up to `durable`.
    pub(super) fn peek(&mut self, durable: JournalPosition) -> Result<&VecDeque<FeedItem>, JournalError> {
        let mut is_listed_anew = false;
        while self.items.is_empty() && self.reached < durable {
            match self.read(durable) {
                // A segment that was there when they were listed: it is listed again what is there.
                Err(JournalError::Io { source, .. }) if source.kind() == NotFound && !is_listed_anew => {
                    is_listed_anew = true;
                    (self.ahead, self.spot) = (Reader::new(self.disk.clone()), Reader::new(self.disk.clone()));
                }
                Err(JournalError::Missing { wanted, first }) if first > wanted => {
                    self.skipped_bytes += first - wanted;
                    self.reached = JournalPosition(first);
                }
                read => read?,
            }
        }
        Ok(&self.items)
    }

    /// What was read and not taken.
    pub(super) fn items(&self) -> impl Iterator<Item = &FeedItem> {
        self.items.iter()
    }

    /// Takes the first.
    pub(super) fn take(&mut self) -> Option<FeedItem> {
        self.items.pop_front()
    }

    /// The first record that is of this time or later, as far as the journal reaches back.
    pub(super) fn since(&mut self, unix_ms: u64, durable: JournalPosition) -> Result<JournalPosition, JournalError> {
        let starts = list_segments(&self.disk)?;
        let mut from = starts.first().copied().unwrap_or(durable);
        for start in starts.iter().rev() {
            if self.first_since(*start, 0, durable)?.is_some_and(|(_, ms)| ms < unix_ms) {
                from = *start;
                break;
            }
        }
        Ok(self.first_since(from, unix_ms, durable)?.map_or(durable, |(at, _)| at))
    }

    /// Of a cluster's stream: the record behind this entry, and the first entry of which anything is here.
    pub(super) fn behind_entry(
        &mut self,
        entry: u64,
        durable: JournalPosition,
    ) -> Result<(JournalPosition, Option<u64>), JournalError> {
        let mut at = list_segments(&self.disk)?.first().copied().unwrap_or(durable);
        let (mut behind, mut is_behind, mut first) = (at, true, None);
        while at < durable {
            at = self.ahead.read(at, durable, WEBHOOK_READ_BYTES, &mut |position, record| {
                if std::mem::take(&mut is_behind) {
                    behind = position;
                }
                if let Record::Mark(count, _) = record {
                    first = first.or(Some(count));
                    is_behind = count <= entry;
                }
            })?;
        }
        Ok((if is_behind { durable } else { behind }, first))
    }

    /// The first record behind a position that has a time, of this time or later.
    fn first_since(
        &mut self,
        from: JournalPosition,
        unix_ms: u64,
        durable: JournalPosition,
    ) -> Result<Option<(JournalPosition, u64)>, JournalError> {
        let (mut at, mut found) = (from, None);
        while at < durable && found.is_none() {
            at = self.ahead.read(at, durable, WEBHOOK_READ_BYTES, &mut |position, record| {
                let ms = record.msg_id().map(MsgId::sent_at_ms).filter(|ms| *ms >= unix_ms);
                found = found.or(ms.map(|ms| (position, ms)));
            })?;
        }
        Ok(found)
    }

    fn read(&mut self, durable: JournalPosition) -> Result<(), JournalError> {
        let JournalFeed { ahead, spot, roster, items, reached, .. } = self;
        spot.settle(durable);
        let mut failed = None;
        let read = ahead.read(*reached, durable, WEBHOOK_READ_BYTES, &mut |at, record| {
            if failed.is_none() {
                match content(record, roster, spot) {
                    Ok(Some(what)) => items.push_back(FeedItem { at, what }),
                    Ok(None) => {}
                    Err(error) => failed = Some(error),
                }
            }
        });
        // What was visited before something failed is visited again.
        *reached = read.inspect_err(|_| items.clear())?;
        spot.forget(*reached);
        ahead.forget(*reached);
        match failed {
            Some(error) => Err(error),
            None => Ok(()),
        }
    }
}

fn content(
    record: Record<'_>,
    roster: &mut Option<(JournalPosition, RosterRecord)>,
    spot: &mut Reader<Directory>,
) -> Result<Option<FeedContent>, JournalError> {
    Ok(match record {
        Record::Direct(record) => {
            let recipients =
                if record.to == record.sender { Vec::new() } else { vec![(record.to, record.recipient_seq)] };
            let (msg_id, sender, to) = (record.msg_id, record.sender, record.to());
            Some(FeedContent::Message(FedMessage { msg_id, sender, to, body: record.body.to_vec(), recipients }))
        }
        Record::Group(record) => {
            let known = roster.as_ref().is_some_and(|(at, _)| *at == record.roster_at);
            if !known && let Record::Roster(read) = spot.record_at(record.roster_at)? {
                *roster = Some((record.roster_at, read));
            }
            let Some((_, members)) = roster.as_ref().filter(|(at, _)| *at == record.roster_at) else { return Ok(None) };
            // One that does not fit its roster the store refuses, and says so.
            let rows = record.rows(members).into_iter().flatten();
            let recipients = rows.filter(|(user, _)| *user != record.sender).collect();
            let (msg_id, sender, to) = (record.msg_id, record.sender, record.to());
            Some(FeedContent::Message(FedMessage { msg_id, sender, to, body: record.body.to_vec(), recipients }))
        }
        Record::Change(change) => Some(FeedContent::Change(FedChange {
            msg_id: change.msg_id,
            group: change.group,
            version: change.version,
            kind: change.kind,
            actor: change.actor,
            users: change.users,
            new_owner: change.new_owner,
        })),
        Record::Mark(entry, _) => Some(FeedContent::Mark(entry)),
        Record::Roster(_) | Record::Withdrawn(_) => None,
    })
}

#[cfg(test)]
mod tests;
