//! The port of applications: RESP2 and RESP3 over TCP.
//!
//! [`listener`] accepts, [`connection`] moves bytes, [`session`] turns them into commands and puts replies in order.
//! Commands about keys go to the runtime; the others are answered by the file of their name. [`leaving`] is how a
//! connection ends when the node does.

mod client;
mod clients;
mod cluster;
mod command;
mod config;
mod connection;
mod hello;
mod here;
mod info;
mod leaving;
mod listener;
mod output;
mod session;
mod slots;

pub use self::listener::{MAX_CLIENTS, serve};
pub use self::session::{MAX_IN_FLIGHT, MAX_UNWRITTEN};

/// The version of Redis whose commands are answered alike; clients look at it to know what they may use.
const REDIS_VERSION: &str = "7.0.15";
