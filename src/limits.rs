//! Every bound in the gateway, with what it costs and why it is what it is.
//!
//! Constants only (those of the protocol are in `ringway_wire::limits`); what an operator may change is in `config.rs` under `[limits]`, with these as defaults.
//! What always holds is asserted at compile time at the end of the file.

mod control;
mod rates;
mod store;
mod webhooks;

pub(crate) use self::control::*;
pub(crate) use self::rates::*;
pub use self::store::*;
pub(crate) use self::webhooks::*;
use ringway_wire::limits::{
    BODY_BYTES_MAX, GROUP_MEMBERS_MAX, PAGE_BYTES_MAX, PAGE_ROWS_MAX, SERVER_FRAME_BYTES_MAX, SESSION_IN_FLIGHT_MAX,
    TOKEN_BYTES_MAX, USER_GROUPS_MAX,
};

// ---- groups -----------------------------------------------------------------------------------------

/// Of the groups that a user may be in, those that others put him into.
pub(crate) const USER_GROUPS_BY_OTHERS_MAX: usize = USER_GROUPS_MAX / 4 * 3;
/// And those of one who does.
pub(crate) const USER_GROUPS_BY_ONE_MAX: usize = USER_GROUPS_MAX / 4;
/// Memberships over all groups: the ledger keeps every roster in memory.
pub(crate) const MEMBERSHIPS_MAX: usize = 32 << 20;
/// What one takes there, about: of one who is in no other group, and has no row.
pub(crate) const MEMBERSHIP_BYTES: u64 = 150;
/// What a group takes there beside its members, about.
pub(crate) const GROUP_BYTES: u64 = 500;
/// Default of what the groups that one user has made may take of it: some 850,000 memberships.
pub(crate) const USER_GROUPS_BYTES_MAX: u64 = 128 << 20;

// ---- shard ------------------------------------------------------------------------------------------

/// Default cap of the gateway's connections. A million idle ones take about 140 MB of its own memory (`make soak-vm`
/// measures it), and several times as much of the kernel's for their sockets. The default is reduced to what
/// the host can keep (`doctor::start`).
pub(crate) const CONNECTIONS_MAX: usize = 1_000_000;

/// Descriptors that no client gets, of those that the process may have: for hand-overs, which hold a socket twice for
/// a moment, and for refusing peers in words.
pub const DESCRIPTORS_FREE_OF_CLIENTS: u64 = 128;
/// Of these, what hand-overs and refusals leave alone: the store, the journal and the admin server open files too.
pub(crate) const DESCRIPTORS_FREE_ALWAYS: u64 = 64;

/// Watches of sockets that a shard hands to the kernel at once.
pub(crate) const RING_SUBMISSIONS: u32 = 4_096;
/// Events of sockets that wait for a shard; what is above, the kernel keeps until there is room.
pub(crate) const RING_EVENTS: u32 = 16_384;
/// Entries of each of the executor's own rings, in which nothing ever happens: few.
pub(crate) const EXECUTOR_RING_DEPTH: usize = 128;
/// The executor's registered buffers, which sockets do not use: as little as it takes.
pub(crate) const EXECUTOR_IO_MEMORY_BYTES: usize = 64 * 1024;

