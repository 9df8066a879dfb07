//! Frames: verified on the way in, encoded on the way out.
//!
//! A frame here is size-prefixed: `u32` little-endian length, then the root table (README.md). What always
//! holds: `read_client` accepts nothing that the FlatBuffers verifier, with the limits in `limits.rs`, refuses.

use thiserror::Error;

use super::generated::ringway::wire as fb;
use super::request::{Reply, Request};
use crate::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};
use crate::message::{Message, Roster};
use crate::shard::event::{GroupAnnouncement, GroupEntry, Page};

/// Why a frame was not understood; each is a reason to close.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum FrameError {
    /// The verifier refused it, or a field is missing.
    #[error("the frame is not a valid FlatBuffers frame of this protocol")]
    Malformed,
    /// The union's type is one this gateway does not know.
    #[error("request type {0} is not known")]
    UnknownRequest(u8),
}

/// Verifies and reads one frame from a client, prefix included.
pub fn read_client(_frame: &[u8]) -> Result<(u32, Request<'_>), FrameError> {
    todo!()
}

/// Verifies and reads one frame from the gateway, prefix included.
pub fn read_server(_frame: &[u8]) -> Result<(u32, Reply<'_>), FrameError> {
    todo!()
}

/// A Push encoded once per message: per recipient only eight bytes, the seq, differ.
#[derive(Debug)]
pub struct PushFrame {
    bytes: Box<[u8]>,
    seq_at: u32,
    body_at: u32,
    body_len: u32,
}

impl PushFrame {
    /// Encodes with a non-zero placeholder as seq (zero would be left out of the table), and finds where it is.
    pub fn encode(_msg_id: MsgId, _sender: UserId, _to: Conversation, _sent_at_ms: u64, _body: &[u8]) -> PushFrame {
        todo!()
    }

    /// The whole frame, prefix included, with the placeholder.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the eight bytes of the seq are, little-endian. Always before [`Self::body_at`].
    pub fn seq_at(&self) -> usize {
        self.seq_at as usize
    }

    /// Where the body starts; it and its padding are the end of the frame.
    pub fn body_at(&self) -> usize {
        self.body_at as usize
    }

    /// The message's body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at()..self.body_at() + self.body_len as usize]
    }
}

/// Encodes frames, one after another, in one reused buffer. Each method returns the whole frame, prefix
/// included, valid until the next call. A shard has one.
pub struct Encoder {
    builder: flatbuffers::FlatBufferBuilder<'static>,
}

#[expect(unused_variables, clippy::todo, missing_docs, clippy::too_many_arguments)]
impl Encoder {
    pub fn new() -> Self {
        todo!()
    }
    // the gateway's
    pub fn login_ok(
        &mut self,
        request_id: u32,
        session: u64,
        user: UserId,
        server_time_ms: u64,
        heartbeat_ms: u32,
        last_seq: Seq,
        from_seq: Seq,
    ) -> &[u8] {
        todo!()
    }
    pub fn pong(&mut self, request_id: u32, server_time_ms: u64) -> &[u8] {
        todo!()
    }
    pub fn send_ok(&mut self, request_id: u32, msg_id: MsgId, seq: Seq, sent_at_ms: u64, repeat: bool) -> &[u8] {
        todo!()
    }
    pub fn sync_page(&mut self, request_id: u32, page: &Page, through: Seq, end: bool) -> &[u8] {
        todo!()
    }
    pub fn gap(&mut self, from: Seq, to: Seq) -> &[u8] {
        todo!()
    }
    pub fn group_ok(&mut self, request_id: u32, group: GroupId, version: RosterVersion) -> &[u8] {
        todo!()
    }
    pub fn group_info(&mut self, request_id: u32, roster: &Roster) -> &[u8] {
        todo!()
    }
    pub fn group_list(&mut self, request_id: u32, groups: &[GroupEntry]) -> &[u8] {
        todo!()
    }
    pub fn group_changed(&mut self, group: GroupId, version: RosterVersion, announcement: &GroupAnnouncement) -> &[u8] {
        todo!()
    }
    pub fn presence(&mut self, request_id: u32, online: &[UserId]) -> &[u8] {
        todo!()
    }
    pub fn error(
        &mut self,
        request_id: u32,
        code: fb::ErrorCode,
        message: &str,
        retry_after_ms: u32,
        server_time_ms: u64,
    ) -> &[u8] {
        todo!()
    }
    pub fn closing(
        &mut self,
        reason: fb::CloseReason,
        message: &str,
        reconnect_after_ms: Option<u32>,
        server_time_ms: u64,
    ) -> &[u8] {
        todo!()
    }
    // the client's
    pub fn login(&mut self, request_id: u32, token: &str, device: DeviceId, last_seq: Option<Seq>) -> &[u8] {
        todo!()
    }
    pub fn ping(&mut self, request_id: u32) -> &[u8] {
        todo!()
    }
    pub fn send(
        &mut self,
        request_id: u32,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
        ephemeral: bool,
    ) -> &[u8] {
        todo!()
    }
    pub fn ack(&mut self, seq: Seq) -> &[u8] {
        todo!()
    }
    pub fn sync(&mut self, request_id: u32, after: Seq, rows_max: u32) -> &[u8] {
        todo!()
    }
    pub fn group_create(&mut self, request_id: u32, members: &[UserId]) -> &[u8] {
        todo!()
    }
    pub fn group_add(&mut self, request_id: u32, group: GroupId, members: &[UserId]) -> &[u8] {
        todo!()
    }
    pub fn group_remove(&mut self, request_id: u32, group: GroupId, members: &[UserId]) -> &[u8] {
        todo!()
    }
    pub fn group_leave(&mut self, request_id: u32, group: GroupId) -> &[u8] {
        todo!()
    }
    pub fn group_info_request(&mut self, request_id: u32, group: GroupId) -> &[u8] {
        todo!()
    }
    pub fn group_list_request(&mut self, request_id: u32) -> &[u8] {
        todo!()
    }
    pub fn presence_request(&mut self, request_id: u32, users: &[UserId]) -> &[u8] {
        todo!()
    }
    pub fn logout(&mut self, request_id: u32) -> &[u8] {
        todo!()
    }
}

/// Keeps the type in use until the encoder is.
#[expect(dead_code)]
fn message_type(_: &Message) {}
