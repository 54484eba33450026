//! SCRAM (RFC 5802) with SHA-256 and SHA-512 (RFC 7677), without channel binding, as in Kafka.
//!
//! ```text
//!   client                                              broker
//!   n,,n=alice,r=NONCE                ───────────►
//!                                     ◄───────────      r=NONCE+MORE,s=SALT,i=4096
//!   (salts the password, 4096 times over)
//!   c=biws,r=NONCE+MORE,p=PROOF       ───────────►
//!                                     ◄───────────      v=SIGNATURE
//! ```

use std::{fmt, str};

use base64::{Engine, prelude::BASE64_STANDARD};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256, Sha512};

use super::mechanism::{Mechanism, SaslError, Step, escape};

/// The mechanisms SCRAM-SHA-256 and SCRAM-SHA-512.
///
/// User name and password are used as they are, in UTF-8. SASLprep (RFC 4013) is omitted, because Kafka omits
/// it when it stores and when it checks a password. Characters other than ASCII have to be in the same
/// Unicode form everywhere.
///
/// Between 4,096 and 1,000,000 iterations are accepted, both included. With fewer, an eavesdropper could try
/// passwords too quickly; with more, a broker could keep the client busy for an arbitrary time. They run in
/// [`compute`](Mechanism::compute).
///
/// ```
/// use kwal_protocol::sasl::{Mechanism, Scram, Step};
///
/// let mut scram = Scram::sha_512("alice", "secret", [7; 24])?; // random in earnest
/// assert_eq!(scram.name(), "SCRAM-SHA-512");
/// let nonce = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcH";
/// assert_eq!(scram.respond(None)?, Step::Send(format!("n,,n=alice,r={nonce}").into()));
/// let challenge = format!("r={nonce}MORE,s=c2FsdA==,i=4096");
/// assert_eq!(scram.respond(Some(challenge.as_bytes()))?, Step::Compute);
/// let Step::Send(proof) = scram.compute()? else { panic!() };
/// assert!(proof.starts_with(format!("c=biws,r={nonce}MORE,p=").as_bytes()));
/// # Ok::<(), kwal_protocol::sasl::SaslError>(())
/// ```
#[derive(Clone)]
pub struct Scram {
    hash: Hash,
    password: String,
    nonce: String,
    /// `client-first-message-bare`.
    first: String,
    phase: Phase,
}

#[derive(Clone)]
enum Phase {
    Start,
    /// The first message has been sent.
    First,
    /// The broker has responded to it.
    Salted(Challenge),
    /// The proof has been sent; the broker has to respond with this signature.
    Final {
        server_key: Vec<u8>,
        auth_message: String,
    },
    Over,
}

/// `server-first-message`.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Challenge {
    /// The message as received.
    text: String,
    nonce: String,
    salt: Vec<u8>,
    iterations: u32,
}

impl Scram {
    /// Creates SCRAM-SHA-256 for `user`.
    ///
    /// `random` becomes the nonce, so it has to come from a cryptographic source and be used once.
    ///
    /// # Errors
    /// [`SaslError::Credentials`] if one of the two is empty, or the user name contains a NUL.
    pub fn sha_256(user: &str, password: &str, random: [u8; 24]) -> Result<Self, SaslError> {
        Self::new(Hash::Sha256, user, password, BASE64_STANDARD.encode(random))
    }

    /// Creates SCRAM-SHA-512 for `user`.
    ///
    /// # Errors
    /// As [`sha_256`](Self::sha_256).
    pub fn sha_512(user: &str, password: &str, random: [u8; 24]) -> Result<Self, SaslError> {
        Self::new(Hash::Sha512, user, password, BASE64_STANDARD.encode(random))
    }

