//! What was stored under a name, from the database and from the unapplied tail.
//!
//! What always holds: what is in the tail needs no database; and a name is never said to be unknown that retention may
//! have deleted, or that a database lacks because it is not so far as this node knows it to have been: it went back, or a
//! replica that lags was asked.

use super::position::Follows;
use super::{Fault, Keeper};
use crate::contract::internal::{OrCount, Place};
use crate::contract::store::{Lookup, LookupAnswer, LookupFound};
use crate::journal::disk::Disk;
use crate::store::{NamesFound, Store};
use ringway_wire::ids::MsgId;
use ringway_wire::limits::CLIENT_MSG_ID_AHEAD_MS;

impl<S: Store, D: Disk> Keeper<S, D> {
    /// Answers the ledger.
    pub async fn lookup(&mut self, lookup: Lookup) -> LookupAnswer {
        let mut answers = Vec::with_capacity(1);
        self.lookups(&[lookup], &mut answers).await;
        answers.pop().or_count(Place::Store).unwrap_or(LookupAnswer { lookup, found: LookupFound::Unavailable })
    }

    /// Answers the ledger, several at once; the answers are appended, parallel to the look-ups.
    pub(crate) async fn lookups(&mut self, lookups: &[Lookup], answers: &mut Vec<LookupAnswer>) {
        self.counters.lookups += lookups.len() as u64;
        let found = match self.find(lookups).await {
            Ok(found) => found,
            Err(fault) => {
                self.refused(&fault);
                vec![LookupFound::Unavailable; lookups.len()]
            }
        };
        answers.extend(std::iter::zip(lookups, found).map(|(lookup, found)| LookupAnswer { lookup: *lookup, found }));
    }

    async fn find(&mut self, lookups: &[Lookup]) -> Result<Vec<LookupFound>, Fault> {
        self.prepare_read().await?;
        let mut found = vec![LookupFound::Nothing; lookups.len()];
        let (mut unknown, mut places) = (Vec::new(), Vec::new());
        for (place, lookup) in lookups.iter().enumerate() {
            match self.tail.find(lookup)? {
                Some(message) => found[place] = LookupFound::Stored(message),
                None => {
                    unknown.push(*lookup);
                    places.push(place);
                }
            }
        }
        if unknown.is_empty() {
            return Ok(found);
        }
        let stored = match self.reads_unavailable {
            true => Err(Fault::Unavailable),
            false => self.store.find(&unknown).await.map_err(Fault::Store),
        };
        match stored {
            Ok(NamesFound { at, messages: stored }) => {
                let missing = stored.iter().any(Option::is_none);
                let is_behind = self.follows == Follows::Stream && at < self.progress.applied();
                if missing && is_behind {
                    self.refused(&Fault::Unavailable);
                }
                // Asked after the look-up: before a message is deleted, this is raised above it.
                let kept_from = if missing { self.store.kept_from().await? } else { MsgId(0) };
                for (place, message) in std::iter::zip(places, stored) {
                    found[place] = match message {
                        Some(message) => LookupFound::Stored(message),
                        None if is_behind => LookupFound::Unavailable,
                        None if is_older(&lookups[place], kept_from) => LookupFound::Expired,
                        None => LookupFound::Nothing,
                    };
                }
            }
            Err(fault) => {
                self.refused(&fault);
                for place in places {
                    found[place] = LookupFound::Unavailable;
                }
            }
        }
        Ok(found)
    }
}

/// Whether a message of this name may have had a number below `kept_from`.
fn is_older(lookup: &Lookup, kept_from: MsgId) -> bool {
    let named_ms = lookup.client_msg_id.unix_ms().unwrap_or(0);
    kept_from > MsgId(0) && named_ms <= kept_from.sent_at_ms() + CLIENT_MSG_ID_AHEAD_MS
}
