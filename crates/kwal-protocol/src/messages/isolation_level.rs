use crate::macros::open_enum;

open_enum! {
    /// Whether the records of open and aborted transactions are seen (KIP-98).
    pub struct IsolationLevel(i8);
    /// All records up to the high watermark: the default of a log.
    READ_UNCOMMITTED = 0;
    /// Up to the last stable offset; the answer names the aborted transactions, for the reader to leave out.
    READ_COMMITTED = 1;
}
