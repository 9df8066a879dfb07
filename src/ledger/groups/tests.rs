#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::contract::ids::Origin;
use crate::contract::submission::ChangeSubmission;
use crate::limits::{GROUP_BYTES, MEMBERSHIP_BYTES};

const LIMITS: GroupLimits = GroupLimits {
    group_members_max: 5,
    user_groups_max: 3,
    user_groups_by_others_max: 3,
    user_groups_by_one_max: 3,
    user_groups_bytes_max: 3 * GROUP_BYTES + 4 * MEMBERSHIP_BYTES,
    memberships_max: 12,
};

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
        self.change_as(actor, &change, Adding::All)
    }

    fn change_as(
        &mut self,
        actor: u64,
        change: &GroupChange,
        adding: Adding,
    ) -> Result<Option<Arc<Roster>>, ErrorCode> {
        match self
            .groups
            .plan(UserId(actor), (change, adding, Permission::Anyone), &self.sequences)
            .map_err(|refused| refused.code)?
        {
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
fn groups_are_found_by_whom_they_count_against_whoever_has_left_them() {
    let mut world = World::new();
    let made = |world: &World, user: u64| -> Vec<(u64, u32)> {
        world.groups.made_by(UserId(user)).iter().map(|entry| (entry.group.0, entry.members_count)).collect()
    };
    let first = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap().group;
    let second = world.change(1, GroupChange::Create(users([4]))).unwrap().unwrap().group;
    world.groups.keep();
    world.change(1, GroupChange::Leave(first)).unwrap();
    assert_eq!(made(&world, 1), [(first.0, 2), (second.0, 2)]);
    world.groups.take_back();
    assert_eq!(made(&world, 1), [(first.0, 3), (second.0, 2)]);
    world.change(1, GroupChange::Leave(first)).unwrap();
    // Its owner has added to it: it counts against that one now.
    world.change(2, GroupChange::Add(first, users([5]))).unwrap();
    assert_eq!((made(&world, 1), made(&world, 2)), (vec![(second.0, 2)], vec![(first.0, 3)]));
    for user in [2, 3, 5] {
        world.change(user, GroupChange::Leave(first)).unwrap();
    }
    assert_eq!((made(&world, 1), made(&world, 2)), (vec![(second.0, 2)], vec![]));
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
    assert!(world.groups.len() == 0);
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
    let Ok(Plan::Change(mut record)) = world.groups.plan(
        UserId(1),
        (&GroupChange::Add(group, users([3])), Adding::All, Permission::Anyone),
        &world.sequences,
    ) else {
        panic!()
    };
    record.version = RosterVersion(7);
    let refused = world.groups.apply(&record, &mut world.sequences);
    assert_eq!(refused, Err(OutOfOrder { group, known: RosterVersion(1), change: RosterVersion(7) }));
}

#[test]
fn what_the_store_has_takes_the_place_of_what_was_known() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap().group;
    let other = world.change(1, GroupChange::Create(users([2]))).unwrap().unwrap().group;
    world.change(1, GroupChange::Add(group, users([4]))).unwrap();
    let stored = |members: &[(u64, Role)]| StoredGroup {
        group,
        version: RosterVersion(1),
        members: members.iter().map(|(user, role)| (UserId(*user), *role)).collect(),
        maker: Some(UserId(1)),
    };
    world.groups.replace(&stored(&[(1, Role::Owner), (2, Role::Member)]), &mut world.sequences).unwrap();
    assert_eq!(members(world.groups.roster(group).unwrap()), [(1, Role::Owner), (2, Role::Member)]);
    assert_eq!((world.groups_of(3), world.groups_of(4)), (vec![], vec![]));
    world.groups.remove(other);
    assert_eq!((world.groups_of(1), world.groups_of(2)), (vec![group.0], vec![group.0]));
    // Memberships are counted right: so many more fit, and one more does not.
    let room = LIMITS.memberships_max - 2;
    assert!(world.change(7, GroupChange::Create(users(10..14))).is_ok());
    assert!(world.change(8, GroupChange::Create(users(20..24))).is_ok());
    assert_eq!(room, 10);
    assert_eq!(world.change(9, GroupChange::Create(users([30]))).unwrap_err(), ErrorCode::StorageFull);
}

#[test]
fn a_lost_change_is_made_on_what_the_group_is_now_and_not_if_it_is_so_already() {
    let mut world = World::new();
    let roster = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap();
    let (group, kind) = (roster.group, GroupChangeKind::Added);
    let lost = |kind, changed: &[u64]| ChangeRecord {
        msg_id: MsgId(99),
        group,
        version: RosterVersion(2),
        kind,
        actor: UserId(1),
        users: users(changed.iter().copied()),
        new_owner: None,
    };
    world.change(1, GroupChange::Add(group, users([4]))).unwrap();
    let remade = world.groups.remade(&lost(kind, &[4, 5])).unwrap();
    assert_eq!((remade.version, &remade.users), (RosterVersion(3), &users([5])));
    assert!(world.groups.apply(&remade, &mut world.sequences).unwrap().is_some());
    assert_eq!(world.groups.remade(&lost(kind, &[4, 5])), None, "they are in it");
    assert_eq!(world.groups.remade(&lost(kind, &[6])), None, "it is full");
    assert_eq!(world.groups.remade(&lost(GroupChangeKind::Removed, &[6])), None, "they are not in it");
    let left = world.groups.remade(&lost(GroupChangeKind::Left, &[1])).unwrap();
    assert_eq!((left.version, left.new_owner), (RosterVersion(4), Some(UserId(2))), "its owner leaves");
    let created =
        ChangeRecord { group: GroupId(77), version: RosterVersion(1), ..lost(GroupChangeKind::Created, &[2]) };
    assert_eq!(world.groups.remade(&created), Some(created.clone()));
    assert_eq!(world.groups.remade(&ChangeRecord { group, ..created }), None);
    let unknown = ChangeRecord { group: GroupId(77), ..lost(kind, &[4]) };
    assert_eq!(world.groups.remade(&unknown), None, "there is no such group");
}

/// What counts against users 1 to 4: groups and their members.
fn made(world: &World) -> [(usize, usize); 4] {
    [1, 2, 3, 4].map(|user| {
        let Made { groups, memberships } = world.groups.made(UserId(user));
        (groups, memberships)
    })
}

#[test]
fn a_group_counts_against_its_maker_whatever_he_leaves_until_it_ends() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap().group;
    world.change(1, GroupChange::Create(users([]))).unwrap();
    assert_eq!(made(&world), [(2, 4), (0, 0), (0, 0), (0, 0)]);
    world.change(1, GroupChange::Leave(group)).unwrap();
    assert_eq!(made(&world), [(2, 3), (0, 0), (0, 0), (0, 0)]);
    // He has left, and yet may not make more than others may.
    assert!(world.change(1, GroupChange::Create(users([]))).is_ok());
    assert_eq!(world.change(1, GroupChange::Create(users([]))).unwrap_err(), ErrorCode::TooManyGroups);
    world.change(2, GroupChange::Leave(group)).unwrap();
    world.change(3, GroupChange::Leave(group)).unwrap();
    assert_eq!(made(&world), [(2, 2), (0, 0), (0, 0), (0, 0)]);
}

