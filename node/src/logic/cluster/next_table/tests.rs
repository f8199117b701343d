use mizuya_wire::quorum::MemberQuorum;
use proptest::prelude::*;

use super::*;
use crate::logic::cluster::table::{ClusterId, Epoch};

fn joiner(generation: u64, zone: &str) -> Joiner {
    Joiner { generation: Generation(generation), client_port: 3320, peer_port: 3322, zone: zone.to_owned() }
}

/// The table of a cluster in force, and every wish of its members fulfilled at once.
struct Cluster {
    table: Table,
    /// Copies that were added since the beginning, and primaries that moved to a copy that was there.
    copies_moved: usize,
    roles_moved: usize,
    young: BTreeSet<MemberId>,
}

impl Cluster {
    fn new(members: u32, zones: u32, partitions: usize, factor: u32) -> Self {
        let zone = |number: u32| if zones == 0 { String::new() } else { format!("zone-{}", number % zones) };
        let member = |number: u32| Member {
            id: MemberId(number),
            name: name(number),
            generation: Generation(u64::from(number)),
            state: State::Active,
            client_port: 3320,
            peer_port: 3322,
            zone: zone(number),
        };
        let live = Live { generation: 1, factor, read_quorum: 1, write_quorum: 1, member_quorum: MemberQuorum::Auto };
        let table = first_table(Table {
            cluster: ClusterId(1),
            epoch: Epoch { counter: 1, proposer: 1 },
            hash_seed: 7,
            live,
            quorum: 1,
            next_member: members,
            members: (0..members).map(member).collect(),
            partitions: vec![Assignment::default(); partitions],
        });
        Self { table, copies_moved: 0, roles_moved: 0, young: BTreeSet::new() }
    }

    /// Tables follow each other until nothing is left to do. Every copy that is built becomes in sync.
    fn settle(&mut self, joiners: &BTreeMap<MemberName, Joiner>) {
        for _ in 0..10_000 {
            let building = |copy: &&Copy| !copy.in_sync();
            let claims = self.table.partitions.iter().enumerate().flat_map(|(number, assignment)| {
                let copies = assignment.copies.iter().filter(building);
                copies.map(move |copy| claim(Partition(number as u16), assignment, *copy))
            });
            let wishes = Wishes {
                joiners: joiners.clone(),
                caught_up: self.table.in_state(State::Joining).map(|member| member.id).collect(),
                in_sync: claims.collect(),
                young: self.young.clone(),
                ..Wishes::default()
            };
            let counter = self.table.epoch.counter + 1;
            let Some(mut next) = next_table(&self.table, &wishes, counter, Known::InForce) else { return };
            next.epoch.counter = counter;
            for (before, after) in self.table.partitions.iter().zip(&next.partitions) {
                self.copies_moved += after.copies.iter().filter(|copy| !before.holds(copy.member)).count();
                self.roles_moved += usize::from(before.primary() != after.primary());
            }
            self.table = next;
        }
        panic!("tables without end");
    }

    fn led_by(&self, id: MemberId) -> usize {
        self.table.partitions.iter().filter(|assignment| assignment.primary() == Some(id)).count()
    }

    fn held_by(&self, name: &MemberName) -> usize {
        let id = self.table.named(name).map(|member| member.id).expect("a member");
        self.table.partitions.iter().filter(|assignment| assignment.holds(id)).count()
    }
}

