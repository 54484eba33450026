//! Every mutation is detected, and nothing is reported without it.
//!
//! The client here is `kwal-client`'s own source with `mutations.txt` applied. A [`Mutation`] is activated
//! for a thread, and a scene played in which it does harm. [`kwal_testkit::check`] has to detect it by the
//! rule that is first in the list below, and may report no rule that is not in that list. The same scene
//! without the mutation has to pass. Some mutations are searched for in storms too.
//!
//! A history of appends and reads does not show everything. The rest is observed by the scene itself:
//! - memory and connections (C9): whether there is an error or a wait at the limit. How much is really held
//!   is counted by the contract's own tests (`limits`, `connections`) and those of `kwal-protocol`.
//! - pauses (C10): how many requests a broker got, and that a reader makes progress.
//! - topics that a look-up creates (C11), because no partition has a record of it.
//! - that a call makes progress, and does not merely end in time with an error: the deadline of one request
//!   (C4), and room that is given back (C5).
//! - the end of a log (C7): a deposed leader that has not noticed yet reports an older one, so an end before
//!   the one that was reported to others is not an error in itself.
//!
//! What brokers ensure by themselves, whatever a client requests, has no mutation: that nothing above the
//! high watermark is read.

#![allow(clippy::unwrap_used, reason = "this is a test")]

extern crate kwal_planted as kwal_client;

mod fixture;
mod reading;
mod resources;
#[allow(dead_code, reason = "others use it too")]
#[path = "../../../../crates/kwal-client/tests/storm/run/mod.rs"]
mod run;
mod storms;
#[allow(dead_code, reason = "others use it too")]
#[path = "../../../../crates/kwal-client/tests/contract/support.rs"]
mod support;
mod writing;

use std::collections::BTreeSet;

use kwal_client::{Mutation, activate};
use kwal_testkit::check::Rule;

use crate::fixture::{Fixture, Found};

/// Plays the scene in which a mutation does harm. Also returns the rules that detect it.
async fn play(mutation: Mutation) -> (Fixture, &'static [Rule]) {
    match mutation {
        Mutation::AcksOfOne => (writing::leader_lost().await, &[Rule::Durable, Rule::FalseAlarm]),
        Mutation::LastOffsetForFirst => (writing::several_records().await, &[Rule::Offset]),
        Mutation::RetryWithoutSequence | Mutation::RetryUnderNewSequence | Mutation::RetryInNewEpoch => {
            (writing::answer_lost().await, &[Rule::Once])
        }
        Mutation::NewIdAtNewLeader => (writing::answer_lost_and_leader_moved().await, &[Rule::Once]),
        Mutation::RetryWithoutId => (writing::answer_lost_without_id().await, &[Rule::Once]),
        Mutation::EpochKept => (writing::behind_an_open_one().await, &[Rule::Durable]),
        Mutation::IdGivenTwice => (writing::opened_twice_again().await, &[Rule::Durable]),
        Mutation::IdNotTakenBack => (writing::opened_while_under_way().await, &[Rule::Durable]),
        Mutation::BatchForEachRecord => (writing::two_at_a_time().await, &[Rule::Whole]),
        Mutation::TwoInFlight => (writing::first_refused().await, &[Rule::NoHole, Rule::FalseAlarm]),
        Mutation::HoleAfterFailure => (writing::refused_in_the_middle().await, &[Rule::NoHole]),
        Mutation::OrderOfPolls => (writing::polled_in_another_order().await, &[Rule::Order]),
        Mutation::AttemptWithoutDeadline => (writing::no_answer().await, &[Rule::Deadline]),
        Mutation::RequestWithoutDeadline => (resources::one_without_an_answer().await, &[]),
        Mutation::PauseBeyondDeadline => (writing::refused_again_and_again().await, &[Rule::Deadline]),
        Mutation::EarlierAttemptsForgotten => (writing::timed_out_then_refused().await, &[Rule::NotAppended]),
        Mutation::DeadlineTakenForRejection => {
            (writing::answer_beyond_the_deadline().await, &[Rule::NotAppended])
        }
        Mutation::CodeTakenForRejection => (writing::failed_after_the_append().await, &[Rule::NotAppended]),
        Mutation::LostResponseTakenForUnsent => {
            (writing::answer_lost_then_refused().await, &[Rule::NotAppended])
        }
        Mutation::DroppedNotSent => (writing::dropped_in_the_queue().await, &[Rule::NoHole]),
        Mutation::DroppedCutOff => (writing::dropped_under_way().await, &[Rule::Durable]),
        Mutation::DroppedKeepsRoom => (resources::many_dropped().await, &[]),
        Mutation::WithdrawnIsSent => (writing::withdrawn().await, &[Rule::Withdrawn]),
        Mutation::AppendsAfterFence => (writing::taken_over().await, &[Rule::Ended]),
        Mutation::NextFromLastRecord => (reading::holes_and_markers().await, &[Rule::Deadline]),
        Mutation::CutTakenForEnd => (reading::in_pieces().await, &[Rule::ReadEvery]),
        Mutation::DamagePassedOver => (reading::damaged().await, &[Rule::ReadEvery]),
        Mutation::FirstBatchWhole => (reading::from_within_a_batch().await, &[Rule::ReadOnce]),
        Mutation::MarkersAreRecords => (reading::holes_and_markers().await, &[Rule::ReadTrue]),
        Mutation::EndFromFetch => (reading::end_after_an_election().await, &[]),
        Mutation::DeletedPassedOver => (reading::deleted_meanwhile().await, &[Rule::ReadEvery]),
        Mutation::LossPaperedOver => (writing::loss().await, &[Rule::LossEnds]),
        Mutation::LossAtFirstRejection => (writing::leader_of_yesterday().await, &[Rule::FalseAlarm]),
        Mutation::AppendsAfterLoss => (writing::loss().await, &[Rule::Ended, Rule::LossEnds]),
        Mutation::OtherTopicFollowed => (reading::topic_made_again().await, &[Rule::Truncation]),
        Mutation::CodeTakenForOtherTopic => {
            (reading::topic_unknown_for_a_moment().await, &[Rule::FalseAlarm])
        }
        Mutation::BudgetCountsAppends => (resources::budget_used_up().await, &[Rule::Withdrawn]),
        Mutation::ConnectionsWithoutLimit => (resources::many_partition_clients().await, &[]),
        Mutation::UnpackedWithoutLimit => (resources::unpacks_to_much().await, &[]),
        Mutation::FrameWithoutLimit => (resources::large_response().await, &[]),
        Mutation::ThrottleTakenForFailure => (writing::throttled().await, &[Rule::Once]),
        Mutation::ThrottleNotWaitedFor => (resources::throttled_for_long().await, &[]),
        Mutation::ThrottleTakenForAnswer => (resources::reader_over_its_quota().await, &[]),
        Mutation::QueueWithoutEnd => (resources::queue_full().await, &[Rule::Withdrawn]),
        Mutation::FirstPartitionForAll => (writing::to_each_partition().await, &[Rule::Asked]),
        Mutation::LookupCreates => (resources::lookup().await, &[]),
    }
}

