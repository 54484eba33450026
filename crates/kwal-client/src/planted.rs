//! Mistakes that this crate could make, each switched on by name: to show that what judges it would find them.
//!
//! None of it is in the published crate. The package `tests/planted` builds the same source with the cfg `kwal_planted`, and
//! has each of them found.

/// Whether a mistake is made here. Without the cfg `kwal_planted` it never is, and no code is left of it.
#[cfg(not(kwal_planted))]
macro_rules! planted {
    ($bug:ident) => {
        false
    };
}

/// Whether a mistake is made here.
#[cfg(kwal_planted)]
macro_rules! planted {
    ($bug:ident) => {
        $crate::planted::is_planted($crate::Bug::$bug)
    };
}

#[cfg(kwal_planted)]
pub use switch::{Bug, plant};

#[cfg(kwal_planted)]
pub(crate) use switch::is_planted;

#[cfg(kwal_planted)]
mod switch {
    use std::cell::Cell;

    thread_local! {
        static PLANTED: Cell<Option<Bug>> = const { Cell::new(None) };
    }

    /// From now on the clients whose tasks live on this thread make this mistake, or none.
    pub fn plant(bug: Option<Bug>) {
        PLANTED.set(bug);
    }

    pub(crate) fn is_planted(bug: Bug) -> bool {
        PLANTED.get() == Some(bug)
    }

    macro_rules! bugs {
        ($($line:literal { $(#[doc = $doc:literal] $bug:ident,)* })*) => {
            /// A mistake.
            #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
            pub enum Bug { $($(#[doc = $doc] $bug,)*)* }

            impl Bug {
                /// All there are.
                pub const ALL: &[Self] = &[$($(Self::$bug,)*)*];

                /// The line of the contract that it breaks, as the README's list of what holds has them.
                pub fn breaks(self) -> &'static str {
                    match self { $($(Self::$bug => $line,)*)* }
                }

                /// What goes wrong, in a few words.
                pub fn says(self) -> &'static str {
                    match self { $($(Self::$bug => $doc,)*)* }
                }
            }
        };
    }

    bugs! {
        // Acknowledged is durable.
        "C1" {
            /// An append is acknowledged when the leader alone has it.
            AcksOfOne,
            /// The offset that is told is the last record's.
            LastOffsetForFirst,
        }
        // Exactly once.
        "C2" {
            /// A retry goes out without producer id and sequence number.
            RetryWithoutSequence,
            /// A retry goes out under the next sequence number.
            RetryUnderNewSequence,
            /// A retry goes out in the next epoch.
            RetryInNewEpoch,
            /// A leader that has moved is appended to under a new producer id.
            NewIdAtNewLeader,
            /// Without producer ids, a batch whose outcome is open is sent again.
            RetryWithoutId,
            /// The append behind one whose outcome is open goes out in the same epoch.
            EpochKept,
            /// A producer id that was left to others is given to all of them.
            IdGivenTwice,
            /// A producer id counts as left to others while an append goes out under it.
            IdNotTakenBack,
            /// The records of one append go out as a batch each.
            BatchForEachRecord,
        }
        // Order, no hole.
        "C3" {
            /// Two batches are in flight under an id that the broker does not know yet.
            TwoInFlight,
            /// What was submitted behind an append that failed is appended all the same.
            HoleBehindFailure,
            /// The place of an append is fixed when it is polled for the second time.
            OrderOfPolls,
        }
        // No hang, and a clear word.
        "C4" {
            /// An attempt may last beyond the deadline.
            AttemptWithoutDeadline,
            /// A request waits for its answer for as long as the call may take.
            RequestWithoutDeadline,
            /// A pause between attempts may last beyond the deadline.
            PauseBeyondDeadline,
            /// What the last attempt came to is told of all.
            EarlierAttemptsForgotten,
            /// An append that is under way at the deadline is told of as not appended.
            DeadlineTakenForRefusal,
            /// Every error code that a broker answers an append with is taken for a refusal.
            CodeTakenForRefusal,
            /// A request whose answer was lost is taken for one that was not sent.
            LostAnswerTakenForUnsent,
        }
        // Cancellation.
        "C5" {
            /// An append that was dropped when its place was fixed is not sent.
            DroppedNotSent,
            /// An append that is dropped when it is under way ends there, and its sequence number is used again.
            DroppedCutOff,
            /// An append that was dropped keeps its room.
            DroppedKeepsRoom,
            /// An append that was dropped while it waited for room is appended.
            WithdrawnIsSent,
        }
        // One writer, of which no more is claimed yet than that who is told of another one stops.
        "C6" {
            /// After another writer has taken over, a new id is taken.
            AppendsAfterFence,
        }
        // Reading.
        "C7" {
            /// The next offset comes from the last record, not from the last batch.
            NextFromLastRecord,
            /// Where the answer is cut off is taken for the end.
            CutTakenForEnd,
            /// Damage is passed over.
            DamagePassedOver,
            /// The records before the offset asked for, of a batch that began there, are read too.
            FirstBatchWhole,
            /// The markers of transactions are read as records.
            MarkersAreRecords,
            /// Where the log ends is taken from a fetch.
            EndFromFetch,
            /// What is asked for and deleted by now is passed over, and nobody told.
            DeletedPassedOver,
        }
        // Truncation.
        "C8" {
            /// After a loss the epoch is raised, and nobody told.
            LossPaperedOver,
            /// For a loss, the word of one broker is enough.
            LossAtFirstWord,
            /// After a loss that was told, a new id is taken.
            AppendsAfterLoss,
            /// A topic that was made again is taken for the same.
            OtherTopicFollowed,
            /// An error code is taken for the proof that a topic was made again.
            CodeTakenForOtherTopic,
        }
        // Bounded memory.
        "C9" {
            /// The budget for appends counts them, and not their bytes.
            BudgetCountsAppends,
            /// Every partition client has connections of its own.
            LanesWithoutLimit,
            /// What is read may unpack to any size.
            UnpackedWithoutLimit,
            /// A response may be of any size.
            FrameWithoutLimit,
        }
        // Throttling.
        "C10" {
            /// An answer with a throttle time is taken for a failure, and the append sent again.
            ThrottleTakenForFailure,
            /// The next request goes out while the broker throttles.
            ThrottleNotWaitedFor,
            /// A reader over its quota, who is told nothing but to wait, takes that for the answer.
            ThrottleTakenForAnswer,
        }
        // Nothing hidden.
        "C11" {
            /// There is no end to how many appends may be in the queue.
            QueueWithoutEnd,
            /// All partitions' appends go to the first.
            FirstPartitionForAll,
            /// Looking a topic up creates it.
            LookupCreates,
        }
    }
}
