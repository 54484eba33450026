//! kwal-transport
