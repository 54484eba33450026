//! kwal-testkit
