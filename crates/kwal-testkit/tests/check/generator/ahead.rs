//! A reader that fetches ahead, and hands over each response in several parts.

use std::collections::VecDeque;

use super::{Partition, World};

/// Records, and the position after them.
type Part = (Vec<(i64, String)>, usize);

/// What a reader has fetched and not handed over.
#[derive(Default)]
pub(super) struct Ahead {
    /// The parts of the response at hand.
    hand: VecDeque<Part>,
    /// The response after it.
    next: Option<Part>,
}

impl Ahead {
    /// Returns where the next fetch begins, if anything is left.
    pub(super) fn end(&self) -> Option<usize> {
        self.next.as_ref().or_else(|| self.hand.back()).map(|(_, next)| *next)
    }
}

impl Partition {
    /// Hands over what was fetched earlier. Returns whether there was something.
    pub(super) fn read_ahead(&mut self, reader: usize, world: &mut World<'_>) -> bool {
        let Some(ahead) = &mut self.readers[reader].ahead else { return false };
        if ahead.hand.is_empty() {
            let Some(response) = ahead.next.take() else { return false };
            self.receive(reader, response, world);
        }
        self.hand_over(reader, world)
    }

    /// A response arrives, and the next fetch is sent.
    pub(super) fn receive(&mut self, reader: usize, (records, end): Part, world: &mut World<'_>) {
        let mut parts = VecDeque::new();
        let mut rest = records.into_iter().peekable();
        while rest.peek().is_some() {
            let part: Vec<_> = rest.by_ref().take(world.rng.usize(1..=3)).collect();
            let next = part.last().filter(|_| rest.peek().is_some());
            let next = next.map_or(end, |(offset, _)| *offset as usize + 1);
            parts.push_back((part, next));
        }
        if parts.is_empty() {
            parts.push_back((Vec::new(), end));
        }
        let state = &self.readers[reader];
        world.history.fetched(state.id);
        let is_verified = state.diverged.is_none() && !state.recreated;
        let is_answered =
            is_verified && (self.start..=self.log.len()).contains(&end) && world.rng.u8(..4) > 0;
        let next = is_answered.then(|| self.fetch_from(reader, end, world));
        self.readers[reader].ahead = Some(Ahead { hand: parts, next });
    }

    /// Hands over a part of the response at hand.
    pub(super) fn hand_over(&mut self, reader: usize, world: &mut World<'_>) -> bool {
        let state = &mut self.readers[reader];
        let part = state.ahead.as_mut().and_then(|ahead| ahead.hand.pop_front());
        let Some((records, next)) = part else { return false };
        state.position = next;
        world.history.read(state.id, records, next as i64);
        true
    }
}
