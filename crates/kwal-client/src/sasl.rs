//! Authentication: the identity of the client, and how it proves it to brokers.
//!
//! ```
//! use kwal_client::{ClientBuilder, sasl::{Sasl, Token}};
//!
//! # fn token_from_the_identity_provider() -> Result<String, std::io::Error> { Ok("token".to_owned()) }
//! let builder = ClientBuilder::new(["kafka-1:9093"]);
//!
//! // Proves that both sides know the password, without sending it.
//! let scram = builder.clone().sasl(Sasl::scram_sha_512("alice", "secret"));
//!
//! // Sends the password: only over encrypted connections, unless explicitly allowed.
//! let plain = builder.clone().sasl(Sasl::plain("alice", "secret"));
//!
//! // Sends a token, which is fetched for each connection and each reauthentication.
//! let bearer = builder.sasl(Sasl::oauth_bearer(async || {
//!     Ok::<_, std::io::Error>(Token::new(token_from_the_identity_provider()?))
//! }));
//! # assert!(!format!("{scram:?}{plain:?}{bearer:?}").contains("secret"));
//! ```
//! Brokers may end a session after a time (`connections.max.reauth.ms`), and do so when a token expires. The
//! client authenticates again before that, on the same connection (KIP-368), without disturbing calls.

use std::{error::Error as StdError, fmt, future::Future, sync::Arc, time::Duration};

use kwal_protocol::sasl::{Mechanism, OAuthBearer, Plain, SaslError, Scram};
use kwal_transport::BoxFuture;
use tokio::time::{Instant, timeout};

use crate::{
    duration::LONGEST,
    error::{Error, ErrorKind, Source},
};

/// The mechanism and credentials of a client, for [`ClientBuilder::sasl`](crate::ClientBuilder::sasl).
/// Cloning is cheap.
///
/// `Debug` prints the user and no secret.
#[derive(Clone, Debug)]
pub struct Sasl {
    authenticate: Arc<dyn Authenticate>,
    unencrypted: bool,
}

impl Sasl {
    /// PLAIN (RFC 4616): sends user and password in clear text.
    pub fn plain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::new(Password { kind: Kind::Plain, user: user.into(), password: password.into() })
    }

    /// SCRAM-SHA-256 (RFC 5802, RFC 7677): both sides prove that they know the password.
    ///
    /// User and password are used as they are, in UTF-8, as Kafka does; see [`kwal_protocol::sasl::Scram`].
    /// The hashes that the broker requests (up to a million) are computed on one of tokio's blocking threads.
    pub fn scram_sha_256(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::new(Password { kind: Kind::ScramSha256, user: user.into(), password: password.into() })
    }

    /// SCRAM-SHA-512, otherwise the same as [`scram_sha_256`](Self::scram_sha_256).
    pub fn scram_sha_512(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::new(Password { kind: Kind::ScramSha512, user: user.into(), password: password.into() })
    }

    /// OAUTHBEARER (RFC 7628, KIP-255): sends a token.
    ///
    /// `fetch` returns a token. It is called before a connection is opened and before reauthentication, while
    /// calls continue; never twice at the same time. A token with a [lifetime](Token::expires_in) is used for
    /// other connections as well during the first half of its lifetime, unless a broker rejects it. Other
    /// tokens are fetched each time.
    ///
    /// `fetch` may take [`Deadlines::connect`](crate::Deadlines::connect). If it fails or takes longer, the
    /// call that needs the connection retries until its own deadline and then fails with
    /// [`ErrorKind::CredentialsUnavailable`], since the issuer may be back in a moment;
    /// [`build`](crate::ClientBuilder::build) fails at once. During reauthentication the session continues as
    /// long as it is valid.
    pub fn oauth_bearer<Fut, E>(fetch: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<Token, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let fetch = move || -> BoxFuture<'static, Result<Token, Box<dyn StdError + Send + Sync>>> {
            let token = fetch();
            Box::pin(async { token.await.map_err(Into::into) })
        };
        Self::new(Bearer { fetch: Box::new(fetch), cached: tokio::sync::Mutex::default() })
    }

    /// Any other mechanism, or another source of credentials.
    pub fn new(authenticate: impl Authenticate) -> Self {
        Self { authenticate: Arc::new(authenticate), unencrypted: false }
    }

    /// Allows to send the secret over unencrypted connections, where everybody on the path can read it. For
    /// tests, and for networks that are encrypted on a lower layer.
    ///
    /// Without this, PLAIN and OAUTHBEARER on such a connection fail with [`ErrorKind::EncryptionRequired`]
    /// before anything is sent. SCRAM does not need it.
    #[must_use]
    pub fn danger_send_unencrypted(mut self) -> Self {
        self.unencrypted = true;
        self
    }

    /// Begins an authentication, within `limit`. Its errors have no context yet.
    pub(crate) async fn begin(&self, limit: Duration) -> Result<Box<dyn Mechanism>, Error> {
        let made = timeout(limit, self.authenticate.mechanism()).await;
        let error = match made {
            Ok(Ok(mechanism)) => return Ok(mechanism),
            Ok(Err(error)) => error,
            Err(_) => TimedOut(limit).into(),
        };
        Err(match error.downcast::<SaslError>() {
            Ok(error) => Error::invalid_input(format!("credentials: {error}")),
            Err(error) => {
                Error::new(ErrorKind::CredentialsUnavailable).with_source(Source::Other(Arc::from(error)))
            }
        })
    }

    /// Whether it may be used over a stream.
    pub(crate) fn may_use(&self, is_encrypted: bool) -> bool {
        is_encrypted || self.unencrypted || !self.authenticate.requires_encryption()
    }

    /// Reports that a broker rejected the last authentication.
    pub(crate) fn rejected(&self) {
        self.authenticate.rejected();
    }
}

