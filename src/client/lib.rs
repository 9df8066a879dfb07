//! A client of Ringway.
//!
//! The protocol's client side is written here once. The core knows no socket, no clock and no chance: time and
//! random bits are handed in, bytes and decisions come out. So it serves a user's program, a load generator with
//! twenty thousand connections, and the simulator alike. What always holds:
//!
//! - the cursor moves by one row at a time; a row that is here already changes nothing, one too far ahead ends the
//!   session;
//! - a message keeps its `client_msg_id` over repeats and reconnects until it is answered, so it is stored once;
//! - only rows that the caller says it has are acknowledged.
//!
//! The parts, from the bottom:
//!
//! - [`session`]: a device's session from one connection to the next, 64 bytes: cursor, acks, heartbeat, what a
//!   `Closing` demands, when to connect again. A crowd has one of these per connection and makes frames with an
//!   encoder for all.
//! - [`unanswered`]: messages that are kept until they are answered.
//! - [`crowd`]: the same for many clients at once, without what they say.
//! - [`client_core`]: a session and what is unanswered, a deframer and the bytes to be written: all that a transport needs.
//! - [`blocking`] and `tokio` (a feature): clients with a socket, for users. They share all but the socket.

pub mod blocking;
pub mod client_core;
mod clock;
pub mod crowd;
pub mod event;
pub mod incoming;
pub mod reconnect;
#[cfg(test)]
mod server;
pub mod session;
mod tick;
#[cfg(feature = "tokio")]
pub mod tokio;
mod transport;
pub mod unanswered;

pub use client_core::{ClientCore, Device};
pub use crowd::CrowdRequests;
pub use event::Cause;
pub use event::{Event, Row};
pub use incoming::{Incoming, LoginInfo, RequestId};
pub use reconnect::NextStep;
pub use ringway_wire::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, Seq, UserId};
pub use ringway_wire::request::PushView;
pub use ringway_wire::schema::{CloseReason, ErrorCode, GroupChangeKind, Role};
pub use session::{AckDue, Due, RowPlace, Session, SessionError};
pub use transport::ClientError;

/// One reading of both clocks, handed in with whatever happens.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Now {
    /// Milliseconds since any fixed moment; never goes back.
    pub mono_ms: u64,
    /// Milliseconds since the Unix epoch; may jump.
    pub unix_ms: u64,
}
