//! What the index keeps and what it lets go; that it finds all rows is shown with the keeper, against a model.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::journal::memory_disk::MemoryDisk;
use crate::journal::record::{DirectRecord, GroupRecord, RosterRecordMember};
use ringway_wire::ids::RosterVersion;
use ringway_wire::limits::GROUP_MEMBERS_MAX;
use ringway_wire::schema::Role;

/// An index of a journal that was never written: nothing may be read from it.
struct Bed {
    index: Index,
    spot: Reader<MemoryDisk>,
    at: u64,
}

impl Bed {
    fn new() -> Bed {
        Bed { index: Index::default(), spot: Reader::new(MemoryDisk::new(1)), at: 0 }
    }

    fn take(&mut self, record: Record<'_>) -> JournalPosition {
        self.at += 10;
        self.index.take(JournalPosition(self.at), record, &mut self.spot).unwrap();
        JournalPosition(self.at)
    }

    fn roster(&mut self, group: u64, members: std::ops::Range<u64>) -> JournalPosition {
        let member = |user| RosterRecordMember { user: UserId(user), role: Role::Member, base: Seq(0) };
        let members = members.map(member).collect();
        self.take(Record::Roster(RosterRecord { group: GroupId(group), version: RosterVersion(1), members }))
    }

    fn message(&mut self, roster_at: JournalPosition, name: u8) -> JournalPosition {
        self.take(Record::Group(GroupRecord {
            msg_id: MsgId(u64::from(name)),
            sender: UserId(1),
            group: GroupId(0),
            client_msg_id: ClientMsgId([name; 16]),
            roster_at,
            differences: &[],
            body: b"",
        }))
    }

    fn is_empty(&self) -> bool {
        let index = &self.index;
        index.entries.is_empty()
            && index.names.is_empty()
            && index.rosters.is_empty()
            && index.newest.is_empty()
            && index.idle.is_empty()
            && index.users.is_empty()
            && (index.memberships, index.memberships_idle, index.rows) == (0, 0, 0)
    }
}

#[test]
fn a_groups_newest_roster_stays_for_its_next_message_and_an_older_one_goes_with_its_last() {
    let mut bed = Bed::new();
    let first = bed.roster(7, 1..4);
    let early = bed.message(first, 1);
    let second = bed.roster(7, 2..6);
    assert!(bed.index.roster(first).is_some(), "a message refers to it");
    assert_eq!(bed.index.memberships_in_use(), 3);
    bed.index.drop_below(JournalPosition(early.0 + 1));
    assert!(bed.index.roster(first).is_none());
    assert!(!bed.index.users.contains_key(&UserId(1)), "only the older roster had this user");
    assert_eq!(bed.index.roster(second).unwrap().members.len(), 4);
    let late = bed.message(second, 2);
    assert_eq!(bed.index.sources(UserId(2)).len(), 1);
    assert_eq!(bed.index.memberships_in_use(), 4);
    bed.index.drop_below(JournalPosition(late.0 + 1));
    assert!(bed.index.roster(second).is_some(), "the next message will refer to it");
    assert!(bed.index.sources(UserId(2)).is_empty());
    assert_eq!((bed.index.memberships_in_use(), bed.index.memberships_idle), (0, 4));
}

#[test]
fn rosters_that_nothing_refers_to_do_not_pile_up() {
    let mut bed = Bed::new();
    let used = bed.roster(0, 0..GROUP_MEMBERS_MAX as u64);
    bed.message(used, 1);
    let rosters = TAIL_IDLE_MEMBERSHIPS_MAX / GROUP_MEMBERS_MAX + 3;
    let idle: Vec<JournalPosition> =
        (1..=rosters as u64).map(|group| bed.roster(group, 0..GROUP_MEMBERS_MAX as u64)).collect();
    assert!(bed.index.memberships_idle <= TAIL_IDLE_MEMBERSHIPS_MAX);
    assert!(bed.index.roster(used).is_some(), "a message refers to it");
    assert!(bed.index.roster(idle[0]).is_none(), "the longest idle go first");
    assert!(bed.index.roster(*idle.last().unwrap()).is_some());
    assert_eq!(bed.index.newest.len(), bed.index.rosters.len());
    assert_eq!(bed.index.users[&UserId(3)].memberships.all().len(), bed.index.rosters.len());
}

#[test]
fn what_is_applied_leaves_nothing_behind() {
    let mut bed = Bed::new();
    let direct = |name: u8, sender, to| {
        Record::Direct(DirectRecord {
            msg_id: MsgId(u64::from(name)),
            sender: UserId(sender),
            to: UserId(to),
            client_msg_id: ClientMsgId([name; 16]),
            sender_seq: Seq(u64::from(name)),
            recipient_seq: Seq(u64::from(name)),
            body: b"",
        })
    };
    bed.take(direct(1, 5, 6));
    bed.take(direct(2, 6, 6));
    let last = bed.take(direct(3, 6, 5));
    assert_eq!(bed.index.sources(UserId(6))[0].len(), 3);
    assert_eq!(bed.index.rows, 5);
    assert_eq!(
        bed.index.named(&Lookup { sender: UserId(6), client_msg_id: ClientMsgId([3; 16]), generation: 0 }).unwrap().at,
        last
    );
    bed.index.drop_below(last);
    assert_eq!(bed.index.sources(UserId(6))[0].len(), 1);
    assert!(
        bed.index.named(&Lookup { sender: UserId(6), client_msg_id: ClientMsgId([2; 16]), generation: 0 }).is_none()
    );
    bed.index.drop_below(JournalPosition(last.0 + 1));
    assert!(bed.is_empty());
}
