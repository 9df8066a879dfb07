//! The tokens that a shard has verified, so that a reconnect storm does not pay for the same signature twice.
//!
//! Owned by one shard's [`Authenticator`](super::Authenticator). What always holds: a token is known by its SHA-256, all
//! of it, so nothing weaker than what a signature rests on lets one in; there are at most `TOKENS_CACHED_MAX`, and the
//! oldest goes first. One entry is 64 bytes and its place in the index five; the tokens themselves, with some 150 bytes
//! the larger part of what a silent connection would cost, are not kept. What a token with a `jti` is known by stands apart,
//! so that nobody else pays for it.

use std::collections::HashMap;

use hashbrown::HashTable;
use sha2::{Digest as _, Sha256};

use super::Claims;
use crate::contract::access::TokenId;
use crate::limits::TOKENS_CACHED_MAX;
use ringway_wire::ids::{DeviceId, UserId};

/// What a token is known by.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct TokenDigest([u8; 32]);

impl TokenDigest {
    pub(super) fn of(token: &str) -> Self {
        TokenDigest(Sha256::digest(token).into())
    }

    /// Its place in the index. Nobody can choose it: only who has our key's tokens made can fill the index at all, and
    /// to have many meet he would have to make 2^32 for each.
    fn hash(&self) -> u64 {
        self.0.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes))
    }
}

/// A token and what it says.
#[derive(Clone, Copy, Debug)]
struct Entry {
    digest: TokenDigest,
    user: UserId,
    device: Option<DeviceId>,
    /// Unix seconds until the year 2106.
    expires_at_s: u32,
    issued_at_s: u32,
}

impl Entry {
    fn new(digest: TokenDigest, claims: Claims) -> Self {
        let Claims { user, device, expires_at_s, issued_at_s, .. } = claims;
        let seconds = |time: u64| u32::try_from(time).unwrap_or(u32::MAX);
        Entry { digest, user, device, expires_at_s: seconds(expires_at_s), issued_at_s: seconds(issued_at_s) }
    }

    fn claims(&self, token: Option<TokenId>) -> Claims {
        let Entry { user, device, expires_at_s, issued_at_s, .. } = *self;
        Claims { user, device, expires_at_s: expires_at_s.into(), issued_at_s: issued_at_s.into(), token }
    }
}

/// Verified tokens, oldest out first.
#[derive(Default)]
pub(super) struct Verified {
    /// A circle once it is full.
    entries: Vec<Entry>,
    /// Where the oldest is, once it is full.
    oldest: usize,
    /// Places in `entries`.
    index: HashTable<u32>,
    /// By place: those that have a `jti`. Places are ours, nobody chooses them.
    ids: HashMap<u32, TokenId>,
}

impl Verified {
    /// What the token says, if it was verified.
    pub(super) fn find(&self, digest: &TokenDigest) -> Option<Claims> {
        let place = self.index.find(digest.hash(), |place| self.entries[*place as usize].digest == *digest)?;
        Some(self.entries[*place as usize].claims(self.ids.get(place).copied()))
    }

    /// Keeps one that is not known yet.
    pub(super) fn remember(&mut self, digest: TokenDigest, claims: Claims) {
        debug_assert!(self.find(&digest).is_none(), "a token that is known was verified again");
        let entry = Entry::new(digest, claims);
        let place = if self.entries.len() < TOKENS_CACHED_MAX {
            self.entries.push(entry);
            self.entries.len() - 1
        } else {
            let place = self.oldest;
            self.oldest = (place + 1) % TOKENS_CACHED_MAX;
            let forgotten = std::mem::replace(&mut self.entries[place], entry);
            if let Ok(found) = self.index.find_entry(forgotten.digest.hash(), |at| *at as usize == place) {
                found.remove();
            }
            place
        };
        match claims.token {
            Some(token) => self.ids.insert(place as u32, token),
            None => self.ids.remove(&(place as u32)),
        };
        let Verified { entries, index, .. } = self;
        index.insert_unique(digest.hash(), place as u32, |at| entries[*at as usize].digest.hash());
    }

    /// How many have a name.
    #[cfg(test)]
    pub(super) fn ids_count(&self) -> usize {
        self.ids.len()
    }

    /// How many there are: in order, and in the index.
    #[cfg(test)]
    pub(super) fn len(&self) -> (usize, usize) {
        (self.entries.len(), self.index.len())
    }
}

const _: () = assert!(size_of::<Entry>() <= 64, "one per login: keep it small");
const _: () = assert!(TOKENS_CACHED_MAX <= u32::MAX as usize, "places are 32 bits");
