//! Requests that any broker can answer: hedged, so that one slow broker does not delay them.

use std::{sync::Arc, time::Duration};

use futures::{StreamExt, stream::FuturesUnordered};
use kwal_protocol::{api::ApiKey, error_code::Recovery};
use tokio::time::timeout;
use tracing::debug;

use super::{Broker, BrokerRef, Closed, ConnectionPool, State, lock};
use crate::{
    connection::CallOptions,
    error::{CallContext, Error, ErrorKind},
    versions::ClientRequest,
};

/// How many of the known brokers a call tries before the bootstrap addresses.
const FEW: usize = 5;

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
        let order = self.order();
        let pause = self.pause(order.len());
        let answer = self.first_answer(request, order, pause, accept).await;
        self.drop_seeds();
        answer
    }

    /// Sends a request to brokers other than the one that answered it before, in the same way. `candidates`
    /// are their ids: the second ones are for the case that there are no others among the first ones, and the
    /// bootstrap addresses come last. `None` if none of them answers soon.
    pub(crate) async fn another_broker<R: ClientRequest>(
        &self,
        request: &R,
        before: BrokerRef,
        candidates: [Vec<i32>; 2],
        accept: impl Fn(&R::Response, &Broker) -> Result<(), Error>,
    ) -> Option<(BrokerRef, R::Response)> {
        let order = self.others(before, candidates);
        let soon = self.pause(1);
        // Each of them gets its turn in that time.
        let pause = soon / (FEW + 1) as u32;
        let answer = timeout(soon, self.first_answer(request, order, pause, accept)).await;
        self.drop_seeds();
        answer.ok()?.ok()
    }

    async fn first_answer<R: ClientRequest>(
        &self,
        request: &R,
        order: Vec<BrokerRef>,
        pause: Duration,
        accept: impl Fn(&R::Response, &Broker) -> Result<(), Error>,
    ) -> Result<(BrokerRef, R::Response), Error> {
        let call = async |broker| {
            let _asked = self.ask(broker);
            let context = CallContext::cluster(R::KEY);
            let result = async {
                let channel = self.general_to(broker, context).await?;
                let options = CallOptions::default();
                let response =
                    channel.call(request, context, R::SUPPORTED, options, &Closed::default()).await?;
                accept(&response, channel.broker()).map(|()| response)
            };
            (broker, result.await)
        };
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
                    if error.recovery() == Recovery::Fail
                        && !error.is_of_this_broker()
                        && !matches!(error.kind(), ErrorKind::MalformedResponse)
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
                    debug!(broker = self.name_of(slow), "no response yet, trying another broker as well");
                    self.set_healthy(slow, false);
                }
                (Err(_), None) => {}
            }
        }
    }

    /// Returns how long to wait for one of so many brokers before the next one is tried as well.
    fn pause(&self, brokers: usize) -> Duration {
        let limit = self.config.deadlines.request.min(self.config.deadlines.connect);
        let share = limit / u32::try_from(brokers).unwrap_or(u32::MAX).max(1);
        // However many addresses there are, only a few are tried at the same time.
        share.clamp(limit / 20, limit / 10)
    }

    fn no_broker(&self, api: ApiKey, mut failed: Vec<(BrokerRef, Error)>) -> Error {
        let is_malformed = |error: &Error| matches!(error.kind(), ErrorKind::MalformedResponse);
        let all_malformed = !failed.is_empty() && failed.iter().all(|(_, error)| is_malformed(error));
        match failed.iter().position(|(_, error)| all_malformed || error.is_of_this_broker()) {
            // There is no other broker to try, and a retry would not help.
            Some(index) => failed.swap_remove(index).1,
            None => {
                let named = |(broker, error)| (self.name_of(broker), error);
                let attempts = failed.into_iter().map(named).collect();
                CallContext::cluster(api).error(ErrorKind::NoBroker { attempts })
            }
        }
    }

    /// Returns the order in which brokers are tried: a few of those that are known, then the bootstrap
    /// addresses.
    fn order(&self) -> Vec<BrokerRef> {
        let state = lock(&self.state);
        let mut order = self.few(&state, state.addresses.keys().copied().collect());
        order.extend((0..self.config.bootstrap.len()).map(BrokerRef::Seed));
        order
    }

    /// Returns a few of the first candidates without one broker; of the second ones, if no others are left;
    /// at last the bootstrap addresses.
    fn others(&self, without: BrokerRef, candidates: [Vec<i32>; 2]) -> Vec<BrokerRef> {
        let state = lock(&self.state);
        let without = match without {
            BrokerRef::Id(id) => state.addresses.get(&id),
            BrokerRef::Seed(index) => self.config.bootstrap.get(index),
        };
        let is_other = |id: &i32| state.addresses.get(id).is_some_and(|address| Some(address) != without);
        let others = candidates.map(|ids| ids.into_iter().filter(is_other).collect::<Vec<_>>());
        if let Some(others) = others.into_iter().find(|others| !others.is_empty()) {
            return self.few(&state, others);
        }
        let addresses = self.config.bootstrap.iter().enumerate();
        let others = addresses.filter(|(_, address)| Some(*address) != without);
        others.map(|(index, _)| BrokerRef::Seed(index)).take(FEW).collect()
    }

    /// Returns a few of some brokers in the order in which they are tried: healthy ones starting at a random
    /// one, then unhealthy ones. Where there are enough, they are brokers that this client has connected to.
    fn few(&self, state: &State, ids: Vec<i32>) -> Vec<BrokerRef> {
        let mut order: Vec<_> = ids.into_iter().map(BrokerRef::Id).collect();
        if order.is_empty() {
            return order;
        }
        // As u64, so that it is the same on machines of 32 and 64 bits.
        let start = self.random.fork().u64(..order.len() as u64);
        order.rotate_left(start as usize);
        let health = |reference: &BrokerRef| {
            state.connections.get(reference).map(|connections| connections.broker.is_healthy())
        };
        let used = order.iter().filter(|reference| health(reference) == Some(true)).count();
        order.sort_by_cached_key(|reference| match health(reference) {
            Some(true) => 0,
            None => i32::from(used >= FEW),
            Some(false) => 2,
        });
        order.truncate(FEW);
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
    use crate::{config::Config, memory::Memory, random::Random};

    const IDS: std::ops::RangeInclusive<i32> = 1..=3;

    /// A pool with two bootstrap addresses.
    fn pool(seed: u64) -> ConnectionPool {
        let bootstrap = vec![HostPort::new("seed", 1), HostPort::new("seed", 2)];
        let config = Config { bootstrap, ..Config::default() };
        ConnectionPool::new(Arc::new(config), Random::new(Some(seed)), Memory::new(1), Handle::current())
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
    async fn of_many_brokers_a_few_are_tried_if_possible_those_in_use() {
        let pool = pool(1);
        let many: BTreeMap<_, _> = (0..20_000).map(|id| (id, HostPort::new("a", 9092))).collect();
        pool.update_brokers(&many);
        let few = |pool: &ConnectionPool| {
            let order = pool.order();
            assert_eq!(order.len(), FEW + 2, "{order:?}");
            assert_eq!(order[FEW..], [BrokerRef::Seed(0), BrokerRef::Seed(1)]);
            order[..FEW].to_vec()
        };
        let first = few(&pool);
        assert_ne!(first, few(&pool));
        for reference in &first {
            pool.connections(&mut lock(&pool.state), *reference).unwrap();
        }
        for _ in 0..10 {
            let mut again = few(&pool);
            again.sort();
            assert_eq!(again, first);
        }
        pool.set_healthy(first[0], false);
        assert!(!few(&pool).contains(&first[0]), "another one takes its place");
    }

    #[tokio::test]
    async fn a_second_opinion_comes_from_another_broker() {
        let pool = pool(1);
        let address = |id: i32| HostPort::new(if id == 3 { "seed" } else { "a" }, id as u16 - 1);
        pool.update_brokers(&(1..=5).map(|id| (id, address(id))).collect());
        for (without, candidates, expected) in [
            (BrokerRef::Id(1), [vec![1, 2, 3], vec![4]], vec![2, 3]),
            (BrokerRef::Id(1), [vec![1], vec![2, 4]], vec![2, 4]),
            // It was known by its bootstrap address.
            (BrokerRef::Seed(1), [vec![2, 3], vec![4]], vec![2]),
            (BrokerRef::Seed(0), [vec![2, 3], vec![4]], vec![2, 3]),
        ] {
            let mut others = pool.others(without, candidates);
            others.sort();
            assert_eq!(others, expected.into_iter().map(BrokerRef::Id).collect::<Vec<_>>(), "{without:?}");
        }
        let [one, two] = [BrokerRef::Seed(0), BrokerRef::Seed(1)];
        assert_eq!(pool.others(BrokerRef::Id(1), [vec![1], vec![]]), [one, two]);
        assert_eq!(pool.others(BrokerRef::Id(3), [vec![9], vec![3, 8]]), [one]);
        assert_eq!(pool.others(one, [vec![], vec![]]), [two]);
    }

    #[tokio::test]
    async fn addresses_follow_each_other_after_a_bounded_pause() {
        let pool = pool(1);
        let second = Duration::from_secs(1);
        for (brokers, pause) in [
            (0, second),
            (1, second),
            (10, second),
            (16, second * 10 / 16),
            (20, second / 2),
            (9000, second / 2),
        ] {
            assert_eq!(pool.pause(brokers), pause, "{brokers}");
        }
    }

    #[tokio::test]
    async fn after_a_reset_the_bootstrap_addresses_remain() {
        let pool = pool(1);
        pool.update_brokers(&brokers());
        let open = [BrokerRef::Id(1), BrokerRef::Seed(0)].map(|reference| {
            let state = &mut *lock(&pool.state);
            Arc::clone(&pool.connections(state, reference).unwrap().broker)
        });
        pool.reset();
        assert!(open.iter().all(|broker| broker.is_retired()));
        assert_eq!(pool.order(), [BrokerRef::Seed(0), BrokerRef::Seed(1)]);
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
