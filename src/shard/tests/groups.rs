//! Groups: fan-out over shards, membership at the moment of sending, changes, ephemeral messages.

use std::sync::Arc;

use super::model::FULL;
use super::world::{Client, Got, World};
use crate::contract::delivery::{Delivery, GroupAnnouncement};
use crate::contract::ids::{Origin, ShardId};
use crate::contract::submission::Submission;
use crate::limits::ROSTER_WAITERS_MAX;
use ringway_wire::ids::{Conversation, GroupId, UserId};
use ringway_wire::request::Durability;
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

/// A group on shard 0 of two with users 1 to 20, the first ten online.
fn group_of_20(world: &mut World) -> (GroupId, Vec<Client>) {
    let group = world.group_on(0);
    world.ledger.set_members(group, &(1..=20).collect::<Vec<_>>());
    let clients = (1..=10).map(|user| world.login(user, 1, Some(0))).collect();
    (group, clients)
}

#[test]
fn a_group_message_reaches_every_online_member_on_every_shard_once() {
    let mut world = World::new(2);
    let (group, clients) = group_of_20(&mut world);
    for request in 0..50 {
        world.send_to(clients[0], request, Conversation::Group(group), b"hello all");
    }
    world.settle();
    for client in &clients[1..] {
        assert_eq!(world.seqs(*client), (1..=50).collect::<Vec<_>>());
    }
    let got = world.got(clients[0]);
    assert_eq!(got.len(), 51);
    assert_eq!(got[50], Got::SendOk { request: 49, seq: 50, repeat: false });
    assert_eq!(world.ledger.rosters_asked, 0, "no shard has to know who is a member");
    assert!(world.shards.iter().all(|shard| shard.counters().sessions > 0), "both shards have members");
}

#[test]
fn who_logs_in_or_out_between_messages_joins_or_leaves_the_audience() {
    let mut world = World::new(2);
    let (group, clients) = group_of_20(&mut world);
    world.send_to(clients[0], 1, Conversation::Group(group), b"one");
    world.settle();
    world.hang_up(clients[3]);
    let late = world.login(15, 1, Some(1));
    let second_device = world.login(2, 9, Some(1));
    world.send_to(clients[0], 2, Conversation::Group(group), b"two");
    world.settle();
    assert_eq!(world.seqs(late), [2]);
    assert_eq!(world.seqs(second_device), [2]);
    assert_eq!(world.seqs(clients[1]), [1, 2]);
    assert_eq!(world.seqs(clients[3]), [1]);
    let back = world.login(4, 1, Some(1));
    assert_eq!(world.seqs(back), [2]);
    assert_eq!(world.shards.iter().map(|shard| shard.counters().fell_behind_total).sum::<u64>(), 0);
}

#[test]
fn a_message_to_an_unknown_group_or_by_a_stranger_is_refused() {
    let mut world = World::new(2);
    let (group, _) = group_of_20(&mut world);
    let stranger = world.login(99, 1, Some(0));
    world.send_to(stranger, 1, Conversation::Group(group), b"hello");
    world.send_to(stranger, 2, Conversation::Group(GroupId(5)), b"hello");
    world.frame(stranger, |encoder| encoder.group_info_request(3, group));
    world.settle();
    let mut got = world.got(stranger)[1..].to_vec();
    got.sort_by_key(|got| if let Got::Error(request, _) = got { *request } else { 0 });
    let refused = |request, code| Got::Error(request, code);
    assert_eq!(
        got,
        [refused(1, ErrorCode::NotAMember), refused(2, ErrorCode::UnknownGroup), refused(3, ErrorCode::NotAMember)]
    );
}

