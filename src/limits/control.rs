//! The bounds of the admin server: the API, metrics, what is said in the log.
//!
//! Constants only.

/// How often the log names a place in the code where internal errors go on being met.
pub(crate) const INTERNAL_ERRORS_SAID_MS: u64 = 60_000;
/// Requests the admin server answers at once.
pub(crate) const ADMIN_REQUESTS_MAX: usize = 64;

/// Bytes of a request's body to the API: a thousand messages of some 3 KiB each, or fewer longer ones.
pub(crate) const API_BODY_BYTES_MAX: usize = 4 << 20;
/// Messages of one call.
pub(crate) const API_MESSAGES_MAX: usize = 1_000;
/// Users of one look-up of presence.
pub(crate) const API_PRESENCE_MAX: usize = 1_000;
/// The shortest key taken: 32 random characters cannot be found by trying.
pub(crate) const API_KEY_CHARS_MIN: usize = 32;
/// How long a request waits for its answers.
pub(crate) const API_ANSWER_MS: u64 = 10_000;
/// How often it is looked which requests have waited for so long.
pub(crate) const API_LOOK_MS: u64 = 250;
/// Requests that wait to be asked.
pub(crate) const API_REQUESTS_MAX: usize = 1_024;
/// Questions that are open at a time; each may be a message of 16 KiB on its way.
pub(crate) const API_QUESTIONS_OPEN_MAX: usize = 16_384;
/// Streams of inboxes that are open at a time, half of the connections that the admin server has room for.
pub(crate) const API_STREAMS_MAX: usize = ADMIN_REQUESTS_MAX / 2;
/// How often the newest rows of all streams are asked for.
pub(crate) const API_STREAM_LOOK_MS: u64 = 50;
/// How often a stream that has nothing to say says so; shorter than the admin server lets a connection be silent.
pub(crate) const API_STREAM_SILENCE_MS: u64 = 10_000;
/// Bytes of the file that has what was changed over the API; the one before it is kept.
pub(crate) const AUDIT_FILE_BYTES_MAX: u64 = 4 << 20;
/// Records that wait to be written to it.
pub(crate) const AUDIT_RECORDS_WAITING_MAX: usize = 1_024;
/// Broadcasts that are kept; the oldest that is over makes room. Each may have as many recipients in memory as may be.
pub(crate) const BROADCASTS_MAX: usize = 64;
/// Recipients of one broadcast: 8 bytes each.
pub(crate) const BROADCAST_USERS_MAX: usize = 100_000;
/// Messages a second of one broadcast, where its caller does not say.
pub(crate) const BROADCAST_RATE_DEFAULT: u32 = 500;
/// The highest that may be said.
pub(crate) const BROADCAST_RATE_MAX: u32 = 10_000;
/// How often each broadcast goes on.
pub(crate) const BROADCAST_STEP_MS: u64 = 100;
/// Connections of one page.
pub(crate) const API_CONNECTIONS_MAX: usize = 1_000;
/// Places that a shard looks at for one question about its connections, some 100 µs where each is a system call for its
/// address: what other shards and clients wait meanwhile.
pub(crate) const LOOK_SLOTS_MAX: u32 = 256;
/// Places in which a shard keeps what happened to its users; users share one by a keyed hash. A place has 1 KiB once it is
/// used: 4 MiB a shard, when all are.
pub(crate) const USER_EVENTS_PLACES: usize = 4_096;
/// Events of one place: what one user can displace.
pub(crate) const USER_EVENTS_OF_PLACE: usize = 16;
/// How often the dashboard's figures are taken.
pub(crate) const DASHBOARD_SAMPLE_MS: u64 = 1_000;
/// Seconds of them that are kept: an hour, 400 bytes each and 16 for each shard.
pub(crate) const DASHBOARD_SAMPLES_MAX: usize = 3_600;
/// Who looks at a time, a quarter of the connections that the admin server has room for.
pub(crate) const DASHBOARD_VIEWERS_MAX: usize = ADMIN_REQUESTS_MAX / 4;
/// Recipients of one page of a message that is followed.
pub(crate) const TRACE_RECIPIENTS_MAX: usize = 50;
/// How often their inboxes are looked into: a bisection of 2^64 rows takes 64 looks, and one more is around where it ends.
pub(crate) const TRACE_ROUNDS_MAX: u16 = 72;
/// Rows that are looked at where the bisection ends.
pub(crate) const TRACE_ROWS_AROUND: u16 = 64;
/// Questions that a page of connections asks before it is answered with what it has: a million places in 4,096.
pub(crate) const API_LOOKS_MAX: usize = 256;
/// How often a change is tried when the owner has just changed.
pub(crate) const API_OWNERS_TRIED: usize = 3;
/// Groups of one maker that one call deletes: some two changes each.
pub(crate) const API_MADE_DELETED_MAX: usize = 100;

const _: () = assert!(API_MESSAGES_MAX <= API_QUESTIONS_OPEN_MAX, "a call of the largest size can be asked");
