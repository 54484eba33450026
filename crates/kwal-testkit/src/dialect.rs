//! The API versions that a broker supports.

use std::collections::BTreeMap;

use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::ApiVersion,
};

/// The API versions that a broker lists and answers: those of a Kafka release, or fewer.
///
/// It contains only APIs that the embedded broker implements. Like Kafka 4, the broker supports no record
/// format but magic 2. It closes the connection on Produce below 3, Fetch below 4 and ListOffsets 0 even if
/// the release lists them.
///
/// ```
/// use kwal_protocol::api::{ApiKey, Versions};
/// use kwal_testkit::Dialect;
///
/// let old = Dialect::kafka_4_3().cap(ApiKey::FETCH, Versions::new(4, 11)).without(ApiKey::INIT_PRODUCER_ID);
/// assert_eq!(old.versions(ApiKey::FETCH), Some(Versions::new(4, 11)));
/// assert_eq!(old.versions(ApiKey::INIT_PRODUCER_ID), None);
/// ```
#[derive(Clone, Debug)]
pub struct Dialect {
    apis: BTreeMap<ApiKey, Spoken>,
    forwards: bool,
    release: Release,
}

/// Differences between releases other than versions.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
enum Release {
    Kafka2_8,
    Kafka3_9,
    Kafka4_3,
}

#[derive(Clone, Copy, Debug)]
struct Spoken {
    listed: Versions,
    answered: Versions,
}

impl Dialect {
    /// Kafka 4.3: the default.
    pub fn kafka_4_3() -> Self {
        Self::of(
            Release::Kafka4_3,
            &[
                // Listed from 0 because old clients look at nothing else (KIP-896).
                (ApiKey::PRODUCE, 0, 13),
                (ApiKey::FETCH, 4, 18),
                (ApiKey::LIST_OFFSETS, 1, 11),
                (ApiKey::METADATA, 0, 13),
                (ApiKey::SASL_HANDSHAKE, 0, 1),
                (ApiKey::API_VERSIONS, 0, 4),
                (ApiKey::CREATE_TOPICS, 2, 7),
                (ApiKey::DELETE_TOPICS, 1, 6),
                (ApiKey::INIT_PRODUCER_ID, 0, 5),
                (ApiKey::FIND_COORDINATOR, 0, 6),
                (ApiKey::DESCRIBE_PRODUCERS, 0, 0),
                (ApiKey::DELETE_RECORDS, 0, 2),
                (ApiKey::OFFSET_FOR_LEADER_EPOCH, 2, 4),
                (ApiKey::DESCRIBE_CONFIGS, 1, 4),
                (ApiKey::CREATE_PARTITIONS, 0, 3),
                (ApiKey::INCREMENTAL_ALTER_CONFIGS, 0, 1),
                (ApiKey::DESCRIBE_CLUSTER, 0, 2),
                (ApiKey::SASL_AUTHENTICATE, 0, 2),
            ],
        )
    }

    /// Kafka 3.9.
    pub fn kafka_3_9() -> Self {
        Self::of(
            Release::Kafka3_9,
            &[
                (ApiKey::PRODUCE, 0, 11),
                (ApiKey::FETCH, 0, 17),
                (ApiKey::LIST_OFFSETS, 0, 9),
                (ApiKey::METADATA, 0, 12),
                (ApiKey::SASL_HANDSHAKE, 0, 1),
                (ApiKey::API_VERSIONS, 0, 4),
                (ApiKey::CREATE_TOPICS, 0, 7),
                (ApiKey::DELETE_TOPICS, 0, 6),
                (ApiKey::INIT_PRODUCER_ID, 0, 5),
                (ApiKey::FIND_COORDINATOR, 0, 6),
                (ApiKey::DESCRIBE_PRODUCERS, 0, 0),
                (ApiKey::DELETE_RECORDS, 0, 2),
                (ApiKey::OFFSET_FOR_LEADER_EPOCH, 0, 4),
                (ApiKey::DESCRIBE_CONFIGS, 0, 4),
                (ApiKey::CREATE_PARTITIONS, 0, 3),
                (ApiKey::INCREMENTAL_ALTER_CONFIGS, 0, 1),
                (ApiKey::DESCRIBE_CLUSTER, 0, 1),
                (ApiKey::SASL_AUTHENTICATE, 0, 2),
            ],
        )
    }

    /// Kafka 2.8 with ZooKeeper: only the [controller](Self::forwarding) creates and deletes topics.
    pub fn kafka_2_8() -> Self {
        Self::of(
            Release::Kafka2_8,
            &[
                (ApiKey::PRODUCE, 0, 9),
                (ApiKey::FETCH, 0, 12),
                (ApiKey::LIST_OFFSETS, 0, 6),
                (ApiKey::METADATA, 0, 11),
                (ApiKey::SASL_HANDSHAKE, 0, 1),
                (ApiKey::API_VERSIONS, 0, 3),
                (ApiKey::CREATE_TOPICS, 0, 7),
                (ApiKey::DELETE_TOPICS, 0, 6),
                (ApiKey::INIT_PRODUCER_ID, 0, 4),
                (ApiKey::FIND_COORDINATOR, 0, 3),
                (ApiKey::DESCRIBE_PRODUCERS, 0, 0),
                (ApiKey::DELETE_RECORDS, 0, 2),
                (ApiKey::OFFSET_FOR_LEADER_EPOCH, 0, 4),
                (ApiKey::DESCRIBE_CONFIGS, 0, 4),
                (ApiKey::CREATE_PARTITIONS, 0, 3),
                (ApiKey::INCREMENTAL_ALTER_CONFIGS, 0, 1),
                (ApiKey::DESCRIBE_CLUSTER, 0, 0),
                (ApiKey::SASL_AUTHENTICATE, 0, 2),
            ],
        )
    }

