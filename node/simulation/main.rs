//! Whole clusters of the node's own logic, in one process and in simulated time: the very code that ships, driven by
//! a seed. A failing history prints its seed; `SEED=… cargo test --profile ci -p mizuya-node --test simulation` replays it.

mod cluster;
mod histories;
mod ledger;
mod scenarios;
