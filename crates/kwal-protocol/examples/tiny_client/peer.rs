//! A broker in a thread, with one topic and two records: messages work in both directions.

use std::{
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    thread::{JoinHandle, spawn},
};

use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::{ApiKey, decode_request_header, encode_response},
    messages::{
        AnyRequest, ApiVersion, ApiVersionsResponse, FetchPartitionResponse, FetchResponse,
        FetchTopicResponse, MetadataBroker, MetadataPartition, MetadataResponse, MetadataTopicResponse,
    },
    record::{BatchBuilder, Compression, Headers},
};

use super::Result;

const TOPIC: &str = "wal";
const VALUES: [&str; 2] = ["+100", "-30"];

/// Starts the broker. It ends after two connections, which is what the client opens.
pub(crate) fn start() -> Result<(SocketAddr, JoinHandle<Result<()>>)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    let broker = spawn(move || -> Result<()> {
        let mut connections = Vec::new();
        for stream in listener.incoming().take(2) {
            let stream = stream?;
            connections.push(spawn(move || serve(stream, address)));
        }
        for connection in connections {
            connection.join().map_err(|_| "a connection panicked")??;
        }
        Ok(())
    });
    Ok((address, broker))
}

/// Answers requests until the client closes the connection.
fn serve(mut stream: TcpStream, address: SocketAddr) -> Result<()> {
    let mut length = [0; 4];
    while stream.read_exact(&mut length).is_ok() {
        let mut frame = vec![0; usize::try_from(i32::from_be_bytes(length))?];
        stream.read_exact(&mut frame)?;
        let frame = Bytes::from(frame);
        let (header, body) = decode_request_header(&frame)?;
        let (key, version, id) = (header.request_api_key, header.request_api_version, header.correlation_id);
        let body = frame.slice(body.position()..);
        let request = AnyRequest::decode(key, version, &body).ok_or("an unknown request")??;
        let mut response = match request {
            AnyRequest::ApiVersions(_) => encode_response(&versions(), version, id)?,
            AnyRequest::Metadata(_) => encode_response(&metadata(address), version, id)?,
            AnyRequest::Fetch(_) => encode_response(&fetched()?, version, id)?,
            _ => return Err(format!("{key} was not announced").into()),
        };
        stream.write_all(&response.copy_to_bytes(response.remaining()))?;
    }
    Ok(())
}

fn versions() -> ApiVersionsResponse {
    let api = |api_key, min_version, max_version| ApiVersion { api_key, min_version, max_version };
    // Fetch by the name of the topic.
    let api_keys = vec![api(ApiKey::METADATA, 0, 12), api(ApiKey::FETCH, 4, 12)];
    ApiVersionsResponse { api_keys, ..ApiVersionsResponse::default() }
}

fn metadata(address: SocketAddr) -> MetadataResponse {
    let (host, port) = (address.ip().to_string(), address.port().into());
    let broker = MetadataBroker { node_id: 1, host, port, ..MetadataBroker::default() };
    let partition = MetadataPartition { leader_id: 1, ..MetadataPartition::default() };
    let name = Some(TOPIC.to_owned());
    let topic = MetadataTopicResponse { name, partitions: vec![partition], ..Default::default() };
    MetadataResponse { brokers: vec![broker], topics: vec![topic], ..MetadataResponse::default() }
}

fn fetched() -> Result<FetchResponse> {
    let mut batch = BatchBuilder::new(Compression::None);
    for value in VALUES {
        batch.push(1_750_000_000_000, Some(b"account"), Some(value.as_bytes()), &Headers::new());
    }
    let records = Some(batch.finish()?.to_bytes());
    let partition = FetchPartitionResponse { high_watermark: 2, records, ..Default::default() };
    let (topic, partitions) = (TOPIC.to_owned(), vec![partition]);
    let topic = FetchTopicResponse { topic, partitions, ..FetchTopicResponse::default() };
    Ok(FetchResponse { responses: vec![topic], ..FetchResponse::default() })
}
