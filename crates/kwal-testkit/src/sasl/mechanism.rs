//! The server side of the SASL mechanisms, with Kafka's error messages.

use std::{str, sync::PoisonError, time::Duration};

use base64::{Engine, prelude::BASE64_STANDARD};
use bytes::Bytes;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::config::Sasl;

/// A SASL exchange in progress.
#[derive(Debug)]
pub(super) enum Exchange {
    Plain,
    Bearer { refused: Option<String> },
    Scram { hash: Hash, first: Option<First> },
}

/// The result of a client message.
pub(super) enum Step {
    /// The response continues the exchange.
    Challenge(Bytes),
    /// The client is authenticated.
    Authenticated { principal: String, auth_bytes: Bytes, lifetime: Option<Duration> },
    /// The client is rejected with this message.
    Rejected(String),
}

/// State after the first two messages of SCRAM.
#[derive(Debug)]
pub(super) struct First {
    user: String,
    bare: String,
    challenge: String,
    nonce: String,
    salted: Vec<u8>,
}

impl Exchange {
    /// Starts an exchange. `None` for an unknown mechanism.
    pub(super) fn begin(mechanism: &str) -> Option<Self> {
        Some(match mechanism {
            "PLAIN" => Self::Plain,
            "OAUTHBEARER" => Self::Bearer { refused: None },
            "SCRAM-SHA-256" => Self::Scram { hash: Hash::Sha256, first: None },
            "SCRAM-SHA-512" => Self::Scram { hash: Hash::Sha512, first: None },
            _ => return None,
        })
    }

    pub(super) fn mechanism(&self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Bearer { .. } => "OAUTHBEARER",
            Self::Scram { hash, .. } => hash.name(),
        }
    }

    /// Handles a client message.
    pub(super) fn take(&mut self, sasl: &Sasl, message: &[u8]) -> Step {
        let mechanism = self.mechanism();
        let invalid = || {
            Step::Rejected(format!(
                "Authentication failed during authentication due to invalid credentials with SASL mechanism {mechanism}"
            ))
        };
        let Ok(message) = str::from_utf8(message) else { return invalid() };
        let done = match self {
            Self::Plain => return plain(sasl, message),
            Self::Bearer { refused } => return bearer(sasl, refused, message),
            Self::Scram { hash, first: first @ None } => Hash::first(*hash, sasl, message).map(|state| {
                let challenge = Bytes::from(state.challenge.clone());
                *first = Some(state);
                Step::Challenge(challenge)
            }),
            Self::Scram { hash, first: Some(first) } => hash.proven(first, message),
        };
        done.unwrap_or_else(invalid)
    }
}

fn plain(sasl: &Sasl, message: &str) -> Step {
    let mut parts = message.split('\0').skip(1);
    let (Some(user), Some(password), None) = (parts.next(), parts.next(), parts.next()) else {
        return Step::Rejected("Invalid SASL/PLAIN response: expected 3 tokens".to_owned());
    };
    match sasl.users.get(user) {
        Some(known) if known == password => {
            Step::Authenticated { principal: user.to_owned(), auth_bytes: Bytes::new(), lifetime: None }
        }
        _ => Step::Rejected("Authentication failed: Invalid username or password".to_owned()),
    }
}

/// Handles a token.
///
/// The response to an invalid one is a JSON status; the client's next message is rejected with the same text.
fn bearer(sasl: &Sasl, refused: &mut Option<String>, message: &str) -> Step {
    if let Some(words) = refused.take() {
        return Step::Rejected(words);
    }
    let token = message.split('\x01').find_map(|part| part.strip_prefix("auth=Bearer "));
    let validate = sasl.token_validator.as_deref();
    match token.and_then(|token| validate?(token)) {
        Some(lifetime) => Step::Authenticated {
            principal: "bearer".to_owned(),
            auth_bytes: Bytes::new(),
            lifetime: Some(lifetime),
        },
        None => {
            let words = "{\"status\":\"invalid_token\"}";
            *refused = Some(words.to_owned());
            Step::Challenge(Bytes::from_static(words.as_bytes()))
        }
    }
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Hash {
    Sha256,
    Sha512,
}

/// SCRAM, the server side (RFC 5802).
impl Hash {
    fn name(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn first(self, sasl: &Sasl, message: &str) -> Option<First> {
        let bare = message.strip_prefix("n,,")?;
        let (user, nonce) = bare.strip_prefix("n=")?.split_once(",r=")?;
        let user = user.replace("=2C", ",").replace("=3D", "=");
        let password = sasl.users.get(&user)?;
        let nonce = format!("{nonce}{MORE_NONCE}");
        let salt = BASE64_STANDARD.encode(SALT);
        let challenge = format!("r={nonce},s={salt},i={}", sasl.iterations);
        let salted = match sasl.iterations {
            iterations @ ..=1_000_000 => {
                let mut all = sasl.salted.0.lock().unwrap_or_else(PoisonError::into_inner);
                let compute = || self.pbkdf2(password.as_bytes(), iterations);
                all.entry((user.clone(), self.name())).or_insert_with(compute).clone()
            }
            // Clients refuse so many iterations, so the server does not compute them either.
            _ => Vec::new(),
        };
        Some(First { user, bare: bare.to_owned(), challenge, nonce, salted })
    }

    fn proven(self, first: &First, message: &str) -> Option<Step> {
        let (without_proof, proof) = message.split_once(",p=")?;
        if without_proof != format!("c=biws,r={}", first.nonce) {
            return None;
        }
        let auth_message = format!("{},{},{without_proof}", first.bare, first.challenge);
        let stored_key = self.digest(&self.mac(&first.salted, b"Client Key"));
        let signature = self.mac(&stored_key, auth_message.as_bytes());
        let proof = BASE64_STANDARD.decode(proof).ok()?;
        let client_key: Vec<u8> =
            proof.iter().zip(signature).map(|(proof, signature)| proof ^ signature).collect();
        if self.digest(&client_key) != stored_key {
            return None;
        }
        let server_key = self.mac(&first.salted, b"Server Key");
        let signature = BASE64_STANDARD.encode(self.mac(&server_key, auth_message.as_bytes()));
        let auth_bytes = format!("v={signature}").into();
        Some(Step::Authenticated { principal: first.user.clone(), auth_bytes, lifetime: None })
    }

    fn pbkdf2(self, password: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, SALT, iterations).to_vec(),
            Self::Sha512 => pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, SALT, iterations).to_vec(),
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    fn mac(self, key: &[u8], data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => mac::<Hmac<Sha256>>(key, data),
            Self::Sha512 => mac::<Hmac<Sha512>>(key, data),
        }
    }
}

fn mac<M: Mac + KeyInit>(key: &[u8], data: &[u8]) -> Vec<u8> {
    let Ok(mac) = <M as KeyInit>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length");
    };
    mac.chain_update(data).finalize().into_bytes().to_vec()
}

/// A test broker needs no unpredictable nonce.
const MORE_NONCE: &str = "embedded";
const SALT: &[u8] = b"salt of the embedded broker";
