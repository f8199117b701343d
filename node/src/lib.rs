//! The Mizuya cache node: a library that can be embedded, and the program that pods run.
//!
//! `logic` decides, `io` does; see ARCHITECTURE.md.

pub mod cache;
pub mod io;
pub mod logic;
