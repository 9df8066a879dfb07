//! The keys that tokens are verified with: one, or a set of which each token's header names one (RFC 7517).
//!
//! Made on the main thread from files, and handed to every shard, which only reads it. What always holds: a key verifies
//! with its own algorithm alone, whatever a token's header says; a token that names a key is verified with that one or
//! not at all; there are at most [`KEYS_MAX`], and finding one is one look into a map, however many unknown ones are named.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey, Header, Validation};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use super::{TokenFault, crypto};
use crate::limits::SECRET_BYTES_MIN;

/// Keys of one set.
const KEYS_MAX: usize = 64;
/// Bytes of a file with a set of keys.
pub(crate) const KEY_SET_BYTES_MAX: usize = 256 << 10;
/// Bytes of a coordinate of P-256, and of an Ed25519 key.
const COORDINATE_BYTES: usize = 32;

/// Why keys cannot be used.
#[derive(Clone, PartialEq, Eq, Error, Debug)]
pub enum AuthKeyError {
    /// Not a PEM file with a public key that tokens can be signed for.
    #[error(
        "expected a public key in PEM form (-----BEGIN PUBLIC KEY-----): Ed25519, RSA of 2048 to 8192 bits, or EC P-256; \
         make one with `openssl pkey -pubout`"
    )]
    NotPublicPem,
    /// Not a set of keys.
    #[error(
        "expected a JSON Web Key Set: an object with an array `keys` (RFC 7517), of at most {KEY_SET_BYTES_MAX} bytes"
    )]
    NotKeySet,
    /// Somebody's whole key pair.
    #[error("key {key} of the set has a private part (`d`): give the gateway the public half alone")]
    Private {
        /// Its `kid`, or its place.
        key: String,
    },
    /// Of a kind that is known, and unusable.
    #[error("key {key} of the set cannot be used: {why}")]
    Unusable {
        /// Its `kid`, or its place.
        key: String,
        /// What is wrong.
        why: &'static str,
    },
    /// Two keys that no token could tell apart.
    #[error(
        "key {key} of the set is there twice: each has a `kid` of its own, and one for each algorithm may have none"
    )]
    Twice {
        /// Its `kid`, or its place.
        key: String,
    },
    /// None that is for tokens.
    #[error("the set has no key that tokens can be verified with: HS256, EdDSA (Ed25519), RS256 or ES256")]
    Empty,
    /// More than anybody rotates.
    #[error("the set has more than {KEYS_MAX} keys")]
    TooMany,
}

/// One key and the algorithm it is for.
#[derive(Clone)]
pub(super) struct AuthKey {
    pub(super) key: DecodingKey,
    pub(super) algorithm: Algorithm,
    /// The key's algorithm and no other. Times are compared by the caller, and audience and issuer, so that each fault has
    /// its name.
    pub(super) validation: Validation,
}

impl AuthKey {
    fn new(key: DecodingKey, algorithm: Algorithm) -> AuthKey {
        crypto::install();
        let mut validation = Validation::new(algorithm);
        validation.required_spec_claims.clear();
        (validation.validate_exp, validation.validate_aud) = (false, false);
        AuthKey { key, algorithm, validation }
    }
}

/// What tokens are verified with; goes to every shard. Equal: made from the same files, for the same tokens.
#[derive(Clone)]
pub(crate) struct AuthKeys {
    set: Arc<KeySet>,
    /// Of what they were made from.
    digest: [u8; 32],
    /// What a token's `aud` must name; `None`: it is not looked at.
    pub(super) audience: Option<Arc<str>>,
    /// What a token's `iss` must be; `None`: it is not looked at.
    pub(super) issuer: Option<Arc<str>>,
}

#[derive(Default)]
struct KeySet {
    /// By their `kid`.
    named: HashMap<String, AuthKey>,
    /// Without one: in one file at most one for each algorithm.
    unnamed: Vec<AuthKey>,
}

impl AuthKeys {
    /// Tokens are signed with HMAC-SHA256 and this secret.
    pub(crate) fn hs256(secret: &[u8]) -> AuthKeys {
        AuthKeys::of_one(AuthKey::new(DecodingKey::from_secret(secret), Algorithm::HS256), secret)
    }

