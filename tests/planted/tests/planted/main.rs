//! Every mutation is detected, and nothing is reported without it.
//!
//! The client here is `kwal-client`'s own source with `mutations.txt` applied. A [`Mutation`] is activated
//! for a thread, and a scene played in which it does harm. [`kwal_testkit::check`] has to detect it by the
//! rule that is first in the list below, and may report no rule that is not in that list. The same scene
//! without the mutation has to pass. Some mutations are detected by storms as well.
//!
//! A history of appends and reads does not show everything. The scenes themselves check the rest:
//! - memory and connections (C9): whether a call fails or waits at the limit. How much is really held is
//!   measured by the contract tests of `kwal-client` (`limits`, `connections`) and the tests of
//!   `kwal-protocol`.
//! - throttling (C10): when a request is sent, how often, and whether a reader makes progress.
//! - topics that a lookup creates (C11), because they have no records.
//! - that a call makes progress and does not merely end with an error in time: the time limit of a request
//!   and metadata that is wrong (C4), and permits that are given back (C5).
//! - the end of a log (C7): a deposed leader that has not noticed yet reports an older end, so an end before
//!   one that was reported earlier is not an error in itself.
//!
//! What brokers ensure whatever a client requests has no mutation: that nothing above the high watermark is
//! read.

#![allow(clippy::unwrap_used, reason = "this is a test")]

extern crate kwal_planted as kwal_client;

