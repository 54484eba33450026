//! One frame, and what may become of it.

use std::time::Duration;

use bytes::{Buf, Bytes};
use kwal_protocol::api::{
    ApiKey, Body, Request, decode_request_header, decode_response_header, encode_response,
};
use kwal_transport::HostPort;

use crate::cluster::decode;

/// A request or response on its way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Frame {
    /// The connection: all of a wire are counted from 1.
    pub connection: u64,
    /// The address that the client connected to.
    pub to: HostPort,
    /// The API of the request.
    pub api: ApiKey,
    /// The version of the request.
    pub version: i16,
    /// The correlation id of the request.
    pub correlation_id: i32,
    /// The frame without its length.
    pub bytes: Bytes,
}

/// What becomes of a frame.
#[derive(Clone, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Decision {
    /// It passes.
    Pass,
    /// It passes with other bytes, again without the length, which is written to fit.
    Replace(Bytes),
    /// It passes after a pause. Later frames of the same direction wait for it.
    Delay(Duration),
    /// It passes after the next [`release`](super::Wire::release).
    ///
    /// Later frames of the same direction wait for it.
    Hold,
    /// It is discarded; the connection stays open.
    Discard,
    /// Its first bytes pass, the length included, then the connection is closed to both sides.
    ///
    /// 0 closes it at once.
    Cut(usize),
}

/// Which way a frame goes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// A callback that decides about frames.
pub(super) struct Hook(Box<dyn FnMut(&Frame) -> Decision + Send>);

impl Hook {
    pub(super) fn new(hook: impl FnMut(&Frame) -> Decision + Send + 'static) -> Self {
        Self(Box::new(hook))
    }

    pub(super) fn decide(&mut self, frame: &Frame) -> Decision {
        (self.0)(frame)
    }
}

impl Frame {
    /// Decodes a request. `None` if it is one of another type than `R`, or malformed. Bytes after its end are
    /// ignored, as brokers do.
    pub fn request<R: Request>(&self) -> Option<R> {
        if self.api != R::KEY {
            return None;
        }
        let (_, reader) = decode_request_header(&self.bytes).ok()?;
        decode(&self.bytes.slice(reader.position()..), R::version(self.version).ok()?).ok()
    }

    /// Decodes a response to a request of type `R`. `None` if it is one to another type, or malformed.
    pub fn response<R: Request>(&self) -> Option<R::Response> {
        if self.api != R::KEY {
            return None;
        }
        let version = R::Response::version(self.version).ok()?;
        let (_, reader) = decode_response_header::<R::Response>(&self.bytes, version).ok()?;
        R::Response::decode(&self.bytes.slice(reader.position()..), version).ok()
    }

    /// Replaces a response by another one with the same correlation id and version.
    ///
    /// If it cannot be encoded, the frame passes as it is.
    pub fn replace_response<R: Request>(&self, response: &R::Response) -> Decision {
        match encode_response(response, self.version, self.correlation_id) {
            Ok(mut frame) => {
                frame.advance(LENGTH);
                Decision::Replace(frame.copy_to_bytes(frame.remaining()))
            }
            Err(_) => Decision::Pass,
        }
    }
}

/// The size of the length of a frame.
pub(super) const LENGTH: usize = 4;
