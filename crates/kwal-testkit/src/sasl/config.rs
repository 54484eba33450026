//! Who may use a broker.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Demands of clients that they authenticate, as a listener `SASL_PLAINTEXT` of Kafka does: for
/// [`EmbeddedClusterBuilder::sasl`](crate::EmbeddedClusterBuilder::sasl).
///
/// Offers PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, and OAUTHBEARER once it can [tell a good token](Self::oauthbearer). As in Kafka,
/// a mechanism that it does not have is refused with the list of those that it has, wrong credentials with words and after
/// [a while](Self::failure_delay), and requests before authentication close the connection.
///
/// ```
/// use std::time::Duration;
/// use kwal_testkit::{EmbeddedCluster, Sasl};
///
/// # #[tokio::main(flavor = "current_thread")]
/// # async fn main() -> Result<(), kwal_testkit::Error> {
/// let sasl = Sasl::new().user("alice", "secret").max_session(Duration::from_secs(5));
/// let cluster = EmbeddedCluster::builder().sasl(sasl).start().await?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Sasl {
    pub(super) mechanisms: Option<Vec<String>>,
    pub(super) users: BTreeMap<String, String>,
    pub(super) token_validator: Option<Arc<TokenValidator>>,
    pub(super) iterations: u32,
    pub(super) max_session: Option<Duration>,
    pub(super) failure_delay: Duration,
    /// What SCRAM has computed, by user and mechanism.
    pub(super) salted: Arc<Salted>,
}

/// For how long a token is still good.
type TokenValidator = dyn Fn(&str) -> Option<Duration> + Send + Sync;

/// Salted passwords, which it takes long to compute.
#[derive(Debug, Default)]
pub(super) struct Salted(pub(super) Mutex<BTreeMap<(String, &'static str), Vec<u8>>>);

impl Sasl {
    /// Knows nobody.
    pub fn new() -> Self {
        Self {
            mechanisms: None,
            users: BTreeMap::new(),
            token_validator: None,
            iterations: 4096,
            max_session: None,
            failure_delay: Duration::from_millis(100),
            salted: Arc::default(),
        }
    }

    /// Knows a user, for PLAIN and SCRAM.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.insert(name.to_owned(), password.to_owned());
        self.salted = Arc::default();
        self
    }

    /// Offers OAUTHBEARER: `validate` says of a token for how long it is still good, or refuses it. All of them stand for the same
    /// principal.
    #[must_use]
    pub fn oauthbearer(
        mut self,
        validate: impl Fn(&str) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.token_validator = Some(Arc::new(validate));
        self
    }

    /// Offers these mechanisms and no others (`sasl.enabled.mechanisms`), of those that it has.
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: &[&str]) -> Self {
        self.mechanisms = Some(mechanisms.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// How often SCRAM salts a password. Default: 4096.
    #[must_use]
    pub fn iterations(mut self, count: u32) -> Self {
        self.iterations = count;
        self.salted = Arc::default();
        self
    }

    /// For how long a session is good at the most (`connections.max.reauth.ms`, KIP-368): after that, any request closes the
    /// connection without a word. Default: for ever, or as long as the token.
    #[must_use]
    pub fn max_session(mut self, time: Duration) -> Self {
        self.max_session = Some(time);
        self
    }

    /// How long a refusal is held back (`connection.failed.authentication.delay.ms`). Default: 100 ms.
    #[must_use]
    pub fn failure_delay(mut self, time: Duration) -> Self {
        self.failure_delay = time;
        self
    }

    /// The names of the mechanisms that it offers.
    pub(super) fn offered(&self) -> Vec<String> {
        let mut all = vec!["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        all.extend(self.token_validator.as_ref().map(|_| "OAUTHBEARER"));
        let offers = |name: &&str| match &self.mechanisms {
            Some(only) => only.iter().any(|other| other == name),
            None => true,
        };
        all.into_iter().filter(offers).map(str::to_owned).collect()
    }
}

impl Default for Sasl {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Sasl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sasl")
            .field("offered", &self.offered())
            .field("users", &self.users.keys())
            .field("max_session", &self.max_session)
            .finish_non_exhaustive()
    }
}
