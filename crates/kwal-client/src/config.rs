//! The settings of a client, each with its default and the reason for it.

use std::{sync::Arc, time::Duration};

use kwal_transport::{Connect, HostPort, Tcp};

use crate::{duration::LONGEST, error::Error, sasl::Sasl};

/// What a [`ClientBuilder`](crate::ClientBuilder) collects.
#[derive(Clone, Debug)]
pub(crate) struct Config {
    pub(crate) bootstrap: Vec<HostPort>,
    pub(crate) client_id: String,
    pub(crate) connect: Arc<dyn Connect>,
    /// How connections are made, in words for the error of one that timed out: ` with TLS through …`.
    pub(crate) route: String,
    pub(crate) sasl: Option<Sasl>,
    pub(crate) deadlines: Deadlines,
    pub(crate) limits: Limits,
    pub(crate) retry: RetryPolicy,
    pub(crate) seed: Option<u64>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            bootstrap: Vec::new(),
            client_id: "kwal".to_owned(),
            connect: Arc::new(Tcp::default()),
            route: String::new(),
            sasl: None,
            deadlines: Deadlines::default(),
            limits: Limits::default(),
            retry: RetryPolicy::default(),
            seed: None,
        }
    }
}

/// The longest string that the header of a request has room for, in bytes.
const LONGEST_STRING: usize = i16::MAX as usize;

impl Config {
    /// Rejects settings with which nothing could succeed.
    pub(crate) fn validate(&self) -> Result<(), Error> {
        let Self { client_id, deadlines, limits, retry, .. } = self;
        if client_id.len() > LONGEST_STRING {
            let len = client_id.len();
            return Err(Error::invalid_input(format!(
                "the client id has {len} bytes, more than {LONGEST_STRING}"
            )));
        }
        let zero_times = [
            ("Deadlines::operation", deadlines.operation),
            ("Deadlines::request", deadlines.request),
            ("Deadlines::connect", deadlines.connect),
            ("Deadlines::throttle", deadlines.throttle),
            // Without a pause, a call would retry as fast as the machine can until its deadline.
            ("RetryPolicy::initial", retry.initial),
            ("RetryPolicy::max", retry.max),
        ]
        .map(|(name, time)| (name, time.is_zero()));
        let zero_sizes = [
            ("Limits::batch", limits.batch),
            ("Limits::frame", limits.frame),
            ("Limits::decompressed", limits.decompressed),
            ("Limits::memory", limits.memory),
            ("Limits::max_connections_per_broker", limits.max_connections_per_broker),
        ]
        .map(|(name, size)| (name, size == 0));
        match zero_times.into_iter().chain(zero_sizes).find(|(_, is_zero)| *is_zero) {
            Some((name, _)) => Err(Error::invalid_input(format!("{name} is zero"))),
            None => Ok(()),
        }
    }

    /// Shortens all durations to [`LONGEST`].
    pub(crate) fn shorten(&mut self) {
        let Self { deadlines, retry, .. } = self;
        let Deadlines { operation, request, connect, unknown_topic, throttle } = deadlines;
        let RetryPolicy { initial, max } = retry;
        for duration in [operation, request, connect, unknown_topic, throttle, initial, max] {
            *duration = LONGEST.min(*duration);
        }
    }
}

/// How long calls may take. Every call of the client ends within its deadline, with a result or an error.
///
/// More than 30 years count as 30 years, also where a call sets its own deadline.
///
/// ```
/// use std::time::Duration;
/// use kwal_client::Deadlines;
///
/// let patient = Deadlines::default().operation(Duration::from_secs(300));
/// assert_eq!(patient.request, Duration::from_secs(10));
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Deadlines {
    /// Time limit of a whole call with all its retries. Default 60 s.
    pub operation: Duration,
    /// Time limit of one request.
    ///
    /// It starts when the request has been written and every earlier request on the connection has been
    /// answered, and is paused while the broker throttles. It counts silence: bytes of the response that
    /// arrive restart it, once for each thousandth of the response, so that a slow link is not taken for a
    /// dead one. The time that a broker waits for replicas is a little shorter; the wait of a long poll is
    /// added. Default 10 s.
    pub request: Duration,
    /// Time limit for opening a connection: credentials, name resolution, proxy, stream, TLS, versions,
    /// authentication. Default 10 s.
    ///
    /// It covers all addresses of a name: one that accepts and then fails is left for the next. Each but the
    /// last gets at most a quarter of the time.
    pub connect: Duration,
    /// How long a call retries while no broker knows its topic or partition: right after a topic is created,
    /// not all of them do. Default 5 s.
    pub unknown_topic: Duration,
    /// The longest pause that is made when a broker throttles this client for exceeding a quota. Longer ones,
    /// which are reported once at `WARN`, are cut to it. Default 60 s.
    ///
    /// A call that ends before the pause does is not sent, and fails at once with
    /// [`ErrorKind::Throttled`](crate::error::ErrorKind::Throttled).
    pub throttle: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            operation: Duration::from_secs(60),
            request: Duration::from_secs(10),
            connect: Duration::from_secs(10),
            unknown_topic: Duration::from_secs(5),
            throttle: Duration::from_secs(60),
        }
    }
}

