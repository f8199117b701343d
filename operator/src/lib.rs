//! The Kubernetes operator of Mizuya: it turns CacheCluster objects into running caches and keeps them whole while
//! they are scaled, rolled and repaired.
//!
//! `logic` decides and `io` does: see ARCHITECTURE.md.

pub mod crd;
pub mod io;
pub mod logic;
