//! Checks what was reported at the end: of appends of unknown outcome, and of writers that were closed.

use super::{
    facts::{Append, Close, Facts, Resolution, WriterFacts},
    logs::{Judged, is_deleted, is_empty},
    types::{AppendOutcome, SubmitOrder},
    verdict::{Rule, VerdictBuilder},
};

pub(super) fn judge<'a>(facts: &Facts<'a>, judged: &Judged, verdict: &mut VerdictBuilder<'a>) {
    for append in &facts.appends {
        for resolution in &append.resolutions {
            resolved(facts, judged, append, resolution, verdict);
        }
    }
    for writer in &facts.writers {
        for close in &writer.closes {
            closed(facts, writer, close, verdict);
        }
    }
}

/// Checks an answer against the log. What was lost after the question excuses a difference.
fn resolved(
    facts: &Facts<'_>,
    judged: &Judged,
    append: &Append<'_>,
    resolution: &Resolution,
    verdict: &mut VerdictBuilder<'_>,
) {
    let partition = &facts.partitions[append.partition];
    let Some((log_event, log)) = partition.log.filter(|(event, _)| *event > resolution.event) else { return };
    if judged.missing[append.partition].is_none() {
        return;
    }
    let lost = |offset| partition.lost(resolution.begun, offset).is_some();
    let places = judged.places(append).iter().enumerate();
    let problem = match resolution.base {
        None => places
            .into_iter()
            .find_map(|(_, place)| place.filter(|place| !lost(*place)))
            .map(|place| (place, format!("{} was resolved as not on the log, and is at {place}", append.id))),
        Some(base) => places.into_iter().find_map(|(record, place)| {
            let (right, value) = (base.saturating_add(record as i64), &append.records[record]);
            let text = format!("{} was resolved as appended at {base}, and its record {value}", append.id);
            match place {
                Some(place) if *place == right || lost(right.min(*place)) => None,
                Some(place) => Some((*place, format!("{text} is at {place}"))),
                None if is_deleted(partition, log, right) || is_empty(log, right) || lost(right) => None,
                None => Some((right, format!("{text} is missing at {right}"))),
            }
        }),
    };
    if let Some((offset, message)) = problem {
        let resolution = [(resolution.begun, None), (resolution.event, None)];
        let events = append.events().chain(resolution).chain([(log_event, Some(offset))]);
        verdict.violated(Rule::Resolved, events, || message);
    }
}

/// Checks that everything submitted before a writer was closed has ended then, and that it reported what
/// failed meanwhile.
fn closed(facts: &Facts<'_>, writer: &WriterFacts<'_>, close: &Close, verdict: &mut VerdictBuilder<'_>) {
    let Some((event, at, reported)) = close.ended else { return };
    let (begun, begun_at) = close.begun;
    let (mut failed, mut may_have_failed) = (0, 0);
    for append in writer.appends.iter().map(|index| &facts.appends[*index]) {
        let end = append.end.filter(|(_, end, _)| *end <= at.saturating_add(verdict.expect.grace));
        let Some((_, end, outcome)) = end else {
            // What waits for its place was not submitted.
            if append.event < begun && append.order == SubmitOrder::Fixed {
                let events = append.events().chain([(begun, None), (event, None)]);
                verdict.violated(Rule::Closed, events, || {
                    format!("{} was submitted before {} was closed, and has not ended", append.id, writer.id)
                });
            }
            may_have_failed += 1;
            continue;
        };
        match outcome {
            AppendOutcome::NotAppended | AppendOutcome::Unknown if end >= begun_at => {
                // What failed at the time of the call may have failed before it.
                let certainly = end > begun_at.saturating_add(verdict.expect.grace);
                failed +=
                    usize::from(certainly && append.event < begun && append.order == SubmitOrder::Fixed);
                may_have_failed += 1;
            }
            AppendOutcome::Dropped => may_have_failed += 1,
            _ => {}
        }
    }
    if !(failed..=may_have_failed).contains(&reported) {
        verdict.violated(Rule::Closed, [(begun, None), (event, None)], || {
            format!(
                "{} reports {reported} failed appends, and {failed} to {may_have_failed} failed",
                writer.id
            )
        });
    }
}
