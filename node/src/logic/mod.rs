//! What a node decides. Nothing here does io, reads a clock or draws a random number: time, randomness and what was
//! observed come in as arguments, and what to do is returned.

pub mod clock;
pub mod cluster;
pub mod commands;
pub mod keyspace;
pub mod node;
pub mod resp;
pub mod snapshot;
pub mod store;
