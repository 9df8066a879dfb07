//! What frames mean, parsed: borrowed views that hold only values already checked against the protocol's limits.
//!
//! Made by [`super::frame::read_client`] and [`super::frame::read_server`]; they borrow from the frame's bytes.
//! What always holds: a field that could be out of range was refused before one of these existed.

use super::generated::ringway::wire as fb;
use crate::ids::{ClientMsgId, Conversation, DeviceId, GroupId, MsgId, RosterVersion, Seq, UserId};

/// What becomes of a message that is taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// The ledger numbers it, and it is stored.
    Durable,
    /// Whoever is online gets it now, and nobody later.
    Ephemeral,
}

/// What becomes of a request to add some who can be added and some who cannot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Adding {
    /// It is refused, and says for whom.
    All,
    /// Those who can be are added, and it says who is left out.
    BestEffort,
}

/// Whether a message was taken with this request.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Taken {
    /// It was.
    Now,
    /// It was taken before: the request repeats it.
    Before,
}

/// Whether the inbox goes on behind a page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PageEnd {
    /// There are newer rows.
    More,
    /// The page ends with the newest row.
    Newest,
}

/// A list of user ids inside a frame, as long as the frame allows (`CLIENT_FRAME_BYTES_MAX / 8`). More than a group
/// may have is answered (`TooManyMembers`), not closed: the asker of each list checks its length.
#[derive(Clone, Copy, Debug)]
pub struct Users<'a>(pub(super) flatbuffers::Vector<'a, u64>);

impl<'a> Users<'a> {
    /// Number of users; reads only the vector's length.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// None at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// One after another, as sent (not sorted, repeats kept).
    pub fn iter(&self) -> impl Iterator<Item = UserId> + 'a {
        self.0.iter().map(UserId)
    }
}

/// Who logs in, and how.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Login<'a> {
    /// The signed token, not looked at yet.
    pub token: &'a str,
    /// The client's device.
    pub device: DeviceId,
    /// Everything up to this row is on the device; `None`: the gateway knows.
    pub cursor: Option<Seq>,
    /// How often the client wants to have to send something, milliseconds; 0: as the gateway likes.
    pub heartbeat_ms: u32,
}

/// What a client asks.
#[expect(missing_docs, reason = "fields are named and described as in the schema")]
#[derive(Clone, Copy, Debug)]
pub enum Request<'a> {
    /// See the schema's `Login`.
    Login(Login<'a>),
    /// See the schema's `Ping`.
    Ping,
    /// See the schema's `Send`. The body's length is not checked here: too long is answered, not closed.
    Send { to: Conversation, client_msg_id: ClientMsgId, body: &'a [u8], ephemeral: bool },
    /// A `Send` to a kind of conversation that is not known here: it can be answered, and not granted.
    SendToUnknownKind { kind: u8 },
    /// See the schema's `Ack`.
    Ack { seq: Seq },
    /// See the schema's `Sync`.
    Sync { after: Seq, rows_max: u32 },
    /// See the schema's `GroupCreate`.
    GroupCreate { members: Option<Users<'a>>, adding: Adding },
    /// See the schema's `GroupAdd`.
    GroupAdd { group: GroupId, members: Users<'a>, adding: Adding },
    /// See the schema's `GroupRemove`.
    GroupRemove { group: GroupId, members: Users<'a> },
    /// See the schema's `GroupLeave`.
    GroupLeave { group: GroupId },
    /// See the schema's `GroupInfo`.
    GroupInfo { group: GroupId },
    /// See the schema's `GroupList`.
    GroupList,
    /// See the schema's `Presence`.
    Presence { users: Users<'a> },
    /// See the schema's `Logout`.
    Logout,
    /// See the schema's `Refresh`. The token is not looked at yet.
    Refresh { token: &'a str },
}

/// What the gateway says. Used by clients and by tests.
#[expect(
    missing_docs,
    reason = "fields are described in the schema, and named as there, but for `repeated`, `at_end`, `from` and `to`"
)]
#[derive(Clone, Debug)]
pub enum Reply<'a> {
    /// See the schema's `LoginOk`.
    LoginOk { session: u64, user: UserId, server_time_ms: u64, heartbeat_ms: u32, last_seq: Seq, from_seq: Seq },
    /// See the schema's `Pong`.
    Pong { server_time_ms: u64 },
    /// See the schema's `RefreshOk`.
    RefreshOk { expires_at_ms: u64 },
    /// See the schema's `SendOk`.
    SendOk { msg_id: MsgId, seq: Seq, sent_at_ms: u64, repeat: bool },
    /// See the schema's `Push`.
    Push(PushView<'a>),
    /// See the schema's `SyncPage`.
    SyncPage { rows: Vec<PushView<'a>>, through: Seq, end: bool, gap_to: Option<Seq> },
    /// See the schema's `Gap`.
    Gap { from: Seq, to: Seq },
    /// See the schema's `GroupOk`.
    GroupOk { group: GroupId, version: u32, left_out: Vec<UserId> },
    /// See the schema's `GroupInfoReply`.
    GroupInfo { group: GroupId, version: u32, members: Vec<(UserId, fb::Role)> },
    /// See the schema's `GroupListReply`: group, version, role, members_count.
    GroupList { groups: Vec<(GroupId, u32, fb::Role, u32)> },
    /// See the schema's `GroupChanged`.
    GroupChanged {
        group: GroupId,
        version: u32,
        kind: fb::GroupChangeKind,
        actor: UserId,
        members: Vec<UserId>,
        owner: UserId,
    },
    /// See the schema's `PresenceInfo`.
    Presence { online: Vec<UserId> },
    /// See the schema's `Error`.
    Error { code: fb::ErrorCode, message: &'a str, retry_after_ms: u32, server_time_ms: u64, users: Vec<UserId> },
    /// See the schema's `Closing`.
    Closing { reason: fb::CloseReason, message: &'a str, reconnect: bool, reconnect_after_ms: u32, server_time_ms: u64 },
}

/// A close reason's name: in the protocol's description, in logs, and as a metric's label.
pub fn reason_name(reason: fb::CloseReason) -> &'static str {
    reason.variant_name().unwrap_or("Unknown")
}

/// One of a user's groups.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct GroupEntry {
    /// The group.
    pub group: GroupId,
    /// Its current version.
    pub version: RosterVersion,
    /// The user's role.
    pub role: fb::Role,
    /// How many members it has.
    pub members_count: u32,
}

/// One row as pushed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PushView<'a> {
    /// The recipient's row; 0: ephemeral.
    pub seq: Seq,
    /// The message.
    pub msg_id: MsgId,
    /// Who sent it.
    pub sender: UserId,
    /// Where it was addressed.
    pub to: Conversation,
    /// Unix milliseconds.
    pub sent_at_ms: u64,
    /// What was said.
    pub body: &'a [u8],
}
