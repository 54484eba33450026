//! Batches that are damaged in the segment files of a broker, which sends them as they are.

use std::collections::BTreeMap;
use std::fs::File;
use std::ops::Range;
use std::os::unix::fs::FileExt as _;

use kwal_batching::reader::{Replay, Unreadable, follow, replay};
use kwal_client::error::{Error, ErrorKind};
use kwal_client::record::Record;
use kwal_tests::kafka::{Kafka, Version};

use super::{connect, read_to_end, read_up_to, take};

kwal_tests::suite! {
    own: [damaged],
}

/// What is wrong with a batch.
#[derive(Clone, Copy, Debug)]
enum Damage {
    /// A bit of a value.
    Value,
    /// The compression, with a checksum that is right.
    Codec,
}

/// How many records each batch has.
const BATCH: i64 = 3;
const BATCHES: i64 = 20;
/// The damaged batches. Two of them are neighbours.
const DAMAGED: [i64; 3] = [7, 8, 12];

async fn damaged(version: Version) {
    let kafka = Kafka::shared(version);
    for damage in [Damage::Value, Damage::Codec] {
        are_passed(kafka, damage).await;
    }
}

async fn are_passed(kafka: &Kafka, damage: Damage) {
    let topic = kafka.topic("damaged", 1, &[]).await;
    let partition = connect(kafka).await.partition_client(&topic, 0).await.unwrap();
    for batch in 0..BATCHES {
        let records = offsets(batch).map(|offset| Record::new("key", offset.to_string()));
        partition.produce(records.collect::<Vec<_>>()).await.unwrap();
    }
    // They are in the files when they can be read.
    let dump = kafka.dump_log(1, &topic, 0).await;
    let file = File::options().read(true).write(true).open(&kafka.segments(1, &topic, 0)[0]).unwrap();
    for batch in DAMAGED {
        let (position, size) = place(&dump, offsets(batch).start);
        damage.inflict(&file, position, size);
    }
    let end = BATCHES * BATCH;
    let is_readable = |offset: &i64| !DAMAGED.iter().any(|batch| offsets(*batch).contains(offset));
    let expected = |from: i64| -> BTreeMap<_, _> {
        (from..end).filter(is_readable).map(|offset| (offset, offset.to_string())).collect()
    };

    // Each is an error until it is skipped.
    let mut replay_all = replay(&partition, 0).await.unwrap();
    let mut read = BTreeMap::new();
    for batch in DAMAGED {
        let error = error_of(&mut replay_all, &mut read).await;
        is_of(&error, batch);
        is_of(&replay_all.next_batch().await.unwrap_err(), batch);
        assert_eq!(replay_all.position().offset, offsets(batch).start);
        assert_eq!(replay_all.skip_unreadable(), Some(offsets(batch)), "{damage:?}");
    }
    while let Some(batch) = replay_all.next_batch().await.unwrap() {
        take(&batch, &mut read);
    }
    assert_eq!(read, expected(0), "{damage:?}");
    let unreadable = replay_all.summary().without_records.unreadable;
    assert_eq!((unreadable, replay_all.summary().records), (9, read.len() as u64), "{damage:?}");

    // By the policy, also from within one, and with each batch in a fetch of its own.
    for (from, max_bytes) in [(0, 1 << 20), (0, 1), (22, 1 << 20), (25, 1), (37, 300)] {
        let replay = replay(&partition, from).unreadable(Unreadable::Skip).max_bytes(max_bytes);
        let mut replay = replay.await.unwrap();
        assert_eq!(read_to_end(&mut replay).await, expected(from), "{damage:?} from {from}");
        let summary = replay.summary();
        assert_eq!(summary.without_records.unreadable + summary.records, (end - from) as u64, "{summary:?}");
    }
    let mut stream = follow(&partition, 0).unreadable(Unreadable::Skip).await.unwrap();
    assert_eq!(read_up_to(&mut stream, end).await, expected(0), "{damage:?}");
}

impl Damage {
    /// Damages a batch in a file.
    fn inflict(self, file: &File, position: u64, size: usize) {
        // Of the header: checksum, then attributes. The checksum covers everything after it.
        const CHECKSUM: u64 = 17;
        const ATTRIBUTES: u64 = 21;
        match self {
            // The last byte is the number of headers of the last record.
            Self::Value => flip(file, position + size as u64 - 2),
            Self::Codec => {
                file.write_all_at(&[0, 7], position + ATTRIBUTES).unwrap();
                let mut covered = vec![0; size - ATTRIBUTES as usize];
                file.read_exact_at(&mut covered, position + ATTRIBUTES).unwrap();
                let checksum = crc32c::crc32c(&covered);
                file.write_all_at(&checksum.to_be_bytes(), position + CHECKSUM).unwrap();
            }
        }
    }
}

fn flip(file: &File, position: u64) {
    let mut byte = [0];
    file.read_exact_at(&mut byte, position).unwrap();
    file.write_all_at(&[byte[0] ^ 1], position).unwrap();
}

/// Returns the error that follows some records.
async fn error_of(replay: &mut Replay, read: &mut BTreeMap<i64, String>) -> Error {
    loop {
        match replay.next_batch().await {
            Ok(batch) => take(&batch.unwrap(), read),
            Err(error) => return error,
        }
    }
}

fn is_of(error: &Error, batch: i64) {
    let ErrorKind::Corrupt { offsets: of, .. } = error.kind() else { panic!("{error:?}") };
    assert_eq!(*of, Some(offsets(batch)), "{error:?}");
}

fn offsets(batch: i64) -> Range<i64> {
    batch * BATCH..(batch + 1) * BATCH
}

/// Returns the place and the size of a batch in its file, by DumpLogSegments.
fn place(dump: &str, offset: i64) -> (u64, usize) {
    let start = format!("baseOffset: {offset} ");
    let line = dump.lines().find(|line| line.starts_with(&start)).unwrap();
    let after = |name: &str| line.split_once(name).unwrap().1.split(' ').next().unwrap();
    (after(" position: ").parse().unwrap(), after(" size: ").parse().unwrap())
}
