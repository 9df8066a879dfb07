//! `ringway token`: the secret that a configuration means, and what it takes to mint with it.
//!
//! Used on the main thread. What always holds: a token is only minted with a shared secret; with a public key
//! the gateway can verify tokens and make none.

#[cfg(test)]
mod tests;

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::auth;
use crate::clock::Clock;
use crate::config::{Auth, Config, SECRET_BYTES_MIN};
use crate::datadir::{self, DataDirError};
use ringway_wire::ids::{DeviceId, UserId};

/// Longest life of a token that is minted here.
pub const TTL_MAX: Duration = Duration::from_secs(10 * 365 * 86_400);

/// Why there is no token, or no key to verify one with.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    /// The gateway has only the public key.
    #[error("auth.eddsa_public_key_file can verify tokens but not mint them: use the private key's own tool")]
    PublicKeyOnly,
    /// No gateway was started in that directory yet.
    #[error("{0} has no development secret yet: start `ringway serve` there once, or set auth.hs256_secret")]
    NoDevelopmentSecret(PathBuf),
    /// The file is not there or not readable.
    #[error("the key file {path} cannot be read")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
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
    /// The data directory's secret could not be read.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
}

/// Mints a token for `user` that expires after `ttl`.
pub fn mint(config: &Config, user: UserId, device: Option<DeviceId>, ttl: Duration) -> Result<String, KeyError> {
    let secret = match &config.auth {
        Auth::Secret(secret) => secret.clone(),
        Auth::SecretFile(path) => read_secret(path)?,
        Auth::PublicKeyFile(_) => return Err(KeyError::PublicKeyOnly),
        Auth::Development => datadir::read_development_secret(&config.data_dir)?
            .ok_or_else(|| KeyError::NoDevelopmentSecret(config.data_dir.clone()))?,
    };
    let expires_at_s = Clock::start().now().unix_ms / 1000 + ttl.as_secs();
    Ok(auth::mint_hs256(&secret, user, device, expires_at_s))
}

/// A shared secret from a file; white space around it is not part of it.
pub fn read_secret(path: &Path) -> Result<Vec<u8>, KeyError> {
    let bytes = read_key_file(path)?;
    let secret = bytes.trim_ascii().to_vec();
    if secret.len() < SECRET_BYTES_MIN {
        return Err(KeyError::SecretTooShort { path: path.to_owned(), bytes: secret.len() });
    }
    Ok(secret)
}

/// The bytes of a key file.
pub fn read_key_file(path: &Path) -> Result<Vec<u8>, KeyError> {
    std::fs::read(path).map_err(|source| KeyError::Read { path: path.to_owned(), source })
}

/// Reads durations as people write them: `90s`, `15m`, `1h30m`, `7d`; a bare number means seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    const EXPECTED: &str = "expected a duration as in 90s, 15m, 1h30m or 7d";
    let mut seconds: u64 = 0;
    let mut rest = text.trim();
    if rest.is_empty() {
        return Err(EXPECTED.to_owned());
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let number: u64 = number.parse().map_err(|_| EXPECTED.to_owned())?;
        let letters = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let (unit, after) = after.split_at(letters);
        let scale = match unit.trim() {
            "" | "s" | "sec" => 1,
            "m" | "min" => 60,
            "h" => 3_600,
            "d" => 86_400,
            "w" => 7 * 86_400,
            _ => return Err(EXPECTED.to_owned()),
        };
        seconds = number.checked_mul(scale).and_then(|part| part.checked_add(seconds)).ok_or(EXPECTED)?;
        rest = after;
    }
    match Duration::from_secs(seconds) {
        Duration::ZERO => Err("the duration must be longer than nothing".to_owned()),
        ttl if ttl > TTL_MAX => Err("the duration must not exceed ten years".to_owned()),
        ttl => Ok(ttl),
    }
}
