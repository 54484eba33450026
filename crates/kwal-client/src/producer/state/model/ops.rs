//! What can happen.

use super::*;

/// A deadline in ms that outlives what partitions remember.
pub(super) const LONG: u64 = 500;

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Op {
    Submit {
        records: usize,
        deadline: u64,
    },
    /// The broker handles a request.
    Process(Mode),
    /// The client receives a response.
    Deliver,
    /// The connection ends when so many of the requests that are not answered were written.
    Disconnect {
        written: usize,
    },
    /// The broker handles a request whose connection has ended.
    Late,
    /// Another broker leads, with or without what was not committed.
    MoveLeader {
        keep: bool,
    },
    /// An unclean election loses so many batches.
    Lose(usize),
    /// Another process fences the producer id.
    Fence,
    /// The topic is deleted and created again, before or after the broker appends what it works on.
    Recreate {
        appended: bool,
    },
    /// Another producer appends.
    Other,
    Tick(u64),
    Act(Act),
    /// Another client goes on with the producer id, if it is free.
    Reopen,
    /// Another process goes on with taking over the name.
    TakeOver,
    /// The coordinator forgets the name.
    ForgetName,
    /// A request to the coordinator arrives that its client has given up.
    LateRequest,
    /// The caller requests the leader's latest epoch of the producer id.
    Probe,
    /// The action that runs is given up if nothing needs it.
    Cancel,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Mode {
    Append,
    /// Without reporting the offset.
    AppendSilently,
    Refuse,
    /// The batch is appended and not committed.
    TimeOut,
    RefuseForGood,
    FailUnclear {
        appended: bool,
    },
    ForgetProducer,
    /// The broker does not lead the partition any more, or not when it responds.
    Deny {
        appended: bool,
    },
    /// As a leader does that was deposed and has not noticed.
    Reject,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Act {
    Succeed,
    /// The request succeeds, and the response is lost.
    LoseResponse,
    Retry,
    Fail,
}

impl Op {
    /// Decoding numbers is several times as fast as a strategy for each operation.
    fn from_code(code: u16) -> Self {
        let (kind, number) = (code % 72, code / 72);
        let is_odd = number % 2 == 1;
        match kind {
            0..=11 => {
                let deadline = if number % 16 == 15 { LONG } else { 1 + u64::from(number % 40) };
                Self::Submit { records: 1 + usize::from(number % 3), deadline }
            }
            12..=23 => Self::Process(Mode::Append),
            24 | 25 => Self::Process(Mode::AppendSilently),
            26 => Self::Process(Mode::Refuse),
            27 => Self::Process(Mode::TimeOut),
            28 => Self::Process(Mode::RefuseForGood),
            29 => Self::Process(Mode::FailUnclear { appended: is_odd }),
            30 => Self::Process(Mode::ForgetProducer),
            31 => Self::Process(Mode::Reject),
            32..=43 => Self::Deliver,
            44 | 45 => Self::Disconnect { written: usize::from(number % 6) },
            46 => Self::Late,
            47 => Self::MoveLeader { keep: is_odd },
            48 => Self::Other,
            49..=51 => Self::Tick(1 + u64::from(number % 7)),
            52 => Self::Tick(if is_odd { 120 } else { 70 }),
            53..=60 => Self::Act(Act::Succeed),
            61 => Self::Lose(1 + usize::from(number % 3)),
            62 => Self::Act(if is_odd { Act::Fail } else { Act::Retry }),
            63 if is_odd => Self::Reopen,
            63 => Self::Fence,
            64 => Self::TakeOver,
            65 if number % 4 == 0 => Self::ForgetName,
            65 => Self::TakeOver,
            66 => Self::LateRequest,
            67 => Self::Probe,
            68 => Self::Cancel,
            69 => Self::Act(Act::LoseResponse),
            70 if number % 4 < 2 => Self::Recreate { appended: is_odd },
            70 => Self::Process(Mode::Deny { appended: is_odd }),
            _ => Self::Tick(1 + u64::from(number % 16)),
        }
    }
}

pub(super) fn ops() -> impl Strategy<Value = Vec<Op>> {
    vec(any::<u16>(), 1..60).prop_map(|codes| codes.into_iter().map(Op::from_code).collect())
}
