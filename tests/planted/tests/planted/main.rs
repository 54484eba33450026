//! Every mutation is detected, and nothing is reported without it.
//!
//! The client here is the own source of `kwal-client` and `kwal-batching` with `mutations.txt` applied. A
//! [`Mutation`] is activated for a thread, and a scene played in which it does harm.
//! [`kwal_testkit::check`] has to detect it by the rule that is first in the list below, and may report no
//! rule that is not in that list. The same scene without the mutation has to pass. Some mutations are
//! detected by storms as well.
//!
//! A history of appends and reads does not show everything. The scenes themselves check the rest:
//! - that nothing comes after an error (C7), and where fetches wait for each other (C7).
//! - memory and connections (C9): whether a call fails or waits at the limit. How much is really held is
//!   measured by the contract tests of `kwal-client` (`limits`, `connections`) and the tests of
//!   `kwal-protocol`.
//! - throttling (C10): when a request is sent, how often, and whether a reader makes progress.
//! - topics that a lookup creates (C11), because they have no records.
//! - that a call makes progress and does not merely end with an error in time: the time limit of a request
//!   and metadata that is wrong (C4), and permits that are given back (C5).
//! - when producers send what has gathered (C11), what their barrier and their end wait for (C4), and inputs
//!   that are not records (C2).
//! - entries of several fragments (C2), which are on a topic of their own.
//! - the end of a log (C7): a deposed leader that has not noticed yet reports an older end, so an end before
//!   one that was reported earlier is not an error in itself.
//!
//! What brokers ensure whatever a client requests has no mutation: that nothing above the high watermark is
//! read.

#![allow(clippy::unwrap_used, reason = "this is a test")]

extern crate kwal_planted as kwal_client;

mod appends;
mod batches;
mod entries;
mod exclusive;
mod fixture;
mod metadata;
mod reading;
mod recreation;
mod renewals;
mod replaying;
mod resolving;
mod resources;
mod routing;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../../../../crates/kwal-client/tests/storm/run/mod.rs"]
mod run;
mod storms;
#[allow(dead_code, reason = "shared with other tests")]
#[path = "../../../../crates/kwal-client/tests/contract/support.rs"]
mod support;
mod writing;

use std::collections::BTreeSet;

use futures::future::LocalBoxFuture;
use kwal_client::{
    Mutation, activate,
    batching::{producer, reader as consumer},
};
use kwal_testkit::check::Rule;

use crate::fixture::{Fixture, Found};