#[test]
fn a_repeat_by_one_who_has_left_gets_the_first_answer_and_a_new_message_is_refused() {
    let mut world = World::new(2);
    let (group, clients) = group_of_20(&mut world);
    let (leaver, other) = (clients[1], clients[2]);
    let name = world.name();
    let send = |world: &mut World, group, request, name, body: &[u8], durability| {
        world.frame(leaver, |encoder| encoder.send(request, Conversation::Group(group), name, body, durability));
        world.settle();
        world.got(leaver).pop().expect("an answer")
    };
    let first = Got::SendOk { request: 1, seq: 1, repeat: false };
    assert_eq!(send(&mut world, group, 1, name, b"while a member", Durability::Durable), first);
    world.frame(leaver, |encoder| encoder.group_leave(2, group));
    world.settle();
    world.got(leaver);

    let fresh = world.name();
    let again = Got::SendOk { request: 3, seq: 1, repeat: true };
    assert_eq!(send(&mut world, group, 3, name, b"while a member", Durability::Durable), again);
    assert_eq!(
        send(&mut world, group, 4, fresh, b"after that", Durability::Durable),
        Got::Error(4, ErrorCode::NotAMember)
    );
    assert_eq!(
        send(&mut world, group, 5, fresh, b"passing", Durability::Ephemeral),
        Got::Error(5, ErrorCode::NotAMember)
    );
    assert_eq!(world.seqs(other), [1], "nothing of it reaches the members");

    // The same where the last member has left, and the group is no more.
    let gone = world.group_on(1);
    world.ledger.set_members(gone, &[2]);
    let name = world.name();
    let first = Got::SendOk { request: 6, seq: 2, repeat: false };
    assert_eq!(send(&mut world, gone, 6, name, b"to myself", Durability::Durable), first);
    world.frame(leaver, |encoder| encoder.group_leave(7, gone));
    world.settle();
    assert!(!world.ledger.rosters.contains_key(&gone));
    world.got(leaver);
    let again = Got::SendOk { request: 8, seq: 2, repeat: true };
    assert_eq!(send(&mut world, gone, 8, name, b"to myself", Durability::Durable), again);
    assert_eq!(
        send(&mut world, gone, 9, fresh, b"after that", Durability::Durable),
        Got::Error(9, ErrorCode::UnknownGroup)
    );
    assert_eq!(
        send(&mut world, gone, 10, fresh, b"passing", Durability::Ephemeral),
        Got::Error(10, ErrorCode::UnknownGroup)
    );
}

#[test]
fn a_message_reaches_those_who_are_members_when_it_is_numbered_though_its_shard_knows_an_older_roster() {
    let mut world = World::new(2);
    let (group, clients) = group_of_20(&mut world);
    world.send_to(clients[0], 1, Conversation::Group(group), b"one");
    world.settle();
    // The ledger has a newer version that no shard was told of yet: user 2 is out, user 21 is in.
    let members: Vec<u64> = (1..=21).filter(|user| *user != 2).collect();
    world.ledger.set_members(group, &members);
    let added = world.login(21, 1, Some(0));
    world.send_to(clients[0], 2, Conversation::Group(group), b"two");
    world.settle();
    assert_eq!(world.got(clients[0]).last(), Some(&Got::SendOk { request: 2, seq: 2, repeat: false }));
    assert_eq!(world.seqs(clients[1]), [1], "who was removed receives nothing that came after it");
    assert_eq!(world.seqs(clients[2]), [1, 2]);
    assert_eq!(world.seqs(added), [1]);
}

#[test]
fn a_sender_removed_before_its_message_was_ordered_is_refused() {
    let mut world = World::new(2);
    let (group, clients) = group_of_20(&mut world);
    world.send_to(clients[0], 1, Conversation::Group(group), b"one");
    world.settle();
    world.ledger.set_members(group, &(2..=20).collect::<Vec<_>>());
    world.send_to(clients[0], 2, Conversation::Group(group), b"two");
    world.settle();
    assert_eq!(world.got(clients[0]).last(), Some(&Got::Error(2, ErrorCode::NotAMember)));
    assert_eq!(world.seqs(clients[2]), [1]);
}

