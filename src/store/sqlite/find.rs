//! Finding messages by their senders' names for them.
//!
//! What always holds: nothing is changed, and the position was read first: what is found is of then or later.

use rusqlite::{Connection, OptionalExtension, params};

use super::{NODE, bits, stored};
use crate::contract::position::AppliedPosition;
use crate::contract::store::{Lookup, StoredMessage};
use crate::store::NamesFound;
use ringway_wire::ids::{MsgId, Seq};

/// What was stored under these names.
pub(super) fn find(connection: &Connection, lookups: &[Lookup]) -> Result<NamesFound, rusqlite::Error> {
    let mut position = connection.prepare_cached("SELECT position FROM ledger_position WHERE node = ?1")?;
    let at = position.query_row([NODE], |row| row.get(0)).optional()?;
    let mut statement = connection.prepare_cached(
        "SELECT msg_id, sender_seq, sent_at, digest FROM messages WHERE sender = ?1 AND client_msg_id = ?2",
    )?;
    let mut look = |lookup: &Lookup| {
        let named = params![stored(lookup.sender.0), &lookup.client_msg_id.0[..]];
        let found = statement.query_row(named, |row| {
            Ok(StoredMessage {
                msg_id: MsgId(bits(row.get(0)?)),
                seq: Seq(bits(row.get(1)?)),
                sent_at_ms: bits(row.get(2)?),
                digest: bits(row.get(3)?),
            })
        });
        found.optional()
    };
    let messages = lookups.iter().map(&mut look).collect::<Result<_, _>>()?;
    Ok(NamesFound { at: AppliedPosition(at.map_or(0, bits)), messages })
}
