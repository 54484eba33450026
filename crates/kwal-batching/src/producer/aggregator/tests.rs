//! Inputs of any sequence of records and packed parts, which fail, panic or do not fit.

use std::panic::{AssertUnwindSafe, catch_unwind};

use proptest::prelude::*;

use super::*;
use crate::producer::fixture::{partition, values};

/// What an aggregator does with its sink.
#[derive(Clone, Copy, Debug)]
enum Step {
    /// A record with a value of so many bytes, this long after the epoch.
    Push(usize, i64),
    /// One that no broker takes: the input fails.
    PushInvalid,
    Pack(usize),
    EndPacked,
}

/// What becomes of an input then.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum End {
    Succeeds,
    Fails,
    Panics,
    DoesNotFit,
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        3 => (0..300_usize, 0..2_000_000_000_000_i64).prop_map(|(bytes, ms)| Step::Push(bytes, ms)),
        1 => Just(Step::PushInvalid),
        3 => (0..100_usize).prop_map(Step::Pack),
        1 => Just(Step::EndPacked),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        3 => Just(End::Succeeds),
        1 => Just(End::Fails),
        1 => Just(End::Panics),
        1 => Just(End::DoesNotFit),
    ]
}

/// The records of a batch, built by hand.
#[derive(Clone, Debug, Default)]
struct Model {
    records: Vec<Vec<u8>>,
    packed: Option<Vec<u8>>,
}

impl Model {
    fn end_packed(&mut self) {
        self.records.extend(self.packed.take());
    }

    /// Returns the records that the input is in.
    fn add(&mut self, input: u8, steps: &[Step]) -> Option<Range<u32>> {
        let mut indices = Vec::new();
        for step in steps {
            match *step {
                Step::Push(bytes, _) => {
                    self.end_packed();
                    indices.push(self.records.len() as u32);
                    self.records.push(vec![input; bytes]);
                }
                Step::PushInvalid => return None,
                Step::Pack(bytes) => {
                    indices.push(self.records.len() as u32);
                    self.packed.get_or_insert_default().resize_with_value(bytes, input);
                }
                Step::EndPacked => self.end_packed(),
            }
        }
        Some(*indices.first()?..indices.last()? + 1)
    }
}

trait Extend {
    fn resize_with_value(&mut self, more: usize, value: u8);
}

impl Extend for Vec<u8> {
    fn resize_with_value(&mut self, more: usize, value: u8) {
        self.resize(self.len() + more, value);
    }
}

fn add(contents: &mut Contents, input: u8, steps: &[Step], end: End) -> Option<Range<u32>> {
    let run = |sink: &mut Sink<'_>| {
        for step in steps {
            match *step {
                Step::Push(bytes, ms) => {
                    let mut record = Record::new(None::<&str>, vec![input; bytes]);
                    record.timestamp = OffsetDateTime::from_unix_timestamp(ms / 1_000)?;
                    sink.push(&record)?;
                }
                Step::PushInvalid => {
                    let mut record = Record::new(None::<&str>, "before 1970");
                    record.timestamp = OffsetDateTime::from_unix_timestamp(-1)?;
                    sink.push(&record)?;
                }
                Step::Pack(bytes) => sink.packed().resize_with_value(bytes, input),
                Step::EndPacked => sink.end_packed(),
            }
        }
        match end {
            End::Fails => Err("it fails".into()),
            End::Panics => std::panic::resume_unwind(Box::new("it panics")),
            End::Succeeds | End::DoesNotFit => Ok(input),
        }
    };
    let added = catch_unwind(AssertUnwindSafe(|| contents.add(partition(), run, |_| end != End::DoesNotFit)));
    let is_invalid = steps.iter().any(|step| matches!(step, Step::PushInvalid));
    assert_eq!(added.is_err(), end == End::Panics && !is_invalid);
    let added = added.ok()?;
    match added {
        Ok(Added::Here { records, tag }) => {
            assert_eq!((tag, end), (input, End::Succeeds));
            Some(records)
        }
        Ok(Added::Full) => {
            assert_eq!(end, End::DoesNotFit);
            None
        }
        Err(_) => None,
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn inputs_that_are_not_accepted_leave_no_trace(
        inputs in prop::collection::vec((prop::collection::vec(step(), 0..5), end()), 1..12),
    ) {
        let mut contents = Contents::new(partition().batch_builder(0));
        let mut model = Model::default();
        for (input, (steps, end)) in inputs.iter().enumerate() {
            let input = input as u8;
            let before = format!("{contents:?}");
            let mut accepted = model.clone();
            let expected = accepted.add(input, steps).filter(|_| *end == End::Succeeds);
            let records = add(&mut contents, input, steps, *end);
            prop_assert_eq!(&records, &expected);
            match records {
                Some(_) => model = accepted,
                // Lengths, times and the count of the builder too.
                None => prop_assert_eq!(format!("{contents:?}"), before),
            }
            let len = model.records.len() + usize::from(model.packed.is_some());
            prop_assert_eq!((contents.len(), contents.is_packing()), (len, model.packed.is_some()));
        }
        model.end_packed();
        if !model.records.is_empty() {
            let size = contents.size();
            let batch = partition().finish(contents.into_builder()).unwrap();
            prop_assert!(batch.size_in_bytes() <= size);
            prop_assert_eq!(values(&batch), model.records);
        }
    }
}

