//! What one submission looks like on its way to Redis, and its entry on the way back.
//!
//! Used by the ledger's thread. What always holds: what was read from the stream is decoded without panic, whatever it
//! holds; a submission's rows come back in the order of the members' user ids, whatever the shards of a node.

use crate::ids::{Conversation, MsgId, RosterVersion, Seq, UserId};
use crate::journal::record::{RECORD_PREFIX_BYTES, Record, RecordError};
use crate::ledger::dedup::Name;
use crate::message::Roster;

/// A row's number in an entry, and in the string of all seqs.
pub const SEQ_BYTES: usize = 6;
/// Values of one submission in a call.
pub const VALUES: usize = 8;
/// The time that names of one hash of claims lie in, milliseconds.
const CLAIMS_SLICE_MS: u64 = 10_000;

/// An entry of the stream, without its rows.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// Who submitted it.
    pub node: u16,
    /// Of a group message: the roster's version. Zero otherwise.
    pub version: RosterVersion,
    /// What it is. A message's own fields for its rows are empty: they stand beside it.
    pub record: Record<'a>,
}

impl<'a> Entry<'a> {
    /// As bytes.
    pub fn encode(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend_from_slice(&self.node.to_le_bytes());
        out.extend_from_slice(&self.version.0.to_le_bytes());
        self.record.encode(&mut out);
        out
    }

    /// From exactly its bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Entry<'a>, RecordError> {
        let (node, rest) = bytes.split_first_chunk::<2>().ok_or(RecordError::Short)?;
        let (version, rest) = rest.split_first_chunk::<4>().ok_or(RecordError::Short)?;
        let record = rest.get(RECORD_PREFIX_BYTES..).ok_or(RecordError::Short)?;
        let record = Record::decode(record)?;
        Ok(Entry { node: u16::from_le_bytes(*node), version: RosterVersion(u32::from_le_bytes(*version)), record })
    }
}

/// The rows beside an entry.
pub fn rows(bytes: &[u8]) -> impl ExactSizeIterator<Item = Seq> + '_ {
    bytes.chunks_exact(SEQ_BYTES).map(seq)
}

/// A seq as Redis keeps it.
pub fn seq_bytes(seq: Seq) -> [u8; SEQ_BYTES] {
    let mut bytes = [0; SEQ_BYTES];
    bytes.copy_from_slice(&seq.0.to_be_bytes()[8 - SEQ_BYTES..]);
    bytes
}

fn seq(bytes: &[u8]) -> Seq {
    Seq(bytes.iter().fold(0, |sum, byte| (sum << 8) | u64::from(*byte)))
}

/// What is kept of a claimed name: message, digest, and the sender's row, which Redis adds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The message that has the name.
    pub msg_id: MsgId,
    /// [`crate::ledger::dedup::digest`] of it.
    pub digest: u64,
    /// The sender's row.
    pub seq: Seq,
}

impl Claimed {
    /// From what a call replied.
    pub fn decode(bytes: &[u8]) -> Option<Claimed> {
        let (msg_id, rest) = bytes.split_first_chunk::<8>()?;
        let (digest, rest) = rest.split_first_chunk::<8>()?;
        let (msg_id, digest) = (MsgId(u64::from_be_bytes(*msg_id)), u64::from_be_bytes(*digest));
        (rest.len() == SEQ_BYTES).then(|| Claimed { msg_id, digest, seq: seq(rest) })
    }
}

/// A submission's values in a call of `submit.lua`.
pub type Values = [Vec<u8>; VALUES];

/// A one-to-one message's.
pub fn direct_values(name: &Name, msg_id: MsgId, digest: u64, to: UserId, entry: &Entry<'_>) -> Values {
    let (key, slice, known) = claim(name, msg_id, digest);
    let ends = (name.sender.0.to_be_bytes().to_vec(), to.0.to_be_bytes().to_vec());
    [b"D".to_vec(), ends.0, ends.1, key, slice, known, Vec::new(), entry.encode()]
}

/// A group message's. `place` is the sender's among the members by user id.
pub fn group_values(
    name: &Name,
    msg_id: MsgId,
    digest: u64,
    roster: &Roster,
    place: usize,
    entry: &Entry<'_>,
) -> Values {
    let (key, slice, known) = claim(name, msg_id, digest);
    let group = roster.group.0.to_string().into_bytes();
    let version = roster.version.0.to_string().into_bytes();
    [b"G".to_vec(), group, version, key, slice, known, (place + 1).to_string().into_bytes(), entry.encode()]
}

/// A change's: `members` are those after it, by user id.
pub fn change_values(group: u64, before: RosterVersion, members: &[UserId], entry: &Entry<'_>) -> Values {
    let (group, version) = (group.to_string().into_bytes(), before.0.to_string().into_bytes());
    [b"C".to_vec(), group, version, users_bytes(members), Vec::new(), Vec::new(), Vec::new(), entry.encode()]
}

/// User ids one behind the other.
pub fn users_bytes(users: &[UserId]) -> Vec<u8> {
    users.iter().flat_map(|user| user.0.to_be_bytes()).collect()
}

/// The places of a roster's members among them by user id: a row of an entry belongs to the member who has its place.
pub fn places(roster: &Roster) -> Box<[u32]> {
    let mut by_user: Vec<u32> = (0..roster.members().len() as u32).collect();
    by_user.sort_unstable_by_key(|at| roster.members().get(*at as usize).map(|member| member.user));
    let mut places = vec![0; by_user.len()];
    for (place, at) in by_user.iter().enumerate() {
        places[*at as usize] = place as u32;
    }
    places.into()
}

fn claim(name: &Name, msg_id: MsgId, digest: u64) -> (Vec<u8>, Vec<u8>, Vec<u8>) {
    let key = [&name.sender.0.to_be_bytes()[..], &name.client_msg_id.0].concat();
    let slice = name.client_msg_id.unix_ms().unwrap_or_default() / CLAIMS_SLICE_MS;
    let known = [msg_id.0.to_be_bytes(), digest.to_be_bytes()].concat();
    (key, slice.to_string().into_bytes(), known)
}

/// Where a message's conversation and body give its digest.
pub fn digest_of(to: Conversation, body: &[u8]) -> u64 {
    crate::ledger::dedup::digest(to, body)
}
