//! The protocol's bounds: what a frame and the lists in it may hold.
//!
//! Constants only. What always holds is asserted at compile time at the end of the file.

/// Bytes of the length in front of a frame.
pub const PREFIX_BYTES: usize = 4;
/// Largest message body.
pub const BODY_BYTES_MAX: usize = 16 * 1024;
/// Largest frame a client may send, prefix not counted: a body, or 5,000 member ids, and the tables around them.
pub const CLIENT_FRAME_BYTES_MAX: usize = 48 * 1024;
/// Largest frame the gateway sends: a group's 5,000 members, or a page of the inbox.
pub const SERVER_FRAME_BYTES_MAX: usize = 128 * 1024;
/// Longest login token.
pub const TOKEN_BYTES_MAX: usize = 4 * 1024;
/// Users one Presence request may ask for.
pub const PRESENCE_USERS_MAX: usize = 256;
/// FlatBuffers verifier: tables in one frame.
pub(crate) const FRAME_TABLES_MAX: usize = 16;
/// FlatBuffers verifier: nesting of tables.
pub(crate) const FRAME_DEPTH_MAX: usize = 4;
/// Longest HTTP head of a WebSocket upgrade.
pub(crate) const HTTP_HEAD_BYTES_MAX: usize = 8 * 1024;
/// Requests of one session that may wait for an answer; above it `RETRY_LATER`.
pub const SESSION_IN_FLIGHT_MAX: u16 = 1_024;
/// How far a client_msg_id may lie ahead of the server's clock.
pub const CLIENT_MSG_ID_AHEAD_MS: u64 = 5_000;
/// Members of one group. A message to all of them costs one journal record of about 5 KB.
pub const GROUP_MEMBERS_MAX: usize = 5_000;
/// Groups one user may be in: a GroupListReply of this many fits a frame.
pub const USER_GROUPS_MAX: usize = 2_000;
/// Rows between two acknowledgements a client may leave open, told in the protocol's description.
pub const ACK_ROWS_MAX: u64 = 256;
/// Rows of one catch-up page.
pub const PAGE_ROWS_MAX: usize = 256;
/// Bytes of bodies in one page (the last row may exceed it by one body).
pub const PAGE_BYTES_MAX: usize = 64 * 1024;

const _: () = {
    assert!(BODY_BYTES_MAX + 1024 <= CLIENT_FRAME_BYTES_MAX, "a message must fit a frame");
    assert!(GROUP_MEMBERS_MAX * 8 + 1024 <= CLIENT_FRAME_BYTES_MAX, "a whole group must fit a request");
    assert!(GROUP_MEMBERS_MAX * 16 + 1024 <= SERVER_FRAME_BYTES_MAX, "a whole roster must fit a reply");
    assert!(USER_GROUPS_MAX * 48 + 1024 <= SERVER_FRAME_BYTES_MAX, "a user's groups must fit a reply");
    assert!(
        PAGE_BYTES_MAX + BODY_BYTES_MAX + PAGE_ROWS_MAX * 128 + 1024 <= SERVER_FRAME_BYTES_MAX,
        "a page must fit a reply"
    );
};
