//! The database's content when all is over, into the history.

use std::time::Duration;

use mysql_async::Conn;
use mysql_async::prelude::Queryable;
use tokio::time::sleep;

use crate::error::Failure;
use crate::history::{Line, Recorder, Row, To};
use crate::mariadb::MariaDb;

/// How long the store may take to have written everything.
const DRAIN_PATIENCE: Duration = Duration::from_secs(180);
const GROUP: u8 = 1;

const ROWS: &str = "SELECT i.user_id, i.seq, i.msg_id, m.sender, m.conversation_kind, m.conversation_id, m.body \
                    FROM inbox i LEFT JOIN messages m USING (msg_id) ORDER BY i.user_id, i.seq";

type Stored = (u64, u64, u64, Option<u64>, Option<u8>, Option<u64>, Option<Vec<u8>>);

/// Waits until the database has as many rows as the inboxes, or no more come, and notes all of them.
pub(crate) async fn read(recorder: &Recorder, rows_wanted: u64) -> Result<(), Failure> {
    let mut conn = Conn::from_url(MariaDb::url("ringway")).await?;
    for _ in 0..DRAIN_PATIENCE.as_millis() / 200 {
        let rows: Option<u64> = conn.query_first("SELECT COUNT(*) FROM inbox").await?;
        if rows.unwrap_or_default() >= rows_wanted {
            break;
        }
        sleep(Duration::from_millis(200)).await;
    }
    let mut rows = conn.query_iter(ROWS).await?;
    while let Some(row) = rows.next().await? {
        let (user, seq, msg_id, sender, kind, conversation, body): Stored = mysql_async::from_row(row);
        let conversation = conversation.unwrap_or_default();
        let to = if kind == Some(GROUP) { To::Group(conversation) } else { To::User(conversation) };
        let body = body.map(|body| String::from_utf8_lossy(&body).into_owned());
        let body = body.unwrap_or_else(|| "(its message is not in the database)".to_owned());
        let row = Row { seq, msg_id, sender: sender.unwrap_or_default(), to, body };
        recorder.record(&Line::Stored { user, row })?;
    }
    drop(rows);
    Ok(conn.disconnect().await?)
}
