//! The connections: which there are to each broker, and who shares them.

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use kwal_transport::HostPort;
use tokio::{sync::Notify, time::Instant};

use crate::{
    driver::Link,
    error::{Error, Recovery},
};

/// All connections of a client.
///
/// Requests of one connection are worked on one at a time, so what may take long (an append that waits for replicas, a
/// fetch that waits for records) has its own. A partition client has a [`Seat`] on a lane to the broker that leads it: on
/// one of its own for as long as there are fewer than `limit`, else on the one that the fewest others sit on. Who goes, to
/// another leader or for good, leaves the seat; a lane without seats and calls is closed.
#[derive(Debug)]
pub(crate) struct Lanes {
    limit: usize,
    peers: Mutex<BTreeMap<Target, Roads>>,
}

/// What is short, and what may take long.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum LaneKind {
    /// The one connection for whatever is short.
    Shared,
    /// Appends of some partition clients.
    Produce,
    /// Reads of some partition clients.
    Fetch,
}

#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub(crate) enum Target {
    Broker(i32),
    /// A bootstrap address by its index: used until the brokers are known, and when none of them answers.
    Bootstrap(usize),
}

/// A connection, or where one is to be.
#[derive(Debug)]
pub(crate) struct Lane {
    pub(crate) peer: Arc<Peer>,
    pub(crate) kind: LaneKind,
    seats: AtomicUsize,
    link: Mutex<Option<Link>>,
    /// Held while a connection is made, so that those who share it make one.
    pub(crate) turn: tokio::sync::Mutex<()>,
}

/// A broker at an address.
#[derive(Debug)]
pub(crate) struct Peer {
    pub(crate) target: Target,
    pub(crate) address: HostPort,
    failed: Mutex<Failures>,
    suspect: AtomicBool,
    gone: AtomicBool,
    /// Wakes those that wait for that, in the order in which they came: who waits at a `watch` is woken in any.
    goes: Notify,
}

/// Attempts to connect that failed.
#[derive(Debug, Default)]
struct Failures {
    count: u64,
    /// The last one, unless there was a connection since.
    last: Option<(Instant, Error)>,
}

/// The lanes to one broker.
#[derive(Debug)]
struct Roads {
    peer: Arc<Peer>,
    shared: Arc<Lane>,
    produce: Vec<Weak<Lane>>,
    fetch: Vec<Weak<Lane>>,
}

/// A partition client's place on a lane.
#[derive(Debug)]
struct Seat(Arc<Lane>);

/// The seat of a partition client for appends or for reads: on a lane to the broker that leads it.
#[derive(Debug)]
pub(crate) struct Share {
    kind: LaneKind,
    seat: Mutex<Option<Seat>>,
}

