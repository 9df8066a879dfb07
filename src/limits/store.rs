//! The bounds of the store: batches, the tail, connections to a database, what is asked of it.
//!
//! Constants only.

use super::SEGMENT_BYTES;

/// Rows of one insert, by default.
pub const BATCH_ROWS: usize = 500;
/// Most rows of one insert that may be configured: SQLite binds three values a row, and at most 32,766.
pub(crate) const BATCH_ROWS_MAX: usize = 10_000;
/// Rows of one transaction in SQLite: 100 batches, about 50 ms for which a reader may have to wait. 20 batches would
/// cost twice the time a row, because the same pages are written again for the next ones.
pub(crate) const SQLITE_TRANSACTION_ROWS_MAX: usize = 50_000;
/// The same while somebody reads, and every page of theirs may have to wait for one: a twentieth of it.
pub(crate) const SQLITE_TRANSACTION_ROWS_BESIDE_READERS: usize = 2_500;
/// How long pages are read before the next transaction, while there are readers: no longer, so that what is durable is
/// applied as well.
pub(crate) const STORE_READING_MS: u64 = 10;
/// Whoever has got a page asks for the next within that time; if nobody does, the transaction waits no longer.
pub(crate) const STORE_READER_GAP_MS: u64 = 2;
/// Transactions are short until nobody has read for so long.
pub(crate) const STORE_READ_LATELY_MS: u64 = 200;
/// Rows of one transaction in MySQL: 20 batches.
pub(crate) const MYSQL_TRANSACTION_ROWS_MAX: usize = 10_000;
/// Questions of shards (for cursors: `CURSORS_READ_MAX`), and as many look-ups, that the store answers between two
/// transactions.
pub(crate) const STORE_ANSWERED_MAX: usize = 64;
/// How long rows wait in the tail for others to be written with them. A row costs what its page of the table costs,
/// so twenty messages to the same members cost little more than one: 500 rows take 5 ms and 2.2 MB of log alone,
/// 0.6 ms and 0.2 MB among twenty. What the log takes, the disk takes from the journal's `fdatasync`.
pub(crate) const STORE_LINGER_MS: u64 = 500;
/// They do not wait when there are so many.
pub(crate) const STORE_LINGER_ROWS: usize = 25_000;
/// Nor when no more have come for so long: a burst is stored when it is over.
pub(crate) const STORE_QUIET_MS: u64 = 20;
/// How often the store looks how far the journal has grown while rows wait. Looking costs the time of reading what is
/// new, and a kernel that has picked the store's thread on a shared CPU lets it run for 3 ms before it looks again.
pub(crate) const STORE_LOOK_MS: u64 = 10;
/// How long the store may go on applying when the gateway stops, at most (and half of the time that the stop may take);
/// what is left stays in the journal.
pub(crate) const STORE_STOP_MS: u64 = 10_000;
/// Journal bytes that go into one transaction (the first record may exceed it): bodies may be long.
pub(crate) const TRANSACTION_BYTES_MAX: u64 = 8 << 20;
/// The first wait after the store refused a write; it doubles each time.
pub(crate) const STORE_RETRY_FIRST_MS: u64 = 50;
/// The longest wait: how late the store may notice that the database is back.
pub(crate) const STORE_RETRY_MAX_MS: u64 = 5_000;
/// How often the log says again what is wrong with the store while it lasts.
pub(crate) const STORE_TROUBLE_SAID_MS: u64 = 60_000;
/// That the journal takes nothing is said again so often, while it lasts.
pub(crate) const JOURNAL_FULL_SAID_MS: u64 = 60_000;
/// While it does, it is looked so often whether it has room again.
pub(crate) const JOURNAL_ROOM_LOOK_MS: u64 = 1_000;
/// Messages of one transaction whose names were taken that the log names.
pub(crate) const NAMES_TAKEN_SAID_MAX: usize = 10;
/// What was applied is secured after so many journal bytes: half a segment, since segments go only behind that.
pub(crate) const SECURE_BYTES: u64 = SEGMENT_BYTES / 2;
/// And at least so often, while anything is applied; each costs syncs on the disk that the ledger syncs on too.
pub(crate) const SECURE_MS: u64 = 30_000;
/// Cursors that are kept of one user: twice as many as devices may be configured.
pub(crate) const USER_CURSORS_MAX: usize = 128;
/// Cursors written in one transaction.
pub(crate) const CURSORS_SAVED_MAX: usize = 4_096;
/// Cursors of devices that log in, read in one question: a statement of 50 KB at most.
pub(crate) const CURSORS_READ_MAX: usize = 1_024;
/// Cursors that may wait for a store that is away (about 50 bytes each).
pub(crate) const CURSORS_KEPT_MAX: usize = 1 << 20;
/// Messages kept encoded for those who catch up together (a group's members read the same ones).
pub(crate) const MESSAGES_SHARED_MAX: usize = 4_096;
/// Bytes of frames kept so.
pub(crate) const MESSAGES_SHARED_BYTES_MAX: usize = 16 << 20;

