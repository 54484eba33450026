//! The accumulator against a model: callers, a driver that sleeps, and batches that end.

use kwal_client::record::Record;
use kwal_protocol::record::Compression;
use proptest::prelude::*;

use super::*;
use crate::producer::{
    aggregator::{Added, Aggregator, Records},
    fixture::{partition, values},
};

#[derive(Clone, Copy, Debug)]
enum Op {
    /// A caller adds an input with a value of so many bytes, and sends what is due.
    Add(usize),
    /// A caller adds one whose value is to be packed.
    Pack(usize),
    /// The batch that is taken is submitted, in so many parts.
    Submit(usize),
    /// A part in flight ends, and whether it is on the log.
    End(usize, bool),
    /// The driver runs, if it was woken or its time has come.
    Drive,
    Flush,
    Advance(u64),
    TakeAll,
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        6 => (0..120_usize).prop_map(Op::Add),
        1 => (100..1_500_usize).prop_map(Op::Add),
        2 => (0..50_usize).prop_map(Op::Pack),
        3 => (1..4_usize).prop_map(Op::Submit),
        3 => (0..6_usize, prop::bool::weighted(0.7)).prop_map(|(index, is_appended)| Op::End(index, is_appended)),
        4 => Just(Op::Drive),
        1 => Just(Op::Flush),
        2 => (0..8_u64).prop_map(Op::Advance),
        1 => Just(Op::TakeAll),
    ]
}

fn limits() -> impl Strategy<Value = Limits> {
    let linger = prop_oneof![Just(0), Just(5), Just(u64::MAX)];
    (1..8_usize, 200..1_200_usize, 0..2_usize, linger, 1..6_usize).prop_flat_map(
        |(records, bytes, smaller, linger, most_in_flight)| {
            (1..=most_in_flight).prop_map(move |window| Limits {
                records,
                bytes,
                uncompressed: bytes * 2 / (1 + smaller * 3),
                linger: Duration::from_millis(linger),
                window,
                most_in_flight,
            })
        },
    )
}

/// Whether something is to be sent by now. Says so without the accumulator.
#[derive(Debug)]
struct Model {
    accumulator: Accumulator<Vec<u64>>,
    limits: Limits,
    now: Instant,
    /// The inputs that were accepted, and those that went out.
    accepted: u64,
    out: Vec<u64>,
    taken: Option<(Taker, u64)>,
    /// The inputs of the batches that the parts in flight are of.
    in_flight: Vec<u64>,
    /// The number of the first batch that is not flushed.
    flushed: u64,
    driver: Driver,
}

/// The task that sends what has gathered.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Driver {
    /// Until it is woken, or until then.
    Sleeps(Option<Instant>),
    Woken,
    /// It encodes a batch.
    Encodes,
}

