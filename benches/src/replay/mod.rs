//! A log that is read from its start to its end.
//!
//! The sink is a process of its own that answers from memory, so that no broker hides what a client costs.
//! Each run is a process too, and measures its own processor time, of all its threads.

mod content;
mod floor;
mod meter;
mod ours;
mod sink;
mod task;

use kwal_protocol::wire::Uuid;

pub use self::{
    content::Content,
    floor::{codec_alone, floor},
    meter::{Measured, Reading, sum},
    ours::{borrowed, delete, fetches, fill, owned},
    sink::{Appended, serve},
    task::Task,
};

/// The topic of the sink.
pub const TOPIC: &str = "replay";
const TOPIC_ID: Uuid = Uuid([7; 16]);
