//! Nobody reads what is not his: another's inbox, a group that he has left, what another device of his has acknowledged.

use ringway_client::{Event, Row};
use ringway_wire::ids::{Conversation, DeviceId, Seq, UserId};
use ringway_wire::schema::{ErrorCode, GroupChangeKind};

use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, token};

const END: &[u8] = b"the end";

fn send(client: &mut Connection, to: Conversation, body: &[u8]) {
    let id = client.new_client_msg_id();
    let request = client.send(to, id, body).unwrap();
    let answer = client.answer(request, PATIENCE).unwrap();
    assert!(matches!(answer, Event::Sent { .. }), "{answer:?}");
}

fn typing(client: &mut Connection, to: Conversation) -> Event {
    let id = client.new_client_msg_id();
    let request = client.send_ephemeral(to, id, b"typing").unwrap();
    client.answer(request, PATIENCE).unwrap()
}

/// Everything that comes, up to a message that says that it was all; announcements as text.
fn until_end(client: &mut Connection) -> Vec<Vec<u8>> {
    let mut came = Vec::new();
    loop {
        match client.next(PATIENCE).unwrap().expect("the end comes") {
            Event::Row(Row { body, .. }) if body == END => return came,
            Event::Row(Row { body, .. }) | Event::Ephemeral(Row { body, .. }) => came.push(body),
            Event::GroupChanged { .. } => came.push(b"a change".to_vec()),
            other => panic!("{other:?}"),
        }
    }
}

fn code<T: std::fmt::Debug>(refused: Result<T, ConnectionError>) -> ErrorCode {
    match refused {
        Err(ConnectionError::Refused { code, .. }) => code,
        other => panic!("{other:?}"),
    }
}

fn page(client: &mut Connection, after: u64) -> Vec<Row> {
    match client.sync(Seq(after), 0, PATIENCE).unwrap() {
        Event::Page { rows, .. } => rows,
        other => panic!("{other:?}"),
    }
}

#[test]
fn nobody_gets_a_row_of_another_users_inbox_by_push_by_page_or_by_a_cursor() {
    for shards in ["1", "2"] {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(dir.path(), &["--shards", shards]);
        // All have the same device's number.
        let (mut one, mut two, mut three) =
            (gateway.client(1, 1, None), gateway.client(2, 1, None), gateway.client(3, 1, None));
        for _ in 0..5 {
            send(&mut one, Conversation::User(UserId(2)), b"a secret");
        }
        typing(&mut one, Conversation::User(UserId(2)));
        send(&mut one, Conversation::User(UserId(3)), END);
        assert_eq!(until_end(&mut three), Vec::<Vec<u8>>::new());
        assert_eq!(page(&mut three, 0).len(), 1, "the end alone");
        assert!(three.group_list(PATIENCE).unwrap().is_empty());
        send(&mut one, Conversation::User(UserId(2)), END);
        assert_eq!(until_end(&mut two).len(), 6);
        // A cursor of another's inbox is above the own one's newest row.
        drop(three);
        let mut again = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        let claimed = again.login(&token(3, 1), DeviceId(1), Some(Seq(5)), PATIENCE);
        assert!(matches!(claimed, Err(ConnectionError::Closing { .. })), "{claimed:?}");
    }
}

#[test]
fn who_has_left_a_group_or_was_removed_hears_and_learns_nothing_of_it_any_more() {
    for shards in ["1", "2"] {
        let dir = tempfile::tempdir().unwrap();
        let gateway = Gateway::start(dir.path(), &["--shards", shards]);
        let (mut owner, mut leaver, mut removed) =
            (gateway.client(1, 1, None), gateway.client(2, 1, None), gateway.client(3, 1, None));
        let (group, _) = owner.group_create(&[UserId(2), UserId(3), UserId(4)], PATIENCE).unwrap();
        let to = Conversation::Group(group);
        send(&mut owner, to, b"of then");
        leaver.group_leave(group, PATIENCE).unwrap();
        owner.group_remove(group, &[UserId(3)], PATIENCE).unwrap();
        drain(&mut leaver, UserId(2));
        drain(&mut removed, UserId(3));
        send(&mut owner, to, b"a secret");
        assert!(matches!(typing(&mut owner, to), Event::Sent { .. }));
        owner.group_add(group, &[UserId(5)], PATIENCE).unwrap();
        for (user, client) in [(2, &mut leaver), (3, &mut removed)] {
            send(&mut owner, Conversation::User(UserId(user)), END);
            assert_eq!(until_end(client), Vec::<Vec<u8>>::new(), "user {user}");
            assert_eq!(code(client.group_info(group, PATIENCE)), ErrorCode::NotAMember);
            assert!(client.group_list(PATIENCE).unwrap().is_empty());
            let id = client.new_client_msg_id();
            let request = client.send(to, id, b"still here?").unwrap();
            let answer = client.answer(request, PATIENCE).unwrap();
            assert!(matches!(answer, Event::Refused { code: ErrorCode::NotAMember, .. }), "{answer:?}");
            let answer = typing(client, to);
            assert!(matches!(answer, Event::Refused { code: ErrorCode::NotAMember, .. }), "{answer:?}");
            assert_eq!(code(client.group_add(group, &[UserId(user)], PATIENCE)), ErrorCode::NotAMember);
            // What was said while they were in it is theirs.
            let bodies: Vec<Vec<u8>> = page(client, 0).into_iter().map(|row| row.body).collect();
            assert_eq!(bodies, [b"of then".to_vec(), END.to_vec()]);
        }
        // Who comes later does not read what was said before.
        let mut later = gateway.client(5, 1, Some(Seq(0)));
        assert!(page(&mut later, 0).is_empty());
    }
}

/// Takes what came until the client has heard that it is no member any more.
fn drain(client: &mut Connection, user: UserId) {
    loop {
        match client.next(PATIENCE).unwrap().expect("it is told that it is out") {
            Event::GroupChanged { kind: GroupChangeKind::Left | GroupChangeKind::Removed, members, .. }
                if members == [user] =>
            {
                return;
            }
            Event::GroupChanged { .. } | Event::Row(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_device_has_its_own_cursor_and_nobody_logs_in_as_another_device_than_his_tokens() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    let mut sender = gateway.client(1, 1, None);
    for _ in 0..3 {
        send(&mut sender, Conversation::User(UserId(2)), b"hello");
    }
    // One device acknowledges everything, and another user's device of the same number does too.
    let mut phone = gateway.client(2, 1, Some(Seq(0)));
    for _ in 0..3 {
        assert!(matches!(phone.next(PATIENCE).unwrap(), Some(Event::Row(_))));
    }
    phone.ack(Seq(3)).unwrap();
    sender.ack(Seq(3)).unwrap();
    for client in [&mut phone, &mut sender] {
        let request = client.ping().unwrap();
        client.answer(request, PATIENCE).unwrap();
    }
    drop(phone);
    // The other device of the user has read nothing.
    let mut tablet = gateway.client(2, 2, None);
    send(&mut sender, Conversation::User(UserId(2)), END);
    assert_eq!(until_end(&mut tablet).len(), 3);
    let mut other = Connection::connect(gateway.addr(), PATIENCE).unwrap();
    let refused = other.login(&token(2, 2), DeviceId(1), None, PATIENCE);
    assert!(matches!(refused, Err(ConnectionError::Closing { .. })), "{refused:?}");
}
