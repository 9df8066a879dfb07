//! Inbox rows, counted where they are kept: in the store's database, or, for a gateway elsewhere, page by page over
//! the protocol.
//!
//! Owned by the load generator's thread; reads only. What always holds: a row counts as stored only if it is the
//! very message that is due in its place of its user's inbox, under the number that follows the one before, so a
//! count that is complete also says that no row is missing, doubled, foreign or misplaced.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use mysql_async::Opts;
use mysql_async::prelude::FromRow;
use rusqlite::{OpenFlags, OptionalExtension};
use tokio::runtime::Runtime;

use super::client::{Client, Said};
use super::crowd::Secret;
use super::error::LoadError;
use crate::clock::Clock;
use crate::store::mysql::connection::{Connection, Patience, options};
use ringway_wire::ids::{DeviceId, MsgId, Seq, UserId};
use ringway_wire::limits::PAGE_ROWS_MAX;

const BUSY_MS: u64 = 5_000;
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// The counting session's device; the benches' own is 1.
const COUNTING_DEVICE: DeviceId = DeviceId(0xC0DE);

/// What is stored of one user's expected rows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Found {
    /// Rows that are what is due in their place.
    pub rows: u64,
    /// Rows that are not.
    pub wrong: u64,
}

/// Where rows are counted.
pub enum Stored {
    /// In the store's file.
    File(StoreFile),
    /// In the store's MySQL database.
    Server(Box<Server>),
    /// Over the protocol.
    Protocol(Inboxes),
}

/// The embedded store's file, opened for reading.
pub struct StoreFile {
    db: rusqlite::Connection,
}

/// A connection to the store's database.
pub struct Server {
    runtime: Runtime,
    connection: RefCell<Connection>,
}

/// The inboxes of a gateway that is elsewhere.
pub struct Inboxes {
    addr: SocketAddr,
    secret: Secret,
    clock: Clock,
}

impl Stored {
    /// Opens the store's file.
    pub fn file(path: &Path) -> Result<Stored, LoadError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = rusqlite::Connection::open_with_flags(path, flags)?;
        db.busy_timeout(Duration::from_millis(BUSY_MS))?;
        Ok(Stored::File(StoreFile { db }))
    }

    /// Connects to the store's database.
    pub fn server(url: &Opts) -> Result<Stored, LoadError> {
        let failed = LoadError::io("no runtime for the database's client");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(failed)?;
        let connection = RefCell::new(runtime.block_on(Connection::open(&options(url)))?);
        Ok(Stored::Server(Box::new(Server { runtime, connection })))
    }

    /// Reads over the protocol.
    pub fn protocol(addr: SocketAddr, secret: Secret, clock: Clock) -> Stored {
        Stored::Protocol(Inboxes { addr, secret, clock })
    }

    /// The user's newest row.
    pub fn newest(&self, user: UserId) -> Result<Seq, LoadError> {
        match self {
            Stored::File(file) => {
                let mut query = file.db.prepare_cached("SELECT max(seq) FROM inbox WHERE user_id = ?1")?;
                let newest: Option<i64> = query.query_row([user.0 as i64], |row| row.get(0))?;
                Ok(Seq(newest.unwrap_or(0) as u64))
            }
            Stored::Server(server) => {
                let rows =
                    server.rows::<(Option<u64>,)>(&format!("SELECT MAX(seq) FROM inbox WHERE user_id = {}", user.0));
                Ok(Seq(rows?.first().and_then(|(newest,)| *newest).unwrap_or(0)))
            }
            Stored::Protocol(inboxes) => inboxes.log_in(user).map(|(_, newest)| newest),
        }
    }

    /// Whether a message is there. Over the protocol nothing is known before its rows are counted: true.
    pub fn has_message(&self, msg_id: MsgId) -> Result<bool, LoadError> {
        match self {
            Stored::File(file) => {
                let mut query = file.db.prepare_cached("SELECT 1 FROM messages WHERE msg_id = ?1")?;
                Ok(query.query_row([msg_id.0 as i64], |_| Ok(())).optional()?.is_some())
            }
            Stored::Server(server) => {
                Ok(!server.rows::<(u8,)>(&format!("SELECT 1 FROM messages WHERE msg_id = {}", msg_id.0))?.is_empty())
            }
            Stored::Protocol(_) => Ok(true),
        }
    }

    /// Counts the user's rows after `after`, which must be `due`, one by one.
    pub fn count(&self, user: UserId, after: Seq, due: &[MsgId]) -> Result<Found, LoadError> {
        let mut matching = Matching { due, next: 0, seq: after, found: Found::default() };
        match self {
            Stored::File(file) => {
                let text = "SELECT seq, msg_id FROM inbox WHERE user_id = ?1 AND seq > ?2 ORDER BY seq";
                let mut query = file.db.prepare_cached(text)?;
                let mut rows = query.query([user.0 as i64, after.0 as i64])?;
                while let Some(row) = rows.next()? {
                    matching.row(Seq(row.get::<_, i64>(0)? as u64), MsgId(row.get::<_, i64>(1)? as u64));
                }
            }
            Stored::Server(server) => {
                let (user, after) = (user.0, after.0);
                let text =
                    format!("SELECT seq, msg_id FROM inbox WHERE user_id = {user} AND seq > {after} ORDER BY seq");
                for (seq, msg_id) in server.rows::<(u64, u64)>(&text)? {
                    matching.row(Seq(seq), MsgId(msg_id));
                }
            }
            Stored::Protocol(inboxes) => inboxes.read(user, after, &mut matching)?,
        }
        Ok(matching.found)
    }
}

