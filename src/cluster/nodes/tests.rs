//! Nodes that talk, with shards that are mailboxes and a Redis that is a list.
#![allow(clippy::unwrap_used, clippy::panic, reason = "tests")]

use std::collections::BTreeMap;

use super::*;
use crate::cluster::talk;
use crate::contract::access::{AccessFact, RevokedToken, Standing, TokenId};
use crate::contract::ids::ShardId;
use crate::topology::mailbox::{Mail, Mailbox, mailbox};
use ringway_wire::ids::{ClientMsgId, DeviceId, MsgId};
use ringway_wire::push::PushFrame;

/// A node with one shard that knows which sessions it has, and keeps what it receives as a real one does.
struct Node {
    number: u16,
    nodes: Nodes,
    mailbox: Mailbox,
    turn: usize,
    sessions: BTreeMap<u64, u64>,
    /// By node and user: since when, and under which stamp.
    there: BTreeMap<(u16, u64), (u64, u32)>,
    valid_from: BTreeMap<u16, u32>,
    ephemeral: Vec<MsgId>,
}

impl Node {
    fn new(number: u16, process: u64) -> Node {
        let (mailbox, slots) = mailbox(ShardId(0), 1);
        let mut nodes = Nodes::new(number, process, vec![slots.nodes]);
        nodes.begin();
        Node {
            number,
            nodes,
            mailbox,
            turn: 0,
            sessions: BTreeMap::new(),
            there: BTreeMap::new(),
            valid_from: BTreeMap::new(),
            ephemeral: Vec::new(),
        }
    }

    fn log_in(&mut self, user: u64, since_ms: u64) {
        self.sessions.insert(user, since_ms);
        self.nodes.apply_shard(ToNodes::Sessions(vec![SessionNotice::Changed(news(user, Some(since_ms)))]));
        self.nodes.flush();
    }

    fn log_out(&mut self, user: u64) {
        self.sessions.remove(&user);
        self.nodes.apply_shard(ToNodes::Sessions(vec![SessionNotice::Changed(news(user, None))]));
        self.nodes.flush();
    }

    /// The shard takes its mail; false: there was none.
    fn take_mail(&mut self) -> bool {
        let Some(mail) = self.mailbox.next(&mut self.turn) else { return false };
        let Mail::Nodes(envelope) = mail else { panic!("unexpected {mail:?}") };
        match envelope {
            FromNodes::Sessions { node, stamp, news } => {
                for SessionNews { user, since_ms, .. } in news {
                    match since_ms {
                        Some(since_ms) => drop(self.there.insert((node, user.0), (since_ms, stamp))),
                        None => drop(self.there.remove(&(node, user.0))),
                    }
                }
            }
            FromNodes::Forget { node, below } => drop(self.valid_from.insert(node, below)),
            FromNodes::NotifyAll(number) => {
                let again =
                    self.sessions.iter().map(|(user, since)| SessionNotice::Repeated(news(*user, Some(*since))));
                let notices = again.chain([SessionNotice::Through(number)]).collect();
                self.nodes.apply_shard(ToNodes::Sessions(notices));
                self.nodes.flush();
            }
            FromNodes::Ephemeral(message) => self.ephemeral.push(message.msg_id),
        }
        true
    }

    /// Who is online elsewhere: node and user.
    fn online(&self) -> Vec<(u16, u64)> {
        let counts = |node: &u16, stamp: u32| self.valid_from.get(node).is_none_or(|from| stamp >= *from);
        self.there.iter().filter(|((node, _), (_, stamp))| counts(node, *stamp)).map(|(key, _)| *key).collect()
    }
}

fn news(user: u64, since_ms: Option<u64>) -> SessionNews {
    SessionNews { user: UserId(user), device: DeviceId(1), since_ms }
}

/// Hands on what is published, in order, until nothing is left; returns how many messages there were.
fn settle(nodes: &mut [&mut Node]) -> usize {
    let mut count = 0;
    loop {
        let mut busy = false;
        for at in 0..nodes.len() {
            while let Some(Publish { to, bytes }) = nodes[at].nodes.next_publish() {
                (busy, count) = (true, count + 1);
                let receives = |node: &&mut &mut Node| to.is_none_or(|to| to == node.number);
                nodes.iter_mut().filter(receives).for_each(|node| node.nodes.apply_message(&bytes));
            }
            while nodes[at].take_mail() {
                busy = true;
            }
        }
        if !busy {
            return count;
        }
    }
}

