#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use flatbuffers::FlatBufferBuilder;

use super::*;
use crate::ids::RosterVersion;
use crate::limits::BODY_BYTES_MAX;
use crate::request::Durability;

/// Builds a client frame by hand, for what the encoder would not make.
fn client_frame(
    kind: fb::Request,
    build: impl FnOnce(&mut FlatBufferBuilder<'static>) -> Option<flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>>,
) -> Vec<u8> {
    let mut builder = FlatBufferBuilder::new();
    let request = build(&mut builder);
    let start = builder.start_table();
    builder.push_slot_always(fb::ClientFrame::VT_REQUEST_TYPE, kind);
    if let Some(request) = request {
        builder.push_slot_always(fb::ClientFrame::VT_REQUEST, request);
    }
    let root = builder.end_table(start);
    builder.finish_size_prefixed(root, None);
    builder.finished_data().to_vec()
}

/// An empty table where one with fields was expected.
fn empty(builder: &mut FlatBufferBuilder<'static>) -> Option<flatbuffers::WIPOffset<flatbuffers::UnionWIPOffset>> {
    let start = builder.start_table();
    let table = builder.end_table(start);
    Some(flatbuffers::WIPOffset::new(table.value()))
}

fn send(body: &[u8]) -> Vec<u8> {
    let mut encoder = Encoder::new();
    encoder.send(5, Conversation::Group(GroupId(6)), ClientMsgId([7; 16]), body, Durability::Ephemeral).to_vec()
}

#[test]
fn the_request_id_and_every_field_of_a_send_are_read() {
    let (id, request) = read_client(&send(b"hello")).map(|(id, r)| (id, format!("{r:?}"))).unwrap();
    let frame = send(b"hello");
    let Ok((_, Request::Send { to, client_msg_id, body, ephemeral })) = read_client(&frame) else {
        panic!("{request}")
    };
    assert_eq!((id, to, client_msg_id), (5, Conversation::Group(GroupId(6)), ClientMsgId([7; 16])));
    assert_eq!((body, ephemeral), (&b"hello"[..], true));
}

#[test]
fn an_unknown_request_type_is_told_apart_from_garbage() {
    for unknown in [15, 99, 255] {
        let frame = client_frame(fb::Request(unknown), empty);
        assert_eq!(read_client(&frame).unwrap_err(), FrameError::UnknownRequest(unknown));
    }
    // Type 0 is "no request": one that has a value all the same is unknown too, one without is incomplete.
    assert_eq!(read_client(&client_frame(fb::Request::NONE, empty)).unwrap_err(), FrameError::UnknownRequest(0));
    assert_eq!(read_client(&client_frame(fb::Request::NONE, |_| None)).unwrap_err(), FrameError::Malformed);
    assert_eq!(read_client(&client_frame(fb::Request::Ping, |_| None)).unwrap_err(), FrameError::Malformed);
}

#[test]
fn a_missing_required_field_is_malformed() {
    use fb::Request;
    for kind in [Request::Login, Request::Send, Request::GroupAdd, Request::GroupRemove, Request::Presence] {
        assert_eq!(read_client(&client_frame(kind, empty)).unwrap_err(), FrameError::Malformed, "{kind:?}");
    }
    // Those without required fields are complete when empty.
    for kind in [Request::Ping, Request::Ack, Request::Sync, Request::GroupCreate, Request::GroupLeave] {
        assert!(read_client(&client_frame(kind, empty)).is_ok(), "{kind:?}");
    }
}

#[test]
fn a_send_without_one_of_its_required_fields_is_malformed() {
    for missing in 0..4 {
        let frame = client_frame(fb::Request::Send, |builder| {
            let body = builder.create_vector(b"body".as_slice());
            let start = builder.start_table();
            let conversation = fb::Conversation::new(1, fb::ConversationKind::User);
            if missing != 0 {
                builder.push_slot_always(fb::Send::VT_TO, conversation);
            }
            if missing != 1 {
                builder.push_slot_always(fb::Send::VT_CLIENT_MSG_ID, fb::ClientMsgId::new(7, 7));
            }
            if missing != 2 {
                builder.push_slot_always(fb::Send::VT_BODY, body);
            }
            Some(flatbuffers::WIPOffset::new(builder.end_table(start).value()))
        });
        assert_eq!(read_client(&frame).is_ok(), missing == 3, "field {missing} is missing");
    }
}

#[test]
fn an_unknown_conversation_kind_is_told_apart_from_garbage() {
    let frame = client_frame(fb::Request::Send, |builder| {
        let body = builder.create_vector(b"body".as_slice());
        let args = fb::SendArgs {
            to: Some(&fb::Conversation::new(1, fb::ConversationKind(2))),
            client_msg_id: Some(&fb::ClientMsgId::new(7, 7)),
            body: Some(body),
            ephemeral: false,
        };
        Some(fb::Send::create(builder, &args).as_union_value())
    });
    assert!(matches!(read_client(&frame), Ok((_, Request::SendToUnknownKind { kind: 2 }))));
}

#[test]
fn a_token_that_is_not_utf8_is_malformed() {
    let mut frame = Encoder::new().login(1, "token", DeviceId(1), None).to_vec();
    let at = frame.windows(5).position(|w| w == b"token").unwrap();
    frame[at] = 0xff;
    assert_eq!(read_client(&frame).unwrap_err(), FrameError::Malformed);
}

#[test]
fn the_prefix_must_say_what_the_frame_is() {
    let frame = send(b"hello");
    for wrong in [0, 1, frame.len() as u32 - 5, frame.len() as u32 - 3, u32::MAX] {
        let mut frame = frame.clone();
        frame[..4].copy_from_slice(&wrong.to_le_bytes());
        assert_eq!(read_client(&frame).unwrap_err(), FrameError::Malformed, "prefix {wrong}");
    }
}

#[test]
fn every_truncation_is_malformed() {
    let frame = send(&[3; 200]);
    for len in 0..frame.len() {
        let mut cut = frame[..len].to_vec();
        assert!(read_client(&cut).is_err(), "{len} bytes, with the prefix of the whole");
        if let Some(prefix) = cut.first_chunk_mut::<4>() {
            *prefix = (len as u32 - 4).to_le_bytes();
        }
        // A frame may do without the padding at its end, but not without more.
        assert!(read_client(&cut).is_err() || len + 4 > frame.len(), "{len} bytes, with their own prefix");
    }
}

#[test]
fn a_body_up_to_the_frame_limit_is_read_and_not_one_byte_more() {
    for len in [0, 1, BODY_BYTES_MAX, BODY_BYTES_MAX + 1, CLIENT_FRAME_BYTES_MAX - 128] {
        let frame = send(&vec![1; len]);
        let Ok((_, Request::Send { body, .. })) = read_client(&frame) else { panic!("a body of {len} bytes") };
        assert_eq!(body.len(), len);
    }
    // The longest body whose frame is within the limit, and one byte more: a frame grows in steps of its padding.
    let frame_bytes = |body: usize| send(&vec![1; body]).len() - PREFIX_BYTES;
    let longest = (0..CLIENT_FRAME_BYTES_MAX).rev().find(|body| frame_bytes(*body) <= CLIENT_FRAME_BYTES_MAX).unwrap();
    assert!(frame_bytes(longest) > CLIENT_FRAME_BYTES_MAX - 8);
    assert!(read_client(&send(&vec![1; longest])).is_ok());
    assert_eq!(read_client(&send(&vec![1; longest + 1])).unwrap_err(), FrameError::Malformed);
}

#[test]
fn more_members_than_a_group_may_have_are_read_so_that_they_can_be_answered() {
    let users: Vec<UserId> = (0..GROUP_MEMBERS_MAX as u64 + 1).map(UserId).collect();
    let mut encoder = Encoder::new();
    let Ok((_, Request::GroupCreate { members: Some(members), .. })) = read_client(encoder.group_create(1, &users))
    else {
        panic!("not read")
    };
    assert!(members.iter().eq(users.iter().copied()));
}

#[test]
fn bytes_shared_by_many_tables_do_not_multiply() {
    // 5,000 entries that all point at one table: small on the wire, large when read.
    let mut builder = FlatBufferBuilder::new();
    let start = builder.start_table();
    let entry = flatbuffers::WIPOffset::<fb::GroupEntry<'_>>::new(builder.end_table(start).value());
    let groups = builder.create_vector(&vec![entry; 5_000]);
    let list = fb::GroupListReply::create(&mut builder, &fb::GroupListReplyArgs { groups: Some(groups) });
    let args = fb::ServerFrameArgs {
        request_id: 0,
        reply_type: fb::Reply::GroupListReply,
        reply: Some(list.as_union_value()),
    };
    let root = fb::ServerFrame::create(&mut builder, &args);
    builder.finish_size_prefixed(root, None);
    assert_eq!(read_server(builder.finished_data()).unwrap_err(), FrameError::Malformed);
}

/// Reads all of what was accepted: an accessor that goes out of bounds would panic.
fn touch(frame: &[u8]) {
    let client = read_client(frame);
    if let Ok((_, request)) = &client {
        drop(format!("{request:?}"));
        match request {
            Request::GroupCreate { members: Some(users), .. }
            | Request::GroupAdd { members: users, .. }
            | Request::GroupRemove { members: users, .. }
            | Request::Presence { users } => assert_eq!(users.iter().count(), users.len()),
            _ => {}
        }
    }
    if let Ok((_, reply)) = read_server(frame) {
        drop(format!("{reply:?}"));
    }
}

#[test]
fn garbage_of_every_length_is_refused_without_a_panic() {
    let mut random = fastrand::Rng::with_seed(0x6172_6261);
    for len in 0..600 {
        for _ in 0..20 {
            let mut frame: Vec<u8> = (0..len).map(|_| random.u8(..)).collect();
            touch(&frame);
            if let Some(prefix) = frame.first_chunk_mut::<4>() {
                *prefix = (len as u32 - 4).to_le_bytes();
                touch(&frame);
            }
            // Small numbers make offsets that lie inside.
            frame.iter_mut().skip(4).for_each(|byte| *byte &= random.choice([0x00, 0x0f, 0x1f]).unwrap_or(0));
            touch(&frame);
        }
    }
}

#[test]
fn a_frame_with_flipped_bytes_never_panics() {
    let mut random = fastrand::Rng::with_seed(0x666c_6970);
    let mut encoder = Encoder::new();
    let users: Vec<UserId> = (1..20).map(UserId).collect();
    let frames = [
        send(b"a body of some length"),
        encoder.login(1, "a.token.here", DeviceId(4), Some(Seq(9))).to_vec(),
        encoder.group_add(2, GroupId(3), &users).to_vec(),
        encoder.presence(2, &users).to_vec(),
        encoder.error(3, fb::ErrorCode::NotAMember, "you are not a member", 0, 17).to_vec(),
        encoder.group_ok(4, GroupId(1), RosterVersion(2)).to_vec(),
        PushFrame::encode(MsgId(1), UserId(2), Conversation::User(UserId(3)), 4, b"body").bytes().to_vec(),
    ];
    for frame in frames {
        for at in PREFIX_BYTES..frame.len() {
            for value in 0..=255 {
                let mut frame = frame.clone();
                frame[at] = value;
                touch(&frame);
            }
        }
        for _ in 0..20_000 {
            let mut frame = frame.clone();
            for _ in 0..random.usize(1..6) {
                let at = random.usize(PREFIX_BYTES..frame.len());
                frame[at] = random.u8(..);
            }
            touch(&frame);
        }
    }
}

/// Bytes from hexadecimal digits.
fn hex(digits: &str) -> Vec<u8> {
    (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16).unwrap()).collect()
}

