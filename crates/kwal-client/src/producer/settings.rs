//! How a partition client appends.

use std::time::Duration;

use kwal_protocol::record::Compression;

use super::state;
use crate::producer_id::EpochOwner;

/// Which replicas have to have a batch before an append is acknowledged.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum Acks {
    /// All replicas that are in sync (`acks=-1` on the wire): what was acknowledged survives every failure
    /// but an unclean election. How many there have to be is the topic's `min.insync.replicas`.
    #[default]
    All,
    /// The leader alone (`acks=1` on the wire): what was acknowledged is lost if the leader dies before its
    /// followers have it. Only together with [`idempotent(false)`](crate::OpenPartition::idempotent).
    Leader,
}

impl Acks {
    /// Returns the field `acks` of `ProduceRequest`.
    pub(super) fn on_the_wire(self) -> i16 {
        match self {
            Self::All => -1,
            Self::Leader => 1,
        }
    }
}

/// What becomes of the appends behind one that has failed.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
#[non_exhaustive]
pub enum OnFailure {
    /// Those that were submitted before its error was returned fail as well, with
    /// [`PrecedingAppendFailed`](crate::error::ErrorKind::PrecedingAppendFailed): the log has no hole. It
    /// counts as returned when the future of the append has given it to its caller, or is dropped.
    #[default]
    Stop,
    /// They are appended nevertheless: each append is on its own.
    Continue,
}

/// How the batches of a partition client are encoded.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Encoding {
    pub(crate) compression: Compression,
    pub(crate) level: Option<i32>,
}

/// How a partition client appends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Settings {
    pub(crate) encoding: Encoding,
    pub(crate) idempotent: bool,
    pub(crate) acks: Acks,
    pub(crate) max_in_flight: usize,
    pub(crate) on_failure: OnFailure,
    pub(crate) epochs: EpochOwner,
}

impl Settings {
    /// The most batches that brokers recognise when they are sent again.
    pub(crate) const MOST_IN_FLIGHT: usize = 5;
    /// For how long after an acknowledgement a partition certainly knows the producer id. Brokers forget one
    /// after `producer.id.expiration.ms`, a day by default, and this is below what anybody sets. To be
    /// careful costs one round trip.
    const KNOWN_FOR: Duration = Duration::from_secs(60);

    /// Returns the settings of the state machine.
    pub(super) fn machine(&self) -> state::Settings {
        state::Settings {
            window: self.max_in_flight,
            idempotent: self.idempotent,
            stop_on_failure: self.on_failure == OnFailure::Stop,
            expiration: Self::KNOWN_FOR,
            epochs: self.epochs,
        }
    }
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            encoding: Encoding { compression: Compression::None, level: None },
            idempotent: true,
            acks: Acks::All,
            max_in_flight: Self::MOST_IN_FLIGHT,
            on_failure: OnFailure::Stop,
            epochs: EpochOwner::Client,
        }
    }
}
