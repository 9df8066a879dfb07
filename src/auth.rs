//! Who a token says its bearer is.
//!
//! Each shard has an [`Authenticator`] of its own: the keys, and the tokens it has verified, so that a reconnect
//! storm does not pay for the same signature twice. What always holds: a token counts only if it is signed with the
//! algorithm that belongs to a configured key, whatever its header says, and only until it expires. It knows no
//! clock, and keeps no list of revoked tokens (a shard compares when they were issued, and their ids).

mod crypto;
mod keys;
mod verified;

use std::fmt;
use std::num::NonZeroU64;

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Header, decode, decode_header};
use ring::hmac;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use thiserror::Error;

use keys::AuthKey;
pub use keys::AuthKeyError;
pub(crate) use keys::AuthKeys;
use verified::{TokenDigest, Verified};

use crate::contract::access::TokenId;
use ringway_wire::ids::{DeviceId, UserId};
use ringway_wire::limits::TOKEN_BYTES_MAX;

/// What [`Minter::mint`] makes is not longer.
const MINTED_BYTES_MAX: usize = 256;

/// What a verified token says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Claims {
    /// The bearer.
    pub(crate) user: UserId,
    /// The only device the token is for; `None`: any.
    pub(crate) device: Option<DeviceId>,
    /// Not valid from this Unix second on.
    pub(crate) expires_at_s: u64,
    /// The Unix second in which it was issued; 0: it does not say.
    pub(crate) issued_at_s: u64,
    /// From its `jti`; `None`: it has none.
    pub(crate) token: Option<TokenId>,
}

/// Why a token does not count, in the words that its bearer is told. What exactly is wrong with it is for the log and for
/// `ringway token check`: somebody who forges one shall not learn from it.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub(crate) enum AuthError {
    /// Not a token, not signed with our key, or without the claims it needs.
    #[error("the token is not one that this gateway accepts: expected a JWT signed with its key, with sub and exp")]
    Invalid(TokenFault),
    /// Genuine, but its time is over.
    #[error("the token has expired: log in with a new one")]
    Expired,
}

/// What exactly is wrong with a token.
#[derive(Clone, Copy, PartialEq, Eq, Error, Debug)]
pub(crate) enum TokenFault {
    /// Nobody's token is so long.
    #[error("it has more than {TOKEN_BYTES_MAX} bytes")]
    TooLong,
    /// Not of a token's form.
    #[error(
        "it is no JWT: expected header, claims and signature in base64url, joined by dots, the first two JSON objects"
    )]
    Malformed,
    /// What its maker has signed it with is not what our key is for.
    #[error("its header names another algorithm than {expected:?}, which this gateway's key is for")]
    Algorithm {
        /// Ours.
        expected: Algorithm,
    },
    /// Of a key that is not there, or no longer.
    #[error("its header names a key (`kid`) that this gateway does not have")]
    UnknownKey,
    /// Nothing says with which key it is signed.
    #[error("its header names no key (`kid`), and this gateway has several")]
    NoKeyNamed,
    /// Another key's, or changed on its way.
    #[error("its signature is not made with this gateway's key")]
    Signature,
    /// Signed by our key's owner, who left something out.
    #[error("it has no claim `{0}`")]
    ClaimMissing(&'static str),
    /// Signed by our key's owner, who wrote something else.
    #[error("its claim `{claim}` is not {expected}")]
    ClaimForm {
        /// The name of the claim.
        claim: &'static str,
        /// What it must be.
        expected: &'static str,
    },
    /// Made for somebody else.
    #[error("its claim `aud` does not name this gateway's audience (auth.audience)")]
    Audience,
    /// Made by somebody else.
    #[error("its claim `iss` is not this gateway's issuer (auth.issuer)")]
    Issuer,
    /// Its time has not come.
    #[error("it is not valid yet: its claim `nbf` is in the future")]
    NotYet,
}

/// Verifies tokens and remembers those it has verified.
pub struct Authenticator {
    keys: AuthKeys,
    verified: Verified,
}

