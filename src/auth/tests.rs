#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests")]

use ed25519_dalek::SigningKey;
use ed25519_dalek::pkcs8::spki::der::pem::LineEnding;
use ed25519_dalek::pkcs8::{EncodePrivateKey, EncodePublicKey};
use jsonwebtoken::EncodingKey;
use jsonwebtoken::crypto::rust_crypto::DEFAULT_PROVIDER;
use serde_json::json;

use super::*;
use crate::limits::TOKENS_CACHED_MAX;

const SECRET: &[u8] = b"a secret of at least thirty-two bytes";

/// Signs with another library than the one that verifies.
fn sign(message: &str, algorithm: Algorithm, key: &EncodingKey) -> String {
    let signer = (DEFAULT_PROVIDER.signer_factory)(&algorithm, key).unwrap();
    URL_SAFE_NO_PAD.encode(signer.try_sign(message.as_bytes()).unwrap())
}

/// A token with any header and claims, signed with HS256 by `SECRET` unless the signature is given.
fn token(header: serde_json::Value, claims: serde_json::Value, signature: Option<&str>) -> String {
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(header), part(claims));
    let signature =
        signature.map_or_else(|| sign(&message, Algorithm::HS256, &EncodingKey::from_secret(SECRET)), str::to_owned);
    format!("{message}.{signature}")
}

fn hs256(claims: serde_json::Value) -> String {
    token(json!({"alg": "HS256", "typ": "JWT"}), claims, None)
}

fn check(claims: serde_json::Value, expected: Result<(u64, Option<u64>, u64), AuthError>) {
    let expected = expected.map(|(user, device, expires_at_s)| Claims {
        user: UserId(user),
        device: device.map(DeviceId),
        expires_at_s,
        issued_at_s: 0,
        token: None,
    });
    assert_eq!(Authenticator::hs256(SECRET).verify(&hs256(claims.clone()), 1000), expected, "{claims}");
}

/// A token that is refused as invalid, and exactly why.
fn fault(auth: &mut Authenticator, token: &str) -> TokenFault {
    match auth.verify(token, 1000) {
        Err(AuthError::Invalid(fault)) => fault,
        other => panic!("{token}: {other:?}"),
    }
}

#[test]
fn a_minted_token_is_accepted_until_it_expires() {
    let token = mint_hs256(SECRET, UserId(u64::MAX), Some(DeviceId(u64::MAX - 1)), 2000);
    let mut auth = Authenticator::hs256(SECRET);
    let claims = Claims {
        user: UserId(u64::MAX),
        device: Some(DeviceId(u64::MAX - 1)),
        expires_at_s: 2000,
        issued_at_s: 0,
        token: None,
    };
    // Twice: verified, then remembered.
    assert_eq!(auth.verify(&token, 1999), Ok(claims));
    assert_eq!(auth.verify(&token, 1999), Ok(claims));
    assert_eq!(auth.verify(&token, 2000), Err(AuthError::Expired), "a remembered token expires too");
    assert_eq!(Authenticator::hs256(SECRET).verify(&token, 2000), Err(AuthError::Expired));
    let any_device = mint_hs256(SECRET, UserId(1), None, 2000);
    assert_eq!(auth.verify(&any_device, 0).map(|claims| claims.device), Ok(None));
}

#[test]
fn claims_are_read_as_other_makers_write_them() {
    check(json!({"sub": "7", "exp": 2000}), Ok((7, None, 2000)));
    check(json!({"sub": "7", "exp": 2000.5, "dev": 9}), Ok((7, Some(9), 2000)));
    check(json!({"sub": "7", "exp": 2000, "dev": "9", "aud": "elsewhere", "iss": "x"}), Ok((7, Some(9), 2000)));
    check(json!({"sub": "7", "exp": 253_402_300_799_u64}), Ok((7, None, 253_402_300_799)));
    check(json!({"sub": "7", "exp": 2000, "nbf": 1000}), Ok((7, None, 2000)));
}

