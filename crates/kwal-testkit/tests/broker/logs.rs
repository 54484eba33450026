//! What other producers, compaction and deletion do to a log, and readers of it during storms.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        DeleteRecordsPartition, DeleteRecordsRequest, DeleteRecordsTopic, FetchPartitionResponse,
        FetchRequest, IsolationLevel, ProduceRequest,
    },
    record::{BatchBuilder, Batches, Compression, ControlRecord, EncodedBatch, Headers, OwnedRecord},
};
use kwal_testkit::{
    EmbeddedCluster, Hazard, Storm, StormReport,
    check::{Covered, Event, Expect, ReadFailure, Reader, ReaderId, Recorder, Tally, Value, Verdict, Writer},
};
use tokio::time::{Instant, sleep};

use crate::{
    client::{Client, Place, STARTED_AT, batch, fetch, in_memory, produce},
    storms::Sturdy,
};

#[tokio::test(start_paused = true)]
async fn transactions_of_other_producers_begin_hang_and_end() {
    let cluster = in_memory();
    let (one, other) = ((cluster.new_producer_id(), 0), (cluster.new_producer_id(), 3));
    assert_ne!(one.0, other.0);
    assert_eq!(cluster.append_in_transaction("wal", 0, one, 0, &batch(&["a", "b"])).unwrap(), 0);
    assert_eq!(cluster.append_in_transaction("wal", 0, other, 0, &batch(&["c"])).unwrap(), 2);
    assert_eq!(cluster.append_in_transaction("wal", 0, one, 2, &batch(&["d"])).unwrap(), 3);
    assert_eq!(cluster.open_transactions("wal", 0).unwrap(), [(one.0, 0), (other.0, 2)]);
    assert_eq!(cluster.last_stable_offset("wal", 0).unwrap(), 0);

    assert_eq!(cluster.end_transaction("wal", 0, one, false).unwrap(), 4);
    assert_eq!(cluster.open_transactions("wal", 0).unwrap(), [(other.0, 2)]);
    assert_eq!(
        (cluster.last_stable_offset("wal", 0).unwrap(), cluster.high_watermark("wal", 0).unwrap()),
        (2, 5)
    );
    let log = cluster.checked_log("wal", 0, value).unwrap();
    assert_eq!((log.offsets, pairs(&log.empty), log.last_stable), (0..5, vec![(4, 5)], Some(2)));
    assert_eq!((pairs(&log.aborted), log.records.len()), (vec![(0, 2), (3, 4)], 4));

    // It hangs, and its beginning is deleted.
    cluster.delete_records("wal", 0, 3).unwrap();
    assert_eq!(cluster.last_stable_offset("wal", 0).unwrap(), 3);
    assert_eq!(cluster.end_transaction("wal", 0, other, true).unwrap(), 5);
    assert_eq!(cluster.last_stable_offset("wal", 0).unwrap(), 6);
    let log = cluster.checked_log("wal", 0, value).unwrap();
    assert_eq!((log.offsets, pairs(&log.empty)), (3..6, vec![(4, 5), (5, 6)]));
    assert_eq!(pairs(&log.aborted), [(3, 4)]);
}

fn pairs(ranges: &[Range<i64>]) -> Vec<(i64, i64)> {
    ranges.iter().map(|range| (range.start, range.end)).collect()
}

#[tokio::test(start_paused = true)]
async fn compaction_leaves_holes_and_removes_whole_batches() {
    let cluster = in_memory();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    for (sequence, values) in [(0, ["a", "b"]), (2, ["c", "d"]), (4, ["e", "f"])] {
        client.produce(&place, batch(&values).stamp(77, 0, sequence).to_bytes()).await;
    }
    let producer = cluster.new_producer_id();
    cluster.append_in_transaction("wal", 0, (producer, 0), 0, &batch(&["g"])).unwrap();
    cluster.end_transaction("wal", 0, (producer, 0), true).unwrap();

    let offsets = |cluster: &EmbeddedCluster| -> Vec<_> {
        let log = cluster.log("wal", 0).unwrap();
        log.iter().map(|batch| (batch.base_offset(), batch.next_offset(), batch.header().count)).collect()
    };
    cluster.compact_batches("wal", 0, |record| record.offset == 1 || record.offset > 5, |_| true).unwrap();
    // The second batch is gone, and of the producer's last one the header is left. The marker is gone, and
    // nothing is open for it.
    assert_eq!(offsets(&cluster), [(0, 2, 1), (4, 6, 0), (6, 7, 1)]);
    assert!(cluster.open_transactions("wal", 0).unwrap().is_empty());
    let log = cluster.checked_log("wal", 0, value).unwrap();
    assert_eq!((log.offsets, pairs(&log.empty)), (0..8, vec![(0, 1), (2, 6), (7, 8)]));

    // Its producers are forgotten: everything goes, and the end stays.
    cluster.forget_producers("wal", 0).unwrap();
    cluster.compact_batches("wal", 0, |_| false, |_| true).unwrap();
    assert_eq!((offsets(&cluster), cluster.end_offset("wal", 0).unwrap()), (Vec::new(), 8));
    let begun = Instant::now();
    let request = FetchRequest { max_wait_ms: 700, ..fetch(&place, 3) };
    let response = client.call(&request, 18).await.responses[0].partitions[0].clone();
    assert_eq!((response.error_code, response.high_watermark), (ErrorCode::NONE, 8));
    assert!(response.records.unwrap().is_empty());
    assert_eq!(begun.elapsed(), Duration::from_millis(700), "nothing is there to wait for");
    client.produce(&place, batch(&["h"]).to_bytes()).await;
    assert_eq!(offsets(&cluster), [(8, 9, 1)]);
    let log = cluster.checked_log("wal", 0, value).unwrap();
    assert_eq!((pairs(&log.empty), log.records), (vec![(0, 8)], vec![(8, "h".into())]));
}