impl Authenticator {
    /// Nothing is verified yet.
    pub(crate) fn new(keys: &AuthKeys) -> Self {
        Authenticator { keys: keys.clone(), verified: Verified::default() }
    }

    /// Tokens are signed with HMAC-SHA256 and this secret.
    pub fn hs256(secret: &[u8]) -> Self {
        Self::new(&AuthKeys::hs256(secret))
    }

    /// What the token says, if it is genuine and has not expired at `now_unix_s`.
    pub(crate) fn verify(&mut self, token: &str, now_unix_s: u64) -> Result<Claims, AuthError> {
        if token.len() > TOKEN_BYTES_MAX {
            return Err(AuthError::Invalid(TokenFault::TooLong));
        }
        let digest = TokenDigest::of(token);
        if let Some(claims) = self.verified.find(&digest) {
            return unexpired(claims, now_unix_s);
        }
        let raw = self.genuine(token).map_err(AuthError::Invalid)?;
        if self.keys.issuer.as_deref().is_some_and(|issuer| raw.iss.as_deref() != Some(issuer)) {
            return Err(AuthError::Invalid(TokenFault::Issuer));
        }
        if self.keys.audience.as_deref().is_some_and(|audience| !raw.is_for(audience)) {
            return Err(AuthError::Invalid(TokenFault::Audience));
        }
        let claims = unexpired(raw.parse().map_err(AuthError::Invalid)?, now_unix_s)?;
        if raw.nbf.is_some_and(|from| from > now_unix_s as f64) {
            return Err(AuthError::Invalid(TokenFault::NotYet));
        }
        self.verified.remember(digest, claims);
        Ok(claims)
    }

    /// Whose token it is, if it is genuine, whether or not it counts now.
    pub(crate) fn user_of(&self, token: &str) -> Option<UserId> {
        let raw = self.genuine(token).ok()?;
        raw.parse().ok().map(|claims| claims.user)
    }

    /// What the token says, if the owner of one of our keys has signed it.
    fn genuine(&self, token: &str) -> Result<RawClaims, TokenFault> {
        let header = decode_header(token).map_err(|_| match names_an_algorithm(token) {
            // One that nobody here knows.
            true => TokenFault::Algorithm { expected: self.keys.expected() },
            false => TokenFault::Malformed,
        })?;
        let mut fault = TokenFault::Signature;
        for key in self.keys.find(&header)? {
            match decode::<RawClaims>(token, &key.key, &key.validation) {
                Ok(decoded) => return Ok(decoded.claims),
                Err(error) => match error.kind() {
                    // Another key's, perhaps.
                    ErrorKind::InvalidSignature => {}
                    ErrorKind::Json(_) => return Err(Self::claims_fault(key, token)),
                    _ => fault = TokenFault::Malformed,
                },
            }
        }
        Err(fault)
    }

    /// What is wrong with claims that our key's owner has signed.
    fn claims_fault(key: &AuthKey, token: &str) -> TokenFault {
        let Ok(decoded) = decode::<serde_json::Map<String, Value>>(token, &key.key, &key.validation) else {
            return TokenFault::Malformed;
        };
        let claims = decoded.claims;
        for (claim, expected, fits) in CLAIM_FORMS {
            match claims.get(*claim) {
                Some(value) if !fits(value) => return TokenFault::ClaimForm { claim, expected },
                Some(_) => {}
                None if REQUIRED_CLAIMS.contains(claim) => return TokenFault::ClaimMissing(claim),
                None => {}
            }
        }
        TokenFault::Malformed
    }
}

/// What a claim of this name must be, in words and in JSON.
type ClaimForm = (&'static str, &'static str, fn(&Value) -> bool);

