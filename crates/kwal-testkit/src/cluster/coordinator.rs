//! Who coordinates transactional ids, and which producer ids and epochs they have. Transactions themselves there are none.

use std::collections::BTreeMap;

use kwal_protocol::{
    error_code::ErrorCode,
    messages::{
        Coordinator, FindCoordinatorRequest, FindCoordinatorResponse, InitProducerIdRequest,
        InitProducerIdResponse,
    },
};
use kwal_transport::HostPort;

use super::{Arrival, Cluster, Serve, Served};

/// What coordinators know.
#[derive(Debug)]
pub(super) struct Coordinators {
    names: BTreeMap<String, Name>,
    next_producer_id: i64,
    /// The brokers that have the log of the transactional ids: those that there were when it was made.
    brokers: Vec<i32>,
}

/// What a transactional id stands for.
#[derive(Clone, Copy, Debug)]
struct Name {
    producer_id: i64,
    /// The id before the last was used up; −1 if there was none.
    previous_id: i64,
    epoch: i16,
    /// The epoch of the holder who asked for this one; −1 if somebody else did.
    last_epoch: i16,
    /// In milliseconds since the epoch.
    updated_at: i64,
}

impl Default for Coordinators {
    fn default() -> Self {
        // As from the second block of a controller, so that it is told apart from a forgotten field.
        Self { names: BTreeMap::new(), next_producer_id: 1000, brokers: Vec::new() }
    }
}

impl Serve for FindCoordinatorRequest {
    fn refuse(&self, _: &Cluster, code: ErrorCode) -> FindCoordinatorResponse {
        let nowhere = |key: &String| found(key, (NOBODY, HostPort::new("", 0)), code);
        match self.key.is_empty() {
            true => FindCoordinatorResponse {
                coordinators: self.coordinator_keys.iter().map(nowhere).collect(),
                ..FindCoordinatorResponse::default()
            },
            // Of a version that asks for one.
            false => FindCoordinatorResponse {
                error_code: code,
                error_message: code.text().map(str::to_owned),
                node_id: NOBODY,
                port: -1,
                ..FindCoordinatorResponse::default()
            },
        }
    }

