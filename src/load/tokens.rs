//! The tokens that clients log in with: made here with the gateway's secret, so that the load needs nobody else to.
//!
//! What always holds: a token is a JWT with `sub` (decimal, as a string) and `exp`, signed with HS256.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::crypto::JwtSigner;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use jsonwebtoken::{Algorithm, EncodingKey, Header};
use ringway_wire::ids::UserId;
use serde::Serialize;

/// How long the tokens are valid.
const TOKEN_VALID_S: u64 = 24 * 3600;
/// No token made here is longer.
const TOKEN_BYTES_MAX: usize = 224;

/// What makes the tokens: the gateway's secret.
#[derive(Clone)]
pub(crate) struct Secret(pub Vec<u8>);

impl Secret {
    /// Makes many tokens.
    pub(crate) fn minter(&self) -> TokenMinter {
        let signer = (DEFAULT_PROVIDER.signer_factory)(&Algorithm::HS256, &EncodingKey::from_secret(&self.0)).ok();
        let mut header = String::new();
        push_part(&mut header, &Header::new(Algorithm::HS256));
        header.push('.');
        TokenMinter { signer, header }
    }

    /// A token for a user's devices.
    pub(crate) fn token(&self, user: UserId, now_unix_ms: u64) -> String {
        self.minter().token(user, now_unix_ms)
    }
}

/// Makes the tokens of a crowd that is large: the key is made ready once.
pub(crate) struct TokenMinter {
    /// `None` only for a key of another kind than the one that is made here.
    signer: Option<Box<dyn JwtSigner>>,
    /// With the dot behind it.
    header: String,
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
        token.push_str(&self.header);
        push_part(&mut token, &TokenClaims { sub: user.0.to_string(), exp: now_unix_ms / 1000 + TOKEN_VALID_S });
        let signature = self.signer.as_ref().and_then(|signer| signer.try_sign(token.as_bytes()).ok());
        token.push('.');
        URL_SAFE_NO_PAD.encode_string(signature.unwrap_or_default(), &mut token);
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

    use jsonwebtoken::{DecodingKey, Validation, decode};
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
