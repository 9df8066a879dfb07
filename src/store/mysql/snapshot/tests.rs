//! A snapshot on a real MariaDB.
#![allow(clippy::unwrap_used, reason = "tests")]

use crate::contract::store::Stored;
use crate::contract::store::{NewestRow, StoredGroup};
use crate::store::Store;
use crate::store::contract::{Bed, MySql};
use ringway_wire::ids::{GroupId, Seq, UserId};

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
