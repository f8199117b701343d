//! Whole clusters of the node's own logic, in one process and in simulated time: the very code that ships, driven by
//! a seed. `make sim` plays many histories; one that fails prints its seed, and `make sim SEED=…` replays it with a
//! trace (`KEY=…` adds what happens to one key; 100 and more are keys of the second map).

#![allow(
    clippy::format_push_string,
    clippy::needless_pass_by_value,
    clippy::while_let_loop,
    clippy::unwrap_used,
    clippy::expect_used
)]

mod client;
mod cluster;
mod detector;
mod disk;
mod faults;
mod figures;
mod histories;
mod history;
mod invariants;
mod ledger;
mod linearizability;
mod mutants;
mod network;
mod observer;
mod operator;
mod pauses;
mod queue;
mod registers;
mod scenarios;
mod shape;
mod trace;
mod volumes;
