//! Requests that any broker can answer: hedged, so that one slow broker does not delay them.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use kwal_protocol::{api::ApiKey, error_code::Recovery};
use tokio::time::timeout;
use tracing::debug;

use super::{Broker, BrokerRef, ConnectionPool, lock};
use crate::{
    connection::CallOptions,
    error::{CallContext, Error, ErrorKind},
    versions::ClientRequest,
};

impl ConnectionPool {
    /// Sends a request to brokers until one answers in a way that `accept` accepts. Returns which one it was.
    ///
    /// Brokers are tried one after the other; while one is slow, the next one is tried as well. `accept` gets
    /// the broker for its error. Connections to bootstrap addresses are dropped once brokers are known.
    pub(crate) async fn any_broker<R: ClientRequest>(
        &self,
        request: &R,
        accept: impl Fn(&R::Response, &Broker) -> Result<(), Error>,
    ) -> Result<(BrokerRef, R::Response), Error> {
        let answer = self.first_answer(request, accept).await;
        self.drop_seeds();
        answer
    }

    async fn first_answer<R: ClientRequest>(
        &self,
        request: &R,
        accept: impl Fn(&R::Response, &Broker) -> Result<(), Error>,
    ) -> Result<(BrokerRef, R::Response), Error> {
        let call = async |broker| {
            let context = CallContext::cluster(R::KEY);
            let result = async {
                let channel = self.general_to(broker, context).await?;
                let response = channel.call(request, context, R::SUPPORTED, CallOptions::default()).await?;
                accept(&response, channel.broker()).map(|()| response)
            };
            (broker, result.await)
        };
        let order = self.order();
        let pause = self.config.deadlines.request.min(self.config.deadlines.connect);
        let pause = (pause / 10).min(pause / u32::try_from(order.len()).unwrap_or(u32::MAX).max(1));
        let mut order = order.into_iter().peekable();
        let mut calls = FuturesUnordered::new();
        let mut last = None;
        let mut failed = Vec::new();
        loop {
            if let Some(broker) = order.next() {
                last = Some(broker);
                calls.push(call(broker));
            }
            let next = match patience(last, order.peek(), pause, self.config.deadlines.request) {
                Some(patience) => timeout(patience, calls.next()).await,
                None => Ok(calls.next().await),
            };
            match (next, last) {
                (Ok(Some((broker, Ok(response)))), _) => {
                    self.set_healthy(broker, true);
                    return Ok((broker, response));
                }
                // Another broker would not help.
                (Ok(Some((_, Err(error)))), _)
                    if error.recovery() == Recovery::Fail && !error.is_of_this_broker()
                        || matches!(error.kind(), ErrorKind::CredentialsUnavailable) =>
                {
                    return Err(error);
                }
                (Ok(Some((broker, Err(error)))), _) => {
                    self.set_healthy(broker, false);
                    failed.push((broker, error));
                }
                (Ok(None), _) => return Err(self.no_broker(R::KEY, failed)),
                (Err(_), Some(slow)) => {
                    debug!(broker = self.name(slow), "no response yet, trying another broker as well");
                    self.set_healthy(slow, false);
                }
                (Err(_), None) => {}
            }
        }
    }

    fn no_broker(&self, api: ApiKey, mut failed: Vec<(BrokerRef, Error)>) -> Error {
        match failed.iter().position(|(_, error)| error.is_of_this_broker()) {
            // There is no other broker to try, and a retry would not help.
            Some(index) => failed.swap_remove(index).1,
            None => {
                let named = |(broker, error)| (self.name(broker), error);
                let attempts = failed.into_iter().map(named).collect();
                CallContext::cluster(api).error(ErrorKind::NoBroker { attempts })
            }
        }
    }

    /// Returns the order in which brokers are tried: healthy ones starting at a random one, then unhealthy
    /// ones, then the bootstrap addresses.
    fn order(&self) -> Vec<BrokerRef> {
        let state = lock(&self.state);
        let mut order: Vec<_> = state.addresses.keys().copied().map(BrokerRef::Id).collect();
        if !order.is_empty() {
            // As u64, so that it is the same on machines of 32 and 64 bits.
            let start = self.random.fork().u64(..order.len() as u64);
            order.rotate_left(start as usize);
            order.sort_by_cached_key(|reference| {
                state.connections.get(reference).is_some_and(|connections| !connections.broker.is_healthy())
            });
        }
        order.extend((0..self.config.bootstrap.len()).map(BrokerRef::Seed));
        order
    }

