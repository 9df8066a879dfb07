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
    pub connections: u64,
    /// Of these, not logged in yet.
    pub connections_unauthenticated: u64,
    /// Sessions registered.
    pub sessions: u64,
    /// Users with at least one session.
    pub users: u64,
    /// Of the sessions, those that catch up.
    pub sessions_behind: u64,
    /// Bytes waiting in outboxes, a chunk added for each outbox in use.
    pub outbox_bytes: u64,
    /// Bytes of incomplete frames.
    pub intake_bytes: u64,
    /// Memberships in audiences.
    pub audience_memberships: u64,
    /// Rosters cached.
    pub rosters: u64,
    /// Ephemeral messages to groups that wait for their recipients.
    pub ephemerals: u64,
    /// Sessions of this shard's users on other nodes.
    pub remote_sessions: u64,
    /// Connections accepted.
    pub accepted_total: u64,
    /// Connections adopted from other shards.
    pub adopted_total: u64,
    /// Connections handed over to other shards.
    pub handed_over_total: u64,
    /// Logins that ended in LoginOk.
    pub logins_total: u64,
    /// Frames received and verified.
    pub frames_in_total: u64,
    /// Bytes received.
    pub bytes_in_total: u64,
    /// Bytes written.
    pub bytes_out_total: u64,
    /// Durable messages sent by sessions here (answered with SendOk).
    pub sends_total: u64,
    /// Rows pushed live.
    pub pushes_live_total: u64,
    /// Rows pushed from pages.
    pub pushes_caught_up_total: u64,
    /// Ephemeral pushes.
    pub pushes_ephemeral_total: u64,
    /// Gap frames sent.
    pub gaps_total: u64,
    /// Live sessions that fell behind.
    pub fell_behind_total: u64,
    /// Closes by reason, indexed by the reason's number.
    pub closes_total: [u64; CLOSE_REASONS],
    /// What was shed, by what was full.
    pub shed: ShedCounters,
    /// Sessions that are not read from because they were refused too often.
    pub sessions_throttled: u64,
    /// How short of memory the process is: 0 not, 1 nobody is let in, 2 sessions are ended.
    pub memory_pressure: u64,
    /// Requests refused because an account may not send more now.
    pub limited: LimitedCounters,
    /// Of its thread.
    pub internal: InternalErrors,
}

/// What a shard refused or dropped because something was full.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ShedCounters {
    /// Connections refused: as many as allowed are logged in.
    pub connections: u64,
    /// Connections closed before login: as many as allowed have not logged in, or descriptors were short.
    pub connections_unauthenticated: u64,
    /// The same: as many as allowed of one address have not logged in.
    pub connections_per_address: u64,
    /// Logins refused: memory is short.
    pub memory_logins: u64,
    /// Sessions ended: memory is at its limit, and much was held for them.
    pub memory_sessions: u64,
    /// Connections refused: the process has too few descriptors left.
    pub descriptors: u64,
    /// Connections closed: incomplete frames held too much memory.
    pub intake: u64,
    /// Submissions the ledger's mailbox had no room for.
    pub submissions: u64,
    /// Envelopes a lane had no room for.
    pub lanes: u64,
    /// Answers given up because their lane stayed full.
    pub lane_answers: u64,
    /// Questions the store's mailbox had no room for.
    pub store_asks: u64,
    /// Times a session was not read from: it has as many requests open as it may have.
    pub in_flight: u64,
    /// Sends refused: too many wait for the group's roster.
    pub roster_waiters: u64,
    /// Syncs refused: too many wait for the store, or the session does not read.
    pub syncs: u64,
    /// Requests for large replies refused: too many wait for their turns.
    pub large_replies: u64,
    /// Presence questions refused or given up.
    pub presence: u64,
    /// Ephemeral pushes dropped for sessions that are behind or over their cap, and messages that did not reach another
    /// shard or node.
    pub ephemeral: u64,
    /// Sessions of other nodes that are not known here, because too many are.
    pub remote_sessions: u64,
    /// Cursors dropped because the store took none for long.
    pub cursors: u64,
    /// Announcements of group changes dropped for sessions over their cap.
    pub announcements: u64,
}
