//! What was submitted, as this node keeps it until Redis has settled it.
//!
//! Owned by what is in flight. What always holds: it can be written to the log, and to the stream, as it is; and what nobody
//! waits for any more has no session.

use crate::contract::ids::Origin;
use crate::contract::message::Incoming;
use crate::contract::position::JournalPosition;
use crate::contract::submission::{ChangeSubmission, MessageSubmission};
use crate::journal::record::{ChangeRecord, DirectRecord, GroupRecord, Record};
use crate::ledger::dedup::Name;
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
    pub(super) fn let_go(self) -> Subject {
        match self {
            Subject::Message(MessageSubmission { incoming }) => Subject::Old(incoming),
            Subject::Change { submission, record } => {
                Subject::Change { submission: ChangeSubmission { origin: Origin::NOBODY, ..submission }, record }
            }
            other => other,
        }
    }

    /// Who waits for it.
    pub(super) fn origin(&self) -> Origin {
        match self {
            Subject::Message(MessageSubmission { incoming }) => incoming.origin,
            Subject::Change { submission, .. } => submission.origin,
            Subject::Old(_) | Subject::OldChange(_) => Origin::NOBODY,
        }
    }

    /// Whose it is.
    pub(super) fn account(&self) -> UserId {
        match self {
            Subject::Message(MessageSubmission { incoming }) | Subject::Old(incoming) => incoming.sender,
            Subject::Change { record, .. } | Subject::OldChange(record) => record.actor,
        }
    }

    /// The group that it is a message to.
    pub(super) fn group(&self) -> Option<GroupId> {
        match self {
            Subject::Message(MessageSubmission { incoming }) | Subject::Old(incoming) => match incoming.to {
                Conversation::Group(group) => Some(group),
                Conversation::User(_) => None,
            },
            Subject::Change { .. } | Subject::OldChange(_) => None,
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
        let nobody = Origin::NOBODY;
        let (msg_id, incoming) = match record {
            Record::Direct(DirectRecord { msg_id, sender, to, client_msg_id, body, .. }) => {
                (*msg_id, Incoming::new(nobody, *sender, Conversation::User(*to), *client_msg_id, body))
            }
            Record::Group(GroupRecord { msg_id, sender, group, client_msg_id, body, .. }) => {
                (*msg_id, Incoming::new(nobody, *sender, Conversation::Group(*group), *client_msg_id, body))
            }
            Record::Change(record) => return Some((record.msg_id, None, Subject::OldChange(record.clone()))),
            Record::Roster(_) | Record::Mark(..) | Record::Withdrawn(_) => return None,
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