fn name(number: u32) -> MemberName {
    MemberName::from(format!("member-{number}").as_str())
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    /// What a join costs in the end, over all its tables (rule T9). `members` counts the joiner.
    #[test]
    fn a_join_moves_no_more_copies_than_a_share_and_a_tenth(
        members in 2..=50_u32,
        factor in 1..=3_u32,
        partitions in prop::sample::select(vec![16_usize, 64, 256]),
    ) {
        let mut cluster = Cluster::new(members - 1, 0, partitions, factor);
        cluster.settle(&BTreeMap::new());
        prop_assert_eq!(cluster.copies_moved, 0, "a cluster at rest");
        cluster.settle(&BTreeMap::from([(name(members), joiner(1000, ""))]));
        let copies = partitions * factor.min(members) as usize;
        let bound = copies.div_ceil(members as usize).max(copies * 11 / (10 * members as usize));
        prop_assert!(cluster.copies_moved <= bound, "{} copies moved, more than {bound}", cluster.copies_moved);
        // Less would not be a join: it has its share, rounded down.
        prop_assert!(cluster.held_by(&name(members)) >= copies / members as usize);
        prop_assert!(cluster.roles_moved <= partitions);
    }

    #[test]
    fn no_two_copies_share_a_zone_while_there_are_enough_after_any_join(
        members in 3..=24_u32,
        zones in 1..=4_u32,
        factor in 2..=3_u32,
        joins in 0..4_u32,
    ) {
        let members = members - members % zones;
        prop_assume!(members >= zones && members >= factor);
        let mut cluster = Cluster::new(members, zones, 64, factor);
        for number in members..members + joins * zones {
            cluster.settle(&BTreeMap::from([(name(number), joiner(1000, &format!("zone-{}", number % zones)))]));
        }
        let zone = |id: MemberId| cluster.table.member(id).map(|member| member.zone.clone());
        for assignment in &cluster.table.partitions {
            let used: BTreeSet<Option<String>> = assignment.copies.iter().map(|copy| zone(copy.member)).collect();
            prop_assert_eq!(used.len() as u32, factor.min(zones), "{:?}", assignment);
        }
    }
}

/// What is asked of the coordinator in one table.
#[derive(Clone, Copy, Debug)]
enum Ask {
    Lost(u32, Lost),
    InSync(u32),
    WriteQuorum(u32),
    Ends(u32),
}

/// One partition on members 0, 1 and so on, which is led by the first, after these tables.
fn after(factor: u32, write_quorum: u32, tables: &[&[Ask]]) -> Table {
    let mut table = Cluster::new(3, 0, 1, factor).table;
    table.live.write_quorum = write_quorum;
    table.partitions[0].copies.sort_by_key(|copy| copy.member);
    for asked in tables {
        let assignment = table.partitions[0].clone();
        let claimed = |id: u32| {
            let copy = assignment.copies.iter().find(|copy| copy.member == MemberId(id)).expect("a copy");
            claim(Partition(0), &assignment, *copy)
        };
        let mut wishes = Wishes::default();
        for ask in *asked {
            match ask {
                Ask::Lost(id, lost) => drop(wishes.lost.insert(claimed(*id), *lost)),
                Ask::InSync(id) => drop(wishes.in_sync.insert(claimed(*id))),
                Ask::WriteQuorum(write_quorum) => {
                    let generation = table.live.generation + 1;
                    wishes.live = Some(Live { generation, write_quorum: *write_quorum, ..table.live });
                }
                Ask::Ends(id) => drop(wishes.down.insert((name(*id), Generation(u64::from(*id))))),
            }
        }
        let counter = table.epoch.counter + 1;
        table = next_table(&table, &wishes, counter, Known::InForce).expect("something changes");
        table.epoch.counter = counter;
    }
    table
}

/// Whether the partition started empty in the table.
fn is_anew(table: &Table) -> bool {
    table.partitions[0].copies[0].since == table.epoch.counter
}

