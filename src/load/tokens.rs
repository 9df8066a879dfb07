//! The tokens that clients log in with: made here with the gateway's secret, so that the load needs nobody else to.
//!
//! What always holds: a token is a JWT with `sub` (decimal, as a string) and `exp`, signed with HS256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use ringway_wire::ids::UserId;
use serde::Serialize;

/// How long the tokens are valid.
const TOKEN_VALID_S: u64 = 24 * 3600;
/// No token made here is longer.
const TOKEN_BYTES_MAX: usize = 224;

/// {"typ":"JWT","alg":"HS256"}, in base64.
const HEADER: &str = "eyJ0eXAiOiJKV1QiLCJhbGciOiJIUzI1NiJ9";

/// What makes the tokens: the gateway's secret.
#[derive(Clone)]
pub(crate) struct Secret(pub Vec<u8>);

impl Secret {
    /// Makes many tokens.
    pub(crate) fn minter(&self) -> TokenMinter {
        TokenMinter { key: hmac::Key::new(hmac::HMAC_SHA256, &self.0) }
    }

    /// A token for a user's devices.
    pub(crate) fn token(&self, user: UserId, now_unix_ms: u64) -> String {
        self.minter().token(user, now_unix_ms)
    }
}

/// Makes the tokens of a crowd that is large: the key is made ready once.
pub(crate) struct TokenMinter {
    key: hmac::Key,
}

#[derive(Serialize)]
struct TokenClaims {
    sub: String,
    exp: u64,
}

impl TokenMinter {
    /// A token for a user's devices.
    pub(crate) fn token(&self, user: UserId, now_unix_ms: u64) -> String {
        let mut token = String::with_capacity(TOKEN_BYTES_MAX);
        token.push_str(HEADER);
        token.push('.');
        push_part(&mut token, &TokenClaims { sub: user.0.to_string(), exp: now_unix_ms / 1000 + TOKEN_VALID_S });
        let signature = hmac::sign(&self.key, token.as_bytes());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature, &mut token);
        token
    }
}

/// Whom a token names, if it can be read; nobody has verified it.
pub(crate) fn subject(token: &str) -> Option<UserId> {
    let claims = URL_SAFE_NO_PAD.decode(token.split('.').nth(1)?).ok()?;
    let claims: serde_json::Value = serde_json::from_slice(&claims).ok()?;
    claims.get("sub")?.as_str()?.parse().ok().map(UserId)
}

/// A part of a token: base64 of JSON. What is made here can be written as JSON.
fn push_part(token: &mut String, part: &impl Serialize) {
    URL_SAFE_NO_PAD.encode_string(serde_json::to_vec(part).unwrap_or_default(), token);
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

    use jsonwebtoken::{Algorithm, DecodingKey, Validation, decode};
    use serde::Deserialize;

    use super::*;

    #[derive(Deserialize)]
    struct Read {
        sub: String,
        exp: u64,
    }

    #[test]
    fn a_token_is_one_that_others_accept_with_this_secret_and_no_other() {
        let token = Secret(b"secret".to_vec()).token(UserId(u64::MAX), 4_000_000_000_000);
        let read = |secret: &[u8]| {
            decode::<Read>(&token, &DecodingKey::from_secret(secret), &Validation::new(Algorithm::HS256))
        };
        let claims = read(b"secret").unwrap().claims;
        assert_eq!((claims.sub.as_str(), claims.exp), ("18446744073709551615", 4_000_000_000 + TOKEN_VALID_S));
        assert!(read(b"another").is_err());
        assert_eq!(subject(&token), Some(UserId(u64::MAX)));
    }

    #[test]
    fn what_is_no_token_names_nobody() {
        for text in ["", "a", "a.b.c", "a.e30.c", "a.eyJzdWIiOjF9.c"] {
            assert_eq!(subject(text), None, "{text}");
        }
    }
}
