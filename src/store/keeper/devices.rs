//! Where devices stopped, from the database and from the cursors that wait to be saved.
//!
//! What always holds: all who ask together are answered by one question to the database, so that a crowd that logs in
//! at once waits for a few round trips, and not for one each.

use super::{Fault, Keeper};
use crate::contract::ids::{Origin, ShardId};
use crate::contract::store::StoreAnswer;
use crate::journal::disk::Disk;
use crate::store::Store;
use ringway_wire::ids::{DeviceId, UserId};

/// A cursor that a shard asks for: see `StoreAsk::Cursor`.
#[derive(Clone, Copy, Debug)]
pub(crate) struct CursorAsked {
    /// Who logs in.
    pub(crate) origin: Origin,
    /// Its user.
    pub(crate) user: UserId,
    /// Its device.
    pub(crate) device: DeviceId,
}

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Answers shards, several at once; the answers are appended, parallel to `asked`.
    pub(crate) async fn cursors(&mut self, asked: &[CursorAsked], answers: &mut Vec<(ShardId, StoreAnswer)>) {
        if asked.is_empty() {
            return;
        }
        let devices: Vec<(UserId, DeviceId)> = asked.iter().map(|asked| (asked.user, asked.device)).collect();
        let stored = match self.reads_unavailable {
            true => Err(Fault::Unavailable),
            false => self.store.cursors(&devices).await.map_err(Fault::Store),
        };
        if let Err(fault) = &stored {
            self.refused(fault);
        }
        for (at, CursorAsked { origin, user, device }) in asked.iter().copied().enumerate() {
            let kept = self.cursors.find(user, device);
            let answer = match (&stored, kept) {
                (Ok(stored), kept) => StoreAnswer::Cursor { origin, seq: stored.get(at).copied().flatten().max(kept) },
                (Err(_), Some(kept)) => StoreAnswer::Cursor { origin, seq: Some(kept) },
                (Err(_), None) => StoreAnswer::Unavailable { session: origin.session, purpose: None },
            };
            answers.push((origin.session.shard, answer));
        }
    }
}