/// The bytes are those of a batch that never had them.
#[test]
fn a_batch_is_the_same_with_and_without_inputs_that_failed() {
    let steps = [Step::Push(100, 1_700_000_000_123), Step::Push(0, 1_600_000_000_000)];
    let other = [Step::Push(5, 5), Step::Pack(10), Step::EndPacked, Step::Push(9, 1_900_000_000_000)];
    for end in [End::Fails, End::Panics, End::DoesNotFit] {
        let [with, without] = [true, false].map(|is_added| {
            let mut contents = Contents::new(partition().batch_builder(0));
            for input in 0..3 {
                if is_added {
                    assert_eq!(add(&mut contents, 9, &other, end), None);
                }
                assert_eq!(add(&mut contents, input, &steps, End::Succeeds).unwrap().len(), 2);
            }
            if is_added {
                add(&mut contents, 9, &other, end);
            }
            partition().finish(contents.into_builder()).unwrap().to_bytes()
        });
        assert_eq!(with, without, "{end:?}");
    }
}

/// What earlier inputs packed is completed by one that fails, and is there again.
#[test]
fn a_packed_record_is_restored_with_its_time() {
    let mut contents = Contents::new(partition().batch_builder(0));
    add(&mut contents, 1, &[Step::Pack(10)], End::Succeeds).unwrap();
    let Some(packed) = &mut contents.packed else { panic!("it is packed") };
    packed.timestamp_ms = 1_234;
    for steps in [&[Step::Pack(5)][..], &[Step::Pack(5), Step::EndPacked, Step::Pack(7), Step::EndPacked]] {
        assert_eq!(add(&mut contents, 2, steps, End::Fails), None);
    }
    assert_eq!(add(&mut contents, 3, &[Step::Pack(1), Step::Push(1, 99_000)], End::Succeeds), Some(0..2));
    let batch = partition().finish(contents.into_builder()).unwrap();
    assert_eq!(values(&batch), [[vec![1; 10], vec![3]].concat(), vec![3]]);
    assert_eq!((batch.header().base_timestamp, batch.max_timestamp()), (1_234, 99_000));
}

#[test]
fn an_input_needs_a_record() {
    let mut contents = Contents::new(partition().batch_builder(0));
    let error = contents.add(partition(), |_| Ok(()), |_| true).unwrap_err();
    assert!(error.to_string().contains("no record"), "{error}");
    assert_eq!(contents.len(), 0);
}

proptest! {
    #[test]
    fn the_size_of_a_record_is_at_most_its_hint(
        key in prop::option::of(0..300_usize),
        value in prop::option::of(0..20_000_usize),
        headers in prop::collection::vec((0..200_usize, prop::option::of(0..200_usize)), 0..4),
        ms in 0..4_000_000_000_000_i64,
    ) {
        let mut record = Record::new(key.map(|len| vec![b'k'; len]), vec![b'v'; value.unwrap_or_default()]);
        if value.is_none() {
            record.value = None;
        }
        for (name, value) in headers {
            record.headers.push("n".repeat(name), value.map(|len| vec![b'h'; len]));
        }
        record.timestamp = OffsetDateTime::from_unix_timestamp(ms / 1_000).unwrap();
        let mut contents = Contents::new(partition().batch_builder(0));
        let before = contents.size();
        contents.add(partition(), |sink| Records.add(&record, sink), |_| true).unwrap();
        prop_assert!(contents.size() - before <= Records.size_hint(&record));
    }
}
