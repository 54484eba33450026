//! What happens at a planned time.

use std::time::Instant;

use super::partition::PartitionId;

/// What time brings.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// The controller has not heard of a broker for too long.
    SessionOver { node: i32 },
    /// What a follower has asked for arrives.
    Fetch { id: PartitionId, broker: i32 },
    /// A follower has been behind for too long.
    Late { id: PartitionId, broker: i32, since: Instant },
}