#[test]
fn changes_are_answered_announced_to_those_concerned_and_in_force_for_the_next_message() {
    let mut world = World::new(2);
    let owner = world.login(1, 1, Some(0));
    let others: Vec<Client> = (2..=5).map(|user| world.login(user, 1, Some(0))).collect();
    world.frame(owner, |encoder| encoder.group_create(1, &[UserId(2), UserId(3)]));
    world.settle();
    let Some(Got::GroupOk { request: 1, group, version: 1 }) =
        world.got(owner).into_iter().find(|got| matches!(got, Got::GroupOk { .. }))
    else {
        panic!("the group was created");
    };
    let created = Got::Changed { group, kind: GroupChangeKind::Created, users: vec![2, 3] };
    assert_eq!(world.got(others[0]).last(), Some(&created));
    world.frame(owner, |encoder| encoder.group_add(2, GroupId(group), &[UserId(4)]));
    world.settle();
    assert!(world.got(owner).contains(&Got::GroupOk { request: 2, group, version: 2 }));
    world.send_to(owner, 3, Conversation::Group(GroupId(group)), b"with 4");
    world.frame(owner, |encoder| encoder.group_remove(4, GroupId(group), &[UserId(2)]));
    world.settle();
    let removed = Got::Changed { group, kind: GroupChangeKind::Removed, users: vec![2] };
    assert_eq!(world.got(others[0]).last(), Some(&removed), "who was removed is told");
    world.send_to(owner, 5, Conversation::Group(GroupId(group)), b"without 2");
    world.settle();
    assert_eq!(world.seqs(others[0]), [0; 0]);
    assert_eq!(world.seqs(others[1]), [1, 2]);
    assert_eq!(world.got(others[3]).len(), 1, "who was never a member is told nothing");
    world.frame(others[1], |encoder| encoder.group_info_request(6, GroupId(group)));
    world.settle();
    assert_eq!(world.got(others[1]), [Got::Members(vec![1, 3, 4])]);
    world.frame(others[1], |encoder| encoder.group_list_request(7));
    world.settle();
    assert_eq!(world.got(others[1]), [Got::Groups(vec![group])]);
}

#[test]
fn ephemeral_messages_go_to_whoever_is_online_unnumbered_and_past_the_ledger() {
    let mut world = World::new(2);
    let (group, clients) = group_of_20(&mut world);
    world.send_to(clients[0], 1, Conversation::Group(group), b"durable");
    // The group's shard has its roster from now on.
    world.frame(clients[0], |encoder| encoder.group_info_request(9, group));
    world.settle();
    let mut taken = 0;
    for client in [clients[1], clients[2]] {
        world.hold_ledger = true;
        let name = world.name();
        world.frame(client, |encoder| {
            encoder.send(2, Conversation::Group(group), name, b"typing", Durability::Ephemeral)
        });
        world.settle();
        taken += world.held_submissions.len();
        assert_eq!(world.got(client).last(), Some(&Got::SendOk { request: 2, seq: 0, repeat: false }));
    }
    assert_eq!(taken, 0, "the ledger was asked nothing");
    for client in &clients[3..] {
        let got = world.got(*client);
        assert_eq!(got[2], Got::Push { seq: 0, sender: 2, body: b"typing".to_vec() });
        assert_eq!(got[3], Got::Push { seq: 0, sender: 3, body: b"typing".to_vec() });
    }
    world.hold_ledger = false;
    world.send_to(clients[0], 3, Conversation::Group(group), b"durable again");
    world.settle();
    assert_eq!(world.seqs(clients[5]), [2], "no cursor was moved by them");
}

#[test]
fn an_ephemeral_message_to_a_user_reaches_all_its_devices() {
    let mut world = World::new(2);
    let sender = world.login(world.user_on(0, 0), 1, Some(0));
    let to = world.user_on(1, 0);
    let devices = [world.login(to, 1, Some(0)), world.login(to, 2, Some(0))];
    let name = world.name();
    world
        .frame(sender, |encoder| encoder.send(2, Conversation::User(UserId(to)), name, b"here", Durability::Ephemeral));
    world.settle();
    for device in devices {
        assert_eq!(world.seqs(device), [0]);
    }
    assert_eq!(world.got(sender).last(), Some(&Got::SendOk { request: 2, seq: 0, repeat: false }));
}

#[test]
fn whoever_has_made_a_group_types_in_it_at_once_however_much() {
    let mut world = World::new(2);
    let owner = world.login(world.user_on(0, 0), 1, Some(0));
    world.frame(owner, |encoder| encoder.group_create(1, &[UserId(2), UserId(3)]));
    world.settle();
    let group = world.got(owner).into_iter().find_map(|got| match got {
        Got::GroupOk { group, .. } => Some(GroupId(group)),
        _ => None,
    });
    // More than may wait for a roster that is to be asked for.
    world.hold_ledger = true;
    let burst = ROSTER_WAITERS_MAX as u32 + 100;
    for request in 2..2 + burst {
        ephemeral(&mut world, owner, request, group.unwrap());
    }
    world.settle();
    let got = world.got(owner);
    assert!(got.iter().all(|got| matches!(got, Got::SendOk { seq: 0, .. })), "nothing is refused: {got:?}");
    assert_eq!(got.len() as u32, burst);
    assert!(world.held_submissions.is_empty());
}

