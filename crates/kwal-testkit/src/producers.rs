//! The producer state of a replica (KIP-98).

use std::collections::{BTreeMap, VecDeque};

use kwal_protocol::{error_code::ErrorCode, record::BatchHeader};

/// The state of every producer id of one replica.
#[derive(Clone, Debug, Default)]
pub(crate) struct Producers {
    known: BTreeMap<i64, Producer>,
}

#[derive(Clone, Debug)]
pub(crate) struct Producer {
    pub(crate) epoch: i16,
    /// The last [`REMEMBERED`] batches of the epoch, oldest first; empty if only a marker is known.
    batches: VecDeque<Appended>,
    /// The newest timestamp of its last batch.
    pub(crate) last_timestamp: i64,
    /// When it arrived, by the clock of the cluster.
    noted_at: i64,
    /// The epoch of the coordinator that wrote its last marker; −1 if there is none.
    pub(crate) coordinator_epoch: i32,
}

/// An appended batch.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) struct Appended {
    first_sequence: i32,
    last_sequence: i32,
    pub(crate) first_offset: i64,
    pub(crate) last_offset: i64,
    pub(crate) timestamp: i64,
}

/// The expiration of producer ids (`producer.id.expiration.ms`).
///
/// Brokers check periodically, and compare with the timestamp of the producer's last batch.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Expiry {
    /// When the last check ran.
    pub(crate) checked_at: i64,
    pub(crate) after_ms: i64,
}

impl Producers {
    /// Checks whether a batch may be appended. `Ok(Some)` means that it is a duplicate.
    ///
    /// An unknown producer id may begin at any sequence; a new epoch of a known one must begin at 0.
    pub(crate) fn check(&self, header: &BatchHeader) -> Result<Option<Appended>, (ErrorCode, String)> {
        let BatchHeader { producer_id: id, producer_epoch: epoch, base_sequence: first, .. } = *header;
        let Some(known) = self.known.get(&id) else { return Ok(None) };
        if epoch == known.epoch {
            let same = |batch: &&Appended| {
                batch.first_sequence == first && batch.last_sequence == header.last_sequence()
            };
            if let Some(batch) = known.batches.iter().find(same) {
                return Ok(Some(*batch));
            }
        }
        if epoch < known.epoch {
            let message = format!("producer {id} has epoch {} by now, not {epoch}", known.epoch);
            return Err((ErrorCode::INVALID_PRODUCER_EPOCH, message));
        }
        let expected = match known.batches.back() {
            Some(last) if epoch == known.epoch => following(last.last_sequence),
            _ => 0,
        };
        if first != expected {
            let message =
                format!("producer {id} of epoch {epoch} is to go on at sequence {expected}, not {first}");
            return Err((ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER, message));
        }
        Ok(None)
    }

    /// Updates the state for a batch on the log; `now` is in milliseconds since the epoch.
    pub(crate) fn note(&mut self, header: &BatchHeader, now: i64) {
        if header.producer_id < 0 {
            return;
        }
        let producer = self.known.entry(header.producer_id).or_insert_with(|| Producer {
            epoch: header.producer_epoch,
            batches: VecDeque::new(),
            last_timestamp: 0,
            noted_at: 0,
            coordinator_epoch: -1,
        });
        if producer.epoch != header.producer_epoch {
            producer.epoch = header.producer_epoch;
            producer.batches.clear();
        }
        (producer.last_timestamp, producer.noted_at) = (header.max_timestamp, now);
        if header.is_control() {
            producer.coordinator_epoch = producer.coordinator_epoch.max(0);
            return;
        }
        if producer.batches.len() == REMEMBERED {
            producer.batches.pop_front();
        }
        producer.batches.push_back(Appended {
            first_sequence: header.base_sequence,
            last_sequence: header.last_sequence(),
            first_offset: header.base_offset,
            last_offset: header.last_offset(),
            timestamp: header.max_timestamp,
        });
    }

    /// Removes expired producers, except those that are `busy` with a transaction.
    pub(crate) fn expire(&mut self, expiry: Expiry, busy: impl Fn(i64) -> bool) {
        self.known.retain(|id, producer| {
            let age = expiry.checked_at.saturating_sub(producer.last_timestamp);
            producer.noted_at >= expiry.checked_at || age < expiry.after_ms || busy(*id)
        });
    }

    /// Returns the offset of the last batch of a known producer.
    pub(crate) fn last_offset(&self, id: i64) -> Option<i64> {
        self.known.get(&id)?.last_offset()
    }

