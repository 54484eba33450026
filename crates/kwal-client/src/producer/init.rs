//! InitProducerId: a producer id for a partition (KIP-98), the next epoch of a transactional id (KIP-360).

use kwal_protocol::{
    api::ApiKey,
    error_code::ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use crate::{
    error::{Error, ErrorKind, InvalidField},
    producer_id::{Identity, ProducerState},
    routing::{Operation, Partition, Rejection, Route},
};

/// Requests the next epoch of a transactional id from its coordinator.
#[derive(Debug)]
pub(super) struct NextEpoch<'a> {
    pub(super) transactional_id: &'a str,
    /// The id and epoch of the holder that goes on. Without, the holder is a new one, and fences those before
    /// it.
    pub(super) held: Option<Identity>,
}

impl NextEpoch<'_> {
    /// How long a transaction may take. None is ever begun, and brokers reject more than they are set to
    /// allow.
    const TRANSACTION_TIMEOUT_MS: i32 = 1_000;
}

impl Operation for NextEpoch<'_> {
    type Request = InitProducerIdRequest;
    type Output = Identity;

    fn request(&self, _: &Route<'_>) -> InitProducerIdRequest {
        let Identity { id, epoch } = self.held.unwrap_or(Identity::NONE);
        InitProducerIdRequest {
            transactional_id: Some(self.transactional_id.to_owned()),
            transaction_timeout_ms: Self::TRANSACTION_TIMEOUT_MS,
            producer_id: id,
            producer_epoch: epoch,
            ..InitProducerIdRequest::default()
        }
    }

    fn response(&self, _: &Route<'_>, response: InitProducerIdResponse) -> Result<Identity, Rejection> {
        match response.error_code {
            // Before version 4, the second one.
            ErrorCode::PRODUCER_FENCED | ErrorCode::INVALID_PRODUCER_EPOCH => {
                return Err(Rejection::Kind(ErrorKind::Fenced));
            }
            code => Rejection::check(code)?,
        }
        let next = Identity {
            id: InvalidField::not_negative("producer_id", response.producer_id)?,
            epoch: response.producer_epoch,
        };
        let first =
            self.held.filter(|held| held.id == next.id).map_or(0, |held| held.epoch.saturating_add(1));
        match (first..=Identity::LAST_EPOCH).contains(&next.epoch) {
            true => Ok(next),
            false => Err(InvalidField { field: "producer_epoch", value: next.epoch.into() }.into()),
        }
    }

    /// The first version that has the id and the epoch of the holder (KIP-360; Kafka 2.5).
    fn oldest_version(&self) -> i16 {
        3
    }
}

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