fn alive(nodes: &[u16]) -> BTreeSet<u16> {
    nodes.iter().copied().collect()
}

#[test]
fn nodes_that_meet_learn_each_others_sessions_and_then_what_changes() {
    let mut a = Node::new(1, 10);
    a.log_in(100, 5);
    settle(&mut [&mut a]);
    let mut b = Node::new(2, 20);
    b.log_in(200, 6);
    settle(&mut [&mut a, &mut b]);
    assert_eq!((a.online(), b.online()), (vec![(2, 200)], vec![(1, 100)]));
    a.log_in(101, 7);
    a.log_out(100);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), [(1, 101)]);
    assert_eq!((a.nodes.report().nodes, b.nodes.report().nodes), (2, 2));
}

#[test]
fn a_third_node_is_told_everything_without_troubling_those_who_know_it() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    (0..5_000).for_each(|user| a.log_in(user, 5));
    settle(&mut [&mut a, &mut b]);
    let before = b.nodes.report().received;
    let mut c = Node::new(3, 30);
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!(c.online().len(), 5_000);
    // Its Hello and what it has, which is nothing; not what the first says to the third.
    assert!(b.nodes.report().received - before <= 2, "{} messages", b.nodes.report().received - before);
}

#[test]
fn what_a_node_has_missed_is_told_again_and_what_has_ended_meanwhile_ends() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    a.log_in(100, 5);
    a.log_in(101, 5);
    settle(&mut [&mut a, &mut b]);
    // These are lost.
    a.log_out(100);
    a.log_in(102, 6);
    while a.nodes.next_publish().is_some() {}
    b.nodes.missed(2);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), [(1, 100), (1, 101)], "until it asks, the old counts");
    b.nodes.alive(&alive(&[1, 2]), Leaseless::Gone);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), [(1, 101), (1, 102)]);
    assert_eq!(b.nodes.report().missed, 2);
}

#[test]
fn a_node_whose_lease_ends_is_forgotten_and_if_it_only_stood_still_heard_again() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    a.log_in(100, 5);
    settle(&mut [&mut a, &mut b]);
    b.nodes.alive(&alive(&[2]), Leaseless::Perhaps);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), [(1, 100)], "just after Redis was away nobody can have renewed a lease");
    b.nodes.alive(&alive(&[2]), Leaseless::Gone);
    b.log_in(200, 6);
    while b.nodes.next_publish().is_some() {}
    while b.take_mail() {}
    assert_eq!((b.online(), b.nodes.report().nodes), (vec![], 1));
    // It goes on, and does not know that it was gone, nor what was said meanwhile.
    b.nodes.alive(&alive(&[1, 2]), Leaseless::Gone);
    settle(&mut [&mut a, &mut b]);
    assert_eq!((b.online(), b.nodes.report().nodes), (vec![(1, 100)], 2));
    assert_eq!(a.online(), [(2, 200)]);
}

#[test]
fn a_node_that_starts_again_within_its_lease_has_none_of_its_former_sessions() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    a.log_in(100, 5);
    settle(&mut [&mut a, &mut b]);
    let mut a = Node::new(1, 11);
    a.log_in(101, 6);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), [(1, 101)]);
}

#[test]
fn a_node_that_says_bye_is_gone_at_once() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    a.log_in(100, 5);
    settle(&mut [&mut a, &mut b]);
    b.nodes.apply_message(&a.nodes.bye().bytes);
    while b.take_mail() {}
    assert_eq!((b.online(), b.nodes.report().nodes), (vec![], 1));
}

