//! A push, encoded once per message: recipients differ in eight bytes, the seq.
//!
//! Drafted by the shard that reads the message from its sender, which copies the body into it; numbered in place by
//! the ledger (or, for an ephemeral message, by the shard that fans it out), then shared by every recipient's outbox.
//! What always holds: the frame is `HEAD` with numbers filled in, then the body and its padding to four bytes; so the
//! seq is always before the body, and a shard patches the head and never copies a large body.

use std::sync::LazyLock;

use flatbuffers::FlatBufferBuilder;

use super::generated::ringway::wire as fb;
use crate::ids::{Conversation, MsgId, Seq, UserId};
use crate::limits::PREFIX_BYTES;

/// A whole Push frame, prefix included, without its recipient's seq.
#[derive(Debug)]
pub struct PushFrame {
    bytes: Box<[u8]>,
    body_len: u32,
    seq_at: u16,
    body_at: u16,
}

/// A push whose message has no number yet.
#[derive(Debug)]
pub struct PushDraft(PushFrame);

const _: () = assert!(size_of::<PushDraft>() <= 24, "it is moved from hand to hand until its message is numbered");

impl PushDraft {
    /// Copies a message's body into a frame of its own.
    pub fn encode(sender: UserId, to: Conversation, body: &[u8]) -> PushDraft {
        let head = &*HEAD;
        let frame_len = (head.bytes.len() + body.len()).next_multiple_of(4);
        let mut bytes = Vec::with_capacity(frame_len);
        bytes.extend_from_slice(&head.bytes);
        put(&mut bytes, 0, &((frame_len - PREFIX_BYTES) as u32).to_le_bytes());
        put(&mut bytes, head.sender_at, &sender.0.to_le_bytes());
        put(&mut bytes, head.to_at, &wire_conversation(to).0);
        put(&mut bytes, head.bytes.len() - PREFIX_BYTES, &(body.len() as u32).to_le_bytes());
        bytes.extend_from_slice(body);
        bytes.resize(frame_len, 0);
        PushDraft(PushFrame {
            bytes: bytes.into_boxed_slice(),
            body_len: body.len() as u32,
            seq_at: head.seq_at as u16,
            body_at: head.bytes.len() as u16,
        })
    }

    /// The message's body.
    pub fn body(&self) -> &[u8] {
        self.0.body()
    }

    /// The message has its number: the same bytes, and now a push.
    pub fn numbered(self, msg_id: MsgId, sent_at_ms: u64) -> PushFrame {
        let (head, PushDraft(mut push)) = (&*HEAD, self);
        put(&mut push.bytes, head.msg_id_at, &msg_id.0.to_le_bytes());
        put(&mut push.bytes, head.sent_at_ms_at, &sent_at_ms.to_le_bytes());
        push
    }
}

impl PushFrame {
    /// Encodes one message's push. Its seq is a placeholder, to be patched at [`Self::seq_at`] in each
    /// recipient's copy (with zero for an ephemeral message).
    pub fn encode(msg_id: MsgId, sender: UserId, to: Conversation, sent_at_ms: u64, body: &[u8]) -> PushFrame {
        PushDraft::encode(sender, to, body).numbered(msg_id, sent_at_ms)
    }

    /// The whole frame, prefix included, with the placeholder.
    pub fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// Where the eight bytes of the seq are, little-endian. Always before [`Self::body_at`].
    pub fn seq_at(&self) -> usize {
        usize::from(self.seq_at)
    }

    /// Where the body starts; it and its padding are the end of the frame.
    pub fn body_at(&self) -> usize {
        usize::from(self.body_at)
    }

    /// The message's body.
    pub fn body(&self) -> &[u8] {
        &self.bytes[self.body_at()..self.body_at() + self.body_len as usize]
    }

    /// Appends the whole frame as one recipient gets it.
    pub fn append_to(&self, seq: Seq, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&self.bytes);
        put(out, start + self.seq_at(), &seq.0.to_le_bytes());
    }
}

/// Where in a verified Push frame the seq is, from its vtable; `None`: it was left out.
pub fn seq_at(frame: &[u8]) -> Option<usize> {
    let push = flatbuffers::size_prefixed_root::<fb::ServerFrame>(frame).ok()?.reply_as_push()?;
    let field = push._tab.vtable().get(fb::Push::VT_SEQ);
    (field != 0).then(|| push._tab.loc() + usize::from(field))
}

/// All of a push frame before its body, with placeholders, and where they are.
struct Head {
    bytes: Vec<u8>,
    seq_at: usize,
    msg_id_at: usize,
    sender_at: usize,
    to_at: usize,
    sent_at_ms_at: usize,
}

/// The head is the same for every message but for its numbers, so the FlatBuffers builder makes it once per
/// process, around an empty body; read-only ever after.
static HEAD: LazyLock<Head> = LazyLock::new(Head::build);

impl Head {
    /// The numbers are found through the vtable. A builder leaves out a field that is zero: the placeholders are not.
    fn build() -> Head {
        const PLACEHOLDER: u64 = u64::MAX;
        let mut builder = FlatBufferBuilder::with_capacity(256);
        let body = builder.create_vector::<u8>(&[]);
        let args = fb::PushArgs {
            seq: PLACEHOLDER,
            msg_id: PLACEHOLDER,
            sender: PLACEHOLDER,
            to: Some(&fb::Conversation::new(PLACEHOLDER, fb::ConversationKind::Group)),
            sent_at_ms: PLACEHOLDER,
            body: Some(body),
        };
        let push = fb::Push::create(&mut builder, &args);
        let frame =
            fb::ServerFrameArgs { request_id: 0, reply_type: fb::Reply::Push, reply: Some(push.as_union_value()) };
        let root = fb::ServerFrame::create(&mut builder, &frame);
        builder.finish_size_prefixed(root, None);
        let bytes = builder.finished_data().to_vec();

        // An offset counts back from the end of the buffer; a vtable's entry forward from its table.
        let table_at = bytes.len() - push.value() as usize;
        let vtable_at = table_at.wrapping_sub(soffset(&bytes, table_at) as usize);
        let field_at = |entry: flatbuffers::VOffsetT| {
            let at = vtable_at + usize::from(entry);
            table_at + usize::from(u16::from_le_bytes([bytes[at], bytes[at + 1]]))
        };
        let (seq_at, msg_id_at) = (field_at(fb::Push::VT_SEQ), field_at(fb::Push::VT_MSG_ID));
        let (sender_at, to_at) = (field_at(fb::Push::VT_SENDER), field_at(fb::Push::VT_TO));
        let sent_at_ms_at = field_at(fb::Push::VT_SENT_AT_MS);
        Head { bytes, seq_at, msg_id_at, sender_at, to_at, sent_at_ms_at }
    }
}

/// The signed distance from a table back to its vtable.
fn soffset(bytes: &[u8], at: usize) -> isize {
    i32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]) as isize
}

fn put(bytes: &mut [u8], at: usize, what: &[u8]) {
    bytes[at..at + what.len()].copy_from_slice(what);
}

/// A conversation as the schema has it.
pub(super) fn wire_conversation(to: Conversation) -> fb::Conversation {
    match to {
        Conversation::User(user) => fb::Conversation::new(user.0, fb::ConversationKind::User),
        Conversation::Group(group) => fb::Conversation::new(group.0, fb::ConversationKind::Group),
    }
}

#[cfg(test)]
mod tests;