/// Bytes that may wait for one connection before its session stops being live.
pub const OUTBOX_BYTES_MAX: usize = 256 * 1024;
/// Least of it that may be configured: with less, it could not hold a page, and catching up would never end.
pub(crate) const OUTBOX_BYTES_MIN: usize = 128 * 1024;
/// Above the cap, room for replies to requests already read: the largest of all, and `SESSION_IN_FLIGHT_MAX` small ones.
/// Beyond it the connection is closed.
pub const OUTBOX_REPLY_RESERVE_BYTES: usize = 384 * 1024;
/// Bytes of requests for large replies that wait in a shard for their turns (48 each, and 8 for each user that Presence
/// or a change of a group names); above it `RETRY_LATER`.
pub(crate) const LARGE_WAITING_BYTES_MAX: usize = 64 << 20;
/// Of these, of one session.
pub(crate) const LARGE_WAITING_SESSION_BYTES_MAX: usize = 256 * 1024;
/// A change of a group that names more users counts as large: of a session's, one is in the ledger at a time.
pub(crate) const SMALL_CHANGE_USERS_MAX: usize = 64;
/// Bytes that the fan-out of a run of messages puts into outboxes before they are written and others get their turn:
/// a quarter of the cache a core has to itself, so that writing finds them there.
pub(crate) const FANOUT_PART_BYTES_MAX: usize = 512 * 1024;
/// Ephemeral messages to groups that wait in a shard for their recipients; above it `RETRY_LATER`.
pub(crate) const EPHEMERALS_WAITING_MAX: usize = 16_384;
/// Of these, those of one account: as many as one session may have in flight.
pub(crate) const EPHEMERALS_ACCOUNT_MAX: usize = SESSION_IN_FLIGHT_MAX as usize;
/// Those of one group.
pub(crate) const EPHEMERALS_GROUP_MAX: usize = 4 * EPHEMERALS_ACCOUNT_MAX;
/// Bytes of all of them.
pub(crate) const EPHEMERALS_BYTES_MAX: usize = 32 << 20;
/// Bytes of those of one account.
pub(crate) const EPHEMERALS_ACCOUNT_BYTES_MAX: usize = EPHEMERALS_BYTES_MAX / 4;
/// Bytes that may wait in all outboxes of a shard.
pub(crate) const OUTBOX_SHARD_BYTES_MAX: usize = 512 * 1024 * 1024;
/// Least of them that may be configured: a few connections at their caps.
pub(crate) const OUTBOX_SHARD_BYTES_MIN: usize = 1024 * 1024;
/// Bytes that the kernel takes for a connection and has not sent yet. What it has taken goes before everything that comes
/// later: with its usual buffer of some megabytes, an answer to a slow reader would wait a minute behind it.
pub(crate) const UNSENT_BYTES_MAX: u32 = 128 * 1024;
/// How often within the time after which a connection has stalled it is looked whether its peer takes anything.
pub(crate) const STALL_LOOKS: u64 = 4;
/// Bodies above this are kept in the outbox as a reference and written with `writev`; smaller ones are copied.
pub(crate) const OUTBOX_INLINE_BODY_BYTES_MAX: usize = 1024;
/// Default of the connections that have not logged in yet: each takes its socket and may hold a partial frame. They have
/// no part in `CONNECTIONS_MAX`; above it the oldest of them goes.
pub(crate) const UNAUTHENTICATED_MAX: usize = 20_000;
/// Default of those of one address (IPv6: of one /64): an office behind one address that comes back at once logs in
/// within moments; above it the oldest of the address goes.
pub(crate) const UNAUTHENTICATED_PER_ADDRESS_MAX: usize = 5_000;
/// Where descriptors are short, those make room who have not logged in for so long.
pub(crate) const UNAUTHENTICATED_SPARED_MS: u64 = 500;
/// When memory is at its limit, sessions are ended for which at least so much is held ...
pub(crate) const GREEDY_SESSION_BYTES_MIN: usize = 64 * 1024;
/// ... so many of each shard at a time, ten times a second; after each it is looked whether that was enough.
pub(crate) const GREEDY_SESSIONS_CLOSED_MAX: usize = 64;
/// When whoever is not let in because memory is short is told to come again.
pub(crate) const MEMORY_RETRY_MS: u32 = 5_000;
/// Between two looks how much memory the process has.
pub(crate) const MEMORY_LOOK_MS: u64 = 100;
/// What of the host's memory, or of the cgroup's, is the process's by default, per cent: the rest is for its sockets.
pub(crate) const MEMORY_PERCENT: u64 = 90;
/// Memberships remembered in a shard's audiences (12 bytes each, and 40 a member who is not online); above it the
/// longest unused audiences go.
pub(crate) const AUDIENCE_MEMBERSHIPS_MAX: usize = 8 << 20;
/// Rosters a shard keeps for the groups that live on it; above it the longest unused go and are asked for again.
pub(crate) const SHARD_ROSTERS_MAX: usize = 65_536;
/// Ephemeral messages and questions that wait for their group's roster, per group.
pub(crate) const ROSTER_WAITERS_MAX: usize = 512;
/// Of those of a shard, those of one account, whatever groups they are for: some may wait for each group beside them.
pub(crate) const ROSTER_WAITERS_ACCOUNT_MAX: usize = 128;
/// How long a task queue of a shard may let the others wait. Between two turns the executor makes some five system
/// calls: a few microseconds, but half a millisecond where the CPU is emulated, where this must be longer.
pub(crate) const TURN_MS: u32 = 1;
/// Items a task handles before it lets the others run.
pub(crate) const TURN_ITEMS_MAX: usize = 64;
/// Verified tokens remembered per shard until they expire.
pub(crate) const TOKENS_CACHED_MAX: usize = 16_384;
/// Keys that are good for tokens beside the first: a forged token is compared with each, some 2 µs (HMAC) to 60 µs (Ed25519).
pub(crate) const TOKEN_KEYS_OTHER_MAX: usize = 3;
/// Cursors waiting to be stored, per shard; above it they are sent at once.
pub(crate) const CURSORS_WAITING_MAX: usize = 4_096;
/// Pages a shard may have asked for at once; sessions above it wait their turn.
pub(crate) const PAGES_IN_FLIGHT_MAX: usize = 64;
/// Of these, Syncs: those who want what is new do not wait behind those who read what is old.
pub(crate) const SYNCS_IN_FLIGHT_MAX: usize = 8;