#[test]
fn whoever_adds_members_to_a_group_is_charged_with_it_and_with_no_more_than_he_may_have() {
    let mut world = World::new();
    let group = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap().group;
    world.change(1, GroupChange::Leave(group)).unwrap();
    world.change(2, GroupChange::Create(users([8, 9]))).unwrap();
    // Seven members of two groups are about as much as he may have.
    world.change(2, GroupChange::Add(group, users([4]))).unwrap();
    assert_eq!(made(&world), [(0, 0), (2, 6), (0, 0), (0, 0)]);
    assert_eq!(world.change(2, GroupChange::Add(group, users([5, 6]))).unwrap_err(), ErrorCode::TooManyGroups);
    world.change(2, GroupChange::Add(group, users([5]))).unwrap();
    assert_eq!(world.change(2, GroupChange::Add(group, users([6]))).unwrap_err(), ErrorCode::TooManyGroups);
    // What is removed makes room.
    world.change(2, GroupChange::Remove(group, users([3, 5]))).unwrap();
    assert_eq!(made(&world), [(0, 0), (2, 5), (0, 0), (0, 0)]);
    // A commit that fails leaves no trace.
    world.groups.keep();
    world.change(2, GroupChange::Add(group, users([5]))).unwrap();
    world.change(2, GroupChange::Leave(group)).unwrap();
    world.change(1, GroupChange::Create(users([]))).unwrap();
    world.groups.take_back();
    assert_eq!(made(&world), [(0, 0), (2, 5), (0, 0), (0, 0)]);
}