/// A mechanism, or a source of credentials, that [`Sasl`] does not have.
///
/// `Debug` must not print secrets.
///
/// ```
/// use std::error::Error;
///
/// use kwal_client::sasl::{Authenticate, Sasl};
/// use kwal_protocol::sasl::{Mechanism, Plain};
/// use kwal_transport::BoxFuture;
///
/// /// PLAIN with a password from a file, which may change.
/// #[derive(Debug)]
/// struct PasswordFile(std::path::PathBuf);
///
/// impl Authenticate for PasswordFile {
///     fn mechanism(&self) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn Error + Send + Sync>>> {
///         Box::pin(async {
///             let password = std::fs::read_to_string(&self.0)?;
///             Ok(Box::new(Plain::new("alice", password.trim())?) as Box<dyn Mechanism>)
///         })
///     }
///
///     fn requires_encryption(&self) -> bool {
///         true
///     }
/// }
///
/// let sasl = Sasl::new(PasswordFile("/run/secrets/kafka".into()));
/// # let _ = sasl;
/// ```
pub trait Authenticate: fmt::Debug + Send + Sync + 'static {
    /// Returns a fresh exchange: before each connection is opened, and before each reauthentication. Several
    /// may be requested at the same time. The future is dropped after
    /// [`Deadlines::connect`](crate::Deadlines::connect).
    ///
    /// # Errors
    /// A [`SaslError`] means that the credentials cannot be used, and ends the call with
    /// [`ErrorKind::InvalidInput`]. After any other error the call retries until its deadline:
    /// [`ErrorKind::CredentialsUnavailable`].
    #[allow(clippy::type_complexity, reason = "an alias would hide more than it shows")]
    fn mechanism(&self) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn StdError + Send + Sync>>>;

    /// Whether the exchange exposes the secret, so that it needs an encrypted connection.
    fn requires_encryption(&self) -> bool;

    /// Called when a broker rejected the last exchange: cached credentials should not be used again.
    fn rejected(&self) {}
}

/// A token for [`Sasl::oauth_bearer`]. `Debug` does not print it.
#[derive(Clone)]
pub struct Token {
    token: String,
    authorize_as: Option<String>,
    extensions: Vec<(String, String)>,
    expires_in: Option<Duration>,
}

