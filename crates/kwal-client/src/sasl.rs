//! Who a client is, and how it proves that to brokers.
//!
//! ```
//! use kwal_client::{ClientBuilder, sasl::{Sasl, Token}};
//!
//! # fn token_from_the_identity_provider() -> Result<String, std::io::Error> { Ok("token".to_owned()) }
//! let builder = ClientBuilder::new(vec!["kafka-1:9093".to_owned()]);
//!
//! // Proves that both sides know the password, and tells it to nobody.
//! let scram = builder.clone().sasl(Sasl::scram_sha_512("alice", "secret"));
//!
//! // Tells the password: only over an encrypted connection, unless that is allowed by name.
//! let plain = builder.clone().sasl(Sasl::plain("alice", "secret"));
//!
//! // Tells a token, which is fetched for each connection and each renewal of a session.
//! let bearer = builder.sasl(Sasl::oauth_bearer(async || {
//!     Ok::<_, std::io::Error>(Token::new(token_from_the_identity_provider()?))
//! }));
//! # assert!(!format!("{scram:?}{plain:?}{bearer:?}").contains("secret"));
//! ```
//! Brokers may end a session after a time (`connections.max.reauth.ms`), and do so when a token expires. The client
//! authenticates again before that, on the same connection (KIP-368); calls notice nothing of it.

use std::{error::Error as StdError, fmt, future::Future, sync::Arc, time::Duration};

use kwal_protocol::sasl::{Mechanism, OAuthBearer, Plain, SaslError, Scram};
use kwal_transport::BoxFuture;
use tokio::time::{Instant, timeout};

use crate::error::{At, Error};

/// Who a client is: for [`ClientBuilder::sasl`](crate::ClientBuilder::sasl). Cloning is cheap.
///
/// `Debug` tells who, and no secret.
#[derive(Clone, Debug)]
pub struct Sasl {
    authenticate: Arc<dyn Authenticate>,
    unencrypted: bool,
}

impl Sasl {
    /// PLAIN (RFC 4616): tells user and password as they are.
    pub fn plain(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::new(Password { kind: Kind::Plain, user: user.into(), password: password.into() })
    }

    /// SCRAM-SHA-256 (RFC 5802, RFC 7677): proves to each other that both sides know the password.
    ///
    /// User and password are taken as they are, in UTF-8, as Kafka does; see [`kwal_protocol::sasl::Scram`]. What the broker
    /// wants to be computed for it (up to a million hashes) is, on a thread of tokio's for work that blocks.
    pub fn scram_sha_256(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::new(Password { kind: Kind::ScramSha256, user: user.into(), password: password.into() })
    }

    /// SCRAM-SHA-512, the same otherwise as [`scram_sha_256`](Self::scram_sha_256).
    pub fn scram_sha_512(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self::new(Password { kind: Kind::ScramSha512, user: user.into(), password: password.into() })
    }

    /// OAUTHBEARER (RFC 7628, KIP-255): tells a token.
    ///
    /// `fetch` gets one. It is called before a connection is opened, and before a session is renewed, while calls go on;
    /// never twice at the same time. A token that says [for how long it is good](Token::expires_in) is used for other
    /// connections too during the first half of that time, unless a broker refuses it; others are fetched each time.
    ///
    /// It has [`Deadlines::connect`](crate::Deadlines::connect) for it. If it fails, or takes longer, the call that needs the
    /// connection tries again until its own deadline and then fails with [`Error::Credentials`]: who gives out tokens may be
    /// back in a moment. A session whose renewal it is for goes on meanwhile, for as long as it is good.
    pub fn oauth_bearer<Fut, E>(fetch: impl Fn() -> Fut + Send + Sync + 'static) -> Self
    where
        Fut: Future<Output = Result<Token, E>> + Send + 'static,
        E: Into<Box<dyn StdError + Send + Sync>>,
    {
        let fetch = move || -> BoxFuture<'static, Result<Token, Box<dyn StdError + Send + Sync>>> {
            let token = fetch();
            Box::pin(async { token.await.map_err(Into::into) })
        };
        Self::new(Bearer { fetch: Box::new(fetch), kept: tokio::sync::Mutex::default() })
    }

    /// Any other mechanism.
    pub fn new(authenticate: impl Authenticate) -> Self {
        Self { authenticate: Arc::new(authenticate), unencrypted: false }
    }

    /// Lets the secret out over connections that are not encrypted, where everybody on the way can read it: password or token
    /// then belong to them too. For tests, and for networks that are encrypted below.
    ///
    /// Without this, PLAIN and OAUTHBEARER on such a connection are [`Error::Unencrypted`], before anything is sent. SCRAM
    /// needs it not.
    #[must_use]
    pub fn danger_send_unencrypted(mut self) -> Self {
        self.unencrypted = true;
        self
    }

    /// Begins an authentication, within `limit`.
    pub(crate) async fn begin(&self, limit: Duration) -> Result<Box<dyn Mechanism>, Unready> {
        let made = timeout(limit, self.authenticate.mechanism()).await;
        let error = match made {
            Ok(Ok(mechanism)) => return Ok(mechanism),
            Ok(Err(error)) => error,
            Err(_) => TookTooLong(limit).into(),
        };
        Err(match error.downcast::<SaslError>() {
            Ok(error) => Unready::Invalid(*error),
            Err(error) => Unready::Failed(Arc::from(error)),
        })
    }

    /// Whether it may go over a stream.
    pub(crate) fn may_use(&self, is_encrypted: bool) -> bool {
        is_encrypted || self.unencrypted || !self.authenticate.tells_secrets()
    }

