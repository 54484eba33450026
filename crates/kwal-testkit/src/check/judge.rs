//! Judges a history.

use super::{
    endings,
    facts::Facts,
    history::History,
    logs, reads,
    verdict::{Expect, Verdict, VerdictBuilder},
    waits,
};

impl History {
    /// Checks the history against the rules.
    pub fn check(&self, expect: &Expect) -> Verdict {
        let mut verdict = VerdictBuilder::new(self, expect);
        let facts = Facts::gather(self, &mut verdict);
        let judged = logs::judge(&facts, &mut verdict);
        reads::judge(&facts, &judged, &mut verdict);
        endings::judge(&facts, &judged, &mut verdict);
        waits::judge(&facts, &judged, &mut verdict);
        verdict.build()
    }
}
