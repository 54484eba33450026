//! Which batches are appended, and which are rejected.

use bytes::Bytes;
use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::ProduceRequest,
    record::{BatchBuilder, BatchHeader, Compression, EncodedBatch, Headers, TimestampType, crc},
};
use kwal_testkit::{EmbeddedCluster, Error};

use crate::client::{
    CODEC, Client, Place, STARTED_AT, batch, both, codecs, compressed, in_memory, outcome, produce, values,
};

/// What real brokers do, on one partition.
#[tokio::test]
async fn sequences_and_epochs() {
    for broker in both().await {
        let place = Place::of(&broker, "wal", 0);
        let mut client = Client::connect(&broker).await;
        let mut append = async |text: &str, batch: EncodedBatch| {
            let answer = client.produce(&place, batch.to_bytes()).await;
            println!("{text}: {answer:?}");
            outcome(&answer)
        };
        let one = |value: &str| batch(&[value]);
        let (out_of_order, fenced) =
            (Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER), Err(ErrorCode::INVALID_PRODUCER_EPOCH));
        let (a, b) = (4000, 0);
        assert_eq!(append("a new id", one("0").stamp(a, b, 0)).await, Ok(0));
        assert_eq!(append("the next", one("1").stamp(a, b, 1)).await, Ok(1));
        assert_eq!(append("the same again", one("1").stamp(a, b, 1)).await, Ok(1));
        assert_eq!(append("the same, other content", one("x").stamp(a, b, 1)).await, Ok(1));
        assert_eq!(append("a gap", one("x").stamp(a, b, 3)).await, out_of_order);
        assert_eq!(append("without id", one("2")).await, Ok(2));
        assert_eq!(append("epoch 1, the barrier", one("3").stamp(a, 1, 0)).await, Ok(3));
        assert_eq!(append("epoch 0 goes on", one("x").stamp(a, 0, 2)).await, fenced);
        assert_eq!(append("epoch 0 again", one("1").stamp(a, 0, 1)).await, fenced);
        assert_eq!(append("epoch 1, another's", one("x").stamp(a, 1, 0)).await, Ok(3));
        assert_eq!(append("epoch 2, not at 0", one("x").stamp(a, 2, 1)).await, out_of_order);
        for sequence in 1..6 {
            let offset = append("on", one("n").stamp(a, 1, sequence)).await;
            assert_eq!(offset, Ok(i64::from(3 + sequence)));
        }
        assert_eq!(append("five back", one("n").stamp(a, 1, 1)).await, Ok(4));
        assert_eq!(append("six back", one("3").stamp(a, 1, 0)).await, out_of_order);
        assert_eq!(append("an unknown id, anywhere", one("9").stamp(5000, 7, 99)).await, Ok(9));
        broker.delete_records("wal", 0, 10).unwrap();
        assert_eq!(append("after all was deleted", one("x").stamp(a, 0, 2)).await, fenced);
        broker.forget_producer("wal", 0, a).unwrap();
        assert_eq!(append("after it was forgotten", one("10").stamp(a, 0, 2)).await, Ok(10));
        assert_eq!(values(&broker, &place), ["10"]);
    }
}

#[tokio::test]
async fn two_in_flight_on_a_new_id_and_the_first_rejected() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    broker.on(ApiKey::PRODUCE, kwal_testkit::Fault::Error(ErrorCode::NOT_ENOUGH_REPLICAS));
    let first = batch(&["first"]).stamp(1, 0, 0).to_bytes();
    assert_eq!(outcome(&client.produce(&place, first.clone()).await), Err(ErrorCode::NOT_ENOUGH_REPLICAS));
    let second = batch(&["second"]).stamp(1, 0, 1).to_bytes();
    assert_eq!(outcome(&client.produce(&place, second).await), Ok(0), "this is why one must wait");
    let lost = client.produce(&place, first).await;
    assert_eq!(outcome(&lost), Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER));
}

#[tokio::test]
async fn producer_state_is_kept_by_partition() {
    let broker = in_memory();
    let mut client = Client::connect(&broker).await;
    for partition in 0..2 {
        let place = Place::of(&broker, "wal", partition);
        let answer = client.produce(&place, batch(&["a"]).stamp(1, 0, 0).to_bytes()).await;
        assert_eq!(outcome(&answer), Ok(0));
    }
}