#[test]
fn frames_of_the_c_plus_plus_library_are_read() {
    // Made by `flatc --binary --size-prefixed --root-type ringway.wire.ClientFrame ringway.fbs frame.json`.
    let send = hex(concat!(
        "6c000000140000000000000000000a001200080007000c000a00000000000003030000001000000000000a00",
        "28000400140024000a00000001007606e212ae030100000000000000ef7d00a8da769b01efcdab8967452381",
        "040000000d00000048656c6c6f2c2067726f757021000000"
    ));
    let (id, Request::Send { to, client_msg_id, body, ephemeral }) = read_client(&send).unwrap() else {
        panic!("not a Send")
    };
    assert_eq!((id, to), (3, Conversation::Group(GroupId(265_170_190_041_743_361))));
    assert_eq!(client_msg_id.unix_ms(), Some(1_767_225_600_000));
    assert_eq!(format!("{client_msg_id:?}"), "019b76daa8007def8123456789abcdef", "as UUIDs are written");
    assert_eq!((body, ephemeral), (&b"Hello, group!"[..], false));

    // A cursor of 0 is not an absent one.
    let login = hex(concat!(
        "5c0000001000000000000a001000080007000c000a0000000000000101000000100000000c00200004001800",
        "080014000c00000020000000000000000000000000000000c0d4010007000000000000000000000005000000",
        "612e622e63000000"
    ));
    let (1, Request::Login(login)) = read_client(&login).unwrap() else { panic!("not a Login") };
    let cursor = Some(Seq(0));
    assert_eq!(login, Login { token: "a.b.c", device: DeviceId(7), cursor, heartbeat_ms: 120_000 });

    let add = hex(concat!(
        "4c000000140000000000000000000a001000080007000c000a00000000000007060000000c00000008001400",
        "08000400080000001000000001007606e212ae030000000001000000ec03000000000000"
    ));
    let (6, Request::GroupAdd { members, .. }) = read_client(&add).unwrap() else { panic!("not a GroupAdd") };
    assert!(members.iter().eq([UserId(1004)]));

    let sync = hex(concat!(
        "3c000000140000000000000000000a001000080007000c000a00000000000005040000000c00000008001000",
        "0800040008000000320000002800000000000000"
    ));
    let (4, Request::Sync { after, rows_max }) = read_client(&sync).unwrap() else { panic!("not a Sync") };
    assert_eq!((after, rows_max), (Seq(40), 50));
}
