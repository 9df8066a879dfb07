//! Groups whose creator was told to ask again, because Redis did not answer in time, and that may be made all the same.
//!
//! Owned by the engine. A creation has no name by which a repeat is known. What always holds: whoever asks again for a group
//! of the same members through the same node is given the one that was made, or told to wait while that is not known; so
//! a Redis that stands still does not make two groups of one. It leaves out those who ask another node.

use std::collections::VecDeque;

use crate::journal::record::ChangeRecord;
use crate::limits::{LATE_CREATIONS_KEPT_MS, LATE_CREATIONS_MAX};
use ringway_wire::ids::{GroupId, MsgId, UserId};

/// One of them.
#[derive(Debug)]
struct Late {
    actor: UserId,
    users: Vec<UserId>,
    msg_id: MsgId,
    /// When its creator was told, monotonic milliseconds.
    told_ms: u64,
}

/// All of them, the one that was told first in front.
#[derive(Debug, Default)]
pub(super) struct LateCreations(VecDeque<Late>);

impl LateCreations {
    /// The creator of this one is told now.
    pub(super) fn push(&mut self, mono_ms: u64, msg_id: MsgId, record: &ChangeRecord) {
        if self.0.len() >= LATE_CREATIONS_MAX {
            self.0.pop_front();
        }
        let ChangeRecord { actor, ref users, .. } = *record;
        self.0.push_back(Late { actor, users: users.clone(), msg_id, told_ms: mono_ms });
    }

    /// The creation that this one asks for again, if there is one. `is_under_way`: Redis has not settled it.
    pub(super) fn find(
        &mut self,
        mono_ms: u64,
        record: &ChangeRecord,
        is_under_way: impl Fn(MsgId) -> bool,
    ) -> Option<MsgId> {
        let is_kept = |late: &Late| mono_ms.saturating_sub(late.told_ms) < LATE_CREATIONS_KEPT_MS;
        self.0.retain(|late| is_kept(late) || is_under_way(late.msg_id));
        let is_it = |late: &&Late| late.actor == record.actor && late.users == record.users;
        self.0.iter().find(is_it).map(|late| late.msg_id)
    }

    /// Its creator has been given it, or it will not be made.
    pub(super) fn remove(&mut self, msg_id: MsgId) {
        self.0.retain(|late| late.msg_id != msg_id);
    }
}

/// The group that a creation makes.
pub(super) fn group_of(msg_id: MsgId) -> GroupId {
    GroupId(msg_id.0)
}
