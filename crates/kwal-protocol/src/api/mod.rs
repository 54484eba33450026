//! APIs: keys, versions, requests with their responses, and their frames.

mod body;
mod frame;
pub mod header;
mod key;
mod versions;

pub use self::{
    body::{Body, Request},
    frame::{decode_request_header, decode_response_header, encode_request, encode_response},
    key::ApiKey,
    versions::Versions,
};
