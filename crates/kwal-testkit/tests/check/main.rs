//! The checker: what is right passes, and what is wrong is convicted of what is wrong with it.

mod generator;
mod mutations;
mod recording;
mod rules;
