//! Copies that are built hinder nobody.

use super::*;
use crate::logic::cluster::message::Chunk;

/// A cluster of two whose second member has just started anew and holds nothing, and the bytes of each of the first
/// one's partitions.
fn with_an_empty_copy(bytes: usize) -> Net {
    let mut net = Net::new(2, MemberQuorum::Fixed(1));
    let value = "v".repeat(1000);
    for partition in (0..PARTITIONS).map(Partition) {
        for number in 0..bytes / value.len() {
            assert_eq!(net.call(0, partition, &["SET", &format!("key-{number}"), &value]), Reply::OK);
        }
    }
    net.restart(1);
    net
}

fn is_chunk(message: &Message) -> bool {
    matches!(message, Message::Chunk(_))
}

#[test]
fn existing_entries_go_after_live_changes_and_commands_in_each_frame() {
    let mut net = with_an_empty_copy(35_000);
    let (mut frames, mut effects) = (0, Effects::default());
    let b = net.nodes[1].1.clone();
    while net.nodes[1].0.routing().me.is_none() || net.nodes[0].0.status(net.clock).partitions_short_of_copies > 0 {
        net.clock.now = net.clock.now + Duration::from_millis(20);
        net.nodes.iter().for_each(|(node, ..)| node.tick(net.clock, 1, &mut effects));
        for partition in (0..PARTITIONS).map(Partition) {
            let words = ["SET", "live", "value"].map(|word| Bytes::copy_from_slice(word.as_bytes()));
            let ticket = Ticket { connection: 2, request: u64::from(partition.0), part: 0 };
            net.nodes[0].0.submit(ticket, partition, &words, net.clock, 1, &mut effects);
        }
        loop {
            let frame = net.nodes[0].0.take_messages(&b, 96 << 10, net.clock);
            let others = frame.iter().rposition(|message| !is_chunk(message));
            if let Some(chunk) = frame.iter().position(is_chunk) {
                assert!(others.is_none_or(|other| other < chunk), "{others:?} after {chunk}");
                frames += usize::from(others.is_some());
            }
            let said = frame.len();
            for message in frame {
                net.nodes[1].0.receive(&net.nodes[0].1, net.nodes[0].2, message, net.clock, 1, &mut effects);
            }
            if said + net.carry(&mut effects) == 0 {
                break;
            }
        }
        assert!(net.clock.now < Millis(120_000), "the copies are built");
    }
    assert!(frames > 0, "no frame had both");
}

#[test]
fn a_peer_that_answers_nothing_is_sent_a_bounded_number_of_bytes() {
    let mut net = with_an_empty_copy(35_000);
    let (mut effects, mut sent, mut ticks) = (Effects::default(), 0, 0);
    let (a, b) = (net.nodes[0].1.clone(), net.nodes[1].1.clone());
    while ticks < 40 {
        net.clock.now = net.clock.now + Duration::from_millis(20);
        net.nodes.iter().for_each(|(node, ..)| node.tick(net.clock, 1, &mut effects));
        loop {
            let (mut frame, generation) = (net.nodes[0].0.take_messages(&b, 1 << 20, net.clock), net.nodes[0].2);
            // From the first chunk on nothing reaches the new member, so it answers none.
            sent += frame.iter().filter(|message| is_chunk(message)).map(Message::weight).sum::<usize>();
            ticks += usize::from(sent > 0 && frame.is_empty());
            frame.retain(|message| sent == 0 || !matches!(message, Message::Append(_) | Message::Chunk(Chunk { .. })));
            let said = frame.len();
            for message in frame {
                net.nodes[1].0.receive(&a, generation, message, net.clock, 1, &mut effects);
            }
            if said + net.carry_from(1, 0, &mut effects) == 0 {
                break;
            }
        }
        assert!(net.clock.now < Millis(120_000), "chunks are sent");
    }
    // The window, and the chunk that fills it.
    assert!((64 << 10..(128 << 10) + (64 << 10)).contains(&sent), "{sent}");
}

#[test]
fn no_read_waits_while_primaries_move_to_a_member_that_has_just_started() {
    let mut net = Net::new(3, MemberQuorum::Auto);
    net.restart(2);
    let (name, generation) = (net.nodes[2].1.clone(), net.nodes[2].2);
    let leads = |net: &Net| {
        let table = net.nodes[0].0.routing().table.clone()?;
        let id = table.start(&name, generation)?.id;
        Some(table.partitions.iter().filter(|assignment| assignment.primary() == Some(id)).count())
    };
    net.until("back", |net| leads(net).is_some());
    while leads(&net) < Some(usize::from(PARTITIONS) / 3) {
        for partition in (0..PARTITIONS).map(Partition) {
            let began = net.clock.now;
            assert_eq!(net.call(0, partition, &["GET", "key"]), Reply::Nil);
            let took = net.clock.now.since(began);
            assert!(took <= 80, "{took} ms");
        }
        net.step();
    }
}
