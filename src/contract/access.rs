//! Who may not log in, or not with tokens made before some time: the facts that an operator states, and that threads and
//! nodes pass on.
//!
//! Part of the closed set in [`super`]. What always holds: facts about a user can be merged in any order and any number of
//! times, and the result is the same; of two facts that contradict each other the later one counts.

use std::num::NonZeroU64;

use ringway_wire::ids::{DeviceId, UserId};

/// Whether a user may log in.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, Default)]
pub(crate) enum Standing {
    /// With a token that counts.
    #[default]
    Allowed,
    /// With none.
    Banned,
}

/// What is stated about one user.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct AccessFact {
    /// The user it is about.
    pub(crate) user: UserId,
    /// Whether that user may log in.
    pub(crate) standing: Standing,
    /// Since when, Unix milliseconds; 0: nothing was ever stated.
    pub(crate) since_ms: u64,
    /// Tokens that were issued before this Unix second do not count; 0: all do.
    pub(crate) tokens_from_s: u64,
}

impl AccessFact {
    /// Nothing is stated.
    pub(crate) fn none(user: UserId) -> Self {
        AccessFact { user, standing: Standing::Allowed, since_ms: 0, tokens_from_s: 0 }
    }

    /// Both of two facts about one user: of two standings the later one; of two at the same moment the stricter.
    #[must_use]
    pub(crate) fn with(self, other: AccessFact) -> AccessFact {
        debug_assert_eq!(self.user, other.user, "facts about two users are merged");
        let (since_ms, standing) = (self.since_ms, self.standing).max((other.since_ms, other.standing));
        AccessFact { user: self.user, standing, since_ms, tokens_from_s: self.tokens_from_s.max(other.tokens_from_s) }
    }
}

/// What a token is known by: the first 8 bytes of the SHA-256 of its claim `jti`, 1 where they are 0. It is compared with those of the same
/// user alone, so that nobody gains by one that meets another's.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub(crate) struct TokenId(pub(crate) NonZeroU64);

/// One token that does not count any more.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RevokedToken {
    /// Whose it is.
    pub(crate) user: UserId,
    /// Which.
    pub(crate) token: TokenId,
    /// When it expires, Unix seconds: from then on nobody keeps this.
    pub(crate) until_s: u64,
}

/// What an operator has done.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum AccessOrder {
    /// This is stated now. Who hears it keeps it.
    Fact(AccessFact),
    /// The user's sessions are ended. Nobody keeps it.
    Kick(UserId),
    /// Those that began by this Unix millisecond are: a kick of then, told again to who may have missed it.
    KickOfThen(UserId, u64),
    /// The session of one of the user's devices is, if it began by this Unix millisecond. Nobody keeps it.
    KickDevice(UserId, DeviceId, u64),
    /// This token is revoked, and the sessions end that began with it. Who hears it keeps it until the token expires.
    Token(RevokedToken),
}

impl AccessOrder {
    /// About whom.
    pub(crate) fn user(&self) -> UserId {
        match self {
            AccessOrder::Fact(fact) => fact.user,
            AccessOrder::Token(revoked) => revoked.user,
            AccessOrder::Kick(user) | AccessOrder::KickOfThen(user, _) | AccessOrder::KickDevice(user, ..) => *user,
        }
    }
}

/// What the thread that talks to other nodes has for the one that keeps the facts.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum AccessNews {
    /// Another node says this. Dropped: that node is asked to say everything again.
    Received(Vec<AccessOrder>),
    /// Another node wants to be told all facts, or may have missed some. Dropped: asked again later.
    TellAll,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn facts_come_to_the_same_in_whatever_order_and_however_often_they_are_merged() {
        let fact =
            |standing, since_ms, tokens_from_s| AccessFact { user: UserId(7), standing, since_ms, tokens_from_s };
        let facts = [
            AccessFact::none(UserId(7)),
            fact(Standing::Banned, 10, 0),
            fact(Standing::Allowed, 20, 5),
            fact(Standing::Banned, 20, 3),
            fact(Standing::Allowed, 15, 9),
        ];
        let expected = fact(Standing::Banned, 20, 9);
        for first in facts {
            for second in facts {
                assert_eq!(first.with(second), second.with(first));
                let all = facts.iter().rev().chain(&facts).fold(first, |sum, fact| sum.with(*fact));
                assert_eq!(all.with(second), expected);
            }
        }
    }
}
