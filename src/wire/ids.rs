//! The identifiers that cross the wire, one newtype each, so that no two can be swapped.
//!
//! Plain values: nobody owns them, and every thread uses them. What always holds: a `Seq` of zero means "no row".

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
    /// A message: 41 bits milliseconds since [`MSG_ID_EPOCH_MS`], 10 bits node, 12 bits counter.
    MsgId(u64)
);
id!(
    /// A row's number in one user's inbox, from 1; 0 is "none".
    Seq(u64)
);
id!(
    /// A roster's version, from 1, one more at each change of its group.
    RosterVersion(u32)
);

/// 2024-01-01T00:00:00Z in Unix milliseconds: where a `MsgId`'s 41-bit time starts (it lasts until 2093).
pub const MSG_ID_EPOCH_MS: u64 = 1_704_067_200_000;

impl MsgId {
    /// Where the time begins: behind 10 bits of node and 12 of counter.
    pub const TIME_SHIFT: u32 = 22;
    /// The last time that a number can hold, Unix milliseconds: in 2093.
    pub const TIME_MAX_MS: u64 = MSG_ID_EPOCH_MS + (1 << 41) - 1;

    /// The lowest number that a message of this time (Unix milliseconds) can have.
    pub fn first_at(unix_ms: u64) -> Self {
        MsgId(unix_ms.min(Self::TIME_MAX_MS).saturating_sub(MSG_ID_EPOCH_MS) << Self::TIME_SHIFT)
    }

    /// When it was numbered, Unix milliseconds.
    pub fn sent_at_ms(self) -> u64 {
        MSG_ID_EPOCH_MS + (self.0 >> Self::TIME_SHIFT)
    }
}

impl Seq {
    /// The next row's number.
    pub const fn next(self) -> Seq {
        Seq(self.0 + 1)
    }
}

/// The sender's own name for a message: a UUIDv7 in network byte order. In a frame it is two numbers, see
/// [`ClientMsgId::halves`].
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct ClientMsgId(pub [u8; 16]);

impl ClientMsgId {
    /// From the two numbers that a frame has.
    pub fn from_halves(high: u64, low: u64) -> Self {
        ClientMsgId((u128::from(high) << 64 | u128::from(low)).to_be_bytes())
    }

    /// The numbers that its first and its last eight bytes make, read as one reads a UUID: the first byte counts most.
    pub fn halves(&self) -> (u64, u64) {
        let whole = u128::from_be_bytes(self.0);
        ((whole >> 64) as u64, whole as u64)
    }

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

/// Where a message is addressed.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub enum Conversation {
    /// To one user.
    User(UserId),
    /// To a group's members.
    Group(GroupId),
}
