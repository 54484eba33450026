//! Which versions of which APIs a broker speaks.

use std::collections::BTreeMap;

use kwal_protocol::{
    api::{ApiKey, Versions},
    messages::ApiVersion,
};

/// The versions that a broker lists and answers: those of a release of Kafka, or fewer.
///
/// Only APIs that the embedded broker serves are in it. Like Kafka 4, it knows no record format but magic 2, so it closes the
/// connection on Produce below 3 and Fetch below 4 (and on ListOffsets 0) even where the release lists them.
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

/// What brokers do differently, other than by version.
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
                // Listed from 0 on for the sake of old clients that look at nothing else (KIP-896).
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

    /// Kafka 2.8, with ZooKeeper: only the [controller](Self::forwarding) makes and deletes topics.
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

    /// Lists and answers no other versions of an API than these. Versions that were not there before do not appear; if none is
    /// left, the API is gone.
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

    /// Neither lists nor answers an API.
    #[must_use]
    pub fn without(mut self, api: ApiKey) -> Self {
        self.apis.remove(&api);
        self
    }

    /// Whether every broker passes on to the controller what only that can do (KIP-500), or answers `NOT_CONTROLLER` unless it
    /// is the controller itself.
    #[must_use]
    pub fn forwarding(mut self, yes: bool) -> Self {
        self.forwards = yes;
        self
    }

    /// The versions that are answered, if the API is there at all.
    pub fn versions(&self, api: ApiKey) -> Option<Versions> {
        self.apis.get(&api).map(|spoken| spoken.answered)
    }

    /// The APIs that are there, by rising key.
    pub fn apis(&self) -> impl Iterator<Item = ApiKey> + '_ {
        self.apis.keys().copied()
    }

    pub(crate) fn forwards(&self) -> bool {
        self.forwards
    }

    /// With fewer replicas in sync than `min.insync.replicas`, the high watermark stands still, and what is more than there are
    /// replicas is not asked for.
    pub(crate) fn waits_for_min_isr(&self) -> bool {
        self.release >= Release::Kafka3_9
    }

    /// Replicas that may lead are not the same as those in sync (KIP-966).
    pub(crate) fn keeps_eligible(&self) -> bool {
        self.release >= Release::Kafka4_3
    }

    /// Fetches of versions that do not know zstd are refused where a topic has that codec; else they get what they cannot read.
    pub(crate) fn refuses_zstd(&self) -> bool {
        self.release < Release::Kafka4_3
    }

    /// Settings are those of before Kafka 4.
    pub(crate) fn has_old_settings(&self) -> bool {
        self.release < Release::Kafka4_3
    }

    pub(crate) fn answers(&self, api: ApiKey, version: i16) -> bool {
        self.versions(api).is_some_and(|versions| versions.contains(version))
    }

    /// What an ApiVersions response lists.
    pub(crate) fn listed(&self) -> Vec<ApiVersion> {
        self.apis.iter().map(|(api, spoken)| entry(*api, spoken.listed)).collect()
    }

    /// What an ApiVersions response lists if the version of the request is not known (KIP-511).
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

/// Older versions would need older record formats, or are of no use to anybody.
const fn oldest_answered(api: ApiKey) -> i16 {
    match api {
        ApiKey::PRODUCE => 3,
        ApiKey::FETCH => 4,
        ApiKey::LIST_OFFSETS => 1,
        // After version 0 come bare frames.
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
    fn the_codec_knows_all_that_is_answered() {
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
