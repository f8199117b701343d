//! Entries give way when their budget is cut.

use super::*;

const VALUE: usize = 1000;

/// Writes so many values to a partition through the first node.
fn fill(net: &mut Net, partition: Partition, values: usize) {
    let value = "v".repeat(VALUE);
    for number in 0..values {
        let reply = net.call(0, partition, &["SET", &number.to_string(), &value]);
        assert_eq!(reply, Reply::OK);
    }
}

fn bytes(net: &Net, partition: Partition) -> u64 {
    net.nodes[0].0.replicas[partition.index()].lock().store.bytes()
}

#[test]
fn a_cut_takes_from_all_partitions_alike_and_a_write_takes_little() {
    let mut net = Net::new(1, MemberQuorum::Fixed(1));
    let all = (0..PARTITIONS).map(Partition);
    all.clone().for_each(|partition| fill(&mut net, partition, 40));
    let (node, before) = (&net.nodes[0].0, net.nodes[0].0.bytes());
    let budget = before / 3;
    node.set_budget(budget);
    fill(&mut net, Partition(0), 1);
    assert!(bytes(&net, Partition(0)) > 40 * VALUE as u64 - (20 << 10), "one write does not empty its partition");
    assert!(net.nodes[0].0.bytes() > budget);
    for _ in 0..3 {
        net.step();
    }
    let left = net.nodes[0].0.bytes();
    assert!((budget * 8 / 10..=budget).contains(&left), "{left} of {budget}");
    for partition in all.skip(1) {
        let left = bytes(&net, partition);
        assert!(left > budget / u64::from(PARTITIONS) / 3, "{left} in {partition:?}");
    }
}

#[test]
fn accounted_bytes_stay_within_a_budget_that_was_cut_and_come_back_with_it() {
    let mut net = Net::new(1, MemberQuorum::Fixed(1));
    let budget = 20 * VALUE as u64;
    net.nodes[0].0.set_budget(budget);
    fill(&mut net, Partition(3), 100);
    assert!(net.nodes[0].0.bytes() <= budget);
    net.nodes[0].0.set_budget(u64::MAX);
    assert_eq!(net.nodes[0].0.budget(), net.nodes[0].0.config().max_bytes);
    fill(&mut net, Partition(3), 100);
    assert!(net.nodes[0].0.bytes() > 100 * VALUE as u64);
}

#[test]
fn a_copy_whose_budget_was_cut_has_its_primary_make_room() {
    let mut net = Net::new(2, MemberQuorum::Fixed(1));
    let partition = net.held_by(0, 1);
    fill(&mut net, partition, 300);
    let budget = 100 * VALUE as u64;
    net.nodes[1].0.set_budget(budget);
    // Every confirmation asks for room.
    for _ in 0..10 {
        fill(&mut net, partition, 1);
        net.step();
    }
    assert!(net.nodes[1].0.bytes() <= budget, "{}", net.nodes[1].0.bytes());
    assert!(net.nodes[0].0.bytes() > 0);
}