/// Returns the scene in which a mutation does harm, and the rules that detect it.
fn play(mutation: Mutation) -> (LocalBoxFuture<'static, Fixture>, &'static [Rule]) {
    match mutation {
        Mutation::AcksOfOne => (boxed(writing::leader_killed), &[Rule::Durable, Rule::FalseAlarm]),
        Mutation::AcksOfOneWithIdempotence => (boxed(appends::acks_of_one_with_idempotence), &[]),
        Mutation::AcksIgnored => (boxed(appends::acks_of_one), &[]),
        Mutation::LastOffsetForFirst => {
            (boxed(writing::batch_of_two_records), &[Rule::Offset, Rule::FalseAlarm])
        }
        Mutation::RetryWithoutSequence | Mutation::RetryUnderNewSequence | Mutation::RetryInNewEpoch => {
            (boxed(writing::response_lost), &[Rule::Once])
        }
        Mutation::NewIdAtNewLeader => (boxed(writing::response_lost_and_leader_moved), &[Rule::Once]),
        Mutation::NewIdInDoubt => (boxed(writing::response_lost_and_id_refused), &[Rule::Once]),
        Mutation::RetryWithoutId => (boxed(writing::response_lost_without_producer_id), &[Rule::Once]),
        Mutation::EpochNotBumped => (boxed(writing::append_after_unknown_outcome), &[Rule::Durable]),
        Mutation::EpochNotBumpedAtRelease => {
            (boxed(appends::reopened_after_unknown_outcome), &[Rule::Durable])
        }
        Mutation::SequenceReusedAfterDoubt => (boxed(appends::response_lost_then_rejected), &[Rule::Durable]),
        Mutation::IdAcquiredTwice => (boxed(writing::reopened_twice), &[Rule::Durable]),
        Mutation::IdIdleInFlight => (boxed(writing::reopened_while_in_flight), &[Rule::Durable]),
        Mutation::FenceOnNextEpoch => (boxed(resolving::fenced_by_another_client), &[Rule::Durable]),
        Mutation::ResolvedWithoutFence => (boxed(resolving::arrives_after_resolution), &[]),
        Mutation::FirstOffsetOverlooked => (boxed(resolving::appended_before_resolution), &[]),
        Mutation::LargeValueTwice => (boxed(writing::large_values), &[Rule::Once, Rule::Whole]),
        Mutation::LargeValueLeftOut => (boxed(writing::large_values), &[Rule::Durable, Rule::Asked]),
        Mutation::BatchForEachRecord => (boxed(writing::concurrent_batches), &[Rule::Whole]),
        Mutation::TwoInFlight => (boxed(writing::first_batch_rejected), &[Rule::Order]),
        Mutation::WindowAfterSilence => (boxed(appends::rejected_after_silence), &[Rule::Order]),
        Mutation::WindowIgnored => (boxed(appends::one_in_flight), &[]),
        Mutation::ResentOutOfOrder => (boxed(appends::rejected_in_flight), &[Rule::Order]),
        Mutation::HoleBehindRefused => (boxed(appends::rejected_with_others_in_flight), &[Rule::NoHole]),
        Mutation::ContinueIgnored => (boxed(appends::rejected_and_continued), &[]),
        Mutation::HoleAfterFailure => (boxed(writing::rejected_with_others_queued), &[Rule::NoHole]),
        Mutation::KeyWithItsSign => (boxed(routing::by_key), &[]),
        Mutation::OrderOfPolls => (boxed(writing::second_polls_reversed), &[Rule::Order]),
        Mutation::AttemptWithoutDeadline => (boxed(writing::no_response), &[Rule::Deadline]),
        Mutation::RequestWithoutDeadline => (boxed(resources::request_without_response), &[]),
        Mutation::ThrottledBeyondDeadline => (boxed(resources::throttled_beyond_deadline), &[]),
        Mutation::AttemptsWithoutPause => (boxed(resources::dead_broker), &[]),
        Mutation::AbandonedPollsQueue => (boxed(resources::long_polls_dropped), &[]),
        Mutation::PauseBeyondDeadline => (boxed(writing::every_attempt_rejected), &[Rule::Deadline]),
        Mutation::DeadlineWithoutProgress => (boxed(resources::deadline_without_response), &[]),
        Mutation::EarlierAttemptsForgotten => (boxed(writing::timed_out_then_rejected), &[Rule::NotAppended]),
        Mutation::DeadlineTakenForRejection => {
            (boxed(writing::response_after_deadline), &[Rule::NotAppended])
        }
        Mutation::DeadlineOfFirstForAll => (boxed(appends::deadlines_of_two), &[Rule::Deadline]),
        Mutation::LaterAckNotSettling => (boxed(appends::acknowledged_after_doubt), &[Rule::NoHole]),
        Mutation::ResolvedWithoutOwnFence => (boxed(appends::resolved_before_it_arrives), &[]),
        Mutation::CloseForgetsOne => (boxed(appends::closed_after_drop), &[]),
        Mutation::PermitOutlivesClose => (boxed(appends::submitted_after_close), &[]),
        Mutation::ClientCloseForgetsOne => (boxed(appends::client_closed), &[]),
        Mutation::FlushOfOnePartition => (boxed(routing::flushed), &[]),
        Mutation::CloseOfOnePartition => (boxed(routing::closed), &[]),
        Mutation::CodeTakenForRejection => (boxed(writing::error_after_append), &[Rule::NotAppended]),
        Mutation::LostResponseTakenForUnsent => {
            (boxed(writing::response_lost_then_rejected), &[Rule::NotAppended])
        }
        Mutation::LeaderEpochForEver => (boxed(metadata::older_epoch_restored), &[]),
        Mutation::OneBrokerDecides => (boxed(metadata::leader_not_listed_once), &[]),
        Mutation::DroppedNotSent => (boxed(writing::dropped_in_queue), &[Rule::NoHole]),
        Mutation::DroppedRequestIsSent => (boxed(resources::dropped_under_throttle), &[]),
        Mutation::DroppedAborted => (boxed(writing::dropped_in_flight), &[Rule::Durable]),
        Mutation::DroppedKeepsPermits => (boxed(resources::many_appends_dropped), &[]),
        Mutation::PermitKept => (boxed(resources::permits_too_small), &[]),
        Mutation::WithdrawnIsSent => (boxed(writing::withdrawn), &[Rule::Withdrawn]),
        Mutation::AppendsAfterFence => (boxed(writing::fenced), &[Rule::Ended]),
        Mutation::BarrierNotReadBack => (boxed(exclusive::epoch_used_by_another), &[Rule::Durable]),
        Mutation::OtherMarkAccepted => (boxed(exclusive::epoch_shared_by_two), &[Rule::Durable]),
        Mutation::OvertakenIgnored => (boxed(exclusive::overtaken), &[Rule::OneWriter]),
        Mutation::BarrierEndsSearch => (boxed(exclusive::overtaken_then_taken_over), &[Rule::OneWriter]),
        Mutation::RenewalWithoutIdentity | Mutation::RenewalTakesNameBack => {
            (boxed(renewals::renewed_after_takeover), &[Rule::OneWriter])
        }
        Mutation::OtherIdAccepted => (boxed(renewals::renewed_after_two_were_forgotten), &[Rule::OneWriter]),
        Mutation::EpochRaisedUnderName => (boxed(exclusive::taken_over_after_doubt), &[]),
        Mutation::OldIdNotFenced => (boxed(exclusive::name_forgotten), &[Rule::OneWriter]),
        Mutation::SearchOfLastPart => {
            (boxed(exclusive::name_forgotten_long_after_barrier), &[Rule::OneWriter])
        }
        Mutation::FencedUnasked => (boxed(exclusive::forgotten_before_search), &[]),
        Mutation::IdChangedAfterSearch => (boxed(exclusive::forgotten_while_searching), &[Rule::OneWriter]),
        Mutation::FenceFailureIgnored => (boxed(exclusive::fence_rejected), &[Rule::OneWriter]),
        Mutation::FenceOfLeaderAlone => (boxed(exclusive::leader_killed_after_fence), &[Rule::OneWriter]),
        Mutation::BarrierOfLeaderAlone => (boxed(exclusive::followers_lag), &[]),
        Mutation::BarrierNotFirst => (boxed(exclusive::taken_over), &[Rule::FalseAlarm]),
        Mutation::BarrierOfOtherName => (boxed(exclusive::other_name), &[]),
        Mutation::CopyIsBarrier => (boxed(exclusive::barrier_copied), &[]),
        Mutation::LookalikeIsBarrier => (boxed(exclusive::barrier_with_a_fifth_header), &[]),
        Mutation::SilenceIgnored => (boxed(renewals::back_after_silence), &[Rule::OneWriter]),
        Mutation::TakeoverConfirmsLate => (boxed(renewals::stopped_while_taking_over), &[Rule::OneWriter]),
        Mutation::AcknowledgementConfirmsLate => {
            (boxed(renewals::stopped_before_acknowledgement), &[Rule::OneWriter])
        }
        Mutation::RenewalOnlyWithAppends => (boxed(renewals::idle_for_long), &[]),
        Mutation::FailedRenewalFailsAppends => (boxed(renewals::renewal_rejected), &[]),
        Mutation::SlowRenewalHoldsUp => (boxed(renewals::renewal_not_answered), &[]),
        Mutation::UncleanElectionIsAnotherWriter => {
            (boxed(exclusive::unclean_election_while_taking_over), &[])
        }
        Mutation::NamedIdReleased => (boxed(exclusive::reopened_without_name), &[]),
        Mutation::ForeignResolveFences => (boxed(exclusive::resolved_without_name), &[]),
        Mutation::ResolvedWithoutProof => (boxed(exclusive::resolved_by_an_earlier_holder), &[]),
        Mutation::ProbeIgnored => (boxed(renewals::probed_after_takeover), &[]),
        Mutation::ProbeForgetsRenewal => (boxed(renewals::probed_while_epoch_is_raised), &[]),
        Mutation::FencedUnnoticed => (boxed(exclusive::waited_for), &[]),
        Mutation::HolderOfSearchEnd => (boxed(exclusive::appended_before_barrier), &[Rule::Durable]),
        Mutation::NextFromLastRecord => (boxed(reading::compacted_log_with_marker), &[Rule::Deadline]),
        Mutation::PartialBatchTakenForEnd => (boxed(reading::partial_batches), &[Rule::ReadEvery]),
        Mutation::CorruptBatchSkipped => (boxed(reading::corrupt_batch), &[Rule::ReadEvery]),
        Mutation::DisorderRead => (boxed(reading::batches_twice), &[Rule::ReadOnce]),
        Mutation::StuckForEver => (boxed(reading::batch_always_cut_off), &[]),
        Mutation::OtherAnswerTaken => (boxed(reading::answer_about_another_partition), &[]),
        Mutation::FirstBatchWhole => (boxed(reading::offset_within_batch), &[Rule::ReadOnce]),
        Mutation::MarkersAreRecords => (boxed(reading::compacted_log_with_marker), &[Rule::ReadTrue]),
        Mutation::EndFromFetch => (boxed(reading::end_offset_after_election), &[]),
        Mutation::OffsetOfTheNeighbour => (boxed(batches::gathered), &[Rule::Offset, Rule::Durable]),
        Mutation::RejectedInputKept => (boxed(batches::input_rejected), &[]),
        Mutation::RejectedPartKept | Mutation::PackedRecordLost | Mutation::PackedTimeForgotten => {
            (boxed(batches::part_rejected), &[])
        }
        Mutation::LargeInputAccepted => (boxed(batches::too_large_for_the_topic), &[]),
        Mutation::LastFullFirst => (boxed(batches::many_full), &[Rule::Order]),
        Mutation::EncodingOvertaken => (boxed(batches::overtaken_while_encoding), &[Rule::Order]),
        Mutation::WaitingPassed => (boxed(batches::waiting_for_memory), &[Rule::Order]),
        Mutation::GatheredBehindFailureSent => {
            (boxed(batches::rejected_with_others_gathered), &[Rule::NoHole])
        }
        Mutation::AcceptedBeforeAllKnow => (boxed(batches::handed_over_before_the_error), &[Rule::NoHole]),
        Mutation::FollowersHoldUpNothing => {
            (boxed(batches::handed_over_before_the_error_of_the_next), &[Rule::NoHole])
        }
        Mutation::LookUpForNobody => (boxed(appends::look_up_hardly_arrives), &[]),
        Mutation::AckLost => (boxed(batches::awaited_from_the_start), &[Rule::Deadline]),
        Mutation::LateAckLost => (boxed(batches::awaited_later), &[Rule::Deadline]),
        Mutation::FlushForgetsInFlight => (boxed(batches::flushed_in_flight), &[]),
        Mutation::FlushForgetsGathered => (boxed(batches::flushed_while_gathering), &[]),
        Mutation::FlushForgetsTaken => (boxed(batches::flushed_while_encoding), &[]),
        Mutation::CloseForgetsGathered => (boxed(batches::closed_while_gathering), &[]),
        Mutation::CloseForgetsInFlight | Mutation::CloseForgetsFailed => {
            (boxed(batches::closed_at_deadline), &[])
        }
        Mutation::AcceptedAfterClose => (boxed(batches::sent_after_close), &[]),
        Mutation::GatheredBeyondDeadline => (boxed(batches::gathered_for_long), &[Rule::Deadline]),
        Mutation::AtOnceForEver => (boxed(batches::again_at_once), &[]),
        Mutation::LastHandleDropsAccepted => (boxed(batches::last_handle_dropped), &[]),
        Mutation::DebtForgotten => (boxed(batches::slot_overdrawn), &[]),
        Mutation::PanicKeepsPermit => (boxed(batches::first_input_panics), &[]),
        Mutation::LingersWhenIdle => (boxed(batches::idle), &[]),
        Mutation::FlushLingers => (boxed(batches::flushed_while_lingering), &[]),
        Mutation::FullLingers => (boxed(batches::full_while_lingering), &[]),
        Mutation::GathersNothing => (boxed(batches::busy_log), &[]),
        Mutation::ReturningNotAwaited => (boxed(batches::callers_come_back), &[]),
        Mutation::ReplayEndFromFetch => (boxed(replaying::replayed_after_election), &[Rule::Replay]),
        Mutation::MarkerStallsReplay | Mutation::PositionFromLastRecord => {
            (boxed(replaying::replayed_to_marker), &[Rule::Deadline])
        }
        Mutation::AbortedReturned => (boxed(replaying::replayed_without_aborted), &[Rule::Committed]),
        Mutation::AbortedTakenForSorted => {
            (boxed(replaying::replayed_with_unsorted_list), &[Rule::Committed])
        }
        Mutation::GoesOnAfterError => (boxed(replaying::read_on_after_error), &[]),
        Mutation::GapAtFollow => (boxed(replaying::followed_from_within_batch), &[Rule::ReadEvery]),
        Mutation::RepeatAtFollow => (boxed(replaying::followed_from_end), &[Rule::ReadOnce]),
        Mutation::ReadsBeyondReplayEnd => (boxed(replaying::followed_from_within_batch), &[]),
        Mutation::OutOfRangeReset => (boxed(replaying::replayed_before_log_start), &[Rule::ReadEvery]),
        Mutation::HoleJumped => (boxed(replaying::hole), &[Rule::ReadEvery]),
        Mutation::CorruptSkippedUnasked => {
            (boxed(replaying::replayed_corrupt_batch), &[Rule::ReadEvery, Rule::Replay])
        }
        Mutation::AnswerOfAnother => (boxed(replaying::fetched_together), &[]),
        Mutation::UnpolledIsUnderWay => (boxed(replaying::fetched_beside_unpolled), &[]),
        Mutation::WaitsForOthersPoll => (boxed(replaying::fetched_during_poll), &[]),
        Mutation::LeaderEpochNotSent => (boxed(|| replaying::truncated(16)), &[Rule::Truncation]),
        Mutation::DivergenceIgnored => (boxed(|| replaying::truncated(16)), &[]),
        Mutation::OldBrokersNotAsked | Mutation::VerifiedForEver => {
            (boxed(|| replaying::truncated(11)), &[Rule::Truncation])
        }
        Mutation::LonePositionTakenForExact => {
            (boxed(replaying::truncated_to_longer_epoch), &[Rule::Truncation])
        }
        Mutation::PositionOfOtherTopicRead => (boxed(replaying::kept_before_recreation), &[]),
        Mutation::ReadMemoryKept => (boxed(replaying::read_much), &[]),
        Mutation::AheadAfterDecoding => (boxed(replaying::fetched_ahead_while_decoding), &[]),
        Mutation::AheadBeyondBudget => (boxed(replaying::fetched_ahead), &[]),
        Mutation::DeletedSkipped => (boxed(reading::records_deleted), &[Rule::ReadEvery]),
        Mutation::LossIgnored => (boxed(writing::data_loss), &[Rule::LossEnds]),
        Mutation::LowerOffsetIgnored => (boxed(appends::log_lost_unnoticed), &[Rule::LossEnds]),
        Mutation::LossBehindUnknownId => (boxed(appends::loss_unnoticed_and_id_refused), &[Rule::LossEnds]),
        Mutation::LossAtFirstRejection => (boxed(writing::deposed_leader), &[Rule::FalseAlarm]),
        Mutation::AppendsAfterLoss => (boxed(writing::data_loss), &[Rule::Ended, Rule::LossEnds]),
        Mutation::LookUpSkipped => (boxed(appends::loss_filled_up), &[Rule::LossEnds]),
        Mutation::LookUpOfWrongOffset => (boxed(appends::reconnected), &[Rule::FalseAlarm]),
        Mutation::RetentionTakenForLoss => (boxed(appends::deleted_and_reconnected), &[Rule::FalseAlarm]),
        Mutation::RecreatedTopicFollowed => (boxed(reading::topic_recreated), &[Rule::Truncation]),
        Mutation::BelievedAfterDenial => (boxed(recreation::recreated_in_flight), &[Rule::LossEnds]),
        Mutation::DenialWithoutLookUp => (boxed(recreation::metadata_lags), &[Rule::LossEnds]),
        Mutation::AcknowledgedByEither => (boxed(recreation::acknowledged_late), &[]),
        Mutation::FormerTopicBelieved => (boxed(recreation::only_a_broker_that_lags_is_left), &[]),
        Mutation::CodeTakenForRecreation => (boxed(reading::topic_id_briefly_unknown), &[Rule::FalseAlarm]),
        Mutation::BudgetCountsAppends => (boxed(resources::memory_budget_exhausted), &[Rule::Withdrawn]),
        Mutation::MemoryReservedAfterEncoding => {
            (boxed(resources::memory_scarce_while_encoding), &[Rule::Withdrawn])
        }
        Mutation::SharedValuesNotCounted => (boxed(resources::large_values_in_flight), &[]),
        Mutation::IdleBuffersKept => (boxed(resources::idle_after_a_large_batch), &[]),
        Mutation::RestOfPermitKept => (boxed(resources::permit_larger_than_batch), &[]),
        Mutation::ConnectionsWithoutLimit => (boxed(resources::many_partition_clients), &[]),
        Mutation::DecompressedWithoutLimit => (boxed(resources::decompressed_beyond_limit), &[]),
        Mutation::FrameWithoutLimit => (boxed(resources::response_beyond_limit), &[]),
        Mutation::ThrottleTakenForFailure => (boxed(writing::throttled), &[Rule::Once]),
        Mutation::ThrottleIgnored => (boxed(resources::long_throttle), &[]),
        Mutation::ThrottleForgottenWithCaller => (boxed(resources::throttled_after_drop), &[]),
        Mutation::ThrottleForgottenWithConnection => (boxed(resources::connection_lost_under_throttle), &[]),
        Mutation::ThrottleTakenForResult => (boxed(resources::reader_over_quota), &[]),
        Mutation::QueueWithoutLimit => (boxed(resources::queue_full), &[Rule::Withdrawn]),
        Mutation::FirstPartitionForAll => (boxed(writing::two_partitions), &[Rule::Asked]),
        Mutation::LookupCreatesTopic => (boxed(resources::lookup_of_unknown_topic), &[]),
        Mutation::FragmentOfAnotherEntry => (boxed(entries::interleaved), &[]),
        Mutation::UnfinishedEntryReturned => (boxed(entries::abandoned), &[]),
        Mutation::ChecksumNotCompared => (boxed(entries::damaged), &[]),
        Mutation::EntryRepeatedAtResume | Mutation::UnfinishedEntryForgottenAtResume => {
            (boxed(entries::resumed), &[])
        }
        Mutation::IncompleteReportedAgain => (boxed(entries::cut_off), &[]),
        Mutation::FragmentAfterFailure | Mutation::EntryInDoubtWhenCut => (boxed(entries::rejected), &[]),
        Mutation::BarrierEndsNoEntry => (boxed(entries::shut_out), &[]),
        Mutation::UnfinishedForgottenAtFollow => (boxed(entries::followed), &[]),
        Mutation::UnfinishedWithoutLimit => (boxed(entries::unfinished), &[]),
    }
}

