#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;

const LIMITS: GroupLimits = GroupLimits { group_members_max: 5, user_groups_max: 3, memberships_max: 12 };

struct World {
    groups: Groups,
    sequences: Sequences,
    number: u64,
}

impl World {
    fn new() -> World {
        World { groups: Groups::new(1, 4, LIMITS), sequences: Sequences::new(1), number: 0 }
    }

    /// Plans and applies; the group's members afterwards, `None` if nothing changed.
    fn change(&mut self, actor: u64, change: GroupChange) -> Result<Option<Arc<Roster>>, ErrorCode> {
        match self.groups.plan(UserId(actor), &change, &self.sequences)? {
            Plan::Nothing { .. } => Ok(None),
            Plan::Change(mut record) => {
                self.number += 1;
                record.msg_id = MsgId(self.number);
                if record.kind == GroupChangeKind::Created {
                    record.group = GroupId(self.number);
                }
                Ok(self.groups.apply(&record, &mut self.sequences).unwrap())
            }
        }
    }

    fn groups_of(&self, user: u64) -> Vec<u64> {
        self.groups.of_user(UserId(user), &self.sequences).iter().map(|entry| entry.group.0).collect()
    }
}

fn users(users: impl IntoIterator<Item = u64>) -> Vec<UserId> {
    users.into_iter().map(UserId).collect()
}

fn members(roster: &Roster) -> Vec<(u64, Role)> {
    let mut members: Vec<_> = roster.members().iter().map(|member| (member.user.0, member.role)).collect();
    members.sort_unstable();
    members
}

#[test]
fn the_creator_owns_the_group_and_nobody_is_in_it_twice() {
    let mut world = World::new();
    let roster = world.change(1, GroupChange::Create(users([2, 1, 2, 3]))).unwrap().unwrap();
    assert_eq!(members(&roster), [(1, Role::Owner), (2, Role::Member), (3, Role::Member)]);
    assert_eq!(roster.version, RosterVersion(1));
    assert_eq!((world.groups_of(1), world.groups_of(2), world.groups_of(9)), (vec![1], vec![1], vec![]));
}

#[test]
fn only_the_owner_adds_and_removes_and_can_only_leave() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap().group;
    let add = GroupChange::Add(group, users([4]));
    let remove = GroupChange::Remove(group, users([3]));
    for change in [&add, &remove] {
        assert_eq!(world.change(2, change.clone()), Err(ErrorCode::NotAllowed));
        assert_eq!(world.change(9, change.clone()), Err(ErrorCode::NotAMember));
    }
    assert_eq!(world.change(1, GroupChange::Remove(group, users([2, 1]))), Err(ErrorCode::NotAllowed));
    assert_eq!(world.change(9, GroupChange::Leave(group)), Err(ErrorCode::NotAMember));
    assert_eq!(world.change(1, GroupChange::Leave(GroupId(99))), Err(ErrorCode::UnknownGroup));
    assert_eq!(members(&world.change(1, add).unwrap().unwrap()).len(), 4);
    assert_eq!(members(&world.change(1, remove).unwrap().unwrap()).len(), 3);
}

#[test]
fn changes_that_change_nothing_make_no_version() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2]))).unwrap().unwrap().group;
    assert_eq!(world.change(1, GroupChange::Add(group, users([2, 1]))), Ok(None));
    assert_eq!(world.change(1, GroupChange::Remove(group, users([7]))), Ok(None));
    assert_eq!(world.groups.roster(group).unwrap().version, RosterVersion(1));
}

#[test]
fn when_the_owner_leaves_the_lowest_user_owns_and_with_the_last_one_the_group_is_gone() {
    let mut world = World::new();
    let group = world.change(5, GroupChange::Create(users([9, 3, 7]))).unwrap().unwrap().group;
    let roster = world.change(5, GroupChange::Leave(group)).unwrap().unwrap();
    assert_eq!(members(&roster), [(3, Role::Owner), (7, Role::Member), (9, Role::Member)]);
    for user in [3, 9, 7] {
        world.change(user, GroupChange::Leave(group)).unwrap().unwrap();
    }
    assert!(world.groups.is_empty());
    assert_eq!((world.groups.memberships, world.groups_of(7)), (0, vec![]));
    assert_eq!(world.change(3, GroupChange::Add(group, users([1]))), Err(ErrorCode::UnknownGroup));
}

#[test]
fn each_limit_has_its_error() {
    let mut world = World::new();
    assert_eq!(world.change(1, GroupChange::Create(users(2..=6))), Err(ErrorCode::TooManyMembers));
    let group = world.change(1, GroupChange::Create(users(2..=5))).unwrap().unwrap().group;
    assert_eq!(world.change(1, GroupChange::Add(group, users([6]))), Err(ErrorCode::TooManyMembers));
    world.change(2, GroupChange::Create(Vec::new())).unwrap().unwrap();
    world.change(2, GroupChange::Create(Vec::new())).unwrap().unwrap();
    assert_eq!(world.change(2, GroupChange::Create(Vec::new())), Err(ErrorCode::TooManyGroups));
    assert_eq!(world.change(7, GroupChange::Create(users([2]))), Err(ErrorCode::TooManyGroups));
    world.change(7, GroupChange::Create(users(8..=11))).unwrap().unwrap();
    assert_eq!(world.groups.memberships, 12);
    assert_eq!(world.change(12, GroupChange::Create(Vec::new())), Err(ErrorCode::StorageFull));
}

#[test]
fn what_is_taken_back_never_happened() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap();
    world.groups.keep();
    world.change(1, GroupChange::Add(group.group, users([4]))).unwrap();
    world.change(2, GroupChange::Leave(group.group)).unwrap();
    world.change(1, GroupChange::Leave(group.group)).unwrap();
    let new = world.change(2, GroupChange::Create(users([1]))).unwrap().unwrap();
    world.groups.take_back();
    assert_eq!(world.groups.roster(group.group), Some(&group));
    assert_eq!(world.groups.roster(new.group), None);
    assert_eq!((world.groups.len(), world.groups.memberships), (1, 3));
    for (user, of_user) in [(1, vec![1]), (2, vec![1]), (3, vec![1]), (4, vec![])] {
        assert_eq!(world.groups_of(user), of_user, "{user}");
    }
}

#[test]
fn a_change_that_does_not_follow_is_refused() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2]))).unwrap().unwrap().group;
    let Ok(Plan::Change(mut record)) =
        world.groups.plan(UserId(1), &GroupChange::Add(group, users([3])), &world.sequences)
    else {
        panic!()
    };
    record.version = RosterVersion(7);
    let refused = world.groups.apply(&record, &mut world.sequences);
    assert_eq!(refused, Err(OutOfOrder { group, known: RosterVersion(1), change: RosterVersion(7) }));
}