mod appends;
mod exclusive;
mod fixture;
mod metadata;
mod reading;
mod renewals;
mod resolving;
mod resources;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../../../../crates/kwal-client/tests/storm/run/mod.rs"]
mod run;
mod storms;
#[allow(dead_code, reason = "shared with other tests")]
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
        Mutation::AcksOfOne => (writing::leader_killed().await, &[Rule::Durable, Rule::FalseAlarm]),
        Mutation::AcksOfOneWithIdempotence => (appends::acks_of_one_with_idempotence().await, &[]),
        Mutation::AcksIgnored => (appends::acks_of_one().await, &[]),
        Mutation::LastOffsetForFirst => {
            (writing::batch_of_two_records().await, &[Rule::Offset, Rule::FalseAlarm])
        }
        Mutation::RetryWithoutSequence | Mutation::RetryUnderNewSequence | Mutation::RetryInNewEpoch => {
            (writing::response_lost().await, &[Rule::Once])
        }
        Mutation::NewIdAtNewLeader => (writing::response_lost_and_leader_moved().await, &[Rule::Once]),
        Mutation::NewIdInDoubt => (writing::response_lost_and_id_refused().await, &[Rule::Once]),
        Mutation::RetryWithoutId => (writing::response_lost_without_producer_id().await, &[Rule::Once]),
        Mutation::EpochNotBumped => (writing::append_after_unknown_outcome().await, &[Rule::Durable]),
        Mutation::EpochNotBumpedAtRelease => {
            (appends::reopened_after_unknown_outcome().await, &[Rule::Durable])
        }
        Mutation::SequenceReusedAfterDoubt => {
            (appends::response_lost_then_rejected().await, &[Rule::Durable])
        }
        Mutation::IdAcquiredTwice => (writing::reopened_twice().await, &[Rule::Durable]),
        Mutation::IdIdleInFlight => (writing::reopened_while_in_flight().await, &[Rule::Durable]),
        Mutation::FenceOnNextEpoch => (resolving::fenced_by_another_client().await, &[Rule::Durable]),
        Mutation::ResolvedWithoutFence => (resolving::arrives_after_resolution().await, &[]),
        Mutation::FirstOffsetOverlooked => (resolving::appended_before_resolution().await, &[]),
        Mutation::BatchForEachRecord => (writing::concurrent_batches().await, &[Rule::Whole]),
        Mutation::TwoInFlight => (writing::first_batch_rejected().await, &[Rule::Order]),
        Mutation::WindowAfterSilence => (appends::rejected_after_silence().await, &[Rule::Order]),
        Mutation::WindowIgnored => (appends::one_in_flight().await, &[]),
        Mutation::ResentOutOfOrder => (appends::rejected_in_flight().await, &[Rule::Order]),
        Mutation::HoleBehindRefused => (appends::rejected_with_others_in_flight().await, &[Rule::NoHole]),
        Mutation::ContinueIgnored => (appends::rejected_and_continued().await, &[]),
        Mutation::HoleAfterFailure => (writing::rejected_with_others_queued().await, &[Rule::NoHole]),
        Mutation::OrderOfPolls => (writing::second_polls_reversed().await, &[Rule::Order]),
        Mutation::AttemptWithoutDeadline => (writing::no_response().await, &[Rule::Deadline]),
        Mutation::RequestWithoutDeadline => (resources::request_without_response().await, &[]),
        Mutation::ThrottledBeyondDeadline => (resources::throttled_beyond_deadline().await, &[]),
        Mutation::AttemptsWithoutPause => (resources::dead_broker().await, &[]),
        Mutation::AbandonedPollsQueue => (resources::long_polls_dropped().await, &[]),
        Mutation::PauseBeyondDeadline => (writing::every_attempt_rejected().await, &[Rule::Deadline]),
        Mutation::DeadlineWithoutProgress => (resources::deadline_without_response().await, &[]),
        Mutation::EarlierAttemptsForgotten => {
            (writing::timed_out_then_rejected().await, &[Rule::NotAppended])
        }
        Mutation::DeadlineTakenForRejection => {
            (writing::response_after_deadline().await, &[Rule::NotAppended])
        }
        Mutation::DeadlineOfFirstForAll => (appends::deadlines_of_two().await, &[Rule::Deadline]),
        Mutation::LaterAckNotSettling => (appends::acknowledged_after_doubt().await, &[Rule::NoHole]),
        Mutation::ResolvedWithoutOwnFence => (appends::resolved_before_it_arrives().await, &[]),
        Mutation::CloseForgetsOne => (appends::closed_after_drop().await, &[]),
        Mutation::PermitOutlivesClose => (appends::submitted_after_close().await, &[]),
        Mutation::ClientCloseForgetsOne => (appends::client_closed().await, &[]),
        Mutation::CodeTakenForRejection => (writing::error_after_append().await, &[Rule::NotAppended]),
        Mutation::LostResponseTakenForUnsent => {
            (writing::response_lost_then_rejected().await, &[Rule::NotAppended])
        }
        Mutation::LeaderEpochForEver => (metadata::older_epoch_restored().await, &[]),
        Mutation::OneBrokerDecides => (metadata::leader_not_listed_once().await, &[]),
        Mutation::DroppedNotSent => (writing::dropped_in_queue().await, &[Rule::NoHole]),
        Mutation::DroppedRequestIsSent => (resources::dropped_under_throttle().await, &[]),
        Mutation::DroppedAborted => (writing::dropped_in_flight().await, &[Rule::Durable]),
        Mutation::DroppedKeepsPermits => (resources::many_appends_dropped().await, &[]),
        Mutation::PermitKept => (resources::permits_too_small().await, &[]),
        Mutation::WithdrawnIsSent => (writing::withdrawn().await, &[Rule::Withdrawn]),
        Mutation::AppendsAfterFence => (writing::fenced().await, &[Rule::Ended]),
        Mutation::BarrierNotReadBack => (exclusive::epoch_used_by_another().await, &[Rule::Durable]),
        Mutation::OtherMarkAccepted => (exclusive::epoch_shared_by_two().await, &[Rule::Durable]),
        Mutation::OvertakenIgnored => (exclusive::overtaken().await, &[Rule::OneWriter]),
        Mutation::BarrierEndsSearch => (exclusive::overtaken_then_taken_over().await, &[Rule::OneWriter]),
        Mutation::RenewalWithoutIdentity | Mutation::RenewalTakesNameBack => {
            (renewals::renewed_after_takeover().await, &[Rule::OneWriter])
        }
        Mutation::OtherIdAccepted => (renewals::renewed_after_two_were_forgotten().await, &[Rule::OneWriter]),
        Mutation::EpochRaisedUnderName => (exclusive::taken_over_after_doubt().await, &[]),
        Mutation::OldIdNotFenced => (exclusive::name_forgotten().await, &[Rule::OneWriter]),
        Mutation::SearchOfLastPart => {
            (exclusive::name_forgotten_long_after_barrier().await, &[Rule::OneWriter])
        }
        Mutation::FencedUnasked => (exclusive::forgotten_before_search().await, &[]),
        Mutation::IdChangedAfterSearch => (exclusive::forgotten_while_searching().await, &[Rule::OneWriter]),
        Mutation::FenceFailureIgnored => (exclusive::fence_rejected().await, &[Rule::OneWriter]),
        Mutation::FenceOfLeaderAlone => (exclusive::leader_killed_after_fence().await, &[Rule::OneWriter]),
        Mutation::BarrierOfLeaderAlone => (exclusive::followers_lag().await, &[]),
        Mutation::BarrierNotFirst => (exclusive::taken_over().await, &[Rule::FalseAlarm]),
        Mutation::BarrierOfOtherName => (exclusive::other_name().await, &[]),
        Mutation::CopyIsBarrier => (exclusive::barrier_copied().await, &[]),
        Mutation::LookalikeIsBarrier => (exclusive::barrier_with_a_fifth_header().await, &[]),
        Mutation::SilenceIgnored => (renewals::back_after_silence().await, &[Rule::OneWriter]),
        Mutation::TakeoverConfirmsLate => (renewals::stopped_while_taking_over().await, &[Rule::OneWriter]),
        Mutation::AcknowledgementConfirmsLate => {
            (renewals::stopped_before_acknowledgement().await, &[Rule::OneWriter])
        }
        Mutation::RenewalOnlyWithAppends => (renewals::idle_for_long().await, &[]),
        Mutation::FailedRenewalFailsAppends => (renewals::renewal_rejected().await, &[]),
        Mutation::SlowRenewalHoldsUp => (renewals::renewal_not_answered().await, &[]),
        Mutation::UncleanElectionIsAnotherWriter => {
            (exclusive::unclean_election_while_taking_over().await, &[])
        }
        Mutation::NamedIdReleased => (exclusive::reopened_without_name().await, &[]),
        Mutation::ForeignResolveFences => (exclusive::resolved_without_name().await, &[]),
        Mutation::ResolvedWithoutProof => (exclusive::resolved_by_an_earlier_holder().await, &[]),
        Mutation::ProbeIgnored => (renewals::probed_after_takeover().await, &[]),
        Mutation::ProbeForgetsRenewal => (renewals::probed_while_epoch_is_raised().await, &[]),
        Mutation::FencedUnnoticed => (exclusive::waited_for().await, &[]),
        Mutation::HolderOfSearchEnd => (exclusive::appended_before_barrier().await, &[Rule::Durable]),
        Mutation::NextFromLastRecord => (reading::compacted_log_with_marker().await, &[Rule::Deadline]),
        Mutation::PartialBatchTakenForEnd => (reading::partial_batches().await, &[Rule::ReadEvery]),
        Mutation::CorruptBatchSkipped => (reading::corrupt_batch().await, &[Rule::ReadEvery]),
        Mutation::DisorderRead => (reading::batches_twice().await, &[Rule::ReadOnce]),
        Mutation::StuckForEver => (reading::batch_always_cut_off().await, &[]),
        Mutation::OtherAnswerTaken => (reading::answer_about_another_partition().await, &[]),
        Mutation::FirstBatchWhole => (reading::offset_within_batch().await, &[Rule::ReadOnce]),
        Mutation::MarkersAreRecords => (reading::compacted_log_with_marker().await, &[Rule::ReadTrue]),
        Mutation::EndFromFetch => (reading::end_offset_after_election().await, &[]),
        Mutation::DeletedSkipped => (reading::records_deleted().await, &[Rule::ReadEvery]),
        Mutation::LossIgnored => (writing::data_loss().await, &[Rule::LossEnds]),
        Mutation::LowerOffsetIgnored => (appends::log_lost_unnoticed().await, &[Rule::LossEnds]),
        Mutation::LossAtFirstRejection => (writing::deposed_leader().await, &[Rule::FalseAlarm]),
        Mutation::AppendsAfterLoss => (writing::data_loss().await, &[Rule::Ended, Rule::LossEnds]),
        Mutation::LookUpSkipped => (appends::loss_filled_up().await, &[Rule::LossEnds]),
        Mutation::LookUpOfWrongOffset => (appends::reconnected().await, &[Rule::FalseAlarm]),
        Mutation::RetentionTakenForLoss => (appends::deleted_and_reconnected().await, &[Rule::FalseAlarm]),
        Mutation::RecreatedTopicFollowed => (reading::topic_recreated().await, &[Rule::Truncation]),
        Mutation::CodeTakenForRecreation => (reading::topic_id_briefly_unknown().await, &[Rule::FalseAlarm]),
        Mutation::BudgetCountsAppends => (resources::memory_budget_exhausted().await, &[Rule::Withdrawn]),
        Mutation::MemoryReservedAfterEncoding => {
            (resources::memory_scarce_while_encoding().await, &[Rule::Withdrawn])
        }
        Mutation::RestOfPermitKept => (resources::permit_larger_than_batch().await, &[]),
        Mutation::ConnectionsWithoutLimit => (resources::many_partition_clients().await, &[]),
        Mutation::DecompressedWithoutLimit => (resources::decompressed_beyond_limit().await, &[]),
        Mutation::FrameWithoutLimit => (resources::response_beyond_limit().await, &[]),
        Mutation::ThrottleTakenForFailure => (writing::throttled().await, &[Rule::Once]),
        Mutation::ThrottleIgnored => (resources::long_throttle().await, &[]),
        Mutation::ThrottleForgottenWithCaller => (resources::throttled_after_drop().await, &[]),
        Mutation::ThrottleForgottenWithConnection => (resources::connection_lost_under_throttle().await, &[]),
        Mutation::ThrottleTakenForResult => (resources::reader_over_quota().await, &[]),
        Mutation::QueueWithoutLimit => (resources::queue_full().await, &[Rule::Withdrawn]),
        Mutation::FirstPartitionForAll => (writing::two_partitions().await, &[Rule::Asked]),
        Mutation::LookupCreatesTopic => (resources::lookup_of_unknown_topic().await, &[]),
    }
}

