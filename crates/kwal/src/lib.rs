//! kwal
