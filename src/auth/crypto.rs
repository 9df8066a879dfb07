//! The signatures of tokens, as the JWT library asks for them, by ring, which TLS brings anyway.
//!
//! Whoever makes a key installs it, once a process. What always holds: an algorithm that no key here can belong to has
//! neither signer nor verifier, and a key of another family is refused.

use jsonwebtoken::crypto::{CryptoProvider, JwkUtils, JwtSigner, JwtVerifier};
use jsonwebtoken::errors::{Error, ErrorKind};
use jsonwebtoken::{Algorithm, AlgorithmFamily, DecodingKey, DecodingKeyKind, EncodingKey};
use ring::hmac;
use ring::signature::{
    ECDSA_P256_SHA256_FIXED, ED25519, RSA_PKCS1_2048_8192_SHA256, RsaPublicKeyComponents, UnparsedPublicKey,
    VerificationAlgorithm,
};
use signature::Verifier;

/// RSA of 2,048 to 8,192 bits, as ring takes it.
const RSA_MODULUS_BYTES: std::ops::RangeInclusive<usize> = 256..=1_024;
const P256_POINT_BYTES: usize = 65;
const ED25519_KEY_BYTES: usize = 32;

static PROVIDER: CryptoProvider =
    CryptoProvider { signer_factory: no_signer, verifier_factory: verifier, jwk_utils: JwkUtils::new_unimplemented() };

/// Installs it, unless one is.
pub(super) fn install() {
    PROVIDER.install_default().ok();
}

/// Whether the key has the form of one of this algorithm. That its numbers are a key's is seen when a token is verified:
/// one that is none verifies nothing.
pub(super) fn has_form_of(algorithm: Algorithm, key: &DecodingKey) -> bool {
    match (algorithm, key.kind()) {
        (Algorithm::HS256, _) => key.try_get_hmac_secret().is_ok(),
        (Algorithm::EdDSA, DecodingKeyKind::SecretOrDer(bytes)) => bytes.len() == ED25519_KEY_BYTES,
        // An uncompressed point (SEC 1, 2.3.3).
        (Algorithm::ES256, DecodingKeyKind::SecretOrDer(bytes)) => bytes.len() == P256_POINT_BYTES && bytes[0] == 4,
        (Algorithm::RS256, DecodingKeyKind::RsaModulusExponent { n, .. }) => RSA_MODULUS_BYTES.contains(&n.len()),
        // DER: the modulus, the exponent, and a few bytes around them.
        (Algorithm::RS256, DecodingKeyKind::SecretOrDer(bytes)) => bytes.len() > *RSA_MODULUS_BYTES.start(),
        _ => false,
    }
}

/// Tokens are made by [`super::Minter`] alone.
fn no_signer(_: &Algorithm, _: &EncodingKey) -> Result<Box<dyn JwtSigner>, Error> {
    Err(ErrorKind::InvalidAlgorithm.into())
}

fn verifier(algorithm: &Algorithm, key: &DecodingKey) -> Result<Box<dyn JwtVerifier>, Error> {
    let public = |ring: &'static dyn VerificationAlgorithm| -> Box<dyn JwtVerifier> {
        Box::new(Public { key: UnparsedPublicKey::new(ring, key.as_bytes().to_vec()), algorithm: *algorithm })
    };
    match (algorithm, key.family(), key.kind()) {
        (Algorithm::HS256, _, _) => {
            let secret = key.try_get_hmac_secret()?;
            Ok(Box::new(Hs256(hmac::Key::new(hmac::HMAC_SHA256, secret))))
        }
        (Algorithm::EdDSA, AlgorithmFamily::Ed, _) => Ok(public(&ED25519)),
        (Algorithm::ES256, AlgorithmFamily::Ec, _) => Ok(public(&ECDSA_P256_SHA256_FIXED)),
        (Algorithm::RS256, AlgorithmFamily::Rsa, DecodingKeyKind::RsaModulusExponent { n, e }) => {
            Ok(Box::new(Rsa(RsaPublicKeyComponents { n: n.clone(), e: e.clone() })))
        }
        (Algorithm::RS256, AlgorithmFamily::Rsa, DecodingKeyKind::SecretOrDer(_)) => {
            Ok(public(&RSA_PKCS1_2048_8192_SHA256))
        }
        _ => Err(ErrorKind::InvalidAlgorithm.into()),
    }
}

struct Hs256(hmac::Key);

impl Verifier<Vec<u8>> for Hs256 {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        hmac::verify(&self.0, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Hs256 {
    fn algorithm(&self) -> Algorithm {
        Algorithm::HS256
    }
}

/// A public key that is one run of bytes.
struct Public {
    key: UnparsedPublicKey<Vec<u8>>,
    algorithm: Algorithm,
}

impl Verifier<Vec<u8>> for Public {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.key.verify(message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Public {
    fn algorithm(&self) -> Algorithm {
        self.algorithm
    }
}

/// An RSA key by its two numbers, big-endian.
struct Rsa(RsaPublicKeyComponents<Vec<u8>>);

impl Verifier<Vec<u8>> for Rsa {
    fn verify(&self, message: &[u8], signature: &Vec<u8>) -> Result<(), signature::Error> {
        self.0.verify(&RSA_PKCS1_2048_8192_SHA256, message, signature).map_err(|_| signature::Error::new())
    }
}

impl JwtVerifier for Rsa {
    fn algorithm(&self) -> Algorithm {
        Algorithm::RS256
    }
}
