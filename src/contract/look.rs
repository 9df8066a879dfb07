//! What the API asks a shard about its connections, and what the shard shows.
//!
//! What always holds: an answer is made in one short step, however many connections there are: at most `LOOK_SLOTS_MAX`
//! places are looked at, and whoever wants more asks again from where the answer ends.

use std::net::{IpAddr, SocketAddr};

use ringway_wire::ids::{DeviceId, Seq, UserId};
use ringway_wire::schema::{CloseReason, ErrorCode};

use crate::contract::ids::{ConnId, Origin};

/// A question on its way to a shard. Dropped: the caller is told that nothing came in time.
#[derive(Debug)]
pub(crate) struct LookAsked {
    /// Whom the answer is for.
    pub(crate) origin: Origin,
    /// What is asked.
    pub(crate) look: Look,
}

/// What is asked.
#[derive(Debug)]
pub(crate) enum Look {
    /// The sessions of a user who lives on the shard, on all nodes.
    Sessions(UserId),
    /// What happened to a user lately, as far as the shard has met it.
    Events(UserId),
    /// The shard's connections.
    Connections {
        /// From this place on.
        from: u32,
        /// Which of them.
        wanted: Wanted,
        /// At most so many.
        rows_max: usize,
    },
}

/// Which connections are shown.
#[derive(Clone, Copy, Default, Debug)]
pub(crate) struct Wanted {
    /// Those in this state.
    pub(crate) state: Option<ConnectionState>,
    /// Those from this address.
    pub(crate) address: Option<IpAddr>,
    /// Those whose session lacks at least so many rows.
    pub(crate) behind_min: u64,
}

/// Where a connection is in its life.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ConnectionState {
    /// It has not logged in.
    Unauthenticated,
    /// Its login is looked up.
    LoggingIn,
    /// It has every row, and gets the next one at once.
    Live,
    /// It is sent rows that it lacks.
    Behind,
    /// It was told why it is closed.
    Closing,
}

impl ConnectionState {
    /// All of them, with their names.
    pub(crate) const NAMES: [(&'static str, ConnectionState); 5] = [
        ("unauthenticated", ConnectionState::Unauthenticated),
        ("logging_in", ConnectionState::LoggingIn),
        ("live", ConnectionState::Live),
        ("behind", ConnectionState::Behind),
        ("closing", ConnectionState::Closing),
    ];

    /// Its name.
    pub(crate) fn name(self) -> &'static str {
        ConnectionState::NAMES.iter().find(|(_, state)| *state == self).map_or("", |(name, _)| name)
    }
}

/// A connection of a shard.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionSeen {
    /// Where it is in the shard.
    pub(crate) conn: ConnId,
    /// As clients and logs name it.
    pub(crate) number: u64,
    /// Where it is in its life.
    pub(crate) state: ConnectionState,
    /// Whose it is, once it has logged in.
    pub(crate) owner: Option<Owner>,
    /// When something last came from it, Unix milliseconds; `None`: that is not kept of it now.
    pub(crate) heard_ms: Option<u64>,
    /// Bytes that wait to be written.
    pub(crate) outbox_bytes: usize,
    /// Requests that wait for their answers.
    pub(crate) in_flight: u16,
    /// It speaks WebSocket.
    pub(crate) is_websocket: bool,
    /// The other end; `None`: it is gone.
    pub(crate) peer: Option<SocketAddr>,
}

/// Whose a connection is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Owner {
    /// The session's user.
    pub(crate) user: UserId,
    /// On which device.
    pub(crate) device: DeviceId,
    /// Since when, Unix milliseconds; 0: its login is not answered yet.
    pub(crate) since_ms: u64,
    /// Rows up to this one were sent to it, or were with its client before; 0: its login is not answered yet.
    pub(crate) sent: Seq,
    /// Rows that it was not sent yet, counted in numbers of rows.
    pub(crate) rows_behind: u64,
    /// What the device has acknowledged and the store may not know yet.
    pub(crate) acknowledged: Option<Seq>,
}

/// A session on another node, as this one knows it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RemoteSeen {
    /// On which node.
    pub(crate) node: u16,
    /// On which device.
    pub(crate) device: DeviceId,
    /// Since when, Unix milliseconds.
    pub(crate) since_ms: u64,
}

/// A user's sessions.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SessionsSeen {
    /// On this node, the newest first.
    pub(crate) here: Vec<ConnectionSeen>,
    /// On other nodes.
    pub(crate) elsewhere: Vec<RemoteSeen>,
}

/// Something that happened to a user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct UserEvent {
    /// Whom it happened to.
    pub(crate) user: UserId,
    /// On which device.
    pub(crate) device: DeviceId,
    /// The connection's number, as clients and the log name it.
    pub(crate) connection: u64,
    /// When it happened first, Unix milliseconds.
    pub(crate) first_ms: u64,
    /// And last.
    pub(crate) last_ms: u64,
    /// Grows with each event of the shard; 0: there is none.
    pub(crate) number: u64,
    /// How often.
    pub(crate) times: u32,
    /// What.
    pub(crate) kind: UserEventKind,
}

/// What happens to users.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum UserEventKind {
    /// A connection has shown that it is the user's; its login is looked up.
    Connected,
    /// Its login was answered.
    LoggedIn,
    /// Its login was refused.
    LoginRefused(CloseReason),
    /// The session could not be given the next row at once.
    Behind,
    /// It has every row again.
    CaughtUp,
    /// A request of the session was refused.
    Refused(ErrorCode),
    /// The session is over.
    Closed(CloseReason),
}

impl UserEvent {
    /// No event.
    pub(crate) const NONE: UserEvent = UserEvent::new(0, UserId(0), DeviceId(0), 0, UserEventKind::Connected);

    /// One that has happened once.
    pub(crate) const fn new(at_ms: u64, user: UserId, device: DeviceId, connection: u64, kind: UserEventKind) -> Self {
        UserEvent { user, device, connection, first_ms: at_ms, last_ms: at_ms, number: 0, times: 1, kind }
    }

    /// The other says the same of the same session.
    pub(crate) fn is_same(&self, other: &UserEvent) -> bool {
        self.number > 0
            && (self.user, self.device, self.connection, self.kind)
                == (other.user, other.device, other.connection, other.kind)
    }
}

impl UserEventKind {
    /// What a session may do over and over is one event.
    pub(crate) fn is_said_together(self) -> bool {
        matches!(self, UserEventKind::Behind | UserEventKind::CaughtUp | UserEventKind::Refused(_))
    }
}

/// Some of a shard's connections.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ConnectionsSeen {
    /// In the order of their places.
    pub(crate) connections: Vec<ConnectionSeen>,
    /// Where to go on; `None`: that was the end.
    pub(crate) next: Option<u32>,
}
