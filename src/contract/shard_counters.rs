//! What a shard counts: plain integers, handed to control once a second.

use crate::contract::internal::InternalErrors;
use crate::contract::traffic::LimitedCounters;
use ringway_wire::schema::CloseReason;

/// How many close reasons there are.
pub(crate) const CLOSE_REASONS: usize = CloseReason::ENUM_MAX as usize + 1;

/// One shard's counters. Fields named `_total` only grow; the others are as of now.
#[derive(Clone, Debug, Default)]
pub struct ShardCounters {
    /// Connections open, logged in or not, closing ones too.
    pub(crate) connections: u64,
    /// Of these, not logged in yet.
    pub(crate) connections_unauthenticated: u64,
    /// Sessions registered.
    pub(crate) sessions: u64,
    /// Users with at least one session.
    pub(crate) users: u64,
    /// Of the sessions, those that catch up.
    pub(crate) sessions_behind: u64,
    /// Bytes waiting in outboxes, a chunk added for each outbox in use.
    pub(crate) outbox_bytes: u64,
    /// Bytes of incomplete frames.
    pub(crate) intake_bytes: u64,
    /// Memberships in audiences.
    pub(crate) audience_memberships: u64,
    /// Rosters cached.
    pub(crate) rosters: u64,
    /// Ephemeral messages to groups that wait for their recipients.
    pub(crate) ephemerals: u64,
    /// Sessions of this shard's users on other nodes.
    pub(crate) remote_sessions: u64,
    /// Connections accepted.
    pub(crate) accepted_total: u64,
    /// Connections adopted from other shards.
    pub(crate) adopted_total: u64,
    /// Connections handed over to other shards.
    pub handed_over_total: u64,
    /// Logins that ended in LoginOk.
    pub(crate) logins_total: u64,
    /// Frames received and verified.
    pub(crate) frames_in_total: u64,
    /// Bytes received.
    pub(crate) bytes_in_total: u64,
    /// Bytes written.
    pub(crate) bytes_out_total: u64,
    /// Durable messages sent by sessions here (answered with SendOk).
    pub(crate) sends_total: u64,
    /// Rows pushed live.
    pub pushes_live_total: u64,
    /// Rows pushed from pages.
    pub pushes_caught_up_total: u64,
    /// Ephemeral pushes.
    pub pushes_ephemeral_total: u64,
    /// Gap frames sent.
    pub(crate) gaps_total: u64,
    /// Live sessions that fell behind.
    pub fell_behind_total: u64,
    /// Closes by reason, indexed by the reason's number.
    pub closes_total: [u64; CLOSE_REASONS],
    /// What was shed, by what was full.
    pub shed: ShedCounters,
    /// Sessions that are not read from because they were refused too often.
    pub(crate) sessions_throttled: u64,
    /// How short of memory the process is: 0 not, 1 nobody is let in, 2 sessions are ended.
    pub(crate) memory_pressure: u64,
    /// Requests refused because an account may not send more now.
    pub(crate) limited: LimitedCounters,
    /// Of its thread.
    pub(crate) internal: InternalErrors,
}

/// What a shard refused or dropped because something was full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShedCounters {
    /// Connections refused: as many as allowed are logged in.
    pub(crate) connections: u64,
    /// Connections closed before login: as many as allowed have not logged in, or descriptors were short.
    pub(crate) connections_unauthenticated: u64,
    /// The same: as many as allowed of one address have not logged in.
    pub(crate) connections_per_address: u64,
    /// Logins refused: memory is short.
    pub(crate) memory_logins: u64,
    /// Sessions ended: memory is at its limit, and much was held for them.
    pub(crate) memory_sessions: u64,
    /// Connections refused: the process has too few descriptors left.
    pub(crate) descriptors: u64,
    /// Connections closed: incomplete frames held too much memory.
    pub(crate) intake: u64,
    /// Submissions the ledger's mailbox had no room for.
    pub submissions: u64,
    /// Envelopes a lane had no room for.
    pub lanes: u64,
    /// Answers given up because their lane stayed full.
    pub(crate) lane_answers: u64,
    /// Questions the store's mailbox had no room for.
    pub store_asks: u64,
    /// Times a session was not read from: it has as many requests open as it may have.
    pub(crate) in_flight: u64,
    /// Sends refused: too many wait for the group's roster.
    pub(crate) roster_waiters: u64,
    /// Syncs refused: too many wait for the store, or the session does not read.
    pub(crate) syncs: u64,
    /// Requests for large replies refused: too many wait for their turns.
    pub(crate) large_replies: u64,
    /// Presence questions refused or given up.
    pub(crate) presence: u64,
    /// Ephemeral pushes dropped for sessions that are behind or over their cap, and messages that did not reach another
    /// shard or node.
    pub(crate) ephemeral: u64,
    /// Sessions of other nodes that are not known here, because too many are.
    pub(crate) remote_sessions: u64,
    /// Cursors dropped because the store took none for long.
    pub(crate) cursors: u64,
    /// Announcements of group changes dropped for sessions over their cap.
    pub(crate) announcements: u64,
}
