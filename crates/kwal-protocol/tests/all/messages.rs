//! Every message of this crate against Kafka's own classes.

use crate::support::{unhex, vectors};
use bytes::{Buf, Bytes};
use kwal_protocol::{
    api::{ApiKey, Body, decode_request_header, encode_request},
    error::{DecodeError, EncodeError},
    header::{RequestHeader, ResponseHeader},
    json::AtVersion,
    messages::{AnyRequest, AnyResponse, ApiVersionsRequest, ApiVersionsResponse},
    reader::Reader,
    wire::{Version, Wire},
    writer::Writer,
};
use serde_json::Value;

/// A message of a vector, of any kind.
#[derive(Debug, PartialEq)]
enum Any {
    Request(AnyRequest),
    Response(AnyResponse),
}

impl Any {
    fn decode(vector: &Value, bytes: &Bytes) -> Option<Result<Self, DecodeError>> {
        let (key, version) = key_and_version(vector)?;
        match vector["kind"].as_str()? {
            "request" => Some(AnyRequest::decode(key, version, bytes)?.map(Self::Request)),
            "response" => Some(AnyResponse::decode(key, version, bytes)?.map(Self::Response)),
            other => panic!("no kind: {other}"),
        }
    }

    fn from_json(vector: &Value) -> Self {
        let (key, _) = key_and_version(vector).unwrap();
        let json = vector["json"].clone();
        match vector["kind"].as_str() {
            Some("request") => Self::Request(AnyRequest::from_json(key, json).unwrap().unwrap()),
            _ => Self::Response(AnyResponse::from_json(key, json).unwrap().unwrap()),
        }
    }

    fn encode(&self, version: i16) -> Result<Bytes, EncodeError> {
        match self {
            Self::Request(body) => body.encode(version),
            Self::Response(body) => body.encode(version),
        }
    }

    fn to_json(&self, version: i16) -> Value {
        match self {
            Self::Request(body) => body.to_json(version).unwrap(),
            Self::Response(body) => body.to_json(version).unwrap(),
        }
    }
}

/// `None` if this crate has no messages for the API.
fn key_and_version(vector: &Value) -> Option<(ApiKey, i16)> {
    let key = ApiKey::from_name(vector["api"].as_str().unwrap())?;
    assert_eq!(vector["key"], key.0);
    Some((key, vector["version"].as_i64().unwrap() as i16))
}

fn title(vector: &Value) -> String {
    format!("{} {} v{} {} {}", vector["api"], vector["kind"], vector["version"], vector["case"], vector["n"])
}

/// Hex to fields and back to the same hex, the fields equal to the JSON, and the JSON to the same hex.
fn holds(vector: &Value) {
    let (key, version) = key_and_version(vector).unwrap();
    let title = title(vector);
    let bytes = unhex(&vector["hex"]);
    let canonical = match &vector["hexNoUnknown"] {
        Value::Null => bytes.clone(),
        hex => unhex(hex),
    };
    assert!(key.versions().unwrap().contains(version), "{title}: a version that the codec lacks");
    let message = Any::decode(vector, &bytes).unwrap().unwrap_or_else(|fault| panic!("{title}: {fault}"));
    assert_eq!(message, Any::from_json(vector), "{title}");
    if vector.get("unknownTags").is_none() {
        // Kafka treats a structure with these fields as set, even if all others have their defaults.
        assert_eq!(message.to_json(version), vector["json"], "{title}");
    }
    assert_eq!(message.encode(version).unwrap(), canonical, "{title}: encoded again");
    assert_eq!(Any::from_json(vector).encode(version).unwrap(), canonical, "{title}: encoded from JSON");
    for cut in 0..bytes.len() {
        let cut_off = Any::decode(vector, &bytes.slice(..cut)).unwrap();
        assert!(cut_off.is_err(), "{title}: reads with only {cut} of {} bytes", bytes.len());
        if cut > 300 {
            break; // long ones repeat themselves
        }
    }
    let longer = Bytes::from([&bytes[..], &[0]].concat());
    assert!(Any::decode(vector, &longer).unwrap().is_err(), "{title}: takes a byte too many");
}