/// Bytes read from a connection that may not be looked at yet: one read after reading was paused.
pub(crate) const HELD_BYTES_MAX: usize = 256 * 1024;
/// Syncs that wait for the store, per shard; above it `RETRY_LATER`.
pub(crate) const SYNCS_WAITING_MAX: usize = 4_096;
/// Those that wait for any roster, per shard: at most 128 MiB of bodies; above it `RETRY_LATER`.
pub(crate) const ROSTER_WAITERS_SHARD_MAX: usize = 8_192;
/// Largest frame before login: a token and the tables around it.
pub(crate) const LOGIN_FRAME_BYTES_MAX: usize = TOKEN_BYTES_MAX + 1024;
/// Bytes of incomplete frames that all of a shard's connections may hold; who adds to them then is closed.
pub(crate) const INTAKE_SHARD_BYTES_MAX: usize = 256 << 20;
/// Presence questions to other shards that a shard may have open; above it `RETRY_LATER`.
pub(crate) const PRESENCE_GATHERS_MAX: usize = 4_096;
/// How long a Presence question waits for the other shards.
pub(crate) const PRESENCE_TIMEOUT_MS: u64 = 2_000;
/// Answers kept for a lane that is full, per shard; above it they are dropped, and the client's own time-out counts.
pub(crate) const LANE_ANSWERS_WAITING_MAX: usize = 4_096;
/// What a peer that was refused with `RETRY_LATER` is told to wait.
pub(crate) const RETRY_AFTER_MS: u32 = 200;
/// How often a shard asks again what was refused or unavailable.
pub(crate) const RETRY_EVERY_MS: u64 = 100;
/// A session whose rows the store cannot read is closed with `StoreUnavailable` after so long: a database that is back
/// is noticed sooner.
pub(crate) const STORE_UNREADABLE_MS: u64 = STORE_RETRY_MAX_MS;
/// So is one whose page the store has not answered at all for so long: longer than the store takes for all the pages that
/// it may have been asked for, and than a database that says nothing takes to count as away.
pub(crate) const STORE_SILENT_MS: u64 = 10_000;
/// A session whose requests are refused too often is not read from for so long at most.
pub(crate) const THROTTLED_MS_MAX: u64 = 5_000;
/// How often cursors are sent to the store.
pub(crate) const CURSORS_SAVED_EVERY_MS: u64 = 1_000;
/// How long a peer has to take its last frame.
pub(crate) const CLOSING_TIMEOUT_MS: u64 = 5_000;
/// Connections a drain closes in one tick: their last frames are in memory together.
pub(crate) const DRAIN_CLOSES_PER_TICK_MAX: usize = 4_096;
/// The soonest that a drain lets a client come back: one that came at once would find the gateway still stopping.
pub(crate) const DRAIN_AFTER_MS_MIN: u32 = 500;
/// How long a drain waits for the answers to requests in flight.
pub(crate) const DRAIN_GRACE_MS: u64 = 1_000;