impl Lanes {
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), peers: Mutex::default() }
    }

    /// The lane for what is short. `None` if there is no such broker, as `address` has it.
    pub(crate) fn shared(
        &self,
        target: Target,
        address: impl FnOnce() -> Option<HostPort>,
    ) -> Option<Arc<Lane>> {
        let mut peers = lock(&self.peers);
        Some(Arc::clone(&roads(&mut peers, target, address)?.shared))
    }

    /// The lane of a partition client to a broker. `None` if there is no such broker, as `address` has it.
    pub(crate) fn of(
        &self,
        share: &Share,
        target: Target,
        address: impl FnOnce() -> Option<HostPort>,
    ) -> Option<Arc<Lane>> {
        let mut seat = lock(&share.seat);
        if let Some(Seat(lane)) = &*seat
            && lane.peer.target == target
            && !lane.peer.is_gone()
        {
            return Some(Arc::clone(lane));
        }
        // The old one is left first: the lane may be the same.
        *seat = None;
        let mut peers = lock(&self.peers);
        let taken = roads(&mut peers, target, address)?.seat(share.kind, self.limit);
        Some(Arc::clone(&seat.insert(taken).0))
    }

    /// Lets go of all brokers but those that `stays` says of. Calls on their connections end.
    pub(crate) fn retire(&self, stays: impl Fn(Target, &HostPort) -> bool) {
        lock(&self.peers).retain(|&target, roads| {
            let stays = stays(target, &roads.peer.address);
            // What a bootstrap address has begun to answer, it may.
            if !stays && matches!(target, Target::Broker(_)) {
                roads.peer.go();
                roads.lanes().for_each(|lane| lane.close());
            }
            stays
        });
    }

    /// Lets go of the bootstrap addresses that nobody waits for.
    pub(crate) fn leave_bootstrap(&self) {
        lock(&self.peers).retain(|target, roads| {
            matches!(target, Target::Broker(_)) || Arc::strong_count(&roads.shared) > 1
        });
    }

    /// Whether it is better to ask another broker.
    pub(crate) fn is_suspect(&self, target: Target) -> bool {
        lock(&self.peers).get(&target).is_some_and(|roads| roads.peer.suspect.load(Ordering::Relaxed))
    }

    /// Says of a broker whether it is better to ask another one, from now on.
    pub(crate) fn suspect(&self, target: Target, suspect: bool) {
        if let Some(roads) = lock(&self.peers).get(&target) {
            roads.peer.suspect(suspect);
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn roads(
    peers: &mut BTreeMap<Target, Roads>,
    target: Target,
    address: impl FnOnce() -> Option<HostPort>,
) -> Option<&mut Roads> {
    Some(match peers.entry(target) {
        Entry::Occupied(known) => known.into_mut(),
        Entry::Vacant(free) => {
            let peer = Arc::new(Peer {
                target,
                address: address()?,
                failed: Mutex::default(),
                suspect: AtomicBool::new(false),
                gone: AtomicBool::new(false),
                goes: Notify::new(),
            });
            let shared = Lane::new(&peer, LaneKind::Shared);
            free.insert(Roads { peer, shared, produce: Vec::new(), fetch: Vec::new() })
        }
    })
}

impl Roads {
    fn lanes(&self) -> impl Iterator<Item = Arc<Lane>> {
        let taken = self.produce.iter().chain(&self.fetch).filter_map(Weak::upgrade);
        taken.chain([Arc::clone(&self.shared)])
    }

    fn seat(&mut self, kind: LaneKind, limit: usize) -> Seat {
        let lanes = match kind {
            LaneKind::Shared => return Seat::on(Arc::clone(&self.shared)),
            LaneKind::Produce => &mut self.produce,
            LaneKind::Fetch => &mut self.fetch,
        };
        lanes.retain(|lane| lane.strong_count() > 0);
        if lanes.len() >= limit {
            let open = lanes.iter().filter_map(Weak::upgrade);
            if let Some(lane) = open.min_by_key(|lane| lane.seats.load(Ordering::Relaxed)) {
                return Seat::on(lane);
            }
        }
        let lane = Lane::new(&self.peer, kind);
        lanes.push(Arc::downgrade(&lane));
        Seat::on(lane)
    }
}

impl Seat {
    fn on(lane: Arc<Lane>) -> Self {
        lane.seats.fetch_add(1, Ordering::Relaxed);
        Self(lane)
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.seats.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Share {
    pub(crate) fn new(kind: LaneKind) -> Self {
        Self { kind, seat: Mutex::default() }
    }
}

impl Lane {
    fn new(peer: &Arc<Peer>, kind: LaneKind) -> Arc<Self> {
        Arc::new(Self {
            peer: Arc::clone(peer),
            kind,
            seats: AtomicUsize::new(0),
            link: Mutex::default(),
            turn: tokio::sync::Mutex::default(),
        })
    }

    /// The connection, if it is there.
    pub(crate) fn link(&self) -> Option<Link> {
        lock(&self.link).as_ref().filter(|link| link.is_open()).cloned()
    }

    /// Keeps a connection for those who share it.
    pub(crate) fn keep(&self, link: &Link) {
        let mut kept = lock(&self.link);
        // Looked at under the lock, since it is closed under it too.
        *kept = (!self.peer.is_gone()).then(|| link.clone());
    }

    fn close(&self) {
        lock(&self.link).take();
    }
}

impl Peer {
    /// How many attempts to connect have failed.
    pub(crate) fn failures(&self) -> u64 {
        lock(&self.failed).count
    }

    /// The last attempt to connect on whatever lane, if it failed while somebody waited who had seen `before` failures, or a
    /// moment ago: it speaks for all who want to connect. One that will not mend by itself may have been mended by now.
    pub(crate) fn failed_since(&self, before: u64, moment: Duration) -> Option<Error> {
        let failed = lock(&self.failed);
        let (at, error) = failed.last.as_ref()?;
        let is_fresh = || at.elapsed() < moment && error.recovery() != Recovery::Fail;
        (failed.count != before || is_fresh()).then(|| error.clone())
    }

    pub(crate) fn has_failed(&self, error: &Error) {
        let mut failed = lock(&self.failed);
        failed.count += 1;
        failed.last = Some((Instant::now(), error.clone()));
        self.suspect(true);
    }

    pub(crate) fn has_connected(&self) {
        lock(&self.failed).last = None;
        self.suspect(false);
    }

    /// Says whether it is better to ask another broker: with this one there was trouble, and nothing good since.
    pub(crate) fn suspect(&self, suspect: bool) {
        self.suspect.store(suspect, Ordering::Relaxed);
    }

    fn go(&self) {
        self.gone.store(true, Ordering::Release);
        self.goes.notify_waiters();
    }

    fn is_gone(&self) -> bool {
        self.gone.load(Ordering::Acquire)
    }

    /// When there is no such broker any more, or it is elsewhere.
    pub(crate) async fn gone(&self) {
        // From before it is looked at, so that it is not missed.
        let goes = self.goes.notified();
        if !self.is_gone() {
            goes.await;
        }
    }
}

/// What a broker is called in errors and logs.
impl fmt::Display for Peer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.target {
            Target::Broker(id) => write!(f, "broker {id} ({})", self.address),
            Target::Bootstrap(_) => self.address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(port: u16) -> impl Fn() -> Option<HostPort> {
        move || Some(HostPort::new("a", port))
    }

    /// The lane of each share at one broker, and how many lanes there are.
    fn spread(lanes: &Lanes, shares: &[Share], target: Target) -> (Vec<usize>, usize) {
        let taken: Vec<_> = shares.iter().map(|share| lanes.of(share, target, at(1)).unwrap()).collect();
        let mut different: Vec<_> = taken.iter().map(Arc::as_ptr).collect();
        different.sort();
        different.dedup();
        (
            different
                .iter()
                .map(|lane| taken.iter().filter(|one| Arc::as_ptr(one) == *lane).count())
                .collect(),
            different.len(),
        )
    }

    fn shares(count: usize) -> Vec<Share> {
        (0..count).map(|_| Share::new(LaneKind::Produce)).collect()
    }

    #[test]
    fn each_broker_has_its_load_spread_also_when_leaders_move() {
        let lanes = Lanes::new(4);
        let (one, two) = (Target::Broker(1), Target::Broker(2));
        // Leaders by turns, as a topic's partitions have them: what counts is the load of each broker.
        let (odd, even) = (shares(10), shares(10));
        for (a, b) in odd.iter().zip(&even) {
            lanes.of(a, one, at(1)).unwrap();
            lanes.of(b, two, at(1)).unwrap();
        }
        for (shares, target) in [(&odd, one), (&even, two)] {
            let (counts, lanes) = spread(&lanes, shares, target);
            assert_eq!((counts.iter().max(), counts.iter().min(), lanes), (Some(&3), Some(&2), 4));
        }
        // All to one, and those that were there stay where they are.
        let before = lanes.of(&odd[0], one, at(1)).unwrap();
        let all: Vec<_> = odd.into_iter().chain(even).collect();
        let (counts, count) = spread(&lanes, &all, one);
        assert_eq!((counts, count), (vec![5; 4], 4));
        assert!(Arc::ptr_eq(&before, &lanes.of(&all[0], one, at(1)).unwrap()));
    }

    #[test]
    fn a_lane_goes_with_the_last_who_has_a_seat_on_it() {
        let lanes = Lanes::new(4);
        let target = Target::Broker(1);
        let (one, two) = (Share::new(LaneKind::Fetch), Share::new(LaneKind::Fetch));
        let first = Arc::downgrade(&lanes.of(&one, target, at(1)).unwrap());
        lanes.of(&two, target, at(1)).unwrap();
        assert_eq!(first.strong_count(), 1);
        drop(one);
        assert_eq!(first.strong_count(), 0);
        // Reads and appends do not meet.
        let append = Share::new(LaneKind::Produce);
        assert_ne!(
            lanes.of(&append, target, at(1)).unwrap().kind,
            lanes.of(&two, target, at(1)).unwrap().kind
        );
    }

    /// In any other order, the same seed would not be the same history.
    #[tokio::test]
    async fn those_who_wait_for_a_broker_to_go_are_woken_in_the_order_in_which_they_came() {
        let lanes = Lanes::new(1);
        let lane = lanes.shared(Target::Broker(1), at(1)).unwrap();
        let woken = Arc::new(Mutex::new(Vec::new()));
        let waits: Vec<_> = (0..40)
            .map(|number| {
                let (lane, woken) = (Arc::clone(&lane), Arc::clone(&woken));
                tokio::spawn(async move {
                    lane.peer.gone().await;
                    lock(&woken).push(number);
                })
            })
            .collect();
        tokio::task::yield_now().await;
        lanes.retire(|_, _| false);
        for wait in waits {
            wait.await.unwrap();
        }
        assert!(lock(&woken).iter().copied().eq(0..40), "{woken:?}");
        lane.peer.gone().await;
    }

    #[test]
    fn a_broker_that_was_let_go_is_another_one_when_it_comes_back() {
        let lanes = Lanes::new(4);
        let target = Target::Broker(1);
        let share = Share::new(LaneKind::Produce);
        let old = lanes.of(&share, target, at(1)).unwrap();
        lanes.retire(|_, address| address.port == 1);
        assert!(Arc::ptr_eq(&old, &lanes.of(&share, target, at(2)).unwrap()), "it is where it was");
        lanes.retire(|_, address| address.port == 2);
        let new = lanes.of(&share, target, at(2)).unwrap();
        assert_eq!((old.peer.is_gone(), new.peer.is_gone(), new.peer.address.port), (true, false, 2));
        lanes.retire(|_, _| false);
        assert!(lanes.of(&share, target, || None).is_none());
    }
}