    pub(super) fn set_healthy(&self, reference: BrokerRef, is_healthy: bool) {
        if let Some(connections) = lock(&self.state).connections.get(&reference) {
            match is_healthy {
                true => connections.broker.mark_healthy(),
                false => connections.broker.mark_unhealthy(),
            }
        }
    }

    /// Drops the bootstrap connections that no call uses, once brokers are known.
    fn drop_seeds(&self) {
        let state = &mut *lock(&self.state);
        if !state.addresses.is_empty() {
            state.connections.retain(|reference, connections| {
                matches!(reference, BrokerRef::Id(_)) || Arc::strong_count(&connections.general) > 1
            });
        }
    }
}

/// Returns how long to wait before the next broker is tried as well.
fn patience(
    last: Option<BrokerRef>,
    next: Option<&BrokerRef>,
    pause: Duration,
    request: Duration,
) -> Option<Duration> {
    match (last, next?) {
        // A slow response is not a reason yet to start again from the bootstrap addresses.
        (Some(BrokerRef::Id(_)), BrokerRef::Seed(_)) => Some(request / 2),
        _ => Some(pause),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use kwal_transport::HostPort;
    use tokio::runtime::Handle;

    use super::*;
    use crate::{config::Config, random::Random};

    const IDS: std::ops::RangeInclusive<i32> = 1..=3;

    /// A pool with two bootstrap addresses.
    fn pool(seed: u64) -> ConnectionPool {
        let bootstrap = vec![HostPort::new("seed", 1), HostPort::new("seed", 2)];
        let config = Config { bootstrap, ..Config::default() };
        ConnectionPool::new(Arc::new(config), Random::new(Some(seed)), Handle::current())
    }

    fn brokers() -> BTreeMap<i32, HostPort> {
        IDS.map(|id| (id, HostPort::new("a", 9092))).collect()
    }

    #[tokio::test]
    async fn healthy_brokers_come_first_and_bootstrap_addresses_last() {
        let seeds = [BrokerRef::Seed(0), BrokerRef::Seed(1)];
        let mut first = [0; 4];
        for seed in 0..100 {
            let pool = pool(seed);
            assert_eq!(pool.order(), seeds);
            pool.update_brokers(&brokers());
            {
                let state = &mut *lock(&pool.state);
                for id in IDS {
                    pool.connections(state, BrokerRef::Id(id)).unwrap();
                }
            }
            pool.mark_unhealthy(2);
            let order = pool.order();
            assert_eq!(order[2..], [BrokerRef::Id(2), seeds[0], seeds[1]], "{order:?}");
            let BrokerRef::Id(id) = order[0] else { panic!("{order:?}") };
            first[id as usize] += 1;
            pool.set_healthy(BrokerRef::Id(2), true);
            assert_eq!(pool.order().len(), 5);
        }
        assert!(first[1] > 20 && first[3] > 20, "not all start at the same one: {first:?}");
    }

    #[tokio::test]
    async fn bootstrap_connections_go_once_brokers_are_known_and_no_call_uses_them() {
        let pool = pool(1);
        let known = || lock(&pool.state).connections.keys().copied().collect::<Vec<_>>();
        let used = {
            let state = &mut *lock(&pool.state);
            pool.connections(state, BrokerRef::Seed(0)).unwrap();
            Arc::clone(&pool.connections(state, BrokerRef::Seed(1)).unwrap().general)
        };
        pool.drop_seeds();
        assert_eq!(known(), [BrokerRef::Seed(0), BrokerRef::Seed(1)]);
        lock(&pool.state).addresses = brokers();
        pool.drop_seeds();
        assert_eq!(known(), [BrokerRef::Seed(1)]);
        drop(used);
        pool.drop_seeds();
        assert_eq!(known(), []);
    }

    #[test]
    fn a_slow_broker_is_given_longer_than_the_bootstrap_address_after_it() {
        let (pause, request) = (Duration::from_secs(1), Duration::from_secs(10));
        let (id, seed) = (BrokerRef::Id(1), BrokerRef::Seed(0));
        for (last, next, expected) in [
            (None, Some(id), Some(pause)),
            (None, Some(seed), Some(pause)),
            (Some(id), Some(id), Some(pause)),
            (Some(seed), Some(seed), Some(pause)),
            (Some(id), Some(seed), Some(request / 2)),
            (Some(id), None, None),
            (None, None, None),
        ] {
            assert_eq!(patience(last, next.as_ref(), pause, request), expected, "{last:?} {next:?}");
        }
    }
}