#[test]
fn messages() {
    for key in ApiKey::ALL {
        let mut count = 0;
        let mut seen = Vec::new();
        for vector in vectors(&format!("messages/{key}")) {
            holds(&vector);
            seen.push(vector["version"].as_i64().unwrap() as i16);
            count += 1;
        }
        let versions = key.versions().unwrap();
        assert!(
            (versions.oldest..=versions.newest).all(|v| seen.contains(&v)),
            "{key}: a version without a vector"
        );
        assert!(count > 20, "{key}: only {count} vectors");
    }
}

#[test]
fn headers() {
    fn check<H: Wire + kwal_protocol::json::Json + serde::de::DeserializeOwned>(
        vector: &Value,
        version: Version,
    ) {
        let title = title(vector);
        let encode = |header: &H| {
            let mut writer = Writer::new();
            header.write(&mut writer, version);
            writer.into_bytes().unwrap()
        };
        let bytes = unhex(&vector["hex"]);
        let canonical = vector.get("hexNoUnknown").map_or_else(|| bytes.clone(), unhex);
        let mut reader = Reader::new(&bytes);
        let header = H::read(&mut reader, version).unwrap_or_else(|fault| panic!("{title}: {fault}"));
        reader.finish().unwrap();
        assert_eq!(
            serde_json::to_value(AtVersion { value: &header, version }).unwrap(),
            vector["json"],
            "{title}"
        );
        assert_eq!(encode(&header), canonical, "{title}");
        let from_json: H = serde_json::from_value(vector["json"].clone()).unwrap();
        assert_eq!(encode(&from_json), canonical, "{title}: from JSON");
    }
    for vector in vectors("headers") {
        let number = vector["version"].as_i64().unwrap() as i16;
        match vector["api"].as_str().unwrap() {
            "RequestHeader" => check::<RequestHeader>(&vector, RequestHeader::version(number)),
            "ResponseHeader" => check::<ResponseHeader>(&vector, ResponseHeader::version(number)),
            other => panic!("no header: {other}"),
        }
    }
}

/// The version of the header is that of Kafka.
#[test]
fn frames() {
    let mut count = 0;
    for vector in vectors("frames") {
        let Some((key, number)) = key_and_version(&vector) else { continue };
        let title = title(&vector);
        let frame = unhex(&vector["hex"]).slice(4..);
        let header_len = unhex(&vector["headerHex"]).len();
        let body = unhex(&vector["bodyHex"]);
        let decoded = Any::decode(&vector, &body).unwrap().unwrap_or_else(|fault| panic!("{title}: {fault}"));
        match &decoded {
            Any::Request(request) => {
                let (header, reader) = decode_request_header(&frame).unwrap();
                assert_eq!(reader.position(), header_len, "{title}");
                assert_eq!(header.request_api_key, key);
                assert_eq!(header.request_api_version, number);
                assert_eq!(vector["header"]["correlationId"], header.correlation_id);
                assert_eq!(request.encode(number).unwrap(), body, "{title}");
            }
            Any::Response(_) => {
                let plain = key == ApiKey::API_VERSIONS;
                let version = Version { number, flexible: decode_flexible(&vector) && !plain };
                let header = ResponseHeader::version(version.flexible as i16);
                let mut reader = Reader::new(&frame);
                ResponseHeader::read(&mut reader, header).unwrap();
                assert_eq!(reader.position(), header_len, "{title}");
            }
        }
        count += 1;
    }
    assert!(count > 200, "only {count}");
}

fn decode_flexible(vector: &Value) -> bool {
    vector["headerVersion"] == 1 || vector["api"] == "ApiVersions"
}

