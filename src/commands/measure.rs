//! What the load generator (`ringway_load`) is handed of the gateway's own: the rows of its stores, the memory limits
//! of its process, and how long it remembers messages.
//!
//! Runs in the load generator's process, on its one thread; never in a gateway. What always holds: it only reads.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::time::Duration;

use mysql_async::Opts;
use mysql_async::prelude::FromRow;
use ringway_load::contract::{SoakFacts, StoreError, StoredRows, Stores};
use ringway_wire::ids::{MsgId, Seq, UserId};
use rusqlite::{OpenFlags, OptionalExtension};
use tokio::runtime::Runtime;

use crate::config::StoreUrl;
use crate::doctor::host::Machine;
use crate::doctor::host::cgroup::Cgroups;
use crate::doctor::host::live::ThisMachine;
use crate::limits::WINDOW_MS;
use crate::store::mysql::connection::{Connection, Patience, options};
use crate::store::mysql::fault::Fault;

/// How long SQLite waits for the gateway's own writes.
const BUSY_MS: u64 = 5_000;

/// What a soak is told.
pub const SOAK_FACTS: SoakFacts =
    SoakFacts { names_kept: Duration::from_millis(WINDOW_MS), memory_limit_dirs: memory_limit_directories };

/// The stores that `store.url` can name.
pub struct GatewayStores;

impl Stores for GatewayStores {
    fn check(&self, url: &str) -> Result<(), StoreError> {
        StoreUrl::parse(url).map(drop).map_err(|error| StoreError::Url(error.into()))
    }

    fn open(&self, url: Option<&str>, own_file: Option<&Path>) -> Result<Box<dyn StoredRows>, StoreError> {
        let url = url.map(StoreUrl::parse).transpose().map_err(|error| StoreError::Url(error.into()))?;
        match url {
            Some(StoreUrl::MySql(url)) => Ok(Box::new(Server::connect(&url)?)),
            Some(StoreUrl::Sqlite(Some(file))) => Ok(Box::new(StoreFile::open(&file)?)),
            Some(StoreUrl::Sqlite(None)) | None => Ok(Box::new(StoreFile::open(own_file.ok_or(StoreError::NoFile)?)?)),
        }
    }
}

/// The embedded store's file, opened for reading.
struct StoreFile {
    db: rusqlite::Connection,
}

impl StoreFile {
    fn open(path: &Path) -> Result<StoreFile, StoreError> {
        let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let db = rusqlite::Connection::open_with_flags(path, flags).map_err(unreadable)?;
        db.busy_timeout(Duration::from_millis(BUSY_MS)).map_err(unreadable)?;
        Ok(StoreFile { db })
    }
}

impl StoredRows for StoreFile {
    fn newest(&self, user: UserId) -> Result<Seq, StoreError> {
        let newest = || -> rusqlite::Result<Option<i64>> {
            let mut query = self.db.prepare_cached("SELECT max(seq) FROM inbox WHERE user_id = ?1")?;
            query.query_row([user.0 as i64], |row| row.get(0))
        };
        Ok(Seq(newest().map_err(unreadable)?.unwrap_or(0) as u64))
    }

    fn has_message(&self, msg_id: MsgId) -> Result<bool, StoreError> {
        let found = || -> rusqlite::Result<Option<()>> {
            let mut query = self.db.prepare_cached("SELECT 1 FROM messages WHERE msg_id = ?1")?;
            query.query_row([msg_id.0 as i64], |_| Ok(())).optional()
        };
        Ok(found().map_err(unreadable)?.is_some())
    }

    fn rows_after(&self, user: UserId, after: Seq, each: &mut dyn FnMut(Seq, MsgId)) -> Result<(), StoreError> {
        let mut read = || -> rusqlite::Result<()> {
            let text = "SELECT seq, msg_id FROM inbox WHERE user_id = ?1 AND seq > ?2 ORDER BY seq";
            let mut query = self.db.prepare_cached(text)?;
            let mut rows = query.query([user.0 as i64, after.0 as i64])?;
            while let Some(row) = rows.next()? {
                each(Seq(row.get::<_, i64>(0)? as u64), MsgId(row.get::<_, i64>(1)? as u64));
            }
            Ok(())
        };
        read().map_err(unreadable)
    }
}

/// A connection to the store's database.
struct Server {
    runtime: Runtime,
    connection: RefCell<Connection>,
}

