//! Which clients may use a broker.

use std::{
    collections::BTreeMap,
    fmt,
    sync::{Arc, Mutex},
    time::Duration,
};

/// Requires clients to authenticate, as a `SASL_PLAINTEXT` listener of Kafka does.
///
/// Pass it to [`EmbeddedClusterBuilder::sasl`](crate::EmbeddedClusterBuilder::sasl).
///
/// It supports PLAIN, SCRAM-SHA-256 and SCRAM-SHA-512, and OAUTHBEARER if it can
/// [validate tokens](Self::oauthbearer). As in Kafka, the response to an unsupported mechanism lists the
/// supported ones, wrong credentials are rejected with a message after a [delay](Self::failure_delay), and a
/// request before authentication closes the connection.
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
    /// Salted passwords by user and mechanism.
    pub(super) salted: Arc<Salted>,
}

/// Returns the remaining lifetime of a token, `None` if it is invalid.
type TokenValidator = dyn Fn(&str) -> Option<Duration> + Send + Sync;

/// Caches salted passwords, which are slow to compute.
#[derive(Debug, Default)]
pub(super) struct Salted(pub(super) Mutex<BTreeMap<(String, &'static str), Vec<u8>>>);

impl Sasl {
    /// Creates a configuration without users.
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

    /// Adds a user for PLAIN and SCRAM.
    #[must_use]
    pub fn user(mut self, name: &str, password: &str) -> Self {
        self.users.insert(name.to_owned(), password.to_owned());
        self.salted = Arc::default();
        self
    }

    /// Enables OAUTHBEARER: `validate` returns the remaining lifetime of a token, or `None` to reject it.
    ///
    /// All tokens stand for the same principal.
    #[must_use]
    pub fn oauthbearer(
        mut self,
        validate: impl Fn(&str) -> Option<Duration> + Send + Sync + 'static,
    ) -> Self {
        self.token_validator = Some(Arc::new(validate));
        self
    }

    /// Restricts the mechanisms (`sasl.enabled.mechanisms`).
    #[must_use]
    pub fn mechanisms(mut self, mechanisms: &[&str]) -> Self {
        self.mechanisms = Some(mechanisms.iter().map(|&name| name.to_owned()).collect());
        self
    }

    /// Sets the iteration count of SCRAM. Default: 4096.
    #[must_use]
    pub fn iterations(mut self, count: u32) -> Self {
        self.iterations = count;
        self.salted = Arc::default();
        self
    }

    /// Sets the longest lifetime of a session (`connections.max.reauth.ms`, KIP-368).
    ///
    /// After it, any request closes the connection. Default: unlimited, or the lifetime of the token.
    #[must_use]
    pub fn max_session(mut self, time: Duration) -> Self {
        self.max_session = Some(time);
        self
    }

    /// Sets the delay of failed authentications (`connection.failed.authentication.delay.ms`).
    ///
    /// Default: 100 ms.
    #[must_use]
    pub fn failure_delay(mut self, time: Duration) -> Self {
        self.failure_delay = time;
        self
    }

    /// Returns the names of the enabled mechanisms.
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
