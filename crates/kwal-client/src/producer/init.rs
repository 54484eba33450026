//! InitProducerId: a producer id for a partition (KIP-98).

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use crate::{
    error::{Error, InvalidField},
    producer_id::{Identity, ProducerState},
    routing::Partition,
};

/// Requests a producer id that this client did not have on the partition before. Every broker has some to
/// give out.
pub(super) async fn init_producer_id(partition: &Partition) -> Result<ProducerState, Error> {
    let request = InitProducerIdRequest {
        transactional_id: None,
        transaction_timeout_ms: i32::MAX,
        ..InitProducerIdRequest::default()
    };
    let (call, ids) = (partition.call(ApiKey::INIT_PRODUCER_ID), &partition.cluster.producer_ids);
    let accept = |response: &InitProducerIdResponse| {
        let producer = producer_state(response)?;
        match ids.is_known(&partition.key(), producer.identity.id) {
            false => Ok(producer),
            true => Err(Error::from(InvalidField { field: "producer_id", value: producer.identity.id })),
        }
    };
    let (_, response) = partition
        .cluster
        .pool
        .any_broker(&request, |response, broker| match accept(response) {
            Ok(_) => Ok(()),
            Err(error) => {
                if error.code() == Some(ErrorCode::REBOOTSTRAP_REQUIRED) {
                    partition.cluster.metadata.rebootstrap(broker);
                }
                Err(error.with_context(call.at_broker(broker)))
            }
        })
        .await?;
    let producer = accept(&response).map_err(|error| error.with_context(call.context()))?;
    ids.note(partition.key(), producer.identity.id);
    Ok(producer)
}

/// Interprets the response. On the wire, a negative id or epoch stands for a producer without an id.
fn producer_state(response: &InitProducerIdResponse) -> Result<ProducerState, Error> {
    let InitProducerIdResponse { error_code, producer_id, producer_epoch, .. } = *response;
    error_code.ok().map_err(Error::broker)?;
    let id = InvalidField::not_negative("producer_id", producer_id)?;
    InvalidField::not_negative("producer_epoch", producer_epoch.into())?;
    let identity = Identity { id, epoch: producer_epoch };
    Ok(ProducerState { identity, next_sequence: 0, last_acknowledged: None })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::{ErrorKind, Source};

    #[test]
    fn an_id_and_an_epoch_are_not_negative() {
        let state = |producer_id, producer_epoch, error_code| {
            producer_state(&InitProducerIdResponse {
                producer_id,
                producer_epoch,
                error_code,
                ..Default::default()
            })
        };
        for (id, epoch) in [(0, 0), (17, 3), (i64::MAX, i16::MAX)] {
            let identity = Identity { id, epoch };
            let expected = ProducerState { identity, next_sequence: 0, last_acknowledged: None };
            assert_eq!(state(id, epoch, ErrorCode::NONE).unwrap(), expected);
        }
        for (id, epoch, field, value) in [
            (-1, 0, "producer_id", -1),
            (i64::MIN, 0, "producer_id", i64::MIN),
            (-1, -1, "producer_id", -1),
            (17, -1, "producer_epoch", -1),
            (17, i16::MIN, "producer_epoch", i16::MIN.into()),
        ] {
            let error = state(id, epoch, ErrorCode::NONE).unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::MalformedResponse), "{error:?}");
            let Some(Source::Field(found)) = error.below() else { panic!("{error:?}") };
            assert_eq!(*found, InvalidField { field, value });
        }
        let refused = state(-1, -1, ErrorCode::COORDINATOR_LOAD_IN_PROGRESS).unwrap_err();
        assert_eq!(refused.code(), Some(ErrorCode::COORDINATOR_LOAD_IN_PROGRESS));
    }
}
