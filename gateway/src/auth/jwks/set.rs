//! Reading a key set (RFC 7517): which of its keys may sign tokens, and with what.

use jsonwebtoken::{
    Algorithm, DecodingKey,
    jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse},
};
use serde::Deserialize;

use crate::auth::jwt::Key;

/// Keys that are taken from one set.
const MOST_KEYS: usize = 100;
/// What an RSA key can be used with.
const RSA: [Algorithm; 6] = [
    Algorithm::RS256,
    Algorithm::RS384,
    Algorithm::RS512,
    Algorithm::PS256,
    Algorithm::PS384,
    Algorithm::PS512,
];

/// What is in a set.
#[derive(Debug)]
pub(super) struct KeySet {
    /// A key that serves several algorithms is in it several times.
    pub keys: Vec<Key>,
    /// Why others are not; nothing of a key is in it.
    pub passed_over: Vec<&'static str>,
}

/// A set whose keys are not looked at yet: one that is not understood does not spoil the others (section 5).
#[derive(Deserialize)]
struct Document {
    keys: Vec<serde_json::Value>,
}

/// Reads a set. `allowed` is what keys may be used with; empty: whatever they say, or their type leaves.
pub(super) fn read(body: &[u8], allowed: &[Algorithm]) -> Result<KeySet, String> {
    // The error of the parser could repeat what is in the body.
    let Document { keys: found } =
        serde_json::from_slice(body).map_err(|_| "the answer is not a key set".to_owned())?;
    if found.len() > MOST_KEYS {
        return Err(format!("the answer has {} keys, {MOST_KEYS} are allowed", found.len()));
    }
    let (mut keys, mut passed_over) = (Vec::new(), Vec::new());
    for value in found {
        match serde_json::from_value::<Jwk>(value).map_err(|_| "it is not understood") {
            Ok(jwk) => match usable(&jwk, allowed) {
                Ok(usable) => keys.extend(usable),
                Err(reason) => passed_over.push(reason),
            },
            Err(reason) => passed_over.push(reason),
        }
    }
    Ok(KeySet { keys, passed_over })
}

fn usable(jwk: &Jwk, allowed: &[Algorithm]) -> Result<Vec<Key>, &'static str> {
    if jwk.common.public_key_use.as_ref().is_some_and(|purpose| *purpose != PublicKeyUse::Signature) {
        return Err("it is not for signatures");
    }
    let operations = jwk.common.key_operations.as_deref();
    if operations.is_some_and(|operations| !operations.contains(&KeyOperations::Verify)) {
        return Err("it is not for verifying");
    }
    let possible = possible(&jwk.algorithm)?;
    let chosen: Vec<Algorithm> = match jwk.common.key_algorithm {
        Some(named) => {
            let named = Algorithm::try_from(named).map_err(|_| "its algorithm is not known here")?;
            if !possible.contains(&named) {
                return Err("its algorithm is not for its type");
            }
            vec![named]
        }
        // Most signers that do not say mean this one; another one has to be named by either side.
        None if allowed.is_empty() && possible.contains(&Algorithm::RS256) => vec![Algorithm::RS256],
        None => possible.to_vec(),
    };
    let chosen: Vec<_> =
        chosen.into_iter().filter(|one| allowed.is_empty() || allowed.contains(one)).collect();
    if chosen.is_empty() {
        return Err("its algorithm is not allowed");
    }
    let decoding = DecodingKey::from_jwk(jwk).map_err(|_| "its parameters are wrong")?;
    let id = jwk.common.key_id.clone();
    Ok(chosen
        .into_iter()
        .map(|algorithm| Key { id: id.clone(), algorithm, decoding: decoding.clone() })
        .collect())
}

/// What a key of this type can be used with.
fn possible(parameters: &AlgorithmParameters) -> Result<&'static [Algorithm], &'static str> {
    match parameters {
        AlgorithmParameters::RSA(_) => Ok(&RSA),
        AlgorithmParameters::EllipticCurve(key) => match key.curve {
            EllipticCurve::P256 => Ok(&[Algorithm::ES256]),
            EllipticCurve::P384 => Ok(&[Algorithm::ES384]),
            _ => Err("its curve is not known here"),
        },
        AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
            Ok(&[Algorithm::EdDSA])
        }
        AlgorithmParameters::OctetKeyPair(_) => Err("its curve is not known here"),
        AlgorithmParameters::OctetKey(_) => Err("it is a secret, which nobody should publish"),
        _ => Err("its type is not known here"),
    }
}