/// How much memory and how many connections a client may use. Lengths are checked against these before memory
/// is reserved.
///
/// What kwal writes with its defaults, it reads with its defaults.
///
/// ```
/// use kwal_client::Limits;
///
/// let small = Limits::default().memory(8 << 20).max_connections_per_broker(2);
/// assert_eq!(small.batch, 16 << 20);
/// ```
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct Limits {
    /// The largest record batch to append, in bytes, before compression and after. Topics have a limit of
    /// their own, `max.message.bytes`, 1 MiB unless set. Default 16 MiB.
    pub batch: usize,
    /// The largest response to a fetch, in bytes. Default 128 MiB.
    ///
    /// Other responses have fixed limits, or this one if it is lower: 64 KiB until a connection is
    /// authenticated, 16 MiB for what describes a whole cluster, 4 MiB for the rest.
    pub frame: usize,
    /// The largest compressed record batch to read, in bytes after decompression. Default 128 MiB.
    ///
    /// Uncompressed batches are limited by [`frame`](Self#structfield.frame) alone.
    pub decompressed: usize,
    /// The memory budget of a client, in bytes: for its appends, from before they are encoded until they are
    /// acknowledged, and for what its fetches get, from before they are sent until they are handed over.
    /// Default 256 MiB.
    ///
    /// Appends and reads may each hold three quarters of it, so that a quarter is always left to the other.
    /// Further ones wait, in the order in which they came. A batch larger than three quarters is appended
    /// alone. What the caller holds does not count, nor does what is read to look something up for an append.
    ///
    /// Values of 16 KiB and more of uncompressed batches are not copied, and count all the same.
    ///
    /// Buffers of 32 KiB and more that are not needed any longer are kept, to be used again. These and those
    /// in use, what the caller holds of them included, take no more than this limit; if it is reached, those
    /// that are kept are freed. So is one that has not been used for 5 to 10 seconds.
    ///
    /// A fetch counts with what it asks for, which is at most the share of reads, divided by
    /// [`max_connections_per_broker`](Self#structfield.max_connections_per_broker) and one more. As soon as
    /// the length of its response is known, it counts with that: a first batch larger than asked for is taken
    /// as a debt of reads, which is paid before another fetch is sent. Fetches of several partition clients
    /// that share a connection are one request and count once.
    pub memory: usize,
    /// How many connections to one broker the partition clients share for appends, and as many again for
    /// fetches. One more serves short requests. Default 16.
    ///
    /// A broker works on one request of a connection at a time, also while an append waits for its replicas
    /// or a fetch for records. Up to this many partition clients with the same leader have connections of
    /// their own; further ones share the least used ones, and the fetches on a shared one are
    /// [combined](crate::Fetch#shared-connections). A connection that no partition client uses any more is
    /// closed. Where a broker allows fewer (`max.connections.per.ip`), those that it allows are shared.
    pub max_connections_per_broker: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            batch: 16 << 20,
            frame: 128 << 20,
            decompressed: 128 << 20,
            memory: 256 << 20,
            max_connections_per_broker: 16,
        }
    }
}

/// How long to pause between attempts.
///
/// Each pause is up to twice the one before, from `initial` to `max`, and is shortened by a random part of up
/// to half, so that clients do not retry in step. The deadline of the operation ends the retries, not a
/// count.
///
/// A broker that cannot be connected to is tried by one attempt at a time, whose result all calls share, with
/// half of these pauses in between.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub struct RetryPolicy {
    /// The first pause. Default 50 ms.
    pub initial: Duration,
    /// The longest pause. Default 1 s.
    pub max: Duration,
}

impl Default for RetryPolicy {
    fn default() -> Self {
        Self { initial: Duration::from_millis(50), max: Duration::from_secs(1) }
    }
}

/// A setter for each field, since the structs are `#[non_exhaustive]`.
macro_rules! setters {
    ($name:ident { $($field:ident: $ty:ty),* $(,)? }) => {
        impl $name { $(
            #[doc = concat!("Sets [`", stringify!($field), "`](Self#structfield.", stringify!($field), ").")]
            #[must_use]
            pub fn $field(mut self, $field: $ty) -> Self {
                self.$field = $field;
                self
            }
        )* }
    };
}

setters!(Deadlines {
    operation: Duration,
    request: Duration,
    connect: Duration,
    unknown_topic: Duration,
    throttle: Duration,
});
setters!(Limits {
    batch: usize,
    frame: usize,
    decompressed: usize,
    memory: usize,
    max_connections_per_broker: usize,
});
setters!(RetryPolicy { initial: Duration, max: Duration });

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn settings_of_zero_are_rejected() {
        let reason = |config: Config| config.validate().map_err(|error| error.to_string());
        let with = |change: fn(&mut Config)| {
            let mut config = Config::default();
            change(&mut config);
            reason(config)
        };
        assert_eq!(with(|_| {}), Ok(()));
        assert_eq!(with(|config| config.deadlines.unknown_topic = Duration::ZERO), Ok(()));
        let zero = |name: &str| Err(format!("{name} is zero"));
        assert_eq!(with(|config| config.deadlines.request = Duration::ZERO), zero("Deadlines::request"));
        assert_eq!(with(|config| config.retry.initial = Duration::ZERO), zero("RetryPolicy::initial"));
        assert_eq!(with(|config| config.retry.max = Duration::ZERO), zero("RetryPolicy::max"));
        assert_eq!(with(|config| config.limits.memory = 0), zero("Limits::memory"));
    }

    #[test]
    fn a_client_id_has_to_fit_into_a_request() {
        let validate = |len| Config { client_id: "x".repeat(len), ..Config::default() }.validate();
        validate(32_767).unwrap();
        let error = validate(32_768).unwrap_err();
        assert_eq!(error.to_string(), "the client id has 32768 bytes, more than 32767");
    }

    #[test]
    fn only_durations_that_are_too_long_are_shortened() {
        let mut config = Config::default();
        config.deadlines.request = Duration::MAX;
        config.retry = RetryPolicy { initial: LONGEST + Duration::from_nanos(1), max: LONGEST };
        config.shorten();
        assert_eq!(config.deadlines, Deadlines::default().request(LONGEST));
        assert_eq!(config.retry, RetryPolicy { initial: LONGEST, max: LONGEST });
    }
}
