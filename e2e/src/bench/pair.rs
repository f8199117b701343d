//! What copies and forwarding cost by themselves: two nodes, of which the first one is asked.

use super::clients::Clients;
use super::report::{CPU, Cell, Goal, Row};
use super::server::{Kind, Server};
use super::work::{Request, Work};
use super::{Options, cost, pin};
use anyhow::Result;
use nix::unistd::Pid;

/// The rows.
pub(super) const ROWS: [&str; 2] = ["replication, receive + apply", "forwarding, both nodes together"];

/// CPU of a node that only has the copies, for each write: pipelined, so that changes travel in batches.
pub(super) async fn replication(options: &Options, (core, clients): (usize, usize)) -> Result<Row> {
    pin(Pid::from_raw(0), &[clients])?;
    let work = Work::pair(Request::Set, 64, 2);
    let server = Server::start(Kind::Mizuya, &options.node, &work, &[core]).await?;
    let work = Work { keys: server.keys_of(0, &work.keys).await?, ..work };
    let clients = Clients::connect(&server.addresses[..1], Kind::Mizuya, &work).await?;
    clients.fill().await?;
    let mut costs = Vec::new();
    for _ in 0..options.rounds {
        costs.push(cost(options, &clients, || server.cpu_of(1)).await?);
    }
    Ok(row(ROWS[0], 0.3, costs))
}

/// CPU of both nodes for each GET of the second one's keys, without what one of the first one's own keys takes.
pub(super) async fn forwarding(options: &Options, (core, clients): (usize, usize)) -> Result<Row> {
    pin(Pid::from_raw(0), &[clients])?;
    let work = Work::pair(Request::Get, 16, 1);
    let server = Server::start(Kind::Mizuya, &options.node, &work, &[core]).await?;
    let mut connected = Vec::new();
    for owner in [0, 1] {
        let work = Work { keys: server.keys_of(owner, &work.keys).await?, ..work.clone() };
        let clients = Clients::connect(&server.addresses[..1], Kind::Mizuya, &work).await?;
        clients.fill().await?;
        connected.push(clients);
    }
    let mut costs = Vec::new();
    for _ in 0..options.rounds {
        let mut each = Vec::new();
        for clients in &connected {
            each.push(cost(options, clients, || server.cpu()).await?);
        }
        costs.push(each[1] - each[0]);
    }
    Ok(row(ROWS[1], 1.0, costs))
}

fn row(name: &str, most: f64, costs: Vec<f64>) -> Row {
    let cells = vec![Cell::new(Kind::Mizuya, costs)];
    Row { name: name.to_owned(), unit: CPU, goal: Some(Goal::AtMost(most)), curve: None, cells }
}
