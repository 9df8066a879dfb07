//! What one commit will hand out, in order, and what becomes of it when the commit fails.
//!
//! Owned by an engine of the ledger. What always holds: nothing in here has been seen by anybody.

use std::sync::Arc;

use crate::contract::delivery::Delivery;
use crate::contract::ids::{Origin, ShardId};
use crate::contract::internal::{OrCount, Place, count};
use crate::contract::message::Message;
use crate::ledger::groups::Groups;
use crate::ledger::sequence::Sequences;
use crate::limits::STORAGE_FULL_RETRY_MS;
use ringway_wire::ids::{Conversation, MsgId, Seq, UserId};
use ringway_wire::request::GroupEntry;
use ringway_wire::schema::ErrorCode;

/// Something to hand out.
#[derive(Debug)]
pub(crate) enum PendingDelivery {
    /// As it is.
    Delivery(Delivery),
    /// A [`Delivery::Position`], with whom it is about.
    Position {
        /// The shard and the request that the answer goes to.
        origin: Origin,
        /// The user it is about: what is told is as of the commit.
        user: UserId,
        /// The user's newest row so far.
        newest: Seq,
        /// The highest number that a client may have been told, if that is more.
        given: Seq,
    },
    /// A [`Delivery::Groups`], with whom it is about.
    Groups {
        /// The shard and the request that the answer goes to.
        origin: Origin,
        /// The user it is about: what is told is as of the commit.
        user: UserId,
        /// The user's groups so far.
        groups: Vec<GroupEntry>,
    },
}

impl PendingDelivery {
    /// Gives it to the shards that must have it, and the API its answer.
    pub(crate) fn hand_out(self, shards: u16, out: &mut [Vec<Delivery>]) {
        let api = ShardId::of_api(shards);
        let mut give = |shard: ShardId, delivery: Delivery| match out.get_mut(usize::from(shard.0)) {
            Some(deliveries) => deliveries.push(delivery),
            None => count(Place::Ledger),
        };
        let delivery = match self {
            PendingDelivery::Delivery(delivery) => delivery,
            PendingDelivery::Position { origin, newest, given, .. } => {
                Delivery::Position { origin, newest, given: given.max(newest) }
            }
            PendingDelivery::Groups { origin, groups, .. } => Delivery::Groups { origin, groups },
        };
        match delivery {
            Delivery::Group { message, roster, seqs, origin } => {
                if origin.session.shard == api {
                    let seq = roster.position(message.sender).and_then(|at| seqs.get(at)).copied();
                    // A wrong number would be worse than none: the request is then answered as one that timed out.
                    if let Some(seq) = seq.or_count(Place::Ledger) {
                        give(api, numbered(origin, &message, seq));
                    }
                }
                for shard in roster.shards() {
                    let (message, roster, seqs) = (message.clone(), roster.clone(), seqs.clone());
                    give(shard, Delivery::Group { message, roster, seqs, origin });
                }
            }
            Delivery::Direct { message, sender_seq, recipient_seq, origin } => {
                if origin.session.shard == api {
                    give(api, numbered(origin, &message, sender_seq));
                }
                let sender = ShardId::of_user(message.sender, shards);
                let recipient = match message.to {
                    Conversation::User(user) => ShardId::of_user(user, shards),
                    Conversation::Group(_) => sender,
                };
                if recipient != sender {
                    let message = message.clone();
                    give(recipient, Delivery::Direct { message, sender_seq, recipient_seq, origin });
                }
                give(sender, Delivery::Direct { message, sender_seq, recipient_seq, origin });
            }
            Delivery::Changed { origin, roster, announcement } => {
                let answer = (origin.session.shard == api).then_some(api);
                for shard in (0..shards).map(ShardId).chain(answer) {
                    let (roster, announcement) = (roster.clone(), announcement.clone());
                    give(shard, Delivery::Changed { origin, roster, announcement });
                }
            }
            Delivery::Reloaded { group, roster } => {
                for shard in (0..shards).map(ShardId) {
                    give(shard, Delivery::Reloaded { group, roster: roster.clone() });
                }
            }
            Delivery::Missed { newest } => {
                for shard in (0..shards).map(ShardId) {
                    give(shard, Delivery::Missed { newest: newest.clone() });
                }
            }
            Delivery::Roster { group, roster } => {
                give(ShardId::of_group(group, shards), Delivery::Roster { group, roster })
            }
            Delivery::Numbered { origin, .. }
            | Delivery::Repeat { origin, .. }
            | Delivery::Refused { origin, .. }
            | Delivery::NotAdded { origin, .. }
            | Delivery::Sharing { origin, .. }
            | Delivery::Permitted { origin, .. }
            | Delivery::Position { origin, .. }
            | Delivery::Groups { origin, .. }
            | Delivery::Unchanged { origin, .. } => give(origin.session.shard, delivery),
        }
    }

    /// What is said instead, now that the commit has failed and numbers and groups are as they were before it.
    /// `durable` is the highest message id that is durable. Where the commit had `changes` of groups, what was
    /// refused because of them may be wrong.
    pub(crate) fn failed(
        self,
        durable: MsgId,
        changes: usize,
        sequences: &Sequences,
        groups: &Groups,
    ) -> PendingDelivery {
        let groups_changed = changes > 0;
        let delivery = match self {
            PendingDelivery::Position { origin, user, .. } => {
                return PendingDelivery::Position { origin, user, newest: sequences.newest(user), given: Seq(0) };
            }
            PendingDelivery::Groups { origin, user, .. } => {
                return PendingDelivery::Groups { origin, user, groups: groups.of_user(user, sequences) };
            }
            PendingDelivery::Delivery(delivery) => delivery,
        };
        PendingDelivery::Delivery(match delivery {
            Delivery::Group { origin, .. } | Delivery::Direct { origin, .. } | Delivery::Changed { origin, .. } => {
                storage_full(origin)
            }
            Delivery::Repeat { origin, msg_id, .. } if msg_id > durable => storage_full(origin),
            Delivery::Unchanged { origin, .. } | Delivery::NotAdded { origin, .. } if groups_changed => {
                storage_full(origin)
            }
            // Refused because of something staged, perhaps, that is not so any more: let the sender try again.
            Delivery::Refused { origin, code: ErrorCode::ClientMsgIdReused, .. } => storage_full(origin),
            Delivery::Refused { origin, retry_after_ms: 0, .. } if groups_changed => storage_full(origin),
            Delivery::Roster { group, .. } => Delivery::Roster { group, roster: groups.roster(group).cloned() },
            other => other,
        })
    }

    /// The message that it hands out, if it does.
    pub(crate) fn message(&self) -> Option<&Arc<Message>> {
        match self {
            PendingDelivery::Delivery(Delivery::Group { message, .. } | Delivery::Direct { message, .. }) => {
                Some(message)
            }
            _ => None,
        }
    }
}

/// The API's answer.
fn numbered(origin: Origin, message: &Message, seq: Seq) -> Delivery {
    Delivery::Numbered { origin, msg_id: message.msg_id, seq, sent_at_ms: message.sent_at_ms }
}

fn storage_full(origin: Origin) -> Delivery {
    Delivery::Refused { origin, code: ErrorCode::StorageFull, retry_after_ms: STORAGE_FULL_RETRY_MS }
}
