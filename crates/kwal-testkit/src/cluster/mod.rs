//! The broker without its sockets: request frames in, actions out, time as an argument.
//!
//! Nothing here waits, reads a clock or starts a task. A request that has to wait becomes an
//! [`Action::Wait`], which is handed back to [`Cluster::resume`] when its time has come or something has
//! changed.
//!
//! ```text
//! dispatch ──► handler ◄── produce, fetch, list_offsets, … (one file per API)
//!    │            │                    │
//!    ▼            ▼                    ▼
//! summary      action               lookup               timers, election, replication, brokers, journaling
//!    │            │                    │                                        │
//!    └────────────┴────────────────────┴──► state ◄──────────────────────────────┘
//!                                             │
//!                                             ▼
//!                       node, coordinator, quota, event, request ──► partition ──► replica
//! ```

mod action;
mod api_versions;
mod brokers;
mod configs;
mod coordinator;
mod create_partitions;
mod delete_records;
mod describe_cluster;
mod describe_producers;
mod dispatch;
mod election;
mod event;
mod fetch;
mod find_coordinator;
mod handler;
mod init_producer_id;
mod journaling;
mod list_offsets;
mod lookup;
mod metadata;
mod node;
mod offset_for_leader_epoch;
mod partition;
mod produce;
mod quota;
mod replica;
mod replication;
mod request;
mod state;
mod summary;
mod timers;
mod topics;

pub use self::node::Connections;
pub(crate) use self::{
    action::{Action, CloseReason, ReplyMode},
    election::CannotLead,
    node::Connected,
    partition::{Partition, PartitionId},
    quota::QuotaKind,
    replica::Replica,
    request::decode,
    state::{Cluster, Now, Settings},
};
