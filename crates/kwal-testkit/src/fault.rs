//! What may go wrong with a request, and when.

use std::{
    collections::{BTreeMap, VecDeque},
    time::Duration,
};

use kwal_protocol::{api::ApiKey, error_code::ErrorCode};

/// What happens to a request instead of, or besides, being answered.
///
/// "Closed" means that the connection ends without a reply.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[non_exhaustive]
pub enum Fault {
    /// Nothing: the request is served. To let some pass before a fault.
    Pass,
    /// Refused with an error code, which stands wherever the response has one; nothing is carried out. Produce with acks = 0 is
    /// closed, as Kafka does.
    Error(ErrorCode),
    /// Carried out, and then answered with an error code, as if it had failed afterwards.
    ErrorAfter(ErrorCode),
    /// Closed; nothing is carried out.
    Drop,
    /// Carried out, then closed: the reply is lost.
    LoseReply,
    /// Carried out only after this time, as if it had been late on its way to the broker.
    DelayRequest(Duration),
    /// Carried out at once, answered only after this time. Later requests of the connection wait behind it.
    DelayReply(Duration),
    /// Carried out and answered at once with this throttle time; nothing more is read from the connection until it is over
    /// (KIP-219).
    Throttle(Duration),
    /// Carried out; the answer has another correlation id.
    WrongCorrelationId,
    /// Never carried out nor answered, nor is anything after it; the connection stays open.
    BlackHole,
}

/// Which faults are still to come, by API.
#[derive(Debug, Default)]
pub(crate) struct Script {
    lines: BTreeMap<ApiKey, VecDeque<Line>>,
}

#[derive(Debug)]
struct Line {
    fault: Fault,
    /// `None` for ever.
    times: Option<usize>,
}

impl Script {
    /// Adds a fault behind those of the same API.
    pub(crate) fn add(&mut self, api: ApiKey, times: Option<usize>, fault: Fault) {
        if times != Some(0) {
            self.lines.entry(api).or_default().push_back(Line { fault, times });
        }
    }

    /// What happens to a request that has just arrived.
    pub(crate) fn take(&mut self, api: ApiKey) -> Fault {
        let Some(lines) = self.lines.get_mut(&api) else { return Fault::Pass };
        let Some(line) = lines.front_mut() else { return Fault::Pass };
        let fault = line.fault;
        if let Some(times) = &mut line.times {
            *times -= 1;
            if *times == 0 {
                lines.pop_front();
            }
        }
        fault
    }

    pub(crate) fn clear(&mut self) {
        self.lines.clear();
    }

    /// How many requests are still to be met by a fault; one that lasts for ever counts once.
    pub(crate) fn left(&self) -> usize {
        self.lines.values().flatten().map(|line| line.times.unwrap_or(1)).sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_come_in_the_order_they_were_added() {
        let mut script = Script::default();
        script.add(ApiKey::FETCH, Some(2), Fault::Pass);
        script.add(ApiKey::FETCH, Some(0), Fault::LoseReply);
        script.add(ApiKey::FETCH, Some(1), Fault::Drop);
        script.add(ApiKey::PRODUCE, None, Fault::BlackHole);
        assert_eq!(script.left(), 4);
        let fetches: Vec<_> = (0..4).map(|_| script.take(ApiKey::FETCH)).collect();
        assert_eq!(fetches, [Fault::Pass, Fault::Pass, Fault::Drop, Fault::Pass]);
        let produces: Vec<_> = (0..3).map(|_| script.take(ApiKey::PRODUCE)).collect();
        assert_eq!(produces, [Fault::BlackHole; 3]);
        assert_eq!(script.left(), 1);
        script.clear();
        assert_eq!(script.take(ApiKey::PRODUCE), Fault::Pass);
    }
}