/// A reader of the replica whose log starts earlier passes what compaction has removed there.
#[tokio::test(start_paused = true)]
async fn the_log_knows_what_compaction_has_removed_from_any_replica() {
    let cluster = EmbeddedCluster::builder().brokers(3).topic("wal", 1).start_in_memory().unwrap();
    let place = Place::of(&cluster, "wal", 0);
    let mut client = Client::connect(&cluster).await;
    for values in [["a", "b"], ["c", "d"], ["e", "f"]] {
        client.produce(&place, batch(&values).to_bytes()).await;
    }
    cluster.set_lag("wal", 0, 3, Duration::from_secs(1_000)).unwrap();
    cluster.delete_records("wal", 0, 4).unwrap();
    cluster.compact_batches("wal", 0, |record| record.offset > 4, |_| true).unwrap();
    let log = cluster.checked_log("wal", 0, value).unwrap();
    assert_eq!((log.offsets, pairs(&log.empty), log.records), (4..6, vec![(0, 5)], vec![(5, "f".into())]));
}

#[tokio::test(start_paused = true)]
async fn a_follower_that_lags_behind_the_log_start_loses_nothing() {
    let builder = EmbeddedCluster::builder().brokers(3).topic("wal", 1).started_at(STARTED_AT).journal(1_000);
    let cluster = builder.start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    cluster.shrink_isr("wal", 0, 3).unwrap();
    cluster.move_leader("wal", 0, 2).unwrap();
    let mut client = Client::connect_to(&cluster, 2).await;
    for values in [["a", "b"], ["c", "d"]] {
        client.produce(&place, batch(&values).to_bytes()).await;
    }
    cluster.delete_records("wal", 0, 3).unwrap();
    cluster.set_lag("wal", 0, 3, Duration::ZERO).unwrap();
    assert_eq!(cluster.in_sync("wal", 0).unwrap().len(), 3);
    assert_eq!(cluster.replica_end_offset(3, "wal", 0).unwrap(), 4);
    let lost = recorder.now().to_string();
    assert!(!lost.contains("truncated") && !lost.contains("unreplicated"), "{lost}");
}

/// Its clients see a log of its own until it hears of the new leader: where that begins, and what is lost of
/// it, also if the log of the new leader begins only after it.
#[tokio::test(start_paused = true)]
async fn what_a_deposed_leader_does_to_its_log_is_recorded() {
    let builder = EmbeddedCluster::builder().brokers(3).topic("wal", 1).started_at(STARTED_AT);
    let cluster = builder.start_in_memory().unwrap();
    let recorder = Recorder::new();
    cluster.record_losses(&recorder);
    let place = Place::of(&cluster, "wal", 0);
    let mut deposed = Client::connect_to(&cluster, 1).await;
    deposed.produce(&place, batch(&["a", "b"]).to_bytes()).await;
    cluster.hold_metadata(1).unwrap();
    cluster.move_leader("wal", 0, 2).unwrap();
    let alone = ProduceRequest { acks: 1, ..produce(&place, batch(&["x", "y"]).to_bytes()) };
    deposed.call(&alone, 13).await;
    let partitions = vec![DeleteRecordsPartition { partition_index: 0, offset: 1 }];
    let topics = vec![DeleteRecordsTopic { name: "wal".to_owned(), partitions }];
    deposed.call(&DeleteRecordsRequest { topics, timeout_ms: 1_000 }, 2).await;
    assert_eq!(recorder.now().to_string(), "0 deleted wal-0 1\n");
    assert_eq!(cluster.start_offset("wal", 0).unwrap(), 0);
    let mut client = Client::connect_to(&cluster, 2).await;
    for values in [["c", "d"], ["e", "f"], ["g", "h"]] {
        client.produce(&place, batch(&values).to_bytes()).await;
    }
    cluster.delete_records("wal", 0, 7).unwrap();
    cluster.release_metadata(1).unwrap();
    let recorded = recorder.now().to_string();
    assert!(recorded.contains("unreplicated wal-0 2") && !recorded.contains("truncated"), "{recorded}");
    assert_eq!(cluster.replica_end_offset(1, "wal", 0).unwrap(), 8);
}

