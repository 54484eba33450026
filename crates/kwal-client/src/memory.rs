//! The client's memory budget.

use std::{
    collections::VecDeque,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use tokio::sync::oneshot;

use crate::{
    locked::{Locked, Owner},
    metrics::{BudgetMetrics, UsageMetrics},
    state::MemoryState,
};

/// One unit of the budget, in bytes.
const UNIT: usize = 1024;

/// The bytes that the appends and reads of a client may hold: appends from before they are encoded until they
/// are acknowledged, reads from before they are sent until they are handed over.
///
/// Appends and reads may each hold three quarters of it, so that a quarter is always left to the other.
/// Within each, those that wait get their parts in the order in which they came.
#[derive(Clone, Debug)]
pub(crate) struct Memory(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    /// In units.
    total: usize,
    /// How many units appends may hold, and reads as many.
    share: usize,
    state: Mutex<State>,
    /// Of appends and of reads.
    metrics: [UsageMetrics; 2],
    _metrics: BudgetMetrics,
}

/// What has changed is recorded when the state is unlocked: the recorder is foreign code, which may ask for
/// the state of the client.
impl Owner for Shared {
    type State = State;

    fn unlock(&self, mut state: MutexGuard<'_, State>) {
        let now = state.held();
        let before = std::mem::replace(&mut state.recorded, now);
        drop(state);
        for ((metrics, before), now) in self.metrics.iter().zip(before).zip(now) {
            if before != now {
                metrics.changed(before.saturating_mul(UNIT), now.saturating_mul(UNIT));
            }
        }
    }
}

#[derive(Debug, Default)]
struct State {
    appends: Usage,
    reads: Usage,
    /// How many units reads hold that nobody waits for yet.
    ahead: usize,
    /// How many have waited.
    waited: u64,
    /// What appends and reads held when it was unlocked last.
    recorded: [usize; 2],
}

/// What appends or reads hold, and wait for.
#[derive(Debug, Default)]
struct Usage {
    /// More than their share after responses that were larger than requested: a debt, which is paid by what
    /// is given back before anything else is granted.
    held: usize,
    waiting: VecDeque<Waiting>,
}

#[derive(Debug)]
struct Waiting {
    units: usize,
    /// Its number among all that have waited.
    number: u64,
    granted: oneshot::Sender<Reservation>,
}

/// Whether memory is for appends or for reads.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Appends,
    Reads,
}

/// Reservations that have been granted, to be handed over without the lock: one that nobody waits for any
/// more gives itself back.
type Grants = Vec<(oneshot::Sender<Reservation>, Reservation)>;

impl Memory {
    pub(crate) fn new(bytes: usize) -> Self {
        let units = bytes / UNIT;
        let share = (units - units.div_ceil(4)).max(1);
        let total = units.max(2);
        let (metrics, state) = (["appends", "reads"].map(UsageMetrics::new), Mutex::default());
        let _metrics = BudgetMetrics::new(total.saturating_mul(UNIT));
        Self(Arc::new(Shared { total, share, state, metrics, _metrics }))
    }

    /// Waits until an append may hold so many bytes. First come, first served.
    ///
    /// More than the share of appends counts as all of it: one batch that exceeds it goes out alone.
    pub(crate) async fn reserve_append(&self, bytes: usize) -> Reservation {
        self.reserve(Side::Appends, bytes).await
    }

    /// Waits until a read may hold so many bytes. First come, first served.
    ///
    /// More than the share of reads counts as all of it.
    pub(crate) async fn reserve_read(&self, bytes: usize) -> Reservation {
        self.reserve(Side::Reads, bytes).await
    }

    /// Reserves bytes for an append, if there is room now and no other append waits for it.
    pub(crate) fn try_reserve_append(&self, bytes: usize) -> Option<Reservation> {
        self.try_reserve(Side::Appends, self.0.units_of(bytes), false)
    }

    /// Reserves bytes for a read, if there is room now and no other read waits for it.
    pub(crate) fn try_reserve_read(&self, bytes: usize) -> Option<Reservation> {
        self.try_reserve(Side::Reads, self.0.units_of(bytes), false)
    }

    /// Reserves bytes for a read that nobody waits for yet, if there is room now, and no other read waits for
    /// it. All of these may hold half of what reads may.
    pub(crate) fn try_reserve_ahead(&self, bytes: usize) -> Option<Reservation> {
        self.try_reserve(Side::Reads, self.0.units_of(bytes), true)
    }