#[test]
fn nobody_takes_all_places_of_another_who_can_still_make_groups_and_be_added_by_others() {
    let limits = GroupLimits {
        user_groups_max: 8,
        user_groups_by_others_max: 6,
        user_groups_by_one_max: 4,
        ..GroupLimits::default()
    };
    let mut world = World { groups: Groups::new(1, 4, limits), ..World::new() };
    let victim = || GroupChange::Create(users([1]));
    for _ in 0..4 {
        world.change(2, victim()).unwrap();
    }
    assert_eq!(world.change(2, victim()).unwrap_err(), ErrorCode::TooManyGroups);
    // Nor has who leaves them behind more.
    let left = world.groups_of(2)[0];
    world.change(2, GroupChange::Leave(GroupId(left))).unwrap();
    assert_eq!(world.change(2, victim()).unwrap_err(), ErrorCode::TooManyGroups);
    let group = world.change(2, GroupChange::Create(Vec::new())).unwrap().unwrap().group;
    assert_eq!(world.change(2, GroupChange::Add(group, users([1]))).unwrap_err(), ErrorCode::TooManyGroups);
    for other in [3, 4] {
        world.change(other, victim()).unwrap();
    }
    assert_eq!(world.change(5, victim()).unwrap_err(), ErrorCode::TooManyGroups);
    // The rest is the user's own; and what he leaves, others can put him into.
    for _ in 0..2 {
        world.change(1, GroupChange::Create(Vec::new())).unwrap();
    }
    assert_eq!(world.change(1, GroupChange::Create(Vec::new())).unwrap_err(), ErrorCode::TooManyGroups);
    for group in world.groups_of(1).into_iter().take(3) {
        world.change(1, GroupChange::Leave(GroupId(group))).unwrap();
    }
    assert!(world.change(5, victim()).is_ok());
}

#[test]
fn who_cannot_be_added_is_named_and_left_out_where_that_is_asked() {
    let mut world = World::new();
    for _ in 0..3 {
        world.change(4, GroupChange::Create(Vec::new())).unwrap();
    }
    let refusal = |world: &World, actor, change: &GroupChange, adding| {
        let planned = world.groups.plan(UserId(actor), (change, adding, Permission::Anyone), &world.sequences);
        let NotPlanned { code, users } = planned.unwrap_err();
        (code, users)
    };
    let named = (ErrorCode::TooManyGroups, users([4]));
    let create = GroupChange::Create(users([2, 4, 3]));
    assert_eq!(refusal(&world, 1, &create, Adding::All), named);
    let roster = world.change_as(1, &create, Adding::BestEffort).unwrap().unwrap();
    assert_eq!(members(&roster), [(1, Role::Owner), (2, Role::Member), (3, Role::Member)]);
    assert_eq!(left_out(create, &roster), users([4]));
    let group = roster.group;
    assert_eq!(refusal(&world, 1, &GroupChange::Add(group, users([5, 4])), Adding::All), named);
    assert_eq!(refusal(&world, 1, &GroupChange::Add(group, users([4])), Adding::BestEffort), named);
    let add = GroupChange::Add(group, users([5, 4, 4, 2]));
    let roster = world.change_as(1, &add, Adding::BestEffort).unwrap().unwrap();
    assert_eq!((members(&roster).len(), left_out(add, &roster)), (4, users([4])));
    // Those who are in it already are no reason for anything.
    assert_eq!(world.change_as(1, &GroupChange::Add(group, users([2, 5])), Adding::BestEffort), Ok(None));
    // Who may be in no more groups is named himself.
    assert_eq!(refusal(&world, 4, &GroupChange::Create(users([2])), Adding::BestEffort), named);
}

