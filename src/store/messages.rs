//! Messages read back from the store or the journal, encoded once and shared by all who catch up on them.
//!
//! Owned by the store's thread. What always holds: it keeps at most `MESSAGES_SHARED_MAX` messages and about
//! `MESSAGES_SHARED_BYTES_MAX` bytes; the oldest go first. Messages are immutable, so nothing here is ever stale.

use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

use crate::contract::keyed::TableKey;
use crate::contract::message::Message;
use crate::limits::{MESSAGES_SHARED_BYTES_MAX, MESSAGES_SHARED_MAX};
use ringway_wire::frame::PushFrame;
use ringway_wire::ids::{ClientMsgId, Conversation, MsgId, UserId};

/// The messages last read.
#[derive(Debug, Default)]
pub struct Messages {
    by_id: HashMap<MsgId, Arc<Message>, TableKey>,
    /// Oldest first; the same messages as in `by_id`.
    order: VecDeque<MsgId>,
    bytes: usize,
}

impl Messages {
    /// The message, if it was read lately.
    pub(crate) fn find(&self, msg_id: MsgId) -> Option<&Arc<Message>> {
        self.by_id.get(&msg_id)
    }

    /// Encodes a message that was just read, and keeps it for the next reader.
    pub fn keep(
        &mut self,
        msg_id: MsgId,
        sender: UserId,
        to: Conversation,
        client_msg_id: ClientMsgId,
        body: &[u8],
    ) -> Arc<Message> {
        if let Some(message) = self.by_id.get(&msg_id) {
            return Arc::clone(message);
        }
        let sent_at_ms = msg_id.sent_at_ms();
        let push = PushFrame::encode(msg_id, sender, to, sent_at_ms, body);
        self.bytes += push.bytes().len();
        let message = Arc::new(Message { msg_id, sender, to, client_msg_id, sent_at_ms, push });
        self.by_id.insert(msg_id, Arc::clone(&message));
        self.order.push_back(msg_id);
        while self.order.len() > MESSAGES_SHARED_MAX || self.bytes > MESSAGES_SHARED_BYTES_MAX {
            let Some(oldest) = self.order.pop_front() else { break };
            if let Some(gone) = self.by_id.remove(&oldest) {
                self.bytes -= gone.push.bytes().len();
            }
        }
        message
    }
}
