//! What a program sees of this client in its metrics: by the facade crate `metrics`, with the feature
//! `metrics`.
//!
//! `table.rs` has the names, kinds, units and labels of all metrics, those of kwal-batching included. Here
//! are the types that record them, one for each thing that is measured: a connection, a memory budget, a
//! partition, a batch producer, a reader. Each registers its metrics once and keeps the handles, so that to
//! record a value formats and looks up nothing; only what a failed attempt or call counts is looked up.
//!
//! Without the feature, the same types are empty, and their methods do nothing.

#[cfg(not(feature = "metrics"))]
mod off;
#[cfg(feature = "metrics")]
mod on;
#[cfg(feature = "metrics")]
mod table;

#[cfg(not(feature = "metrics"))]
use self::off as chosen;
#[cfg(feature = "metrics")]
use self::on as chosen;
#[cfg(feature = "metrics")]
pub use self::table::{ALL, Kind, Metric};

pub(crate) use self::chosen::{
    AppendTiming, BrokerMetrics, BudgetMetrics, ConnectionMetrics, PartitionMetrics, RequestTiming,
    UsageMetrics, call_failed, describe, retried,
};
pub use self::chosen::{BatchMetrics, ReaderMetrics};
