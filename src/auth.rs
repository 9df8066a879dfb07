//! Who a token says its bearer is.
//!
//! Each shard has an [`Authenticator`] of its own: a key, and the tokens it has verified, so that a reconnect storm
//! does not pay for the same signature twice. What always holds: a token counts only if it is signed with the
//! algorithm that belongs to the configured key, whatever its header says, and only until it expires. It knows no
//! clock, and keeps no list of revoked tokens.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::ids::{DeviceId, UserId};
use crate::limits::{TOKEN_BYTES_MAX, TOKENS_CACHED_MAX};

/// Tokens longer than this are verified each time: remembering them would cost too much.
const TOKEN_CACHED_BYTES_MAX: usize = 1024;

/// What a verified token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Claims {
    /// The bearer.
    pub user: UserId,
    /// The only device the token is for; `None`: any.
    pub device: Option<DeviceId>,
    /// Not valid from this Unix second on.
    pub expires_at_s: u64,
}

/// Why a token does not count.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum AuthError {
    /// Not a token, not signed with our key, or without the claims it needs.
    #[error("the token is not one that this gateway accepts: expected a JWT signed with its key, with sub and exp")]
    Invalid,
    /// Genuine, but its time is over.
    #[error("the token has expired: log in with a new one")]
    Expired,
}

/// Why a key cannot be used.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub enum AuthKeyError {
    /// Not a PEM file with an Ed25519 public key.
    #[error(
        "expected an Ed25519 public key in PEM form (-----BEGIN PUBLIC KEY-----); make one with `openssl pkey -pubout`"
    )]
    NotEd25519Pem,
}

/// Verifies tokens with one key and remembers those it has verified. A clone starts with the same key.
#[derive(Clone)]
pub struct Authenticator {
    key: DecodingKey,
    validation: Validation,
    verified: Verified,
}

impl Authenticator {
    /// Tokens are signed with HMAC-SHA256 and this secret.
    pub fn hs256(secret: &[u8]) -> Self {
        Self::new(DecodingKey::from_secret(secret), Algorithm::HS256)
    }

    /// Tokens are signed with the Ed25519 key whose public half this is, in PEM form.
    pub fn eddsa_pem(pem: &[u8]) -> Result<Self, AuthKeyError> {
        let key = DecodingKey::from_ed_pem(pem).map_err(|_| AuthKeyError::NotEd25519Pem)?;
        Ok(Self::new(key, Algorithm::EdDSA))
    }

    fn new(key: DecodingKey, algorithm: Algorithm) -> Self {
        let mut validation = Validation::new(algorithm);
        // Times are checked here against the caller's clock; audience and issuer are the token maker's business.
        validation.validate_exp = false;
        validation.validate_nbf = false;
        validation.validate_aud = false;
        validation.required_spec_claims.clear();
        Authenticator { key, validation, verified: Verified::default() }
    }

    /// What the token says, if it is genuine and has not expired at `now_unix_s`.
    pub fn verify(&mut self, token: &str, now_unix_s: u64) -> Result<Claims, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Invalid);
        }
        if let Some(claims) = self.verified.find(token) {
            return unexpired(claims, now_unix_s);
        }
        let raw = jsonwebtoken::decode::<RawClaims>(token, &self.key, &self.validation)
            .map_err(|_| AuthError::Invalid)?
            .claims;
        let claims = unexpired(raw.parse()?, now_unix_s)?;
        if raw.nbf.is_some_and(|from| from > now_unix_s as f64) {
            return Err(AuthError::Invalid);
        }
        if token.len() <= TOKEN_CACHED_BYTES_MAX {
            self.verified.remember(token, claims);
        }
        Ok(claims)
    }
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        write!(f, "Authenticator({:?})", self.validation.algorithms)
    }
}

/// Makes a token: JSON claims `sub` and `dev` (decimal strings) and `exp` (Unix seconds), signed with HS256.
pub fn mint_hs256(secret: &[u8], user: UserId, device: Option<DeviceId>, expires_at_s: u64) -> String {
    let claims = MintedClaims { sub: user.0.to_string(), dev: device.map(|d| d.0.to_string()), exp: expires_at_s };
    // Signing fails only for a key of another kind, and this one is made here.
    jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &EncodingKey::from_secret(secret)).unwrap_or_default()
}

fn unexpired(claims: Claims, now_unix_s: u64) -> Result<Claims, AuthError> {
    if claims.expires_at_s <= now_unix_s { Err(AuthError::Expired) } else { Ok(claims) }
}

#[derive(Serialize)]
struct MintedClaims {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev: Option<String>,
    exp: u64,
}

/// The claims as other token makers write them: RFC 7519 allows fractions of a second.
#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    dev: Option<RawDevice>,
}

/// JSON numbers beyond 2^53 do not survive every library: a device may come as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawDevice {
    Number(u64),
    Text(String),
}

impl RawClaims {
    fn parse(&self) -> Result<Claims, AuthError> {
        let decimal = |text: &str| text.parse::<u64>().map_err(|_| AuthError::Invalid);
        let device = match &self.dev {
            None => None,
            Some(RawDevice::Number(device)) => Some(DeviceId(*device)),
            Some(RawDevice::Text(text)) => Some(DeviceId(decimal(text)?)),
        };
        // Saturates; a negative or nonsensical time is one that has passed.
        Ok(Claims { user: UserId(decimal(&self.sub)?), device, expires_at_s: self.exp as u64 })
    }
}

/// Verified tokens, oldest out first. A token is its own key: nothing weaker than equality lets one in.
#[derive(Clone, Default)]
struct Verified {
    claims: std::collections::HashMap<Arc<str>, Claims, foldhash::quality::RandomState>,
    order: VecDeque<Arc<str>>,
}

impl Verified {
    fn find(&self, token: &str) -> Option<Claims> {
        self.claims.get(token).copied()
    }

    fn remember(&mut self, token: &str, claims: Claims) {
        if self.order.len() >= TOKENS_CACHED_MAX
            && let Some(oldest) = self.order.pop_front()
        {
            self.claims.remove(&oldest);
        }
        let token: Arc<str> = token.into();
        self.order.push_back(token.clone());
        self.claims.insert(token, claims);
    }
}

#[cfg(test)]
mod tests;
