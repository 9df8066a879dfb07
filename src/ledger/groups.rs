//! Groups: their rosters, who is in which, and who may do what.
//!
//! Owned by the ledger's thread, the authority on groups. What always holds: each roster is the result of all
//! changes staged so far, in order; what a failed commit staged is taken back, the newest first. Groups without
//! members do not exist. Each group counts against one user (`makers.rs`), for as long as there is the group.

mod makers;
mod permissions;

use std::collections::HashMap;
use std::sync::Arc;

use crate::contract::ids::LedgerSlot;
use crate::contract::internal::{OrCount, Place};
use crate::contract::keyed::TableKey;
use crate::contract::message::{Roster, RosterMember};
use crate::contract::policies::Permission;
use crate::contract::store::StoredGroup;
use crate::contract::submission::GroupChange;
use crate::journal::record::ChangeRecord;
use crate::ledger::sequence::Sequences;
use crate::limits::{
    LEDGER_USERS_MAX, MEMBERSHIPS_MAX, USER_GROUPS_BY_ONE_MAX, USER_GROUPS_BY_OTHERS_MAX, USER_GROUPS_BYTES_MAX,
};
use makers::{Made, Makers};
use ringway_wire::ids::{GroupId, MsgId, RosterVersion, UserId};
use ringway_wire::limits::{GROUP_MEMBERS_MAX, USER_GROUPS_MAX};
use ringway_wire::request::{Adding, GroupEntry};
use ringway_wire::schema::{ErrorCode, GroupChangeKind, Role};

/// All groups.
#[derive(Debug)]
pub(crate) struct Groups {
    groups: HashMap<GroupId, Group, TableKey>,
    makers: Makers,
    /// The groups of the user in each ledger slot, in no order.
    of_user: Vec<Vec<GroupId>>,
    memberships: usize,
    shards: u16,
    /// What this commit changed, the newest last.
    undo: Vec<Undo>,
    limits: GroupLimits,
}

/// A group.
#[derive(Clone, Debug)]
struct Group {
    roster: Arc<Roster>,
    /// Whom it counts against: its maker, or who has added to it since as its owner.
    maker: UserId,
}

/// How large groups and their number may become.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupLimits {
    /// Members of one group.
    pub(crate) group_members_max: usize,
    /// Groups of one user; and groups that count against one user.
    pub(crate) user_groups_max: usize,
    /// Of a user's groups, those that others put him into: the rest is for those he makes.
    pub(crate) user_groups_by_others_max: usize,
    /// And those of one who puts him into them.
    pub(crate) user_groups_by_one_max: usize,
    /// What groups that count against one user may take of the ledger's memory, bytes.
    pub(crate) user_groups_bytes_max: u64,
    /// Memberships in all.
    pub(crate) memberships_max: usize,
}

impl Default for GroupLimits {
    fn default() -> Self {
        GroupLimits {
            group_members_max: GROUP_MEMBERS_MAX,
            user_groups_max: USER_GROUPS_MAX,
            user_groups_by_others_max: USER_GROUPS_BY_OTHERS_MAX,
            user_groups_by_one_max: USER_GROUPS_BY_ONE_MAX,
            user_groups_bytes_max: USER_GROUPS_BYTES_MAX,
            memberships_max: MEMBERSHIPS_MAX,
        }
    }
}

#[derive(Debug)]
struct Undo {
    group: GroupId,
    before: Option<Group>,
    joined: Vec<LedgerSlot>,
    left: Vec<LedgerSlot>,
}

/// What a change would do.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Plan {
    /// Nothing: it is so already.
    Nothing {
        /// The group.
        group: GroupId,
        /// Its version, as it is.
        version: RosterVersion,
    },
    /// This; its number is still to be given, and a new group's id with it.
    Change(ChangeRecord),
}

/// Why a change cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct NotPlanned {
    pub(crate) code: ErrorCode,
    /// Because of whom, of those whom it adds; sorted.
    pub(crate) users: Vec<UserId>,
}

