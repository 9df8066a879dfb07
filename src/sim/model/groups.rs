//! What the model knows of groups: what was asked, what was answered, and who was in them at which version.
//!
//! Part of the model. What always holds: a version has one roster and was made by one change that somebody asked for.

use std::collections::{BTreeMap, BTreeSet};

use ringway_wire::ids::{GroupId, UserId};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

use super::{Change, ChangeNo, Checked, Model, violated};
use crate::ledger::Ledger;

impl Model {
    /// A client asked for a change.
    pub(crate) fn asked(
        &mut self,
        actor: UserId,
        group: Option<GroupId>,
        kind: GroupChangeKind,
        users: Vec<UserId>,
    ) -> ChangeNo {
        self.time += 1;
        let asked_at = self.time;
        self.changes.push(Change { actor, group, kind, users, asked_at, answer: None, refused: false });
        ChangeNo(self.changes.len() - 1)
    }

    /// GroupOk came.
    pub(crate) fn changed(&mut self, number: ChangeNo, group: GroupId, version: u32) -> Checked {
        self.time += 1;
        let change = &mut self.changes[number.0];
        change.answer = Some((group, version));
        let new: BTreeSet<UserId> = change.users.iter().copied().chain([change.actor]).collect();
        if change.kind != GroupChangeKind::Created {
            self.groups.entry(group).or_default().entry(version).or_default();
            return Ok(());
        }
        if version != 1 && self.ledger != Ledger::Journal {
            // Asked for again when it was made and changed.
            self.groups.entry(group).or_default().entry(version).or_default();
            return Ok(());
        }
        if version != 1 {
            return violated!("{number:?} made group {group} at version {version}");
        }
        self.members(group, 1, new)
    }

    /// A change was refused. Whoever waits too long for Redis is told to ask again, and it may be made all the same.
    pub(crate) fn change_refused(&mut self, number: ChangeNo, code: ErrorCode) {
        let may_come = code == ErrorCode::RetryLater || self.is_put_back && code == ErrorCode::StorageFull;
        self.changes[number.0].refused |= self.ledger == Ledger::Journal || !may_come;
    }

    /// Somebody was told who is in the group at this version.
    pub(crate) fn members(&mut self, group: GroupId, version: u32, members: BTreeSet<UserId>) -> Checked {
        self.time += 1;
        let known = self.groups.entry(group).or_default().entry(version).or_default();
        if self.ledger != Ledger::ForgetfulRedis && known.members.as_ref().is_some_and(|before| *before != members) {
            return violated!("version {version} of {group} is {:?} and {members:?}", known.members);
        }
        known.members = Some(members);
        Ok(())
    }

    /// GroupChanged came.
    pub(crate) fn announced(
        &mut self,
        group: GroupId,
        version: u32,
        kind: GroupChangeKind,
        actor: UserId,
        users: BTreeSet<UserId>,
    ) -> Checked {
        self.time += 1;
        let asked = |c: &Change| c.actor == actor && c.kind == kind && !c.refused && c.group.is_none_or(|g| g == group);
        if !self.changes.iter().any(asked) {
            return violated!("{group} version {version} is announced as {kind:?} by {actor}, who never asked for it");
        }
        let known = self.groups.entry(group).or_default().entry(version).or_default();
        let said = (kind, actor, users);
        if self.ledger != Ledger::ForgetfulRedis && known.announced.as_ref().is_some_and(|before| *before != said) {
            return violated!("version {version} of {group} is announced as {:?} and as {said:?}", known.announced);
        }
        known.announced = Some(said);
        Ok(())
    }

    /// A change of the group was asked for, and whether it was made nobody has seen.
    pub(crate) fn has_unseen_change(&self, group: GroupId) -> bool {
        let announced = |c: &Change| {
            let mut versions = self.groups.get(&group).into_iter().flat_map(BTreeMap::values);
            versions.any(|version| {
                version.announced.as_ref().is_some_and(|(kind, actor, _)| (*kind, *actor) == (c.kind, c.actor))
            })
        };
        self.changes.iter().any(|c| c.group == Some(group) && !c.refused && c.answer.is_none() && !announced(c))
    }
}