    fn new(hash: Hash, user: &str, password: &str, nonce: String) -> Result<Self, SaslError> {
        match (user, password) {
            ("", _) => return Err(SaslError::Credentials("the user name is empty")),
            (_, "") => return Err(SaslError::Credentials("the password is empty")),
            _ if user.contains('\0') => {
                return Err(SaslError::Credentials("the user name contains a NUL"));
            }
            _ => {}
        }
        let first = format!("n={},r={nonce}", escape(user));
        Ok(Self { hash, password: password.to_owned(), nonce, first, phase: Phase::Start })
    }

    fn wrong<T>(&self, what: impl Into<std::borrow::Cow<'static, str>>) -> Result<T, SaslError> {
        Err(SaslError::Challenge { mechanism: self.hash.mechanism().into(), what: what.into() })
    }

    /// Parses `server-first-message`. All of it is checked before anything is computed.
    fn read_first(&self, message: &[u8]) -> Result<Challenge, SaslError> {
        let Some(text) = text(message) else { return self.wrong("it is not text or too long") };
        let mut attributes = text.split(',');
        let mut attribute = |name: char| match attributes.next().and_then(|attribute| split(attribute)) {
            Some((is, value)) if is == name => Ok(value),
            Some(('m', _)) => self.wrong("it requires an extension"),
            Some(('e', words)) => Err(SaslError::Refused { words: words.to_owned() }),
            _ => self.wrong(format!("{name}= is missing")),
        };
        let nonce = attribute('r')?;
        let salt = attribute('s')?;
        let iterations = attribute('i')?;
        let is_nonce = |byte: u8| byte.is_ascii_graphic();
        match nonce.strip_prefix(&self.nonce) {
            None => return self.wrong("the nonce does not start with the client's"),
            Some("") => return self.wrong("the broker added nothing to the nonce"),
            Some(more) if !more.bytes().all(is_nonce) => return self.wrong("the nonce is not printable"),
            Some(_) => {}
        }
        let salt = match BASE64_STANDARD.decode(salt) {
            Ok(salt) if !salt.is_empty() => salt,
            _ => return self.wrong("the salt is not base64"),
        };
        let is_number = !iterations.starts_with('0') && iterations.bytes().all(|byte| byte.is_ascii_digit());
        let Some(iterations) = iterations.parse().ok().filter(|_: &u64| is_number) else {
            return self.wrong("the number of iterations is not valid");
        };
        let Some(iterations) = u32::try_from(iterations).ok().filter(|count| ITERATIONS.contains(count))
        else {
            let (min, max) = (ITERATIONS.start(), ITERATIONS.end());
            return self
                .wrong(format!("it requires {iterations} iterations, but only {min} to {max} are accepted"));
        };
        self.check_extensions(attributes)?;
        Ok(Challenge { text: text.to_owned(), nonce: nonce.to_owned(), salt, iterations })
    }

    /// Parses `server-final-message` and checks the signature of the broker.
    fn read_final(&self, message: &[u8], server_key: &[u8], auth_message: &str) -> Result<(), SaslError> {
        let Some(text) = text(message) else { return self.wrong("it is not text or too long") };
        let mut attributes = text.split(',');
        let signature = match attributes.next().and_then(split) {
            Some(('v', signature)) => BASE64_STANDARD.decode(signature),
            Some(('e', words)) => return Err(SaslError::Refused { words: words.to_owned() }),
            _ => return self.wrong("it has neither a signature nor an error"),
        };
        let Ok(signature) = signature else { return self.wrong("the signature is not base64") };
        self.check_extensions(attributes)?;
        match self.hash.is_mac(server_key, auth_message, &signature) {
            true => Ok(()),
            false => Err(SaslError::NotTheBroker),
        }
    }

    /// Further attributes are ignored if they are well-formed (RFC 5802, section 5.1).
    fn check_extensions<'a>(&self, mut rest: impl Iterator<Item = &'a str>) -> Result<(), SaslError> {
        match rest.all(|attribute| split(attribute).is_some_and(|(name, _)| name != 'm')) {
            true => Ok(()),
            false => self.wrong("it ends with malformed extensions"),
        }
    }
}

