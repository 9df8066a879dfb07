//! From journal records to a transaction for the database.
//!
//! Used by the store's thread. What always holds: rows end up sorted by (user, seq), and changes of groups stay
//! in journal order; a database that writes both with the position keeps exactly what the journal says.

use super::{GroupWrite, InboxRow, StoredBody, Transaction};
use crate::contract::digest::digest;
use crate::contract::position::{AppliedPosition, StreamDigest};
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, RecordError, RosterRecord};
use ringway_wire::ids::{MsgId, Seq};
use ringway_wire::schema::{GroupChangeKind, Role};

/// A transaction while records are added to it, in journal order.
#[derive(Debug, Default)]
pub(crate) struct Gathering {
    transaction: Transaction,
}

impl Gathering {
    /// Adds a group message with a row for each member of its roster.
    pub(crate) fn group(&mut self, record: &GroupRecord<'_>, roster: &RosterRecord) -> Result<(), RecordError> {
        let mut sender_seq = Seq(0);
        for (user, seq) in record.rows(roster)? {
            if user == record.sender {
                sender_seq = seq;
            }
            self.transaction.rows.push(InboxRow { user, seq, msg_id: record.msg_id });
        }
        self.transaction.messages.push(StoredBody {
            msg_id: record.msg_id,
            sender: record.sender,
            to: record.to(),
            client_msg_id: record.client_msg_id,
            sender_seq,
            digest: digest(record.to(), record.body),
            body: record.body.into(),
        });
        self.number(record.msg_id);
        Ok(())
    }

    /// Adds a one-to-one message with its two rows, or one if it is to oneself.
    pub(crate) fn direct(&mut self, record: &DirectRecord<'_>) {
        let msg_id = record.msg_id;
        self.transaction.rows.push(InboxRow { user: record.sender, seq: record.sender_seq, msg_id });
        if record.to != record.sender {
            self.transaction.rows.push(InboxRow { user: record.to, seq: record.recipient_seq, msg_id });
        }
        self.transaction.messages.push(StoredBody {
            msg_id,
            sender: record.sender,
            to: record.to(),
            client_msg_id: record.client_msg_id,
            sender_seq: record.sender_seq,
            digest: digest(record.to(), record.body),
            body: record.body.into(),
        });
        self.number(msg_id);
    }

    /// Adds a change of a group.
    pub(crate) fn change(&mut self, record: &ChangeRecord) {
        let members = record.users.iter().map(|user| (*user, Role::Member));
        let (mut put, mut delete) = (Vec::new(), Vec::new());
        match record.kind {
            GroupChangeKind::Created => {
                put.extend(members.filter(|(user, _)| *user != record.actor));
                put.push((record.actor, Role::Owner));
            }
            GroupChangeKind::Added => put.extend(members),
            GroupChangeKind::Left => {
                delete.extend_from_slice(&record.users);
                delete.push(record.actor);
            }
            _ => delete.extend_from_slice(&record.users),
        }
        put.extend(record.new_owner.map(|owner| (owner, Role::Owner)));
        let maker = matches!(record.kind, GroupChangeKind::Created | GroupChangeKind::Added).then_some(record.actor);
        let ChangeRecord { group, version, .. } = *record;
        self.transaction.groups.push(GroupWrite { group, version, put, delete, maker });
        self.number(record.msg_id);
    }

    /// The transaction, which ends at `applied`.
    pub(crate) fn finish(mut self, applied: AppliedPosition, digest: StreamDigest) -> Transaction {
        self.transaction.rows.sort_unstable();
        (self.transaction.applied, self.transaction.digest) = (applied, digest);
        self.transaction
    }

    fn number(&mut self, msg_id: MsgId) {
        self.transaction.msg_id_max = self.transaction.msg_id_max.max(msg_id);
    }
}
