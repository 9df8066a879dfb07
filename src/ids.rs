//! The identifiers that cross boundaries, one newtype each, so that no two can be swapped.
//!
//! Plain values: nobody owns them, and every thread uses them. What always holds: a `SessionRef` names one
//! session for ever (its generation is never reused for the same slot within 2^32 sessions), and a `Seq` of
//! zero means "no row".

use std::fmt;

macro_rules! id {
    ($(#[$doc:meta])* $name:ident($inner:ty)) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
        #[repr(transparent)]
        pub struct $name(pub $inner);

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self.0)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0, f)
            }
        }
    };
}

id!(
    /// A shard's index, `0..shards`.
    ShardId(u16)
);
id!(
    /// A user, as the token's `sub` names it.
    UserId(u64)
);
id!(
    /// A group, numbered by the ledger like a message.
    GroupId(u64)
);
id!(
    /// One of a user's devices, chosen by the client.
    DeviceId(u64)
);
id!(
    /// A message: 41 bits milliseconds since [`crate::clock::MSG_ID_EPOCH_MS`], 10 bits node, 12 bits counter.
    MsgId(u64)
);
id!(
    /// A row's number in one user's inbox, from 1; 0 is "none".
    Seq(u64)
);
id!(
    /// The dense index the ledger gave a user; stable for one run of the process, never stored.
    LedgerSlot(u32)
);
id!(
    /// A roster's version, from 1, one more at each change of its group.
    RosterVersion(u32)
);

impl Seq {
    /// The next row's number.
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// The sender's own name for a message: a UUIDv7 in network byte order.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientMsgId(pub [u8; 16]);

impl ClientMsgId {
    /// The UUIDv7's time in milliseconds since the Unix epoch, or `None` if this is not a UUIDv7
    /// (RFC 9562: version nibble 7, variant bits 10).
    pub fn unix_ms(&self) -> Option<u64> {
        let b = &self.0;
        if b[6] >> 4 != 7 || b[8] >> 6 != 0b10 {
            return None;
        }
        let mut ms = [0u8; 8];
        ms[2..].copy_from_slice(&b[..6]);
        Some(u64::from_be_bytes(ms))
    }

    /// Builds a UUIDv7 from a time and 74 random bits (the high bits of `random` that do not fit are dropped).
    pub fn from_parts(unix_ms: u64, random: u128) -> Self {
        let mut b = random.to_be_bytes();
        b[..6].copy_from_slice(&unix_ms.to_be_bytes()[2..]);
        b[6] = 0x70 | (b[6] & 0x0f);
        b[8] = 0x80 | (b[8] & 0x3f);
        ClientMsgId(b)
    }
}

impl fmt::Debug for ClientMsgId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for byte in self.0 {
            write!(f, "{byte:02x}")?;
        }
        Ok(())
    }
}

/// A connection's place in its shard's slab, with the generation that tells two users of the slot apart.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct ConnId {
    /// The slab slot.
    pub slot: u32,
    /// One more each time the slot is reused.
    pub generation: u32,
}

/// What a shard finds a session by when an answer comes back. The session's connection may be gone by then:
/// the generation tells.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct SessionRef {
    /// The shard that has the session.
    pub shard: ShardId,
    /// The session's connection there.
    pub conn: ConnId,
}

/// Who asked, and under which request id the answer goes back.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Origin {
    /// The asking session.
    pub session: SessionRef,
    /// The request id its answer echoes.
    pub request_id: u32,
}

impl Origin {
    /// Nobody here asked: what comes from other nodes has no session on this one.
    pub const NOBODY: Origin = Origin {
        session: SessionRef { shard: ShardId(u16::MAX), conn: ConnId { slot: u32::MAX, generation: u32::MAX } },
        request_id: 0,
    };
}

/// Where a message is addressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Conversation {
    /// To one user.
    User(UserId),
    /// To a group's members.
    Group(GroupId),
}

/// Spreads a number over 64 bits (the finalizer of SplitMix64); the same in every process.
pub fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// The shard that owns what `id` names, of `shards` shards. The same on every shard and across restarts.
fn home(id: u64, shards: u16) -> ShardId {
    // Fibonacci hashing: consecutive ids spread evenly over the high bits, which are then scaled to the range.
    let spread = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
    ShardId(((u128::from(spread) * u128::from(shards)) >> 64) as u16)
}

impl UserId {
    /// The shard this user lives on.
    pub fn home(self, shards: u16) -> ShardId {
        home(self.0, shards)
    }
}

impl GroupId {
    /// The shard this group lives on.
    pub fn home(self, shards: u16) -> ShardId {
        home(self.0, shards)
    }
}