fn left_out(change: GroupChange, roster: &Roster) -> Vec<UserId> {
    let submission =
        ChangeSubmission { origin: Origin::default(), actor: UserId(1), change, adding: Adding::BestEffort };
    submission.left_out(roster)
}

#[test]
fn where_the_operator_asks_for_it_only_those_are_added_who_share_a_group_already() {
    let mut world = World::new();
    let first = world.change(1, GroupChange::Create(users([2, 3]))).unwrap().unwrap();
    world.change(4, GroupChange::Create(users([5]))).unwrap();
    let plan = |world: &World, actor, change: &GroupChange, adding, permission| {
        world.groups.plan(UserId(actor), (change, adding, permission), &world.sequences)
    };
    let create = GroupChange::Create(users([3, 5, 9]));
    let refused = plan(&world, 2, &create, Adding::All, Permission::SharedGroup).unwrap_err();
    assert_eq!((refused.code, refused.users), (ErrorCode::NotAllowed, users([5, 9])));
    let Ok(Plan::Change(record)) = plan(&world, 2, &create, Adding::BestEffort, Permission::SharedGroup) else {
        panic!("the others are added")
    };
    assert_eq!(record.users, users([3]));
    assert!(plan(&world, 2, &create, Adding::All, Permission::Anyone).is_ok());
    // Alone, or with whom one is with already.
    for change in [GroupChange::Create(users([])), GroupChange::Create(users([1, 2, 3]))] {
        assert!(plan(&world, 2, &change, Adding::All, Permission::SharedGroup).is_ok(), "{change:?}");
    }
    let add = GroupChange::Add(first.group, users([5]));
    let refused = plan(&world, 1, &add, Adding::BestEffort, Permission::SharedGroup).unwrap_err();
    assert_eq!((refused.code, refused.users), (ErrorCode::NotAllowed, users([5])));
    // Who has left shares it no more.
    world.change(3, GroupChange::Leave(first.group)).unwrap();
    assert_eq!(world.groups.sharing(UserId(1), users([1, 2, 3, 5]), &world.sequences), users([1, 2]));
}

#[test]
fn a_stored_group_for_whose_members_no_room_is_left_is_refused_and_not_loaded_without_them() {
    let mut world = World { sequences: Sequences::with_room(1, 2), ..World::new() };
    let stored = |group, members: &[u64]| StoredGroup {
        group: GroupId(group),
        version: RosterVersion(3),
        maker: None,
        members: members.iter().map(|user| (UserId(*user), Role::Member)).collect(),
    };
    assert_eq!(world.groups.load(&stored(1, &[1, 2]), &mut world.sequences), Some(()));
    assert_eq!(world.groups.load(&stored(2, &[2, 3]), &mut world.sequences), None);
    assert_eq!(world.groups_of(2), [1], "not a roster that lacks a member");
    assert_eq!(world.groups.replace(&stored(1, &[1, 3]), &mut world.sequences), None);
    assert_eq!(world.groups.roster(GroupId(1)), None);
}
