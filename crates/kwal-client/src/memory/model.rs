//! The memory budget against a model: what is held is what the reservations say, to the unit.

use std::{
    pin::Pin,
    task::{Context, Poll, Waker},
};

use proptest::prelude::*;

use super::*;

const TOTAL: usize = 16;
const SHARE: usize = 12;

/// Sizes are in units, and indices are those of what there is.
#[derive(Clone, Copy, Debug)]
enum Op {
    TryReserve(usize),
    TryRead(usize),
    TryAhead(usize),
    /// Begins to wait.
    Reserve(usize),
    Read(usize),
    GiveUp(usize),
    TryGrow(usize, usize),
    Grow(usize, usize),
    Shrink(usize, usize),
    Split(usize, usize),
    Merge(usize, usize),
    Drop(usize),
}

fn op() -> impl Strategy<Value = Op> {
    let (size, index) = (0..14_usize, 0..8_usize);
    prop_oneof![
        4 => size.clone().prop_map(Op::TryReserve),
        2 => size.clone().prop_map(Op::TryRead),
        1 => size.clone().prop_map(Op::TryAhead),
        2 => size.clone().prop_map(Op::Reserve),
        1 => size.clone().prop_map(Op::Read),
        1 => index.clone().prop_map(Op::GiveUp),
        4 => (index.clone(), size.clone()).prop_map(|(index, size)| Op::TryGrow(index, size)),
        1 => (index.clone(), 0..20_usize).prop_map(|(index, size)| Op::Grow(index, size)),
        2 => (index.clone(), size.clone()).prop_map(|(index, size)| Op::Shrink(index, size)),
        3 => (index.clone(), size).prop_map(|(index, size)| Op::Split(index, size)),
        3 => (index.clone(), index.clone()).prop_map(|(index, other)| Op::Merge(index, other)),
        4 => index.prop_map(Op::Drop),
    ]
}

type Waiting = Pin<Box<dyn Future<Output = Reservation>>>;

struct Model {
    memory: Memory,
    reservations: Vec<Reservation>,
    waiting: Vec<(Side, Waiting)>,
    /// Something was taken as a debt since nothing was held.
    is_in_debt: bool,
}

impl Model {
    fn new() -> Self {
        let memory = Memory::new(TOTAL * UNIT);
        Self { memory, reservations: Vec::new(), waiting: Vec::new(), is_in_debt: false }
    }

    fn waits(&self, side: Side) -> bool {
        self.waiting.iter().any(|waiting| waiting.0 == side)
    }

    fn held(&self, is_meant: impl Fn(&Reservation) -> bool) -> usize {
        let meant = self.reservations.iter().filter(|reservation| is_meant(reservation));
        meant.map(|reservation| reservation.units.load(Ordering::Relaxed)).sum()
    }

    fn run(&mut self, op: Op) {
        match op {
            Op::TryReserve(size) => {
                let before = self.held(|it| it.side == Side::Appends);
                let got = self.memory.try_reserve_append(size * UNIT);
                if let Some(got) = got {
                    assert!(!self.waits(Side::Appends), "others came first");
                    assert!(before + size.clamp(1, SHARE) <= SHARE, "more than the share of appends");
                    self.reservations.push(got);
                }
            }
            Op::TryRead(size) => self.reservations.extend(self.memory.try_reserve_read(size * UNIT)),
            Op::TryAhead(size) => self.reservations.extend(self.memory.try_reserve_ahead(size * UNIT)),
            Op::Reserve(size) => self.wait(Side::Appends, size),
            Op::Read(size) => self.wait(Side::Reads, size),
            Op::GiveUp(index) => {
                if index < self.waiting.len() {
                    drop(self.waiting.remove(index));
                }
            }
            Op::TryGrow(index, size) => self.try_grow(index, size),
            Op::Grow(index, size) => {
                let Some(reservation) = self.reservations.get(index) else { return };
                let before = reservation.units.load(Ordering::Relaxed);
                reservation.grow(size * UNIT);
                assert_eq!(reservation.units.load(Ordering::Relaxed), before.max(size.max(1)));
                self.is_in_debt = true;
            }
            Op::Shrink(index, size) => {
                let Some(reservation) = self.reservations.get(index) else { return };
                let before = reservation.units.load(Ordering::Relaxed);
                reservation.shrink(size * UNIT);
                assert_eq!(reservation.units.load(Ordering::Relaxed), before.min(size.max(1)));
            }
            Op::Split(index, size) => {
                let Some(reservation) = self.reservations.get(index) else { return };
                let before = reservation.units.load(Ordering::Relaxed);
                let part = reservation.split(size * UNIT);
                let (left, part_units) =
                    (reservation.units.load(Ordering::Relaxed), part.units.load(Ordering::Relaxed));
                assert_eq!((left + part_units, part_units), (before, size.max(1).min(before)));
                assert_eq!((part.side, part.ahead), (reservation.side, reservation.ahead));
                self.reservations.push(part);
            }
            Op::Merge(index, other) => self.merge(index, other),
            Op::Drop(index) => {
                if index < self.reservations.len() {
                    drop(self.reservations.swap_remove(index));
                }
            }
        }
        self.check();
    }

    fn wait(&mut self, side: Side, size: usize) {
        let memory = self.memory.clone();
        self.waiting.push((side, Box::pin(async move { memory.reserve(side, size * UNIT).await })));
    }

