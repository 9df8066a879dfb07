//! One connection to a MySQL server, and the few of them that read.
//!
//! On the store's thread. What always holds: every answer is waited for a bounded time, and a connection on which
//! one did not come, or which was lost, is never used again.

use std::time::Duration;

use mysql_async::prelude::{FromRow, Queryable};
use mysql_async::{Conn, Error, Opts, OptsBuilder, Row, from_row_opt};
use tokio::time::timeout;

use super::fault::Fault;
use super::insert::{Bounds, STATEMENT_BYTES_MIN};
use crate::contract::chain::Chain;
use crate::limits::{
    MYSQL_CONNECT_TIMEOUT_MS, MYSQL_LOCK_TIMEOUT_S, MYSQL_READ_TIMEOUT_MS, MYSQL_STATEMENT_BYTES_MAX,
    MYSQL_WRITE_TIMEOUT_MS, MYSQL_WRITER_SILENCE_S,
};

/// How long an answer is waited for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Patience {
    /// A client waits for the answer.
    Read,
    /// Nobody waits but the journal.
    Write,
}

impl Patience {
    fn time(self) -> Duration {
        Duration::from_millis(match self {
            Patience::Read => MYSQL_READ_TIMEOUT_MS,
            Patience::Write => MYSQL_WRITE_TIMEOUT_MS,
        })
    }
}

/// A connection with the session's settings made.
#[derive(Debug)]
pub(crate) struct Connection {
    conn: Conn,
    statement_bytes_max: usize,
    durable_at_commit: bool,
    /// It has asked for its name.
    named: bool,
}

impl Connection {
    /// Connects and makes the settings.
    pub(crate) async fn open(opts: &Opts) -> Result<Self, Fault> {
        let time = Duration::from_millis(MYSQL_CONNECT_TIMEOUT_MS);
        timeout(time, connect(opts)).await.map_err(|_| Fault::Silent(time))?
    }

    /// Sends a statement that gives no rows.
    pub(crate) async fn run(&mut self, statement: impl Into<Vec<u8>>, patience: Patience) -> Result<(), Fault> {
        let time = patience.time();
        timeout(time, self.conn.query_drop(statement.into()))
            .await
            .map_err(|_| Fault::Silent(time))?
            .map_err(Fault::from)
    }

    /// The first row, if there is one.
    pub(crate) async fn first<T: FromRow + Send + 'static>(
        &mut self,
        statement: impl Into<Vec<u8>>,
        patience: Patience,
    ) -> Result<Option<T>, Fault> {
        let time = patience.time();
        let answer = timeout(time, self.conn.query_first::<Row, _>(statement.into())).await;
        answer.map_err(|_| Fault::Silent(time))??.map(from_row_opt).transpose().map_err(Fault::Row)
    }

    /// All rows.
    pub(crate) async fn rows<T: FromRow + Send + 'static>(
        &mut self,
        statement: impl Into<Vec<u8>>,
        patience: Patience,
    ) -> Result<Vec<T>, Fault> {
        let time = patience.time();
        let answer = timeout(time, self.conn.query::<Row, _>(statement.into())).await;
        let rows = answer.map_err(|_| Fault::Silent(time))??;
        rows.into_iter().map(from_row_opt).collect::<Result<Vec<T>, _>>().map_err(Fault::Row)
    }

    /// Hands each row to `visit` as it comes; only the time between two rows is bounded.
    pub(crate) async fn visit<T: FromRow + Send + 'static>(
        &mut self,
        statement: &str,
        visit: &mut dyn FnMut(T),
    ) -> Result<(), Fault> {
        let time = Duration::from_millis(MYSQL_WRITE_TIMEOUT_MS);
        let silent = |_| Fault::Silent(time);
        let mut result = timeout(time, self.conn.query_iter(statement)).await.map_err(silent)??;
        while let Some(row) = timeout(time, result.next()).await.map_err(silent)?? {
            visit(from_row_opt(row).map_err(Fault::Row)?);
        }
        Ok(())
    }

    /// Takes a named lock of the server, unless another connection has it; asked for once.
    pub(crate) async fn take_name(&mut self, name: &str) -> Result<(), Fault> {
        if !self.named {
            self.first::<Option<u8>>(format!("SELECT GET_LOCK({name}, 0)"), Patience::Read).await?;
            self.named = true;
        }
        Ok(())
    }

    /// From now on the server ends the connection, and what was begun on it, if it hears nothing for
    /// [`MYSQL_WRITER_SILENCE_S`] inside a transaction. Returns whether it can: MySQL cannot tell that from silence
    /// between two transactions.
    pub(crate) async fn limit_silence_in_transactions(&mut self) -> Result<bool, Fault> {
        const UNKNOWN_VARIABLE: u16 = 1193;
        let set = format!("SET SESSION idle_transaction_timeout = {MYSQL_WRITER_SILENCE_S}");
        match self.run(set, Patience::Read).await {
            Ok(()) => Ok(true),
            Err(Fault::Driver(Error::Server(error))) if error.code == UNKNOWN_VARIABLE => Ok(false),
            Err(fault) => Err(fault),
        }
    }

    /// The same, in and between transactions.
    pub(crate) async fn limit_silence(&mut self) -> Result<(), Fault> {
        self.run(format!("SET SESSION wait_timeout = {MYSQL_WRITER_SILENCE_S}"), Patience::Read).await
    }

    /// The driver's connection, for what is done before anything is served.
    pub(crate) fn driver(&mut self) -> &mut Conn {
        &mut self.conn
    }

    /// Longest statement the server takes from us.
    pub(crate) fn statement_bytes_max(&self) -> usize {
        self.statement_bytes_max
    }

    /// What statements may be, with so many rows.
    pub(crate) fn bounds(&self, rows_max: usize) -> Result<Bounds, Fault> {
        match self.statement_bytes_max < STATEMENT_BYTES_MIN {
            true => Err(Fault::PacketLimit { found: self.statement_bytes_max, needed: STATEMENT_BYTES_MIN }),
            false => Ok(Bounds { rows_max, bytes_max: self.statement_bytes_max }),
        }
    }

    /// Whether a commit survives a power loss, as far as the server's settings say.
    pub(crate) fn is_durable_at_commit(&self) -> bool {
        self.durable_at_commit
    }
}

