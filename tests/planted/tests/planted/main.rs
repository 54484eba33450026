//! Every mistake that a branch of the client is there to avoid, made on purpose: each is found, and nothing without it.
//!
//! The client here is `kwal-client`'s own source, built with the cfg `kwal_planted`. A [`Bug`] is switched on for a thread,
//! then a scene is played in which it would do harm. It is to be found by [`kwal_testkit::check`], by the rule that stands
//! first in the list below, and by no rule that does not stand there. The same scene without it is acquitted. Some are looked
//! for in storms as well.
//!
//! A history of appends and reads cannot show everything. What it cannot is looked at by the scene itself:
//! - memory and connections (C9): whether there is an error or a wait where the limit is. How much is held in fact, the
//!   contract's own tests (`limits`, `connections`) and those of `kwal-protocol` count.
//! - pauses (C10): how often a broker was asked, and that a reader gets on.
//! - topics that are made by looking them up (C11), since no partition has a record of it.
//! - that a call gets on, and does not merely end in time with an error: one request's deadline (C4), and room that is given
//!   back (C5).
//! - the end of a log (C7): a leader that has not heard yet that it is none tells an older one, so that an end before what
//!   others were told is no crime in itself.
//!
//! What brokers keep by themselves, whatever a client asks for, cannot be planted: that nothing above the high watermark is
//! read.

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

use kwal_client::{Bug, plant};
use kwal_testkit::check::Rule;

use crate::fixture::{Fixture, Found};

/// The scene in which a mistake does harm, and what finds it.
async fn play(bug: Bug) -> (Fixture, &'static [Rule]) {
    match bug {
        Bug::AcksOfOne => (writing::leader_lost().await, &[Rule::Durable, Rule::FalseAlarm]),
        Bug::LastOffsetForFirst => (writing::several_records().await, &[Rule::Offset]),
        Bug::RetryWithoutSequence | Bug::RetryUnderNewSequence | Bug::RetryInNewEpoch => {
            (writing::answer_lost().await, &[Rule::Once])
        }
        Bug::NewIdAtNewLeader => (writing::answer_lost_and_leader_moved().await, &[Rule::Once]),
        Bug::RetryWithoutId => (writing::answer_lost_without_id().await, &[Rule::Once]),
        Bug::EpochKept => (writing::behind_an_open_one().await, &[Rule::Durable]),
        Bug::IdGivenTwice => (writing::opened_twice_again().await, &[Rule::Durable]),
        Bug::IdNotTakenBack => (writing::opened_while_under_way().await, &[Rule::Durable]),
        Bug::BatchForEachRecord => (writing::two_at_a_time().await, &[Rule::Whole]),
        Bug::TwoInFlight => (writing::first_refused().await, &[Rule::NoHole, Rule::FalseAlarm]),
        Bug::HoleBehindFailure => (writing::refused_in_the_middle().await, &[Rule::NoHole]),
        Bug::OrderOfPolls => (writing::polled_in_another_order().await, &[Rule::Order]),
        Bug::AttemptWithoutDeadline => (writing::no_answer().await, &[Rule::Deadline]),
        Bug::RequestWithoutDeadline => (resources::one_without_an_answer().await, &[]),
        Bug::PauseBeyondDeadline => (writing::refused_again_and_again().await, &[Rule::Deadline]),
        Bug::EarlierAttemptsForgotten => (writing::timed_out_then_refused().await, &[Rule::NotAppended]),
        Bug::DeadlineTakenForRefusal => (writing::answer_beyond_the_deadline().await, &[Rule::NotAppended]),
        Bug::CodeTakenForRefusal => (writing::failed_after_the_append().await, &[Rule::NotAppended]),
        Bug::LostAnswerTakenForUnsent => (writing::answer_lost_then_refused().await, &[Rule::NotAppended]),
        Bug::DroppedNotSent => (writing::dropped_in_the_queue().await, &[Rule::NoHole]),
        Bug::DroppedCutOff => (writing::dropped_under_way().await, &[Rule::Durable]),
        Bug::DroppedKeepsRoom => (resources::many_dropped().await, &[]),
        Bug::WithdrawnIsSent => (writing::withdrawn().await, &[Rule::Withdrawn]),
        Bug::AppendsAfterFence => (writing::taken_over().await, &[Rule::Ended]),
        Bug::NextFromLastRecord => (reading::holes_and_markers().await, &[Rule::Deadline]),
        Bug::CutTakenForEnd => (reading::in_pieces().await, &[Rule::ReadEvery]),
        Bug::DamagePassedOver => (reading::damaged().await, &[Rule::ReadEvery]),
        Bug::FirstBatchWhole => (reading::from_within_a_batch().await, &[Rule::ReadOnce]),
        Bug::MarkersAreRecords => (reading::holes_and_markers().await, &[Rule::ReadTrue]),
        Bug::EndFromFetch => (reading::end_after_an_election().await, &[]),
        Bug::DeletedPassedOver => (reading::deleted_meanwhile().await, &[Rule::ReadEvery]),
        Bug::LossPaperedOver => (writing::loss().await, &[Rule::LossEnds]),
        Bug::LossAtFirstWord => (writing::leader_of_yesterday().await, &[Rule::FalseAlarm]),
        Bug::AppendsAfterLoss => (writing::loss().await, &[Rule::Ended, Rule::LossEnds]),
        Bug::OtherTopicFollowed => (reading::topic_made_again().await, &[Rule::Truncation]),
        Bug::CodeTakenForOtherTopic => (reading::topic_unknown_for_a_moment().await, &[Rule::FalseAlarm]),
        Bug::BudgetCountsAppends => (resources::budget_used_up().await, &[Rule::Withdrawn]),
        Bug::LanesWithoutLimit => (resources::many_partition_clients().await, &[]),
        Bug::UnpackedWithoutLimit => (resources::unpacks_to_much().await, &[]),
        Bug::FrameWithoutLimit => (resources::large_response().await, &[]),
        Bug::ThrottleTakenForFailure => (writing::throttled().await, &[Rule::Once]),
        Bug::ThrottleNotWaitedFor => (resources::throttled_for_long().await, &[]),
        Bug::ThrottleTakenForAnswer => (resources::reader_over_its_quota().await, &[]),
        Bug::QueueWithoutEnd => (resources::queue_full().await, &[Rule::Withdrawn]),
        Bug::FirstPartitionForAll => (writing::to_each_partition().await, &[Rule::Asked]),
        Bug::LookupCreates => (resources::lookup().await, &[]),
    }
}

