//! Names that are taken: a message whose sender had used its `client_msg_id` before, and which was numbered all the same.
//!
//! On the store's thread, for every database. Ledgers drop repeats before they number them, so this is somebody's
//! mistake: a Redis that has forgotten a name, two clusters over one database. But the message was delivered and its
//! rows have numbers, so it is kept. What always holds: the message that was stored first keeps its name, and answers
//! repeats; the later one is stored under a substitute that no client can choose, its own name is set aside, and all
//! other messages of the transaction are stored as if it was not there.

use crate::limits::NAMES_TAKEN_SAID_MAX;
use ringway_wire::ids::{ClientMsgId, MsgId, UserId};

/// A name that another message of the same sender has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct NameTaken {
    /// The message that came with it.
    pub(crate) msg_id: MsgId,
    /// Who sent both.
    pub(crate) sender: UserId,
    /// The name of both.
    pub(crate) client_msg_id: ClientMsgId,
    /// The message that has it.
    pub(crate) first: MsgId,
}

/// What a transaction met that was not asked of it.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Written {
    /// Messages whose names were taken.
    pub(crate) names_taken: Vec<NameTaken>,
}

impl Written {
    /// Logs it as errors; of many only the first.
    pub(crate) fn log(&self) {
        for taken in self.names_taken.iter().take(NAMES_TAKEN_SAID_MAX) {
            tracing::error!(
                msg_id = taken.msg_id.0,
                sender = taken.sender.0,
                client_msg_id = ?taken.client_msg_id,
                first = taken.first.0,
                "a message was numbered twice under one name: both are stored, the later one's name is set aside \
                 (`ringway store check` lists them)"
            );
        }
        let unnamed = self.names_taken.len().saturating_sub(NAMES_TAKEN_SAID_MAX);
        if unnamed > 0 {
            tracing::error!(messages = unnamed, "more messages were numbered twice under one name");
        }
    }
}

/// What a message is stored as whose name is taken. It is no UUIDv7, so no client can send it.
pub(crate) fn substitute(msg_id: MsgId) -> ClientMsgId {
    let mut name = [0xff; 16];
    name[8..].copy_from_slice(&msg_id.0.to_be_bytes());
    ClientMsgId(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_client_can_choose_a_substitute_and_no_two_messages_have_the_same() {
        assert_eq!(substitute(MsgId(7 << 22)).unix_ms(), None);
        assert_ne!(substitute(MsgId(7 << 22)), substitute(MsgId(8 << 22)));
    }
}
