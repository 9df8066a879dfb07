//! Tokens that a gateway refuses: its log and `ringway token check` say exactly why, the peer is told one thing.

use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use p256::pkcs8::DecodePublicKey as _;
use ringway_client::Event;
use ringway_wire::ids::DeviceId;
use ringway_wire::schema::{CloseReason, ErrorCode};
use rsa::pkcs8::DecodePrivateKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};

use crate::connection::{Connection, ConnectionError};
use crate::gateway::{Gateway, PATIENCE, SECRET, pause};

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

#[test]
fn a_user_is_written_in_one_way_and_a_time_is_one_that_comes() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    let exp = now() + 3_600;
    let claims = |text: &str| serde_json::from_str::<Value>(text).unwrap();
    let mut refused: Vec<(Value, &str)> =
        ["+1", "01", "00", " 1", "1 ", "1.0", "1e3", "-1", "", "18446744073709551616"]
            .map(|sub| (json!({"sub": sub, "exp": exp}), "`sub`"))
            .to_vec();
    refused.push((json!({"sub": "1", "exp": exp, "dev": "+1"}), "`dev`"));
    refused.push((json!({"sub": "1", "exp": exp, "dev": "01"}), "`dev`"));
    for exp in ["1e300", "1e18", "253402300800"] {
        refused.push((claims(&format!(r#"{{"sub": "1", "exp": {exp}}}"#)), "`exp`"));
    }
    for (claims, words) in refused {
        let token = token("HS256", &claims, SECRET);
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        match client.login(&token, DeviceId(1), None, PATIENCE) {
            Err(ConnectionError::Closing { reason: CloseReason::TokenInvalid, .. }) => {}
            other => panic!("{claims}: {other:?}"),
        }
        let (code, said) = check(&token);
        assert!(code == Some(1) && said.contains(words), "{claims}: {said}");
    }
    for claims in [json!({"sub": "0", "exp": 253_402_300_799_u64}), json!({"sub": "18446744073709551615", "exp": exp})]
    {
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        client.login(&token("HS256", &claims, SECRET), DeviceId(1), None, PATIENCE).unwrap();
    }
}

#[test]
fn a_token_for_another_audience_is_refused_where_an_audience_is_configured() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1", "--set", "auth.audience=chat.example"]);
    let log_in = |gateway: &Gateway, aud: Option<Value>| {
        let mut claims = json!({"sub": "7", "exp": now() + 3_600});
        if let Some(aud) = aud {
            claims["aud"] = aud;
        }
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        client.login(&token("HS256", &claims, SECRET), DeviceId(1), None, PATIENCE)
    };
    for aud in [json!("chat.example"), json!(["other.example", "chat.example"])] {
        log_in(&gateway, Some(aud)).unwrap();
    }
    for aud in [None, Some(json!("other.example")), Some(json!("chat.example.org")), Some(json!([])), Some(json!(7))] {
        let shown = format!("{aud:?}");
        let refused = log_in(&gateway, aud);
        assert!(
            matches!(refused, Err(ConnectionError::Closing { reason: CloseReason::TokenInvalid, .. })),
            "{shown}: {refused:?}"
        );
    }
    // What `ringway token` makes for this gateway is for it.
    let ringway = |arguments: &[&str]| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        let configured = command.env("RINGWAY_AUTH_HS256_SECRET", SECRET).env("RINGWAY_AUTH_AUDIENCE", "chat.example");
        configured.arg("token").args(arguments).output().unwrap()
    };
    let made = String::from_utf8(ringway(&["--user", "7"]).stdout).unwrap();
    Connection::connect(gateway.addr(), PATIENCE).unwrap().login(made.trim(), DeviceId(1), None, PATIENCE).unwrap();
    let other = token("HS256", &json!({"sub": "7", "exp": now() + 90, "aud": "other.example"}), SECRET);
    let said = String::from_utf8(ringway(&["check", &other]).stderr).unwrap();
    assert!(said.contains("`aud`"), "{said}");
    // Where none is configured, whoever has made the token for somebody has made it for this gateway too.
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "1"]);
    log_in(&gateway, Some(json!("other.example"))).unwrap();
}

