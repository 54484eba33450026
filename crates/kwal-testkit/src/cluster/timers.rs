//! Runs planned events when their time has come.

use std::time::Instant;

use super::{
    event::Event,
    state::{Cluster, Now},
};

impl Cluster {
    /// Returns the time of the next planned event.
    pub(crate) fn next_event(&self) -> Option<Instant> {
        self.events.keys().next().map(|(at, _)| *at)
    }

    /// Advances the time and runs all events that are due.
    pub(crate) fn advance(&mut self, now: Now) {
        while let Some(event) = self.events.first_entry().filter(|event| event.key().0 <= now.monotonic) {
            let ((at, _), event) = event.remove_entry();
            // Each event runs at its own time, however late this is called.
            self.now = self.now.at(at);
            match event {
                Event::SessionOver { node } => self.session_over(node, at),
                Event::Fetch { id, broker } => self.fetch_due(id, broker, at),
                Event::Late { id, broker, since } => self.follower_lagged(id, broker, since),
            }
        }
        self.now = now;
    }

    pub(super) fn plan(&mut self, at: Instant, event: Event) {
        self.events.insert((at, self.next_event), event);
        self.next_event += 1;
    }
}
