//! The demo: what a new user sees first, each step with what it shows and how long it took.

pub mod narrate;
pub mod show;

pub use show::{remove, show};