const SUB_FORM: &str = "a string with a user's number in digits alone, such as \"42\"";
const DEV_FORM: &str = "a device's number, in digits alone";
const TIME_FORM: &str = "a number of seconds since 1970, before the year 10000";
const JTI_FORM: &str = "a string that names the token";
const ISS_FORM: &str = "a string";
const AUD_FORM: &str = "a string or an array of strings";
/// The end of the year 9999: what lies behind it is no time that anybody means.
pub(crate) const TOKEN_TIME_MAX_S: u64 = 253_402_300_799;
const CLAIM_FORMS: &[ClaimForm] = &[
    ("sub", SUB_FORM, Value::is_string),
    ("exp", TIME_FORM, Value::is_number),
    ("nbf", TIME_FORM, |value| value.is_number() || value.is_null()),
    ("iat", TIME_FORM, |value| value.is_number() || value.is_null()),
    ("iss", ISS_FORM, |value| value.is_string() || value.is_null()),
    ("aud", AUD_FORM, |value| {
        value.as_array().is_some_and(|all| all.iter().all(Value::is_string)) || value.is_string() || value.is_null()
    }),
    ("jti", JTI_FORM, |value| value.is_string() || value.is_null()),
    ("dev", DEV_FORM, |value| value.is_u64() || value.is_string() || value.is_null()),
];
const REQUIRED_CLAIMS: [&str; 2] = ["sub", "exp"];

/// The header is a JSON object with a text as `alg`. The library's own reading of a header fails alike for one that is
/// none and for one with an algorithm it does not know; nothing is verified by this.
fn names_an_algorithm(token: &str) -> bool {
    let header = token.split('.').next().and_then(|part| URL_SAFE_NO_PAD.decode(part).ok());
    let header = header.and_then(|bytes| serde_json::from_slice::<Value>(&bytes).ok());
    header.is_some_and(|header| header.get("alg").is_some_and(Value::is_string))
}

impl fmt::Debug for Authenticator {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The key stays out of logs.
        write!(f, "Authenticator({:?})", self.keys)
    }
}

/// Makes a token: JSON claims `sub` and `dev` (decimal strings) and `exp` (Unix seconds), signed with HS256.
pub fn mint_hs256(secret: &[u8], user: UserId, device: Option<DeviceId>, expires_at_s: u64) -> String {
    Minter::hs256(secret).mint(user, device, expires_at_s)
}

/// Makes many tokens with one secret: what is the same in all of them is made once.
pub struct Minter {
    key: hmac::Key,
    /// With the dot behind it.
    header: String,
    /// For whom; `None`: the tokens do not say.
    audience: Option<String>,
    /// By whom; `None`: the tokens do not say.
    issuer: Option<String>,
}

impl Minter {
    /// Signs with HMAC-SHA256 and this secret.
    pub fn hs256(secret: &[u8]) -> Minter {
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        let mut header = String::new();
        push_part(&mut header, &Header::new(Algorithm::HS256));
        header.push('.');
        Minter { key, header, audience: None, issuer: None }
    }

    /// Makes them for this audience. Empty: for any.
    pub(crate) fn for_audience(self, audience: &str) -> Minter {
        Minter { audience: Some(audience.to_owned()).filter(|audience| !audience.is_empty()), ..self }
    }

    /// Makes them as this issuer. Empty: as nobody.
    pub(crate) fn of_issuer(self, issuer: &str) -> Minter {
        Minter { issuer: Some(issuer.to_owned()).filter(|issuer| !issuer.is_empty()), ..self }
    }

    /// The token that [`mint_hs256`] makes.
    pub(crate) fn mint(&self, user: UserId, device: Option<DeviceId>, expires_at_s: u64) -> String {
        self.mint_issued(user, device, None, expires_at_s)
    }

    /// One that says when it was issued.
    pub fn mint_issued(
        &self,
        user: UserId,
        device: Option<DeviceId>,
        issued_at_s: Option<u64>,
        expires_at_s: u64,
    ) -> String {
        let claims = MintedClaims { iat: issued_at_s, ..self.claims(user, device, expires_at_s) };
        self.sign(&claims)
    }

