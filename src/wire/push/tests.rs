#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use super::*;
use crate::frame::read_server;
use crate::ids::{GroupId, Seq};
use crate::request::{PushView, Reply};

fn check(to: Conversation, body: &[u8]) {
    let push = PushFrame::encode(MsgId(11), UserId(12), to, 13, body);
    let mut sent = Vec::new();
    for seq in [0, 1, u64::MAX] {
        sent.clear();
        push.append_to(Seq(seq), &mut sent);
        let (request_id, reply) = read_server(&sent).unwrap();
        let Reply::Push(view) = reply else { panic!("{reply:?}") };
        assert_eq!(request_id, 0);
        assert_eq!(view, PushView { seq: Seq(seq), msg_id: MsgId(11), sender: UserId(12), to, sent_at_ms: 13, body });
    }
    assert!(push.seq_at() + 8 <= push.body_at());
    assert_eq!(push.body(), body);
    let tail = &push.bytes()[push.body_at()..];
    assert_eq!(&tail[..body.len()], body);
    assert!(tail.len() - body.len() < 4 && tail[body.len()..].iter().all(|b| *b == 0));
}

#[test]
fn a_push_of_any_length_is_read_back_with_every_seq() {
    let body: Vec<u8> = (0..255).cycle().take(16 * 1024).collect();
    for len in (0..64).chain([1023, 1024, 1025, 16 * 1024]) {
        check(Conversation::User(UserId(u64::MAX)), &body[..len]);
        check(Conversation::Group(GroupId(0)), &body[..len]);
    }
}