#[tokio::test]
async fn sequences_count_records_and_wrap() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let three = batch(&["a", "b", "c"]);
    for (sequence, expected) in [
        (i32::MAX - 1, Ok(0)),
        (1, Ok(3)),
        (4, Ok(6)),
        (i32::MAX - 1, Ok(0)),
        (6, Err(ErrorCode::OUT_OF_ORDER_SEQUENCE_NUMBER)),
    ] {
        let answer = client.produce(&place, three.stamp(1, 0, sequence).to_bytes()).await;
        assert_eq!(outcome(&answer), expected, "sequence {sequence}");
    }
}

/// Encodes a batch whose header does not match its records, but whose checksum is right.
fn forged(values: &[&str], forge: impl FnOnce(&mut BatchHeader)) -> Bytes {
    resummed(&batch(values).to_bytes(), forge)
}

fn resummed(batch: &[u8], forge: impl FnOnce(&mut BatchHeader)) -> Bytes {
    let mut header = BatchHeader::parse(batch).unwrap();
    forge(&mut header);
    let mut bytes = [&header.to_bytes(), &batch[BatchHeader::LEN..]].concat();
    header.crc = crc::checksum(&bytes[21..]);
    bytes[..BatchHeader::LEN].copy_from_slice(&header.to_bytes());
    bytes.into()
}

#[tokio::test]
async fn invalid_batches_are_rejected() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    let good = batch(&["a", "b"]).to_bytes();
    let mut flipped = good.to_vec();
    *flipped.last_mut().unwrap() ^= 1;
    let mut slack = good.to_vec();
    slack.extend([0; 5]);
    let slack = resummed(&slack, |header| header.batch_length += 5);
    let magic_1 = resummed(&good, |header| header.magic = 1);
    let whole = compressed(CODEC, &["a", "b"]).to_bytes();
    let short = resummed(&whole[..whole.len() - 9], |header| header.batch_length -= 9);
    let (invalid, corrupt) = (ErrorCode::INVALID_RECORD, ErrorCode::CORRUPT_MESSAGE);
    let stumbles = ErrorCode::UNKNOWN_SERVER_ERROR;
    let cases = [
        ("nothing", Bytes::new(), invalid),
        ("a torn batch", good.slice(..good.len() - 1), invalid),
        ("two batches", [&good[..], &good[..]].concat().into(), invalid),
        ("a flipped bit", flipped.into(), corrupt),
        ("another magic", magic_1, invalid),
        ("a length of nothing", forged(&["a"], |header| header.batch_length = 3), corrupt),
        ("a base offset", forged(&["a"], |header| header.base_offset = 1), invalid),
        ("more records than offsets", forged(&["a", "b"], |header| header.last_offset_delta = 0), invalid),
        ("fewer records than offsets", forged(&["a", "b"], |header| header.last_offset_delta = 7), invalid),
        ("no record", forged(&["a"], |header| (header.count, header.last_offset_delta) = (0, -1)), invalid),
        (
            "fewer records than the header says",
            forged(&["a"], |h| (h.count, h.last_offset_delta) = (2, 1)),
            invalid,
        ),
        (
            "more records than the header says",
            forged(&["a", "b"], |h| (h.count, h.last_offset_delta) = (1, 0)),
            invalid,
        ),
        ("bytes left over", slack, invalid),
        ("bytes missing", short, if CODEC == Compression::None { invalid } else { stumbles }),
        ("an unknown codec", forged(&["a"], |header| header.attributes |= 7), stumbles),
        ("a control batch", forged(&["a"], |header| header.attributes |= BatchHeader::CONTROL), invalid),
        ("an id and no sequence", batch(&["a"]).stamp(1, 0, -1).to_bytes(), invalid),
        (
            "a transaction",
            batch(&["a"]).with_transactional(true).to_bytes(),
            ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED,
        ),
        (
            "a time too late",
            forged(&["a"], |header| header.base_timestamp = STARTED_AT * 2),
            ErrorCode::INVALID_TIMESTAMP,
        ),
    ];
    for (title, records, code) in cases {
        let answer = client.produce(&place, records).await;
        assert_eq!(outcome(&answer), Err(code), "{title}");
        assert_eq!(answer.base_offset, -1, "{title}");
        assert!(answer.error_message.is_some_and(|message| !message.is_empty()), "{title}");
    }
    let mut absent = produce(&place, Bytes::new());
    absent.topic_data[0].partition_data[0].records = None;
    client.send(&absent, 13).await;
    assert!(client.receive_frame().await.is_none(), "null");
    let mut client = Client::connect(&broker).await;
    let mut named = produce(&place, batch(&["a"]).with_transactional(true).stamp(1, 0, 0).to_bytes());
    named.transactional_id = Some("name".to_owned());
    let answer = client.call(&named, 11).await;
    assert_eq!(answer.responses[0].partition_responses[0].error_code, ErrorCode::TRANSACTION_ABORTABLE);
    let zstd = forged(&["a"], |header| header.attributes |= 4);
    let answer = client.call(&produce(&place, zstd.clone()), 6).await;
    let code = answer.responses[0].partition_responses[0].error_code;
    assert_eq!(code, ErrorCode::UNSUPPORTED_COMPRESSION_TYPE);
    assert_eq!(broker.end_offset("wal", 0).unwrap(), 0);

    let wrong_max = forged(&["a"], |header| header.max_timestamp += 1000);
    assert_eq!(outcome(&client.produce(&place, wrong_max).await), Ok(0));
    assert_eq!(broker.log("wal", 0).unwrap()[0].header().max_timestamp, STARTED_AT, "put right");
    let torn_tail: Bytes = [&good[..], &good[..30]].concat().into();
    assert_eq!(outcome(&client.produce(&place, torn_tail).await), Ok(1), "cut off, as Kafka does");
    assert_eq!(broker.log("wal", 0).unwrap()[1].size_in_bytes(), good.len());
}