impl Mechanism for Scram {
    fn name(&self) -> &str {
        self.hash.mechanism()
    }

    fn respond(&mut self, challenge: Option<&[u8]>) -> Result<Step, SaslError> {
        match (std::mem::replace(&mut self.phase, Phase::Over), challenge) {
            (Phase::Start, None) => {
                self.phase = Phase::First;
                Ok(Step::Send(format!("{GS2_HEADER}{}", self.first).into()))
            }
            (Phase::First, Some(message)) => {
                self.phase = Phase::Salted(self.read_first(message)?);
                Ok(Step::Compute)
            }
            (Phase::Final { server_key, auth_message }, Some(message)) => {
                self.read_final(message, &server_key, &auth_message)?;
                Ok(Step::Done)
            }
            _ => self.wrong("it is not expected at this point"),
        }
    }

    fn compute(&mut self) -> Result<Step, SaslError> {
        let Phase::Salted(challenge) = std::mem::replace(&mut self.phase, Phase::Over) else {
            return self.wrong("there is nothing to compute");
        };
        let Challenge { text, nonce, salt, iterations } = challenge;
        let hash = self.hash;
        let without_proof = format!("c=biws,r={nonce}");
        let auth_message = format!("{},{text},{without_proof}", self.first);
        let salted_password = hash.pbkdf2(self.password.as_bytes(), &salt, iterations);
        let client_key = hash.mac(&salted_password, "Client Key");
        let signature = hash.mac(&hash.digest(&client_key), &auth_message);
        let proof: Vec<u8> =
            client_key.iter().zip(signature).map(|(key, signature)| key ^ signature).collect();
        let server_key = hash.mac(&salted_password, "Server Key");
        self.phase = Phase::Final { server_key, auth_message };
        Ok(Step::Send(format!("{without_proof},p={}", BASE64_STANDARD.encode(proof)).into()))
    }
}

impl fmt::Debug for Scram {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Scram").field("mechanism", &self.hash.mechanism()).finish_non_exhaustive()
    }
}

/// The GS2 header without channel binding; `c=biws` is its base64.
const GS2_HEADER: &str = "n,,";
/// The accepted numbers of iterations.
///
/// RFC 7677 requires at least 4,096, and so does Kafka for stored passwords.
const ITERATIONS: std::ops::RangeInclusive<u32> = 4_096..=1_000_000;
/// A limit above the length of any valid message of a broker.
const MAX_MESSAGE: usize = 4096;

fn text(message: &[u8]) -> Option<&str> {
    str::from_utf8(message).ok().filter(|text| text.len() <= MAX_MESSAGE)
}

/// Splits an attribute into name and value: a letter, `=`, and at least one character.
fn split(attribute: &str) -> Option<(char, &str)> {
    let name = attribute.chars().next().filter(char::is_ascii_alphabetic)?;
    let value = attribute[1..].strip_prefix('=')?;
    (!value.is_empty() && !value.contains('\0')).then_some((name, value))
}

/// The hash function of the exchange.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Hash {
    Sha256,
    Sha512,
}

impl Hash {
    fn mechanism(self) -> &'static str {
        match self {
            Self::Sha256 => "SCRAM-SHA-256",
            Self::Sha512 => "SCRAM-SHA-512",
        }
    }

    fn digest(self, data: &[u8]) -> Vec<u8> {
        match self {
            Self::Sha256 => Sha256::digest(data).to_vec(),
            Self::Sha512 => Sha512::digest(data).to_vec(),
        }
    }

    fn pbkdf2(self, password: &[u8], salt: &[u8], iterations: u32) -> Vec<u8> {
        match self {
            Self::Sha256 => pbkdf2::pbkdf2_hmac_array::<Sha256, 32>(password, salt, iterations).to_vec(),
            Self::Sha512 => pbkdf2::pbkdf2_hmac_array::<Sha512, 64>(password, salt, iterations).to_vec(),
        }
    }

    fn mac(self, key: &[u8], data: &str) -> Vec<u8> {
        match self {
            Self::Sha256 => keyed::<Hmac<Sha256>>(key, data).finalize().into_bytes().to_vec(),
            Self::Sha512 => keyed::<Hmac<Sha512>>(key, data).finalize().into_bytes().to_vec(),
        }
    }

    /// Compares in constant time.
    fn is_mac(self, key: &[u8], data: &str, mac: &[u8]) -> bool {
        match self {
            Self::Sha256 => keyed::<Hmac<Sha256>>(key, data).verify_slice(mac).is_ok(),
            Self::Sha512 => keyed::<Hmac<Sha512>>(key, data).verify_slice(mac).is_ok(),
        }
    }
}