impl Model {
    fn new(limits: Limits) -> Self {
        Self {
            accumulator: Accumulator::new(limits),
            limits,
            now: tokio::time::Instant::now().into_std(),
            accepted: 0,
            out: Vec::new(),
            taken: None,
            in_flight: Vec::new(),
            flushed: 0,
            driver: Driver::Sleeps(None),
        }
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::Add(bytes) => self.add(bytes, false),
            Op::Pack(bytes) => self.add(bytes, true),
            Op::Submit(parts) => self.submit(parts),
            Op::End(index, is_appended) => self.end(index, is_appended),
            Op::Drive => self.drive(),
            Op::Flush => {
                let left = self.accumulator.flush().map(|batch| batch.payload.len() as u64).sum::<u64>();
                assert_eq!(left, self.accumulator.waiting());
                self.flushed = self.accumulator.next;
                self.wake();
            }
            Op::Advance(millis) => self.now += Duration::from_millis(millis),
            Op::TakeAll => {
                for batch in self.accumulator.take_all() {
                    self.check(&batch);
                    self.out.extend(batch.payload);
                }
                assert!(self.accumulator.is_empty());
            }
        }
        self.check_all();
    }

    fn wake(&mut self) {
        if self.driver != Driver::Encodes {
            self.driver = Driver::Woken;
        }
    }

    /// As a caller does it, with all the memory that it takes.
    fn add(&mut self, bytes: usize, is_packed: bool) {
        let record = Record::new(None::<&str>, vec![b'x'; bytes]);
        loop {
            let fits = self.accumulator.fits();
            let Some(batch) = self.accumulator.open_batch() else {
                let contents = Contents::new(partition().batch_builder(0));
                self.accumulator.open(self.now, contents, Vec::new());
                continue;
            };
            let is_first = batch.inputs == 0;
            let added = batch.contents.add(
                partition(),
                |sink| match is_packed {
                    true => {
                        sink.packed().extend_from_slice(&vec![b'x'; bytes]);
                        Ok(())
                    }
                    false => Records.add(&record, sink),
                },
                |contents| is_first || fits.check(contents),
            );
            match added.unwrap() {
                Added::Here { .. } => {
                    batch.inputs += 1;
                    batch.payload.push(self.accepted);
                    if fits.is_full(&batch.contents) {
                        self.accumulator.close_open();
                    }
                    break;
                }
                Added::Full => {
                    assert!(!is_first);
                    self.accumulator.close_open();
                }
            }
        }
        self.accepted += 1;
        let is_idle = self.in_flight.is_empty() && self.taken.is_none() && !self.accumulator.are_returning();
        let is_taken = self.take(Taker::Caller);
        if is_idle && self.limits.linger.is_zero() {
            assert!(is_taken, "an idle log gets it at once");
        }
        if !is_taken && self.accumulator.has_begun_to_linger() {
            self.wake();
        }
    }

    fn take(&mut self, taker: Taker) -> bool {
        let (now, is_full) = (self.now, !self.accumulator.full.is_empty());
        let most = if is_full { self.limits.most_in_flight } else { self.limits.window };
        let is_early = if is_full { self.accumulator.have_failed } else { self.accumulator.are_returning() };
        let is_due = self.is_due() && (taker == Taker::Driver || !is_early);
        let Some(batch) = self.accumulator.take(|| now, taker) else {
            assert!(!is_due, "it is due, and stays");
            return false;
        };
        assert!(is_due, "it is not due");
        assert!(self.taken.is_none(), "two are taken");
        assert!(self.in_flight.len() < most);
        self.check(&batch);
        self.taken = Some((taker, batch.inputs));
        self.out.extend(batch.payload);
        true
    }

    /// Whether a batch is to be sent, by what the limits say.
    fn is_due(&self) -> bool {
        let Accumulator { open, full, .. } = &self.accumulator;
        let open = open.as_ref().filter(|open| open.inputs > 0);
        let is_open_due = open.is_some_and(|open| {
            let is_over = self.now.duration_since(open.opened) >= self.limits.linger.min(YEARS);
            self.in_flight.len() < self.limits.window && (is_over || open.number < self.flushed)
        });
        let is_full_due = !full.is_empty() && self.in_flight.len() < self.limits.most_in_flight;
        self.taken.is_none() && (is_full_due || full.is_empty() && is_open_due)
    }

    fn check(&self, batch: &Batch<Vec<u64>>) {
        let Batch { contents, inputs, payload, .. } = batch;
        assert_eq!((*inputs, *inputs > 0), (payload.len() as u64, true));
        let Limits { records, bytes, uncompressed, .. } = self.limits;
        // One that does not fit goes alone.
        if *inputs > 1 {
            assert!(contents.len() <= records, "{} records", contents.len());
            assert!(contents.size() <= bytes.min(uncompressed), "{} bytes", contents.size());
        }
    }

    fn submit(&mut self, parts: usize) {
        let Some((taker, inputs)) = self.taken.take() else { return };
        self.accumulator.split(parts);
        self.in_flight.extend(vec![inputs; parts]);
        self.accumulator.submitted();
        match taker {
            Taker::Driver => self.driver = Driver::Woken,
            Taker::Caller => self.check_driver(),
        }
    }

    fn end(&mut self, index: usize, is_appended: bool) {
        if index >= self.in_flight.len() {
            return;
        }
        let inputs = self.in_flight.swap_remove(index);
        self.accumulator.ended(inputs, is_appended);
        self.check_driver();
    }

    fn check_driver(&mut self) {
        if self.accumulator.is_driver_needed() || self.accumulator.poll_timeout().is_some() {
            self.wake();
        }
    }

    fn drive(&mut self) {
        match self.driver {
            Driver::Encodes => return,
            Driver::Sleeps(None) => return,
            Driver::Sleeps(Some(until)) if self.now < until => return,
            Driver::Sleeps(Some(_)) | Driver::Woken => {}
        }
        // It ends, so the driver never spins.
        for _ in 0..10 {
            let is_needed = self.accumulator.is_driver_needed();
            let until = self.accumulator.poll_timeout();
            if !is_needed && until.is_none_or(|until| self.now < until) {
                self.driver = Driver::Sleeps(until);
                return;
            }
            if self.accumulator.are_returning() && !self.accumulator.have_returned() {
                continue;
            }
            if self.take(Taker::Driver) {
                self.driver = Driver::Encodes;
                return;
            }
        }
        panic!("the driver spins");
    }

    fn check_all(&self) {
        assert_eq!(self.accumulator.is_taken(), self.taken.is_some());
        let in_flight = self.in_flight.len() + usize::from(self.taken.is_some());
        assert_eq!(self.accumulator.in_flight(), in_flight);
        assert_eq!(self.accumulator.waiting() + self.out.len() as u64, self.accepted);
        // Nothing is due while everybody sleeps.
        if let Driver::Sleeps(until) = self.driver
            && until.is_none_or(|until| self.now < until)
        {
            assert!(!self.is_due(), "nobody sends it");
            assert!(
                self.taken.is_some() || !self.accumulator.are_returning(),
                "nobody sends what comes back"
            );
        }
    }

    /// Lets everything go.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            if self.accumulator.is_empty() && self.taken.is_none() && self.in_flight.is_empty() {
                return;
            }
            self.run(Op::Submit(1));
            self.run(Op::End(0, true));
            self.run(Op::Drive);
            if let Driver::Sleeps(Some(until)) = self.driver {
                self.now = self.now.max(until);
            }
        }
        panic!("something stays: {self:?}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(300))]

    #[test]
    fn every_input_comes_out_once_and_in_order_when_it_is_due(
        limits in limits(),
        ops in prop::collection::vec(op(), 0..80),
    ) {
        let mut model = Model::new(limits);
        for op in ops {
            model.run(op);
        }
        model.finish();
        prop_assert_eq!(model.out, (0..model.accepted).collect::<Vec<_>>());
    }

    #[test]
    fn the_ratio_of_compression_is_never_below_what_was_seen_last(
        seen in prop::collection::vec((1..100_000_usize, 0..110_000_usize), 1..20),
    ) {
        let mut ratio = Ratio::ONE;
        for (uncompressed, wire) in seen {
            let wire = wire.min(uncompressed + uncompressed / 20);
            ratio.learn(uncompressed, wire);
            prop_assert!(ratio.of(uncompressed) >= wire, "{ratio:?}");
            prop_assert!(ratio.of(usize::MAX) > 0);
        }
        // It becomes what is seen all the time.
        for _ in 0..60 {
            ratio.learn(10_000, 1_000);
        }
        prop_assert!((1_000..=1_100).contains(&ratio.of(10_000)), "{ratio:?}");
    }
}

