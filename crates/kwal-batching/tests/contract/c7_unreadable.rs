//! C7: a batch that cannot be read is an error with its offsets, and reading goes on if the caller says so.

use bytes::Bytes;
use futures::StreamExt;
use kwal_batching::reader::{Unreadable, follow, replay};
use kwal_client::{GapReason, PartitionClient, error::Error};
use kwal_protocol::{
    messages::FetchRequest,
    record::{BatchHeader, Batches, Compression},
};
use kwal_testkit::{EmbeddedCluster, wire::Wire};

use crate::support::{append, batch, broker, corrupt, gaps, open_over, records_of, seal, with_header};

/// What is wrong with the batch of offsets 3 to 5.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Fault {
    /// Its bytes were changed: the client sees that before it returns the batch.
    Checksum,
    /// It has a codec that nobody knows.
    Codec,
    /// Its second record is malformed.
    Record,
    /// It lacks a record.
    Missing,
}

const FAULTS: [Fault; 4] = [Fault::Checksum, Fault::Codec, Fault::Record, Fault::Missing];

/// A log of three batches of three records, of which the second cannot be read.
async fn log(broker: &EmbeddedCluster, wire: &Wire, fault: Fault) -> PartitionClient {
    let (client, partition) = open_over(broker, wire).await;
    append(&partition, 0..3).await;
    let mut bad = batch(&["3", "4", "5"], Compression::None);
    let bad = match fault {
        Fault::Checksum => bad.freeze(),
        Fault::Codec => with_header(bad, |header| header.attributes |= 7),
        Fault::Missing => with_header(bad, |header| header.count = 4),
        Fault::Record => {
            // The three records have the same size; the second one claims to be a byte longer.
            let second = BatchHeader::LEN + (bad.len() - BatchHeader::LEN) / 3;
            bad[second] += 2;
            seal(&mut bad);
            bad.freeze()
        }
    };
    broker.append_raw("wal", 0, bad).unwrap();
    append(&partition, 6..9).await;
    if fault == Fault::Checksum {
        wire.rewrite::<FetchRequest>(|response| {
            let records = &mut response.responses[0].partitions[0].records;
            *records = records.take().map(damaged);
        });
    }
    // Its clones live on in the readers.
    drop(client);
    partition
}

/// Damages the batch at offset 3.
fn damaged(bytes: Bytes) -> Bytes {
    let mut changed = bytes.to_vec();
    for batch in Batches::new(bytes).map_while(Result::ok) {
        if batch.base_offset() == 3 {
            changed[batch.position() + BatchHeader::LEN + 3] ^= 0xff;
        }
    }
    changed.into()
}

