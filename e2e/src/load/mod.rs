//! The checked load: clients that write, delete, expire and read all the time, remember what was acknowledged, and look
//! at the end whether the cache still holds exactly that.
//!
//! - [`ledger`] knows what each key may hold, and judges what reads find;
//! - [`workload`] chooses the next changes;
//! - [`gaps`] measures the longest time without a success;
//! - [`connection`] is one connection to a cache;
//! - [`run`] sends, receives and verifies;
//! - [`report`] says how it went, in one line.

pub mod connection;
pub mod gaps;
pub mod ledger;
pub mod report;
pub mod run;
pub mod workload;

pub use report::Report;
pub use run::{Load, Options, Retries};