/// Users of whom it is stated that they may not log in, or not with some tokens (about 100 bytes each, and as many in a file).
pub(crate) const ACCESS_FACTS_MAX: usize = 65_536;
/// Single tokens that are revoked and have not expired (as much for each).
pub(crate) const REVOKED_TOKENS_MAX: usize = 65_536;

// ---- between threads --------------------------------------------------------------------------------

/// Envelopes one lane (shard to shard) holds; at the limit the sender gets `RETRY_LATER`.
pub(crate) const LANE_ENVELOPES_MAX: usize = 8_192;
/// Ephemeral messages of one account that a shard puts into its lanes from one tick to the next (32 ms): a quarter of the
/// smallest lane; above it `RETRY_LATER`.
pub(crate) const LANE_ACCOUNT_MAX: usize = 256;
/// Submissions the ledger's mailbox holds, all shards together; at the limit the sender gets `RETRY_LATER`.
pub(crate) const SUBMISSIONS_MAX: usize = 32_768;
/// Bytes of these, of each shard: what waits longer than the ledger takes for so much is not to wait longer still.
pub(crate) const SUBMISSIONS_BYTES_MAX: usize = 16 << 20;
/// Of these, those of one account: as many of the largest messages as a client keeps unanswered.
pub(crate) const SUBMISSIONS_ACCOUNT_BYTES_MAX: usize = 9 << 20;
/// Deliveries in flight from the ledger to one shard, counted in commits; the ledger waits at the limit.
pub(crate) const COMMITS_IN_FLIGHT_MAX: usize = 64;
/// Questions the store's mailbox holds; at the limit they are asked again later.
pub(crate) const STORE_ASKS_MAX: usize = 4_096;
/// Answers from the store one shard's mailbox holds: never less than a shard may have asked for.
pub(crate) const STORE_ANSWERS_MAX: usize = 4_096;

// ---- ledger and journal -----------------------------------------------------------------------------

