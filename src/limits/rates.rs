//! What one account may send, and be sent: units a second, and units at once.
//!
//! Constants only: the defaults of `[limits]`, which an operator may change while the gateway runs.

/// Logins of one address, to one shard: an office, or a carrier's, that comes back at once.
pub(crate) const ADDRESS_LOGINS: (u32, u32) = (10_000, 100_000);
/// Logins of one user: ten devices that come back twenty times. Each new device is a cursor that is kept.
pub(crate) const USER_LOGINS: (u32, u32) = (2, 200);
/// Requests of one session: twice as many as messages.
pub(crate) const SESSION_REQUESTS: (u32, u32) = (1_000, 20_000);
/// Refusals of a user's requests, of whatever kind; above it its session is not read from for a while. A client that has sent
/// all that it may have in flight and is refused all of it is far from it.
pub(crate) const USER_REFUSALS: (u32, u32) = (200, 2_000);
/// Bytes of the long replies that a user asks for: lists, members, pages of history. 400 rosters of the largest size at
/// once, and then 50 a second.
pub(crate) const USER_BYTES_OUT: (u32, u32) = (4 << 20, 32 << 20);
/// Users that a user asks for: 200 lists of contacts of the largest size at once.
pub(crate) const USER_PRESENCE: (u32, u32) = (2_000, 50_000);
/// Messages of one session. A person sends a few; an integration that sends more than this all the time is told so.
pub(crate) const SESSION_SENDS: (u32, u32) = (500, 10_000);
/// Bytes that one session sends in them: 128 of the largest messages a second.
pub(crate) const SESSION_BYTES: (u32, u32) = (2 << 20, 32 << 20);
/// Messages of all of a user's sessions.
pub(crate) const USER_SENDS: (u32, u32) = (1_000, 20_000);
/// Bytes of all of them.
pub(crate) const USER_BYTES: (u32, u32) = (4 << 20, 64 << 20);
/// Bytes that a user sends to one other user, or to one group: who is written to reads what came before first, and his own
/// next message takes its place behind it.
pub(crate) const CONVERSATION_BYTES: (u32, u32) = (1 << 20, 16 << 20);
/// Rows of a user's messages. The embedded store writes some 200,000 a second, so one account owes it at most five
/// seconds at once, and takes a quarter of it for good; 100 messages a second to 500 members are just within.
pub(crate) const USER_ROWS: (u32, u32) = (50_000, 1_000_000);
/// Groups that a user makes: an address book of a thousand at once, and then as many as no person makes.
pub(crate) const USER_GROUPS_MADE: (u32, u32) = (10, 1_000);
/// Members that a user adds: 40 groups of the largest size at once.
pub(crate) const USER_MEMBERS_ADDED: (u32, u32) = (2_000, 200_000);
/// Users that a user writes to and whom nobody has written to before: each takes a place in the ledger for good.
pub(crate) const USER_RECIPIENTS_NEW: (u32, u32) = (20, 5_000);
/// What of the journal's and of the tail's unstored part may be one user's, per cent.
pub(crate) const USER_UNSTORED_PERCENT: u32 = 25;
/// Messages to one group, whoever sends them: twice as many as one account may, so that none can keep out the others.
pub(crate) const GROUP_SENDS: (u32, u32) = (2_000, 40_000);
/// Rows of them, for the same reason: 20 messages a second to a group of the largest size.
pub(crate) const GROUP_ROWS: (u32, u32) = (100_000, 2_000_000);
/// Fastest rate that may be configured, units a second; rounding is small up to there.
pub(crate) const RATE_MAX: u32 = 64_000_000;
