//! Changes of groups that Redis does not answer in time.

use super::*;

/// Redis takes what the node has submitted.
fn takes(node: &mut Node, stream: &mut Stream) {
    for what in std::mem::take(&mut node.wants) {
        let What::Submit { calls, .. } = what else { continue };
        for Call { values, .. } in calls {
            stream.found.count += 1;
            let entry = values.last().unwrap().clone();
            node.receive(News::Entries(vec![Arrival { count: stream.found.count, entry }])).unwrap();
        }
    }
}

#[test]
fn who_waits_for_a_change_of_a_group_is_told_in_time_and_asking_again_makes_no_second_one() {
    let (mut stream, mut node) = node();
    let create = || GroupChange::Create(vec![UserId(2), UserId(3)]);
    change(&mut node, create());
    node.now = later(SENDS_ANSWERED_MS - 1);
    node.commit().unwrap();
    assert_eq!(node.refused, []);
    for more in 1..3 {
        node.now = later(SENDS_ANSWERED_MS + more);
        node.commit().unwrap();
    }
    assert_eq!(node.refused, [ErrorCode::RetryLater]);
    // Asked again while nobody knows; another group, meanwhile, is another one.
    change(&mut node, create());
    assert_eq!(node.refused, [ErrorCode::RetryLater; 2]);
    change(&mut node, GroupChange::Create(vec![UserId(2)]));
    takes(&mut node, &mut stream);
    assert_eq!(node.engine.follower.groups.len(), 2);
    change(&mut node, create());
    let [group] = node.unchanged[..] else { panic!("it is given the one that was made: {:?}", node.unchanged) };
    assert_eq!(node.engine.follower.groups.roster(group).unwrap().members().len(), 3);
    // Who has been told asks for another one.
    change(&mut node, create());
    takes(&mut node, &mut stream);
    assert_eq!((node.engine.follower.groups.len(), node.unchanged.len(), node.refused.len()), (3, 1, 2));
}

#[test]
fn a_change_that_was_not_answered_in_time_is_found_made_when_it_is_asked_for_again() {
    let (mut stream, mut node) = node();
    change(&mut node, GroupChange::Create(vec![UserId(2)]));
    takes(&mut node, &mut stream);
    let group = node.engine.follower.groups.each().next().unwrap().group;
    for change_of in [GroupChange::Add(group, vec![UserId(3)]), GroupChange::Remove(group, vec![UserId(2)])] {
        change(&mut node, change_of.clone());
        node.now = Now { mono_ms: node.now.mono_ms + SENDS_ANSWERED_MS + 1, ..node.now };
        node.commit().unwrap();
        assert_eq!(node.refused.pop(), Some(ErrorCode::RetryLater));
        takes(&mut node, &mut stream);
        change(&mut node, change_of);
        assert_eq!(node.unchanged.pop(), Some(group));
    }
    let members: Vec<u64> =
        node.engine.follower.groups.roster(group).unwrap().members().iter().map(|member| member.user.0).collect();
    assert_eq!(members, [1, 3]);
}

#[test]
fn a_change_that_redis_did_not_take_is_not_called_again_before_it_is_on_disk() {
    let (mut stream, mut node) = node();
    change(&mut node, GroupChange::Create(vec![UserId(2)]));
    takes(&mut node, &mut stream);
    let group = node.engine.follower.groups.each().next().unwrap().group;
    change(&mut node, GroupChange::Add(group, vec![UserId(3)]));
    assert_eq!(submitted(&mut node).len(), 1);
    node.receive(News::Replies { replies: vec![Reply::Appended], count: stream.found.count }).unwrap();
    // Another change came first, and the disk fails when this one is to be written again.
    node.log_disk.cut_writes(1);
    node.receive(News::Replies { replies: vec![Reply::Bounced], count: stream.found.count }).unwrap();
    let submitted = submitted(&mut node).len();
    assert_eq!((node.refused.as_slice(), submitted), (&[ErrorCode::StorageFull][..], 0));
}
