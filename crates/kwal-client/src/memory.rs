//! The client's memory budget.

use std::sync::Arc;

use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// One unit of the budget, in bytes.
const UNIT: usize = 1024;

/// The bytes that the appends of a client may hold, from before they are encoded until they are acknowledged.
#[derive(Debug)]
pub(crate) struct Memory {
    free: Arc<Semaphore>,
    units: usize,
}

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = (bytes / UNIT).clamp(1, Semaphore::MAX_PERMITS.min(u32::MAX as usize));
        Self { free: Arc::new(Semaphore::new(units)), units }
    }

    /// Waits until the budget has room for so many bytes. First come, first served.
    ///
    /// More than the whole budget counts as the whole budget: one batch that exceeds it goes out alone.
    pub(crate) async fn reserve(&self, bytes: usize) -> Reservation {
        match Arc::clone(&self.free).acquire_many_owned(self.units_of(bytes) as u32).await {
            Ok(permit) => Reservation(permit),
            Err(_) => unreachable!("the budget is never closed"),
        }
    }

    fn units_of(&self, bytes: usize) -> usize {
        bytes.div_ceil(UNIT).clamp(1, self.units)
    }
}

/// A part of the budget. It is given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation(OwnedSemaphorePermit);

impl Reservation {
    /// Gives back what exceeds so many bytes.
    pub(crate) fn shrink(&mut self, bytes: usize) {
        let excess = self.0.num_permits().saturating_sub(bytes.div_ceil(UNIT).max(1));
        drop(self.0.split(excess));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_a_reservation_does_not_need_is_given_back() {
        let memory = Memory::new(10 * UNIT);
        let mut held = memory.reserve(8 * UNIT + 1).await;
        assert_eq!(memory.free.available_permits(), 1);
        held.shrink(2 * UNIT);
        assert_eq!(memory.free.available_permits(), 8);
        // Never more than was reserved.
        held.shrink(20 * UNIT);
        assert_eq!(memory.free.available_permits(), 8);
        held.shrink(0);
        assert_eq!(memory.free.available_permits(), 9);
        drop(held);
        assert_eq!(memory.free.available_permits(), 10);
        // More than there is counts as all there is.
        let all = memory.reserve(usize::MAX).await;
        assert_eq!(memory.free.available_permits(), 0);
        drop(all);
    }
}
