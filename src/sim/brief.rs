//! Submissions and deliveries in a few words, for the events.

use ringway::contract::delivery::Delivery;
use ringway::contract::message::Incoming;
use ringway::contract::submission::{MessageSubmission, Submission};

/// Whether somebody learns of something new from it. (A repeat was durable before; behind it the remains of a
/// failed write may wait to be overwritten.)
pub(crate) fn shows(delivery: &Delivery) -> bool {
    matches!(delivery, Delivery::Group { .. } | Delivery::Direct { .. } | Delivery::Changed { .. })
}

pub(crate) fn brief_submission(submission: &Submission) -> String {
    match submission {
        Submission::Message(MessageSubmission { incoming }) => {
            let Incoming { client_msg_id, sender, to, .. } = incoming;
            format!("{client_msg_id:?} of {sender} to {to:?}")
        }
        other => format!("{other:?}"),
    }
}

pub(crate) fn brief_delivery(delivery: &Delivery) -> String {
    match delivery {
        Delivery::Direct { message, sender_seq, recipient_seq, .. } => {
            format!("{:?} as {:?}: {sender_seq:?} {recipient_seq:?}", message.client_msg_id, message.msg_id)
        }
        Delivery::Group { message, roster, seqs, .. } => {
            let rows: Vec<_> = roster.members().iter().map(|m| m.user.0).zip(seqs.iter().map(|seq| seq.0)).collect();
            format!("{:?} as {:?}, version {}: {rows:?}", message.client_msg_id, message.msg_id, roster.version)
        }
        other => format!("{other:?}"),
    }
}
