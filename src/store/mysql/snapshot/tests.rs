//! A snapshot on a real MariaDB.
#![allow(clippy::unwrap_used, reason = "tests")]

use crate::contract::position::AppliedPosition;
use crate::contract::store::Stored;
use crate::contract::store::{NewestRow, StoredGroup};
use crate::limits::GROUPS_LEFT_KEPT_MS;
use crate::store::contract::{Bed, MySql, apply};
use crate::store::{GroupWrite, Store, Transaction};
use ringway_wire::ids::{GroupId, MsgId, RosterVersion, Seq, UserId};
use ringway_wire::schema::Role;

#[test]
fn what_another_node_commits_while_a_snapshot_is_read_is_not_in_it() {
    let bed = MySql::new();
    let mut store = bed.open_of_cluster();
    for statement in [
        "INSERT INTO chat_groups (group_id, version) VALUES (7, 1)",
        "INSERT INTO group_members (group_id, user_id, role) VALUES (7, 1, 0), (7, 2, 0)",
        "INSERT INTO inbox (user_id, seq, msg_id) VALUES (1, 1, 10), (1, 2, 11), (2, 5, 11)",
        "UPDATE ledger_position SET position = 100, msg_id_max = 11 WHERE node = 1024",
    ] {
        bed.database.sql(statement);
    }
    let meanwhile = || {
        for statement in [
            "INSERT INTO inbox (user_id, seq, msg_id) VALUES (1, 3, 12), (3, 1, 12)",
            "UPDATE ledger_position SET position = 101, msg_id_max = 12 WHERE node = 1024",
        ] {
            bed.database.sql(statement);
        }
    };
    let mut seen = Vec::new();
    let at = bed.run(store.snapshot(&mut |stored| {
        if seen.is_empty() {
            std::thread::scope(|scope| scope.spawn(meanwhile).join().unwrap());
        }
        seen.push(stored);
    }));
    let at = at.unwrap();
    assert_eq!((at.applied.0, at.msg_id_max.0), (100, 11));
    let groups: Vec<&StoredGroup> =
        seen.iter().filter_map(|stored| if let Stored::Group(group) = stored { Some(group) } else { None }).collect();
    assert_eq!(groups.iter().map(|group| (group.group, group.members.len())).collect::<Vec<_>>(), [(GroupId(7), 2)]);
    let newest = |user, seq| Stored::Newest(NewestRow { user: UserId(user), seq: Seq(seq) });
    assert_eq!(seen[1..], [newest(1, 2), newest(2, 5)]);

    // The next one has it.
    let mut seen = Vec::new();
    let at = bed.run(store.snapshot(&mut |stored| seen.push(stored))).unwrap();
    assert_eq!((at.applied.0, &seen[1..]), (101, &[newest(1, 3), newest(2, 5), newest(3, 1)][..]));
}

#[test]
fn it_is_known_for_a_month_that_everybody_has_left_a_group() {
    let bed = MySql::new();
    let mut store = bed.open_of_cluster();
    let (first, day_ms) = (1_800_000_000_000, 24 * 3_600_000);
    let of_day = |day: u64| GroupId(MsgId::first_at(first + day * day_ms).0);
    let change = |group, version, put: &[u64], delete: &[u64]| GroupWrite {
        group,
        version: RosterVersion(version),
        put: put.iter().map(|user| (UserId(*user), Role::Member)).collect(),
        delete: delete.iter().map(|user| UserId(*user)).collect(),
        maker: Some(UserId(1)),
    };
    let mut write = |position, day, groups| {
        let msg_id_max = MsgId(of_day(day).0);
        let applied = AppliedPosition(position);
        bed.run(apply(&mut store, Transaction { groups, applied, msg_id_max, ..Transaction::default() })).unwrap();
    };
    let [stays, left, made_and_left, never] = [0, 1, 2, 3].map(of_day);
    write(1, 3, vec![change(stays, 1, &[1, 2], &[]), change(left, 1, &[1, 2], &[])]);
    write(2, 3, vec![change(stays, 2, &[], &[1]), change(left, 2, &[], &[1, 2])]);
    write(3, 3, vec![change(made_and_left, 1, &[1], &[]), change(made_and_left, 2, &[], &[1])]);
    let mut asked = bed.open_of_cluster();
    let all = [stays, left, made_and_left, never];
    assert_eq!(bed.run(asked.left(&all)).unwrap(), [left, made_and_left]);
    // Another change, when the first of them is old enough.
    let kept_days = GROUPS_LEFT_KEPT_MS / day_ms;
    write(4, 1 + kept_days, vec![change(stays, 3, &[3], &[])]);
    assert_eq!(bed.run(asked.left(&all)).unwrap(), [left, made_and_left], "not yet");
    write(5, 2 + kept_days, vec![change(stays, 4, &[4], &[])]);
    assert_eq!(bed.run(asked.left(&all)).unwrap(), [made_and_left]);
}
