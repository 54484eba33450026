use std::{sync::Arc, time::Duration};

use bytes::{Buf, Bytes};

use crate::{
    api::{ApiKey, Request, Versions, decode_response_header, encode_request},
    error::{DecodeError, DecodeErrorKind, EncodeError},
    messages::{ApiVersion, ApiVersionsResponse, FinalizedFeature, SupportedFeature},
    wire::{Version, Wire},
    writer::Frame,
};

/// What the handshake taught: which versions of each API the broker speaks. Calls are encoded with it.
#[derive(Clone, Debug)]
pub struct Session {
    client_id: Option<Arc<str>>,
    /// By rising key.
    apis: Vec<ApiVersion>,
    supported_features: Vec<SupportedFeature>,
    finalized_features: Vec<FinalizedFeature>,
    finalized_features_epoch: i64,
}

impl Session {
    pub(super) fn new(client_id: Option<Arc<str>>, told: ApiVersionsResponse) -> Self {
        let mut apis = told.api_keys;
        apis.sort_by_key(|api| api.api_key);
        Self {
            client_id,
            apis,
            supported_features: told.supported_features,
            finalized_features: told.finalized_features,
            finalized_features_epoch: told.finalized_features_epoch,
        }
    }

    /// The versions of an API that the broker says it speaks; `None` if it has not named the API.
    ///
    /// Some claims are not to be trusted: Kafka 4 names Produce from version 0 on, and closes the connection on
    /// versions 0 to 2.
    pub fn versions(&self, key: ApiKey) -> Option<Versions> {
        let at = self.apis.binary_search_by_key(&key, |api| api.api_key).ok()?;
        let api = self.apis.get(at)?;
        Some(Versions::new(api.min_version, api.max_version))
    }

    /// All APIs that the broker named, with their versions, by rising key.
    pub fn apis(&self) -> impl Iterator<Item = (ApiKey, Versions)> + '_ {
        self.apis.iter().map(|api| (api.api_key, Versions::new(api.min_version, api.max_version)))
    }

    /// The newest version of an API that both sides speak.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if there is none.
    pub fn negotiate(&self, api: ApiKey, ours: Versions) -> Result<i16, CallError> {
        let theirs = self.versions(api);
        theirs.and_then(|theirs| theirs.newest_common(ours)).ok_or(CallError::Unsupported {
            api,
            ours,
            theirs,
        })
    }

    /// Encodes a request in the newest version that the broker, the codec and `ours` have in common. `ours` is what the
    /// caller is ready to speak; a narrower range forces an older version.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if there is no such version; [`CallError::Encode`] if a field cannot be carried by it,
    /// is null where it must not be, or is too long.
    pub fn encode<R: Request>(&self, request: &R, ours: Versions) -> Result<Call, CallError> {
        let known = Versions::new(ours.oldest.max(R::VERSIONS.oldest), ours.newest.min(R::VERSIONS.newest));
        let number = self.negotiate(R::KEY, known)?;
        Call::new(request, number, self.client_id.as_deref())
    }

    /// The features that the broker supports (KIP-584), as it told them.
    pub fn supported_features(&self) -> &[SupportedFeature] {
        &self.supported_features
    }

    /// The features in force in the cluster (KIP-584), as the broker told them.
    pub fn finalized_features(&self) -> &[FinalizedFeature] {
        &self.finalized_features
    }

    /// Rises when the features in force change; −1 if not known.
    pub fn finalized_features_epoch(&self) -> i64 {
        self.finalized_features_epoch
    }
}

/// An encoded request whose correlation id is not yet written.
#[derive(Debug)]
pub struct Call {
    pub(super) frame: Frame,
    pub(super) key: ApiKey,
    pub(super) version: Version,
    pub(super) expects_reply: bool,
    pub(super) timeout: Option<Duration>,
}

impl Call {
    pub(super) fn new<R: Request>(
        request: &R,
        number: i16,
        client_id: Option<&str>,
    ) -> Result<Self, CallError> {
        let encode = |source| CallError::Encode { api: R::KEY, version: number, source };
        let version = R::version(number).map_err(encode)?;
        let frame = encode_request(request, number, 0, client_id).map_err(encode)?;
        Ok(Self { frame, key: R::KEY, version, expects_reply: request.expects_reply(), timeout: None })
    }

    /// Gives this call another limit than [`ConnectionConfig::request_timeout`](super::ConnectionConfig): a request with
    /// which the broker itself waits needs more.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// The API that is called.
    pub fn key(&self) -> ApiKey {
        self.key
    }

    /// The version that was agreed upon.
    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether there will be a reply. A Produce request with acks = 0 has none.
    pub fn expects_reply(&self) -> bool {
        self.expects_reply
    }

    /// The size of the whole frame in bytes.
    pub fn size_in_bytes(&self) -> usize {
        self.frame.remaining()
    }
}

/// A request that cannot be made into a call.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum CallError {
    /// No version of the API is spoken by both sides.
    #[error("{}", unsupported(.api, .ours, .theirs))]
    Unsupported {
        /// The API.
        api: ApiKey,
        /// What the client speaks.
        ours: Versions,
        /// What the broker speaks; `None` if it does not have the API at all.
        theirs: Option<Versions>,
    },
    /// The request cannot be written in the version agreed upon.
    #[error("{api} cannot be written")]
    Encode {
        /// The API.
        api: ApiKey,
        /// The version agreed upon.
        version: i16,
        /// What is wrong with it.
        source: EncodeError,
    },
}

fn unsupported(api: &ApiKey, ours: &Versions, theirs: &Option<Versions>) -> String {
    match theirs {
        Some(theirs) => format!("the broker speaks {api} in versions {theirs}, and this client in {ours}"),
        None => format!("the broker does not speak {api}"),
    }
}

/// The bytes of a response, and what is needed to read them.
#[derive(Clone, Debug)]
pub struct Reply {
    pub(super) frame: Bytes,
    pub(super) key: ApiKey,
    pub(super) version: Version,
}

impl Reply {
    /// The API that was called.
    pub fn key(&self) -> ApiKey {
        self.key
    }

    /// The version of the request and so of the response.
    pub fn version(&self) -> Version {
        self.version
    }

    /// The frame without its length: header and body.
    pub fn frame(&self) -> &Bytes {
        &self.frame
    }

    /// Reads the response. What is bytes in it (records above all) is a slice of the frame.
    ///
    /// # Errors
    /// [`DecodeError`] at the faulty byte of the [`frame`](Self::frame), also if bytes are left over;
    /// [`DecodeErrorKind::OtherApi`] if it is not `R` that was called.
    pub fn decode<R: Request>(&self) -> Result<R::Response, DecodeError> {
        if R::KEY != self.key {
            return Err(DecodeErrorKind::OtherApi { expected: R::KEY.0, is: self.key.0 }.at(0));
        }
        let (_, mut reader) = decode_response_header::<R::Response>(&self.frame, self.version)?;
        let response = R::Response::read(&mut reader, self.version)?;
        reader.finish()?;
        Ok(response)
    }
}