#[test]
fn who_floods_a_group_whose_roster_is_not_here_takes_no_other_members_room() {
    let mut world = World::new(1);
    let group = world.group_on(0);
    world.ledger.set_members(group, &[1, 2]);
    let flooding = [world.login(1, 1, Some(0)), world.login(1, 2, Some(0))];
    let other = world.login(2, 1, Some(0));
    world.got(other);
    world.hold_ledger = true;
    for request in 0..ROSTER_WAITERS_MAX as u32 {
        world.send_to(flooding[request as usize % 2], request, Conversation::Group(group), b"flood");
        ephemeral(&mut world, flooding[request as usize % 2], 1_000 + request, group);
    }
    world.send_to(other, 1, Conversation::Group(group), b"hello");
    ephemeral(&mut world, other, 2, group);
    world.frame(other, |encoder| encoder.group_info_request(3, group));
    world.settle();
    assert_eq!(world.got(other), [], "nothing of another's is refused");
    world.hold_ledger = false;
    world.settle();
    let got = world.got(other);
    assert!(got.iter().any(|got| matches!(got, Got::SendOk { request: 1, .. })), "{got:?}");
    assert!(got.iter().any(|got| matches!(got, Got::SendOk { request: 2, seq: 0, .. })), "{got:?}");
    assert!(got.contains(&Got::Members(vec![1, 2])), "{got:?}");
}

/// Sends an ephemeral message to a group.
fn ephemeral(world: &mut World, client: Client, request: u32, group: GroupId) {
    let name = world.name();
    world.frame(client, |encoder| {
        encoder.send(request, Conversation::Group(group), name, b"typing", Durability::Ephemeral)
    });
}

#[test]
fn a_full_lane_or_ledger_is_answered_with_retry_later() {
    let mut world = World::new(2);
    let group = world.group_on(1);
    let user = world.user_on(0, 0);
    world.ledger.set_members(group, &[user]);
    let sender = world.login(user, 1, Some(0));
    world.got(sender);
    ephemeral(&mut world, sender, 1, group);
    let (to, envelope) = world.shards[0].effects().lanes.pop_front().expect("the group lives on the other shard");
    world.shards[0].refused_lane(world.now, to, envelope);
    world.settle();
    assert_eq!(world.got(sender), [Got::Error(1, ErrorCode::RetryLater)]);
    world.hold_ledger = true;
    ephemeral(&mut world, sender, 2, group);
    world.settle();
    assert!(matches!(world.held_submissions.front(), Some(Submission::Roster { .. })));
    world.refuse_next_submission(1);
    world.settle();
    assert_eq!(world.got(sender), [Got::Error(2, ErrorCode::RetryLater)]);
    world.send_to(sender, 3, Conversation::Group(group), b"hello");
    world.settle();
    world.refuse_next_submission(0);
    world.settle();
    assert_eq!(world.got(sender), [Got::Error(3, ErrorCode::RetryLater)]);
    world.hold_ledger = false;
    world.send_to(sender, 4, Conversation::Group(group), b"hello");
    world.settle();
    assert_eq!(world.got(sender), [Got::SendOk { request: 4, seq: 1, repeat: false }]);
}

#[test]
fn an_ephemeral_message_does_not_overtake_one_that_waits_for_the_roster_though_that_has_come_otherwise() {
    let mut world = World::new(1);
    let group = world.group_on(0);
    world.ledger.set_members(group, &[1, 2]);
    let sender = world.login(1, 1, Some(0));
    world.hold_ledger = true;
    ephemeral(&mut world, sender, 1, group);
    world.settle();
    // The group was made a moment ago, through this node: its roster comes with the change.
    let roster = world.ledger.rosters.get(&group).cloned().unwrap();
    let announcement = Arc::new(GroupAnnouncement {
        kind: GroupChangeKind::Created,
        actor: UserId(1),
        users: vec![],
        left_out: vec![],
    });
    world.deliver(vec![(ShardId(0), Delivery::Changed { origin: Origin::default(), roster, announcement })]);
    world.settle();
    world.got(sender);
    ephemeral(&mut world, sender, 2, group);
    world.settle();
    assert_eq!(world.got(sender), [], "the first one still waits");
    world.hold_ledger = false;
    world.settle();
    let sent = |request| Got::SendOk { request, seq: 0, repeat: false };
    assert_eq!(world.got(sender), [sent(1), sent(2)]);
}

