//! `ringway token`: the key that a configuration means, to mint tokens with and to check them.
//!
//! Used on the main thread. What always holds: a token is only minted with a shared secret; with a public key
//! the gateway can verify tokens and make none.

pub mod cli;
#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auth::{AuthError, AuthKeyError, AuthKeys, Authenticator, Claims, Minter, TokenFault};
use crate::clock::Clock;
use crate::config::{Auth, Config};
use crate::datadir::{self, DataDirError};
use crate::limits::SECRET_BYTES_MIN;
use ringway_wire::ids::{DeviceId, UserId};

/// Longest life of a token that is minted here.
pub(crate) const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Why there is no token, or no key to verify one with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The gateway has only the public key.
    #[error("the configured keys can verify tokens but not mint them: use the private key's own tool")]
    PublicKeyOnly,
    /// No gateway was started in that directory yet.
    #[error("{0} has no development secret yet: start `ringway serve` there once, or set auth.hs256_secret")]
    NoDevelopmentSecret(PathBuf),
    /// The file is not there or not readable.
    #[error("the key file {path} cannot be read")]
    Read {
        /// The file that is concerned.
        path: PathBuf,
        /// What the operating system said.
        #[source]
        source: io::Error,
    },
    /// The secret is too short to keep anybody out.
    #[error("the secret in {path} has {bytes} bytes, at least {SECRET_BYTES_MIN} are needed")]
    SecretTooShort {
        /// Which file.
        path: PathBuf,
        /// How long it is.
        bytes: usize,
    },
    /// The public key is none.
    #[error("the keys that tokens are verified with cannot be used")]
    PublicKey(#[from] AuthKeyError),
    /// The data directory's secret could not be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Why this gateway would not accept a token.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CheckError {
    /// There is no key to verify it with.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// It would be refused, and why: its bearer is not told that much.
    #[error("a login with this token is refused: {0}")]
    Invalid(TokenFault),
    /// It was good once.
    #[error("a login with this token is refused: it has expired")]
    Expired,
}

/// What a token says to a gateway with this configuration.
pub(crate) fn check(config: &Config, token: &str, now_unix_s: u64) -> Result<Claims, CheckError> {
    let key = verifying_key(config)?;
    Authenticator::new(&key).verify(token, now_unix_s).map_err(|error| match error {
        AuthError::Invalid(fault) => CheckError::Invalid(fault),
        AuthError::Expired => CheckError::Expired,
    })
}

/// What the configuration verifies tokens with; a secret for development must have been made.
pub(crate) fn verifying_key(config: &Config) -> Result<AuthKeys, KeyError> {
    let key = match &config.auth {
        Auth::PublicKeyFile(path) => AuthKeys::public_pem(&read_key_file(path)?)?,
        Auth::KeySetFile(path) => AuthKeys::key_set(&read_key_file(path)?)?,
        Auth::Secret(_) | Auth::SecretFile(_) | Auth::Development => AuthKeys::hs256(&secret(config)?),
    };
    with_others(key, config)
}

/// With the keys that are good beside it, for the audience and of the issuer that the configuration says.
pub(crate) fn with_others(mut key: AuthKeys, config: &Config) -> Result<AuthKeys, KeyError> {
    for path in &config.other_key_files {
        let bytes = read_key_file(path)?;
        key = key.and(match bytes.trim_ascii_start() {
            [b'-', b'-', b'-', b'-', b'-', ..] => AuthKeys::public_pem(&bytes)?,
            [b'{', ..] => AuthKeys::key_set(&bytes)?,
            _ => AuthKeys::hs256(&read_secret(path)?),
        })?;
    }
    Ok(key.for_audience(&config.audience).of_issuer(&config.issuer))
}

/// The shared secret that the configuration means.
fn secret(config: &Config) -> Result<Vec<u8>, KeyError> {
    match &config.auth {
        Auth::Secret(secret) => Ok(secret.clone()),
        Auth::SecretFile(path) => read_secret(path),
        Auth::PublicKeyFile(_) | Auth::KeySetFile(_) => Err(KeyError::PublicKeyOnly),
        Auth::Development => datadir::read_development_secret(&config.data_dir)?
            .ok_or_else(|| KeyError::NoDevelopmentSecret(config.data_dir.clone())),
    }
}

/// Mints a token for `user` that expires after `ttl`.
pub(crate) fn mint(config: &Config, user: UserId, device: Option<DeviceId>, ttl: Duration) -> Result<String, KeyError> {
    let secret = secret(config)?;
    let now_s = Clock::start().now().unix_ms / 1000;
    let minter = Minter::hs256(&secret).for_audience(&config.audience).of_issuer(&config.issuer);
    Ok(minter.mint_issued(user, device, Some(now_s), now_s + ttl.as_secs()))
}

/// A shared secret from a file; white space around it is not part of it.
pub(crate) fn read_secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = read_key_file(path)?;
    let secret = bytes.trim_ascii().to_vec();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyError::SecretTooShort { path: path.to_owned(), bytes: secret.len() });
    }
    Ok(secret)
}

/// The bytes of a key file.
pub(crate) fn read_key_file(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

/// Reads durations as people write them: `90s`, `15m`, `1h30m`, `7d`; a bare number means seconds.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, String> {
    let text = text.trim();
    let duration = match text.parse() {
        Ok(seconds) => Duration::from_secs(seconds),
        Err(_) => humantime::parse_duration(text)
            .map_err(|error| format!("expected a duration as in 90s, 15m, 1h30m or 7d ({error})"))?,
    };
    match duration {
        ttl if ttl < Duration::from_secs(1) => Err("the duration must be a second at least".to_owned()),
        ttl if ttl > TTL_MAX => Err("the duration must not exceed ten years".to_owned()),
        ttl => Ok(ttl),
    }
}
