#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::rate::Rate;
use ringway_wire::ids::GroupId;

const ONE: Rate = Rate::new(1, 1);

fn spend(table: &mut Spending<1>, now_ms: u64, id: u64) -> Result<(), u32> {
    let [spent] = table.of(id);
    *spent = spent.with(now_ms, &ONE, 1)?;
    Ok(())
}

#[test]
fn each_has_an_allowance_of_its_own_whatever_its_id() {
    let mut table = Spending::new(TableKey::new(7));
    for id in [0, 1, 2, u64::MAX] {
        assert_eq!(spend(&mut table, 0, id), Ok(()));
    }
    for id in [0, 1, 2, u64::MAX] {
        assert_eq!(spend(&mut table, 400, id), Err(600));
    }
    assert_eq!(spend(&mut table, 1_000, 0), Ok(()));
}

#[test]
fn who_owes_much_is_not_forgotten_for_the_sake_of_any_number_who_owe_less() {
    let mut table = Spending::new(TableKey::new(7));
    let rate = Rate::new(1, 1_000);
    let [spent] = table.of(5);
    *spent = spent.with(0, &rate, 1_000).unwrap();
    for id in 1_000..500_000 {
        let [spent] = table.of(id);
        *spent = spent.with(0, &rate, 1 + id % 900).unwrap();
    }
    assert_eq!(table.of(5)[0].with(0, &rate, 1), Err(1_000));
    assert_eq!(table.sets.len(), SETS, "it does not grow");
}

/// Takes a message of user 1, to a group or to a user.
fn take(spending: &mut FanoutSpending, limits: &TrafficLimits, to: Conversation, rows: usize) -> Option<TrafficLimit> {
    spending.take(0, limits, (UserId(1), to), rows, Recipient::Known).err().map(|limited| limited.limit)
}

#[test]
fn a_message_counts_for_its_sender_and_its_group_and_what_one_refuses_the_other_is_not_charged() {
    let (group, other) = (Conversation::Group(GroupId(1)), Conversation::Group(GroupId(2)));
    let direct = Conversation::User(UserId(2));
    let limits = TrafficLimits {
        user_rows: Rate::new(10, 100),
        group_rows: Rate::new(10, 60),
        group_sends: Rate::new(10, 3),
        ..TrafficLimits::UNLIMITED
    };
    let mut spending = FanoutSpending::new(TableKey::new(7));
    assert_eq!(take(&mut spending, &limits, group, 50), None);
    assert_eq!(take(&mut spending, &limits, group, 50), Some(TrafficLimit::GroupRows));
    assert_eq!(take(&mut spending, &limits, other, 60), Some(TrafficLimit::UserRows));
    // What was refused has cost nothing: there are 50 rows of 100 left.
    assert_eq!(take(&mut spending, &limits, other, 46), None);
    assert_eq!(take(&mut spending, &limits, other, 1), None);
    assert_eq!(take(&mut spending, &limits, other, 1), None);
    assert_eq!(take(&mut spending, &limits, other, 1), Some(TrafficLimit::GroupSends));
    assert_eq!(take(&mut spending, &limits, direct, 2), None);
    assert_eq!(take(&mut spending, &limits, direct, 2), Some(TrafficLimit::UserRows));
    // Another sender has its own rows, and shares the group's.
    let another = |spending: &mut FanoutSpending, to, rows| {
        spending.take(0, &limits, (UserId(9), to), rows, Recipient::Known).is_ok()
    };
    assert!(another(&mut spending, direct, 80));
    assert!(!another(&mut spending, group, 11));
    // With other limits from one moment to the next.
    assert_eq!(take(&mut spending, &TrafficLimits::UNLIMITED, group, 5_000), None);
}
