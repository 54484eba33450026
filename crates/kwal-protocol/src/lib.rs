//! kwal-protocol