/// Judges the scene of a mutation, played with an active one or with none.
fn judge(scene: Mutation, active: Option<Mutation>) -> (Found, &'static [Rule]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    activate(active);
    let found = runtime.unwrap().block_on(async {
        let (fixture, rules) = Box::pin(play(scene)).await;
        (fixture.judge().await, rules)
    });
    activate(None);
    found
}

#[test]
fn every_mutation_is_detected_and_nothing_else() {
    let mut missed = Vec::new();
    for mutation in Mutation::ALL.iter().copied() {
        let (innocent, _) = judge(mutation, None);
        if !innocent.verdict.holds() || !innocent.seen.is_empty() {
            missed.push(format!("found without {mutation:?}: {} {:?}", innocent.verdict, innocent.seen));
        }
        let (guilty, rules) = judge(mutation, Some(mutation));
        let broken: Vec<_> = guilty.verdict.broken().collect();
        let by = match broken.is_empty() {
            true => guilty.seen.join(", "),
            false => broken.iter().map(Rule::to_string).collect::<Vec<_>>().join(", "),
        };
        let name = format!("{mutation:?}");
        println!("{name:26} {:4} {:88} {by}", mutation.contract(), mutation.sentence());
        let is_found = match rules {
            [] => !guilty.seen.is_empty(),
            rules => broken.contains(&rules[0]),
        };
        if !is_found || broken.iter().any(|rule| !rules.contains(rule)) {
            missed.push(format!("{mutation:?}, expected {rules:?}: {} {:?}", guilty.verdict, guilty.seen));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn every_line_of_the_contract_that_is_claimed_has_a_mutation() {
    let broken: BTreeSet<_> = Mutation::ALL.iter().map(|mutation| mutation.contract()).collect();
    let claimed = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"];
    assert_eq!(broken, BTreeSet::from(claimed));
}

/// With other features or dependencies than the client's, it would not be the client that is built here.
#[test]
fn the_manifest_is_the_clients() {
    let both = [include_str!("../../Cargo.toml"), include_str!("../../../../crates/kwal-client/Cargo.toml")];
    let [ours, theirs] = both.map(|manifest| {
        let features = manifest.split_once("[features]").unwrap().1;
        features.split_once("[dev-dependencies]").unwrap().0
    });
    assert_eq!(ours, theirs);
}
