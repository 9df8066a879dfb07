//! Frames as a gateway makes them, for this crate's tests.

use ringway_wire::frame::{Encoder, PushFrame};

use crate::{CloseReason, Conversation, ErrorCode, MsgId, Now, Seq, UserId};

/// The gateway's clock when ours shows 0: a year ahead of nothing.
pub(crate) const SERVER_MS: u64 = 1_700_000_000_000;

pub(crate) fn at(mono_ms: u64) -> Now {
    Now { mono_ms, unix_ms: mono_ms }
}

pub(crate) fn login_ok(from: u64, heartbeat_ms: u32) -> Vec<u8> {
    Encoder::new().login_ok(1, 7, UserId(1), SERVER_MS, heartbeat_ms, Seq(from), Seq(from)).to_vec()
}

pub(crate) fn push(seq: u64) -> Vec<u8> {
    let push = PushFrame::encode(MsgId(100 + seq), UserId(7), Conversation::User(UserId(1)), 5, b"hello");
    let mut bytes = push.bytes().to_vec();
    bytes[push.seq_at()..push.seq_at() + 8].copy_from_slice(&seq.to_le_bytes());
    bytes
}

pub(crate) fn send_ok(request: u32, seq: u64) -> Vec<u8> {
    Encoder::new().send_ok(request, MsgId(900 + seq), Seq(seq), 5, false).to_vec()
}

pub(crate) fn gap(from: u64, to: u64) -> Vec<u8> {
    Encoder::new().gap(Seq(from), Seq(to)).to_vec()
}

pub(crate) fn error(request: u32, code: ErrorCode, retry_after_ms: u32) -> Vec<u8> {
    Encoder::new().error(request, code, "no", retry_after_ms, SERVER_MS).to_vec()
}

pub(crate) fn closing(reason: CloseReason, reconnect_after_ms: Option<u32>) -> Vec<u8> {
    Encoder::new().closing(reason, "bye", reconnect_after_ms, SERVER_MS).to_vec()
}

pub(crate) fn pong(request: u32, server_time_ms: u64) -> Vec<u8> {
    Encoder::new().pong(request, server_time_ms).to_vec()
}
