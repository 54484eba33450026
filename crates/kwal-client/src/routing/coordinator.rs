//! FindCoordinator: the broker that keeps the producer id and epoch of a transactional id.

use kwal_protocol::{
    api::ApiKey,
    error_code::{ErrorCode, Recovery},
    messages::{FindCoordinatorRequest, FindCoordinatorResponse},
};

use crate::{
    cluster::Cluster,
    error::{CallContext, Error, ErrorKind, InvalidField},
};

/// The type of the key (`FindCoordinatorRequest.json`).
const TRANSACTIONAL_ID: i8 = 1;

/// Returns the coordinator of a transactional id, in one attempt. Every broker knows it.
pub(super) async fn find_coordinator(
    cluster: &Cluster,
    call: CallContext<'_>,
    transactional_id: &str,
) -> Result<i32, Error> {
    let call = call.with_api(ApiKey::FIND_COORDINATOR);
    let request = FindCoordinatorRequest {
        key: transactional_id.to_owned(),
        key_type: TRANSACTIONAL_ID,
        ..FindCoordinatorRequest::default()
    };
    let (_, response) = cluster
        .pool
        .any_broker(&request, |response, broker| {
            if response.error_code == ErrorCode::REBOOTSTRAP_REQUIRED {
                cluster.metadata.rebootstrap(broker);
            }
            match coordinator(response) {
                Ok(_) => Ok(()),
                // All brokers know the same about a coordinator that is not there yet.
                Err(error) if is_elsewhere(&error) => Ok(()),
                Err(error) => Err(error.with_context(call.at_broker(broker))),
            }
        })
        .await?;
    let coordinator = coordinator(&response).map_err(|error| error.with_context(call.context()))?;
    if !cluster.metadata.snapshot().brokers.contains_key(&coordinator) {
        cluster.metadata.refresh().await?;
    }
    Ok(coordinator)
}

/// Whether the coordinator may be found a little later.
fn is_elsewhere(error: &Error) -> bool {
    error.code().is_some_and(|code| code.meaning(ApiKey::FIND_COORDINATOR).recovery == Recovery::Retry)
}

fn coordinator(response: &FindCoordinatorResponse) -> Result<i32, Error> {
    let FindCoordinatorResponse { error_code: code, error_message, node_id, .. } = response;
    match *code {
        ErrorCode::NONE => Ok(InvalidField::not_negative("node_id", (*node_id).into()).map(|_| *node_id)?),
        code => {
            let message = error_message.clone().filter(|message| !message.is_empty());
            Err(Error::new(ErrorKind::Broker { code, message }))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Source;

    #[test]
    fn a_coordinator_is_a_broker() {
        let response = |node_id, error_code, message: Option<&str>| FindCoordinatorResponse {
            node_id,
            error_code,
            error_message: message.map(str::to_owned),
            ..FindCoordinatorResponse::default()
        };
        for node_id in [0, 1, i32::MAX] {
            assert_eq!(coordinator(&response(node_id, ErrorCode::NONE, Some("NONE"))).unwrap(), node_id);
        }
        let error = coordinator(&response(-1, ErrorCode::NONE, None)).unwrap_err();
        let Some(Source::Field(field)) = error.below() else { panic!("{error:?}") };
        assert_eq!(*field, InvalidField { field: "node_id", value: -1 });
        for (message, expected) in [(None, None), (Some(""), None), (Some("why"), Some("why"))] {
            let code = ErrorCode::COORDINATOR_NOT_AVAILABLE;
            let error = coordinator(&response(-1, code, message)).unwrap_err();
            let ErrorKind::Broker { code: found, message } = error.kind() else { panic!("{error:?}") };
            assert_eq!((*found, message.as_deref()), (code, expected));
            assert!(is_elsewhere(&error));
        }
        let code = ErrorCode::TRANSACTIONAL_ID_AUTHORIZATION_FAILED;
        assert!(!is_elsewhere(&coordinator(&response(-1, code, None)).unwrap_err()));
    }
}
