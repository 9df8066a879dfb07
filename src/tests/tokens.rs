//! Tokens that a gateway refuses: its log and `ringway token check` say exactly why, the peer is told one thing.

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use ringway_wire::ids::DeviceId;
use ringway_wire::schema::CloseReason;
use serde_json::{Value, json};

use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, SECRET};

/// A token with any header and claims, signed with HS256.
fn token(alg: &str, claims: &Value, secret: &str) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": alg })), part(claims));
    let key = EncodingKey::from_secret(secret.as_bytes());
    format!("{message}.{}", jsonwebtoken::crypto::sign(message.as_bytes(), &key, Algorithm::HS256).unwrap())
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// Tokens that are refused, and words that only their fault has.
fn refused() -> [(String, &'static str); 5] {
    let exp = now() + 3_600;
    let good = json!({"sub": "7", "exp": exp});
    [
        (token("HS256", &good, "another secret, of at least 32 bytes"), "signature"),
        (token("HS256", &json!({"sub": 7, "exp": exp}), SECRET), "`sub`"),
        (token("HS256", &json!({"sub": "7"}), SECRET), "no claim `exp`"),
        (token("XS999", &good, SECRET), "algorithm"),
        (token("HS256", &json!({"sub": "7", "exp": exp, "nbf": exp}), SECRET), "`nbf`"),
    ]
}

fn check(token: &str) -> (Option<i32>, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
    let output = command.args(["token", "check", token]).env("RINGWAY_AUTH_HS256_SECRET", SECRET).output().unwrap();
    let said = String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
    (output.status.code(), said)
}

#[test]
fn five_faults_are_five_reasons_in_the_log_and_for_token_check_and_one_for_the_peer() {
    let dir = tempfile::tempdir().unwrap();
    let mut gateway = Gateway::start(dir.path(), &["--shards", "1", "--set", "log.level=debug"]);
    let mut heard = Vec::new();
    for (token, words) in refused() {
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        match client.login(&token, DeviceId(1), None, PATIENCE) {
            Err(ConnectionError::Closing { reason: CloseReason::TokenInvalid, message, .. }) => heard.push(message),
            other => panic!("{words}: {other:?}"),
        }
        gateway.wait_until("the log says why", |gateway| {
            let log = gateway.log();
            let mut closes = log.lines().filter(|line| line.contains("TokenInvalid"));
            closes.any(|line| line.contains(words))
        });
        let (code, said) = check(&token);
        assert!(code == Some(1) && said.contains(words), "{words}: {said}");
    }
    assert!(heard.windows(2).all(|two| two[0] == two[1]), "the peer learns nothing: {heard:?}");
}

#[test]
fn a_good_token_is_said_to_be_good_and_for_whom() {
    let good = token("HS256", &json!({"sub": "7", "exp": now() + 90, "dev": 3}), SECRET);
    let (code, said) = check(&good);
    assert!(code == Some(0) && said.contains("user 7, device 3 alone"), "{said}");
    let (code, said) = check(&token("HS256", &json!({"sub": "7", "exp": now() - 90}), SECRET));
    assert!(code == Some(1) && said.contains("expired"), "{said}");
}