impl Server {
    fn connect(url: &Opts) -> Result<Server, StoreError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().map_err(unreadable)?;
        let connection = runtime.block_on(Connection::open(&options(url))).map_err(unreadable)?;
        Ok(Server { runtime, connection: RefCell::new(connection) })
    }

    fn rows<T: FromRow + Send + 'static>(&self, statement: &str) -> Result<Vec<T>, StoreError> {
        let mut connection = self.connection.borrow_mut();
        let rows: Result<Vec<T>, Fault> = self.runtime.block_on(connection.rows(statement, Patience::Write));
        rows.map_err(unreadable)
    }
}

impl StoredRows for Server {
    fn newest(&self, user: UserId) -> Result<Seq, StoreError> {
        let rows = self.rows::<(Option<u64>,)>(&format!("SELECT MAX(seq) FROM inbox WHERE user_id = {}", user.0))?;
        Ok(Seq(rows.first().and_then(|(newest,)| *newest).unwrap_or(0)))
    }

    fn has_message(&self, msg_id: MsgId) -> Result<bool, StoreError> {
        Ok(!self.rows::<(u8,)>(&format!("SELECT 1 FROM messages WHERE msg_id = {}", msg_id.0))?.is_empty())
    }

    fn rows_after(&self, user: UserId, after: Seq, each: &mut dyn FnMut(Seq, MsgId)) -> Result<(), StoreError> {
        let (user, after) = (user.0, after.0);
        let text = format!("SELECT seq, msg_id FROM inbox WHERE user_id = {user} AND seq > {after} ORDER BY seq");
        self.rows::<(u64, u64)>(&text)?.into_iter().for_each(|(seq, msg_id)| each(Seq(seq), MsgId(msg_id)));
        Ok(())
    }
}

fn unreadable(error: impl std::error::Error + Send + Sync + 'static) -> StoreError {
    StoreError::Read(Box::new(error))
}

/// The directories of the memory limits that processes are under; none, if they have none or they cannot be seen.
fn memory_limit_directories(pids: &[u32]) -> Vec<PathBuf> {
    let machine = ThisMachine;
    let mounts = machine.file("/proc/self/mountinfo");
    let mut directories: Vec<PathBuf> = Vec::new();
    for pid in pids {
        let found = Cgroups::read_of(&machine, mounts.value().unwrap_or_default(), &format!("/proc/{pid}/cgroup"));
        for directory in found.memory.iter().filter_map(|limit| Path::new(&limit.file).parent()) {
            if !directories.iter().any(|known| known == directory) {
                directories.push(directory.to_owned());
            }
        }
    }
    directories
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use ringway_load::soak::watch::holder;

    use super::*;

    #[test]
    fn an_url_that_names_no_store_is_refused_before_anything_is_opened() {
        for url in ["x.sqlite", "mysql://localhost"] {
            assert!(matches!(GatewayStores.check(url), Err(StoreError::Url(_))), "{url}");
        }
        assert!(GatewayStores.check("sqlite:").is_ok() && GatewayStores.check("mysql://u@localhost/db").is_ok());
        assert!(matches!(GatewayStores.open(Some("sqlite:"), None), Err(StoreError::NoFile)));
    }

    #[test]
    fn rows_before_the_ones_asked_for_are_not_read_and_the_others_come_in_order() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("store.sqlite");
        let file = rusqlite::Connection::open(&path).unwrap();
        file.execute_batch(
            "CREATE TABLE inbox (user_id INTEGER, seq INTEGER, msg_id INTEGER);
             CREATE TABLE messages (msg_id INTEGER);
             INSERT INTO inbox VALUES (7, 7, 12), (7, 5, 9), (7, 6, 11), (8, 6, 13);
             INSERT INTO messages VALUES (12);",
        )
        .unwrap();
        let rows = GatewayStores.open(None, Some(&path)).unwrap();
        let mut read = Vec::new();
        rows.rows_after(UserId(7), Seq(5), &mut |seq, msg_id| read.push((seq.0, msg_id.0))).unwrap();
        assert_eq!(read, [(6, 11), (7, 12)]);
        assert_eq!((rows.newest(UserId(7)).unwrap(), rows.newest(UserId(9)).unwrap()), (Seq(7), Seq(0)));
        assert!(rows.has_message(MsgId(12)).unwrap() && !rows.has_message(MsgId(11)).unwrap());
    }

    #[test]
    fn the_holder_of_a_data_directory_is_found_by_its_lock() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(holder(dir.path()), None);
        let held = crate::datadir::DataDir::lock(dir.path()).unwrap();
        assert_eq!(holder(dir.path()), Some(std::process::id()));
        drop(held);
        assert_eq!(holder(dir.path()), None);
    }
}