    /// One that has a name, by which it can be revoked (`jti`).
    pub fn mint_named(&self, user: UserId, jti: &str, expires_at_s: u64) -> String {
        self.sign(&MintedClaims { jti: Some(jti), ..self.claims(user, None, expires_at_s) })
    }

    fn claims(&self, user: UserId, device: Option<DeviceId>, expires_at_s: u64) -> MintedClaims<'_> {
        let (sub, dev) = (user.0.to_string(), device.map(|d| d.0.to_string()));
        MintedClaims {
            sub,
            dev,
            exp: expires_at_s,
            iat: None,
            iss: self.issuer.as_deref(),
            aud: self.audience.as_deref(),
            jti: None,
        }
    }

    fn sign(&self, claims: &MintedClaims<'_>) -> String {
        let mut token = String::with_capacity(MINTED_BYTES_MAX);
        token.push_str(&self.header);
        push_part(&mut token, claims);
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// A part of a token: base64 of JSON. What is made here can be written as JSON.
fn push_part(token: &mut String, part: &impl Serialize) {
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(part).unwrap_or_default(), token);
}

fn unexpired(claims: Claims, now_unix_s: u64) -> Result<Claims, AuthError> {
    if claims.expires_at_s <= now_unix_s { Err(AuthError::Expired) } else { Ok(claims) }
}

#[derive(Serialize)]
struct MintedClaims<'a> {
    sub: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    dev: Option<String>,
    exp: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    iat: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    iss: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    aud: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    jti: Option<&'a str>,
}

/// The claims as other token makers write them: RFC 7519 allows fractions of a second.
#[derive(Deserialize)]
struct RawClaims {
    sub: String,
    exp: f64,
    nbf: Option<f64>,
    iat: Option<f64>,
    dev: Option<RawDevice>,
    iss: Option<String>,
    aud: Option<Value>,
    jti: Option<String>,
}

/// What a token with this `jti` is known by.
pub(crate) fn token_id(jti: &str) -> TokenId {
    let digest: [u8; 32] = Sha256::digest(jti).into();
    let number = digest.first_chunk().and_then(|bytes| NonZeroU64::new(u64::from_be_bytes(*bytes)));
    TokenId(number.unwrap_or(NonZeroU64::MIN))
}

/// JSON numbers beyond 2^53 do not survive every library: a device may come as a string.
#[derive(Deserialize)]
#[serde(untagged)]
enum RawDevice {
    Number(u64),
    Text(String),
}

impl RawClaims {
    /// Whether it is made for this audience, among others or alone.
    fn is_for(&self, audience: &str) -> bool {
        match &self.aud {
            Some(Value::String(one)) => one == audience,
            Some(Value::Array(all)) => all.iter().any(|one| one.as_str() == Some(audience)),
            _ => false,
        }
    }

    fn parse(&self) -> Result<Claims, TokenFault> {
        let decimal = |text: &str, claim, expected| {
            // Each number has one form: a list of users by their texts means the same as one by their numbers.
            let number = text.parse::<u64>().ok().filter(|number| number.to_string() == text);
            number.ok_or(TokenFault::ClaimForm { claim, expected })
        };
        let device = match &self.dev {
            None => None,
            Some(RawDevice::Number(device)) => Some(DeviceId(*device)),
            Some(RawDevice::Text(text)) => Some(DeviceId(decimal(text, "dev", DEV_FORM)?)),
        };
        if self.exp > TOKEN_TIME_MAX_S as f64 {
            return Err(TokenFault::ClaimForm { claim: "exp", expected: TIME_FORM });
        }
        let user = UserId(decimal(&self.sub, "sub", SUB_FORM)?);
        // Saturates: a negative time is one that has passed.
        let issued_at_s = self.iat.unwrap_or_default() as u64;
        let token = self.jti.as_deref().map(token_id);
        Ok(Claims { user, device, expires_at_s: self.exp as u64, issued_at_s, token })
    }
}

#[cfg(test)]
mod tests;
