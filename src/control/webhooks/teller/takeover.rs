//! In a cluster: which node tells, and where it goes on.
//!
//! The node whose store writes the database does; that is leased already, and there is one. How far each endpoint is, as an entry
//! of the stream, all nodes know from the database's cursors, under a user that nobody is. What always holds: a node that takes
//! over goes on at or before what was told; what is told twice has the same ids of events.

use ringway_wire::ids::{DeviceId, Seq, UserId};
use sha2::{Digest, Sha256};

use super::{Interrupt, Teller};
use crate::api::dispatch::{Answer, Question};
use crate::contract::chain::Chain;
use crate::contract::store::CursorRow;
use crate::control::webhooks::events::ToldUpTo;

/// Under whose cursors the endpoints' are kept.
const NOBODY: UserId = UserId(u64::MAX);

impl Teller {
    /// Whether this node tells; begins to, if it is its turn.
    pub(super) async fn lead(&mut self) -> Result<bool, Interrupt> {
        let is_ours = self.around.source.progress.writes_store();
        if is_ours && !self.leads {
            let asked = self.around.dispatcher.ask_one(Question::Cursor(NOBODY, self.device())).await;
            // The database does not answer: it is asked again.
            let Ok(Answer::Cursor(cursor)) = asked else { return Ok(false) };
            self.leads = self.take_over(cursor.map(|Seq(entry)| entry));
        } else if !is_ours {
            self.leads = false;
        }
        self.show();
        Ok(self.leads)
    }

    /// Goes on behind an entry; with a new endpoint, at the end of the stream.
    fn take_over(&mut self, entry: Option<u64>) -> bool {
        let (durable, followed) = (self.around.source.progress.durable(), self.around.source.progress.followed());
        let entry = entry.map_or(followed.0, |entry| entry.max(self.kept.entry));
        let (at, first) = match self.feed.behind_entry(entry, durable) {
            Ok(found) => found,
            Err(error) => {
                self.failed(Chain(&error).to_string());
                return false;
            }
        };
        if let Some(first) = first
            && first > entry + 1
        {
            let name = &self.endpoint.name;
            tracing::error!(
                webhook = name,
                told = entry,
                first,
                "this node has not read the stream since: what lies between is not told"
            );
        }
        self.kept.batch = None;
        (self.kept.entry, self.entry) = (entry, entry);
        self.kept.set_told(ToldUpTo { at, recipients: 0 });
        self.current = None;
        self.feed.seek(at);
        self.keep();
        // Whoever takes over next is not to begin at the end with one that is new.
        self.share();
        true
    }

    /// Lets the other nodes know how far the endpoint is.
    pub(super) fn share(&self) {
        if !self.around.source.is_cluster || self.entry == 0 {
            return;
        }
        let row = CursorRow { user: NOBODY, device: self.device(), seq: Seq(self.kept.entry) };
        let dispatcher = self.around.dispatcher.clone();
        // What is not kept now is kept with the next request: until then a node that takes over tells a little again.
        tokio::spawn(async move { dispatcher.ask_one(Question::KeepCursors(vec![row])).await.is_ok() });
    }

    fn device(&self) -> DeviceId {
        let digest = Sha256::digest(self.endpoint.name.as_bytes());
        DeviceId(digest.first_chunk().map_or(0, |bytes| u64::from_be_bytes(*bytes)))
    }
}
