//! What is known of one message, and of all devices of some users, for whoever follows a message.
//!
//! What always holds: what is in the tail needs no database; what the database does not say now is unavailable, and never said
//! not to be there.

use super::{Fault, Keeper};
use crate::contract::store::{MessageFound, TraceAsk, Traced};
use crate::journal::disk::Disk;
use crate::store::Store;
use ringway_wire::ids::{MsgId, UserId};

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Answers the API.
    pub(super) async fn trace(&mut self, ask: &TraceAsk) -> Traced {
        let traced = match ask {
            TraceAsk::Message(msg_id) => self.message(*msg_id).await.map(Traced::Message),
            TraceAsk::Devices(users) => self.devices(users).await,
        };
        traced.unwrap_or_else(|fault| {
            self.refused(&fault);
            Traced::Unavailable
        })
    }

    async fn message(&mut self, msg_id: MsgId) -> Result<Option<MessageFound>, Fault> {
        self.prepare_read().await?;
        if let Some((head, at)) = self.tail.message(msg_id)? {
            return Ok(Some(MessageFound { head, journal: Some(at) }));
        }
        if self.reads_unavailable {
            return Err(Fault::Unavailable);
        }
        Ok(self.store.message(msg_id).await?.map(|head| MessageFound { head, journal: None }))
    }

    /// What waits to be saved is newer than what the database has.
    async fn devices(&mut self, users: &[UserId]) -> Result<Traced, Fault> {
        if self.reads_unavailable {
            return Err(Fault::Unavailable);
        }
        let mut rows = self.store.devices(users).await?;
        for waiting in self.cursors.of(users) {
            match rows.iter_mut().find(|row| (row.user, row.device) == (waiting.user, waiting.device)) {
                Some(row) => row.seq = row.seq.max(waiting.seq),
                None => rows.push(waiting),
            }
        }
        rows.sort_unstable_by_key(|row| (row.user, row.device));
        Ok(Traced::Devices(rows))
    }
}
