//! The switch that activates a mutation.

use std::cell::Cell;

thread_local! {
    static ACTIVE: Cell<Option<Mutation>> = const { Cell::new(None) };
}

/// Activates one mutation, or none, for the clients whose tasks run on this thread.
pub fn activate(mutation: Option<Mutation>) {
    ACTIVE.set(mutation);
}

pub(crate) fn is_active(mutation: Mutation) -> bool {
    ACTIVE.get() == Some(mutation)
}

/// Whether a mutation is active on this thread.
macro_rules! mutant {
    ($name:ident) => {
        $crate::mutation::is_active($crate::Mutation::$name)
    };
}

macro_rules! mutations {
    ($($contract:literal $name:ident $sentence:literal)*) => {
        /// A mistake that the client can make.
        #[derive(Clone, Copy, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
        pub enum Mutation { $(#[doc = $sentence] $name,)* }

        impl Mutation {
            /// All mutations, in the order of the list.
            pub const ALL: &[Self] = &[$(Self::$name,)*];

            /// Returns the line of the contract that it breaks.
            pub fn contract(self) -> &'static str {
                match self { $(Self::$name => $contract,)* }
            }

            /// Returns what goes wrong, in a sentence.
            pub fn sentence(self) -> &'static str {
                match self { $(Self::$name => $sentence,)* }
            }
        }
    };
}

include!(concat!(env!("OUT_DIR"), "/mutations.rs"));
