//! The protocol between members: who owns what, who holds what, and who may answer. Numbers such as T2 or W3 name
//! the rules in ARCHITECTURE.md.

pub mod bootstrap;
pub mod lease;
pub mod member;
pub mod membership;
pub mod memory;
pub mod message;
pub mod next_table;
pub mod placement;
pub mod proposer;
pub mod replica;
pub mod table;
pub mod voter;