/// Plays the scene of a mistake, with something planted or nothing.
fn found(bug: Bug, planted: Option<Bug>) -> (Found, &'static [Rule]) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    plant(planted);
    let found = runtime.unwrap().block_on(async {
        let (fixture, rules) = Box::pin(play(bug)).await;
        (fixture.judge().await, rules)
    });
    plant(None);
    found
}

#[test]
fn every_mistake_is_found_and_nothing_else() {
    let mut missed = Vec::new();
    for bug in Bug::ALL.iter().copied() {
        let (innocent, _) = found(bug, None);
        if !innocent.verdict.holds() || !innocent.seen.is_empty() {
            missed.push(format!("found without {bug:?}: {} {:?}", innocent.verdict, innocent.seen));
        }
        let (guilty, rules) = found(bug, Some(bug));
        let broken: Vec<_> = guilty.verdict.broken().collect();
        let by = match broken.is_empty() {
            true => guilty.seen.join(", "),
            false => broken.iter().map(Rule::to_string).collect::<Vec<_>>().join(", "),
        };
        println!("{:24} {:4} {:70} {by}", format!("{bug:?}"), bug.breaks(), bug.says().trim());
        let is_found = match rules {
            [] => !guilty.seen.is_empty(),
            rules => broken.contains(&rules[0]),
        };
        if !is_found || broken.iter().any(|rule| !rules.contains(rule)) {
            missed.push(format!("{bug:?}, expected {rules:?}: {} {:?}", guilty.verdict, guilty.seen));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn every_line_of_the_contract_that_is_claimed_has_a_mistake() {
    let broken: BTreeSet<_> = Bug::ALL.iter().map(|bug| bug.breaks()).collect();
    let claimed = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"];
    assert_eq!(broken, BTreeSet::from(claimed));
}

/// Features and dependencies are those of the client, or something else would be built.
#[test]
fn the_manifest_is_the_clients() {
    let both = [include_str!("../../Cargo.toml"), include_str!("../../../../crates/kwal-client/Cargo.toml")];
    let [ours, theirs] = both.map(|manifest| {
        let features = manifest.split_once("[features]").unwrap().1;
        features.split_once("[dev-dependencies]").unwrap().0
    });
    assert_eq!(ours, theirs);
}