fn keyed<M: Mac + KeyInit>(key: &[u8], data: &str) -> M {
    let Ok(mac) = <M as KeyInit>::new_from_slice(key) else {
        unreachable!("HMAC takes keys of any length");
    };
    mac.chain_update(data)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange(mut scram: Scram, server_first: &str) -> (Scram, String) {
        scram.respond(None).unwrap();
        assert_eq!(scram.respond(Some(server_first.as_bytes())), Ok(Step::Compute));
        let Step::Send(proof) = scram.compute().unwrap() else { panic!("nothing to send") };
        (scram, String::from_utf8(proof.to_vec()).unwrap())
    }

    /// RFC 7677, section 3.
    #[test]
    fn the_example_of_rfc_7677() {
        let mut scram =
            Scram::new(Hash::Sha256, "user", "pencil", "rOprNGfwEbeRWgbNEkqO".to_owned()).unwrap();
        let first = scram.clone().respond(None);
        assert_eq!(first, Ok(Step::Send("n,,n=user,r=rOprNGfwEbeRWgbNEkqO".into())));
        let nonce = "rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0";
        let proof;
        (scram, proof) = exchange(scram, &format!("r={nonce},s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"));
        assert_eq!(proof, format!("c=biws,r={nonce},p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="));
        let signature = b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4=";
        assert_eq!(scram.respond(Some(signature)), Ok(Step::Done));
        assert!(scram.respond(Some(signature)).is_err(), "it is over");
    }

    fn started() -> Scram {
        let mut scram = Scram::new(Hash::Sha256, "user", "pencil", "abc".to_owned()).unwrap();
        scram.respond(None).unwrap();
        scram
    }

    #[test]
    fn credentials_are_validated_escaped_and_stay_secret() {
        for (user, password) in [("", "x"), ("x", ""), ("a\0b", "x")] {
            assert!(matches!(Scram::sha_256(user, password, [0; 24]), Err(SaslError::Credentials(_))));
        }
        let mut scram = Scram::sha_512("a=b,c", "wonderland", [0; 24]).unwrap();
        let first = format!("n,,n=a=3Db=2Cc,r={}", "A".repeat(32));
        assert_eq!(scram.respond(None), Ok(Step::Send(first.into())));
        assert_eq!(format!("{scram:?}"), "Scram { mechanism: \"SCRAM-SHA-512\", .. }");
    }

    #[test]
    fn challenges_of_the_broker_are_validated() {
        for good in [
            "r=abcd,s=QSXCR+Q6sek8bf92,i=4096",
            "r=abcd,s=QSXCR+Q6sek8bf92,i=1000000",
            "r=abcd,s=QSXCR+Q6sek8bf92,i=4096,x=ignored,y=too",
        ] {
            assert_eq!(started().respond(Some(good.as_bytes())), Ok(Step::Compute), "{good}");
        }
        for (bad, why) in [
            ("", "r= is missing"),
            ("r=", "r= is missing"),
            ("r=abcd", "s= is missing"),
            ("r=abcd,s=QQ==", "i= is missing"),
            ("s=QQ==,r=abcd,i=4096", "r= is missing"),
            ("é=1", "r= is missing"),
            ("r=abc,s=QQ==,i=4096", "the broker added nothing to the nonce"),
            ("r=xabcd,s=QQ==,i=4096", "the nonce does not start with the client's"),
            ("r=ab,s=QQ==,i=4096", "the nonce does not start with the client's"),
            ("r=abcé,s=QQ==,i=4096", "the nonce is not printable"),
            ("r=abcd,s=Q,i=4096", "the salt is not base64"),
            ("r=abcd,s=QQ==,i=-4096", "the number of iterations is not valid"),
            ("r=abcd,s=QQ==,i=+4096", "the number of iterations is not valid"),
            ("r=abcd,s=QQ==,i=04096", "the number of iterations is not valid"),
            ("r=abcd,s=QQ==,i=99999999999999999999", "the number of iterations is not valid"),
            ("r=abcd,s=QQ==,i=1", "it requires 1 iterations, but only 4096 to 1000000 are accepted"),
            ("r=abcd,s=QQ==,i=4095", "it requires 4095 iterations, but only 4096 to 1000000 are accepted"),
            (
                "r=abcd,s=QQ==,i=1000001",
                "it requires 1000001 iterations, but only 4096 to 1000000 are accepted",
            ),
            (
                "r=abcd,s=QQ==,i=2147483647",
                "it requires 2147483647 iterations, but only 4096 to 1000000 are accepted",
            ),
            ("m=x,r=abcd,s=QQ==,i=4096", "it requires an extension"),
            ("r=abcd,s=QQ==,i=4096,m=x", "it ends with malformed extensions"),
            ("r=abcd,s=QQ==,i=4096,", "it ends with malformed extensions"),
        ] {
            let error = started().respond(Some(bad.as_bytes())).unwrap_err();
            let text = format!("the broker's SCRAM-SHA-256 message is not valid: {why}");
            assert_eq!(error.to_string(), text, "{bad}");
        }
        let refused = started().respond(Some(b"e=unknown-user"));
        assert_eq!(refused, Err(SaslError::Refused { words: "unknown-user".to_owned() }));
        assert!(started().respond(Some(&[0xff])).is_err());
        assert!(started().respond(Some(&[b'r'; MAX_MESSAGE + 1])).is_err());
        assert!(started().respond(None).is_err());
        assert!(started().compute().is_err(), "no computation was requested");
    }

    #[test]
    fn the_last_message_proves_the_broker() {
        let (scram, _) = exchange(
            Scram::new(Hash::Sha512, "user", "pencil", "abc".to_owned()).unwrap(),
            "r=abcd,s=QSXCR+Q6sek8bf92,i=4096",
        );
        let Phase::Final { server_key, auth_message } = &scram.phase else { panic!("no proof was made") };
        let signature = BASE64_STANDARD.encode(Hash::Sha512.mac(server_key, auth_message));
        let end = |message: &str| scram.clone().respond(Some(message.as_bytes()));
        assert_eq!(end(&format!("v={signature}")), Ok(Step::Done));
        assert_eq!(end(&format!("v={signature},x=ignored")), Ok(Step::Done));
        assert!(matches!(end(&format!("v={signature},m=no")), Err(SaslError::Challenge { .. })));
        let other = BASE64_STANDARD.encode(Hash::Sha512.mac(server_key, "another"));
        assert_eq!(end(&format!("v={other}")), Err(SaslError::NotTheBroker));
        assert_eq!(end("v=QQ=="), Err(SaslError::NotTheBroker));
        let refused = SaslError::Refused { words: "invalid-proof".to_owned() };
        assert_eq!(end("e=invalid-proof"), Err(refused));
        for garbled in ["", "v", "v=", "v=!", "e=", "x=QQ==", "\0"] {
            assert!(matches!(end(garbled), Err(SaslError::Challenge { .. })), "{garbled:?}");
        }
        // Truncated messages are never accepted as complete.
        let whole = format!("v={signature}");
        for len in 0..whole.len() {
            end(&whole[..len]).unwrap_err();
        }
    }
}
