//! Decodes two captured frames: a request to append, down to its records, and the response to it.
//!
//! ```sh
//! cargo run -p kwal-protocol --example captured_frame
//! ```

use std::error::Error;

use bytes::Bytes;
use kwal_protocol::{
    api::{Body, decode_request_header, decode_response_header},
    messages::{AnyRequest, ProduceRequest, ProduceResponse},
    record::Batches,
};

/// From a client, as a capture of its TCP stream shows it.
const REQUEST: &str = "
    0000008f 0000 0007 0000002a 0002 6d65
    ffff ffff 00007530 00000001 0003 77616c 00000001 00000000 00000066
    0000000000000000 0000005a ffffffff 02 1430221e 0000 00000001 000001977420dc00 000001977420dc05
    0000000000000fa1 0000 00000007 00000002
    2e 00 00 00 0e 6163636f756e74 08 2b313030 02 04 6279 04 6d65
    20 00 0a 02 0e 6163636f756e74 06 2d3330 00";

/// From its broker, later on the same connection.
const RESPONSE: &str = "
    00000033 0000002a
    00000001 0003 77616c 00000001 00000000 0000 0000000000000029 ffffffffffffffff 0000000000000000
    00000000";

/// No batch of the capture is larger than this, in bytes and decompressed.
const LIMIT: usize = 1 << 20;

pub(crate) fn main() -> Result<(), Box<dyn Error>> {
    // A request says what it is. Its content is a slice of the frame: nothing is copied.
    let frame = captured(REQUEST)?;
    let (header, body) = decode_request_header(&frame)?;
    let (key, version, id) = (header.request_api_key, header.request_api_version, header.correlation_id);
    println!("{key} v{version}, correlation id {id}, of client {:?}", header.client_id);
    let body = frame.slice(body.position()..);
    let request = AnyRequest::decode(key, version, &body).ok_or("an API or a version of a later Kafka")??;
    let AnyRequest::Produce(request) = request else { return Err(format!("it is {key}").into()) };

    let topic = &request.topic_data[0];
    let records = topic.partition_data[0].records.clone().ok_or("no records")?.into_bytes();
    let mut changes = Vec::new();
    for batch in Batches::new(records) {
        let batch = batch?; // and its checksum is right
        let (producer, epoch) = (batch.producer_id(), batch.producer_epoch());
        println!("{}: a batch of producer {producer:?}, epoch {epoch:?}", topic.name);
        for record in &batch.records(LIMIT)? {
            let record = record?;
            let value = String::from_utf8_lossy(record.value.unwrap_or_default()).into_owned();
            println!("  sequence {}: {value}, {} headers", record.sequence, record.headers().count());
            changes.push((record.sequence, value));
        }
    }
    assert_eq!((topic.name.as_str(), request.acks, id), ("wal", -1, 42));
    assert_eq!(changes, [(7, "+100".to_owned()), (8, "-30".to_owned())]);

    // A response says only to which request it is: API and version are those of the request.
    let frame = captured(RESPONSE)?;
    let version = ProduceRequest::version(version)?;
    let (answered, body) = decode_response_header::<ProduceResponse>(&frame, version)?;
    let response = ProduceResponse::decode(&frame.slice(body.position()..), version)?;
    let result = &response.responses[0].partition_responses[0];
    println!("response {answered}: {}, from offset {} on", result.error_code, result.base_offset);
    assert_eq!((answered, result.error_code.ok(), result.base_offset), (id, Ok(()), 41));
    Ok(())
}

/// Returns a frame without its length, which the size of the capture has to agree with.
fn captured(hex: &str) -> Result<Bytes, Box<dyn Error>> {
    let digits: String = hex.split_whitespace().collect();
    let bytes: Result<Vec<u8>, _> =
        (0..digits.len()).step_by(2).map(|at| u8::from_str_radix(&digits[at..at + 2], 16)).collect();
    let bytes = Bytes::from(bytes?);
    let (length, frame) = bytes.split_first_chunk().ok_or("not even a length")?;
    assert_eq!(usize::try_from(i32::from_be_bytes(*length))?, frame.len());
    Ok(bytes.slice(4..))
}
