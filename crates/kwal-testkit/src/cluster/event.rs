//! What happens at a planned time.

use std::time::Instant;

use super::partition::PartitionId;

/// A planned event.
#[derive(Clone, Copy, Debug)]
pub(super) enum Event {
    /// A broker's session has timed out.
    SessionOver { node: i32 },
    /// A follower's fetch has reached the leader.
    Fetch { id: PartitionId, broker: i32 },
    /// A follower has lagged for too long.
    Late { id: PartitionId, broker: i32, since: Instant },
}
