//! Groups whose creator was told to ask again, because Redis did not answer in time, and that may be made all the same.
//!
//! Owned by the engine. A creation has no name by which a repeat is known. What always holds: whoever asks again for a group
//! of the same members through the same node is given the one that was made, or told to wait while that is not known; so
//! a Redis that stands still does not make two groups of one. It leaves out those who ask another node.

use std::collections::VecDeque;

use crate::journal::record::ChangeRecord;
use crate::limits::{LATE_CREATIONS_ACCOUNT_MAX, LATE_CREATIONS_KEPT_MS, LATE_CREATIONS_MAX};
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
        let ChangeRecord { actor, ref users, .. } = *record;
        if self.0.iter().filter(|late| late.actor == actor).count() >= LATE_CREATIONS_ACCOUNT_MAX
            && let Some(oldest) = self.0.iter().position(|late| late.actor == actor)
        {
            self.0.remove(oldest);
        } else if self.0.len() >= LATE_CREATIONS_MAX {
            self.0.pop_front();
        }
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

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;
    use ringway_wire::ids::RosterVersion;
    use ringway_wire::schema::GroupChangeKind;

    fn creation(actor: u64, member: u64) -> ChangeRecord {
        let (msg_id, group, version) = (MsgId(0), GroupId(0), RosterVersion(1));
        let (kind, users) = (GroupChangeKind::Created, vec![UserId(actor), UserId(member)]);
        ChangeRecord { msg_id, group, version, kind, actor: UserId(actor), users, new_owner: None }
    }

    #[test]
    fn one_who_makes_many_groups_does_not_have_another_ones_made_twice() {
        let mut late = LateCreations::default();
        late.push(0, MsgId(1), &creation(2, 3));
        for member in 0..LATE_CREATIONS_MAX as u64 {
            late.push(0, MsgId(10 + member), &creation(1, 1_000 + member));
        }
        assert_eq!(late.find(0, &creation(2, 3), |_| false), Some(MsgId(1)));
        let last = LATE_CREATIONS_MAX as u64 - 1;
        let of_flood = |member| late.0.iter().any(|late| late.users[1] == UserId(1_000 + member));
        assert!(of_flood(last) && !of_flood(last - LATE_CREATIONS_ACCOUNT_MAX as u64));
    }
}
