//! kwal-batching
