//! What one submission looks like on its way to Redis, and its entry on the way back.
//!
//! Used by the ledger's thread. What always holds: what was read from the stream is decoded without panic, whatever it
//! holds. An entry has no rows: whoever follows the stream numbers them.

use crate::contract::ids::mixed;
use crate::journal::record::{RECORD_PREFIX_BYTES, Record, RecordError};
use crate::ledger::dedup::Name;
use ringway_wire::ids::{GroupId, MsgId, RosterVersion, UserId};

/// Values of one submission in a call.
pub(crate) const VALUES: usize = 8;
/// The time that names of one hash of claims lie in, milliseconds.
const CLAIMS_SLICE_MS: u64 = 10_000;

/// An entry of the stream.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Entry<'a> {
    /// Who submitted it.
    pub(crate) node: u16,
    /// Of a group message: the roster's version. Zero otherwise.
    pub(crate) version: RosterVersion,
    /// What it is. A message's own fields for its rows are empty.
    pub(crate) record: Record<'a>,
}

impl<'a> Entry<'a> {
    /// As bytes.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.version.0.to_le_bytes());
        self.record.encode(&mut out);
        out
    }

    /// From exactly its bytes.
    pub(crate) fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, RecordError> {
        let (node, rest) = bytes.split_first_chunk::<2>().ok_or(RecordError::Short)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(RecordError::Short)?;
        let record = rest.get(RECORD_PREFIX_BYTES..).ok_or(RecordError::Short)?;
        let record = Record::decode(record)?;
        Ok(Entry { node: u16::from_le_bytes(*node), version: RosterVersion(u32::from_le_bytes(*version)), record })
    }
}

/// What is kept of a claimed name: message, digest, and the number of its entry, which Redis adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claimed {
    /// The message that has the name.
    pub(crate) msg_id: MsgId,
    /// [`crate::contract::digest::digest`] of it.
    pub(crate) digest: u64,
    /// Its entry.
    pub(crate) count: u64,
}

impl Claimed {
    /// From what a call replied.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Claimed> {
        let (msg_id, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<8>()?;
        let (msg_id, digest) = (MsgId(u64::from_be_bytes(*msg_id)), u64::from_be_bytes(*digest));
        let count = std::str::from_utf8(rest).ok()?.parse().ok()?;
        Some(Claimed { msg_id, digest, count })
    }
}

/// A submission on its way to Redis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Call {
    /// What `submit.lua` takes of it.
    pub values: [Vec<u8>; VALUES],
    /// Where it belongs.
    pub(crate) home: Home,
    /// Where its name belongs, if it has one.
    pub(crate) named: Option<Home>,
}

/// What decides in which of the ledger's buckets something lies: the same on every node, for as long as there is a
/// ledger.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Home(u64);

impl Home {
    /// A conversation of one user with another, and the names that the user gives to messages.
    pub fn of_sender(sender: UserId) -> Home {
        Home(mixed(sender.0))
    }

    /// A group, its messages and its changes.
    pub fn of_group(group: GroupId) -> Home {
        Home(mixed(group.0))
    }

    /// Which bucket, of so many.
    pub fn bucket(self, buckets: usize) -> usize {
        (self.0 % buckets.max(1) as u64) as usize
    }
}

/// A one-to-one message's. `known_s`: nobody used its name before this second, or that is not known to this node.
pub(crate) fn direct_call(name: &Name, msg_id: MsgId, (digest, known_s): (u64, u64), entry: &Entry<'_>) -> Call {
    let (key, slice, known) = claim(name, msg_id, digest);
    let values = [b"D".to_vec(), Vec::new(), Vec::new(), key, slice, known, decimal(known_s), entry.encode()];
    let home = Home::of_sender(name.sender);
    Call { values, home, named: Some(home) }
}

/// A group message's; `known_s` as above.
pub(crate) fn group_call(
    name: &Name,
    msg_id: MsgId,
    (digest, known_s): (u64, u64),
    group: GroupId,
    entry: &Entry<'_>,
) -> Call {
    let (key, slice, known) = claim(name, msg_id, digest);
    let version = decimal(entry.version.0.into());
    let values = [b"G".to_vec(), decimal(group.0), version, key, slice, known, decimal(known_s), entry.encode()];
    Call { values, home: Home::of_group(group), named: Some(Home::of_sender(name.sender)) }
}

/// What a change leaves of its group.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Left {
    /// Somebody is in it.
    Members,
    /// Nobody.
    Nobody,
}

/// A change's.
pub(crate) fn change_call(group: GroupId, before: RosterVersion, left: Left, entry: &Entry<'_>) -> Call {
    let kind = match left {
        Left::Members => b"C",
        Left::Nobody => b"E",
    };
    let (id, version) = (decimal(group.0), decimal(before.0.into()));
    let values = [kind.to_vec(), id, version, Vec::new(), Vec::new(), Vec::new(), Vec::new(), entry.encode()];
    Call { values, home: Home::of_group(group), named: None }
}

/// A number as Redis keeps it.
pub(crate) fn decimal(number: u64) -> Vec<u8> {
    number.to_string().into_bytes()
}

fn claim(name: &Name, msg_id: MsgId, digest: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key = [&name.sender.0.to_be_bytes()[..], &name.client_msg_id.0].concat();
    let slice = name.client_msg_id.unix_ms().unwrap_or_default() / CLAIMS_SLICE_MS;
    let known = [msg_id.0.to_be_bytes(), digest.to_be_bytes()].concat();
    (key, decimal(slice), known)
}
