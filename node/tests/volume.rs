//! Nodes with volumes: real files, real ends and starts (rules S1, S2).

#![allow(missing_docs, clippy::unwrap_used)]

mod support;

use std::{fs, path::Path, time::Duration};

use futures::future::join_all;
use mizuya_node::io::shutdown;
use mizuya_wire::settings::{Mode, Settings};
use support::{LIMIT, Member, Place};

const KEYS: usize = 300;

fn on(settings: Settings, folder: &Path) -> Settings {
    Settings { data_dir: Some(folder.to_string_lossy().into_owned()), ..settings }
}

async fn leave(members: Vec<Member>) {
    let leaving = members.into_iter().map(|mut member| shutdown::leave(member.running.take().unwrap(), Duration::ZERO));
    join_all(leaving).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn three_members_that_all_stop_come_back_with_what_they_had() {
    support::log();
    let (place, volumes) = (Place::new(), tempfile::tempdir().unwrap());
    let folder = |member: u8| volumes.path().join(member.to_string());
    let start = async || {
        let mut members = Vec::new();
        for member in 1..=3 {
            members.push(place.start(on(place.settings(member, 3), &folder(member))).await);
        }
        for member in &members {
            let whole = |status: &mizuya_wire::admin::StatusReply| {
                status.ready
                    && status.members.len() == 3
                    && status.partitions_short_of_copies + status.partitions_unavailable == 0
            };
            member.until_within(LIMIT * 3, "whole", whole).await;
        }
        members
    };
    let members = start().await;
    for key in 0..KEYS {
        members[0].set(&format!("key-{key}"), &format!("value-{key}")).await;
    }
    for key in (0..KEYS).step_by(3) {
        members[1].call(&["DEL", &format!("key-{key}")]).await;
    }
    let cluster = members[0].runtime().status().cluster_id;
    leave(members).await;
    let members = start().await;
    assert_eq!(members[0].runtime().status().cluster_id, cluster);
    for key in 0..KEYS {
        let expected = (key % 3 != 0).then(|| format!("value-{key}"));
        assert_eq!(members[2].get(&format!("key-{key}")).await, expected, "key-{key}");
    }
    assert_eq!(members[0].runtime().status().totals.unwrap().lost_partitions, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_takes_nothing_is_reported_and_the_node_serves() {
    let (place, volume) = (Place::new(), tempfile::tempdir().unwrap());
    // Where the table is to be written there is a folder.
    fs::create_dir(volume.path().join("table.new")).unwrap();
    let settings = Settings { mode: Mode::Single, peers: Vec::new(), ..place.settings(1, 1) };
    let member = place.start(on(settings, volume.path())).await;
    member.until("ready", |status| status.ready).await;
    member.set("key", "value").await;
    assert_eq!(member.get("key").await.as_deref(), Some("value"));
    let message = member.until_problem("VolumeFailed", "").await;
    assert!(message.contains("restart the node"), "{message}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_snapshot_is_set_aside_and_the_node_starts_empty() {
    let (place, volume) = (Place::new(), tempfile::tempdir().unwrap());
    let settings = Settings { mode: Mode::Single, peers: Vec::new(), ..place.settings(1, 1) };
    let settings = on(settings, volume.path());
    let file = volume.path().join("partitions.snapshot");
    for (damaged, expected) in [(false, Some("value".to_owned())), (true, None)] {
        let member = place.start(settings.clone()).await;
        member.until("ready", |status| status.ready).await;
        member.set("key", "value").await;
        leave(vec![member]).await;
        if damaged {
            let mut bytes = fs::read(&file).unwrap();
            let middle = bytes.len() / 2;
            bytes[middle] ^= 1;
            fs::write(&file, bytes).unwrap();
        }
        let member = place.start(settings.clone()).await;
        member.until("ready", |status| status.ready && status.partitions_unavailable == 0).await;
        assert_eq!(member.get("key").await, expected);
        leave(vec![member]).await;
    }
    assert!(volume.path().join("partitions.snapshot.unreadable").exists());
}