    /// Tokens are signed with the key whose public half this is, in PEM form: Ed25519 (EdDSA), RSA (RS256) or P-256
    /// (ES256).
    pub(crate) fn public_pem(pem: &[u8]) -> Result<AuthKeys, AuthKeyError> {
        let is_public = pem.windows(10).any(|bytes| bytes == b"PUBLIC KEY");
        let ed25519 = || DecodingKey::from_ed_pem(pem).ok().map(|key| AuthKey::new(key, Algorithm::EdDSA));
        let rsa = || DecodingKey::from_rsa_pem(pem).ok().map(|key| AuthKey::new(key, Algorithm::RS256));
        let p256 = || DecodingKey::from_ec_pem(pem).ok().map(|key| AuthKey::new(key, Algorithm::ES256));
        let key = ed25519()
            .or_else(rsa)
            .or_else(p256)
            .filter(|key| is_public && crypto::has_form_of(key.algorithm, &key.key));
        key.map(|key| AuthKeys::of_one(key, pem)).ok_or(AuthKeyError::NotPublicPem)
    }

    /// Tokens are signed with one of these keys, a JSON Web Key Set (RFC 7517). Keys for something else than signatures,
    /// and of kinds that are not known here, are left out.
    pub(crate) fn key_set(json: &[u8]) -> Result<AuthKeys, AuthKeyError> {
        #[derive(Deserialize)]
        struct Set {
            keys: Vec<Jwk>,
        }
        if json.len() > KEY_SET_BYTES_MAX {
            return Err(AuthKeyError::NotKeySet);
        }
        let Set { keys } = serde_json::from_slice(json).map_err(|_| AuthKeyError::NotKeySet)?;
        let mut set = KeySet::default();
        for (place, jwk) in keys.iter().enumerate() {
            let name = || jwk.kid.clone().unwrap_or_else(|| format!("number {}", place + 1));
            let Some(key) = jwk.read().map_err(|fault| fault.of(name()))? else { continue };
            let is_new = match &jwk.kid {
                Some(kid) => set.named.insert(kid.clone(), key).is_none(),
                None => {
                    let is_new = set.unnamed.iter().all(|other| other.algorithm != key.algorithm);
                    set.unnamed.push(key);
                    is_new
                }
            };
            if !is_new {
                return Err(AuthKeyError::Twice { key: name() });
            }
            if set.len() > KEYS_MAX {
                return Err(AuthKeyError::TooMany);
            }
        }
        if set.len() == 0 {
            return Err(AuthKeyError::Empty);
        }
        Ok(AuthKeys::made(set, json))
    }

    fn of_one(key: AuthKey, text: &[u8]) -> AuthKeys {
        AuthKeys::made(KeySet { named: HashMap::new(), unnamed: vec![key] }, text)
    }

    fn made(set: KeySet, text: &[u8]) -> AuthKeys {
        AuthKeys { set: Arc::new(set), digest: Sha256::digest(text).into(), audience: None, issuer: None }
    }

    /// The same keys, for tokens that are made for this audience, among others or alone. Empty: for any.
    pub(crate) fn for_audience(self, audience: &str) -> AuthKeys {
        AuthKeys { audience: Some(audience).filter(|audience| !audience.is_empty()).map(Arc::from), ..self }
    }

    /// The same keys, for tokens that this issuer has made. Empty: any.
    pub(crate) fn of_issuer(self, issuer: &str) -> AuthKeys {
        AuthKeys { issuer: Some(issuer).filter(|issuer| !issuer.is_empty()).map(Arc::from), ..self }
    }

    /// These keys and those, for the same tokens: while one takes another's place both are good.
    pub(crate) fn and(self, others: AuthKeys) -> Result<AuthKeys, AuthKeyError> {
        let mut set = KeySet::default();
        for keys in [&self.set, &others.set] {
            for (kid, key) in &keys.named {
                if set.named.insert(kid.clone(), key.clone()).is_some() {
                    return Err(AuthKeyError::Twice { key: kid.clone() });
                }
            }
            set.unnamed.extend(keys.unnamed.iter().cloned());
        }
        match set.len() > KEYS_MAX {
            true => Err(AuthKeyError::TooMany),
            false => {
                let digest = Sha256::digest([self.digest, others.digest].concat()).into();
                Ok(AuthKeys { set: Arc::new(set), digest, ..self })
            }
        }
    }

    /// The keys that a token with this header may be signed with, at least one: the one that it names, or else those that
    /// have no name and are for its algorithm.
    pub(super) fn find(&self, header: &Header) -> Result<impl Iterator<Item = &AuthKey>, TokenFault> {
        let KeySet { named, unnamed } = &*self.set;
        let (one, others): (Option<&AuthKey>, &[AuthKey]) = match &header.kid {
            Some(kid) if !named.is_empty() => (Some(named.get(kid).ok_or(TokenFault::UnknownKey)?), &[]),
            _ if !unnamed.is_empty() => (None, unnamed),
            // Where there is one key it is that one.
            _ if named.len() == 1 => (named.values().next(), &[]),
            _ => return Err(TokenFault::NoKeyNamed),
        };
        let algorithm = header.alg;
        let mut keys = one.into_iter().chain(others).filter(move |key| key.algorithm == algorithm).peekable();
        match keys.peek().is_some() {
            true => Ok(keys),
            false => Err(TokenFault::Algorithm {
                expected: one.or_else(|| others.first()).map_or_else(|| self.expected(), |key| key.algorithm),
            }),
        }
    }

