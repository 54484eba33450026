//! kwal-client