#[test]
fn claims_that_are_missing_or_make_no_sense_are_invalid_and_named() {
    use TokenFault::{ClaimForm, ClaimMissing, Malformed, NotYet};
    let form = |claim, expected| ClaimForm { claim, expected };
    for (claims, expected) in [
        (json!({"exp": 2000}), ClaimMissing("sub")),
        (json!({"sub": "7"}), ClaimMissing("exp")),
        (json!({"sub": 7, "exp": 2000}), form("sub", SUB_FORM)),
        (json!({"sub": "-7", "exp": 2000}), form("sub", SUB_FORM)),
        (json!({"sub": "seven", "exp": 2000}), form("sub", SUB_FORM)),
        (json!({"sub": "18446744073709551616", "exp": 2000}), form("sub", SUB_FORM)),
        (json!({"sub": "7", "exp": "2000"}), form("exp", TIME_FORM)),
        (json!({"sub": "7", "exp": 2000, "dev": -1}), form("dev", DEV_FORM)),
        (json!({"sub": "7", "exp": 2000, "dev": "phone"}), form("dev", DEV_FORM)),
        (json!({"sub": "7", "exp": 2000, "nbf": "soon"}), form("nbf", TIME_FORM)),
        (json!({"sub": "7", "exp": 2000, "nbf": 1001}), NotYet),
        (json!([]), Malformed),
        (json!("7"), Malformed),
    ] {
        assert_eq!(fault(&mut Authenticator::hs256(SECRET), &hs256(claims.clone())), expected, "{claims}");
    }
    check(json!({"sub": "7", "exp": -5}), Err(AuthError::Expired));
}

#[test]
fn what_makes_a_token_invalid_is_told_apart_here_and_never_to_its_bearer() {
    let claims = json!({"sub": "7", "exp": 2000});
    let others = mint_hs256(b"another secret of at least 32 bytes!", UserId(7), None, 2000);
    let headed = |alg: &str| token(json!({ "alg": alg }), claims.clone(), None);
    let faults = [
        others,
        headed("HS999"),
        headed("RS256"),
        hs256(json!({"sub": 7, "exp": 2000})),
        hs256(json!({"sub": "7"})),
        hs256(json!({"sub": "7", "exp": 2000, "nbf": 1001})),
        "not a token".to_owned(),
        "x".repeat(TOKEN_BYTES_MAX + 1),
    ]
    .map(|token| fault(&mut Authenticator::hs256(SECRET), &token));
    let expected = Algorithm::HS256;
    assert_eq!(
        faults[..3],
        [TokenFault::Signature, TokenFault::Algorithm { expected }, TokenFault::Algorithm { expected }]
    );
    let said: std::collections::HashSet<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(said.len(), faults.len() - 1, "all but the two algorithms: {said:?}");
    let on_the_wire: std::collections::HashSet<String> =
        faults.iter().map(|fault| AuthError::Invalid(*fault).to_string()).collect();
    assert_eq!(on_the_wire.len(), 1, "{on_the_wire:?}");
}

#[test]
fn another_key_s_token_is_invalid() {
    let token = mint_hs256(b"another secret of at least 32 bytes!", UserId(1), None, 2000);
    assert!(matches!(Authenticator::hs256(SECRET).verify(&token, 0), Err(AuthError::Invalid(_))));
}

#[test]
fn a_changed_token_is_invalid_even_when_the_true_one_is_remembered() {
    let token = mint_hs256(SECRET, UserId(1), None, 2000);
    let mut auth = Authenticator::hs256(SECRET);
    auth.verify(&token, 0).unwrap();
    for at in 0..token.len() {
        let mut changed = token.clone().into_bytes();
        changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
        let changed = String::from_utf8(changed).unwrap();
        assert!(matches!(auth.verify(&changed, 0), Err(AuthError::Invalid(_))), "byte {at}");
        assert!(matches!(auth.verify(&token[..at], 0), Err(AuthError::Invalid(_))), "cut to {at}");
    }
}

#[test]
fn the_header_cannot_choose_the_algorithm() {
    let claims = json!({"sub": "7", "exp": 2000});
    let mut auth = Authenticator::hs256(SECRET);
    for alg in ["none", "None", "HS384", "HS512", "EdDSA", "RS256", "ES256", ""] {
        for signature in [None, Some("")] {
            let token = token(json!({ "alg": alg }), claims.clone(), signature);
            assert!(matches!(auth.verify(&token, 0), Err(AuthError::Invalid(_))), "{alg}");
        }
    }
    // The right algorithm with an empty signature.
    assert!(matches!(auth.verify(&token(json!({"alg": "HS256"}), claims, Some("")), 0), Err(AuthError::Invalid(_))));
}

fn ed25519() -> (EncodingKey, String) {
    let key = SigningKey::from_bytes(&[5; 32]);
    let private = key.to_pkcs8_pem(LineEnding::LF).unwrap();
    let public = key.verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    (EncodingKey::from_ed_pem(private.as_bytes()).unwrap(), public)
}

