//! Members that leave together, or with nobody who could take over (rules L1, L2).

use std::time::{Duration, Instant};

use mizuya_node::io::shutdown;
use mizuya_wire::{admin::MemberState, quorum::MemberQuorum, settings::Settings};

use crate::{
    KEYS, fill, in_sync, lost,
    support::{self, Member, Place},
};

/// Well below the 5 s of `leave_timeout`: nobody waited for something that cannot come.
const AT_ONCE: Duration = Duration::from_secs(4);

async fn leave(members: Vec<Member>) -> Vec<u64> {
    let leaving = members.into_iter().map(|mut member| {
        let running = member.running.take().unwrap();
        tokio::spawn(shutdown::leave(running, Duration::ZERO))
    });
    let mut left_behind = Vec::new();
    for left in leaving.collect::<Vec<_>>() {
        left_behind.push(left.await.unwrap());
    }
    left_behind
}

async fn filled(place: &Place, count: u8, factor: u32, quorum: MemberQuorum) -> Vec<Member> {
    let change = |settings| Settings { replica_count: factor, member_count_quorum: quorum, ..settings };
    let members = place.cluster_with(count, change).await;
    in_sync(&members[0]).await;
    fill(&members[0]).await;
    members
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_members_that_leave_at_once_leave_nothing_behind() {
    support::log();
    let place = Place::new();
    // Of five, so that those who stay are a quorum.
    let mut members = filled(&place, 5, 2, MemberQuorum::Auto).await;
    let leaving = members.split_off(3);
    assert_eq!(leave(leaving).await, [0, 0]);
    assert_eq!(lost(&members[0]).await, 0);
    assert_eq!(lost(&members[1]).await, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_each_member_has_every_key_one_leaves_without_waiting_and_is_given_up_by_the_rest() {
    support::log();
    let place = Place::new();
    let mut members = filled(&place, 2, 2, MemberQuorum::Fixed(1)).await;
    let began = Instant::now();
    assert_eq!(leave(members.split_off(1)).await, [0]);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(lost(&members[0]).await, 0);
    let gone = place.name(2);
    let away = i32::from(MemberState::Away);
    members[0].until("away", |status| status.members.iter().any(|m| m.name == gone && m.state == away)).await;
    members[0].set("after", "1").await;
    assert_eq!(members[0].get("after").await.as_deref(), Some("1"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_last_member_does_not_wait_and_says_what_ends_with_it() {
    support::log();
    let place = Place::new();
    let members = filled(&place, 1, 1, MemberQuorum::Auto).await;
    let began = Instant::now();
    assert_eq!(leave(members).await, [KEYS as u64]);
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn members_that_all_leave_at_once_do_not_wait_for_each_other_and_count_each_key_once() {
    support::log();
    let place = Place::new();
    let members = filled(&place, 3, 2, MemberQuorum::Auto).await;
    let began = Instant::now();
    let left_behind = leave(members).await;
    assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
    assert_eq!(left_behind.iter().sum::<u64>(), KEYS as u64, "{left_behind:?}");
}
