//! Copies that differ from their primary although they have confirmed the same change (rule W6).

use super::*;
use crate::logic::{
    cluster::replica::COMPARE_EVERY,
    store::{Cause, Op},
};

impl Net {
    /// An entry goes from one node's memory, as no change of the protocol would do it.
    fn damage(&self, number: usize, partition: Partition) {
        let mut replica = self.nodes[number].0.replicas[partition.index()].lock();
        let (version, map) = (replica.last(), Bytes::from_static(b"map"));
        let keys = replica.store.len();
        replica.store.apply(&Op::Remove { map, key: Bytes::from_static(b"key"), cause: Cause::Deleted }, version);
        assert_eq!(replica.store.len(), keys - 1);
    }

    fn entries(&self, number: usize, partition: Partition) -> usize {
        self.nodes[number].0.replicas[partition.index()].lock().store.len()
    }

    fn diverged(&self, number: usize) -> u64 {
        self.nodes[number].0.totals().diverged_copies
    }

    /// Lets time pass; what was said as an error.
    fn errors_within(&mut self, time: Duration) -> Vec<String> {
        let (end, mut errors) = (self.clock.now + time, Vec::new());
        while self.clock.now < end {
            let notices = self.step().notices;
            errors.extend(notices.into_iter().filter(|n| n.level == Level::Error).map(|notice| notice.text));
        }
        errors
    }

    fn is_whole(&self) -> bool {
        self.nodes.iter().all(|(node, ..)| node.status(self.clock).partitions_short_of_copies == 0)
    }
}

#[test]
fn a_copy_that_differs_is_found_in_the_background_told_once_and_built_anew() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    assert_eq!(net.errors_within(COMPARE_EVERY * 2), Vec::<String>::new());
    net.damage(1, partition);
    let told = net.errors_within(COMPARE_EVERY * 3);
    assert!(matches!(&told[..], [text] if text.contains("differs from a's")), "{told:?}");
    assert_eq!((net.diverged(0), net.diverged(1), net.entries(1, partition)), (0, 1, 1));
    assert!(net.is_whole());
}

#[test]
fn what_differs_on_the_primary_is_what_holds() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    net.damage(0, partition);
    assert_eq!(net.errors_within(COMPARE_EVERY * 2).len(), 1);
    assert_eq!((net.diverged(1), net.entries(1, partition)), (1, 0));
}

#[test]
fn a_read_that_asks_its_copies_finds_one_that_differs_and_repairs_it() {
    let live = Live { generation: 1, factor: 3, read_quorum: 2, write_quorum: 2, member_quorum: MemberQuorum::Auto };
    let mut net = Net::with(3, live);
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    net.damage(1, partition);
    let found = Reply::Bulk(Bytes::from_static(b"value"));
    assert_eq!(net.call(0, partition, &["GET", "key"]), found);
    net.errors_within(Duration::from_secs(3));
    assert_eq!((net.diverged(1), net.entries(1, partition)), (1, 1));
    assert!(net.is_whole());
    assert_eq!(net.call(0, partition, &["GET", "key"]), found);
}

#[test]
fn a_copy_that_differs_does_not_count_for_a_read() {
    let live = Live { generation: 1, factor: 2, read_quorum: 2, write_quorum: 1, member_quorum: MemberQuorum::Auto };
    let mut net = Net::with(3, live);
    let partition = net.held_by(0, 1);
    assert_eq!(net.set(0, partition), Reply::OK);
    net.damage(1, partition);
    let words = [Bytes::from_static(b"GET"), Bytes::from_static(b"key")];
    let ticket = Ticket { connection: 1, request: 7, part: 0 };
    let mut effects = Effects::default();
    assert_eq!(net.nodes[0].0.submit(ticket, partition, &words, net.clock, 1, &mut effects), None);
    while net.carry(&mut effects) > 0 {}
    // The copy has answered, and said that it is not whole.
    assert_eq!((net.diverged(1), &effects.replies[..]), (1, &[][..]));
    while effects.replies.is_empty() {
        effects = net.step();
    }
    assert_eq!(effects.replies, [(ticket, Reply::Bulk(Bytes::from_static(b"value")))]);
    assert_eq!((net.diverged(1), net.entries(1, partition)), (1, 1));
}
