//! What touches more than one cache: Kubernetes nodes that are drained, and operators that are killed. One after another.

mod drain;
mod operator;