    /// Returns the most that one read may ask for, in bytes, so that as many as there are connections can
    /// be under way at the same time, and one more; and not more than appends leave to reads.
    pub(crate) fn most_per_read(&self, connections: usize) -> usize {
        let bytes = self.0.share.saturating_mul(UNIT);
        let quarter = (self.0.total - self.0.share).saturating_mul(UNIT);
        (bytes / connections.saturating_add(1)).min(quarter).max(UNIT)
    }

    /// Returns what is held, and how many wait.
    pub(crate) fn usage(&self) -> MemoryState {
        let state = self.0.state();
        let State { appends, reads, .. } = &*state;
        let waiting = appends.waiting.iter().chain(&reads.waiting);
        MemoryState {
            limit: self.0.total.saturating_mul(UNIT),
            appends: appends.held.saturating_mul(UNIT),
            reads: reads.held.saturating_mul(UNIT),
            waiting: waiting.filter(|waiting| !waiting.granted.is_closed()).count(),
        }
    }

    fn try_reserve(&self, side: Side, units: usize, ahead: bool) -> Option<Reservation> {
        let state = &mut *self.0.state();
        let has_room =
            state.usage(side).first().is_none() && self.0.fits(state, side, units, u64::MAX, ahead);
        if !has_room || ahead && state.ahead + units > self.0.share / 2 {
            return None;
        }
        state.usage(side).held += units;
        if ahead {
            state.ahead += units;
        }
        Some(self.reservation(side, units, ahead))
    }

    async fn reserve(&self, side: Side, bytes: usize) -> Reservation {
        let units = self.0.units_of(bytes);
        if let Some(reservation) = self.try_reserve(side, units, false) {
            return reservation;
        }
        let mut turn = Turn { memory: self, is_over: false };
        // Dropped before the turn, which then grants to those that come after it.
        let granted = {
            let state = &mut *self.0.state();
            let (sender, granted) = oneshot::channel();
            let number = state.waited;
            state.waited += 1;
            state.usage(side).waiting.push_back(Waiting { units, number, granted: sender });
            granted
        };
        self.0.metrics[side as usize].waited();
        // What was given back before it was in the queue.
        self.grant();
        match granted.await {
            Ok(reservation) => {
                turn.is_over = true;
                reservation
            }
            Err(_) => unreachable!("one that waits stays in the queue until it is granted"),
        }
    }

    fn reservation(&self, side: Side, units: usize, ahead: bool) -> Reservation {
        Reservation { memory: self.clone(), side, ahead, units: AtomicUsize::new(units) }
    }

    /// Grants what there is room for.
    fn grant(&self) {
        let grants = self.granted(&mut self.0.state());
        hand_over(grants);
    }

    fn granted(&self, state: &mut State) -> Grants {
        let mut grants = Vec::new();
        while let Some((side, Waiting { units, granted, .. })) = self.0.next(state) {
            state.usage(side).held += units;
            grants.push((granted, self.reservation(side, units, false)));
        }
        grants
    }
}

fn hand_over(grants: Grants) {
    for (waiting, reservation) in grants {
        drop(waiting.send(reservation));
    }
}

impl Shared {
    fn state(&self) -> Locked<'_, Self> {
        Locked::new(self, self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn units_of(&self, bytes: usize) -> usize {
        units(bytes).min(self.share)
    }

    /// Removes the next one that waits and may get what it waits for.
    fn next(&self, state: &mut State) -> Option<(Side, Waiting)> {
        let mut heads = [Side::Appends, Side::Reads].map(|side| (side, state.usage(side).first()));
        heads.sort_by_key(|(_, first)| first.map_or(u64::MAX, |(number, _)| number));
        for (side, first) in heads {
            if let Some((number, units)) = first
                && self.fits(state, side, units, number, false)
            {
                return state.usage(side).waiting.pop_front().map(|waiting| (side, waiting));
            }
        }
        None
    }

    /// Whether there is room for so many units, for the one of this number among those that wait. `ahead`:
    /// for a read that nobody waits for yet.
    fn fits(&self, state: &mut State, side: Side, units: usize, number: u64, ahead: bool) -> bool {
        let quarter = self.total - self.share;
        let kept_ahead = state.ahead.min(self.share / 2);
        let awaited = state.reads.held.saturating_sub(state.ahead);
        let other = match side {
            Side::Appends => Side::Reads,
            Side::Reads => Side::Appends,
        };
        // A debt is that of its own side alone.
        let taken = state.usage(other).held.min(self.share);
        let beside = match side {
            // One at a time goes out whatever is fetched ahead.
            Side::Appends if state.appends.held == 0 && awaited == 0 => 0,
            // The quarter that is left to reads is for those that somebody waits for.
            Side::Appends => taken.max(kept_ahead + quarter),
            Side::Reads if ahead => taken + quarter.saturating_sub(awaited),
            // Beyond what may be fetched ahead is a debt. One read at a time may go on all the same.
            Side::Reads if state.ahead <= self.share / 2 || awaited == 0 => {
                if awaited + units <= quarter {
                    return true;
                }
                taken
            }
            Side::Reads => taken,
        };
        let held = units
            + match side {
                Side::Appends => state.appends.held,
                // The debt of reads that nobody waits for must not hold up those that somebody waits for. One
                // of these at a time may go on.
                Side::Reads if awaited == 0 => kept_ahead,
                Side::Reads => state.reads.held,
            };
        // The other side has waited for longer, and for what both may have: it would starve if this one took
        // that first. The quarter that is left to this side is not part of it.
        let is_awaited = |(earlier, units): (u64, usize)| earlier < number && taken + units <= self.share;
        let most = match state.usage(other).first().is_some_and(is_awaited) {
            true => quarter,
            false => self.share,
        };
        held <= most && held + beside <= self.total
    }
}

impl State {
    /// The units that appends and reads hold.
    fn held(&self) -> [usize; 2] {
        [self.appends.held, self.reads.held]
    }

