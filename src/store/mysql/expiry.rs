//! Retention in a MySQL database.
//!
//! What always holds: whoever is in a pass holds a lock of the database by the connection that it deletes on; with
//! the connection goes the lock, and the pass begins anew. Each statement commits by itself.

use std::fmt::Write;

use mysql_async::Opts;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::MySqlStore;
use super::connection::{Connection, Patience};
use super::fault::Fault;
use crate::limits::{RETENTION_ROWS, RETENTION_USERS};
use crate::store::retention::{Done, Expire, Expiring, MessagesExpired, RowsExpired, Step, Walk};
use ringway_wire::ids::{MsgId, UserId};

const LOCK: &str = "CONCAT('ringway.expiry.', LEFT(SHA2(DATABASE(), 256), 40))";

/// An inbox's two ends: seq and message of the oldest row and of the newest.
#[derive(Clone, Copy)]
struct Ends {
    user: u64,
    oldest: (u64, u64),
    newest: (u64, u64),
}

/// What deletes: steps in tasks of their own on the store's runtime, one after another.
#[derive(Debug)]
pub(super) struct Expirer {
    opts: Opts,
    /// During a pass: the connection that holds the lock of it.
    connection: Option<Connection>,
    /// The step on its way, which gives the connection back.
    task: Option<JoinHandle<Option<Connection>>>,
}

impl Expirer {
    /// Nothing is connected yet.
    pub(super) fn new(opts: Opts) -> Self {
        Expirer { opts, connection: None, task: None }
    }

    fn begin(&mut self, step: Step) -> Expiring {
        let (tell, told) = oneshot::channel();
        let before = self.task.take();
        let (opts, mut connection) = (self.opts.clone(), self.connection.take());
        self.task = Some(tokio::spawn(async move {
            if let Some(before) = before {
                connection = before.await.ok().flatten();
            }
            let done = take(step, &opts, &mut connection).await;
            if done.is_err() {
                // The lock goes with it.
                connection = None;
            }
            // Nobody waits any more: the gateway is stopping.
            tell.send(done.map_err(|fault| fault.into_store("deleting old messages"))).ok();
            connection
        }));
        // The task ends without a word only when its runtime does.
        let abandoned = |_| Err(Fault::Abandoned.into_store("deleting old messages"));
        Box::pin(async move { told.await.unwrap_or_else(abandoned) })
    }
}

impl Expire for MySqlStore {
    fn expire(&mut self, step: Step) -> Expiring {
        self.expirer.begin(step)
    }
}

/// Takes a step on the connection that holds the lock.
async fn take(step: Step, opts: &Opts, held: &mut Option<Connection>) -> Result<Done, Fault> {
    if let Step::Begin { cutoff } = step {
        let mut connection = Connection::open(opts).await?;
        let done = begin(&mut connection, cutoff).await?;
        *held = matches!(done, Done::Begun(_)).then_some(connection);
        return Ok(done);
    }
    let connection = held.as_mut().ok_or(Fault::NotExpiring)?;
    match step {
        Step::Rows { cutoff, walk } => expire_rows(connection, cutoff, walk).await.map(Done::Rows),
        Step::Messages { cutoff, after } => expire_messages(connection, cutoff, after).await.map(Done::Messages),
        Step::Begin { .. } | Step::End => {
            *held = None;
            Ok(Done::Ended)
        }
    }
}

async fn begin(connection: &mut Connection, cutoff: MsgId) -> Result<Done, Fault> {
    let lock = format!("SELECT GET_LOCK({LOCK}, 0)");
    if connection.first::<Option<u8>>(lock, Patience::Write).await?.flatten() != Some(1) {
        return Ok(Done::NothingToDo);
    }
    let stored = "SELECT COALESCE(MAX(msg_id_max), 0) FROM ledger_position";
    let stored = connection.first::<u64>(stored, Patience::Write).await?.unwrap_or(0);
    // What is not applied yet has higher numbers than what is.
    let cutoff = cutoff.min(MsgId(stored));
    if cutoff == MsgId(0) {
        return Ok(Done::NothingToDo);
    }
    let raise = format!(
        "INSERT INTO retention (id, kept_from) VALUES (1, {}) \
         ON DUPLICATE KEY UPDATE kept_from = GREATEST(kept_from, VALUES(kept_from))",
        cutoff.0
    );
    connection.run(raise, Patience::Write).await?;
    connection.run("DELETE FROM retained_messages", Patience::Write).await?;
    Ok(Done::Begun(cutoff))
}

async fn expire_rows(connection: &mut Connection, cutoff: MsgId, walk: Walk) -> Result<RowsExpired, Fault> {
    let inboxes = next_inboxes(connection, walk).await?;
    let complete = inboxes.len() < RETENTION_USERS;
    retain_newest(connection, cutoff, &inboxes).await?;
    let (mut rows, mut walk) = (0, walk);
    for inbox in &inboxes {
        if inbox.oldest.1 < cutoff.0 && inbox.oldest.0 < inbox.newest.0 {
            let wanted = RETENTION_ROWS - rows;
            let deleted = expire_inbox(connection, inbox, cutoff, wanted).await?;
            rows += deleted;
            if deleted == wanted {
                // The same user may have more.
                return Ok(RowsExpired { rows: rows as u64, walk });
            }
        }
        walk = Walk::After(UserId(inbox.user));
    }
    Ok(RowsExpired { rows: rows as u64, walk: if complete { Walk::End } else { walk } })
}

