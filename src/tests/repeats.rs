//! The same name always means the same message, also when its sender has left the group since.

use ringway_client::Event;
use ringway_wire::ids::{ClientMsgId, Conversation, GroupId, UserId};
use ringway_wire::schema::ErrorCode;

use crate::connection::Connection;
use crate::gateway::{Gateway, PATIENCE};

const BODY: &[u8] = b"sent while a member";

#[derive(PartialEq, Eq, Debug)]
enum Answer {
    Sent { msg_id: u64, seq: u64, sent_at_ms: u64, repeat: bool },
    Refused(ErrorCode),
}

fn send(client: &mut Connection, group: GroupId, name: ClientMsgId) -> Answer {
    let request = client.send(Conversation::Group(group), name, BODY).unwrap();
    match client.answer(request, PATIENCE).unwrap() {
        Event::Sent { msg_id, seq, sent_at_ms, repeat, .. } => {
            Answer::Sent { msg_id: msg_id.0, seq: seq.0, sent_at_ms, repeat }
        }
        Event::Refused { code, .. } => Answer::Refused(code),
        other => panic!("{other:?}"),
    }
}

/// The answer that a repeat of what was answered so must get.
fn again(first: &Answer) -> Answer {
    match *first {
        Answer::Sent { msg_id, seq, sent_at_ms, repeat: false } => {
            Answer::Sent { msg_id, seq, sent_at_ms, repeat: true }
        }
        _ => panic!("{first:?} is no first answer"),
    }
}

#[test]
fn a_repeat_to_a_group_one_was_removed_from_gets_the_first_answer_also_after_a_restart() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut owner = gateway.client(1, 1, None);
    let mut removed = gateway.client(2, 1, None);
    let (group, _) = owner.group_create(&[UserId(2)], PATIENCE).unwrap();
    let (lonely, _) = removed.group_create(&[], PATIENCE).unwrap();
    let (name, lonely_name) = (removed.new_client_msg_id(), removed.new_client_msg_id());
    let first = send(&mut removed, group, name);
    let first_alone = send(&mut removed, lonely, lonely_name);
    owner.group_remove(group, &[UserId(2)], PATIENCE).unwrap();
    removed.group_leave(lonely, PATIENCE).unwrap();

    let check = |client: &mut Connection| {
        assert_eq!(send(client, group, name), again(&first));
        assert_eq!(send(client, lonely, lonely_name), again(&first_alone));
        // What is new is refused, whether its name is young or so old that the store must be asked.
        let old = ClientMsgId::from_parts(client.server_now_ms() - 3_600_000, fastrand::u128(..));
        for name in [client.new_client_msg_id(), old] {
            assert_eq!(send(client, group, name), Answer::Refused(ErrorCode::NotAMember));
            assert_eq!(send(client, lonely, name), Answer::Refused(ErrorCode::UnknownGroup));
        }
    };
    check(&mut removed);
    gateway.kill();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    check(&mut gateway.client(2, 1, None));
    // Nothing of it came to the owner but the message itself.
    let mut owner = gateway.client(1, 2, None);
    assert_eq!(owner.session().unwrap().last_seq.0, 1);
    let row = owner.next(PATIENCE).unwrap();
    assert!(matches!(&row, Some(Event::Row(row)) if row.body == BODY), "{row:?}");
}