/// What a storm does to a log and its readers.
struct Outcome {
    history: String,
    journal: String,
    report: StormReport,
    verdict: Verdict,
}

/// Runs a storm of everything that happens to logs, over a writer and readers of both isolation levels.
fn storm(seed: u64, lossy: bool) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    runtime.unwrap().block_on(async {
        let builder =
            EmbeddedCluster::builder().brokers(3).seed(seed).started_at(STARTED_AT).journal(100_000);
        let settings = [("min.insync.replicas", "2"), ("cleanup.policy", "compact,delete")];
        let cluster = builder.topic_with("wal", 1, &settings).start_in_memory().unwrap();
        let recorder = Recorder::new();
        cluster.record_losses(&recorder);
        let time = Duration::from_secs(60);
        let until = Instant::now() + time;
        let added = [Hazard::Trim, Hazard::Compaction, Hazard::Transactions, Hazard::Transactions];
        let storm = Storm::new(seed).every(Duration::from_millis(300));
        let mut storm = added.iter().fold(storm, |storm, hazard| storm.with(*hazard));
        if lossy {
            storm = storm.with(Hazard::UncleanElections).with(Hazard::Recreation);
        }
        let (report, (), (), ()) = tokio::join!(
            storm.run(&cluster, time),
            append(&cluster, &recorder, until),
            LogReader::new(&cluster, &recorder, false).work(until),
            LogReader::new(&cluster, &recorder, true).work(until),
        );
        // Delayed requests arrive by now.
        sleep(Duration::from_secs(30)).await;
        for committed in [false, true] {
            let mut reader = LogReader::new(&cluster, &recorder, committed);
            let start = cluster.start_offset("wal", 0).unwrap();
            reader.seek(start);
            assert!(reader.replay().await, "seed {seed}: the whole log is replayed after the storm");
        }
        assert!(cluster.open_transactions("wal", 0).unwrap().is_empty(), "seed {seed}");
        recorder.now().log(cluster.checked_log("wal", 0, value).unwrap());
        let verdict = recorder.now().check(&Expect::default());
        let history = recorder.now().to_string();
        Outcome { history, journal: cluster.journal().to_string(), report: report.unwrap(), verdict }
    })
}

#[test]
fn readers_of_both_isolation_levels_are_right_in_every_storm() {
    let (mut sum, mut all) = (StormReport::default(), Tally::default());
    let mut counts = [0; TEXTS.len()];
    let seeds = std::env::var("KWAL_SIM_SEEDS").map_or(40, |seeds| seeds.parse().unwrap());
    for seed in 0..seeds {
        let Outcome { history, report, verdict, .. } = storm(seed, seed % 2 == 1);
        assert!(verdict.holds(), "seed {seed}: {verdict}");
        sum.add(&report);
        all.acked += verdict.tally().acked;
        all.read += verdict.tally().read;
        for (count, text) in counts.iter_mut().zip(TEXTS) {
            *count += history.lines().filter(|line| text.iter().all(|part| line.contains(part))).count();
        }
    }
    for hazard in [Hazard::Trim, Hazard::Compaction, Hazard::Transactions] {
        assert!(sum.count(hazard) > 100, "{hazard:?}: {sum}");
    }
    assert!(all.acked > 1_000 && all.read > 5_000, "{all}");
    for (count, text) in counts.into_iter().zip(TEXTS) {
        assert!(count > 5, "{count} times {text:?}");
    }
}

/// What happens in the histories of storms.
const TEXTS: [&[&str]; 7] = [
    &[" committed w"],
    &[" aborted w"],
    &[" replayed r"],
    &["read-failed", " trimmed "],
    &["read-failed", " truncated "],
    &["read-failed", " recreated"],
    &[" from=r"],
];

