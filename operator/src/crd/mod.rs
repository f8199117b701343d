//! The CacheCluster: its types, the rules in its schema, its status.

pub mod rules;
pub mod schema;
#[allow(clippy::duplicated_attributes)] // each printer column repeats the same keys
mod spec;
mod status;

pub use schema::crd;
pub use spec::{
    CacheCluster, CacheClusterSpec, Environment, Eviction, Keep, Memory, Mode, Placement, Ports, Replication,
    Resources, Restore, Retention, ScaleDown, Storage, Update, Zones,
};
pub use status::{CacheClusterStatus, DrainStatus, Figures, FirewallPort, ProblemStatus, QuorumStatus, ReplicasFrom};

/// Nodes where the spec does not say: the schema's default, without which `/scale` would have nothing to answer.
pub const DEFAULT_REPLICAS: i32 = 3;

/// API group.
pub const GROUP: &str = "cache.mizuya.dev";
/// API version.
pub const API_VERSION: &str = "cache.mizuya.dev/v1alpha1";
/// Kind.
pub const KIND: &str = "CacheCluster";