    /// A broker has refused what was begun last.
    pub(crate) fn refused(&self) {
        self.authenticate.refused();
    }
}

/// Begins authentications: for a mechanism, or a source of credentials, that [`Sasl`] does not have.
///
/// `Debug` must not tell secrets.
///
/// ```
/// use std::error::Error;
///
/// use kwal_client::sasl::{Authenticate, Sasl};
/// use kwal_protocol::sasl::{Mechanism, Plain};
/// use kwal_transport::BoxFuture;
///
/// /// PLAIN with a password that lies in a file, which may change.
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
///     fn tells_secrets(&self) -> bool {
///         true
///     }
/// }
///
/// let sasl = Sasl::new(PasswordFile("/run/secrets/kafka".into()));
/// # let _ = sasl;
/// ```
pub trait Authenticate: fmt::Debug + Send + Sync + 'static {
    /// A fresh exchange: for each connection before it is opened, and for each renewal of a session before it begins. Several
    /// may be asked for at the same time. The future is dropped when [`Deadlines::connect`](crate::Deadlines::connect) is
    /// over.
    ///
    /// # Errors
    /// A [`SaslError`] says that what was given cannot be used, and ends the call as [`Error::InvalidInput`]; any other error
    /// may be over in a moment, and is tried again until the call's deadline: [`Error::Credentials`].
    #[allow(clippy::type_complexity, reason = "another name for it would tell less")]
    fn mechanism(&self) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn StdError + Send + Sync>>>;

    /// Whether who reads along learns the secret, so that it needs an encrypted connection.
    fn tells_secrets(&self) -> bool;

    /// A broker did not accept what the last exchange brought: what is kept of it should not be used again.
    fn refused(&self) {}
}

/// A token for [`Sasl::oauth_bearer`]. `Debug` does not tell it.
#[derive(Clone)]
pub struct Token {
    token: String,
    authorize_as: Option<String>,
    extensions: Vec<(String, String)>,
    expires_in: Option<Duration>,
}

impl Token {
    /// A token as the authorization server gave it out.
    pub fn new(token: impl Into<String>) -> Self {
        Self { token: token.into(), authorize_as: None, extensions: Vec::new(), expires_in: None }
    }

    /// Adds an extension (KIP-342).
    #[must_use]
    pub fn extension(mut self, name: impl Into<String>, value: impl Into<String>) -> Self {
        self.extensions.push((name.into(), value.into()));
        self
    }

    /// Asks to act as somebody; Kafka accepts nobody but the token's principal.
    #[must_use]
    pub fn authorize_as(mut self, name: impl Into<String>) -> Self {
        self.authorize_as = Some(name.into());
        self
    }

    /// For how long it is good from now (`expires_in` of RFC 6749). Default: not known, so it is used once.
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

/// Why there is nothing to authenticate with.
#[derive(Debug)]
pub(crate) enum Unready {
    /// What was given cannot be used.
    Invalid(SaslError),
    /// It could not be had, for now.
    Failed(Arc<dyn StdError + Send + Sync>),
}

impl Unready {
    pub(crate) fn into_error(self, at: Box<At>) -> Error {
        match self {
            Self::Invalid(error) => Error::InvalidInput(format!("to authenticate with: {error}")),
            Self::Failed(source) => Error::Credentials { at, source },
        }
    }
}

impl fmt::Display for Unready {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Invalid(error) => error.fmt(f),
            Self::Failed(error) => error.fmt(f),
        }
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

    fn tells_secrets(&self) -> bool {
        matches!(self.kind, Kind::Plain)
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { kind, user, .. } = self;
        f.debug_struct("Password").field("kind", kind).field("user", user).finish_non_exhaustive()
    }
}

/// What cannot be guessed: of the operating system, also for a client with a seed.
fn random() -> Result<[u8; 24], getrandom::Error> {
    let mut random = [0; 24];
    getrandom::fill(&mut random)?;
    Ok(random)
}

/// Tokens, and where they come from.
struct Bearer {
    #[allow(clippy::type_complexity, reason = "another name for it would tell less")]
    fetch: Box<dyn Fn() -> BoxFuture<'static, Result<Token, Box<dyn StdError + Send + Sync>>> + Send + Sync>,
    /// Held while one is fetched.
    kept: tokio::sync::Mutex<Option<Kept>>,
}

/// A token that is used again until then.
struct Kept {
    token: Token,
    until: Instant,
}

impl Authenticate for Bearer {
    fn mechanism(&self) -> BoxFuture<'_, Result<Box<dyn Mechanism>, Box<dyn StdError + Send + Sync>>> {
        Box::pin(async {
            let mut kept = self.kept.lock().await;
            if let Some(Kept { token, .. }) = kept.as_ref().filter(|kept| Instant::now() < kept.until) {
                return Ok(token.mechanism()?);
            }
            let token = (self.fetch)().await?;
            let mechanism = token.mechanism()?;
            *kept = token.expires_in.map(|time| Kept { token, until: Instant::now() + time / 2 });
            Ok(mechanism)
        })
    }

    fn tells_secrets(&self) -> bool {
        true
    }

    fn refused(&self) {
        // If it is held, another one is on its way.
        if let Ok(mut kept) = self.kept.try_lock() {
            *kept = None;
        }
    }
}

impl fmt::Debug for Bearer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bearer").finish_non_exhaustive()
    }
}

/// Nothing to authenticate with was there in time.
#[derive(Debug)]
struct TookTooLong(Duration);

impl fmt::Display for TookTooLong {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "it was not there within {:?}", self.0)
    }
}

impl StdError for TookTooLong {}
