#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use ed25519_dalek::SigningKey;
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use rsa::pkcs8::DecodePublicKey as _;
use rsa::traits::PublicKeyParts as _;
use serde_json::{Value, json};

use super::super::{AuthError, Authenticator, mint_hs256};
use super::*;
use ringway_wire::ids::UserId;

/// Made for these tests by `openssl genpkey`, and for nothing else.
const RSA: &str = include_str!("rsa.pem");
const RSA_PUBLIC: &str = include_str!("rsa.pub.pem");
const RSA_SHORT_PUBLIC: &str = include_str!("rsa-1024.pub.pem");
const P256: &str = include_str!("p256.pem");
const P256_PUBLIC: &str = include_str!("p256.pub.pem");
const SECRET: &[u8] = b"a secret of at least thirty-two bytes";
const ED25519: [u8; 32] = [5; 32];

/// Signs with another library than the one that verifies.
fn signed(header: Value, claims: Value, algorithm: Algorithm, key: &EncodingKey) -> String {
    let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    format!("{message}.{}", URL_SAFE_NO_PAD.encode(signer.try_sign(message.as_bytes()).unwrap()))
}

fn private(algorithm: Algorithm) -> EncodingKey {
    use ed25519_dalek::pkcs8::{EncodePrivateKey, spki::der::pem::LineEnding};
    match algorithm {
        Algorithm::RS256 => EncodingKey::from_rsa_pem(RSA.as_bytes()).unwrap(),
        Algorithm::ES256 => EncodingKey::from_ec_pem(P256.as_bytes()).unwrap(),
        Algorithm::EdDSA => {
            let pem = SigningKey::from_bytes(&ED25519).to_pkcs8_pem(LineEnding::LF).unwrap();
            EncodingKey::from_ed_pem(pem.as_bytes()).unwrap()
        }
        _ => EncodingKey::from_secret(SECRET),
    }
}

fn token(kid: Option<&str>, algorithm: Algorithm) -> String {
    let mut header = json!({ "alg": algorithm });
    if let Some(kid) = kid {
        header["kid"] = kid.into();
    }
    signed(header, json!({"sub": "7", "exp": 2000}), algorithm, &private(algorithm))
}

