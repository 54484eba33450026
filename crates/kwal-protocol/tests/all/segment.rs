//! `examples/segment.rs` over batches built here; `kwal-tests` uses it on the files of real brokers.

#[path = "../../examples/segment.rs"]
#[allow(dead_code, reason = "the example has a main")]
mod example;

use kwal_protocol::record::{
    BatchBuilder, BatchHeader, Compression, EndTransaction, Headers, RawBatch, RawRecord,
};

fn print(bytes: &[u8]) -> (String, Option<String>) {
    let mut printed = Vec::new();
    let fault = example::dump(bytes, &mut printed, true).err().map(|error| error.to_string());
    (String::from_utf8(printed).unwrap(), fault)
}

fn batch() -> Vec<u8> {
    let mut builder = BatchBuilder::new(Compression::None);
    builder.push(
        5_000,
        Some(b"key"),
        Some("line\nbreak \u{e9}".as_bytes()),
        &Headers::from([("a", "b"), ("c", "d")]),
    );
    builder.push(5_001, None, None, &Headers::new());
    builder.finish().unwrap().stamp(7, 1, 10).at(100, 3).to_bytes().to_vec()
}

fn marker() -> Vec<u8> {
    let end = EndTransaction { key_version: 0, committed: true, coordinator_epoch: 9 };
    let (key, value) = end.to_key_and_value();
    let header = BatchHeader {
        base_offset: 102,
        attributes: BatchHeader::CONTROL | BatchHeader::TRANSACTIONAL,
        producer_id: 7,
        ..BatchHeader::default()
    };
    let (key, value) = (Some(key.to_vec().into()), Some(value.to_vec().into()));
    let record = RawRecord { key, value, ..RawRecord::default() };
    RawBatch { position: 0, header, records: vec![record] }.encode().unwrap().to_vec()
}

fn message() -> Vec<u8> {
    let header = BatchHeader { magic: 1, base_offset: 40, base_timestamp: 77, ..BatchHeader::default() };
    let record = RawRecord { value: Some("old".into()), ..RawRecord::default() };
    RawBatch { position: 0, header, records: vec![record] }.encode().unwrap().to_vec()
}

#[test]
fn batches_and_records_are_printed() {
    let bytes = [message(), batch(), marker()].concat();
    let (printed, fault) = print(&bytes);
    assert_eq!(fault, None);
    let lines: Vec<_> = printed.lines().map(|line| line.split(" crc: ").next().unwrap()).collect();
    let (second, third) = (message().len(), message().len() + batch().len());
    let expected = [
        "baseOffset: 40 lastOffset: 40 count: 1 position: 0 CreateTime: 77 size: 37 magic: 1 compresscodec: none".to_owned(),
        "| offset: 40 CreateTime: 77 keySize: -1 valueSize: 3 payload: old".to_owned(),
        format!(
            "baseOffset: 100 lastOffset: 101 count: 2 baseSequence: 10 lastSequence: 11 producerId: 7 producerEpoch: 1 \
             partitionLeaderEpoch: 3 isTransactional: false isControl: false deleteHorizonMs: none position: {second} \
             CreateTime: 5001 size: {} magic: 2 compresscodec: none",
            batch().len()
        ),
        "| offset: 100 CreateTime: 5000 keySize: 3 valueSize: 13 sequence: 10 headerKeys: [a,c] key: key \
         payload: line\\nbreak \u{e9}".to_owned(),
        "| offset: 101 CreateTime: 5001 keySize: -1 valueSize: -1 sequence: 11 headerKeys: []".to_owned(),
        format!(
            "baseOffset: 102 lastOffset: 102 count: 1 baseSequence: -1 lastSequence: -1 producerId: 7 producerEpoch: -1 \
             partitionLeaderEpoch: -1 isTransactional: true isControl: true deleteHorizonMs: none position: {third} \
             CreateTime: -1 size: {} magic: 2 compresscodec: none",
            marker().len()
        ),
        "| offset: 102 CreateTime: -1 keySize: 4 valueSize: 6 sequence: -1 headerKeys: [] endTxnMarker: COMMIT \
         coordinatorEpoch: 9".to_owned(),
    ];
    assert_eq!(lines, expected);
}

#[test]
fn a_torn_tail_is_not_an_error() {
    let bytes = [batch(), batch()].concat();
    let whole = batch().len();
    for len in whole + 1..bytes.len() {
        let (printed, fault) = print(&bytes[..len]);
        assert_eq!(fault, None);
        let torn = format!("torn: {} bytes at position {whole} are not a whole batch", len - whole);
        assert_eq!(printed.lines().last(), Some(&torn[..]));
        assert_eq!(printed.lines().count(), 4);
    }
    assert_eq!(print(&bytes).0.lines().count(), 6);
    assert_eq!(print(b""), (String::new(), None));
}

#[test]
fn errors_name_the_byte() {
    let whole = batch().len();
    let fault = |change: fn(&mut [u8])| {
        let mut second = batch();
        change(&mut second);
        let (printed, fault) = print(&[batch(), second].concat());
        assert_eq!(printed.lines().count(), 3);
        fault.unwrap()
    };
    let unreadable = format!("the batch at byte {whole} with the base offset 100 cannot be read");
    assert_eq!(fault(|batch| *batch.last_mut().unwrap() ^= 1), unreadable);
    assert_eq!(fault(|batch| batch[8] = 0x80), unreadable);
    assert_eq!(fault(|batch| batch[16] = 9), unreadable);
    assert_eq!(
        fault(|batch| batch[8] = 0x7f),
        format!(
            "the batch at byte {whole} says it has {} bytes, more than 268435456",
            0x7f00_0000 + batch().len() - 12
        )
    );
}