#[test]
fn a_session_that_gets_a_newer_token_outlives_its_first_one() {
    let dir = tempfile::tempdir().unwrap();
    let gateway = Gateway::start(dir.path(), &["--shards", "2"]);
    // On whichever shard the connection begins, the user lives on one of them.
    for user in 1..=4 {
        let first_s = now() + 3;
        let good = |exp: u64| token("HS256", &json!({"sub": user.to_string(), "exp": exp}), SECRET);
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        client.login(&good(first_s), DeviceId(1), None, PATIENCE).unwrap();
        let other = token("HS256", &json!({"sub": "9", "exp": now() + 60}), SECRET);
        let answer = client.refresh(&other, PATIENCE).unwrap();
        assert!(matches!(answer, Event::Refused { code: ErrorCode::TokenInvalid, .. }), "{answer:?}");
        let later_s = now() + 3_600;
        let answer = client.refresh(&good(later_s), PATIENCE).unwrap();
        assert!(
            matches!(answer, Event::Refreshed { expires_at_ms, .. } if expires_at_ms == later_s * 1000),
            "{answer:?}"
        );
        while now() < first_s + 1 {
            let asked = client.ping().unwrap();
            let answer = client.answer(asked, PATIENCE).unwrap();
            assert!(matches!(answer, Event::Pong { .. }), "{answer:?}");
            pause(Duration::from_millis(50));
        }
    }
}

/// Keys that were made for tests, and for nothing else.
const RSA: &str = include_str!("../auth/keys/rsa.pem");
const P256: &str = include_str!("../auth/keys/p256.pem");
const P256_PUBLIC: &str = include_str!("../auth/keys/p256.pub.pem");

/// A JSON Web Key Set with their public halves, as OpenSSL's own numbers say.
fn key_set() -> Value {
    let rsa = rsa::RsaPrivateKey::from_pkcs8_pem(RSA).unwrap();
    let p256 = p256::ecdsa::VerifyingKey::from_public_key_pem(P256_PUBLIC).unwrap().to_encoded_point(false);
    let text = |bytes: &[u8]| URL_SAFE_NO_PAD.encode(bytes);
    let (n, e) = (text(&rsa.n().to_bytes_be()), text(&rsa.e().to_bytes_be()));
    let (x, y) = (text(p256.x().unwrap()), text(p256.y().unwrap()));
    json!({"keys": [
        {"kty": "RSA", "kid": "2025", "alg": "RS256", "use": "sig", "n": n, "e": e},
        {"kty": "EC", "kid": "2026", "alg": "ES256", "use": "sig", "crv": "P-256", "x": x, "y": y},
    ]})
}

fn signed(alg: Algorithm, kid: &str, claims: &Value) -> String {
    let key = match alg {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA.as_bytes()),
        _ => EncodingKey::from_ec_pem(P256.as_bytes()),
    };
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(&json!({ "alg": alg, "kid": kid })), part(claims));
    format!("{message}.{}", jsonwebtoken::crypto::sign(message.as_bytes(), &key.unwrap(), alg).unwrap())
}

#[test]
fn tokens_of_an_identity_provider_with_several_keys_are_accepted_by_the_key_that_they_name() {
    let dir = tempfile::tempdir().unwrap();
    let keys = dir.path().join("jwks.json");
    std::fs::write(&keys, key_set().to_string()).unwrap();
    let settings = [format!("auth.jwks_file={}", keys.display()), "auth.issuer=https://id.example".to_owned()];
    let arguments = ["--shards", "1", "--set", &settings[0], "--set", &settings[1]];
    let mut command = Gateway::command(dir.path(), &arguments);
    let gateway = Gateway::spawn(dir.path(), command.env_remove("RINGWAY_AUTH_HS256_SECRET"));
    let claims = json!({"sub": "7", "exp": now() + 3_600, "iss": "https://id.example"});
    let log_in = |token: &str| {
        let mut client = Connection::connect(gateway.addr(), PATIENCE).unwrap();
        client.login(token, DeviceId(1), None, PATIENCE).map(drop)
    };
    for (alg, kid) in [(Algorithm::RS256, "2025"), (Algorithm::ES256, "2026")] {
        log_in(&signed(alg, kid, &claims)).unwrap();
    }
    let check = |token: &str| {
        let mut command = Command::new(env!("CARGO_BIN_EXE_ringway"));
        let command = command.args(["token", "check", token]).env_remove("RINGWAY_AUTH_HS256_SECRET");
        let output = command.args(["--set", &settings[0], "--set", &settings[1]]).output().unwrap();
        String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap()
    };
    let other = json!({"sub": "7", "exp": now() + 3_600, "iss": "https://other.example"});
    for (token, words) in [
        (signed(Algorithm::RS256, "2024", &claims), "names a key"),
        (signed(Algorithm::RS256, "2026", &claims), "another algorithm"),
        (token("HS256", &claims, &key_set().to_string()), "names no key"),
        (signed(Algorithm::ES256, "2026", &other), "`iss`"),
    ] {
        let refused = log_in(&token);
        assert!(
            matches!(refused, Err(ConnectionError::Closing { reason: CloseReason::TokenInvalid, .. })),
            "{words}: {refused:?}"
        );
        let said = check(&token);
        assert!(said.contains(words), "{words}: {said}");
    }
    assert!(check(&signed(Algorithm::RS256, "2025", &claims)).contains("accepted: user 7"));
}
