//! Numbers: message ids from time, and each user's seq.

use crate::clock::MSG_ID_EPOCH_MS;
use crate::ids::MsgId;

/// The time inside a message id, Unix milliseconds.
pub fn sent_at_ms(msg_id: MsgId) -> u64 {
    MSG_ID_EPOCH_MS + (msg_id.0 >> 22)
}
