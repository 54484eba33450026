//! The checker: correct histories hold, and each mistake is reported by its rule.

mod ahead;
mod callers;
mod generator;
mod holders;
mod mutations;
mod readers;
mod reading;
mod recording;
mod rules;