#[test]
fn an_ephemeral_message_goes_where_it_is_to_reach() {
    let (mut a, mut b, mut c) = (Node::new(1, 10), Node::new(2, 20), Node::new(3, 30));
    settle(&mut [&mut a, &mut b, &mut c]);
    let message = |number| {
        let (msg_id, sender, to) = (MsgId(number), UserId(1), Conversation::User(UserId(2)));
        let push = PushFrame::encode(msg_id, sender, to, 7, b"typing");
        Arc::new(Message { msg_id, sender, to, client_msg_id: ClientMsgId::default(), sent_at_ms: 7, push })
    };
    a.nodes.apply_shard(ToNodes::Ephemeral { reach: Reach::Nodes(vec![3]), message: message(8) });
    a.nodes.apply_shard(ToNodes::Ephemeral { reach: Reach::All, message: message(9) });
    a.nodes.flush();
    settle(&mut [&mut a, &mut b, &mut c]);
    assert_eq!((b.ephemeral, c.ephemeral), (vec![MsgId(9)], vec![MsgId(8), MsgId(9)]));
    assert_eq!(a.ephemeral, [], "not where it comes from");
}

#[test]
fn what_one_account_says_on_other_nodes_leaves_room_in_a_shards_mailbox_for_the_others() {
    let (mut a, mut b, mut c) = (Node::new(1, 10), Node::new(2, 20), Node::new(3, 30));
    settle(&mut [&mut a, &mut b, &mut c]);
    let say = |from: &mut Node, to: &mut Node, sender: u64, numbers: std::ops::Range<u64>| {
        for number in numbers {
            let (msg_id, sender, to) = (MsgId(number), UserId(sender), Conversation::User(UserId(2)));
            let push = PushFrame::encode(msg_id, sender, to, 7, b"typing");
            let message = Message { msg_id, sender, to, client_msg_id: ClientMsgId::default(), sent_at_ms: 7, push };
            from.nodes.apply_shard(ToNodes::Ephemeral { reach: Reach::All, message: Arc::new(message) });
        }
        from.nodes.flush();
        while let Some(publish) = from.nodes.next_publish() {
            to.nodes.apply_message(&publish.bytes);
        }
    };
    // The second's shard stands still; one account is on both other nodes.
    let many = crate::limits::FROM_NODES_MAX as u64;
    say(&mut a, &mut b, 666, 0..many);
    say(&mut c, &mut b, 666, many..2 * many);
    say(&mut a, &mut b, 5, 10_000..10_001);
    a.log_in(100, 5);
    while let Some(publish) = a.nodes.next_publish() {
        b.nodes.apply_message(&publish.bytes);
    }
    while b.take_mail() {}
    assert_eq!(b.ephemeral.last(), Some(&MsgId(10_000)));
    assert_eq!(b.ephemeral.len(), crate::limits::FROM_NODES_ACCOUNT_MAX + 1);
    assert_eq!((b.nodes.report().missed, b.online()), (0, vec![(1, 100)]));
    // Its shard goes on, and takes all that comes.
    b.ephemeral.clear();
    for number in 0..many {
        say(&mut a, &mut b, 666, number..number + 1);
        while b.take_mail() {}
    }
    assert_eq!(b.ephemeral.len(), many as usize);
}

#[test]
fn what_a_shard_has_no_room_for_is_asked_for_again_and_a_dead_nodes_end_is_not_lost() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    a.log_in(100, 5);
    settle(&mut [&mut a, &mut b]);
    // The second's shard stands still until its mailbox is full and more.
    for round in 0..crate::limits::FROM_NODES_MAX as u64 + 10 {
        a.log_in(101 + round, 6);
        while let Some(publish) = a.nodes.next_publish() {
            b.nodes.apply_message(&publish.bytes);
        }
    }
    assert!(b.nodes.report().missed > 0);
    let mut c = Node::new(3, 30);
    c.log_in(300, 5);
    settle(&mut [&mut a, &mut b, &mut c]);
    b.nodes.alive(&alive(&[1, 2, 3]), Leaseless::Gone);
    settle(&mut [&mut a, &mut b, &mut c]);
    let expected: Vec<(u16, u64)> = a.sessions.keys().map(|user| (1, *user)).chain([(3, 300)]).collect();
    assert_eq!(b.online(), expected);

    for _ in 0..crate::limits::FROM_NODES_MAX {
        b.nodes.shards[0].put(FromNodes::NotifyAll(0)).unwrap();
    }
    b.nodes.alive(&alive(&[1, 2]), Leaseless::Gone);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), expected, "the shard has not heard of it");
    b.nodes.alive(&alive(&[1, 2]), Leaseless::Gone);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(b.online(), expected[..expected.len() - 1]);
}