#[test]
fn the_same_seed_is_the_same_history() {
    for seed in [1, 2, 3] {
        let (one, two) = (storm(seed, true), storm(seed, true));
        assert_eq!(one.report, two.report);
        for (first, second) in one.history.lines().zip(two.history.lines()) {
            assert_eq!(first, second, "seed {seed}");
        }
        assert_eq!((one.history, one.journal), (two.history, two.journal), "seed {seed}");
    }
}

fn value(record: &OwnedRecord) -> Value {
    record.value.as_deref().unwrap_or_default().into()
}

fn keyed(value: &str) -> EncodedBatch {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(STARTED_AT, Some(value.as_bytes()), Some(value.as_bytes()), &Headers::new());
    builder.finish().unwrap()
}

/// Returns how many losses are recorded.
fn losses(recorder: &Recorder) -> usize {
    let is_loss = |event: &Event| matches!(event, Event::Truncated { .. } | Event::Recreated { .. });
    recorder.now().events().iter().filter(|(_, event)| is_loss(event)).count()
}

/// Appends record after record, each until it is acknowledged. After a loss, another writer goes on.
async fn append(cluster: &EmbeddedCluster, recorder: &Recorder, until: Instant) {
    let mut client = Sturdy::new(cluster);
    let mut number = 0;
    while Instant::now() < until {
        let producer = cluster.new_producer_id();
        let writer = recorder.now().writer(Writer::new(("wal", 0)));
        let (mut sequence, known) = (0, losses(recorder));
        'writer: while Instant::now() < until {
            if losses(recorder) > known {
                recorder.now().lost(writer);
                break 'writer;
            }
            let value = format!("v{number}");
            number += 1;
            let ticket = recorder.submit(writer, [&value]);
            let batch = keyed(&value).stamp(producer, 0, sequence).to_bytes();
            while Instant::now() < until {
                let answer = client.call(&produce(&Place::of(cluster, "wal", 0), batch.clone()), 13).await;
                let response = answer.as_ref().and_then(|answer| answer.responses.first());
                match response.and_then(|topic| topic.partition_responses.first()) {
                    _ if losses(recorder) > known => {
                        ticket.unknown();
                        continue 'writer;
                    }
                    Some(response) if response.error_code == ErrorCode::NONE => {
                        ticket.acked(response.base_offset);
                        sequence += 1;
                        sleep(Duration::from_millis(100)).await;
                        continue 'writer;
                    }
                    _ => client.give_up().await,
                }
            }
            ticket.unknown();
        }
    }
}

/// Reads one partition from a position, and replays it now and then.
struct LogReader<'a> {
    cluster: &'a EmbeddedCluster,
    recorder: &'a Recorder,
    client: Sturdy<'a>,
    place: Place,
    id: ReaderId,
    isolation: IsolationLevel,
    offset: i64,
    epoch: i32,
}

impl<'a> LogReader<'a> {
    fn new(cluster: &'a EmbeddedCluster, recorder: &'a Recorder, committed: bool) -> Self {
        let reader = Reader::new(("wal", 0), 0);
        let id = recorder.now().reader(if committed { reader.committed() } else { reader });
        let isolation = match committed {
            true => IsolationLevel::READ_COMMITTED,
            false => IsolationLevel::READ_UNCOMMITTED,
        };
        let place = Place::of(cluster, "wal", 0);
        Self { cluster, recorder, client: Sturdy::new(cluster), place, id, isolation, offset: 0, epoch: -1 }
    }

    async fn work(mut self, until: Instant) {
        let mut round = 0_u32;
        while Instant::now() < until {
            round += 1;
            match round % 10 {
                0 => drop(self.replay().await),
                // Another process goes on at the position.
                5 => {
                    let reader = Reader::new(("wal", 0), self.offset).resumes(self.id);
                    let committed = self.isolation == IsolationLevel::READ_COMMITTED;
                    let reader = if committed { reader.committed() } else { reader };
                    self.id = self.recorder.now().reader(reader);
                }
                _ => drop(self.read().await),
            }
            sleep(Duration::from_millis(150)).await;
        }
    }

    fn seek(&mut self, offset: i64) {
        (self.offset, self.epoch) = (offset, -1);
        self.recorder.now().seek(self.id, offset);
    }

    fn failed(&self, failure: ReadFailure) {
        self.recorder.now().read_failed(self.id, failure);
    }

