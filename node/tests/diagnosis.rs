//! Every way in which members can fail to reach each other is named, with the way out.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

type Change = fn(&mut mizuya_wire::settings::Settings);

use std::time::Duration;

use mizuya_node::io::shutdown;
use mizuya_wire::settings::Environment;
use support::Place;
use tokio::net::TcpListener;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_that_is_not_there_is_named_port_by_port_and_a_name_that_does_not_resolve_by_itself() {
    support::log();
    let place = Place::new();
    let mut settings = place.settings(1, 2);
    settings.peers.push("no-such-host.invalid:3322".to_owned());
    let node = place.start(settings).await;
    let absent = place.name(2);
    for (code, port) in
        [("PeerPortUnreachable", "3322/tcp"), ("ClientPortUnreachable", "3320/tcp"), ("GossipUnreachable", "3322/udp")]
    {
        let message = node.until_problem(code, &absent).await;
        assert!(message.contains(port), "{message}");
    }
    let message = node.until_problem("PeerUnresolved", "no-such-host.invalid").await;
    assert!(message.contains("getent hosts no-such-host.invalid"), "{message}");
    let reason = node.runtime().ready().unwrap_err();
    assert!(reason.contains("no-such-host.invalid"), "{reason}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_peer_given_on_the_client_port_is_told_the_right_one() {
    support::log();
    let place = Place::new();
    let mut settings = place.settings(1, 1);
    settings.peers.push(format!("{}:3320", place.name(2)));
    let node = place.start(settings).await;
    // Whoever listens there answers PING as the client port does.
    let clients = TcpListener::bind(place.address(2, 3320)).await.unwrap();
    tokio::spawn(async move {
        use tokio::io::{AsyncReadExt, AsyncWriteExt};
        while let Ok((mut client, _)) = clients.accept().await {
            tokio::spawn(async move {
                let mut words = [0; 6];
                if client.read_exact(&mut words).await.is_ok() && &words == b"PING\r\n" {
                    let _ = client.write_all(b"+PONG\r\n").await;
                }
            });
        }
    });
    let message = node.until_problem("PeerPortIsClientPort", &place.name(2)).await;
    assert!(message.contains("names the client port 3320; peers are reached on 3322"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_were_told_different_things_say_which() {
    support::log();
    let cases: [(&str, Change); 6] = [
        ("ClusterNameMismatch", |settings| settings.cluster_name = "other".to_owned()),
        ("PartitionsMismatch", |settings| settings.partitions = 64),
        ("PortMismatch", |settings| settings.bind_addr.set_port(3330)),
        ("EnvironmentMismatch", |settings| settings.environment = Environment::Lan),
        ("DefaultMapMismatch", |settings| settings.dmap_name = "other".to_owned()),
        ("FactorMismatch", |settings| settings.replica_count = 1),
    ];
    for (code, change) in cases {
        let place = Place::new();
        let first = place.start(place.settings(1, 2)).await;
        let mut settings = place.settings(2, 2);
        change(&mut settings);
        let second = place.start(settings).await;
        for (node, other) in [(&first, 2), (&second, 1)] {
            let message = node.until_problem(code, &place.name(other)).await;
            assert!(message.contains("all members need the same"), "{message}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_of_another_authority_is_told_about_certificates() {
    support::log();
    let (place, stranger) = (Place::new(), Place::new());
    let node = place.start(place.settings(1, 2)).await;
    let mut settings = place.settings(2, 2);
    settings.security.dir = Some(stranger.secrets.path().to_string_lossy().into_owned());
    let _other = place.start(settings).await;
    let message = node.until_problem("PeerHandshakeFailed", &place.name(2)).await;
    assert!(message.contains("ca.crt") && message.contains("certificate"), "{message}");
    assert!(node.runtime().rejected().1 > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_whose_peers_name_the_client_port_says_so_even_when_the_others_reach_it() {
    support::log();
    let place = Place::new();
    let wrong = || {
        let mut settings = place.settings(3, 3);
        settings.peers = (1..=3).map(|peer| format!("{}:3320", place.name(peer))).collect();
        settings
    };
    let members =
        [place.start(place.settings(1, 3)).await, place.start(place.settings(2, 3)).await, place.start(wrong()).await];
    for member in &members {
        member.until("ready", |status| status.ready && status.members.len() == 3).await;
    }
    for peer in 1..=2 {
        let message = members[2].until_problem("PeerPortIsClientPort", &place.name(peer)).await;
        assert!(message.contains("names the client port 3320; peers are reached on 3322"), "{message}");
    }
    members[0].until("all copies in sync", |status| status.partitions_short_of_copies == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_restarts_with_peers_on_the_client_port_gets_its_copies_back() {
    support::log();
    let place = Place::new();
    let mut members = place.cluster(3).await;
    members[0].until("all copies in sync", |status| status.partitions_short_of_copies == 0).await;
    shutdown::leave(members[2].running.take().unwrap(), Duration::ZERO).await;
    let mut settings = place.settings(3, 3);
    settings.peers = (1..=3).map(|peer| format!("{}:3320", place.name(peer))).collect();
    let back = place.start(settings).await;
    back.until("ready", |status| status.ready && status.members.len() == 3).await;
    members[0].until("all copies in sync", |status| status.partitions_short_of_copies == 0).await;
    back.until_problem("PeerPortIsClientPort", &place.name(1)).await;
}
