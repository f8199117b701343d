//! What touches more than one cache: Kubernetes nodes that are drained, and operators that are killed. One after another.

// Here everything is a test, and an expect that fails is one that says so.
#![allow(clippy::expect_used)]

mod drain;
mod operator;
