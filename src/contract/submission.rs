//! What a shard asks of the ledger.
//!
//! Each variant's comment says who recovers if it is dropped: sending is `try_send`, and a refusal hands the submission
//! back to the shard, which answers the asker.

use ringway_wire::ids::{GroupId, UserId};
use ringway_wire::request::Adding;

use crate::contract::ids::{Origin, ShardId};
use crate::contract::message::{Incoming, Roster};

/// What a shard asks of the ledger.
#[derive(Debug)]
pub enum Submission {
    /// A message, from its sender's shard. Refused or dropped: the sender gets `RETRY_LATER` and sends
    /// again.
    Message(MessageSubmission),
    /// A change of a group, or a new one. Refused: as above.
    Change(ChangeSubmission),
    /// A login asks for its user's newest durable seq. Refused: the session is closed as `Overloaded`.
    Position {
        /// The session that logs in.
        origin: Origin,
        /// That session's user.
        user: UserId,
    },
    /// Which groups is this user in? Refused: `RETRY_LATER`.
    Groups {
        /// The asking session.
        origin: Origin,
        /// That session's user.
        user: UserId,
    },
    /// Which groups count against this user, in them or not? Only the API asks. Refused: as above.
    Made {
        /// The asking request.
        origin: Origin,
        /// Whom it is about.
        user: UserId,
    },
    /// Who of these shares a group with the user? Refused: `RETRY_LATER`.
    Sharing {
        /// The asking session.
        origin: Origin,
        /// That session's user.
        user: UserId,
        /// Others.
        users: Vec<UserId>,
    },
    /// May this ephemeral message go to another user, where its sender must share a group with that user? Refused:
    /// `RETRY_LATER`.
    Ephemeral(Incoming),
    /// A group's shard asks for the roster it does not have. Refused: asked again with the next request.
    Roster {
        /// The asking shard, which is the group's home.
        shard: ShardId,
        /// The group, which lives on the asking shard.
        group: GroupId,
    },
}

impl Submission {
    /// A message is handed on now.
    pub(crate) fn handed_on(&mut self, now_us: u64) {
        if let Submission::Message(submission) = self {
            submission.incoming.origin.handed_on(now_us);
        }
    }

    /// What one takes beside what it carries, about.
    pub(crate) const BYTES_MIN: usize = 256;

    /// On whose behalf it is; `None`: a shard asks for itself.
    pub fn sender(&self) -> Option<UserId> {
        match self {
            Submission::Message(submission) => Some(submission.incoming.sender),
            Submission::Ephemeral(incoming) => Some(incoming.sender),
            Submission::Change(submission) => Some(submission.actor),
            Submission::Position { user, .. }
            | Submission::Groups { user, .. }
            | Submission::Made { user, .. }
            | Submission::Sharing { user, .. } => Some(*user),
            Submission::Roster { .. } => None,
        }
    }

    /// Bytes of memory while it waits, about.
    pub(crate) fn bytes(&self) -> usize {
        let carried = match self {
            Submission::Message(submission) => submission.incoming.body().len(),
            Submission::Ephemeral(incoming) => incoming.body().len(),
            Submission::Sharing { users, .. } => size_of_val(&users[..]),
            Submission::Change(submission) => size_of_val(submission.change.users()),
            Submission::Position { .. }
            | Submission::Groups { .. }
            | Submission::Made { .. }
            | Submission::Roster { .. } => 0,
        };
        Submission::BYTES_MIN + carried
    }
}

/// A message on its way to the ledger, which gives it to those who are in its group when it is numbered. Its sender is
/// perhaps no member of its group, or no longer: only the ledger knows what is a repeat, so it is the ledger that refuses
/// the others.
#[derive(Debug)]
pub struct MessageSubmission {
    /// The message. Its session is on the sender's shard, which need not be its group's.
    pub incoming: Incoming,
}

/// A change of a group on its way to the ledger, which checks who may do it against its own roster.
#[derive(Debug)]
pub struct ChangeSubmission {
    /// The asking session.
    pub origin: Origin,
    /// That session's user.
    pub actor: UserId,
    /// What is to change.
    pub change: GroupChange,
    /// What becomes of it if some of those whom it adds cannot be added.
    pub adding: Adding,
}

impl ChangeSubmission {
    /// Whom it was to add and has not, where that was no reason to refuse it; the group is as it was made by it.
    pub(crate) fn left_out(&self, roster: &Roster) -> Vec<UserId> {
        let (Adding::BestEffort, GroupChange::Create(users) | GroupChange::Add(_, users)) = (self.adding, &self.change)
        else {
            return Vec::new();
        };
        let mut out: Vec<UserId> = users.iter().copied().filter(|user| roster.position(*user).is_none()).collect();
        out.sort_unstable();
        out.dedup();
        out
    }
}

/// What may be done to a group.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GroupChange {
    /// A new group, owned by the actor. The ledger numbers it.
    Create(Vec<UserId>),
    /// The owner adds members; those already in it are no error.
    Add(GroupId, Vec<UserId>),
    /// The owner removes members; those not in it are no error. The owner can only leave.
    Remove(GroupId, Vec<UserId>),
    /// A member leaves. When the owner leaves, the member with the lowest user id becomes owner.
    Leave(GroupId),
}

impl GroupChange {
    /// Those whom it names.
    pub(crate) fn users(&self) -> &[UserId] {
        match self {
            GroupChange::Create(users) | GroupChange::Add(_, users) | GroupChange::Remove(_, users) => users,
            GroupChange::Leave(_) => &[],
        }
    }
}
