//! Whole clusters on loopback addresses: streams over mutual TLS, sealed gossip, leaving, dying, and the admin service.

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

#[path = "cluster/leaving.rs"]
mod leaving;

#[path = "cluster/departing.rs"]
mod departing;

#[path = "cluster/strangers.rs"]
mod strangers;

use std::time::{Duration, Instant};

use mizuya_node::io::shutdown;
use mizuya_wire::{
    admin::{
        ApplySettingsRequest, CordonRequest, DrainRequest, ForgetRequest, Intent, LiveSettings, MemberState,
        StatusReply, StatusRequest, UncordonRequest, admin_client::AdminClient,
    },
    settings::{Mode, Settings},
};
use support::{Member, Place, channel, http, process::Process};
use tonic::Code;

const KEYS: usize = 200;

async fn fill(member: &Member) {
    for key in 0..KEYS {
        member.set(&format!("key-{key}"), &format!("value-{key}")).await;
    }
}

async fn lost(member: &Member) -> usize {
    let mut lost = 0;
    for key in 0..KEYS {
        lost += usize::from(member.get(&format!("key-{key}")).await != Some(format!("value-{key}")));
    }
    lost
}

async fn in_sync(member: &Member) {
    member.until("all copies in sync", |status| status.ready && status.partitions_short_of_copies == 0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_on_one_member_is_read_on_every_other() {
    support::log();
    let place = Place::new();
    let members = place.cluster(3).await;
    fill(&members[0]).await;
    for member in &members {
        assert_eq!(lost(member).await, 0);
    }
    let (code, body) = http(place.address(1, 8080), "/readyz").await;
    assert_eq!((code, body.as_str()), (200, "ready\n"));
    assert_eq!(http(place.address(2, 8080), "/healthz").await.0, 200);
    let (_, metrics) = http(place.address(1, 8080), "/metrics").await;
    assert!(metrics.contains("mizuya_members{state=\"active\"} 3"), "{metrics}");
    let (_, stats) = http(place.address(3, 8080), "/_stats").await;
    assert!(stats.contains("\"members\":[") && stats.contains(&place.name(2)), "{stats}");
    assert!(http(place.address(3, 8080), "/").await.1.contains("<h1>Mizuya"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_dies_loses_nothing_that_had_a_copy() {
    support::log();
    let place = Place::new();
    let settings = |member| place.settings(member, 3);
    let mut killed = Process::start(&settings(3));
    let members = [place.start(settings(1)).await, place.start(settings(2)).await];
    members[0].until("ready", |status| status.ready && status.members.len() == 3).await;
    in_sync(&members[0]).await;
    fill(&members[0]).await;
    let victim = place.name(3);
    let generation = |status: &StatusReply| status.members.iter().find(|m| m.name == victim).map(|m| m.generation);
    let before = generation(&members[0].runtime().status());
    killed.kill();
    members[0]
        .until("down", |status| {
            status.members.iter().any(|member| member.name == victim && member.state == i32::from(MemberState::Down))
        })
        .await;
    assert_eq!(lost(&members[0]).await, 0);
    assert_eq!(lost(&members[1]).await, 0);
    // It returns under its name, as another start.
    let _back = Process::start(&settings(3));
    place.until(3, "back", |status| status.ready && generation(status) != before).await;
    in_sync(&members[0]).await;
    assert_eq!(lost(&members[1]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_member_that_leaves_hands_over_first_and_loses_nothing() {
    support::log();
    let place = Place::new();
    let mut members = place.cluster(3).await;
    in_sync(&members[0]).await;
    fill(&members[0]).await;
    let began = Instant::now();
    shutdown::leave(members[2].running.take().unwrap(), Duration::ZERO).await;
    assert!(began.elapsed() < Duration::from_secs(4), "{:?}", began.elapsed());
    let gone = place.name(3);
    members[0]
        .until_within(Duration::from_secs(2), "away", |status| {
            status.members.iter().any(|member| member.name == gone && member.state == i32::from(MemberState::Away))
        })
        .await;
    assert_eq!(lost(&members[0]).await, 0);
    assert_eq!(lost(&members[1]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_udp_is_blocked_gossip_goes_over_the_streams_and_the_node_says_so() {
    support::log();
    let place = Place::new();
    let mut members = Vec::new();
    for member in 1..=2 {
        members.push(Member::start(place.settings(member, 2), false).await);
    }
    for member in &members {
        member.until("ready", |status| status.ready && status.members.len() == 2).await;
    }
    let message = members[0].until_problem("GossipUnreachable", &place.name(2)).await;
    assert!(message.contains("3322/udp"), "{message}");
    members[0].set("a", "1").await;
    assert_eq!(members[1].get("a").await.as_deref(), Some("1"));
    // The detector still tells who dies.
    let (victim, down) = (place.name(2), i32::from(MemberState::Down));
    members[1].kill();
    members[0]
        .until("down", |status| status.members.iter().any(|member| member.name == victim && member.state == down))
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_caller_without_a_certificate_is_refused_and_counted() {
    let place = Place::new();
    let members = place.cluster(1).await;
    let address = place.address(1, 3322);
    let anyone = channel(address, Some(&place.tls(false))).await.unwrap();
    let refused = AdminClient::new(anyone).status(StatusRequest {}).await.unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    assert_eq!(members[0].runtime().rejected().0, 1);
    let stranger = Place::new();
    let other = channel(address, Some(&stranger.tls(true))).await;
    let reached = match other {
        Ok(channel) => AdminClient::new(channel).status(StatusRequest {}).await.is_ok(),
        Err(_) => false,
    };
    assert!(!reached);
    let known = place.admin(1).await.status(StatusRequest {}).await.unwrap().into_inner();
    assert!(known.ready && known.mode == "ha");
    // A gossip datagram that is not sealed under this cluster's key is dropped and counted.
    let socket = tokio::net::UdpSocket::bind((place.address(9, 0).ip(), 0)).await.unwrap();
    socket.send_to(b"\x00hello", address).await.unwrap();
    let counted = async {
        while members[0].runtime().rejected().1 == 0 {
            tokio::task::yield_now().await
        }
    };
    tokio::time::timeout(Duration::from_secs(2), counted).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_admin_service_changes_members_and_settings_and_says_why_not() {
    support::log();
    let place = Place::new();
    let members = place.cluster(3).await;
    in_sync(&members[0]).await;
    fill(&members[0]).await;
    let mut admin = place.admin(1).await;
    let name = place.name(3);
    let state = |wanted: MemberState| {
        let (name, members) = (name.clone(), &members);
        async move {
            let shown = |status: &mizuya_wire::admin::StatusReply| {
                status.members.iter().any(|member| member.name == name && member.state == i32::from(wanted))
            };
            members[0].until("in the wanted state", shown).await
        }
    };

    let unknown = admin.cordon(CordonRequest { member: "nobody".to_owned() }).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert!(unknown.message().contains(&name), "{}", unknown.message());
    let running = admin.forget(ForgetRequest { member: name.clone() }).await.unwrap_err();
    assert_eq!(running.code(), Code::FailedPrecondition);

    admin.cordon(CordonRequest { member: name.clone() }).await.unwrap();
    state(MemberState::Cordoned).await;
    let before = members[0].runtime().status().epoch;
    let epoch = admin.uncordon(UncordonRequest { member: name.clone() }).await.unwrap().into_inner().epoch;
    assert!(epoch > before);
    state(MemberState::Active).await;

    admin.drain(DrainRequest { member: name.clone(), intent: Intent::Depart.into() }).await.unwrap();
    let drained = |status: &mizuya_wire::admin::StatusReply| {
        status.members.iter().any(|member| member.name == name && member.drained && member.primaries == 0)
    };
    members[0].until("drained", drained).await;
    assert_eq!(lost(&members[0]).await, 0);
    admin.uncordon(UncordonRequest { member: name.clone() }).await.unwrap();
    state(MemberState::Active).await;

    let live = |generation, factor| ApplySettingsRequest {
        settings: Some(LiveSettings { generation, factor, read_quorum: 1, write_quorum: 1, member_count_quorum: 0 }),
    };
    admin.apply_settings(live(5, 3)).await.unwrap();
    assert_eq!(
        members[1].until("factor 3", |s| s.settings.is_some_and(|s| s.factor == 3)).await.settings.unwrap().generation,
        5
    );
    let old = admin.apply_settings(live(4, 2)).await.unwrap_err();
    assert_eq!(old.code(), Code::FailedPrecondition);
    let wrong = admin.apply_settings(live(9, 0)).await.unwrap_err();
    assert_eq!(wrong.code(), Code::InvalidArgument);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_single_node_needs_no_certificates_and_is_ready_at_once() {
    let place = Place::new();
    let mut settings = Settings { mode: Mode::Single, ..place.settings(1, 1) };
    settings.security.dir = None;
    let node = place.start(settings).await;
    node.until_within(Duration::from_secs(2), "ready", |status| status.ready).await;
    node.set("a", "1").await;
    assert_eq!(node.get("a").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_disabled_node_is_ready_and_keeps_nothing() {
    let place = Place::new();
    let mut settings = Settings { mode: Mode::Disabled, ..place.settings(1, 1) };
    settings.security.dir = None;
    let node = place.start(settings).await;
    assert!(node.runtime().ready().is_ok());
    node.set("a", "1").await;
    assert_eq!(node.get("a").await, None);
}
