//! What the end-to-end tests stand on: a real Kubernetes on this machine.

pub mod bench;
pub mod chaos;
pub mod demo;
pub mod kubernetes;
pub mod load;
pub mod testbed;
