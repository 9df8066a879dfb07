//! What one shard hands another over a lane: requests for the shard where a group or a user lives, and connections.
//!
//! Each variant's comment says who recovers if it is dropped.

use std::sync::Arc;

use ringway_wire::ids::{DeviceId, GroupId, MsgId, Seq, UserId};
use ringway_wire::schema::ErrorCode;

use crate::contract::access::TokenId;
use crate::contract::ids::Origin;
use crate::contract::look::{ConnectionsSeen, SessionsSeen, UserEvent};
use crate::contract::message::{Incoming, Message, Roster};

/// What one shard's core asks another over a lane. (Connections cross the same lanes, but the shell sends
/// them: they hold a descriptor.)
#[derive(Debug)]
pub enum LaneEnvelope {
    /// An ephemeral message to a group on its way to the group's shard. Refused: the sender gets `RETRY_LATER`.
    GroupEphemeral {
        /// The group: the message's `to`.
        group: GroupId,
        /// The message.
        incoming: Incoming,
    },
    /// An ephemeral message from its group's shard (or its sender's, one-to-one) to a shard with recipients.
    /// Refused: lost there, as ephemeral messages may be; counted, and the sender gets `RETRY_LATER` where it was to be
    /// answered from there.
    Ephemeral {
        /// The message; its push has seq 0.
        message: Arc<Message>,
        /// The recipients of a group message; `None`: the user in the message's `to`, one-to-one.
        roster: Option<Arc<Roster>>,
        /// The sending session, which gets no push.
        origin: Origin,
        /// Who tells it that the message went out.
        answers: Answers,
    },
    /// An ephemeral message of the API's to a user, to that user's shard. Refused: its caller is told to come again.
    EphemeralSend(Incoming),
    /// An answer from the group's shard to the sender's. Refused: the client's own time-out.
    Answer {
        /// The asking session, which gets the answer.
        origin: Origin,
        /// What to tell it.
        answer: LaneAnswer,
    },
    /// Who is in this group? To the group's shard. Refused: `RETRY_LATER`.
    GroupInfo {
        /// The asking session.
        origin: Origin,
        /// Its user: only members are told, and the API.
        user: UserId,
        /// The group asked about.
        group: GroupId,
    },
    /// Which of these users, who live on the receiving shard, are online? Refused: `RETRY_LATER`.
    Presence {
        /// The asking session.
        origin: Origin,
        /// At most `PRESENCE_USERS_MAX`.
        users: Vec<UserId>,
    },
}

/// Whether the shard that hands an ephemeral message to its recipients answers the sender when it has.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answers {
    /// This shard answers the sender.
    Here,
    /// Another does, or nobody.
    Other,
}

/// What a group's shard, or a user's, answers over a lane.
#[derive(Debug)]
pub enum LaneAnswer {
    /// Refused.
    Refused {
        /// What the asking session is told.
        code: ErrorCode,
        /// When to try again; 0: never.
        retry_after_ms: u32,
    },
    /// An ephemeral message went out.
    EphemeralSent {
        /// Given by the shard that handed it out; no row and no other message has it.
        msg_id: MsgId,
        /// When, Unix milliseconds.
        sent_at_ms: u64,
    },
    /// The members of a group.
    Members(Arc<Roster>),
    /// Those of the users asked for who are online on the answering shard.
    Online(Vec<UserId>),
    /// A user's sessions, for the API.
    Sessions(Box<SessionsSeen>),
    /// What happened to a user, oldest first, for the API.
    Events(Vec<UserEvent>),
    /// Some of the shard's connections, for the API.
    Connections(ConnectionsSeen),
}

/// All that a session's new shard needs; the shell sends it with the descriptor. Dropped: the connection is
/// closed, and the client connects again.
#[derive(Debug)]
pub struct HandedOver {
    /// The login's request id.
    pub(crate) request_id: u32,
    /// From the verified token.
    pub(crate) user: UserId,
    /// From the login.
    pub(crate) device: DeviceId,
    /// When the token expires, Unix seconds.
    pub(crate) expires_at_s: u64,
    /// When it was issued; 0: it does not say.
    pub(crate) issued_at_s: u64,
    /// What the token is known by; `None`: it has no `jti`.
    pub(crate) token: Option<TokenId>,
    /// The login's cursor; `None`: the one that the gateway keeps for the device.
    pub(crate) cursor: Option<Seq>,
    /// The heartbeat that the login asks for, milliseconds.
    pub(crate) heartbeat_ms: u32,
    /// TCP or WebSocket.
    pub(crate) transport: Transport,
    /// Bytes that came behind the login.
    pub(crate) unread: Vec<u8>,
    /// Bytes that wait to be written (a WebSocket handshake).
    pub(crate) unsent: Vec<u8>,
}

/// How a connection carries frames.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(crate) enum Transport {
    /// Nothing has been read yet.
    #[default]
    Unknown,
    /// Size-prefixed frames, one after another.
    Tcp,
    /// One frame, prefix kept, in each binary message.
    WebSocket,
}