    /// Removes a producer, as its expiration does.
    pub(crate) fn forget(&mut self, id: i64) {
        self.known.remove(&id);
    }

    /// Removes all producers.
    pub(crate) fn forget_all(&mut self) {
        self.known.clear();
    }

    /// Returns all producers by ascending id.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (i64, &Producer)> {
        self.known.iter().map(|(id, producer)| (*id, producer))
    }
}

impl Producer {
    /// Returns the last offset of its last batch, if that is remembered.
    pub(crate) fn last_offset(&self) -> Option<i64> {
        self.batches.back().map(|batch| batch.last_offset)
    }

    /// Returns the last sequence of its epoch, −1 if there is none.
    pub(crate) fn last_sequence(&self) -> i32 {
        self.batches.back().map_or(-1, |batch| batch.last_sequence)
    }
}

/// How many batches of a producer are kept.
const REMEMBERED: usize = 5;

/// Sequences wrap from 2³¹ − 1 to 0.
fn following(sequence: i32) -> i32 {
    sequence.checked_add(1).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unknown_id_may_begin_anywhere_and_a_new_epoch_only_at_zero() {
        let mut producers = Partition::default();
        assert_eq!(producers.append(1, 0, 17, 3), Ok(100));
        assert_eq!(producers.append(1, 0, 20, 1), Ok(101));
        assert_eq!(producers.append(1, 1, 21, 1), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        assert_eq!(producers.append(1, 1, 0, 1), Ok(102));
        assert_eq!(producers.append(1, 0, 21, 1), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        assert_eq!(producers.append(1, 0, 20, 1), Err(ErrorCode::INVALID_PRODUCER_EPOCH), "also a retry");
        assert_eq!(producers.append(2, 0, 0, 1), Ok(103), "another id is another producer");
        producers.state.forget(1);
        assert_eq!(producers.append(1, 0, 5, 1), Ok(104));
    }

    #[test]
    fn five_batches_are_kept() {
        let mut producers = Partition::default();
        for sequence in 0..6 {
            assert_eq!(producers.append(1, 0, sequence * 2, 2), Ok(100 + i64::from(sequence)));
        }
        for sequence in 1..6 {
            assert_eq!(producers.append(1, 0, sequence * 2, 2), Ok(100 + i64::from(sequence)), "again");
        }
        assert_eq!(producers.append(1, 0, 0, 2), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "too old");
        assert_eq!(producers.append(1, 0, 10, 1), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "a part");
        assert_eq!(producers.append(1, 0, 13, 1), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), "a gap");
        assert_eq!(producers.append(1, 0, 12, 1), Ok(106));
    }

    #[test]
    fn sequences_wrap() {
        let mut producers = Partition::default();
        assert_eq!(producers.append(1, 0, i32::MAX - 1, 1), Ok(100));
        assert_eq!(producers.append(1, 0, i32::MAX, 3), Ok(101));
        assert_eq!(producers.append(1, 0, 2, 1), Ok(102));
        assert_eq!(producers.append(1, 0, i32::MAX, 3), Ok(101), "again");
    }

    #[test]
    fn idle_producers_expire_at_the_next_check() {
        let mut producers = Partition::default();
        producers.append(1, 0, 0, 1).unwrap();
        let expiry = |checked_at| Expiry { checked_at, after_ms: 100 };
        producers.state.expire(expiry(98), |_| false);
        assert_eq!(producers.append(1, 0, 5, 1), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        producers.state.expire(expiry(100), |id| id == 1);
        assert_eq!(producers.append(1, 0, 5, 1), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
        producers.state.expire(expiry(100), |_| false);
        assert_eq!(producers.append(1, 0, 5, 1), Ok(101));
    }

    /// Assigns offsets from 100 to the batches that it accepts.
    #[derive(Default)]
    struct Partition {
        state: Producers,
        taken: i64,
    }

    impl Partition {
        fn append(&mut self, id: i64, epoch: i16, sequence: i32, count: i32) -> Result<i64, ErrorCode> {
            let header = BatchHeader {
                producer_id: id,
                producer_epoch: epoch,
                base_sequence: sequence,
                last_offset_delta: count - 1,
                count,
                ..BatchHeader::default()
            };
            match self.state.check(&header) {
                Ok(Some(appended)) => Ok(appended.first_offset),
                Err((code, _)) => Err(code),
                Ok(None) => {
                    let offset = 100 + self.taken;
                    self.taken += 1;
                    self.state.note(&BatchHeader { base_offset: offset, ..header }, 0);
                    Ok(offset)
                }
            }
        }
    }
}