    fn try_grow(&self, index: usize, size: usize) {
        let Some(reservation) = self.reservations.get(index) else { return };
        let before = reservation.units.load(Ordering::Relaxed);
        let side = reservation.side;
        let all = self.held(|it| it.side == side);
        let has_grown = reservation.try_grow(size * UNIT);
        let after = reservation.units.load(Ordering::Relaxed);
        match has_grown {
            // More than the share counts as all of it.
            true => assert_eq!(after, before.max(size.clamp(1, SHARE))),
            false => assert_eq!(after, before, "it keeps what it has"),
        }
        if after > before {
            assert!(!self.waits(side), "others came first");
            // An append may not exceed its share; a read may, as a debt of others ahead of it.
            assert!(side == Side::Reads || all + after - before <= SHARE, "more than the share of appends");
        }
    }

    fn merge(&self, index: usize, other: usize) {
        if index == other || index.max(other) >= self.reservations.len() {
            return;
        }
        let (one, two) = (&self.reservations[index], &self.reservations[other]);
        if (one.side, one.ahead) != (two.side, two.ahead) {
            return;
        }
        let units = [one, two].map(|it| it.units.load(Ordering::Relaxed));
        one.merge(two);
        assert_eq!(one.units.load(Ordering::Relaxed), units[0] + units[1]);
        assert_eq!(two.units.load(Ordering::Relaxed), 0);
    }

    /// Polls those that wait, and compares what is held.
    fn check(&mut self) {
        let mut cx = Context::from_waker(Waker::noop());
        let mut waiting = Vec::new();
        for (side, mut future) in std::mem::take(&mut self.waiting) {
            match future.as_mut().poll(&mut cx) {
                Poll::Ready(reservation) => self.reservations.push(reservation),
                Poll::Pending => waiting.push((side, future)),
            }
        }
        self.waiting = waiting;
        // Whatever there is room for was granted without being asked for.
        assert!(self.memory.granted(&mut self.memory.0.state()).is_empty(), "somebody waits in vain");
        let expected = (
            self.held(|it| it.side == Side::Appends),
            self.held(|it| it.side == Side::Reads),
            self.held(|it| it.ahead),
        );
        let state = self.memory.0.state();
        assert_eq!((state.appends.held, state.reads.held, state.ahead), expected);
        if !self.is_in_debt {
            assert!(state.appends.held <= SHARE, "{state:?}");
        }
        drop(state);
        if expected == (0, 0, 0) {
            self.is_in_debt = false;
            assert!(self.waiting.is_empty(), "all of it is free");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    #[test]
    fn what_is_held_is_what_the_reservations_say(ops in prop::collection::vec(op(), 0..60)) {
        let mut model = Model::new();
        for op in ops {
            model.run(op);
        }
        model.waiting.clear();
        model.reservations.clear();
        model.check();
        // All of it, at once.
        let all = model.memory.try_reserve_append(usize::MAX).unwrap();
        prop_assert_eq!(all.units.load(Ordering::Relaxed), SHARE);
    }
}

#[test]
fn an_append_grows_if_there_is_room_now() {
    let memory = Memory::new(TOTAL * UNIT);
    let append = memory.try_reserve_append(2 * UNIT).unwrap();
    assert!(append.try_grow(2 * UNIT) && append.try_grow(1));
    assert_eq!(append.units.load(Ordering::Relaxed), 2);
    assert!(append.try_grow(8 * UNIT + 1));
    let rest = memory.try_reserve_append(3 * UNIT).unwrap();
    assert!(!append.try_grow(10 * UNIT), "there is none left");
    assert_eq!(append.units.load(Ordering::Relaxed), 9);
    drop(rest);
    assert!(append.try_grow(usize::MAX), "more than the share counts as all of it");
    assert_eq!((append.units.load(Ordering::Relaxed), memory.0.state().appends.held), (SHARE, SHARE));
    assert!(append.try_grow(usize::MAX));
}

#[tokio::test]
async fn an_append_does_not_grow_past_one_that_waits() {
    let memory = Memory::new(TOTAL * UNIT);
    let (append, other) =
        (memory.try_reserve_append(2 * UNIT).unwrap(), memory.try_reserve_append(4 * UNIT).unwrap());
    let mut waiting = Box::pin(memory.reserve_append(8 * UNIT));
    let mut poll = async || std::future::poll_fn(|cx| Poll::Ready(waiting.as_mut().poll(cx))).await;
    assert!(poll().await.is_pending());
    assert!(!append.try_grow(3 * UNIT) && memory.try_reserve_append(1).is_none());
    // It pays for what it takes as a debt.
    append.grow(4 * UNIT);
    drop(other);
    let Poll::Ready(granted) = poll().await else { panic!("there is room for it") };
    assert_eq!(memory.0.state().appends.held, SHARE);
    drop((granted, append));
    assert_eq!(memory.0.state().appends.held, 0);
}

#[test]
fn parts_are_given_back_one_by_one() {
    let memory = Memory::new(TOTAL * UNIT);
    let all = memory.try_reserve_append(10 * UNIT).unwrap();
    let parts = [all.split(3 * UNIT), all.split(1), all.split(100 * UNIT)];
    assert_eq!(parts.each_ref().map(|part| part.units.load(Ordering::Relaxed)), [3, 1, 6]);
    assert_eq!(memory.0.state().appends.held, 10);
    drop(all);
    assert_eq!(memory.0.state().appends.held, 10, "nothing is left in it");
    let [first, second, third] = parts;
    first.merge(&third);
    drop(third);
    assert_eq!(memory.0.state().appends.held, 10);
    drop(second);
    assert_eq!(memory.0.state().appends.held, 9);
    drop(first);
    assert_eq!(memory.0.state().appends.held, 0);
}