fn text(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn jwk(algorithm: Algorithm) -> Value {
    match algorithm {
        Algorithm::RS256 => {
            let key = rsa::RsaPublicKey::from_public_key_pem(RSA_PUBLIC).unwrap();
            json!({"kty": "RSA", "n": text(key.n().to_bytes_be()), "e": text(key.e().to_bytes_be())})
        }
        Algorithm::ES256 => {
            let key = p256::ecdsa::VerifyingKey::from_public_key_pem(P256_PUBLIC).unwrap();
            let point = key.to_encoded_point(false);
            json!({"kty": "EC", "crv": "P-256", "x": text(point.x().unwrap()), "y": text(point.y().unwrap())})
        }
        Algorithm::EdDSA => {
            let key = SigningKey::from_bytes(&ED25519).verifying_key();
            json!({"kty": "OKP", "crv": "Ed25519", "x": text(key.as_bytes())})
        }
        _ => json!({"kty": "oct", "k": text(SECRET)}),
    }
}

fn named(kid: &str, mut jwk: Value) -> Value {
    jwk["kid"] = kid.into();
    jwk
}

fn set(keys: &[Value]) -> Result<AuthKeys, AuthKeyError> {
    AuthKeys::key_set(json!({ "keys": keys }).to_string().as_bytes())
}

const ALL: [Algorithm; 4] = [Algorithm::HS256, Algorithm::EdDSA, Algorithm::RS256, Algorithm::ES256];

fn fault(auth: &mut Authenticator, token: &str) -> TokenFault {
    match auth.verify(token, 1000) {
        Err(AuthError::Invalid(fault)) => fault,
        other => panic!("{token}: {other:?}"),
    }
}

#[test]
fn each_kind_of_key_verifies_its_own_tokens_by_name_and_no_other_s() {
    let names = ["secret", "ed25519", "rsa", "p256"];
    let keys: Vec<Value> = ALL.iter().zip(names).map(|(algorithm, kid)| named(kid, jwk(*algorithm))).collect();
    let mut auth = Authenticator::new(&set(&keys).unwrap());
    for (algorithm, kid) in ALL.iter().zip(names) {
        assert_eq!(auth.verify(&token(Some(kid), *algorithm), 1000).map(|claims| claims.user), Ok(UserId(7)), "{kid}");
        for other in names.iter().filter(|other| **other != kid) {
            let found = fault(&mut auth, &token(Some(other), *algorithm));
            assert!(matches!(found, TokenFault::Algorithm { .. }), "{kid} as {other}: {found}");
        }
        assert_eq!(fault(&mut auth, &token(Some("unknown"), *algorithm)), TokenFault::UnknownKey);
        assert_eq!(fault(&mut auth, &token(None, *algorithm)), TokenFault::NoKeyNamed);
    }
}

#[test]
fn a_public_key_file_is_of_any_of_the_three_kinds() {
    for (pem, algorithm) in [(RSA_PUBLIC, Algorithm::RS256), (P256_PUBLIC, Algorithm::ES256)] {
        let mut auth = Authenticator::new(&AuthKeys::public_pem(pem.as_bytes()).unwrap());
        // One key alone needs no name, and looks at none.
        assert!(auth.verify(&token(None, algorithm), 1000).is_ok(), "{algorithm:?}");
        assert!(auth.verify(&token(Some("any"), algorithm), 1000).is_ok(), "{algorithm:?}");
        let expected = algorithm;
        assert_eq!(fault(&mut auth, &token(None, Algorithm::EdDSA)), TokenFault::Algorithm { expected });
        // What a forger who knows the public key would try.
        let forged = mint_hs256(pem.as_bytes(), UserId(7), None, 2000);
        assert_eq!(fault(&mut auth, &forged), TokenFault::Algorithm { expected });
    }
    for bad in [RSA, P256, RSA_SHORT_PUBLIC] {
        assert_eq!(AuthKeys::public_pem(bad.as_bytes()).unwrap_err(), AuthKeyError::NotPublicPem, "{bad}");
    }
}

#[test]
fn a_changed_signature_or_claim_is_refused_with_every_kind_of_key() {
    for algorithm in ALL {
        let mut auth = Authenticator::new(&set(&[named("one", jwk(algorithm))]).unwrap());
        let good = token(Some("one"), algorithm);
        let signature_at = good.rfind('.').unwrap() + 1;
        for at in [signature_at - 6, signature_at, signature_at + 20] {
            let mut changed = good.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            assert!(matches!(auth.verify(&changed, 1000), Err(AuthError::Invalid(_))), "{algorithm:?} byte {at}");
        }
        assert!(auth.verify(&good, 1000).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn keys_for_something_else_are_left_out_and_those_that_cannot_be_used_are_refused_by_name() {
    let ed25519 = jwk(Algorithm::EdDSA);
    let with = |mut jwk: Value, name: &str, value: Value| {
        jwk[name] = value;
        jwk
    };
    let left_out = [
        with(ed25519.clone(), "use", "enc".into()),
        with(jwk(Algorithm::RS256), "alg", "PS256".into()),
        with(jwk(Algorithm::HS256), "alg", "HS512".into()),
        json!({"kty": "EC", "crv": "P-384", "x": "AA", "y": "AA"}),
        json!({"kty": "OKP", "crv": "X25519", "x": text([1; 32])}),
        json!({"kty": "AKP", "alg": "ML-DSA-44"}),
    ];
    assert_eq!(set(&left_out).unwrap_err(), AuthKeyError::Empty);
    let mut and_one = left_out.to_vec();
    and_one.push(named("one", ed25519.clone()));
    assert!(Authenticator::new(&set(&and_one).unwrap()).verify(&token(Some("one"), Algorithm::EdDSA), 1000).is_ok());

    let private = named("mine", with(ed25519.clone(), "d", text([5; 32]).into()));
    assert_eq!(set(&[private]).unwrap_err(), AuthKeyError::Private { key: "mine".to_owned() });
    for bad in [
        json!({"kty": "oct", "k": text(b"short")}),
        json!({"kty": "oct"}),
        json!({"kty": "RSA", "n": text([0xff; 128]), "e": "AQAB"}),
        json!({"kty": "RSA", "n": text([0xff; 256])}),
        json!({"kty": "EC", "crv": "P-256", "x": text([1; 31]), "y": text([1; 32])}),
        json!({"kty": "OKP", "crv": "Ed25519", "x": "!"}),
    ] {
        let refused = set(&[ed25519.clone(), bad.clone()]).unwrap_err();
        assert!(matches!(&refused, AuthKeyError::Unusable { key, .. } if key == "number 2"), "{bad}: {refused}");
    }
    let twice = [named("one", ed25519.clone()), named("one", jwk(Algorithm::ES256))];
    assert_eq!(set(&twice).unwrap_err(), AuthKeyError::Twice { key: "one".to_owned() });
    assert!(matches!(set(&[ed25519.clone(), ed25519.clone()]), Err(AuthKeyError::Twice { .. })));
    let many: Vec<Value> = (0..=KEYS_MAX).map(|n| named(&n.to_string(), ed25519.clone())).collect();
    assert_eq!(set(&many).unwrap_err(), AuthKeyError::TooMany);
    assert!(set(&many[1..]).is_ok());
    for bad in ["", "{}", "[]", "{\"keys\": 5}", "{\"keys\": [5]}"] {
        assert_eq!(AuthKeys::key_set(bad.as_bytes()).unwrap_err(), AuthKeyError::NotKeySet, "{bad}");
    }
    let long = vec![b' '; KEY_SET_BYTES_MAX + 1];
    assert_eq!(AuthKeys::key_set(&long).unwrap_err(), AuthKeyError::NotKeySet);
}

#[test]
fn keys_without_a_name_are_told_apart_by_their_algorithm() {
    let keys: Vec<Value> = ALL.iter().map(|algorithm| jwk(*algorithm)).collect();
    let mut auth = Authenticator::new(&set(&keys).unwrap());
    for algorithm in ALL {
        assert!(auth.verify(&token(None, algorithm), 1000).is_ok(), "{algorithm:?}");
    }
}

#[test]
fn while_one_key_takes_another_s_place_both_are_good() {
    let old = "the secret of the year before, 32 bytes";
    let both = AuthKeys::hs256(SECRET).and(AuthKeys::hs256(old.as_bytes())).unwrap();
    let by_old = mint_hs256(old.as_bytes(), UserId(7), None, 2000);
    let mut auth = Authenticator::new(&both);
    assert!(auth.verify(&token(None, Algorithm::HS256), 1000).is_ok());
    assert!(auth.verify(&by_old, 1000).is_ok());
    assert_eq!(fault(&mut Authenticator::hs256(SECRET), &by_old), TokenFault::Signature);
    let named = || set(&[named("one", jwk(Algorithm::EdDSA))]).unwrap();
    assert!(matches!(named().and(named()), Err(AuthKeyError::Twice { .. })));
    let mut mixed = Authenticator::new(&named().and(AuthKeys::hs256(SECRET)).unwrap());
    for good in [token(Some("one"), Algorithm::EdDSA), token(None, Algorithm::HS256)] {
        assert!(mixed.verify(&good, 1000).is_ok(), "{good}");
    }
}

#[test]
fn a_token_of_another_issuer_is_refused_where_one_is_configured() {
    let keys = AuthKeys::hs256(SECRET).of_issuer("https://id.example");
    let mut auth = Authenticator::new(&keys);
    let by = |iss: Value| {
        let claims = json!({"sub": "7", "exp": 2000, "iss": iss});
        signed(json!({"alg": "HS256"}), claims, Algorithm::HS256, &private(Algorithm::HS256))
    };
    assert!(auth.verify(&by("https://id.example".into()), 1000).is_ok());
    assert_eq!(fault(&mut auth, &by("https://other.example".into())), TokenFault::Issuer);
    assert_eq!(fault(&mut auth, &by(Value::Null)), TokenFault::Issuer);
    assert!(matches!(fault(&mut auth, &by(5.into())), TokenFault::ClaimForm { claim: "iss", .. }));
    assert_eq!(fault(&mut auth, &mint_hs256(SECRET, UserId(7), None, 2000)), TokenFault::Issuer);
    assert!(Authenticator::hs256(SECRET).verify(&by("https://other.example".into()), 1000).is_ok());
}

#[test]
fn a_thousand_tokens_that_name_unknown_keys_are_told_so_and_none_is_remembered() {
    let keys: Vec<Value> = (0..KEYS_MAX).map(|n| named(&n.to_string(), jwk(Algorithm::RS256))).collect();
    let mut auth = Authenticator::new(&set(&keys).unwrap());
    let good = token(Some("0"), Algorithm::RS256);
    let (_, tail) = good.split_once('.').unwrap();
    for n in 0..1_000 {
        let header = text(json!({"alg": "RS256", "kid": format!("unknown {n}")}).to_string());
        assert_eq!(fault(&mut auth, &format!("{header}.{tail}")), TokenFault::UnknownKey);
    }
    assert!(auth.verify(&good, 1000).is_ok());
}

#[test]
fn keys_are_equal_if_they_come_of_the_same_files_for_the_same_tokens() {
    let (old, new) = (AuthKeys::hs256(&[1; 32]), AuthKeys::hs256(&[2; 32]));
    let both = || new.clone().and(old.clone()).unwrap();
    assert_eq!(both(), both());
    assert_ne!(both(), new);
    assert_ne!(both(), new.clone().and(AuthKeys::hs256(&[3; 32])).unwrap());
    assert_ne!(new, new.clone().for_audience("here"));
    assert_ne!(new, new.clone().of_issuer("me"));
}