    /// Fetches once; returns the number of records, `None` after an error.
    async fn read(&mut self) -> Option<u64> {
        let mut request = FetchRequest { isolation_level: self.isolation, ..fetch(&self.place, self.offset) };
        request.topics[0].partitions[0].last_fetched_epoch = self.epoch;
        request.topics[0].partitions[0].partition_max_bytes = 600;
        let answer = self.client.call(&request, 18).await;
        let partition = answer.and_then(|answer| Some(answer.responses.first()?.partitions.first()?.clone()));
        let Some(response) = partition else {
            self.failed(ReadFailure::Other);
            self.client.give_up().await;
            return None;
        };
        match response.error_code {
            ErrorCode::NONE if response.diverging_epoch.epoch >= 0 => {
                let (end, epoch) = (response.diverging_epoch.end_offset, response.diverging_epoch.epoch);
                let diverged_at = end.min(self.offset);
                self.failed(ReadFailure::Truncated { diverged_at });
                (self.offset, self.epoch) = (diverged_at, epoch);
            }
            ErrorCode::NONE => return Some(self.take(&response)),
            ErrorCode::OFFSET_OUT_OF_RANGE => self.out_of_range(),
            ErrorCode::UNKNOWN_TOPIC_ID if self.cluster.topic_id("wal") != Some(self.place.id) => {
                self.failed(ReadFailure::Recreated);
                self.place = Place::of(self.cluster, "wal", 0);
                self.seek(0);
            }
            _ => {
                self.failed(ReadFailure::Other);
                self.client.give_up().await;
            }
        }
        None
    }

    fn out_of_range(&mut self) {
        let start = self.cluster.start_offset("wal", 0).unwrap();
        let end = self.cluster.high_watermark("wal", 0).unwrap();
        match self.offset {
            offset if offset < start => {
                self.failed(ReadFailure::Trimmed { log_start: start });
                (self.offset, self.epoch) = (start, -1);
            }
            offset if offset > end => {
                self.failed(ReadFailure::BeyondEnd { end });
                self.seek(end);
            }
            _ => self.failed(ReadFailure::Other),
        }
    }

    /// Takes the records that a reader of this isolation level gets; returns how many.
    fn take(&mut self, response: &FetchPartitionResponse) -> u64 {
        let mut aborted: BTreeMap<i64, Vec<i64>> = BTreeMap::new();
        for one in response.aborted_transactions.iter().flatten() {
            aborted.entry(one.producer_id).or_default().push(one.first_offset);
        }
        aborted.values_mut().for_each(|offsets| offsets.sort_unstable_by(|a, b| b.cmp(a)));
        let mut ongoing = Vec::new();
        let mut records = Vec::new();
        let from = self.offset;
        for batch in Batches::new(response.records.clone().unwrap_or_default()) {
            let batch = batch.unwrap();
            let header = *batch.header();
            (self.offset, self.epoch) = (batch.next_offset(), header.partition_leader_epoch);
            let offsets = aborted.get_mut(&header.producer_id);
            if let Some(offsets) = offsets
                && offsets.last().is_some_and(|first| *first <= header.last_offset())
            {
                offsets.pop();
                ongoing.push(header.producer_id);
            }
            if let Ok(Some(ControlRecord::EndTransaction(_))) = batch.control() {
                ongoing.retain(|producer| *producer != header.producer_id);
                continue;
            }
            if header.is_transactional() && ongoing.contains(&header.producer_id) {
                continue;
            }
            for record in batch.records(1 << 20).unwrap() {
                let record = record.unwrap();
                if record.offset >= from {
                    records.push((record.offset, value(&record)));
                }
            }
        }
        let count = records.len() as u64;
        self.recorder.now().read(self.id, records, self.offset);
        count
    }

    /// Replays from the position to the end; returns whether it got there.
    async fn replay(&mut self) -> bool {
        let begun = Instant::now();
        let Some(end) = self.client.end(&self.place, self.isolation).await else { return false };
        let (from, mut count) = (self.offset, 0);
        self.recorder.now().replay(self.id, end);
        while self.offset < end {
            let before = self.offset;
            let Some(records) = self.read().await else { return false };
            if self.offset == before {
                // No batch is left before the end, or the leader does not know yet what is committed.
                if begun.elapsed() > Duration::from_secs(5)
                    && self
                        .cluster
                        .log("wal", 0)
                        .is_ok_and(|log| log.last().is_none_or(|last| last.next_offset() <= before))
                {
                    self.offset = end;
                    break;
                }
                if begun.elapsed() > Duration::from_secs(10) {
                    return false;
                }
                sleep(Duration::from_millis(200)).await;
            }
            count += records;
        }
        if self.offset == end {
            self.recorder.now().read(self.id, [] as [(i64, Value); 0], end);
        }
        self.recorder.now().replayed(self.id, Covered::new(from..self.offset.max(from), count));
        true
    }
}
