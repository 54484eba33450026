//! Facts about waiting until everything has ended that a batched writer has accepted.

use std::time::Duration;

use super::Facts;
use crate::check::{
    types::{AppendId, CallId, WriterId},
    value::Value,
};

/// A batched writer was flushed or closed.
pub(in crate::check) struct Wait<'a> {
    pub(in crate::check) call: CallId,
    /// The event and the time of its begin.
    pub(in crate::check) begun: (usize, Duration),
    /// Nothing that was accepted after this event had failed then.
    pub(in crate::check) after: usize,
    pub(in crate::check) closes: bool,
    /// The event, the time and the result of its end.
    pub(in crate::check) ended: Option<(usize, Duration, WaitResult<'a>)>,
}

/// What was returned when everything that was accepted had ended.
#[derive(Clone, Copy)]
pub(in crate::check) enum WaitResult<'a> {
    /// Whether an append failed.
    Flushed(bool),
    /// The records that are not on the log, and those that may be.
    Undelivered(&'a [Value], &'a [Value]),
}

impl<'a> Facts<'a> {
    pub(super) fn wait(
        &mut self,
        begun: (usize, Duration),
        call: CallId,
        writer: &WriterId,
        after: Option<AppendId>,
        closes: bool,
    ) -> Option<()> {
        let after = match after {
            Some(append) => self.appends[*self.known.appends.get(&append)?].event,
            None => 0,
        };
        let index = *self.known.writers.get(writer)?;
        let writer = &mut self.writers[index];
        if closes {
            writer.ended.get_or_insert(begun.0);
        }
        self.known.waits.insert(call, (index, writer.waits.len()));
        writer.waits.push(Wait { call, begun, after, closes, ended: None });
        Some(())
    }

    pub(super) fn waited(
        &mut self,
        event: usize,
        at: Duration,
        call: &CallId,
        result: WaitResult<'a>,
    ) -> Option<()> {
        let (writer, wait) = self.known.waits.remove(call)?;
        let wait = &mut self.writers[writer].waits[wait];
        // A close returns records, and a flush does not.
        let is_of = matches!(result, WaitResult::Undelivered(..)) == wait.closes;
        wait.ended = is_of.then_some((event, at, result));
        wait.ended.map(|_| ())
    }
}