#[tokio::test(start_paused = true)]
async fn by_record_it_fails_until_it_is_skipped() {
    for fault in FAULTS {
        for max_bytes in [1, 1 << 20] {
            let broker = broker();
            let wire = Wire::new(broker.connector());
            let partition = log(&broker, &wire, fault).await;
            let mut stream = follow(&partition, 1).max_bytes(max_bytes).await.unwrap();
            let mut offsets = Vec::new();
            let error = loop {
                match stream.next().await.unwrap() {
                    Ok(record) => offsets.push(record.offset),
                    Err(error) => break error,
                }
            };
            // Records before the malformed one have been read by then.
            let read: &[i64] = match fault {
                Fault::Checksum | Fault::Codec => &[1, 2],
                Fault::Record => &[1, 2, 3],
                Fault::Missing => &[1, 2, 3, 4, 5],
            };
            assert_eq!(offsets, read, "{fault:?}");
            assert_eq!(corrupt(&error), Some(3..6));
            assert!(stream.next().await.is_none());
            assert_eq!(corrupt(&stream.next_batch().await.unwrap_err()), Some(3..6));

            let first = offsets.last().unwrap() + 1;
            let skipped = stream.skip_unreadable();
            assert_eq!(skipped, (first < 6).then_some(first..6), "{fault:?}");
            assert_eq!(stream.skip_unreadable(), None);
            if fault == Fault::Missing {
                continue;
            }
            assert_eq!(stream.next().await.unwrap().unwrap().offset, 6);
            assert_eq!(gaps(stream.summary()), [(first..6, GapReason::Unreadable)]);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn by_batch_it_is_the_callers_error_or_the_readers() {
    for fault in FAULTS {
        let broker = broker();
        let wire = Wire::new(broker.connector());
        let partition = log(&broker, &wire, fault).await;
        let mut replay = replay(&partition, 0).await.unwrap();
        assert_eq!(records_of(&replay.next_batch().await.unwrap().unwrap()), [0, 1, 2]);
        match fault {
            // That is known without decoding it.
            Fault::Checksum | Fault::Codec => {
                for _ in 0..2 {
                    assert_eq!(corrupt(&replay.next_batch().await.unwrap_err()), Some(3..6));
                    assert_eq!(replay.position().offset, 3);
                }
                assert_eq!(replay.skip_unreadable(), Some(3..6));
            }
            Fault::Record | Fault::Missing => {
                let batch = replay.next_batch().await.unwrap().unwrap();
                assert_eq!(corrupt(&batch.for_each(|_| ()).unwrap_err()), Some(3..6));
                assert_eq!(replay.position().offset, 6);
            }
        }
        assert_eq!(records_of(&replay.next_batch().await.unwrap().unwrap()), [6, 7, 8]);
        assert!(replay.next_batch().await.unwrap().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn a_function_that_cannot_read_it_fails_until_it_is_skipped() {
    for fault in FAULTS {
        let broker = broker();
        let wire = Wire::new(broker.connector());
        let partition = log(&broker, &wire, fault).await;
        let mut replay = replay(&partition, 0).await.unwrap();
        let mut offsets = Vec::new();
        for _ in 0..2 {
            let mut batch_offsets = Vec::new();
            let result: Result<(), Error> = replay
                .for_each_batch(|batch| {
                    batch_offsets.clear();
                    batch.for_each(|record| batch_offsets.push(record.offset))?;
                    offsets.append(&mut batch_offsets);
                    Ok(())
                })
                .await;
            assert_eq!(corrupt(&result.unwrap_err()), Some(3..6), "{fault:?}");
            assert_eq!(replay.position().offset, 3);
        }
        assert_eq!(replay.skip_unreadable(), Some(3..6));
        let rest: Result<(), Error> =
            replay.for_each_batch(|batch| batch.for_each(|record| offsets.push(record.offset))).await;
        rest.unwrap();
        assert_eq!(offsets, [0, 1, 2, 6, 7, 8]);
        assert_eq!(gaps(replay.summary()), [(3..6, GapReason::Unreadable)]);
    }
}

#[tokio::test(start_paused = true)]
async fn a_policy_leaves_it_out_whole() {
    for fault in FAULTS {
        for (from, end) in [(0, 9), (4, 9), (0, 5), (0, 3), (5, 7)] {
            let broker = broker();
            let wire = Wire::new(broker.connector());
            let partition = log(&broker, &wire, fault).await;
            let open = || replay(&partition, from).end(end).unreadable(Unreadable::Skip);
            let expected: Vec<_> = (from..end).filter(|offset| !(3..6).contains(offset)).collect();
            let skipped = from.max(3)..end.min(6);
            let gap = (!skipped.is_empty()).then_some((skipped, GapReason::Unreadable));

            let mut by_batch = open().await.unwrap();
            assert_eq!(crate::support::drain(&mut by_batch).await, expected, "{fault:?} {from}..{end}");
            assert_eq!(gaps(by_batch.summary()), Vec::from_iter(gap.clone()));
            let mut by_record = open().await.unwrap();
            let records: Vec<_> = by_record.by_ref().map(|record| record.unwrap().offset).collect().await;
            assert_eq!(records, expected);
            assert_eq!(gaps(by_record.summary()), Vec::from_iter(gap));
            // The rest of it is left out by the stream that follows.
            let mut stream = by_record.follow();
            let mut followed = Vec::new();
            while stream.position().offset < 9 {
                followed.push(stream.next().await.unwrap().unwrap().offset);
            }
            assert_eq!(followed, (end.max(6)..9).collect::<Vec<_>>(), "{fault:?} {from}..{end}");
            let missed = 6 - from.max(3);
            assert_eq!(stream.summary().without_records.unreadable, missed as u64);
            gaps(stream.summary());
        }
    }
}
