use std::sync::Arc;

use super::{
    produce::ProduceTemplate,
    request::{CallError, EncodedRequest},
};
use crate::{
    api::{ApiKey, Request, Versions},
    messages::{ApiVersion, ApiVersionsResponse, FinalizedFeature, ProduceRequest, SupportedFeature},
};

/// The versions that the broker supports, as its response to ApiVersions lists them.
///
/// Requests are encoded with it: [`encode`](Self::encode) picks the version.
#[derive(Clone, Debug)]
pub struct NegotiatedVersions {
    client_id: Option<Arc<str>>,
    /// Sorted by key.
    apis: Vec<ApiVersion>,
    supported_features: Vec<SupportedFeature>,
    finalized_features: Vec<FinalizedFeature>,
    finalized_features_epoch: i64,
}

impl NegotiatedVersions {
    pub(super) fn new(client_id: Option<Arc<str>>, response: ApiVersionsResponse) -> Self {
        let mut apis = response.api_keys;
        apis.sort_by_key(|api| api.api_key);
        Self {
            client_id,
            apis,
            supported_features: response.supported_features,
            finalized_features: response.finalized_features,
            finalized_features_epoch: response.finalized_features_epoch,
        }
    }

    /// The versions of an API that the broker claims to support; `None` if it does not list the API.
    ///
    /// Not every claim holds: Kafka 4 lists Produce from version 0 on, but closes the connection on versions
    /// 0 to 2.
    pub fn versions(&self, key: ApiKey) -> Option<Versions> {
        let at = self.apis.binary_search_by_key(&key, |api| api.api_key).ok()?;
        let api = self.apis.get(at)?;
        Some(Versions::new(api.min_version, api.max_version))
    }

    /// All APIs that the broker lists, with their versions, in ascending order of their keys.
    pub fn apis(&self) -> impl Iterator<Item = (ApiKey, Versions)> + '_ {
        self.apis.iter().map(|api| (api.api_key, Versions::new(api.min_version, api.max_version)))
    }

    /// The newest version of an API that both sides support.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if they have no version in common.
    pub fn negotiate(&self, api: ApiKey, ours: Versions) -> Result<i16, CallError> {
        let theirs = self.versions(api);
        theirs.and_then(|theirs| theirs.newest_common(ours)).ok_or(CallError::Unsupported {
            api,
            ours,
            theirs,
        })
    }

    /// Encodes a request in the newest version that the broker, the codec and `ours` have in common.
    ///
    /// `ours` is the range that the caller supports; a narrower range forces an older version.
    ///
    /// # Errors
    /// [`CallError::Unsupported`] if there is no such version; [`CallError::Encode`] if the version cannot
    /// carry a field, or if a field is null where it must not be, or is too long.
    pub fn encode<R: Request>(&self, request: &R, ours: Versions) -> Result<EncodedRequest, CallError> {
        EncodedRequest::new(request, self.number::<R>(ours)?, self.client_id.as_deref())
    }

    /// Encodes a Produce request but for the records of its last partition, whatever they are: for all
    /// batches that are appended to that partition. The version is that of [`encode`](Self::encode).
    ///
    /// # Errors
    /// Those of [`encode`](Self::encode); [`CallError::Encode`] also if the request has no partition.
    pub fn produce_template(
        &self,
        request: ProduceRequest,
        ours: Versions,
    ) -> Result<ProduceTemplate, CallError> {
        ProduceTemplate::new(request, self.number::<ProduceRequest>(ours)?, self.client_id.as_deref())
    }

    /// The newest version of a request that the broker, the codec and `ours` have in common.
    fn number<R: Request>(&self, ours: Versions) -> Result<i16, CallError> {
        let known = Versions::new(ours.oldest.max(R::VERSIONS.oldest), ours.newest.min(R::VERSIONS.newest));
        self.negotiate(R::KEY, known)
    }

    /// The features that the broker supports (KIP-584).
    pub fn supported_features(&self) -> &[SupportedFeature] {
        &self.supported_features
    }

    /// The features finalized in the cluster (KIP-584).
    pub fn finalized_features(&self) -> &[FinalizedFeature] {
        &self.finalized_features
    }

    /// The epoch of the finalized features, which grows when they change; −1 if it is unknown.
    pub fn finalized_features_epoch(&self) -> i64 {
        self.finalized_features_epoch
    }
}