/// Judges the scene of a mutation, played with a mutation activated or without one.
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
        let (original, _) = judge(mutation, None);
        if !original.verdict.holds() || !original.findings.is_empty() {
            let Found { verdict, findings } = original;
            missed.push(format!("found without {mutation:?}: {verdict} {findings:?}"));
        }
        let (Found { verdict, findings }, rules) = judge(mutation, Some(mutation));
        let broken: Vec<_> = verdict.broken().collect();
        let by = match broken.is_empty() {
            true => findings.join(", "),
            false => broken.iter().map(Rule::to_string).collect::<Vec<_>>().join(", "),
        };
        let name = format!("{mutation:?}");
        println!("{name:27} {:4} {:88} {by}", mutation.contract(), mutation.sentence());
        let is_found = match rules {
            [] => !findings.is_empty(),
            rules => broken.contains(&rules[0]),
        };
        if !is_found || broken.iter().any(|rule| !rules.contains(rule)) {
            missed.push(format!("{mutation:?}, expected {rules:?}: {verdict} {findings:?}"));
        }
    }
    assert!(missed.is_empty(), "{}", missed.join("\n\n"));
}

#[test]
fn every_line_of_the_contract_has_a_mutation() {
    let broken: BTreeSet<_> = Mutation::ALL.iter().map(|mutation| mutation.contract()).collect();
    let contract = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "C8", "C9", "C10", "C11"];
    assert_eq!(broken, BTreeSet::from(contract));
}

/// Otherwise the client built here would differ from `kwal-client`.
#[test]
fn features_and_dependencies_are_those_of_the_client() {
    let manifests =
        [include_str!("../../Cargo.toml"), include_str!("../../../../crates/kwal-client/Cargo.toml")];
    for section in ["[features]\n", "[dependencies]\n"] {
        let [ours, theirs] = manifests.map(|manifest| {
            let lines = manifest.split_once(section).unwrap().1;
            lines.split("\n[").next().unwrap().trim_end()
        });
        assert_eq!(ours, theirs, "{section}");
    }
}
