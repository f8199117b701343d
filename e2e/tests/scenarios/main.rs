//! What users do with `CacheCluster`s, on a real Kubernetes. Each test has a namespace of its own, so they run side by side.
//!
//! Tests start in the order of their names: the one that watches a cache at rest for five minutes comes first.

mod a_cache_at_rest;
mod clients;
mod identity;
mod live_changes;
mod pod_loss;
mod quickstart;
mod roll;
mod scale;
mod sharing;
mod storage;
mod validation;
mod zones;