    fn is_awaited(&self) -> bool {
        !(self.appends.waiting.is_empty() && self.reads.waiting.is_empty())
    }

    fn usage(&mut self, side: Side) -> &mut Usage {
        match side {
            Side::Appends => &mut self.appends,
            Side::Reads => &mut self.reads,
        }
    }
}

impl Usage {
    /// Returns number and units of the first one that still waits.
    fn first(&mut self) -> Option<(u64, usize)> {
        while self.waiting.front().is_some_and(|waiting| waiting.granted.is_closed()) {
            self.waiting.pop_front();
        }
        self.waiting.front().map(|waiting| (waiting.number, waiting.units))
    }
}

fn units(bytes: usize) -> usize {
    bytes.div_ceil(UNIT).max(1)
}

/// A place in the queue. When it is dropped, those that come after it move up.
#[derive(Debug)]
struct Turn<'a> {
    memory: &'a Memory,
    is_over: bool,
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if !self.is_over {
            self.memory.grant();
        }
    }
}

/// A part of the budget. It is given back on drop.
#[derive(Debug)]
pub(crate) struct Reservation {
    memory: Memory,
    side: Side,
    ahead: bool,
    /// Changed under the lock of the budget.
    units: AtomicUsize,
}

impl Reservation {
    /// Gives back what exceeds so many bytes.
    pub(crate) fn shrink(&self, bytes: usize) {
        if units(bytes) < self.units.load(Ordering::Relaxed) {
            self.correct(bytes);
        }
    }

    /// Takes more than was reserved, if it is so many bytes. It is taken at once, as a debt.
    pub(crate) fn grow(&self, bytes: usize) {
        if units(bytes) > self.units.load(Ordering::Relaxed) {
            self.correct(bytes);
        }
    }

    /// Takes more than was reserved, if there is room for it now. Returns whether it has so many bytes.
    ///
    /// More than the share of its side counts as all of it, as in `reserve`.
    pub(crate) fn try_grow(&self, bytes: usize) -> bool {
        let missing = self.memory.0.units_of(bytes).saturating_sub(self.units.load(Ordering::Relaxed));
        if missing == 0 {
            return true;
        }
        let Some(more) = self.memory.try_reserve(self.side, missing, self.ahead) else { return false };
        self.merge(&more);
        true
    }

    /// Splits off so many bytes, or all that there is.
    pub(crate) fn split(&self, bytes: usize) -> Self {
        let _state = self.memory.0.state();
        let held = self.units.load(Ordering::Relaxed);
        let part = units(bytes).min(held);
        self.units.store(held - part, Ordering::Relaxed);
        self.memory.reservation(self.side, part, self.ahead)
    }

    /// Takes over what another reservation of the same side holds.
    pub(crate) fn merge(&self, other: &Self) {
        debug_assert_eq!((self.side, self.ahead), (other.side, other.ahead));
        let _state = self.memory.0.state();
        let units = other.units.swap(0, Ordering::Relaxed);
        self.units.fetch_add(units, Ordering::Relaxed);
    }

    /// Changes it to so many bytes: gives back the rest, or takes what is missing as a debt.
    pub(crate) fn correct(&self, bytes: usize) {
        self.set(units(bytes));
    }

