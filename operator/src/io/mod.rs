//! What does: it gathers what [`crate::logic`] needs, calls it, and carries out what it returns.

pub mod apply;
pub mod certificates;
#[allow(clippy::doc_markdown)] // its documentation is the text of --help
pub mod cli;
pub mod context;
pub mod controller;
pub mod http;
pub mod lease;
pub mod nodes;
pub mod observe;
pub mod watched;
