//! What a node does: sockets, timers, files and signals. It gathers what logic needs, calls it, and carries out what
//! it returns.

pub mod admin;
pub mod arguments;
pub mod client_port;
pub mod connections;
pub mod diagnosis;
pub mod files;
pub mod gossip;
pub mod http;
pub mod log;
pub mod memory;
pub mod own_address;
pub mod peer;
pub mod program;
pub mod runtime;
pub mod security;
pub mod shutdown;
pub mod snapshot;
pub mod start;
pub mod threads;
pub mod volume;
pub mod zone;