/// Users whose inboxes one step of retention looks at.
pub(crate) const RETENTION_USERS: usize = 100;
/// Rows, or messages, that one step of retention deletes: some milliseconds.
pub(crate) const RETENTION_ROWS: usize = 500;
/// Between two steps: 25,000 rows a second at most, and most of the time left to others.
pub(crate) const RETENTION_STEP_EVERY_MS: u64 = 20;
/// Between two passes over all inboxes.
pub(crate) const RETENTION_PASS_EVERY_MS: u64 = 60 * 60 * 1000;
/// A clock that is so far ahead of the newest stored message may be wrong: nothing was sent for a day, or ...
pub(crate) const RETENTION_CLOCK_AHEAD_MS: u64 = 24 * 60 * 60 * 1000;
/// ... and then nothing is deleted before it has been steady for so long.
pub(crate) const RETENTION_CLOCK_STEADY_MS: u64 = 60 * 60 * 1000;
/// So far the clock may be from the time that has passed and count as steady.
pub(crate) const RETENTION_CLOCK_STEP_MS: u64 = 60_000;
/// After a failure.
pub(crate) const RETENTION_AGAIN_MS: u64 = 60 * 1000;
/// How long a new connection to MySQL may take, its settings included.
pub(crate) const MYSQL_CONNECT_TIMEOUT_MS: u64 = 2_000;
/// How long a read from MySQL may take: sessions wait for it, and those whose rows are in the tail as well.
pub(crate) const MYSQL_READ_TIMEOUT_MS: u64 = 2_000;
/// How long one statement of a transaction may take: longer than the server waits for a lock.
pub(crate) const MYSQL_WRITE_TIMEOUT_MS: u64 = 30_000;
/// How long the server waits for a lock.
pub(crate) const MYSQL_LOCK_TIMEOUT_S: u64 = 10;
/// A node's copy of the stream is kept so far back behind what the database has, so that rows can be written again when
/// the database goes back a little: a replica that takes over lacks the last seconds. It costs as much disk, and a
/// segment.
pub(crate) const COPY_KEPT_BYTES: u64 = SEGMENT_BYTES;
/// The server ends a writing connection that says nothing for so long inside a transaction, and takes back what it had
/// begun: its gateway was stopped, or its host is gone.
pub(crate) const MYSQL_WRITER_SILENCE_S: u64 = 15;
/// Longest statement sent to MySQL, if the server takes so much (`max_allowed_packet`, 16 MiB by default).
pub(crate) const MYSQL_STATEMENT_BYTES_MAX: usize = 1 << 20;
/// Connections to MySQL, by default: one writes, the others read.
pub(crate) const MYSQL_POOL_SIZE: usize = 4;
/// Most connections to MySQL that may be configured.
pub(crate) const MYSQL_POOL_SIZE_MAX: usize = 64;