#[tokio::test]
async fn a_rejected_partition_does_not_affect_the_others() {
    for broker in both().await {
        let mut client = Client::connect(&broker).await;
        let mut request = produce(&Place::of(&broker, "wal", 0), batch(&["a"]).to_bytes());
        for partition in [7, 1] {
            let other = produce(&Place::of(&broker, "wal", partition), batch(&["b"]).to_bytes());
            let data = other.topic_data.into_iter().flat_map(|topic| topic.partition_data);
            request.topic_data[0].partition_data.extend(data);
        }
        request
            .topic_data
            .extend(produce(&Place::of(&broker, "nope", 0), batch(&["c"]).to_bytes()).topic_data);
        for (version, unknown) in
            [(13, ErrorCode::UNKNOWN_TOPIC_ID), (12, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION)]
        {
            let answer = client.call(&request, version).await;
            let codes: Vec<_> = answer
                .responses
                .iter()
                .flat_map(|topic| &topic.partition_responses)
                .map(|partition| partition.error_code)
                .collect();
            let [none, no_partition] = [ErrorCode::NONE, ErrorCode::UNKNOWN_TOPIC_OR_PARTITION];
            assert_eq!(codes, [none, no_partition, none, unknown]);
        }
        assert_eq!(broker.end_offset("wal", 1).unwrap(), 2);
    }
}

#[tokio::test]
async fn acks() {
    for broker in both().await {
        let place = Place::of(&broker, "wal", 0);
        let mut client = Client::connect(&broker).await;
        let with = |acks| ProduceRequest { acks, ..produce(&place, batch(&["a"]).to_bytes()) };
        for (acks, code) in
            [(1, ErrorCode::NONE), (-1, ErrorCode::NONE), (2, ErrorCode::INVALID_REQUIRED_ACKS)]
        {
            let answer = client.call(&with(acks), 12).await;
            assert_eq!(answer.responses[0].partition_responses[0].error_code, code);
        }
        client.send(&with(0), 12).await;
        let answer = client.call(&with(1), 12).await;
        assert_eq!(answer.responses[0].partition_responses[0].base_offset, 3, "no answer, but a record");
        let mut nowhere = with(0);
        nowhere.topic_data[0].name = "nope".to_owned();
        client.send(&nowhere, 12).await;
        assert!(client.receive_frame().await.is_none(), "there is no other way to say it");
    }
}