/// The next users, in order: the server jumps from one to the next (a loose index scan).
async fn next_inboxes(connection: &mut Connection, walk: Walk) -> Result<Vec<Ends>, Fault> {
    let after = match walk {
        Walk::Begin => String::new(),
        Walk::After(user) => format!("WHERE user_id > {}", user.0),
        Walk::End => return Ok(Vec::new()),
    };
    let ends = format!(
        "SELECT user_id, MIN(seq), MAX(seq) FROM inbox {after} GROUP BY user_id ORDER BY user_id LIMIT {RETENTION_USERS}"
    );
    let ends = connection.rows::<(u64, u64, u64)>(ends, Patience::Write).await?;
    if ends.is_empty() {
        return Ok(Vec::new());
    }
    let mut text = String::from("SELECT user_id, seq, msg_id FROM inbox WHERE ");
    for (at, (user, oldest, newest)) in ends.iter().enumerate() {
        let or = if at > 0 { " OR " } else { "" };
        // A String takes whatever is written to it.
        write!(text, "{or}(user_id = {user} AND seq IN ({oldest}, {newest}))").ok();
    }
    text.push_str(" ORDER BY user_id, seq");
    let mut inboxes: Vec<Ends> = Vec::with_capacity(ends.len());
    for (user, seq, msg_id) in connection.rows::<(u64, u64, u64)>(text, Patience::Write).await? {
        match inboxes.last_mut() {
            Some(same) if same.user == user => same.newest = (seq, msg_id),
            _ => inboxes.push(Ends { user, oldest: (seq, msg_id), newest: (seq, msg_id) }),
        }
    }
    Ok(inboxes)
}

/// Notes the old messages that newest rows refer to.
async fn retain_newest(connection: &mut Connection, cutoff: MsgId, inboxes: &[Ends]) -> Result<(), Fault> {
    let mut text = String::new();
    for inbox in inboxes.iter().filter(|inbox| inbox.newest.1 < cutoff.0) {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}({})", inbox.newest.1).ok();
    }
    match text.is_empty() {
        true => Ok(()),
        false => {
            let insert = format!("INSERT IGNORE INTO retained_messages (msg_id) VALUES {text}");
            connection.run(insert, Patience::Write).await
        }
    }
}

/// Deletes at most so many of a user's old rows, oldest first, but never the newest.
async fn expire_inbox(
    connection: &mut Connection,
    inbox: &Ends,
    cutoff: MsgId,
    rows_max: usize,
) -> Result<usize, Fault> {
    let Ends { user, newest: (newest, _), .. } = *inbox;
    let oldest = format!(
        "SELECT seq, msg_id FROM inbox WHERE user_id = {user} AND seq < {newest} ORDER BY seq LIMIT {rows_max}"
    );
    let rows = connection.rows::<(u64, u64)>(oldest, Patience::Write).await?;
    let old: Vec<u64> = rows.iter().take_while(|(_, msg_id)| *msg_id < cutoff.0).map(|(seq, _)| *seq).collect();
    let Some(last) = old.last() else { return Ok(0) };
    let delete = format!("DELETE FROM inbox WHERE user_id = {user} AND seq <= {last}");
    connection.run(delete, Patience::Write).await?;
    Ok(old.len())
}

async fn expire_messages(connection: &mut Connection, cutoff: MsgId, after: MsgId) -> Result<MessagesExpired, Fault> {
    let (after, cutoff) = (after.0, cutoff.0);
    let ids = format!(
        "SELECT msg_id FROM messages WHERE msg_id > {after} AND msg_id < {cutoff} ORDER BY msg_id LIMIT {RETENTION_ROWS}"
    );
    let ids = connection.rows::<u64>(ids, Patience::Write).await?;
    let Some(last) = ids.last().copied() else { return Ok(MessagesExpired { messages: 0, through: None }) };
    let retained = format!("SELECT msg_id FROM retained_messages WHERE msg_id > {after} AND msg_id <= {last}");
    let retained = connection.rows::<u64>(retained, Patience::Write).await?;
    let mut text = String::new();
    let gone = ids.iter().filter(|id| !retained.contains(id));
    let mut messages = 0;
    for id in gone {
        let comma = if text.is_empty() { "" } else { "," };
        write!(text, "{comma}{id}").ok();
        messages += 1;
    }
    if messages > 0 {
        connection.run(format!("DELETE FROM messages WHERE msg_id IN ({text})"), Patience::Write).await?;
    }
    Ok(MessagesExpired { messages, through: Some(MsgId(last)) })
}