async fn connect(opts: &Opts) -> Result<Connection, Fault> {
    let mut conn = Conn::new(opts.clone()).await?;
    // No gap locks for a writer that inserts in order; and errors, not warnings, for what does not fit.
    conn.query_drop("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED").await?;
    conn.query_drop(format!(
        "SET SESSION sql_mode = 'STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', \
         SESSION innodb_lock_wait_timeout = {MYSQL_LOCK_TIMEOUT_S}"
    ))
    .await?;
    let settings: Option<(usize, u8)> =
        conn.query_first("SELECT @@max_allowed_packet, @@innodb_flush_log_at_trx_commit").await?;
    let (packet_bytes_max, flush) = settings.unwrap_or((0, 0));
    Ok(Connection {
        conn,
        // The command's own byte, and then some.
        statement_bytes_max: packet_bytes_max.saturating_sub(64).min(MYSQL_STATEMENT_BYTES_MAX),
        durable_at_commit: flush == 1,
        named: false,
    })
}

/// What a connection is made with.
pub(crate) fn options(url: &Opts) -> Opts {
    OptsBuilder::from_opts(url.clone())
        // The address that was configured, and not the socket that the server names.
        .prefer_socket(false)
        .stmt_cache_size(0)
        .tcp_keepalive(Some(Duration::from_secs(30)))
        // Both are read in `connect`, with what else is to be known.
        .max_allowed_packet(Some(1 << 30))
        .wait_timeout(Some(28_800))
        .into()
}

/// The connections that read.
#[derive(Debug)]
pub(crate) struct Readers {
    opts: Opts,
    idle: Vec<Connection>,
    /// No more are kept, or read at once.
    connections_max: usize,
}

impl Readers {
    /// None is made yet.
    pub(crate) fn new(opts: Opts, connections_max: usize) -> Self {
        Readers { opts, idle: Vec::new(), connections_max: connections_max.max(1) }
    }

    /// What they are made with.
    pub(crate) fn opts(&self) -> &Opts {
        &self.opts
    }

    /// One that is idle, or a new one.
    pub(crate) async fn take(&mut self) -> Result<Connection, Fault> {
        match self.idle.pop() {
            Some(connection) => Ok(connection),
            None => Connection::open(&self.opts).await,
        }
    }

    /// As many as are wanted and may be; at least one, and fewer if the server gives no more.
    pub(crate) async fn take_some(&mut self, wanted: usize) -> Result<Vec<Connection>, Fault> {
        let wanted = wanted.clamp(1, self.connections_max);
        let mut taken = self.idle.split_off(self.idle.len().saturating_sub(wanted));
        while taken.len() < wanted {
            match Connection::open(&self.opts).await {
                Ok(connection) => taken.push(connection),
                Err(fault) if taken.is_empty() => return Err(fault),
                Err(fault) => {
                    tracing::debug!(error = %Chain(&fault), having = taken.len(), "fewer connections read than may");
                    break;
                }
            }
        }
        Ok(taken)
    }

    /// A new one, in place of one that was found dead; the idle ones have most likely gone with it.
    pub(crate) async fn take_fresh(&mut self) -> Result<Connection, Fault> {
        self.idle.clear();
        Connection::open(&self.opts).await
    }

    /// It is idle again.
    pub(crate) fn give_back(&mut self, connection: Connection) {
        if self.idle.len() < self.connections_max {
            self.idle.push(connection);
        }
    }
}