#[test]
fn malformed() {
    let mut count = 0;
    for vector in vectors("malformed") {
        let Some(decoded) = Any::decode(&vector, &unhex(&vector["hex"])) else { continue };
        assert!(decoded.is_err(), "{} is taken: {decoded:?}", title(&vector));
        count += 1;
    }
    assert!(count > 200, "only {count}");
}

#[test]
fn special() {
    for vector in vectors("special") {
        let title = title(&vector);
        let bytes = unhex(&vector["hex"]);
        let Some(decoded) = Any::decode(&vector, &bytes) else { continue };
        match (vector["expect"].as_str().unwrap(), decoded) {
            ("ok", Ok(message)) => {
                let version = vector["version"].as_i64().unwrap() as i16;
                assert_eq!(message.to_json(version), vector["json"], "{title}");
                // Kafka writes unknown tags again; this crate skips them.
                if let (Some(canonical), None) = (vector.get("canonicalHex"), vector.get("unknownTags")) {
                    assert_eq!(message.encode(version).unwrap(), unhex(canonical), "{title}");
                }
            }
            ("ok" | "kafka-leaves-bytes", Err(fault)) => {
                assert_eq!(vector["mayReject"], true, "{title}: {fault}");
            }
            ("kafka-refuses", Ok(_)) => assert_eq!(vector["case"], "tag-of-later-version", "{title}"),
            ("kafka-refuses", Err(_)) => {}
            (expect, decoded) => panic!("{title}: {expect}, and we have {decoded:?}"),
        }
    }
}

/// The whole exchange with a broker that does not support our version of ApiVersions.
#[test]
fn api_versions_fall_back_to_version_0() {
    let mut count = 0;
    for vector in vectors("special") {
        let Some(response) = vector.get("responseHex") else { continue };
        let frame = unhex(response).slice(4..);
        let version = ApiVersionsResponse::version(0).unwrap();
        let (_, reader) =
            kwal_protocol::api::decode_response_header::<ApiVersionsResponse>(&frame, version).unwrap();
        let body = ApiVersionsResponse::decode(&frame.slice(reader.position()..), version).unwrap();
        assert_eq!(body.error_code.0, 35);
        count += 1;
    }
    assert!(count >= 4);
}

/// No field is dropped silently: one that a version cannot carry is an error, unless it is ignorable.
#[test]
fn a_field_outside_of_its_version_is_rejected() {
    use kwal_protocol::messages::{FetchRequest, InitProducerIdRequest};

    let request = InitProducerIdRequest { producer_id: 7, ..Default::default() };
    let version = InitProducerIdRequest::version(2).unwrap();
    assert_eq!(request.encode(version), Err(EncodeError::NotInVersion { field: "producerId", version: 2 }));
    let request = FetchRequest { rack_id: "a".to_owned(), ..Default::default() };
    assert!(request.encode(FetchRequest::version(4).unwrap()).is_ok());
    assert_eq!(
        FetchRequest::version(19),
        Err(EncodeError::UnknownVersion { version: 19, oldest: 0, newest: 18 })
    );
    let long = ApiVersionsRequest { client_software_name: "x".repeat(32_768), ..Default::default() };
    assert_eq!(long.encode(ApiVersionsRequest::version(3).unwrap()), Err(EncodeError::TooLong(32_768)));
}

/// Decodes the header of a request like a broker.
#[test]
fn a_request_frame_reads_back() {
    let mut frame = encode_request(&ApiVersionsRequest::default(), 3, -5, None).unwrap();
    let bytes = frame.copy_to_bytes(frame.remaining());
    assert_eq!(i32::from_be_bytes(bytes[..4].try_into().unwrap()) as usize, bytes.len() - 4);
    let frame = bytes.slice(4..);
    let (header, reader) = decode_request_header(&frame).unwrap();
    assert_eq!((header.correlation_id, header.client_id), (-5, None));
    assert_eq!(reader.remaining(), 3);
}