    fn serve(self, cluster: &mut Cluster, arrival: &Arrival) -> Served<FindCoordinatorResponse> {
        let version = arrival.exchange.version;
        if self.key_type != TRANSACTION {
            // Of groups there are none.
            let code = match self.key_type {
                GROUP => ErrorCode::COORDINATOR_NOT_AVAILABLE,
                _ => ErrorCode::INVALID_REQUEST,
            };
            return Served::Reply(self.refuse(cluster, code));
        }
        let known = cluster.endpoints(arrival.exchange.from.node);
        let find = |key: &String, cluster: &mut Cluster| {
            let broker = cluster.coordinator(key);
            match broker.and_then(|broker| known.get(&broker).map(|at| (broker, at.clone()))) {
                Some(at) => found(key, at, ErrorCode::NONE),
                None => found(key, (NOBODY, HostPort::new("", 0)), ErrorCode::COORDINATOR_NOT_AVAILABLE),
            }
        };
        if version >= SEVERAL {
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
/// The first version that asks for several keys at once (KIP-699).
const SEVERAL: i16 = 4;
/// What keys are.
const GROUP: i8 = 0;
const TRANSACTION: i8 = 1;

impl Serve for InitProducerIdRequest {
    fn refuse(&self, _: &Cluster, code: ErrorCode) -> InitProducerIdResponse {
        InitProducerIdResponse { error_code: code, producer_epoch: -1, ..InitProducerIdResponse::default() }
    }

    fn serve(self, cluster: &mut Cluster, arrival: &Arrival) -> Served<InitProducerIdResponse> {
        let result = match (self.producer_id == -1) != (self.producer_epoch == -1) {
            true => Err(ErrorCode::INVALID_REQUEST),
            false => cluster.init_producer_id(&self, arrival.exchange.from.node),
        };
        Served::Reply(match result {
            Ok((producer_id, producer_epoch)) => {
                InitProducerIdResponse { producer_id, producer_epoch, ..InitProducerIdResponse::default() }
            }
            Err(ErrorCode::PRODUCER_FENCED) if arrival.exchange.version < KNOWS_FENCED => {
                self.refuse(cluster, ErrorCode::INVALID_PRODUCER_EPOCH)
            }
            Err(code) => self.refuse(cluster, code),
        })
    }
}

/// The first version that has a code for the fenced.
const KNOWS_FENCED: i16 = 4;
/// The epoch that is not handed out any more: the next is the first of another id.
const LAST_EPOCH: i16 = i16::MAX - 1;
/// How many brokers have the log of the transactional ids.
const REPLICAS: usize = 3;

impl Cluster {
    /// Without a transactional id, every call gets an id of its own, whatever id it brings. With one, it is the same id and an
    /// epoch more; who brings the id and epoch that it holds gets that only if nobody else has asked since (KIP-360).
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
        if self.coordinator(name) != Some(node) {
            return Err(ErrorCode::NOT_COORDINATOR);
        }
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
            updated_at: now,
        });
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
                };
            }
            None => (known.last_epoch, known.epoch) = (-1, known.epoch + 1),
            Some((_, epoch)) if known.epoch == -1 || epoch == known.epoch => {
                (known.last_epoch, known.epoch) = (known.epoch, known.epoch + 1);
            }
            // The answer to an earlier call was lost.
            Some((_, epoch)) if epoch == known.last_epoch => {}
            Some(_) => return Err(ErrorCode::PRODUCER_FENCED),
        }
        known.updated_at = now;
        coordinators.names.insert(name.to_owned(), known);
        Ok((known.producer_id, known.epoch))
    }

    /// The broker that coordinates a transactional id, if one lives that could.
    pub(crate) fn coordinator(&mut self, name: &str) -> Option<i32> {
        if self.coordinators.brokers.is_empty() {
            self.coordinators.brokers = self.alive().take(REPLICAS).collect();
        }
        let brokers = &self.coordinators.brokers;
        let first = java_hash(name) as usize % brokers.len().max(1);
        let in_turn = brokers.iter().cycle().skip(first).take(brokers.len());
        in_turn.copied().find(|broker| self.is_alive(*broker))
    }

    /// Forgets what a transactional id stood for, as `transactional.id.expiration.ms` does; `false` if it was not known.
    pub(crate) fn forget_name(&mut self, name: &str) -> bool {
        self.coordinators.names.remove(name).is_some()
    }

    /// Names are forgotten when somebody looks, which is every so often.
    fn forget_old_names(&mut self) {
        let after = self.settings.broker.number("transactional.id.expiration.ms");
        let looked_at = self.looked_at("transaction.remove.expired.transaction.cleanup.interval.ms");
        self.coordinators.names.retain(|_, name| looked_at.saturating_sub(name.updated_at) <= after);
    }
}

impl Coordinators {
    fn fresh_id(&mut self) -> i64 {
        let id = self.next_producer_id;
        self.next_producer_id += 1;
        id
    }
}

/// By which Kafka finds the coordinator's partition: `String.hashCode`, without its sign.
fn java_hash(text: &str) -> u32 {
    let hash =
        text.encode_utf16().fold(0_i32, |hash, unit| hash.wrapping_mul(31).wrapping_add(i32::from(unit)));
    hash.unsigned_abs() & (i32::MAX as u32)
}

#[cfg(test)]
mod tests {
    use super::java_hash;

    #[test]
    fn the_hash_is_that_of_java() {
        for (text, hash) in [("", 0), ("a", 97), ("hello", 99_162_322), ("polygenelubricants", 0)] {
            assert_eq!(java_hash(text), hash, "{text}");
        }
    }
}