/// The size of what has gathered is that of the batch on the wire, headers and varints included.
#[test]
fn the_size_is_exact() {
    let partition = partition();
    assert_eq!(partition.compression(), Compression::None);
    let mut contents = Contents::new(partition.batch_builder(0));
    for bytes in [0, 1, 50, 63, 64, 127, 128, 8_191, 8_192, 20_000] {
        let record =
            Record::new(Some(vec![b'k'; bytes / 3]), vec![b'v'; bytes]).header("name", vec![1; bytes]);
        let before = contents.size();
        let added = contents.add(partition, |sink| Records.add(&record, sink), |_| true).unwrap();
        assert!(matches!(added, Added::Here { .. }));
        assert!(contents.size() - before <= Records.size_hint(&record));
    }
    let (size, records) = (contents.size(), contents.len());
    let batch = partition.finish(contents.into_builder()).unwrap();
    assert_eq!((batch.size_in_bytes(), batch.record_count()), (size, records));
    assert_eq!(values(&batch).len(), records);
}

/// A record that is being packed counts for the most that it can take.
#[test]
fn the_size_is_an_upper_bound_while_a_record_is_packed() {
    let partition = partition();
    for bytes in [0, 1, 63, 64, 8_191, 8_192, 100_000] {
        let mut contents = Contents::new(partition.batch_builder(0));
        let pack = |sink: &mut crate::producer::Sink<'_>| {
            sink.packed().resize(bytes, b'x');
            Ok(())
        };
        contents.add(partition, pack, |_| true).unwrap();
        let most = contents.size();
        let size = partition.finish(contents.into_builder()).unwrap().size_in_bytes();
        assert!(size <= most && most <= size + 36, "{size} bytes, at most {most}");
    }
}

#[test]
fn a_linger_that_no_clock_shows_does_not_end() {
    let limits = Limits {
        records: 10,
        bytes: 1_000,
        uncompressed: 1_000,
        linger: Duration::MAX,
        window: 1,
        most_in_flight: 5,
    };
    let mut model = Model::new(limits);
    model.run(Op::Add(1));
    model.run(Op::Advance(1_000_000_000));
    model.run(Op::Drive);
    assert!(model.taken.is_none());
    model.run(Op::Flush);
    model.run(Op::Drive);
    assert!(model.taken.is_some());
}