#[test]
fn an_answer_whose_lane_was_full_is_sent_again() {
    let mut world = World::new(2);
    let group = world.group_on(1);
    let user = world.user_on(0, 0);
    world.ledger.set_members(group, &[user]);
    let sender = world.login(user, 1, Some(0));
    world.got(sender);
    world.frame(sender, |encoder| encoder.group_info_request(1, group));
    let (_, ask) = world.shards[0].effects().lanes.pop_front().unwrap();
    world.shards[1].lane(world.now, ask);
    let answer = world.ledger.submit(world.shards[1].effects().submissions.pop_front().unwrap());
    world.deliver(answer);
    let (to, answer) = world.shards[1].effects().lanes.pop_front().unwrap();
    world.shards[1].refused_lane(world.now, to, answer);
    world.settle();
    assert_eq!(world.got(sender), []);
    world.pass(200);
    assert_eq!(world.got(sender), [Got::Members(vec![user])]);
}

#[test]
fn two_versions_of_an_audience_alternate_without_losing_anybody() {
    // An ephemeral message over a lane may carry a roster that is newer or older than the last delivery's.
    let mut world = World::new(1);
    let group = world.group_on(0);
    let mut clients = Vec::new();
    for user in 1..=6 {
        clients.push(world.login(user, 1, Some(0)));
    }
    let rosters: Vec<_> = [&[1, 2, 3, 4][..], &[1, 3, 5], &[1, 2, 3, 4, 5, 6], &[1, 6]]
        .iter()
        .map(|members| world.ledger.set_members(group, members))
        .collect();
    let mut expected = [0u64; 7];
    for round in 0..40 {
        let roster = &rosters[(round * 7 + round / 3) % 4];
        let deliveries = world.ledger.group_message(roster, UserId(1), b"x", Default::default());
        assert!(matches!(deliveries[0].1, Delivery::Group { .. }));
        world.deliver(deliveries);
        for member in roster.members() {
            expected[member.user.0 as usize] += 1;
        }
        world.settle();
    }
    for (at, client) in clients.iter().enumerate() {
        assert_eq!(world.seqs(*client), (1..=expected[at + 1]).collect::<Vec<_>>());
    }
    assert_eq!(world.shards[0].counters().fell_behind_total, 0);
}

#[test]
fn a_session_that_is_told_of_a_group_row_out_of_turn_catches_up_instead_of_skipping() {
    let mut world = World::new(1);
    let group = world.group_on(0);
    let roster = world.ledger.set_members(group, &[1, 2]);
    let client = world.login(2, 1, Some(0));
    let lost = world.ledger.group_message(&roster, UserId(1), b"lost on the way", Default::default());
    assert_eq!(lost.len(), 1);
    let arrives = world.ledger.group_message(&roster, UserId(1), b"arrives", Default::default());
    world.deliver(arrives);
    world.settle();
    world.pass(200);
    assert_eq!(world.seqs(client), [1, 2]);
}

#[test]
fn who_cannot_be_added_is_named_to_whoever_asked_and_left_out_where_that_is_asked() {
    let mut world = World::new(2);
    let (owner, member) = (world.login(1, 1, Some(0)), world.login(2, 1, Some(0)));
    for client in [owner, member] {
        world.got(client);
    }
    let named = [UserId(2), FULL];
    world.frame(owner, |encoder| encoder.group_create(1, &named));
    world.frame(owner, |encoder| encoder.group_create_best_effort(2, &named));
    world.settle();
    let got = world.got(owner);
    let refused = Got::RefusedFor { request: 1, code: ErrorCode::TooManyGroups, users: vec![FULL] };
    assert!(got.contains(&refused), "{got:?}");
    assert!(got.contains(&Got::GroupOkWithout { request: 2, left_out: vec![FULL] }), "{got:?}");
    assert_eq!(world.got(member).len(), 1, "the member hears of the group that was made, once");
}