#[test]
fn a_header_that_is_known_proves_nothing_else() {
    let mut auth = Authenticator::hs256(SECRET);
    let good = |user: u64| mint_hs256(SECRET, UserId(user), None, 2000);
    let [one, two] = [good(1), good(2)];
    assert!(auth.verify(&one, 0).is_ok());
    let parts = |token: &str| token.split('.').map(str::to_owned).collect::<Vec<_>>();
    let (one, two) = (parts(&one), parts(&two));
    let none = URL_SAFE_NO_PAD.encode(json!({"alg": "none", "typ": "JWT"}).to_string());
    let hs512 = URL_SAFE_NO_PAD.encode(json!({"alg": "HS512", "typ": "JWT"}).to_string());
    for forged in [
        format!("{}.{}.{}", one[0], two[1], one[2]),
        format!("{}.{}.", one[0], two[1]),
        format!("{}.{}", one[0], two[1]),
        format!("{}..{}", one[0], two[2]),
        format!("{}.{}.{}.{}", one[0], two[1], two[1], two[2]),
        format!("{}.{}.{}", none, two[1], two[2]),
        format!("{}.{}.", none, two[1]),
        format!("{}.{}.{}", hs512, two[1], two[2]),
        mint_hs256(b"another secret of at least 32 bytes!", UserId(2), None, 2000),
    ] {
        assert!(matches!(auth.verify(&forged, 0), Err(AuthError::Invalid(_))), "{forged}");
        // And what is refused makes nothing known.
        assert!(auth.verify(&good(rand_user(&forged)), 0).is_ok());
    }
}

/// A user for whom no token was verified before.
fn rand_user(salt: &str) -> u64 {
    salt.bytes().fold(1_000, |sum, byte| sum * 31 % 1_000_003 + u64::from(byte))
}

#[test]
fn one_minter_makes_the_tokens_of_many() {
    let minter = Minter::hs256(SECRET);
    let mut auth = Authenticator::hs256(SECRET);
    for (user, device) in [(0, None), (7, Some(9)), (u64::MAX, Some(u64::MAX))] {
        let token = minter.mint(UserId(user), device.map(DeviceId), 253_402_300_799);
        assert_eq!(token, mint_hs256(SECRET, UserId(user), device.map(DeviceId), 253_402_300_799));
        assert!(token.len() <= MINTED_BYTES_MAX, "{}", token.len());
        let claims = auth.verify(&token, 0).unwrap();
        assert_eq!((claims.user, claims.device), (UserId(user), device.map(DeviceId)));
        // As the library reads it.
        let mut usual = jsonwebtoken::Validation::new(Algorithm::HS256);
        usual.required_spec_claims.clear();
        usual.validate_exp = false;
        jsonwebtoken::decode::<RawClaims>(&token, &jsonwebtoken::DecodingKey::from_secret(SECRET), &usual).unwrap();
    }
}

#[test]
fn an_ed25519_token_is_accepted_by_its_public_key_alone() {
    let (private, public) = ed25519();
    let claims = json!({"sub": "7", "exp": 2000, "dev": "3"});
    let part = |value: serde_json::Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let message = format!("{}.{}", part(json!({"alg": "EdDSA"})), part(claims));
    let token = format!("{message}.{}", sign(&message, Algorithm::EdDSA, &private));
    let mut auth = Authenticator::new(&AuthKeys::public_pem(public.as_bytes()).unwrap());
    let expected =
        Claims { user: UserId(7), device: Some(DeviceId(3)), expires_at_s: 2000, issued_at_s: 0, token: None };
    assert_eq!(auth.verify(&token, 0), Ok(expected));
    assert_eq!(auth.verify(&token, 2000), Err(AuthError::Expired));
    assert!(matches!(Authenticator::hs256(SECRET).verify(&token, 0), Err(AuthError::Invalid(_))));
    let others = SigningKey::from_bytes(&[6; 32]).verifying_key().to_public_key_pem(LineEnding::LF).unwrap();
    let mut other = Authenticator::new(&AuthKeys::public_pem(others.as_bytes()).unwrap());
    assert!(matches!(other.verify(&token, 0), Err(AuthError::Invalid(_))));
}

#[test]
fn a_public_key_is_not_accepted_as_an_hmac_secret() {
    let (_, public) = ed25519();
    let mut auth = Authenticator::new(&AuthKeys::public_pem(public.as_bytes()).unwrap());
    // What a forger who knows the public key would try.
    let forged = mint_hs256(public.as_bytes(), UserId(7), None, 2000);
    assert!(matches!(auth.verify(&forged, 0), Err(AuthError::Invalid(_))));
}

#[test]
fn a_key_that_is_no_public_key_is_refused() {
    for pem in ["", "garbage", "-----BEGIN PUBLIC KEY-----\nAAAA\n-----END PUBLIC KEY-----\n"] {
        assert_eq!(AuthKeys::public_pem(pem.as_bytes()).unwrap_err(), AuthKeyError::NotPublicPem, "{pem}");
    }
    let private = SigningKey::from_bytes(&[5; 32]).to_pkcs8_pem(LineEnding::LF).unwrap();
    assert_eq!(AuthKeys::public_pem(private.as_bytes()).unwrap_err(), AuthKeyError::NotPublicPem);
}

