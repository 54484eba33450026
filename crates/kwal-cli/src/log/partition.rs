//! The log of a partition, from its leader.

use std::{collections::VecDeque, ops::Range, pin::Pin};

use futures::{
    FutureExt as _,
    future::{MaybeDone, maybe_done},
};
use kwal::{
    Error, ErrorKind, PartitionClient,
    client::{Fetch, FetchAhead, Fetched, Isolation, OffsetAt},
    record::Batch,
};

use super::{Item, Unreadable};
use crate::{exit::Failure, exit::chain, interrupt::Interrupt};

/// Reads a range of offsets as it is on the log, with control batches and those of aborted transactions.
#[derive(Debug)]
pub(crate) struct PartitionLog<'a> {
    partition: &'a PartitionClient,
    interrupt: &'a Interrupt,
    fetched: VecDeque<Batch>,
    /// The next fetch, which is on its way while the last one is worked on.
    ahead: Option<MaybeDone<FetchAhead>>,
    /// Where the next fetch begins.
    next: i64,
    /// The end, which is not read.
    until: i64,
}

/// How many bytes a fetch asks for.
const FETCH_BYTES: i32 = 4 << 20;

impl<'a> PartitionLog<'a> {
    pub(crate) fn new(partition: &'a PartitionClient, interrupt: &'a Interrupt, offsets: Range<i64>) -> Self {
        Self {
            partition,
            interrupt,
            fetched: VecDeque::new(),
            ahead: None,
            next: offsets.start,
            until: offsets.end,
        }
    }

    /// Returns the offsets that the log has now.
    pub(crate) async fn bounds(
        partition: &PartitionClient,
        interrupt: &Interrupt,
    ) -> Result<Range<i64>, Failure> {
        let start = interrupt.or(partition.get_offset(OffsetAt::Earliest)).await?;
        let end = interrupt.or(partition.get_offset(OffsetAt::Latest)).await?;
        Ok(start..end)
    }

    /// Returns what comes next; `None` at the end.
    pub(crate) async fn next(&mut self) -> Result<Option<Item>, Failure> {
        loop {
            if let Some(batch) = self.fetched.pop_front() {
                if batch.base_offset() >= self.until {
                    return Ok(None);
                }
                return Ok(Some(Item::Batch { batch, position: None }));
            }
            if self.next >= self.until {
                return Ok(None);
            }
            match self.fetch().await {
                Ok(fetched) => {
                    self.next = fetched.next_offset;
                    self.fetched.extend(fetched.batches().iter().cloned());
                    self.fetch_ahead();
                }
                Err(Failure::Client(error)) => return self.skip(error).map(Some),
                Err(failure) => return Err(failure),
            }
        }
    }

    async fn fetch(&mut self) -> Result<Fetched, Failure> {
        if let Some(mut ahead) = self.ahead.take() {
            self.interrupt.or((&mut ahead).map(Ok::<_, Failure>)).await?;
            if let Some(fetched) = Pin::new(&mut ahead).take_output() {
                return Ok(fetched?);
            }
        }
        self.interrupt.or(self.request()).await
    }

    /// Sends the next fetch.
    fn fetch_ahead(&mut self) {
        let ahead = if self.next < self.until { self.request().ahead() } else { None };
        self.ahead = ahead.map(|ahead| {
            let mut ahead = maybe_done(ahead);
            // The first poll sends it.
            let _ = (&mut ahead).now_or_never();
            ahead
        });
    }

    fn request(&self) -> Fetch<'_> {
        self.partition.fetch(self.next).max_bytes(FETCH_BYTES).isolation(Isolation::ReadUncommitted)
    }

    /// Goes on after a batch that cannot be read.
    fn skip(&mut self, error: Error) -> Result<Item, Failure> {
        let ErrorKind::Corrupt { offsets, .. } = error.kind() else { return Err(error.into()) };
        let offsets = offsets.clone();
        let Some(end) = offsets.as_ref().map(|offsets| offsets.end).filter(|end| *end > self.next) else {
            return Err(error.into());
        };
        self.next = end;
        let problem = error.cause().map_or_else(|| error.to_string(), chain);
        Ok(Item::Unreadable(Unreadable { offsets, header: None, position: None, problem }))
    }
}