/// Messages of one group commit.
pub(crate) const COMMIT_MESSAGES_MAX: usize = 4_096;
/// Rows of one group commit: with more, who sends to many would let those wait who send to few.
pub(crate) const COMMIT_ROWS_MAX: usize = 64 * 1024;
/// Bytes of one group commit (the last record may exceed it).
pub(crate) const COMMIT_BYTES_MAX: usize = 4 << 20;
/// Rows of a commit right behind one that was full: somebody has more waiting than a commit takes, and whoever comes now
/// waits for two commits. A millisecond or two each.
pub(crate) const COMMIT_ROWS_BEHIND: usize = 16 * 1024;
/// And bytes: as long on a disk that writes 200 MB a second.
pub(crate) const COMMIT_BYTES_BEHIND: usize = 256 * 1024;
/// Before the ledger each has turns of so many rows: a message to a small group, or a few hundred to one.
pub(crate) const FAIR_TURN_ROWS: usize = 1_024;
/// Of a commit so many rows at most are of messages that waited for the store's answer, and so are not taken in turns.
pub(crate) const RELEASED_ROWS_MAX: usize = 2 * FAIR_TURN_ROWS;
/// Bytes that count as a row there.
pub(crate) const COMMIT_BYTES_PER_ROW: usize = 64;
/// Largest batch recovery believes: a commit plus its largest last record.
pub(crate) const JOURNAL_BATCH_BYTES_MAX: usize = 8 << 20;
/// A segment's preallocated size.
pub const SEGMENT_BYTES: u64 = 64 << 20;
/// Default cap of the journal's unapplied part; above it `STORAGE_FULL`.
pub(crate) const JOURNAL_BYTES_MAX: u64 = 8 << 30;
/// Unapplied messages the tail indexes (about 110 bytes each; a member of a roster that one of them refers to, about
/// 90, counts as one); above it `STORAGE_FULL`.
pub(crate) const TAIL_MESSAGES_MAX: usize = 4 << 20;
/// Members of rosters that the tail keeps though no unapplied message refers to them (about 90 bytes each, 3 MiB in
/// all): the group's next message will, and need not look for it in the journal.
pub(crate) const TAIL_IDLE_MEMBERSHIPS_MAX: usize = 1 << 15;
/// The ledger's time is at most so far ahead of the host's, whatever messages are dated: a clock that was wrong for a
/// while has dated some ahead, and names are those of the time as it is now.
pub(crate) const LEDGER_AHEAD_MAX_MS: u64 = 60_000;
/// A reading of the host's clock that is further ahead than this of the time that has passed is doubted ...
pub(crate) const CLOCK_JUMP_MS: u64 = 10_000;
/// ... until it has lasted for so long.
pub(crate) const CLOCK_JUMP_LASTS_MS: u64 = 5_000;
/// How long the de-duplication window reaches back.
pub(crate) const WINDOW_MS: u64 = 10 * 60 * 1000;
/// Entries of the window (about 80 bytes each); above it the horizon moves up.
pub(crate) const WINDOW_ENTRIES_MAX: usize = 1 << 20;
/// Submissions that wait for a look-up in the store.
pub(crate) const LOOKUPS_PENDING_MAX: usize = 8_192;
/// Those of one sender: what it sends behind one waits too, and takes nobody else's room.
pub(crate) const LOOKUPS_PENDING_SENDER_MAX: usize = 1_024;
/// Users the ledger numbers rows for (about 60 bytes each); above it `STORAGE_FULL`.
pub(crate) const LEDGER_USERS_MAX: usize = 64 << 20;
/// Segments kept only for the window's next rebuilding (1 GiB); above it the next start's horizon is later.
pub(crate) const WINDOW_SEGMENTS_MAX: usize = 16;
/// When to try again after `STORAGE_FULL`: an operator or the store must make room first.
pub(crate) const STORAGE_FULL_RETRY_MS: u32 = 2_000;
/// When to try again after the ledger's `RETRY_LATER`: a queue drains within that.
pub(crate) const LEDGER_RETRY_MS: u32 = 200;

// ---- cluster ----------------------------------------------------------------------------------------

/// Shortest shared secret taken (RFC 7518, 3.2: as long as the hash).
pub(crate) const SECRET_BYTES_MIN: usize = 32;

