//! Barriers: the records by which an exclusive writer takes over a log.

use std::fmt;

use kwal_protocol::{
    record::{Batch, HeaderView, OwnedRecord, RecordView},
    text::Printable,
};

use super::Record;
use crate::validate;

/// The record by which an exclusive writer took over a log.
///
/// A partition client that is opened [exclusively](crate::OpenPartition::exclusive) appends it, in a batch of
/// its own, before it appends anything else. No append of an earlier holder of the name can follow it. So it
/// is where recovery ends: what lies before it is all that earlier holders will ever have written. The new
/// holder has its offset from [`PartitionClient::holder`](crate::PartitionClient::holder), and replays the
/// log up to it.
///
/// A barrier is not part of the data. A replay recognises it, and skips or reports it:
///
/// ```no_run
/// use kwal_client::{PartitionClient, error::Error, record::Barrier};
///
/// # async fn replay(partition: PartitionClient) -> Result<(), Error> {
/// for record in partition.fetch(0).await?.records() {
///     let record = record?;
///     match Barrier::parse(&record) {
///         Some(barrier) => println!("from offset {} on: {barrier}", record.offset),
///         None => println!("apply {:?}", record.value),
///     }
/// }
/// # Ok(())
/// # }
/// ```
///
/// # Format
/// The key is the transactional id: name, topic and partition, as in `writer-1/wal/0`. The value is empty,
/// and not null. There are exactly four headers, in this order, each of which is text:
///
/// | header | value |
/// | --- | --- |
/// | `kwal.barrier` | the name of the writer: 1 to 255 bytes of UTF-8 without control characters |
/// | `kwal.producer-id` | its producer id, in decimal |
/// | `kwal.epoch` | its producer epoch, in decimal |
/// | `kwal.mark` | 16 random bytes as 32 hexadecimal digits in lower case |
///
/// Numbers have neither sign nor leading zeros, so a barrier has one form only.
///
/// # Fences
/// A cluster forgets a name that has not been used for long, and gives its next holder another producer id.
/// That holder first appends the same record under the producer ids of earlier barriers, at epoch 32767, the
/// last one: it shuts out all that still goes on under those ids. So the record may be there several times.
/// The barrier is the last one: its batch has the producer id and the epoch that the record names, while
/// those of the batch of a fence differ.
///
/// A name can be forgotten while two processes take over, so that each gets a producer id of its own. Then
/// the one whose barrier is the later one fails, and the other one goes on after that barrier, which counts
/// for nothing.
///
/// [`Barrier::in_batch`] distinguishes them. [`Fetched::batches`](crate::Fetched::batches) shows how a reader
/// checks that a log has one writer at a time.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
#[non_exhaustive]
pub struct Barrier {
    /// The name of the writer.
    pub name: String,
    /// The producer id of the writer.
    pub producer_id: i64,
    /// The epoch at which it began. It may have raised it since.
    pub epoch: i16,
    /// What distinguishes this attempt to take over from every other one.
    pub mark: [u8; 16],
}

const NAME: &str = "kwal.barrier";
const PRODUCER_ID: &str = "kwal.producer-id";
const EPOCH: &str = "kwal.epoch";
const MARK: &str = "kwal.mark";

impl Barrier {
    /// The largest record that is a barrier has less than half of these bytes. Topics may have it compressed.
    pub(crate) const MAX_LEN: usize = 4_096;

