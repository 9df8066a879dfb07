//! The identifiers that threads know each other's things by; those that cross the wire are in `ringway_wire::ids`.
//!
//! Plain values: nobody owns them, and every thread uses them. What always holds: a `SessionRef` names one
//! session for ever (its generation is never reused for the same slot within 2^32 sessions).

use std::fmt;
use std::net::IpAddr;

use ringway_wire::ids::{GroupId, UserId};

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
    /// A shard's index, `0..shards`; the number behind the last is the API's place.
    ShardId(u16)
);
id!(
    /// The dense index the ledger gave a user; stable for one run of the process, never stored.
    LedgerSlot(u32)
);

/// Whom a connection comes from, as far as limits tell peers apart: an IPv4 address, or the 64 bits of an IPv6 address
/// that name a network, since each of its hosts has as many addresses as it likes.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Default)]
pub struct PeerAddress(pub(crate) u64);

impl PeerAddress {
    /// IPv4 addresses lie in a range that IPv6 gives to no network.
    pub(crate) fn of(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => PeerAddress(0xFFFF_0000_0000 | u64::from(address.to_bits())),
            IpAddr::V6(address) => PeerAddress((address.to_bits() >> 64) as u64),
        }
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
    /// When it was handed on by the shard that read it, microseconds of the process's clock without their upper half;
    /// 0: nobody has looked. Only latencies are made of it.
    pub(crate) asked_us: u32,
}

impl Origin {
    /// Nobody here asked: what comes from other nodes has no session on this one.
    pub const NOBODY: Origin = Origin {
        session: SessionRef { shard: ShardId(u16::MAX), conn: ConnId { slot: u32::MAX, generation: u32::MAX } },
        request_id: 0,
        asked_us: 0,
    };

    /// Who asks, before anybody has looked when.
    pub const fn new(session: SessionRef, request_id: u32) -> Origin {
        Origin { session, request_id, asked_us: 0 }
    }

    /// It is handed on now, if it was not before.
    pub(crate) fn handed_on(&mut self, now_us: u64) {
        if self.asked_us == 0 {
            self.asked_us = (now_us as u32).max(1);
        }
    }

    /// Somebody has looked when it was handed on.
    pub(crate) fn is_timed(&self) -> bool {
        self.asked_us != 0
    }

    /// Microseconds since it was handed on, up to an hour; `None`: nobody has looked when, as for what other nodes send.
    pub(crate) fn waited_us(&self, now_us: u64) -> Option<u64> {
        self.is_timed().then(|| u64::from((now_us as u32).wrapping_sub(self.asked_us)))
    }
}

impl Origin {
    /// Whether the API asked, whose callers have a key and are trusted.
    pub(crate) fn is_api(&self, shards: u16) -> bool {
        self.session.shard == ShardId::of_api(shards)
    }
}

/// Spreads a number over 64 bits (the finalizer of SplitMix64); the same in every process.
pub(crate) const fn mixed(number: u64) -> u64 {
    let mut z = number.wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl ShardId {
    /// The API's place: it asks and is answered as a shard is, and has the number behind the last of them.
    pub(crate) fn of_api(shards: u16) -> Self {
        ShardId(shards)
    }

    /// The shard a user lives on. The same on every shard and across restarts.
    pub fn of_user(user: UserId, shards: u16) -> Self {
        Self::of(user.0, shards)
    }

    /// The shard a group lives on. The same on every shard and across restarts.
    pub fn of_group(group: GroupId, shards: u16) -> Self {
        Self::of(group.0, shards)
    }

    fn of(id: u64, shards: u16) -> Self {
        // Fibonacci hashing: consecutive ids spread evenly over the high bits, which are then scaled to the range.
        let spread = id.wrapping_mul(0x9E37_79B9_7F4A_7C15);
        ShardId(((u128::from(spread) * u128::from(shards)) >> 64) as u16)
    }
}