/// Orders that wait for the thread that talks to Redis; at the limit submissions wait in the ledger.
pub(crate) const LINK_ORDERS_MAX: usize = 64;
/// News from Redis that wait for the ledger; at the limit the stream is not read on.
pub(crate) const LINK_NEWS_MAX: usize = 64;
/// Submissions of one call to one bucket: Redis does nothing else meanwhile (about 20 us for each, whatever its recipients).
pub(crate) const CALL_SUBMISSIONS_MAX: usize = 16;
/// Calls on their way at once.
pub const CALLS_IN_FLIGHT_MAX: usize = 8;
/// Entries read at once.
pub const STREAM_READ_MAX: usize = 128;
/// Buckets that the ledger may be split into: a connection each, and a call each wherever all are asked.
pub(crate) const BUCKETS_MAX: usize = 16;
/// Entries of a bucket that wait for their turn in the ledger's order, and entries of the order that wait for what they
/// order (each entry holds its body); at the limit that stream is not read on.
pub(crate) const MERGE_ENTRIES_MAX: usize = 1_024;
/// Stretches of a bucket's entries of which a node knows where in the ledger they stand (24 bytes each), to answer repeats
/// without asking the store.
pub(crate) const ORDER_RUNS_MAX: usize = 4_096;
/// Between two calls of one node that order entries: the first one waits for nothing.
pub(crate) const ORDER_EVERY_MS: u64 = 1;
/// How long entries of a bucket may be unordered before a node orders them whose turn it is not: the one whose store
/// writes does so at once.
pub(crate) const ORDER_PATIENCE_MS: u64 = 10;
/// Submissions of one node that Redis has not settled (each holds its body); above it `RETRY_LATER`.
pub(crate) const SUBMISSIONS_IN_FLIGHT_MAX: usize = 16_384;
/// Of these, those of one account: as many as two sessions can have open, so that others have room beside them and wait
/// behind no more than these; above it `RETRY_LATER`.
pub(crate) const SUBMISSIONS_IN_FLIGHT_ACCOUNT_MAX: usize = 2_048;
/// Entries of the stream that may be unstored; above it `STORAGE_FULL`. Each takes its body and about 100 bytes.
pub const STREAM_UNSTORED_MAX: u64 = 1 << 20;
/// Least of them that may be configured: with less, a second in which nothing is stored would refuse senders.
pub(crate) const STREAM_UNSTORED_MIN: u64 = 256;
/// Entries of the stream that are kept though they are stored, for nodes that stood still a moment, or read the database
/// before they follow: some 30 MB.
pub(crate) const STREAM_KEPT: u64 = 100_000;
/// How long Redis remembers a name at the least: longer than nodes rely on it (`WINDOW_MS`), because clocks differ.
pub(crate) const CLAIMS_S: u64 = 15 * 60;
/// What Redis does not rely on any more though it may still have the name: as far as clocks may be apart.
pub(crate) const CLAIMS_SLACK_S: u64 = CLOCK_SKEW_MAX_MS / 1_000;
/// A node whose clock is further from Redis's says so ...
pub(crate) const CLOCK_SKEW_WARN_MS: u64 = 10_000;
/// ... and beyond this it numbers nothing: its names and numbers would lie in another time than those of the others.
pub(crate) const CLOCK_SKEW_MAX_MS: u64 = 60_000;
/// How long MySQL keeps in mind that everybody has left a group, from its creation on: 31 days. A node of a cluster that
/// was away for longer takes such a group's creation in its log for one that was stored.
pub(crate) const GROUPS_LEFT_KEPT_MS: u64 = 31 * 24 * 3_600_000;
/// How many of these a transaction forgets at once.
pub(crate) const GROUPS_FORGOTTEN_MAX: u32 = 1_000;
/// What lasts is said so often in the log.
pub(crate) const WARN_EVERY_MS: u64 = 60_000;
/// After so long a sender is told to ask again, though what it sent is still on its way: with the ledger's pause, within
/// five seconds.
pub(crate) const SENDS_ANSWERED_MS: u64 = 4_000;
/// Creations of groups whose creators were told to ask again, and that may be made all the same (their members, 8 bytes
/// each); above it the oldest may be made twice.
pub(crate) const LATE_CREATIONS_MAX: usize = 256;
/// Of these, those of one creator; above it that creator's oldest may be made twice.
pub(crate) const LATE_CREATIONS_ACCOUNT_MAX: usize = 16;
/// How long they are remembered when Redis has settled them: a client asks again sooner.
pub(crate) const LATE_CREATIONS_KEPT_MS: u64 = 60_000;
/// The longest wait until the store is asked again for what is searched for, after it could not answer: nothing is numbered
/// before a new ledger's searches are over, and a database that is away answers at once.
pub(crate) const SEARCH_RETRY_MAX_MS: u64 = 1_000;
/// The jump of every number when Redis has lost its data: as many as can have been given out and not stored, because
/// an entry has at most one row of each user.
pub(crate) const SEQ_JUMP: u64 = 1 << 20;
/// How long a node waits, after Redis has lost its data, for other nodes to make changes of groups again on which its own
/// messages stand: a node that was killed has time to start.
pub(crate) const LOST_CHANGES_MS: u64 = 60_000;
/// What a node has submitted in so long is looked for in the store when a new generation begins, though the database had
/// come to its number: longer than nodes may number after a fail-over that others have not noticed.
pub(crate) const REOPENED_MS: u64 = CLAIMS_S * 1_000;
/// Entries whose sender's row a node knows without asking the store (8 bytes each).
pub(crate) const SENDER_ROWS_MAX: usize = 1 << 20;
/// Entries whose rows nodes compare at once.
pub const WINDOW_ENTRIES: u64 = 1_024;
/// Windows that Redis keeps to compare with, about 60 bytes each: all that may be unstored, so that a node which starts
/// again and follows them once more is compared as well.
pub const WINDOWS_KEPT: u64 = 1 << 10;
/// Users that may still become known when a message to somebody new is refused: more than all nodes together have on
/// their way.
pub(crate) const LEDGER_USERS_RESERVE: usize = 1 << 22;
/// How long a node's lease lasts.
pub const LEASE_MS: u64 = 5_000;
/// How often it is renewed.
pub const HEARTBEAT_MS: u64 = 1_000;
/// For so long the node whose store writes waits for another one to write again what a database has lost that went back
/// behind all that Redis has: the others' stores look five times a second.
pub(crate) const DATABASE_BEHIND_MS: u64 = 2 * LEASE_MS;
/// How long a Redis that was started again is left alone, so that a node that has read more than it has can say so:
/// longer than nodes wait before they try again.
pub const REDIS_SETTLES_MS: u64 = 2_000;
/// How long a command may take before Redis counts as gone.
pub const REDIS_TIMEOUT_MS: u64 = 3_000;
/// What all shards have to tell other nodes and is not taken yet (an ephemeral message holds its body); at the limit
/// news of sessions wait in their shard, and ephemeral messages stay on their node.
pub(crate) const TO_NODES_MAX: usize = 1_024;
/// Ephemeral messages of one account among them, of a shard from one tick to the next (32 ms); above it they stay on their
/// node.
pub(crate) const TO_NODES_ACCOUNT_MAX: usize = 128;
/// What other nodes have told and one shard has not taken; at the limit ephemeral messages are dropped, and news of
/// sessions are asked for again.
pub(crate) const FROM_NODES_MAX: usize = 1_024;
/// Ephemeral messages of one account among them, whichever nodes they come from, since nothing waited or `FROM_NODES_MAX` came:
/// half of what waits at the most. Above it they are dropped.
pub(crate) const FROM_NODES_ACCOUNT_MAX: usize = FROM_NODES_MAX / 4;
/// News of sessions that wait in a shard (32 bytes each); above it all sessions are told again later.
pub(crate) const SESSION_NEWS_MAX: usize = 65_536;
/// News of sessions that a shard tells in one tick: about 50,000 a second.
pub(crate) const SESSION_NEWS_PER_TICK_MAX: usize = 1_024;
/// Sessions of other nodes that a shard knows (40 bytes each); above it those that come later are not known here.
pub(crate) const REMOTE_SESSIONS_MAX: usize = 4 << 20;
/// Sessions of other nodes that a shard looks at in one tick when some have ended with their node.
pub(crate) const SESSIONS_SWEPT_PER_TICK_MAX: u32 = 4_096;
/// Messages of other nodes that were received and not looked at; above it the nodes are asked to tell everything again.
pub(crate) const NODE_MESSAGES_MAX: usize = 4_096;
/// A message to other nodes is sent when it is so long, or when nothing more waits.
pub(crate) const NODE_MESSAGE_BYTES: usize = 32 * 1024;
/// Messages to other nodes on their way at once.
pub(crate) const NODE_MESSAGES_IN_FLIGHT_MAX: usize = 16;

