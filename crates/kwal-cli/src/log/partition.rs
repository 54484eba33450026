//! The log of a partition, from its leader.

use std::{collections::VecDeque, ops::Range};

use kwal::{
    Error, ErrorKind, PartitionClient,
    client::{Isolation, OffsetAt},
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
    /// Where the next fetch begins.
    next: i64,
    /// The end, which is not read.
    until: i64,
}

/// How many bytes a fetch asks for.
const FETCH_BYTES: i32 = 4 << 20;

impl<'a> PartitionLog<'a> {
    pub(crate) fn new(partition: &'a PartitionClient, interrupt: &'a Interrupt, offsets: Range<i64>) -> Self {
        Self { partition, interrupt, fetched: VecDeque::new(), next: offsets.start, until: offsets.end }
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
            let fetch = self.partition.fetch(self.next).max_bytes(FETCH_BYTES);
            match self.interrupt.or(fetch.isolation(Isolation::ReadUncommitted)).await {
                Ok(fetched) => {
                    self.next = fetched.next_offset;
                    self.fetched.extend(fetched.batches().iter().cloned());
                }
                Err(Failure::Client(error)) => return self.skip(error).map(Some),
                Err(failure) => return Err(failure),
            }
        }
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
