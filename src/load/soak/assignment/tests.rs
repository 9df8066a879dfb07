#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const PLANS: &[(u32, u32, u32, u32)] =
    &[(1, 1, 0, 0), (1, 1, 1, 1), (2, 2, 3, 2), (7, 3, 5, 4), (100, 4, 30, 10), (101, 3, 7, 101), (1000, 7, 90, 33)];

fn processes(plan: (u32, u32, u32, u32)) -> Vec<Assignment> {
    let (connections, processes, groups, members) = plan;
    let counts = Counts { first_user: 5_000, connections, processes, groups, members };
    (0..processes).map(|process| Assignment::new(counts, process)).collect()
}

#[test]
fn every_user_is_one_client_of_one_process() {
    for plan in PLANS {
        let mut users = BTreeSet::new();
        for assignment in processes(*plan) {
            for local in 0..assignment.share() {
                let user = assignment.user(local);
                assert_eq!(assignment.local(user), Some(local));
                assert!(users.insert(user.0), "{plan:?}: {user} twice");
            }
        }
        assert_eq!(users, (5_000..5_000 + u64::from(plan.0)).collect());
    }
}

#[test]
fn groups_have_distinct_members_and_clients_know_theirs() {
    for plan in PLANS {
        let all = processes(*plan);
        let mut memberships: BTreeMap<u64, BTreeSet<u32>> = BTreeMap::new();
        for group in 0..plan.2 {
            let members: BTreeSet<u64> = (0..plan.3).map(|place| all[0].member(group, place).0).collect();
            assert_eq!(members.len(), plan.3 as usize, "{plan:?}");
            for member in members {
                memberships.entry(member).or_default().insert(group);
            }
        }
        for assignment in &all {
            for local in 0..assignment.share() {
                let mine = memberships.get(&assignment.user(local).0).cloned().unwrap_or_default();
                let by_layer: BTreeSet<u32> =
                    (0..assignment.layers()).filter_map(|layer| assignment.group(local, layer)).collect();
                assert_eq!(by_layer, mine, "{plan:?}");
                for group in 0..plan.2 + 2 {
                    let layer = assignment.layer(local, group);
                    assert_eq!(layer.is_some(), mine.contains(&group), "{plan:?} client {local} group {group}");
                    assert!(layer.is_none_or(|layer| assignment.group(local, layer) == Some(group)));
                }
            }
        }
        let owned: usize = all.iter().map(|assignment| assignment.own_groups().count()).sum();
        assert_eq!(owned, plan.2 as usize, "every group has one owner's process");
    }
}

#[test]
fn members_lie_in_all_processes() {
    for group in 0..90 {
        let all = processes((1000, 7, 90, 33));
        let of: BTreeSet<usize> = (0..33)
            .map(|place| all.iter().position(|s| s.local(all[0].member(group, place)).is_some()).unwrap())
            .collect();
        assert_eq!(of.len(), 7, "group {group}");
    }
}

#[test]
fn senders_and_recipients_are_pairs() {
    for plan in PLANS {
        for assignment in processes(*plan) {
            for local in 0..assignment.share() {
                let to = assignment.recipient(local);
                assert_eq!(to.is_some(), assignment.share() > 1);
                assert!(to.is_none_or(|to| to != local && assignment.sender(to) == Some(local)));
            }
        }
    }
}