fn banned(user: u64) -> AccessOrder {
    AccessOrder::Fact(AccessFact { standing: Standing::Banned, since_ms: 9, tokens_from_s: 5, user: UserId(user) })
}

#[test]
fn who_may_not_log_in_is_told_to_those_who_are_there_and_all_of_it_to_those_who_come() {
    let (mut a, mut b) = (Node::new(1, 10), Node::new(2, 20));
    let (to_a, mut news_of_a) = mpsc::channel(8);
    let (to_b, mut news_of_b) = mpsc::channel(8);
    a.nodes.access = Some(to_a);
    b.nodes.access = Some(to_b);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(news_of_a.try_recv(), Ok(AccessNews::TellAll), "the other one has said hello");
    assert_eq!(news_of_b.try_recv(), Ok(AccessNews::TellAll));
    a.nodes.apply_shard(ToNodes::Access(vec![banned(7), AccessOrder::Kick(UserId(8))]));
    settle(&mut [&mut a, &mut b]);
    assert_eq!(news_of_b.try_recv(), Ok(AccessNews::Received(vec![banned(7), AccessOrder::Kick(UserId(8))])));
    assert!(news_of_a.try_recv().is_err(), "not to the one that says it");
    // Who begins another session with Redis may have missed something, and so may the others.
    a.nodes.begin();
    settle(&mut [&mut a, &mut b]);
    assert_eq!(news_of_a.try_recv(), Ok(AccessNews::TellAll));
    assert_eq!(news_of_b.try_recv(), Ok(AccessNews::TellAll));
    // Where there is no room, it is asked for again.
    for _ in 0..10 {
        a.nodes.apply_shard(ToNodes::Access(vec![banned(9)]));
        settle(&mut [&mut a, &mut b]);
    }
    while news_of_b.try_recv().is_ok() {}
    while news_of_a.try_recv().is_ok() {}
    b.nodes.alive(&alive(&[1, 2]), Leaseless::Gone);
    settle(&mut [&mut a, &mut b]);
    assert_eq!(news_of_a.try_recv(), Ok(AccessNews::TellAll));
}

#[test]
fn no_beginning_of_a_message_and_no_other_bytes_are_taken_for_one() {
    let speaker = Speaker { node: 3, process: 4, epoch: 5 };
    let mut bytes = Vec::new();
    talk::begin(speaker, &mut bytes);
    let mut ends = vec![bytes.len()];
    let push = PushFrame::encode(MsgId(1), UserId(2), Conversation::Group(ringway_wire::ids::GroupId(3)), 4, b"body");
    let message = Message {
        msg_id: MsgId(1),
        sender: UserId(2),
        to: Conversation::Group(ringway_wire::ids::GroupId(3)),
        client_msg_id: ClientMsgId::default(),
        sent_at_ms: 4,
        push,
    };
    let items = [
        Item::Hello,
        Item::Session(news(7, Some(9))),
        Item::Session(news(7, None)),
        Item::Ephemeral(Arc::new(message)),
        Item::Access(banned(7)),
        Item::Access(AccessOrder::Kick(UserId(u64::MAX))),
        Item::Access(AccessOrder::KickOfThen(UserId(7), 1_800_000_000_000)),
        Item::Access(AccessOrder::KickDevice(UserId(7), DeviceId(u64::MAX), 1_800_000_000_000)),
        Item::Access(AccessOrder::Token(RevokedToken {
            user: UserId(7),
            token: TokenId(std::num::NonZeroU64::MAX),
            until_s: 9,
        })),
    ];
    for item in &items {
        talk::put(item, &mut bytes);
        ends.push(bytes.len());
    }
    let (said_by, read) = talk::read(&bytes).unwrap();
    assert_eq!((said_by, format!("{read:?}")), (speaker, format!("{items:?}")));
    for length in 0..bytes.len() {
        assert_eq!(talk::read(&bytes[..length]).is_some(), ends.contains(&length), "{length} bytes");
    }
    let mut node = Node::new(1, 10);
    let mut random = fastrand::Rng::with_seed(7);
    for _ in 0..10_000 {
        let mut harmed = bytes.clone();
        for _ in 0..random.usize(1..4) {
            let at = random.usize(..harmed.len());
            harmed[at] = random.u8(..);
        }
        node.nodes.apply_message(&harmed);
        while node.take_mail() {}
    }
}