    /// Returns the barrier that a record is; `None` for every other record.
    ///
    /// A record that differs in anything from the [format](Self#format), or has more headers, is not a
    /// barrier. Looking at a record without those headers allocates nothing.
    pub fn parse(record: &impl AnyRecord) -> Option<Self> {
        let (key, value, mut headers) = record.parts();
        if headers.len() != 4 || value != Some(b"") {
            return None;
        }
        let mut next = |name: &str| {
            let header = headers.next().filter(|header| header.key == name.as_bytes())?;
            std::str::from_utf8(header.value?).ok()
        };
        let name = next(NAME)?;
        let producer_id = decimal(next(PRODUCER_ID)?)?;
        let epoch = decimal(next(EPOCH)?)?.try_into().ok()?;
        let mark = mark(next(MARK)?)?;
        validate::exclusive_name(name).ok()?;
        let (topic, partition) = key?.strip_prefix(name.as_bytes())?.strip_prefix(b"/").and_then(|rest| {
            let (topic, partition) = std::str::from_utf8(rest).ok()?.split_once('/')?;
            Some((topic, decimal(partition)?))
        })?;
        validate::topic_name(topic).ok()?;
        i32::try_from(partition).ok()?;
        Some(Self { name: name.to_owned(), producer_id, epoch, mark })
    }

    /// Returns the barrier that a batch is; `None` for every other batch, and for a [fence](Self#fences).
    ///
    /// A batch that cannot be read is not a barrier either. Reading its records reports the error.
    pub fn in_batch(batch: &Batch) -> Option<Self> {
        if batch.header().count != 1 || batch.is_control() {
            return None;
        }
        let records = batch.records(Self::MAX_LEN).ok()?;
        let barrier = Self::parse(&records.iter().next()?.ok()?)?;
        let producer = batch.producer_id().zip(batch.producer_epoch());
        (producer == Some((barrier.producer_id, barrier.epoch))).then_some(barrier)
    }

    /// Returns the record to append. The id is that of [`transactional_id`].
    pub(crate) fn to_record(&self, transactional_id: &str) -> Record {
        Record::new(transactional_id, "")
            .header(NAME, self.name.as_str())
            .header(PRODUCER_ID, self.producer_id.to_string())
            .header(EPOCH, self.epoch.to_string())
            .header(MARK, Hex(self.mark).to_string())
    }
}

/// The name, and what identifies its holder in a dump of the log.
impl fmt::Display for Barrier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { name, producer_id, epoch, mark } = self;
        let name = Printable(name);
        write!(f, "barrier of {name}: producer id {producer_id}, epoch {epoch}, mark {}", Hex(*mark))
    }
}

/// Returns the transactional id of an exclusive writer: `{name}/{topic}/{partition}`.
///
/// Topics have no slash, so the parts are unambiguous even if the name has one. An ACL may be for the prefix
/// `{name}/`.
pub(crate) fn transactional_id(name: &str, topic: &str, partition: i32) -> String {
    format!("{name}/{topic}/{partition}")
}

/// Reads a number that has neither sign nor leading zeros.
fn decimal(text: &str) -> Option<i64> {
    let has_one_form = text == "0" || !text.starts_with(['0', '+', '-']);
    text.parse().ok().filter(|_| has_one_form)
}

fn mark(text: &str) -> Option<[u8; 16]> {
    let digit = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    let digits: &[u8; 32] = text.as_bytes().try_into().ok()?;
    let mut mark = [0; 16];
    for (byte, digits) in mark.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = digit(digits[0])? << 4 | digit(digits[1])?;
    }
    Some(mark)
}

struct Hex([u8; 16]);

impl fmt::Display for Hex {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// A record that was read: an [`OwnedRecord`], a [`RecordView`], or a type of your own that keeps records.
pub trait AnyRecord {
    /// Returns key, value and headers.
    fn parts(&self) -> (Option<&[u8]>, Option<&[u8]>, impl ExactSizeIterator<Item = HeaderView<'_>>);
}

impl AnyRecord for OwnedRecord {
    fn parts(&self) -> (Option<&[u8]>, Option<&[u8]>, impl ExactSizeIterator<Item = HeaderView<'_>>) {
        (self.key.as_deref(), self.value.as_deref(), self.headers.iter().map(HeaderView::from))
    }
}

impl AnyRecord for RecordView<'_> {
    fn parts(&self) -> (Option<&[u8]>, Option<&[u8]>, impl ExactSizeIterator<Item = HeaderView<'_>>) {
        (self.key, self.value, self.headers())
    }
}

#[cfg(test)]
mod tests;
