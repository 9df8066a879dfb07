#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::body::Mark;
use crate::soak::assignment::Counts;
use ringway_wire::ids::{MsgId, Seq, UserId};

const RUN: u32 = 77;
const BODY: usize = 40;

struct World {
    assignment: Assignment,
    inboxes: Inboxes,
    totals: Totals,
}

/// Ten users of one process, two groups of five: everybody is in one.
fn world() -> World {
    let counts = Counts { first_user: 100, connections: 10, processes: 1, groups: 2, members: 5 };
    let assignment = Assignment::new(counts, 0);
    let mut inboxes = Inboxes::new(assignment, RUN, BODY);
    inboxes.know(0, GroupId(900));
    inboxes.know(1, GroupId(901));
    World { assignment, inboxes, totals: Totals::default() }
}

impl World {
    fn member(&self, group: u32, place: u32) -> u32 {
        self.assignment.local(self.assignment.member(group, place)).unwrap()
    }

    fn push(&mut self, local: u32, sender: UserId, to: Conversation, index: u32) -> Judged {
        let mut bytes = vec![0; BODY];
        body::write(Mark { run: RUN, index, sent_ns: 5 }, &mut bytes);
        self.push_body(local, sender, to, &bytes)
    }

    fn push_body(&mut self, local: u32, sender: UserId, to: Conversation, body: &[u8]) -> Judged {
        let push = PushView { seq: Seq(1), msg_id: MsgId(1), sender, to, sent_at_ms: 0, body };
        self.inboxes.push(local, &push, &mut self.totals)
    }

    fn group(&mut self, local: u32, group: u32, index: u32) -> Judged {
        let sender = self.assignment.member(group, 0);
        self.push(local, sender, Conversation::Group(GroupId(900 + u64::from(group))), index)
    }

    fn missing(&self, acked: u32, direct: u32) -> Missing {
        let acked = [(0, acked), (1, acked)].into_iter().collect();
        self.inboxes.compare(&acked, |_| direct, |local| (local != 9).then_some(local != 8))
    }
}

#[test]
fn what_is_not_with_everybody_is_missing_and_those_who_never_came_are_owed_nothing() {
    let mut w = world();
    // Nine were ever in, one of them is away: five groups' worth of rows each.
    assert_eq!(w.missing(3, 0), Missing { due: 27, lost: 24, away: 3 });
    for group in 0..2 {
        for place in 0..5 {
            for index in 0..3 {
                assert_eq!(w.group(w.member(group, place), group, index), Judged::Due(5));
            }
        }
    }
    assert_eq!(w.missing(3, 0), Missing { due: 27, lost: 0, away: 0 });
    assert_eq!(w.missing(4, 0), Missing { due: 36, lost: 8, away: 1 });
    assert_eq!(w.missing(3, 1), Missing { due: 36, lost: 8, away: 1 });
    assert_eq!(w.totals, Totals { delivered: 30, ..Totals::default() });
}

#[test]
fn a_message_passed_over_is_missing_until_it_comes_and_a_second_copy_is_one_too_many() {
    let mut w = world();
    let member = w.member(0, 1);
    let lost = w.missing(4, 0).lost;
    w.group(member, 0, 0);
    w.group(member, 0, 3);
    assert_eq!(w.missing(4, 0).lost, lost - 2);
    assert_eq!(w.totals.out_of_order, 1);
    assert_eq!(w.group(member, 0, 1), Judged::Due(5));
    assert_eq!(w.missing(4, 0).lost, lost - 3);
    assert_eq!(w.group(member, 0, 1), Judged::Wrong);
    assert_eq!(w.group(member, 0, 3), Judged::Wrong);
    assert_eq!(w.totals, Totals { delivered: 3, duplicated: 2, out_of_order: 1, ..Totals::default() });
    assert_eq!(w.missing(4, 0).lost, lost - 3);
}

#[test]
fn direct_messages_come_from_one_sender_and_ones_own_are_told_apart() {
    let mut w = world();
    let to = w.assignment.recipient(3).unwrap();
    let (sender, user) = (w.assignment.user(3), w.assignment.user(to));
    assert_eq!(w.push(to, sender, Conversation::User(user), 0), Judged::Due(5));
    assert_eq!(w.push(3, sender, Conversation::User(user), 0), Judged::Own);
    assert_eq!(w.totals, Totals { delivered: 1, ..Totals::default() });
}

#[test]
fn what_nobody_sent_a_client_is_corrupt() {
    let mut w = world();
    let (inside, outside) = (w.member(0, 1), w.member(1, 1));
    let owner = w.assignment.member(0, 0);
    let to = Conversation::Group(GroupId(900));
    assert_eq!(w.group(outside, 0, 0), Judged::Wrong, "not a member");
    assert_eq!(w.push(inside, w.assignment.member(1, 0), to, 0), Judged::Wrong, "another sender");
    assert_eq!(w.push(inside, owner, Conversation::Group(GroupId(999)), 0), Judged::Wrong, "an unknown group");
    let user = w.assignment.user(inside);
    assert_eq!(w.push(inside, UserId(1), Conversation::User(user), 0), Judged::Wrong, "a stranger");
    let mut bytes = vec![0; BODY];
    body::write(Mark { run: RUN, index: 0, sent_ns: 5 }, &mut bytes);
    assert_eq!(w.push_body(inside, owner, to, &bytes[..BODY - 1]), Judged::Wrong, "cut short");
    bytes[BODY - 1] ^= 1;
    assert_eq!(w.push_body(inside, owner, to, &bytes), Judged::Wrong, "harmed");
    body::write(Mark { run: RUN + 1, index: 0, sent_ns: 5 }, &mut bytes);
    assert_eq!(w.push_body(inside, owner, to, &bytes), Judged::Wrong, "another run");
    assert_eq!(w.totals, Totals { corrupt: 7, ..Totals::default() });
}
