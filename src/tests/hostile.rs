//! A client that means harm: what it can choose must not stop the others.

use ringway_client::{Event, RequestId};
use ringway_wire::frame::Encoder;
use ringway_wire::ids::{Conversation, UserId};
use ringway_wire::limits::GROUP_MEMBERS_MAX;

use crate::colliding::colliding_ids;
use crate::gateway::{Gateway, PATIENCE};

/// Groups of the largest size: 100,000 members in all.
const GROUPS: usize = 20;

#[test]
fn members_chosen_to_collide_do_not_hold_up_the_messages_of_others() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &[]);
    let (mut hostile, mut ann, mut bob) =
        (gateway.client(666, 1, None), gateway.client(1, 1, None), gateway.client(2, 1, None));
    let ids: Vec<UserId> = colliding_ids((GROUPS * (GROUP_MEMBERS_MAX - 1)) as u64).into_iter().map(UserId).collect();
    let mut pending = Vec::new();
    for (number, members) in ids.chunks(GROUP_MEMBERS_MAX - 1).enumerate() {
        let (group, _) = hostile.group_create(members, PATIENCE).unwrap();
        // With a message to the group the shards take up its members. Nobody waits for the answer.
        let name = hostile.new_client_msg_id();
        pending.push(hostile.send(Conversation::Group(group), name, b"to many").unwrap());
        // The next group is made meanwhile, in a frame of its own request id.
        let again = RequestId(1_000_000 + number as u32);
        hostile.send_raw(Encoder::new().group_create(again.0, members)).unwrap();
        pending.push(again);

        let name = ann.new_client_msg_id();
        let sent = ann.send(Conversation::User(UserId(2)), name, b"hello").unwrap();
        assert!(matches!(ann.answer(sent, PATIENCE).unwrap(), Event::Sent { .. }));
        match bob.next(PATIENCE).unwrap() {
            Some(Event::Row(row)) => assert_eq!(row.body, b"hello"),
            other => panic!("{other:?}"),
        }
    }
    for request in pending {
        hostile.answer(request, PATIENCE).unwrap();
    }
}
