//! Messages to groups that change before Redis has taken them.

use super::super::world::GROUP;
use super::*;
use ringway_wire::schema::GroupChangeKind;

/// A node that follows a ledger with a group of users 1 to 5.
fn node_with_group() -> (Stream, Node) {
    let stream = Stream::begin(1, Seq(0), 1);
    let database = Database { at: base_of(1), members: (1..=5).collect(), version: 1, ..Database::default() };
    let mut node = Node::start(1, 1, &database);
    node.receive(stream.status()).unwrap();
    node.receive(clock(&stream, NOW.unix_ms)).unwrap();
    node.wants.clear();
    (stream, node)
}

/// A change by another node, which the node reads.
fn changes(node: &mut Node, stream: &mut Stream, kind: GroupChangeKind, user: u64) {
    stream.change(kind, &[user]);
    let (count, entry) = stream.entries.last().unwrap().clone();
    node.receive(News::Entries(vec![Arrival { count, entry }])).unwrap();
}

#[test]
fn what_redis_does_not_take_after_a_change_of_its_group_is_not_overtaken_by_what_is_sent_behind_it() {
    let (mut stream, mut node) = node_with_group();
    let [first, second, third] = [1, 2, 3].map(|number| named(0, number));
    for name in [first, second] {
        send_to(&mut node, Conversation::Group(GROUP), name);
        node.commit().unwrap();
        assert_eq!(submitted(&mut node), [key(name)]);
    }
    changes(&mut node, &mut stream, GroupChangeKind::Added, 6);
    send_to(&mut node, Conversation::Group(GROUP), third);
    send(&mut node, named(0, 4));
    node.commit().unwrap();
    assert_eq!(submitted(&mut node), [key(named(0, 4))], "others need not wait");
    node.receive(News::Replies { replies: vec![Reply::Bounced], count: stream.found.count }).unwrap();
    assert_eq!(submitted(&mut node), Vec::<Vec<u8>>::new(), "the second may come back as well");
    node.receive(News::Replies { replies: vec![Reply::Bounced], count: stream.found.count }).unwrap();
    assert_eq!(submitted(&mut node), [key(first), key(second), key(third)]);
    assert_eq!(node.refused, []);
}

#[test]
fn who_has_left_the_group_before_redis_has_taken_a_message_is_refused_when_the_store_does_not_know_it() {
    for (answer, refused, repeats) in [(LookupFound::Nothing, vec![ErrorCode::NotAMember], 0), (stored(77), vec![], 1)]
    {
        let (mut stream, mut node) = node_with_group();
        let name = named(0, 1);
        let to = Conversation::Group(GROUP);
        send_to(&mut node, to, name);
        node.commit().unwrap();
        assert_eq!(submitted(&mut node), [key(name)]);
        changes(&mut node, &mut stream, GroupChangeKind::Removed, 1);
        node.receive(News::Replies { replies: vec![Reply::Bounced], count: stream.found.count }).unwrap();
        assert_eq!(submitted(&mut node), Vec::<Vec<u8>>::new());
        let [lookup] = lookups(&mut node)[..] else { panic!("the store is asked whether it is a repeat") };
        let answer = match answer {
            LookupFound::Stored(stored) => LookupFound::Stored(StoredMessage { digest: digest(to, b"body"), ..stored }),
            other => other,
        };
        found(&mut node, lookup, answer);
        assert_eq!((node.refused.clone(), node.repeats.len()), (refused, repeats));
    }
}