    fn set(&self, units: usize) {
        let grants = {
            let state = &mut *self.memory.0.state();
            let before = self.units.swap(units, Ordering::Relaxed);
            let changed = |held: usize| (held + units).saturating_sub(before);
            let usage = state.usage(self.side);
            usage.held = changed(usage.held);
            if self.ahead {
                state.ahead = changed(state.ahead);
            }
            let may_grant = units < before && state.is_awaited();
            if may_grant { self.memory.granted(state) } else { Vec::new() }
        };
        hand_over(grants);
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.set(0);
    }
}

#[cfg(test)]
mod model;

#[cfg(test)]
mod tests {
    use std::{
        pin::{Pin, pin},
        task::{Context, Poll, Waker},
    };

    use super::*;

    /// The units that appends and reads hold, and those of reads ahead.
    fn held(memory: &Memory) -> (usize, usize, usize) {
        let state = memory.0.state();
        (state.appends.held, state.reads.held, state.ahead)
    }

    fn poll<T>(future: &mut Pin<&mut impl Future<Output = T>>) -> Option<T> {
        match future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(done) => Some(done),
            Poll::Pending => None,
        }
    }

    #[tokio::test]
    async fn what_a_reservation_does_not_need_is_given_back() {
        let memory = Memory::new(12 * UNIT);
        let append = memory.reserve_append(8 * UNIT + 1).await;
        assert_eq!(held(&memory), (9, 0, 0));
        append.shrink(2 * UNIT);
        assert_eq!(held(&memory), (2, 0, 0));
        // Never more than was reserved.
        append.shrink(20 * UNIT);
        assert_eq!(held(&memory), (2, 0, 0));
        append.shrink(0);
        assert_eq!(held(&memory), (1, 0, 0));
        drop(append);
        assert_eq!(held(&memory), (0, 0, 0));
        // More than there is counts as all there is.
        let all = memory.reserve_append(usize::MAX).await;
        assert_eq!(held(&memory), (9, 0, 0));
        drop(all);
        for bytes in [0, 1, 1024, usize::MAX] {
            let memory = Memory::new(bytes);
            let both = (memory.reserve_append(usize::MAX).await, memory.try_reserve_read(1));
            assert!(both.1.is_some(), "{bytes}");
        }
    }

    #[tokio::test]
    async fn appends_and_reads_hold_three_quarters_each() {
        let memory = Memory::new(16 * UNIT);
        let appends = memory.reserve_append(usize::MAX).await;
        assert_eq!(held(&memory), (12, 0, 0));
        let reads: Vec<_> = (0..4).map(|_| memory.try_reserve_read(UNIT).unwrap()).collect();
        assert!(memory.try_reserve_read(1).is_none());
        drop(appends);
        let more: Vec<_> = (0..8).map(|_| memory.try_reserve_read(UNIT).unwrap()).collect();
        assert!(memory.try_reserve_read(1).is_none());
        let append = memory.reserve_append(4 * UNIT).await;
        assert_eq!(held(&memory), (4, 12, 0));
        drop((reads, more, append));
        assert_eq!(held(&memory), (0, 0, 0));
    }

    #[tokio::test]
    async fn a_response_larger_than_requested_is_a_debt_of_reads_alone() {
        let memory = Memory::new(16 * UNIT);
        let read = memory.reserve_read(2 * UNIT).await;
        read.grow(UNIT);
        assert_eq!(held(&memory), (0, 2, 0));
        read.grow(100 * UNIT);
        let appends = memory.reserve_append(4 * UNIT).await;
        assert_eq!(held(&memory), (4, 100, 0));
        let other = memory.reserve_read(UNIT);
        let mut other = pin!(other);
        assert!(poll(&mut other).is_none());
        read.correct(12 * UNIT);
        assert!(poll(&mut other).is_none(), "the debt is paid first");
        read.correct(11 * UNIT);
        let other = poll(&mut other).unwrap();
        drop((read, other, appends));
        assert_eq!(held(&memory), (0, 0, 0));
    }

    #[tokio::test]
    async fn each_side_gets_its_parts_in_the_order_in_which_it_came() {
        let memory = Memory::new(16 * UNIT);
        let first = memory.reserve_read(12 * UNIT).await;
        let (large, small) = (memory.reserve_read(8 * UNIT), memory.reserve_read(UNIT));
        let (mut large, mut small) = (pin!(large), pin!(small));
        assert!(poll(&mut large).is_none() && poll(&mut small).is_none());
        first.correct(5 * UNIT);
        assert!(poll(&mut small).is_none(), "there is room for it, but it came later");
        assert!(memory.try_reserve_read(UNIT).is_none() && memory.try_reserve_ahead(UNIT).is_none());
        first.correct(4 * UNIT);
        let large = poll(&mut large).unwrap();
        assert!(poll(&mut small).is_none());
        drop(large);
        poll(&mut small).unwrap();
    }

    #[tokio::test]
    async fn a_side_that_waits_for_much_is_not_overtaken_by_the_other_one() {
        let memory = Memory::new(16 * UNIT);
        let append = memory.reserve_append(7 * UNIT).await;
        let read = memory.reserve_read(12 * UNIT);
        let mut read = pin!(read);
        assert!(poll(&mut read).is_none());
        // Beyond its quarter, it would take what the read waits for.
        let next = memory.reserve_append(UNIT);
        let mut next = pin!(next);
        assert!(poll(&mut next).is_none());
        append.correct(3 * UNIT);
        let (read, next) = (poll(&mut read).unwrap(), poll(&mut next).unwrap());
        assert_eq!(held(&memory), (4, 12, 0));
        drop((append, read, next));
        assert_eq!(held(&memory), (0, 0, 0));
    }

    #[tokio::test]
    async fn those_that_leave_the_queue_hold_up_nobody() {
        let memory = Memory::new(16 * UNIT);
        for granted in [false, true] {
            let held_by_one = memory.reserve_read(8 * UNIT).await;
            let mut large = Box::pin(memory.reserve_read(12 * UNIT));
            let small = memory.reserve_read(2 * UNIT);
            let mut small = pin!(small);
            assert!(poll(&mut large.as_mut()).is_none() && poll(&mut small).is_none());
            let mut first = Some(held_by_one);
            if granted {
                first = None;
                assert_eq!(held(&memory), (0, 12, 0), "granted, and not taken yet");
            }
            drop(large);
            let small = poll(&mut small).unwrap();
            drop((first, small));
            assert_eq!(held(&memory), (0, 0, 0));
            assert!(memory.0.state().reads.waiting.is_empty());
        }
    }

    #[tokio::test]
    async fn reads_ahead_hold_half_of_what_reads_may() {
        let memory = Memory::new(16 * UNIT);
        let ahead: Vec<_> = std::iter::from_fn(|| memory.try_reserve_ahead(2 * UNIT)).collect();
        assert_eq!((ahead.len(), held(&memory)), (3, (0, 6, 6)));
        ahead[0].grow(4 * UNIT);
        assert_eq!(held(&memory), (0, 8, 8));
        let now: Vec<_> = std::iter::from_fn(|| memory.try_reserve_read(2 * UNIT)).collect();
        assert_eq!(now.len(), 2);
        drop(ahead);
        assert_eq!(held(&memory), (0, 4, 0));
        drop(now);
        // Their debt leaves room for one read at a time.
        let ahead = memory.try_reserve_ahead(UNIT).unwrap();
        ahead.grow(100 * UNIT);
        assert!(memory.try_reserve_ahead(UNIT).is_none());
        let one = memory.try_reserve_read(2 * UNIT).unwrap();
        assert!(memory.try_reserve_read(UNIT).is_none());
        drop(one);
        let one = memory.try_reserve_read(2 * UNIT).unwrap();
        drop((one, ahead));
        assert_eq!(held(&memory), (0, 0, 0));
        assert_eq!(memory.most_per_read(5), 2 * UNIT);
        assert_eq!((memory.most_per_read(1_000), memory.most_per_read(usize::MAX)), (UNIT, UNIT));
    }

    #[tokio::test]
    async fn what_is_fetched_ahead_holds_up_neither_reads_nor_appends() {
        let memory = Memory::new(16 * UNIT);
        let ahead = || std::iter::from_fn(|| memory.try_reserve_ahead(2 * UNIT)).collect::<Vec<_>>();
        let appends =
            || std::iter::from_fn(|| memory.try_reserve(Side::Appends, 1, false)).collect::<Vec<_>>();
        let reads = || std::iter::from_fn(|| memory.try_reserve_read(UNIT)).collect::<Vec<_>>();
        let all = (ahead(), appends(), reads());
        assert_eq!(held(&memory), (6, 10, 6), "a quarter is left to reads that somebody waits for");
        drop(all);
        let all = (appends(), ahead(), reads());
        assert_eq!(held(&memory), (12, 4, 0), "nothing is fetched ahead of them");
        drop(all);
        // One append goes out, however large it is.
        let all = (ahead(), memory.try_reserve(Side::Appends, 12, false).unwrap(), reads());
        assert_eq!(held(&memory), (12, 10, 6));
        drop(all);
        assert_eq!(held(&memory), (0, 0, 0));
        assert_eq!(memory.most_per_read(1), 4 * UNIT, "not more than appends leave to reads");
    }
}
