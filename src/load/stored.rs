//! Inbox rows, counted where they are kept: in the store's database, or, for a gateway elsewhere, page by page over
//! the protocol.
//!
//! Owned by the load generator's thread; reads only. What always holds: a row counts as stored only if it is the
//! very message that is due in its place of its user's inbox, under the number that follows the one before, so a
//! count that is complete also says that no row is missing, doubled, foreign or misplaced.

use std::net::SocketAddr;
use std::time::Duration;

use super::contract::StoredRows;
use super::error::LoadError;
use super::tokens::Secret;
use crate::clock::Clock;
use ringway_client::Event;
use ringway_client::blocking::Client;
use ringway_wire::ids::{DeviceId, MsgId, Seq, UserId};
use ringway_wire::limits::PAGE_ROWS_MAX;

const ANSWER_PATIENCE: Duration = Duration::from_secs(10);
/// The counting session's device; the benches' own is 1.
const COUNTING_DEVICE: DeviceId = DeviceId(0xC0DE);

/// What is stored of one user's expected rows.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub(crate) struct Found {
    /// Rows that are what is due in their place.
    pub rows: u64,
    /// Rows that are not.
    pub wrong: u64,
}

/// Where rows are counted.
pub(crate) enum Stored {
    /// Where the gateway stores them.
    Rows(Box<dyn StoredRows>),
    /// Over the protocol.
    Protocol(Inboxes),
}

/// The inboxes of a gateway whose store is not known.
pub(crate) struct Inboxes {
    addr: SocketAddr,
    secret: Secret,
    clock: Clock,
}

impl Stored {
    /// Reads over the protocol.
    pub(crate) fn protocol(addr: SocketAddr, secret: Secret, clock: Clock) -> Stored {
        Stored::Protocol(Inboxes { addr, secret, clock })
    }

    /// The user's newest row.
    pub(crate) fn newest(&self, user: UserId) -> Result<Seq, LoadError> {
        match self {
            Stored::Rows(rows) => Ok(rows.newest(user)?),
            Stored::Protocol(inboxes) => inboxes.log_in(user, None).map(|(_, newest)| newest),
        }
    }

    /// Whether a message is there. Over the protocol nothing is known before its rows are counted: true.
    pub(crate) fn has_message(&self, msg_id: MsgId) -> Result<bool, LoadError> {
        match self {
            Stored::Rows(rows) => Ok(rows.has_message(msg_id)?),
            Stored::Protocol(_) => Ok(true),
        }
    }

    /// Counts the user's rows after `after`, which must be `due`, one by one.
    pub(crate) fn count(&self, user: UserId, after: Seq, due: &[MsgId]) -> Result<Found, LoadError> {
        let mut matching = Matching { due, next: 0, seq: after, found: Found::default() };
        match self {
            Stored::Rows(rows) => rows.rows_after(user, after, &mut |seq, msg_id| matching.row(seq, msg_id))?,
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

impl Inboxes {
    /// A session that has `last_seq` already, and the user's newest row.
    fn log_in(&self, user: UserId, last_seq: Option<Seq>) -> Result<(Client, Seq), LoadError> {
        let token = self.secret.token(user, self.clock.unix_ms());
        let client = Client::connect(self.addr.to_string(), token, COUNTING_DEVICE, last_seq)
            .map_err(LoadError::client("counting stored rows over the protocol failed"))?;
        let newest = client.session().map_or(Seq(0), |info| info.last_seq);
        Ok((client, newest))
    }

    fn read(&self, user: UserId, after: Seq, matching: &mut Matching<'_>) -> Result<(), LoadError> {
        // From the newest row on: what is read are pages, not what the session would catch up with.
        let (_, newest) = self.log_in(user, None)?;
        let (mut client, _) = self.log_in(user, Some(newest))?;
        let mut from = after;
        loop {
            let page = client
                .sync(from, PAGE_ROWS_MAX as u32, ANSWER_PATIENCE)
                .map_err(LoadError::client("reading an inbox failed"))?;
            let Event::Page { rows, through, end, .. } = page else { return Ok(()) };
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
        let due = [MsgId(11), MsgId(12), MsgId(13)];
        let mut matching = Matching { due: &due, next: 0, seq: Seq(5), found: Found::default() };
        rows.iter().for_each(|(seq, msg_id)| matching.row(Seq(*seq), MsgId(*msg_id)));
        assert_eq!(matching.found, expected);
    }

    #[test]
    fn rows_that_are_due_are_counted() {
        check(&[(6, 11), (7, 12), (8, 13)], Found { rows: 3, wrong: 0 });
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
