//! Many worlds with many seeds: people scale, restart, change images, drain and crash, operators die at any step, and
//! at the end everything is whole. The checks along the way are in `world`: a removed pod was empty, an evicted one had
//! handed over, and never are two away at the same time by anybody's asking.

#![allow(clippy::expect_used, clippy::needless_for_each, clippy::unwrap_used)]

mod world;

use world::{Dice, World};

const SEEDS: u64 = 100;

/// One thing that somebody does.
fn meddle(world: &mut World, dice: &mut Dice, crashes: bool) {
    match dice.roll(if crashes { 9 } else { 7 }) {
        0 | 1 => {
            let replicas = 2 + dice.roll(4) as i32;
            world.edit(|spec| spec.replicas = replicas);
        }
        2 => world.kubernetes.restart(),
        3 => {
            let image = if dice.roll(3) == 0 { "bad:1".to_owned() } else { format!("good:{}", dice.roll(3)) };
            world.edit(|spec| spec.image = Some(image));
        }
        4 => {
            let member = dice.roll(5) as u32;
            world.silent.insert(member, world.now + 1 + dice.roll(15) as i64);
        }
        5 => {
            let factor = 2 + dice.roll(2) as i32;
            world.edit(|spec| spec.replication.factor = factor);
        }
        6 => {
            let paused = dice.roll(4) == 0;
            world.edit(|spec| spec.paused = paused);
        }
        _ => {
            let victim = dice.roll(5) as u32;
            if world.kubernetes.pods.contains_key(&victim) {
                world.nodes.crashed.insert(victim);
                world.kubernetes.terminate(victim);
            }
        }
    }
}

fn live_through(seed: u64, crashes: bool) -> World {
    let mut dice = Dice::new(seed);
    let mut world = World::settled(2 + dice.roll(3) as i32);
    let mut drained_by_people: Option<u32> = None;
    for _ in 0..dice.roll(250) + 50 {
        if dice.roll(25) == 0 {
            meddle(&mut world, &mut dice, crashes);
        }
        if dice.roll(30) == 0 {
            drained_by_people = Some(dice.roll(5) as u32);
        }
        if let Some(ordinal) = drained_by_people
            && world.kubernetes.people_evict(ordinal, &world.nodes.clone())
        {
            drained_by_people = None;
        }
        // The operator may be slow: what it observed is a second old when it acts. Or it dies in the middle.
        let (observed, decided) = world.decide();
        if dice.roll(4) == 0 {
            world.tick();
        }
        let at_most = if dice.roll(8) == 0 { dice.roll(3) as usize } else { usize::MAX };
        world.carry_out(&observed, &decided, at_most);
        world.tick();
    }
    world.silent.clear();
    world.edit(|spec| {
        spec.image = Some("good:9".to_owned());
        spec.paused = false;
    });
    world.run_until_rest(1500);
    world
}

#[test]
fn whatever_people_do_nothing_is_lost_and_everything_ends_whole() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let world = live_through(seed, false);
        world.assert_whole();
        assert!(world.nodes.lost.is_empty(), "seed {seed} lost {:?}:\n{}", world.nodes.lost, world.story.join("\n"));
    }
}

#[test]
fn with_crashes_everything_still_ends_whole() {
    for seed in 0..SEEDS {
        println!("seed {seed}");
        let world = live_through(seed, true);
        world.assert_whole();
    }
}