const _: () = {
    assert!(BATCH_ROWS_MAX * 3 <= 32_766, "SQLite binds so many values");
    assert!(
        PAGE_BYTES_MAX + BODY_BYTES_MAX + PAGE_ROWS_MAX * 160 <= OUTBOX_BYTES_MIN,
        "an empty outbox must hold a page, or catching up never ends"
    );
    assert!(
        SERVER_FRAME_BYTES_MAX + SESSION_IN_FLIGHT_MAX as usize * 200 <= OUTBOX_REPLY_RESERVE_BYTES,
        "the largest reply and all small ones in flight must fit the reserve of an outbox at its cap"
    );
    assert!(
        DESCRIPTORS_FREE_ALWAYS < DESCRIPTORS_FREE_OF_CLIENTS,
        "with the last descriptor that a client could have, one can still be refused"
    );
    assert!(OUTBOX_BYTES_MIN <= OUTBOX_BYTES_MAX && OUTBOX_BYTES_MAX <= OUTBOX_SHARD_BYTES_MIN, "defaults are allowed");
    assert!(
        USER_ROWS.1 as usize >= GROUP_MEMBERS_MAX && GROUP_ROWS.1 as usize >= GROUP_MEMBERS_MAX,
        "any message fits"
    );
    assert!(USER_MEMBERS_ADDED.1 as usize >= GROUP_MEMBERS_MAX, "any group fits");
    assert!(USER_BYTES_OUT.1 as usize >= SERVER_FRAME_BYTES_MAX, "any reply fits");
    assert!(USER_REFUSALS.1 >= SESSION_IN_FLIGHT_MAX as u32, "all that is in flight may be refused once");
    assert!(GROUP_SENDS.0 >= 2 * USER_SENDS.0 && GROUP_SENDS.1 >= 2 * USER_SENDS.1, "one member leaves half to others");
    assert!(GROUP_ROWS.0 >= 2 * USER_ROWS.0 && GROUP_ROWS.1 >= 2 * USER_ROWS.1, "one member leaves half to others");
    assert!(SESSION_BYTES.1 as usize >= BODY_BYTES_MAX + GROUP_MEMBERS_MAX * 8, "any message, and any group, fits");
    assert!(
        LARGE_WAITING_SESSION_BYTES_MAX >= 2 * GROUP_MEMBERS_MAX * 8,
        "a change of a whole group may wait behind another"
    );
    assert!(SYNCS_IN_FLIGHT_MAX < PAGES_IN_FLIGHT_MAX, "most pages are for those who catch up");
    assert!(
        SESSION_IN_FLIGHT_MAX as usize / 2 * (BODY_BYTES_MAX + 512) <= SUBMISSIONS_ACCOUNT_BYTES_MAX
            && 3 * SUBMISSIONS_ACCOUNT_BYTES_MAX <= 2 * SUBMISSIONS_BYTES_MAX,
        "an honest client meets no limit, and one account leaves room to others"
    );
    assert!(
        4 * ROSTER_WAITERS_ACCOUNT_MAX <= ROSTER_WAITERS_MAX && ROSTER_WAITERS_MAX <= ROSTER_WAITERS_SHARD_MAX,
        "one account leaves most of a queue to others"
    );
    assert!(
        4 * EPHEMERALS_ACCOUNT_MAX <= EPHEMERALS_GROUP_MAX && EPHEMERALS_GROUP_MAX <= EPHEMERALS_WAITING_MAX,
        "the same"
    );
    assert!(PAGES_IN_FLIGHT_MAX <= STORE_ANSWERS_MAX, "every page asked for has room to come back");
    assert!(
        COMMIT_BYTES_MAX + GROUP_MEMBERS_MAX * 12 + BODY_BYTES_MAX + 1024 <= JOURNAL_BATCH_BYTES_MAX,
        "the largest commit must be believed by recovery"
    );
    assert!(JOURNAL_BATCH_BYTES_MAX as u64 * 2 <= SEGMENT_BYTES, "a batch must fit a segment");
    assert!(MYSQL_LOCK_TIMEOUT_S * 1000 < MYSQL_WRITE_TIMEOUT_MS, "the server says that a lock was not given");
    assert!(STORE_SILENT_MS > 2 * MYSQL_READ_TIMEOUT_MS, "a database that says nothing is found away before");
    assert!(STREAM_READ_MAX <= MERGE_ENTRIES_MAX, "what waits for nothing is always read on");
    assert!(STREAM_UNSTORED_MIN >= BUCKETS_MAX as u64, "every bucket takes something");
    assert!(SEQ_JUMP >= STREAM_UNSTORED_MAX, "what a lost stream had given out lies below the jump");
    assert!((CLAIMS_S - CLAIMS_SLACK_S) * 1_000 > WINDOW_MS, "Redis knows every name that nodes rely on");
    assert!(WINDOWS_KEPT * WINDOW_ENTRIES >= STREAM_UNSTORED_MAX, "what is followed again is compared again");
    assert!(COMMIT_ROWS_MAX >= GROUP_MEMBERS_MAX, "one message must fit a commit");
};