#[test]
fn a_copy_without_which_no_write_was_acknowledged_follows_its_primary() {
    use Ask::{Ends, InSync, Lost as Gone};
    use Lost::Unheard;
    let ends: &[Ask] = &[Ends(0)];
    let cases: [(u32, u32, &[&[Ask]], u32); 5] = [
        (2, 2, &[&[Gone(1, Unheard)], ends], 1),
        // Of several, the one that was in sync last.
        (3, 3, &[&[Gone(1, Unheard)], &[Gone(2, Unheard)], ends], 2),
        (3, 3, &[&[Gone(2, Unheard)], &[Gone(1, Unheard)], ends], 1),
        // One that is in sync goes before.
        (3, 3, &[&[Gone(1, Unheard)], ends], 2),
        // It may come back, and be lost again.
        (2, 2, &[&[Gone(1, Unheard)], &[InSync(1)], &[Gone(1, Unheard)], ends], 1),
    ];
    for (factor, write_quorum, tables, successor) in cases {
        let table = after(factor, write_quorum, tables);
        assert_eq!(table.partitions[0].primary(), Some(MemberId(successor)), "{tables:?}");
        assert!(!is_anew(&table), "{tables:?}");
    }
}

#[test]
fn a_copy_without_which_a_write_may_have_been_acknowledged_is_never_promoted() {
    use Ask::{Ends, InSync, Lost as Gone, WriteQuorum};
    use Lost::{Unfit, Unheard};
    let cases: [(u32, u32, &[&[Ask]]); 6] = [
        // The primary alone is enough.
        (2, 1, &[&[Gone(1, Unheard)], &[Ends(0)]]),
        // Enough others were in sync, in the same table or in a later one.
        (3, 2, &[&[Gone(1, Unheard)], &[Ends(0), Ends(2)]]),
        (3, 2, &[&[Gone(1, Unheard), Gone(2, Unheard)], &[InSync(2)], &[Ends(0), Ends(2)]]),
        (3, 2, &[&[Gone(1, Unheard), Gone(2, Unheard)], &[InSync(2)], &[Gone(2, Unfit)], &[Ends(0), Ends(2)]]),
        // Fewer copies became enough.
        (2, 2, &[&[Gone(1, Unheard)], &[WriteQuorum(1)], &[Ends(0)]]),
        // What it has is not what it confirmed.
        (2, 2, &[&[Gone(1, Unfit)], &[Ends(0)]]),
    ];
    for (factor, write_quorum, tables) in cases {
        assert!(is_anew(&after(factor, write_quorum, tables)), "{tables:?}");
    }
}

#[test]
fn copies_without_which_writes_are_refused_are_built_all_at_once_and_others_a_few_at_a_time() {
    for write_quorum in [1, 2] {
        let mut table = Cluster::new(3, 0, 256, 2).table;
        table.live.write_quorum = write_quorum;
        let lost = table.partitions.iter().filter(|assignment| assignment.holds(MemberId(2))).count();
        let builds = if write_quorum == 2 { lost } else { 2 * MAX_BUILDS_PER_MEMBER };
        let wishes = Wishes { down: BTreeSet::from([(name(2), Generation(2))]), ..Wishes::default() };
        let next = next_table(&table, &wishes, 2, Known::InForce).expect("something changes");
        let copies = next.partitions.iter().flat_map(|assignment| &assignment.copies);
        assert_eq!(copies.filter(|copy| copy.mark == Mark::Building).count(), builds);
        let short = next.partitions.iter().filter(|assignment| assignment.copies.len() < write_quorum as usize);
        assert_eq!(short.count(), 0);
    }
}

#[test]
fn no_primary_is_handed_to_a_start_that_does_not_consent_yet() {
    let mut cluster = Cluster::new(2, 0, 16, 2);
    cluster.settle(&BTreeMap::new());
    let joiners = BTreeMap::from([(name(3), joiner(1000, ""))]);
    let id = MemberId(cluster.table.next_member);
    cluster.young = BTreeSet::from([id]);
    cluster.settle(&joiners);
    assert!(cluster.held_by(&name(3)) > 0);
    assert_eq!((cluster.led_by(id), cluster.roles_moved), (0, 0));
    cluster.young.clear();
    cluster.settle(&joiners);
    assert_eq!((cluster.led_by(id), cluster.roles_moved), (16 / 3, 16 / 3));
}