impl From<ErrorCode> for NotPlanned {
    fn from(code: ErrorCode) -> Self {
        NotPlanned { code, users: Vec::new() }
    }
}

/// A change that does not follow from what is known: the journal and the store contradict each other.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
#[error("group {group} is at version {known}, the change makes it version {change}")]
pub struct OutOfOrder {
    /// The group.
    pub(crate) group: GroupId,
    /// The version known; zero: no such group.
    pub(crate) known: RosterVersion,
    /// The version after the change.
    pub(crate) change: RosterVersion,
}

impl Groups {
    /// No groups, for so many shards.
    pub(crate) fn new(seed: u64, shards: u16, limits: GroupLimits) -> Self {
        let key = TableKey::new(seed);
        let (groups, makers) = (HashMap::with_hasher(key), Makers::new(key.derived(1)));
        Groups { groups, makers, of_user: Vec::new(), memberships: 0, shards, undo: Vec::new(), limits }
    }

    /// A group as the store has it. `None`: no room is left for one of its members, and nothing has changed.
    #[must_use]
    pub(crate) fn load(&mut self, stored: &StoredGroup, sequences: &mut Sequences) -> Option<()> {
        let slots = stored
            .members
            .iter()
            .map(|(user, role)| sequences.assign(*user).map(|slot| RosterMember { user: *user, slot, role: *role }));
        let members: Vec<RosterMember> = slots.collect::<Option<_>>()?;
        if members.is_empty() {
            return Some(());
        }
        let roster = Roster::new(stored.group, stored.version, members, self.shards);
        for member in roster.members() {
            self.join(member.slot, stored.group);
        }
        // Of a group that an older version has stored, it is not known who made it.
        let maker = stored.maker.or(roster.owner()).unwrap_or_default();
        self.put(stored.group, Some(Group { roster: Arc::new(roster), maker }));
        Some(())
    }

    /// A group as the store has it, in place of what is known. `None`: as of [`Self::load`], and it is not known any more.
    #[must_use]
    pub(crate) fn replace(&mut self, stored: &StoredGroup, sequences: &mut Sequences) -> Option<()> {
        self.remove(stored.group);
        self.load(stored, sequences)
    }

    /// The store has no such group.
    pub(crate) fn remove(&mut self, group: GroupId) {
        let Some(roster) = self.roster(group).cloned() else { return };
        self.put(group, None);
        roster.members().iter().for_each(|member| self.leave(member.slot, group));
    }

    /// A change that may have been lost, as it has to be made on the roster as it is now; `None`: it is so already, or
    /// cannot be any more.
    pub(crate) fn remade(&self, record: &ChangeRecord) -> Option<ChangeRecord> {
        let Some(roster) = self.roster(record.group) else {
            return (record.kind == GroupChangeKind::Created).then(|| record.clone());
        };
        let is_member = |user: &UserId| roster.position(*user).is_some();
        let (users, new_owner) = match record.kind {
            GroupChangeKind::Created => return None,
            GroupChangeKind::Added => {
                let users: Vec<UserId> = record.users.iter().filter(|user| !is_member(user)).copied().collect();
                let fits = roster.members().len() + users.len() <= self.limits.group_members_max;
                (if fits { users } else { Vec::new() }, None)
            }
            _ => {
                let users: Vec<UserId> = record.users.iter().filter(|user| is_member(user)).copied().collect();
                let owner_leaves = users.iter().any(|user| roster.role(*user) == Some(Role::Owner));
                let others = roster.members().iter().map(|member| member.user).filter(|user| !users.contains(user));
                let new_owner = if owner_leaves { others.min() } else { None };
                (users, new_owner)
            }
        };
        let version = RosterVersion(roster.version.0 + 1);
        (!users.is_empty()).then(|| ChangeRecord { version, users, new_owner, ..record.clone() })
    }