/// Boxes a scene, so that the stack has only one of them.
fn boxed<F: Future<Output = Fixture> + 'static>(
    scene: impl FnOnce() -> F,
) -> LocalBoxFuture<'static, Fixture> {
    Box::pin(scene())
}

/// Judges the scene of a mutation, played with a mutation activated or without one.
fn judge(scene: Mutation, active: Option<Mutation>) -> (Found, &'static [Rule]) {
    let (fixture, rules) = play(scene);
    (judge_scene(fixture, active), rules)
}

fn judge_scene(scene: LocalBoxFuture<'static, Fixture>, active: Option<Mutation>) -> Found {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build();
    activate(active);
    let found = runtime.unwrap().block_on(async { scene.await.judge().await });
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

/// Otherwise what is built here would differ from `kwal-client` and `kwal-batching`.
#[test]
fn features_and_dependencies_are_those_of_the_client() {
    let section = |manifest: &'static str, name: &str| {
        let lines = manifest.split_once(name).unwrap().1.split("\n[").next().unwrap();
        lines.trim().lines().collect::<BTreeSet<_>>()
    };
    let manifest = include_str!("../../Cargo.toml");
    let client = include_str!("../../../../crates/kwal-client/Cargo.toml");
    let batching = include_str!("../../../../crates/kwal-batching/Cargo.toml");
    assert_eq!(section(manifest, "[features]\n"), section(client, "[features]\n"));
    let dependencies = "[dependencies]\n";
    let mut theirs = section(client, dependencies);
    let name = |line: &str| line.split(['.', ' ']).next().unwrap_or_default().to_owned();
    let known: BTreeSet<_> = theirs.iter().map(|line| name(line)).collect();
    let others = section(batching, dependencies).into_iter();
    theirs.extend(others.filter(|line| !known.contains(&name(line)) && name(line) != "kwal-client"));
    assert_eq!(section(manifest, dependencies), theirs);
}

/// What a stream has fetched before the topic is created again excuses nothing that it fetches later.
#[test]
fn a_stream_that_reads_on_after_recreation_is_detected() {
    let judge = |active| judge_scene(boxed(replaying::followed_over_recreation), active);
    let Found { verdict, findings } = judge(None);
    assert!(verdict.holds() && findings.is_empty(), "{verdict} {findings:?}");
    let Found { verdict, findings } = judge(Some(Mutation::RecreatedTopicFollowed));
    assert!(verdict.broken().eq([Rule::Truncation]), "{verdict} {findings:?}");
}