    /// Restricts the versions of an API.
    ///
    /// Versions that the broker does not support stay unsupported. If no version is left, the API is removed.
    #[must_use]
    pub fn cap(mut self, api: ApiKey, to: Versions) -> Self {
        let capped = self.apis.get(&api).and_then(|spoken| {
            Some(Spoken { listed: both(spoken.listed, to)?, answered: both(spoken.answered, to)? })
        });
        match capped {
            Some(capped) => self.apis.insert(api, capped),
            None => self.apis.remove(&api),
        };
        self
    }

    /// Removes an API.
    #[must_use]
    pub fn without(mut self, api: ApiKey) -> Self {
        self.apis.remove(&api);
        self
    }

    /// Sets whether brokers forward requests to the controller (KIP-500).
    ///
    /// Otherwise a broker that is not the controller answers them with `NOT_CONTROLLER`.
    #[must_use]
    pub fn forwarding(mut self, yes: bool) -> Self {
        self.forwards = yes;
        self
    }

    /// Returns the versions that are answered, `None` if the API is not supported.
    pub fn versions(&self, api: ApiKey) -> Option<Versions> {
        self.apis.get(&api).map(|spoken| spoken.answered)
    }

    /// Returns the supported APIs, by ascending key.
    pub fn apis(&self) -> impl Iterator<Item = ApiKey> + '_ {
        self.apis.keys().copied()
    }

    pub(crate) fn forwards(&self) -> bool {
        self.forwards
    }

    /// Whether the high watermark stops while too few replicas are in sync.
    ///
    /// The limit is `min.insync.replicas`, capped at the number of replicas.
    pub(crate) fn waits_for_min_isr(&self) -> bool {
        self.release >= Release::Kafka3_9
    }

    /// Whether the controller tracks eligible leader replicas (KIP-966).
    pub(crate) fn keeps_eligible(&self) -> bool {
        self.release >= Release::Kafka4_3
    }

    /// Whether fetch versions without zstd are rejected on topics with that codec.
    ///
    /// Otherwise they get batches that they cannot read.
    pub(crate) fn refuses_zstd(&self) -> bool {
        self.release < Release::Kafka4_3
    }

    /// Whether the last stable offset is not above the base offset of the batch with the log start offset, if
    /// a transaction is open that began earlier.
    pub(crate) fn is_stable_by_batch(&self) -> bool {
        self.release >= Release::Kafka4_3
    }

    /// Whether the settings are those of Kafka 3.
    pub(crate) fn has_old_settings(&self) -> bool {
        self.release < Release::Kafka4_3
    }

    pub(crate) fn answers(&self, api: ApiKey, version: i16) -> bool {
        self.versions(api).is_some_and(|versions| versions.contains(version))
    }

    /// Returns what an ApiVersions response lists.
    pub(crate) fn listed(&self) -> Vec<ApiVersion> {
        self.apis.iter().map(|(api, spoken)| entry(*api, spoken.listed)).collect()
    }

    /// Returns what an ApiVersions response lists if the version of the request is unknown (KIP-511).
    pub(crate) fn listed_fallback(&self) -> Vec<ApiVersion> {
        let api = ApiKey::API_VERSIONS;
        self.versions(api).into_iter().map(|versions| entry(api, versions)).collect()
    }

    fn of(release: Release, listed: &[(ApiKey, i16, i16)]) -> Self {
        let spoken = listed.iter().filter_map(|(api, oldest, newest)| {
            let listed = Versions::new(*oldest, *newest);
            let answered = both(listed, Versions::new(oldest_answered(*api), i16::MAX))?;
            Some((*api, Spoken { listed, answered }))
        });
        Self { apis: spoken.collect(), forwards: release > Release::Kafka2_8, release }
    }
}

impl Default for Dialect {
    fn default() -> Self {
        Self::kafka_4_3()
    }
}

/// Older versions need older record formats, or have no users.
const fn oldest_answered(api: ApiKey) -> i16 {
    match api {
        ApiKey::PRODUCE => 3,
        ApiKey::FETCH => 4,
        ApiKey::LIST_OFFSETS => 1,
        // Version 0 is followed by frames without headers.
        ApiKey::SASL_HANDSHAKE => 1,
        _ => 0,
    }
}

fn both(one: Versions, other: Versions) -> Option<Versions> {
    let newest = one.newest_common(other)?;
    Some(Versions::new(one.oldest.max(other.oldest), newest))
}

const fn entry(api_key: ApiKey, versions: Versions) -> ApiVersion {
    ApiVersion { api_key, min_version: versions.oldest, max_version: versions.newest }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_codec_supports_every_answered_version() {
        for dialect in [Dialect::kafka_4_3(), Dialect::kafka_3_9(), Dialect::kafka_2_8()] {
            for api in dialect.apis() {
                let (codec, ours) = (api.versions().unwrap(), dialect.versions(api).unwrap());
                assert!(codec.contains(ours.oldest) && codec.contains(ours.newest), "{api} {ours}");
            }
        }
    }

    #[test]
    fn caps_only_narrow() {
        let dialect = Dialect::kafka_3_9().cap(ApiKey::PRODUCE, Versions::new(0, 99));
        assert_eq!(dialect.versions(ApiKey::PRODUCE), Some(Versions::new(3, 11)));
        assert_eq!(dialect.listed()[0].min_version, 0);
        assert!(dialect.cap(ApiKey::PRODUCE, Versions::new(50, 99)).versions(ApiKey::PRODUCE).is_none());
    }
}