#[tokio::test]
async fn topic_settings_apply() {
    let broker = EmbeddedCluster::builder()
        .topic_with("small", 1, &[("max.message.bytes", "200")])
        .topic_with("clock", 1, &[("message.timestamp.type", "LogAppendTime")])
        .topic_with("compact", 1, &[("cleanup.policy", "compact,delete")])
        .topic_with("fresh", 1, &[("message.timestamp.before.max.ms", "1000")])
        .started_at(STARTED_AT + 500)
        .start_in_memory()
        .unwrap();
    let mut client = Client::connect(&broker).await;
    let place = |topic| Place::of(&broker, topic, 0);

    let exactly = batch(&["a"; 100]);
    assert!(exactly.size_in_bytes() > 200);
    let answer = client.produce(&place("small"), exactly.to_bytes()).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::MESSAGE_TOO_LARGE));
    // The lengths of value and record take two bytes each from 64 on.
    let fill = "x".repeat(200 + 64 - batch(&[&"x".repeat(64)]).size_in_bytes());
    let fits = batch(&[&fill]);
    assert_eq!(
        (fits.size_in_bytes(), outcome(&client.produce(&place("small"), fits.to_bytes()).await)),
        (200, Ok(0))
    );

    for compression in codecs() {
        let late = compressed(compression, &["a", "b"]);
        let answer = client.produce(&place("clock"), late.to_bytes()).await;
        assert!((STARTED_AT + 500..).contains(&answer.log_append_time_ms));
        let log = broker.log("clock", 0).unwrap();
        assert_eq!(log.last().unwrap().timestamp_type(), TimestampType::LogAppendTime);
        let records = broker.records("clock", 0).unwrap();
        assert_eq!(records.last().unwrap().timestamp_ms, answer.log_append_time_ms);
    }

    let mut keyless = BatchBuilder::new(Compression::None);
    keyless.push(STARTED_AT, Some(b"key"), Some(b"a"), &Headers::new());
    keyless.push(STARTED_AT, None, Some(b"b"), &Headers::new());
    let answer = client.produce(&place("compact"), keyless.finish().unwrap().to_bytes()).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::INVALID_RECORD));
    let wrong: Vec<_> = answer.record_errors.iter().map(|error| error.batch_index).collect();
    assert_eq!(wrong, [1]);
    assert_eq!(outcome(&client.produce(&place("compact"), batch(&["a"]).to_bytes()).await), Ok(0));

    assert_eq!(outcome(&client.produce(&place("fresh"), batch(&["a"]).to_bytes()).await), Ok(0));
    let stale = resummed(&batch(&["a"]).to_bytes(), |header| header.base_timestamp -= 100_000);
    let answer = client.produce(&place("fresh"), stale).await;
    assert_eq!(outcome(&answer), Err(ErrorCode::INVALID_TIMESTAMP));
}

#[tokio::test]
async fn batches_that_a_broker_rejects_can_be_appended_raw() {
    let broker = in_memory();
    let place = Place::of(&broker, "wal", 0);
    let mut client = Client::connect(&broker).await;
    client.produce(&place, batch(&["a", "b"]).to_bytes()).await;
    let control = forged(&["c"], |header| header.attributes |= BatchHeader::CONTROL);
    let hole = batch(&["d"]).at(3, -1).to_bytes();
    let end = broker.append_raw("wal", 0, [control, hole].concat().into()).unwrap();
    assert_eq!((end, broker.end_offset("wal", 0).unwrap()), (7, 7));
    let offsets: Vec<_> = broker.log("wal", 0).unwrap().iter().map(|batch| batch.base_offset()).collect();
    assert_eq!(offsets, [0, 2, 6]);
    assert_eq!(values(&broker, &place), ["a", "b", "d"]);
    let backwards = batch(&["d"]).at(-1, -1).to_bytes();
    assert!(matches!(
        broker.append_raw("wal", 0, backwards),
        Err(Error::InvalidOffsets { first: -1, last: -1 })
    ));
    let far = batch(&["d"]).at(i64::MAX - 3, -1).to_bytes();
    assert!(matches!(broker.append_raw("wal", 0, far), Err(Error::InvalidOffsets { .. })));
    let error = broker.append_raw("wal", 9, Bytes::new()).unwrap_err();
    assert_eq!(error.to_string(), "topic \"wal\" has no partition 9");
}
