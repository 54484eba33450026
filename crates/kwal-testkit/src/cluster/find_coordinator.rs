//! FindCoordinator: which broker coordinates a transactional id.

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{Coordinator, FindCoordinatorRequest, FindCoordinatorResponse},
};
use kwal_transport::HostPort;

use super::{
    handler::{Serve, Served},
    request::RequestContext,
    state::Cluster,
};

impl Serve for FindCoordinatorRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> FindCoordinatorResponse {
        let nowhere = |key: &String| found(key, (NOBODY, HostPort::new("", 0)), code);
        match self.key.is_empty() {
            true => FindCoordinatorResponse {
                coordinators: self.coordinator_keys.iter().map(nowhere).collect(),
                ..FindCoordinatorResponse::default()
            },
            // From a version with one key.
            false => FindCoordinatorResponse {
                error_code: code,
                error_message: code.text().map(str::to_owned),
                node_id: NOBODY,
                port: -1,
                ..FindCoordinatorResponse::default()
            },
        }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<FindCoordinatorResponse> {
        let version = context.version;
        if self.key_type != TRANSACTION {
            // Groups are not implemented.
            let code = match self.key_type {
                GROUP => ErrorCode::COORDINATOR_NOT_AVAILABLE,
                _ => ErrorCode::INVALID_REQUEST,
            };
            return Served::Reply(self.error_response(cluster, code));
        }
        let known = cluster.endpoints(context.from.node);
        let find = |key: &String, cluster: &mut Cluster| {
            let broker = cluster.find_coordinator(context.from.node, key);
            match broker.and_then(|broker| known.get(&broker).map(|at| (broker, at.clone()))) {
                Some(at) => found(key, at, ErrorCode::NONE),
                None => found(key, (NOBODY, HostPort::new("", 0)), ErrorCode::COORDINATOR_NOT_AVAILABLE),
            }
        };
        if version >= HAS_SEVERAL_KEYS {
            let coordinators = self.coordinator_keys.iter().map(|key| find(key, cluster)).collect();
            return Served::Reply(FindCoordinatorResponse { coordinators, ..Default::default() });
        }
        let Coordinator { error_code, node_id, host, port, .. } = find(&self.key, cluster);
        let message = error_code.text().unwrap_or("NONE").to_owned();
        Served::Reply(FindCoordinatorResponse {
            error_code,
            error_message: Some(message),
            node_id,
            host,
            port,
            ..FindCoordinatorResponse::default()
        })
    }
}

fn found(key: &str, (node_id, at): (i32, HostPort), error_code: ErrorCode) -> Coordinator {
    Coordinator {
        key: key.to_owned(),
        node_id,
        host: at.host,
        port: if node_id == NOBODY { -1 } else { at.port.into() },
        error_code,
        error_message: Some(error_code.text().unwrap_or_default().to_owned()),
    }
}

/// No broker.
const NOBODY: i32 = -1;
/// The first version with several keys (KIP-699).
const HAS_SEVERAL_KEYS: i16 = 4;
/// Key types.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;
