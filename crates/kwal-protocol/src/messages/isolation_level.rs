use crate::macros::open_enum;

open_enum! {
    /// Whether a reader sees the records of open and aborted transactions (KIP-98).
    pub struct IsolationLevel(i8);
    /// All records up to the high watermark.
    READ_UNCOMMITTED = 0;
    /// Records up to the last stable offset.
    ///
    /// The response lists the aborted transactions, which the reader filters out.
    READ_COMMITTED = 1;
}
