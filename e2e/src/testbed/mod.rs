//! What tests and the demo do with a Kubernetes: apply as a user does, wait for what they see, ask the nodes.
//!
//! - [`bed`] is the cluster: a client and a kubectl;
//! - [`wait`] follows watches until something is true, with a deadline;
//! - [`ways`] leads to pods where this machine has no route to them;
//! - [`cache`] is one CacheCluster with its pods and its Service;
//! - [`nodes`] asks the nodes over their admin service;
//! - [`kill`] ends a pod as a crash does;
//! - [`moved`] counts what moved between the nodes;
//! - [`record`] keeps what a watch showed, to judge it afterwards;
//! - [`samples`] keeps what the nodes said of each other;
//! - [`audit`] reads who wrote what from the API server's log;
//! - [`under_load`] puts a cache under load and records all of that at once;
//! - [`operator`] installs the operator;
//! - [`scenario`] gives a test its namespace and tells what happened when it fails.

pub mod audit;
pub mod bed;
pub mod cache;
pub mod kill;
pub mod moved;
pub mod nodes;
pub mod operator;
pub mod record;
pub mod samples;
pub mod scenario;
pub mod under_load;
pub mod wait;
pub mod ways;

pub use bed::Testbed;
pub use cache::Cache;
pub use scenario::{Scenario, scenario};
pub use under_load::{Outcome, UnderLoad};