    /// What a header whose algorithm nobody here knows should have named.
    pub(super) fn expected(&self) -> Algorithm {
        let KeySet { named, unnamed } = &*self.set;
        unnamed.first().or_else(|| named.values().next()).map_or(Algorithm::HS256, |key| key.algorithm)
    }
}

impl KeySet {
    fn len(&self) -> usize {
        self.named.len() + self.unnamed.len()
    }
}

impl PartialEq for AuthKeys {
    fn eq(&self, other: &AuthKeys) -> bool {
        (self.digest, &self.audience, &self.issuer) == (other.digest, &other.audience, &other.issuer)
    }
}

impl Eq for AuthKeys {}

impl fmt::Debug for AuthKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Keys stay out of logs; which there are does not.
        let KeySet { named, unnamed } = &*self.set;
        let mut names: Vec<_> = named.iter().map(|(kid, key)| (kid.as_str(), key.algorithm)).collect();
        names.extend(unnamed.iter().map(|key| ("", key.algorithm)));
        names.sort_unstable_by_key(|(kid, _)| *kid);
        f.debug_tuple("AuthKeys").field(&names).finish()
    }
}

/// A key of a set, as far as it matters here; what else it has is left out (RFC 7517, 4).
#[derive(Deserialize)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    purpose: Option<String>,
    crv: Option<String>,
    k: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
    d: Option<String>,
}

/// What is wrong with a key of a set.
enum Fault {
    Private,
    Unusable(&'static str),
}

impl Fault {
    fn of(self, key: String) -> AuthKeyError {
        match self {
            Fault::Private => AuthKeyError::Private { key },
            Fault::Unusable(why) => AuthKeyError::Unusable { key, why },
        }
    }
}

impl Jwk {
    /// `None`: it is for something else.
    fn read(&self) -> Result<Option<AuthKey>, Fault> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("oct", _) => Algorithm::HS256,
            ("OKP", Some("Ed25519")) => Algorithm::EdDSA,
            ("RSA", _) => Algorithm::RS256,
            ("EC", Some("P-256")) => Algorithm::ES256,
            _ => return Ok(None),
        };
        let is_for_it = self.alg.as_deref().is_none_or(|alg| alg.parse() == Ok(algorithm));
        if !is_for_it || self.purpose.as_deref().is_some_and(|purpose| purpose != "sig") {
            return Ok(None);
        }
        if self.d.is_some() {
            return Err(Fault::Private);
        }
        let key = match algorithm {
            Algorithm::EdDSA => part(&self.x, COORDINATE_BYTES..=COORDINATE_BYTES, "`x` is not 32 bytes in base64url")
                .map(|x| DecodingKey::from_ed_der(&x))?,
            Algorithm::ES256 => {
                let coordinate = |text, why| part(text, COORDINATE_BYTES..=COORDINATE_BYTES, why);
                let x = coordinate(&self.x, "`x` is not 32 bytes in base64url")?;
                let y = coordinate(&self.y, "`y` is not 32 bytes in base64url")?;
                DecodingKey::from_ec_der(&[&[4], x.as_slice(), y.as_slice()].concat())
            }
            Algorithm::RS256 => {
                let n = part(&self.n, 1..=usize::MAX, "`n` is not in base64url")?;
                let e = part(&self.e, 1..=8, "`e` is not a small number in base64url")?;
                DecodingKey::from_rsa_raw_components(&n, &e)
            }
            _ => {
                let secret = part(&self.k, SECRET_BYTES_MIN..=usize::MAX, "`k` is not 32 bytes or more in base64url")?;
                DecodingKey::from_secret(&secret)
            }
        };
        crypto::has_form_of(algorithm, &key)
            .then(|| Some(AuthKey::new(key, algorithm)))
            .ok_or(Fault::Unusable("it has not the size of a key of its kind"))
    }
}

fn part(text: &Option<String>, bytes: std::ops::RangeInclusive<usize>, why: &'static str) -> Result<Vec<u8>, Fault> {
    let read = text.as_deref().and_then(|text| URL_SAFE_NO_PAD.decode(text).ok());
    read.filter(|read| bytes.contains(&read.len())).ok_or(Fault::Unusable(why))
}

#[cfg(test)]
mod tests;
