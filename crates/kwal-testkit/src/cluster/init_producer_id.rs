//! InitProducerId: hands out producer ids and epochs (KIP-360).

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{InitProducerIdRequest, InitProducerIdResponse},
};

use super::{
    coordinator::Name,
    handler::{Serve, Served},
    request::RequestContext,
    state::Cluster,
};

impl Serve for InitProducerIdRequest {
    fn error_response(&self, _: &Cluster, code: ErrorCode) -> InitProducerIdResponse {
        InitProducerIdResponse { error_code: code, producer_epoch: -1, ..InitProducerIdResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, context: &RequestContext) -> Served<InitProducerIdResponse> {
        let result = match (self.producer_id == -1) != (self.producer_epoch == -1) {
            true => Err(ErrorCode::INVALID_REQUEST),
            false => cluster.init_producer_id(&self, context.from.node),
        };
        Served::Reply(match result {
            Ok((producer_id, producer_epoch)) => {
                InitProducerIdResponse { producer_id, producer_epoch, ..InitProducerIdResponse::default() }
            }
            Err(ErrorCode::PRODUCER_FENCED) if context.version < HAS_FENCED_CODE => {
                self.error_response(cluster, ErrorCode::INVALID_PRODUCER_EPOCH)
            }
            Err(code) => self.error_response(cluster, code),
        })
    }
}

/// The first version with a code for fenced producers.
const HAS_FENCED_CODE: i16 = 4;
/// The epoch that is not handed out any more; the next one is the first of another id.
const LAST_EPOCH: i16 = i16::MAX - 1;
impl Cluster {
    /// Returns a producer id and epoch (KIP-360).
    ///
    /// Without a transactional id, every call returns a new id. With one, it returns the same id and the next
    /// epoch; a caller that names its id and epoch fails if another caller got a newer epoch.
    fn init_producer_id(
        &mut self,
        request: &InitProducerIdRequest,
        node: i32,
    ) -> Result<(i64, i16), ErrorCode> {
        let Some(name) = request.transactional_id.as_deref() else {
            return Ok((self.coordinators.fresh_id(), 0));
        };
        if name.is_empty() {
            return Err(ErrorCode::INVALID_REQUEST);
        }
        let term = self.term(node, name)?;
        let longest = self.settings.broker.number("transaction.max.timeout.ms");
        if !(1..=longest).contains(&request.transaction_timeout_ms.into()) {
            return Err(ErrorCode::INVALID_TRANSACTION_TIMEOUT);
        }
        let held = (request.producer_id >= 0).then_some((request.producer_id, request.producer_epoch));
        let now = self.now.unix_ms;
        self.forget_old_names();
        let coordinators = &mut self.coordinators;
        let known = coordinators.names.get(name).copied();
        let mut known = known.unwrap_or_else(|| Name {
            producer_id: coordinators.fresh_id(),
            previous_id: -1,
            epoch: -1,
            last_epoch: -1,
            coordinator_since: term.since,
            updated_at: now,
        });
        if known.coordinator_since != term.since {
            (known.last_epoch, known.coordinator_since) = (-1, term.since);
        }
        match held {
            Some((id, epoch))
                if known.epoch != -1
                    && id != known.producer_id
                    && !(id == known.previous_id && epoch >= LAST_EPOCH) =>
            {
                return Err(ErrorCode::PRODUCER_FENCED);
            }
            _ if known.epoch >= LAST_EPOCH && held.is_none_or(|(_, epoch)| epoch == known.epoch) => {
                known = Name {
                    producer_id: coordinators.fresh_id(),
                    previous_id: known.producer_id,
                    epoch: 0,
                    last_epoch: held.map_or(-1, |(_, epoch)| epoch),
                    updated_at: now,
                    ..known
                };
            }
            None => (known.last_epoch, known.epoch) = (-1, known.epoch + 1),
            Some((_, epoch)) if known.epoch == -1 || epoch == known.epoch => {
                (known.last_epoch, known.epoch) = (known.epoch, known.epoch + 1);
            }
            // The response to an earlier call was lost. The previous id is forgiven once.
            Some((_, epoch)) if epoch == known.last_epoch => known.previous_id = known.producer_id,
            Some(_) => return Err(ErrorCode::PRODUCER_FENCED),
        }
        if !term.may_write {
            return Err(ErrorCode::COORDINATOR_NOT_AVAILABLE);
        }
        known.updated_at = now;
        coordinators.names.insert(name.to_owned(), known);
        Ok((known.producer_id, known.epoch))
    }

    /// Forgets expired transactional ids, at the interval of Kafka's cleanup.
    fn forget_old_names(&mut self) {
        let after = self.settings.broker.number("transactional.id.expiration.ms");
        let checked_at = self.last_run("transaction.remove.expired.transaction.cleanup.interval.ms");
        self.coordinators.names.retain(|_, name| checked_at.saturating_sub(name.updated_at) <= after);
    }
}