#[test]
fn remembered_tokens_are_bounded_and_the_oldest_go_first() {
    let mut verified = Verified::default();
    let claims = Claims { user: UserId(1), device: None, expires_at_s: 1, issued_at_s: 0, token: None };
    for i in 0..TOKENS_CACHED_MAX + 10 {
        verified.remember(TokenDigest::of(&i.to_string()), claims);
    }
    assert_eq!(verified.len(), (TOKENS_CACHED_MAX, TOKENS_CACHED_MAX));
    assert_eq!(verified.find(&TokenDigest::of("9")), None);
    assert_eq!(verified.find(&TokenDigest::of("10")), Some(claims));
}

#[test]
fn what_is_invalid_or_too_long_is_not_remembered() {
    let mut auth = Authenticator::hs256(SECRET);
    auth.verify("not a token", 0).unwrap_err();
    auth.verify(&mint_hs256(SECRET, UserId(1), None, 5), 5).unwrap_err();
    let long = |padding: usize| hs256(json!({"sub": "7", "exp": 2000, "pad": "x".repeat(padding)}));
    assert!(matches!(auth.verify(&long(TOKEN_BYTES_MAX), 0), Err(AuthError::Invalid(_))));
    assert_eq!(auth.verified.len(), (0, 0));
}

#[test]
fn a_key_is_not_shown_in_debug_output() {
    let shown = format!("{:?}", Authenticator::hs256(b"hunter2"));
    assert_eq!(shown, "Authenticator(AuthKeys([(\"\", HS256)]))");
    assert_eq!(format!("{:?}", AuthKeys::hs256(b"hunter2")), "AuthKeys([(\"\", HS256)])");
}

#[test]
fn the_token_in_the_protocol_s_example_is_genuine() {
    let page = include_str!(concat!(env!("CARGO_MANIFEST_DIR"), "/src/wire/README.md"));
    let token = page.lines().find_map(|line| line.trim().strip_prefix("token: ")).unwrap();
    let claims = Authenticator::hs256(b"0123456789abcdef0123456789abcdef").verify(token, 0).unwrap();
    assert_eq!((claims.user, claims.device), (UserId(1001), Some(DeviceId(7))));
}

#[test]
fn a_token_says_when_it_was_issued_or_does_not_also_when_it_is_seen_again() {
    let mut auth = Authenticator::hs256(SECRET);
    for (claims, expected) in [
        (json!({"sub": "7", "exp": 2000}), 0),
        (json!({"sub": "7", "exp": 2000, "iat": 900.5}), 900),
        (json!({"sub": "7", "exp": 2000, "iat": -5}), 0),
    ] {
        let token = hs256(claims.clone());
        for _ in 0..2 {
            assert_eq!(auth.verify(&token, 1000).map(|claims| claims.issued_at_s), Ok(expected), "{claims}");
        }
    }
    let minted = Minter::hs256(SECRET).mint_issued(UserId(7), None, Some(950), 2000);
    assert_eq!(auth.verify(&minted, 1000).map(|claims| claims.issued_at_s), Ok(950));
    let text = hs256(json!({"sub": "7", "exp": 2000, "iat": "900"}));
    assert!(matches!(auth.verify(&text, 1000), Err(AuthError::Invalid(TokenFault::ClaimForm { claim: "iat", .. }))));
}

#[test]
fn a_token_is_known_by_its_name_as_long_as_it_is_remembered() {
    let mut auth = Authenticator::hs256(SECRET);
    let named = |jti: &str| hs256(json!({"sub": "7", "exp": 2000, "jti": jti}));
    for _ in 0..2 {
        let one = auth.verify(&named("one"), 1000).unwrap().token;
        assert_eq!(one, Some(token_id("one")));
        assert_ne!(auth.verify(&named("another"), 1000).unwrap().token, one);
        assert_eq!(auth.verify(&hs256(json!({"sub": "7", "exp": 2000})), 1000).unwrap().token, None);
    }
    let minted = Minter::hs256(SECRET).mint_named(UserId(7), "one", 2000);
    assert_eq!(auth.verify(&minted, 1000).unwrap().token, Some(token_id("one")));
    let form = TokenFault::ClaimForm { claim: "jti", expected: JTI_FORM };
    assert_eq!(fault(&mut auth, &hs256(json!({"sub": "7", "exp": 2000, "jti": 5}))), form);
    // Whose place another takes does not leave it its name.
    for number in 0..TOKENS_CACHED_MAX as u64 {
        let claims = Claims { user: UserId(number), device: None, expires_at_s: 2000, issued_at_s: 0, token: None };
        auth.verified.remember(TokenDigest::of(&number.to_string()), claims);
    }
    assert_eq!(auth.verified.ids_count(), 0);
}
