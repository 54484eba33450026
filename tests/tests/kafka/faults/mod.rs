//! Appends while brokers and connections fail: what was acknowledged is on the log once, in order, and what
//! was not has a clear outcome.

mod in_doubt;
mod leaders;
mod load;
mod losses;
mod network;
mod throttled;

pub(crate) use self::leaders::on_node;
