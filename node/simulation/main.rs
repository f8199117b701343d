//! Whole clusters of the node's own logic, in one process and in simulated time: the very code that ships, driven by
//! a seed. A failing history prints its seed; `SEED=… cargo test --profile ci -p mizuya-node --test simulation` replays it.

#![allow(
    clippy::format_push_string,
    clippy::needless_pass_by_value,
    clippy::while_let_loop,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod cluster;
mod histories;
mod ledger;
mod scenarios;