    /// The group's current roster.
    pub(crate) fn roster(&self, group: GroupId) -> Option<&Arc<Roster>> {
        self.groups.get(&group).map(|group| &group.roster)
    }

    /// What counts against a user.
    #[cfg(test)]
    fn made(&self, user: UserId) -> Made {
        self.makers.made(user)
    }

    /// Every group's current roster, in no order.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Arc<Roster>> {
        self.groups.values().map(|group| &group.roster)
    }

    /// How many groups there are.
    pub(crate) fn len(&self) -> usize {
        self.groups.len()
    }

    /// The groups of a user, by group id.
    pub(crate) fn of_user(&self, user: UserId, sequences: &Sequences) -> Vec<GroupEntry> {
        let groups = self.ids_of(user, sequences);
        let entry = |group: &GroupId| {
            let roster = self.roster(*group)?;
            let members_count = roster.members().len() as u32;
            Some(GroupEntry { group: *group, version: roster.version, role: roster.role(user)?, members_count })
        };
        let mut entries: Vec<GroupEntry> = groups.iter().filter_map(entry).collect();
        entries.sort_unstable_by_key(|entry| entry.group);
        entries
    }

    fn ids_of(&self, user: UserId, sequences: &Sequences) -> &[GroupId] {
        let slot = sequences.slot(user);
        slot.and_then(|slot| self.of_user.get(slot.0 as usize)).map_or(&[][..], Vec::as_slice)
    }

    /// What a change would do, or why the actor may not. `permission`: whom the actor may make a member.
    pub(crate) fn plan(
        &self,
        actor: UserId,
        (change, adding, permission): (&GroupChange, Adding, Permission),
        sequences: &Sequences,
    ) -> Result<Plan, NotPlanned> {
        let adding = (adding, permission);
        match change {
            GroupChange::Create(users) => {
                let users = sorted(users.iter().copied().filter(|user| *user != actor));
                self.joining(actor, vec![actor], (Adding::All, permission), sequences)?;
                let users = self.joining(actor, users, adding, sequences)?;
                self.check_room(users.len() + 1, 0, sequences)?;
                self.check_made(actor, Made::group(users.len() + 1))?;
                Ok(Plan::Change(ChangeRecord {
                    msg_id: MsgId(0),
                    group: GroupId(0),
                    version: RosterVersion(1),
                    kind: GroupChangeKind::Created,
                    actor,
                    users,
                    new_owner: None,
                }))
            }
            GroupChange::Add(group, users) => {
                let Group { roster, maker } = self.owned(*group, actor)?;
                let users = sorted(users.iter().copied().filter(|user| roster.position(*user).is_none()));
                let wanted = users.clone();
                let users = self.joining(actor, users, adding, sequences)?;
                if users.is_empty() && !wanted.is_empty() {
                    return Err(self.not_added(actor, wanted, permission, sequences));
                }
                self.check_room(users.len(), roster.members().len(), sequences)?;
                let more = if *maker == actor { Made::default() } else { Made::group(roster.members().len()) };
                self.check_made(actor, more.and(Made::members(users.len())))?;
                Ok(self.planned(roster, actor, GroupChangeKind::Added, users, None))
            }
            GroupChange::Remove(group, users) => {
                let roster = &self.owned(*group, actor)?.roster;
                if users.contains(&actor) {
                    return Err(ErrorCode::NotAllowed.into());
                }
                let users = sorted(users.iter().copied().filter(|user| roster.position(*user).is_some()));
                Ok(self.planned(roster, actor, GroupChangeKind::Removed, users, None))
            }
            GroupChange::Leave(group) => {
                let roster = self.roster(*group).ok_or(ErrorCode::UnknownGroup)?;
                let role = roster.role(actor).ok_or(ErrorCode::NotAMember)?;
                let others = roster.members().iter().map(|member| member.user).filter(|user| *user != actor);
                let new_owner = if role == Role::Owner { others.min() } else { None };
                Ok(self.planned(roster, actor, GroupChangeKind::Left, vec![actor], new_owner))
            }
        }
    }

    /// Does a change, and remembers how to take it back. Returns the roster after it, empty when the last member
    /// left; `None`: users are at their limit.
    pub(crate) fn apply(
        &mut self,
        record: &ChangeRecord,
        sequences: &mut Sequences,
    ) -> Result<Option<Arc<Roster>>, OutOfOrder> {
        let before = self.groups.get(&record.group).cloned();
        let known = before.as_ref().map_or(RosterVersion(0), |group| group.roster.version);
        if record.version.0 != known.0 + 1 {
            return Err(OutOfOrder { group: record.group, known, change: record.version });
        }
        let mut members = before.as_ref().map_or(Vec::new(), |group| group.roster.members().to_vec());
        let mut maker = before.as_ref().map_or(record.actor, |group| group.maker);
        let (mut joined, mut left) = (Vec::new(), Vec::new());
        match record.kind {
            GroupChangeKind::Created | GroupChangeKind::Added => {
                maker = record.actor;
                let owner = (record.kind == GroupChangeKind::Created).then_some((record.actor, Role::Owner));
                let joining = record.users.iter().map(|user| (*user, Role::Member));
                for (user, role) in owner.into_iter().chain(joining) {
                    let Some(slot) = sequences.assign(user) else { return Ok(None) };
                    members.push(RosterMember { user, slot, role });
                    joined.push(slot);
                }
            }
            _ => {
                members.retain(|member| {
                    let leaves = record.users.binary_search(&member.user).is_ok();
                    if leaves {
                        left.push(member.slot);
                    }
                    !leaves
                });
                for member in members.iter_mut().filter(|member| Some(member.user) == record.new_owner) {
                    member.role = Role::Owner;
                }
            }
        }
        joined.iter().for_each(|slot| self.join(*slot, record.group));
        left.iter().for_each(|slot| self.leave(*slot, record.group));
        let roster = Arc::new(Roster::new(record.group, record.version, members, self.shards));
        self.put(record.group, (!roster.members().is_empty()).then(|| Group { roster: roster.clone(), maker }));
        self.undo.push(Undo { group: record.group, before, joined, left });
        Ok(Some(roster))
    }

    /// What was changed since the last call is final.
    pub(crate) fn keep(&mut self) {
        self.undo.clear();
    }

    /// What was changed since the last [`Self::keep`] did not happen.
    pub(crate) fn take_back(&mut self) {
        while let Some(undo) = self.undo.pop() {
            undo.joined.iter().for_each(|slot| self.leave(*slot, undo.group));
            undo.left.iter().for_each(|slot| self.join(*slot, undo.group));
            self.put(undo.group, undo.before);
        }
    }

    fn owned(&self, group: GroupId, actor: UserId) -> Result<&Group, ErrorCode> {
        let group = self.groups.get(&group).ok_or(ErrorCode::UnknownGroup)?;
        match group.roster.role(actor) {
            None => Err(ErrorCode::NotAMember),
            Some(Role::Owner) => Ok(group),
            Some(_) => Err(ErrorCode::NotAllowed),
        }
    }

    /// Those of the users whom the actor may put into one more group; without `BestEffort` all of them, or it is refused.
    fn joining(
        &self,
        actor: UserId,
        users: Vec<UserId>,
        (adding, permission): (Adding, Permission),
        sequences: &Sequences,
    ) -> Result<Vec<UserId>, NotPlanned> {
        let may =
            |user: &UserId| self.may_join(actor, *user, sequences) && self.permits(permission, actor, *user, sequences);
        let (may, may_not): (Vec<UserId>, Vec<UserId>) = users.into_iter().partition(may);
        if adding == Adding::All && !may_not.is_empty() {
            return Err(self.not_added(actor, may_not, permission, sequences));
        }
        Ok(may)
    }

    /// Why none of these can be added.
    fn not_added(
        &self,
        actor: UserId,
        users: Vec<UserId>,
        permission: Permission,
        sequences: &Sequences,
    ) -> NotPlanned {
        let is_forbidden = users.iter().any(|user| !self.permits(permission, actor, *user, sequences));
        NotPlanned { code: if is_forbidden { ErrorCode::NotAllowed } else { ErrorCode::TooManyGroups }, users }
    }

    /// Whether so many more may join a group of so many.
    fn check_room(&self, joining: usize, members: usize, sequences: &Sequences) -> Result<(), ErrorCode> {
        if members + joining > self.limits.group_members_max {
            return Err(ErrorCode::TooManyMembers);
        }
        if self.memberships + joining > self.limits.memberships_max || sequences.users() + joining > LEDGER_USERS_MAX {
            return Err(ErrorCode::StorageFull);
        }
        Ok(())
    }

    /// Whether the user may be in one more group, which the actor puts him into. Nobody can take all places of another:
    /// some are his own, and one account has no more than its share of the others.
    fn may_join(&self, actor: UserId, user: UserId, sequences: &Sequences) -> bool {
        let limits = &self.limits;
        let groups = self.ids_of(user, sequences);
        if user == actor {
            return groups.len() < limits.user_groups_max;
        }
        let of_actor = |group: &&GroupId| self.groups.get(group).is_some_and(|group| group.maker == actor);
        groups.len() < limits.user_groups_by_others_max
            && (groups.len() < limits.user_groups_by_one_max
                || groups.iter().filter(of_actor).count() < limits.user_groups_by_one_max)
    }

    /// Whether so much more may count against a user.
    fn check_made(&self, user: UserId, more: Made) -> Result<(), ErrorCode> {
        let made = self.makers.made(user).and(more);
        if made.groups > self.limits.user_groups_max || made.bytes() > self.limits.user_groups_bytes_max {
            return Err(ErrorCode::TooManyGroups);
        }
        Ok(())
    }

    fn planned(
        &self,
        roster: &Roster,
        actor: UserId,
        kind: GroupChangeKind,
        users: Vec<UserId>,
        new_owner: Option<UserId>,
    ) -> Plan {
        if users.is_empty() {
            return Plan::Nothing { group: roster.group, version: roster.version };
        }
        let version = RosterVersion(roster.version.0 + 1);
        Plan::Change(ChangeRecord { msg_id: MsgId(0), group: roster.group, version, kind, actor, users, new_owner })
    }

    /// The group as it is from now on; `None`: there is none.
    fn put(&mut self, id: GroupId, group: Option<Group>) {
        let after = group.as_ref().map(|group| (group.maker, group.roster.members().len()));
        let before = match group {
            Some(group) => self.groups.insert(id, group),
            None => self.groups.remove(&id),
        };
        if let Some(before) = before {
            self.makers.forget(before.maker, id, before.roster.members().len());
        }
        if let Some((maker, members)) = after {
            self.makers.count(maker, id, members);
        }
    }

    fn join(&mut self, slot: LedgerSlot, group: GroupId) {
        let at = slot.0 as usize;
        if self.of_user.len() <= at {
            self.of_user.resize_with(at + 1, Vec::new);
        }
        self.of_user[at].push(group);
        self.memberships += 1;
    }

    fn leave(&mut self, slot: LedgerSlot, group: GroupId) {
        let groups = self.of_user.get_mut(slot.0 as usize);
        let place = groups.and_then(|groups| Some((groups.iter().position(|other| *other == group)?, groups)));
        if let Some((at, groups)) = place.or_count(Place::Ledger) {
            groups.swap_remove(at);
            self.memberships -= 1;
        }
    }
}

fn sorted(users: impl Iterator<Item = UserId>) -> Vec<UserId> {
    let mut users: Vec<UserId> = users.collect();
    users.sort_unstable();
    users.dedup();
    users
}

#[cfg(test)]
mod tests;