/// Compares rows with what is due, in order.
struct Matching<'a> {
    due: &'a [MsgId],
    next: usize,
    seq: Seq,
    found: Found,
}

impl Matching<'_> {
    fn row(&mut self, seq: Seq, msg_id: MsgId) {
        if seq == self.seq.next() && self.due.get(self.next) == Some(&msg_id) {
            self.found.rows += 1;
        } else {
            self.found.wrong += 1;
        }
        self.next += 1;
        self.seq = seq;
    }
}

impl Server {
    fn rows<T: FromRow + Send + 'static>(&self, statement: &str) -> Result<Vec<T>, LoadError> {
        let mut connection = self.connection.borrow_mut();
        Ok(self.runtime.block_on(connection.rows(statement, Patience::Write))?)
    }
}

impl Inboxes {
    fn log_in(&self, user: UserId) -> Result<(Client, Seq), LoadError> {
        let failed = "counting stored rows over the protocol failed";
        let mut client = Client::connect(self.addr, ANSWER_PATIENCE).map_err(LoadError::client(failed))?;
        let token = self.secret.token(user, self.clock.now().unix_ms);
        let info = client.login(&token, COUNTING_DEVICE, None, ANSWER_PATIENCE).map_err(LoadError::client(failed))?;
        Ok((client, info.last_seq))
    }

    fn read(&self, user: UserId, after: Seq, matching: &mut Matching<'_>) -> Result<(), LoadError> {
        let (mut client, _) = self.log_in(user)?;
        let mut from = after;
        loop {
            let page = client
                .sync(from, PAGE_ROWS_MAX as u32, ANSWER_PATIENCE)
                .map_err(LoadError::client("reading an inbox failed"))?;
            let Said::Page { rows, through, end, .. } = page else { return Ok(()) };
            for row in &rows {
                matching.row(row.seq, row.msg_id);
            }
            if end || through <= from {
                return Ok(());
            }
            from = through;
        }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use super::*;

    fn check(rows: &[(u64, u64)], expected: Found) {
        let file = rusqlite::Connection::open_in_memory().unwrap();
        file.execute_batch("CREATE TABLE inbox (user_id INTEGER, seq INTEGER, msg_id INTEGER)").unwrap();
        for (seq, msg_id) in rows {
            file.execute("INSERT INTO inbox VALUES (7, ?1, ?2)", [*seq as i64, *msg_id as i64]).unwrap();
        }
        let stored = Stored::File(StoreFile { db: file });
        let due = [MsgId(11), MsgId(12), MsgId(13)];
        assert_eq!(stored.count(UserId(7), Seq(5), &due).unwrap(), expected);
    }

    #[test]
    fn rows_that_are_due_are_counted_and_older_ones_are_not() {
        check(&[(5, 9), (6, 11), (7, 12), (8, 13)], Found { rows: 3, wrong: 0 });
    }

    #[test]
    fn a_row_that_is_missing_is_not_counted() {
        check(&[(6, 11), (7, 12)], Found { rows: 2, wrong: 0 });
        check(&[(6, 11), (8, 13)], Found { rows: 1, wrong: 1 });
    }

    #[test]
    fn a_row_of_another_message_or_out_of_its_place_is_wrong() {
        check(&[(6, 11), (7, 99), (8, 13)], Found { rows: 2, wrong: 1 });
        check(&[(6, 12), (7, 11), (8, 13)], Found { rows: 1, wrong: 2 });
        check(&[(6, 11), (7, 12), (8, 13), (9, 13)], Found { rows: 3, wrong: 1 });
    }
}