impl Token {
    /// A token as the authorization server issued it.
    pub fn new(token: impl Into<String>) -> Self {
        Self { token: token.into(), authorize_as: None, extensions: Vec::new(), expires_in: None }
    }

    /// Adds an extension (KIP-342).
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// Asks to act as another identity. Kafka accepts only the token's principal.
    #[must_use]
    pub fn authorize_as(mut self, name: impl Into<String>) -> Self {
        self.authorize_as = Some(name.into());
        self
    }

    /// Sets its lifetime from now on (`expires_in` of RFC 6749). Default: unknown, so it is used once.
    #[must_use]
    pub fn expires_in(mut self, time: Duration) -> Self {
        self.expires_in = Some(time);
        self
    }

    fn mechanism(&self) -> Result<Box<dyn Mechanism>, SaslError> {
        let mut bearer = OAuthBearer::new(&*self.token)?;
        if let Some(name) = &self.authorize_as {
            bearer = bearer.authorize_as(name)?;
        }
        for (name, value) in &self.extensions {
            bearer = bearer.extension(name, value)?;
        }
        Ok(Box::new(bearer))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Token").field("expires_in", &self.expires_in).finish_non_exhaustive()
    }
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Plain,
    ScramSha256,
    ScramSha512,
}

/// A user and a password.
struct Password {
    kind: Kind,
    user: String,
    password: String,
}

impl Authenticate for Password {
    fn mechanism(&self) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn StdError + Send + Sync>>> {
        Box::pin(async {
            let Self { kind, user, password } = self;
            Ok(match kind {
                Kind::Plain => Box::new(Plain::new(user, password)?) as Box<dyn Mechanism>,
                Kind::ScramSha256 => Box::new(Scram::sha_256(user, password, random()?)?),
                Kind::ScramSha512 => Box::new(Scram::sha_512(user, password, random()?)?),
            })
        })
    }

    fn requires_encryption(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, user, .. } = self;
        f.debug_struct("Password").field("kind", kind).field("user", user).finish_non_exhaustive()
    }
}

/// Unpredictable bytes: from the operating system, also for a client with a seed.
fn random() -> Result<[u8; 24], getrandom::Error> {
    let mut random = [0; 24];
    getrandom::fill(&mut random)?;
    Ok(random)
}

/// Tokens and their source.
struct Bearer {
    #[allow(clippy::type_complexity, reason = "an alias would hide more than it shows")]
    fetch: Box<dyn Fn() -> BoxFuture<'static, Result<Token, Box<dyn StdError + Send + Sync>>> + Send + Sync>,
    /// Locked while a token is fetched.
    cached: tokio::sync::Mutex<Option<Cached>>,
}

/// A token that is used again until then.
struct Cached {
    token: Token,
    until: Instant,
}

impl Authenticate for Bearer {
    fn mechanism(&self) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn StdError + Send + Sync>>> {
        Box::pin(async {
            let mut cached = self.cached.lock().await;
            if let Some(Cached { token, .. }) = cached.as_ref().filter(|cached| Instant::now() < cached.until)
            {
                return Ok(token.mechanism()?);
            }
            let token = (self.fetch)().await?;
            let mechanism = token.mechanism()?;
            *cached =
                token.expires_in.map(|time| Cached { token, until: Instant::now() + time.min(LONGEST) / 2 });
            Ok(mechanism)
        })
    }

    fn requires_encryption(&self) -> bool {
        true
    }

    fn rejected(&self) {
        // If it is locked, another token is being fetched.
        if let Ok(mut cached) = self.cached.try_lock() {
            *cached = None;
        }
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").finish_non_exhaustive()
    }
}

/// Credentials that were not there in time.
#[derive(Debug)]
struct TimedOut(Duration);

impl fmt::Display for TimedOut {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "not available within {:?}", self.0)
    }
}

impl StdError for TimedOut {}
