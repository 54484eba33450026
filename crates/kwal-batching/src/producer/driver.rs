//! The task that sends what has gathered.

use std::sync::Arc;

use tokio::{task::yield_now, time::sleep_until};

use super::{
    aggregator::Aggregator,
    shared::{Shared, Step},
};

/// Ends what is left when the task ends, also when its runtime aborts it.
pub(super) struct DriverGuard<A: Aggregator>(pub(super) Arc<Shared<A>>);

impl<A: Aggregator> Drop for DriverGuard<A> {
    fn drop(&mut self) {
        self.0.end();
    }
}

/// Sends what has gathered when there is room for it, until no handle is left and everything has ended.
pub(super) async fn run<A: Aggregator>(shared: &Arc<Shared<A>>) {
    loop {
        match shared.next_step() {
            Step::Send => {
                shared.send_next();
                // Batches are encoded here: others have their turn in between.
                yield_now().await;
            }
            Step::Yield => {
                // On one thread, those that were woken before this task run first.
                yield_now().await;
                if shared.have_returned() {
                    shared.send_next();
                }
            }
            Step::Wait(None) => shared.wake.notified().await,
            Step::Wait(Some(until)) => tokio::select! {
                biased;
                () = shared.wake.notified() => {}
                () = sleep_until(until) => drop(shared.send_next()),
            },
            Step::End => return,
        }
    }
}
