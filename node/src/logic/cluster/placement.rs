//! Who should hold which partition (rule T9).
//!
//! Placement is a flow of least cost: each partition sends one unit to each of its holders, and what an arrangement is
//! worth is the sum of the prices below. It is made in two steps, first all copies, then which of them are primaries.
//! Each step starts from what is there and follows cycles of negative cost between the seats until there is none left,
//! which for a flow means that nothing cheaper exists (Klein 1967). So the result is the best one and not only a good
//! one, and an arrangement that is the best already stays as it is.
//!
//! What counts, most important first: the caps, separation of zones, that no seat has less than its share while others
//! have more, the number of moves, which copies are given up, evenness within the caps. The share stands above the
//! moves because caps alone leave room for a tenth: a joiner could stay empty while the others use that room up, and a
//! later joiner would then have to make up for it at once, with more moves than its own share.

use super::{member::MemberId, table::Assignment};
use crate::logic::store::mix;

/// Who should hold each partition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// One list a partition: distinct members, the primary first. Empty lists if there is no seat at all.
    pub copies: Vec<Vec<MemberId>>,
}

/// One member that may hold partitions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat<'a> {
    /// The member.
    pub id: MemberId,
    /// Its zone. Empty means unknown: such a member counts as a zone of its own.
    pub zone: &'a str,
}

/// Says who should hold each partition, with `factor` copies of each or one on every seat if there are fewer.
///
/// `current` is today's table, one assignment a partition. Copies on members without a seat are replaced; all others
/// stay wherever the rules allow it. The result depends on nothing else, not even on the order of `seats`.
pub fn place(seats: &[Seat<'_>], current: &[Assignment], factor: u32, hash_seed: u64) -> Target {
    let mut seats = seats.to_vec();
    seats.sort_unstable_by_key(|seat| seat.id);
    seats.dedup_by_key(|seat| seat.id);
    if seats.is_empty() {
        return Target { copies: vec![Vec::new(); current.len()] };
    }
    let factor = (factor.max(1) as usize).min(seats.len());
    let weights = weights(&seats, current.len(), hash_seed);
    let grades = grades(&seats, current);

    let mut copies = Flow::new(zones(&seats), &weights, Share::of_copies(current.len(), seats.len(), factor), COPIES);
    copies.grades = grades.iter().copied().map(Some).collect();
    copies.start(factor, |grade| grade != Grade::New);
    copies.improve();

    let own_zones = (0..seats.len()).collect();
    let mut primaries = Flow::new(own_zones, &weights, Share::of_primaries(current.len(), seats.len()), PRIMARIES);
    primaries.grades = grades.iter().zip(&copies.held).map(|(&grade, &held)| held.then_some(grade)).collect();
    primaries.start(1, |grade| grade == Grade::Primary);
    primaries.improve();

    let ordered = |partition: usize| {
        let mut list = copies.holders[partition].clone();
        let now = &current[partition].copies;
        list.sort_by_key(|&seat| {
            let place_now = now.iter().position(|copy| copy.member == seats[seat].id).unwrap_or(now.len());
            (!primaries.holders[partition].contains(&seat), place_now, seats[seat].id)
        });
        list.into_iter().map(|seat| seats[seat].id).collect()
    };
    Target { copies: (0..current.len()).map(ordered).collect() }
}

/// What a unit costs. Each price is 2^20 times the one before, and no cycle has so many units that it adds up to the
/// next one: the prices are compared like the digits of a number.
type Cost = i128;

/// One unit above the share, for each unit above it already.
const EVEN: Cost = 1;
/// A copy that is a better one to keep is given up instead.
const CHOICE: Cost = 1 << 20;
/// A copy where there was none.
const MOVE: Cost = 1 << 40;
/// One unit below the share, for each unit missing already.
const SHARE: Cost = 1 << 60;
/// Two copies of a partition in one zone.
const ZONE: Cost = 1 << 80;
/// One unit above the cap, for each unit above it already. There is always an arrangement without.
const CAP: Cost = 1 << 100;

/// What a member has of a partition today.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Grade {
    Primary,
    InSync,
    Syncing,
    New,
}

/// Price of a unit by its [`Grade`].
type Prices = [Cost; 4];

/// The primary's copy goes last and one that is still being filled first.
const COPIES: Prices = [0, 2 * CHOICE, 3 * CHOICE, MOVE];
/// A primary that has to be filled first costs more than a handover to a copy in sync: until then another one serves.
const PRIMARIES: Prices = [0, CHOICE, MOVE, 2 * MOVE];

/// How many units a seat should have.
#[derive(Clone, Copy, Debug)]
struct Share {
    /// The share, rounded down: nobody has less unless caps or zones want it.
    floor: u32,
    /// The most that a seat may have.
    cap: u32,
}

impl Share {
    fn of(units: usize, seats: usize) -> Self {
        let cap = units.div_ceil(seats).max(units * 11 / (seats * 10));
        Self { floor: (units / seats) as u32, cap: cap as u32 }
    }

    fn of_primaries(partitions: usize, seats: usize) -> Self {
        Self::of(partitions, seats)
    }

    /// The cap is lowered to `factor` times that of primaries, where rounding puts it above. Then each holder can take
    /// a `factor`th of its copies as primary, so by the integrality of flows there is a choice of primaries within
    /// their cap whatever the copies are. The share itself always fits below it.
    fn of_copies(partitions: usize, seats: usize, factor: usize) -> Self {
        let share = Self::of(partitions * factor, seats);
        Self { cap: share.cap.min(factor as u32 * Self::of_primaries(partitions, seats).cap), ..share }
    }

    /// Price of a seat's `load`th unit; rises with the load, so that flows even out.
    fn price(self, load: u32) -> Cost {
        let above = |mark: u32| Cost::from(load.saturating_sub(mark));
        match load {
            _ if load <= self.floor => -SHARE * Cost::from(self.floor - load + 1),
            _ => CAP * above(self.cap) + EVEN * above(self.floor),
        }
    }
}

/// Rendezvous weight of each seat for each partition; the lowest wins (Thaler and Ravishankar 1998).
fn weights(seats: &[Seat<'_>], partitions: usize, hash_seed: u64) -> Vec<u32> {
    let weight = |partition: usize, id: MemberId| {
        (mix(mix(hash_seed ^ partition as u64).wrapping_add(u64::from(id.0))) >> 32) as u32
    };
    (0..partitions).flat_map(|partition| seats.iter().map(move |seat| weight(partition, seat.id))).collect()
}

/// Number of each seat's zone.
fn zones(seats: &[Seat<'_>]) -> Vec<usize> {
    let first = |seat: &Seat<'_>| seats.iter().position(|other| other.zone == seat.zone);
    let zone = |(index, seat): (usize, &Seat<'_>)| first(seat).filter(|_| !seat.zone.is_empty()).unwrap_or(index);
    seats.iter().enumerate().map(zone).collect()
}

/// What each seat has of each partition.
fn grades(seats: &[Seat<'_>], current: &[Assignment]) -> Vec<Grade> {
    let mut grades = vec![Grade::New; seats.len() * current.len()];
    for (assignment, row) in current.iter().zip(grades.chunks_exact_mut(seats.len())) {
        for (place, copy) in assignment.copies.iter().enumerate().rev() {
            let Ok(seat) = seats.binary_search_by_key(&copy.member, |seat| seat.id) else { continue };
            row[seat] = match copy.in_sync() {
                _ if place == 0 => Grade::Primary,
                true => Grade::InSync,
                false => Grade::Syncing,
            };
        }
    }
    grades
}

/// The cheapest way to take a unit from one seat to another.
#[derive(Clone, Copy, Debug)]
struct Arc {
    cost: Cost,
    weight: u32,
    partition: usize,
}

/// One step of a cycle: a unit of a partition changes its seat. Without a partition it leads to or from the pool, which
/// stands for the loads: from the pool to the seat that has one unit less in the end, to it from the one with one more.
#[derive(Clone, Copy, Debug)]
struct Hop {
    from: usize,
    to: usize,
    partition: Option<usize>,
}

/// Units of partitions on seats. Tables have a row for each partition and a column for each seat.
struct Flow<'a> {
    seats: usize,
    zone_of: Vec<usize>,
    weights: &'a [u32],
    share: Share,
    prices: Prices,
    /// None: the seat may not have this partition.
    grades: Vec<Option<Grade>>,
    holders: Vec<Vec<usize>>,
    held: Vec<bool>,
    /// Number of a partition's units in each zone.
    crowd: Vec<u32>,
    /// Partitions of each seat.
    loads: Vec<Vec<usize>>,
    /// Cheapest way from each seat (row) to each other (column).
    arcs: Vec<Option<Arc>>,
}

impl<'a> Flow<'a> {
    fn new(zone_of: Vec<usize>, weights: &'a [u32], share: Share, prices: Prices) -> Self {
        let seats = zone_of.len();
        Self {
            seats,
            zone_of,
            weights,
            share,
            prices,
            grades: Vec::new(),
            holders: vec![Vec::new(); weights.len() / seats],
            held: vec![false; weights.len()],
            crowd: vec![0; weights.len()],
            loads: vec![Vec::new(); seats],
            arcs: Vec::new(),
        }
    }

    /// Puts `units` of each partition on seats: those it is kept on as far as possible, then the best at the moment.
    fn start(&mut self, units: usize, kept: impl Fn(Grade) -> bool) {
        for partition in 0..self.holders.len() {
            for seat in 0..self.seats {
                if self.grades[partition * self.seats + seat].is_some_and(&kept) {
                    self.put(partition, seat);
                }
            }
        }
        for partition in 0..self.holders.len() {
            while self.holders[partition].len() > units {
                let worst = |&seat: &usize| (self.price_of_holding(partition, seat), self.weight(partition, seat));
                let Some(seat) = self.holders[partition].iter().copied().max_by_key(worst) else { break };
                self.remove(partition, seat);
            }
        }
        for partition in 0..self.holders.len() {
            while self.holders[partition].len() < units {
                let best = |&seat: &usize| (self.price_of_adding(partition, seat), self.weight(partition, seat));
                let Some(seat) = (0..self.seats).filter(|&seat| self.may_add(partition, seat)).min_by_key(best) else {
                    break;
                };
                self.put(partition, seat);
            }
        }
    }

    /// Makes it the cheapest arrangement. It ends because each round is cheaper than the one before.
    fn improve(&mut self) {
        self.arcs = vec![None; self.seats * self.seats];
        for partition in 0..self.holders.len() {
            for holder in 0..self.holders[partition].len() {
                self.offer(partition, self.holders[partition][holder]);
            }
        }
        while let Some(cycle) = self.negative_cycle() {
            let cycle = self.simple(cycle);
            self.follow(&cycle);
        }
    }

    fn weight(&self, partition: usize, seat: usize) -> u32 {
        self.weights[partition * self.seats + seat]
    }

    fn load(&self, seat: usize) -> u32 {
        self.loads[seat].len() as u32
    }

    fn price(&self, partition: usize, seat: usize) -> Cost {
        self.grades[partition * self.seats + seat].map_or(CAP, |grade| self.prices[grade as usize])
    }

    fn crowd(&self, partition: usize, seat: usize) -> Cost {
        Cost::from(self.crowd[partition * self.seats + self.zone_of[seat]])
    }

    fn may_add(&self, partition: usize, seat: usize) -> bool {
        let cell = partition * self.seats + seat;
        self.grades[cell].is_some() && !self.held[cell]
    }

    fn price_of_holding(&self, partition: usize, seat: usize) -> Cost {
        let zone = ZONE * (self.crowd(partition, seat) - 1);
        self.price(partition, seat) + zone + self.share.price(self.load(seat))
    }

    fn price_of_adding(&self, partition: usize, seat: usize) -> Cost {
        let zone = ZONE * self.crowd(partition, seat);
        self.price(partition, seat) + zone + self.share.price(self.load(seat) + 1)
    }

    /// What it costs that a unit changes its seat, apart from the loads.
    fn price_of_shift(&self, partition: usize, from: usize, to: usize) -> Cost {
        let zone = if self.zone_of[from] == self.zone_of[to] {
            0
        } else {
            ZONE * (self.crowd(partition, to) - self.crowd(partition, from) + 1)
        };
        self.price(partition, to) - self.price(partition, from) + zone
    }

    fn put(&mut self, partition: usize, seat: usize) {
        self.holders[partition].push(seat);
        self.held[partition * self.seats + seat] = true;
        self.crowd[partition * self.seats + self.zone_of[seat]] += 1;
        self.loads[seat].push(partition);
    }

    fn remove(&mut self, partition: usize, seat: usize) {
        self.holders[partition].retain(|&holder| holder != seat);
        self.held[partition * self.seats + seat] = false;
        self.crowd[partition * self.seats + self.zone_of[seat]] -= 1;
        self.loads[seat].retain(|&other| other != partition);
    }

    /// Enters the ways that a partition opens from one of its holders to all others.
    fn offer(&mut self, partition: usize, from: usize) {
        for to in 0..self.seats {
            self.offer_one(partition, from, to);
        }
    }

    fn offer_one(&mut self, partition: usize, from: usize, to: usize) {
        if !self.may_add(partition, to) {
            return;
        }
        let arc = Arc { cost: self.price_of_shift(partition, from, to), weight: self.weight(partition, to), partition };
        let known = &mut self.arcs[from * self.seats + to];
        if known.is_none_or(|known| (arc.cost, arc.weight, arc.partition) < (known.cost, known.weight, known.partition))
        {
            *known = Some(arc);
        }
    }

    /// Moves the units of a cycle and corrects the arcs that this changes.
    fn follow(&mut self, cycle: &[Hop]) {
        let mut touched: Vec<(usize, usize)> = Vec::new();
        let hops = || cycle.iter().filter_map(|hop| hop.partition.map(|partition| (partition, hop.from, hop.to)));
        for (partition, from, to) in hops() {
            touched.extend(self.holders[partition].iter().map(|&holder| (partition, holder)));
            touched.push((partition, to));
            self.remove(partition, from);
            self.put(partition, to);
        }
        touched.sort_unstable();
        touched.dedup();
        for &(partition, seat) in &touched {
            for to in 0..self.seats {
                let cell = seat * self.seats + to;
                if self.arcs[cell].is_some_and(|arc| arc.partition == partition) {
                    self.arcs[cell] = None;
                    for index in 0..self.loads[seat].len() {
                        self.offer_one(self.loads[seat][index], seat, to);
                    }
                }
            }
            if self.held[partition * self.seats + seat] {
                self.offer(partition, seat);
            }
        }
    }

    /// Price of a hop, to or from the pool included.
    fn price_of_hop(&self, hop: &Hop) -> Cost {
        match hop.partition {
            Some(partition) => self.price_of_shift(partition, hop.from, hop.to),
            None if hop.from == self.seats => -self.share.price(self.load(hop.to)),
            None => self.share.price(self.load(hop.from) + 1),
        }
    }

    /// A cycle may use a partition twice, and then its price need not be the sum of its hops: two units could enter one
    /// zone. Such a cycle is two cycles that cross in this partition, at least one of them negative.
    fn simple(&self, mut cycle: Vec<Hop>) -> Vec<Hop> {
        while let Some((first, second)) = self.crossing(&cycle) {
            let joined = |from: usize, to: usize| Hop { from: cycle[from].from, to: cycle[to].to, ..cycle[first] };
            let mut inner = cycle[first + 1..second].to_vec();
            inner.push(joined(second, first));
            let mut outer = [&cycle[..first], &[joined(first, second)], &cycle[second + 1..]].concat();
            let price = |hops: &[Hop]| hops.iter().map(|hop| self.price_of_hop(hop)).sum::<Cost>();
            if price(&inner) < price(&outer) {
                outer = inner;
            }
            cycle = outer;
        }
        cycle
    }

    /// Two hops of a cycle with the same partition, both from zone to zone. Within a zone no other hop interferes.
    fn crossing(&self, cycle: &[Hop]) -> Option<(usize, usize)> {
        let crosses = |hop: &Hop| hop.partition.filter(|_| self.zone_of[hop.from] != self.zone_of[hop.to]);
        (0..cycle.len()).find_map(|first| {
            let partition = crosses(&cycle[first])?;
            let second = (first + 1..cycle.len()).find(|&second| crosses(&cycle[second]) == Some(partition))?;
            Some((first, second))
        })
    }

    /// Finds a cycle that makes it cheaper (Bellman and Ford, starting from all nodes at once). The pool is the last
    /// node.
    fn negative_cycle(&self) -> Option<Vec<Hop>> {
        let pool = self.seats;
        let mut distance: Vec<Cost> = vec![0; self.seats + 1];
        let mut before: Vec<Option<Hop>> = vec![None; self.seats + 1];
        let mut fresh: Vec<usize> = (0..=self.seats).collect();
        while !fresh.is_empty() {
            let mut changed = vec![false; self.seats + 1];
            for &from in &fresh {
                for to in 0..=self.seats {
                    let (cost, partition) = if from == pool || to == pool {
                        if from == to || from == pool && self.loads[to].is_empty() {
                            continue;
                        }
                        (self.price_of_hop(&Hop { from, to, partition: None }), None)
                    } else {
                        let Some(arc) = self.arcs[from * self.seats + to] else { continue };
                        (arc.cost, Some(arc.partition))
                    };
                    if distance[from] + cost < distance[to] {
                        distance[to] = distance[from] + cost;
                        before[to] = Some(Hop { from, to, partition });
                        changed[to] = true;
                    }
                }
            }
            fresh = (0..=self.seats).filter(|&node| changed[node]).collect();
            if let Some(cycle) = cycle_in(&before) {
                return Some(cycle);
            }
        }
        None
    }
}

/// A cycle in the hops by which the nodes were reached, if there is one.
fn cycle_in(before: &[Option<Hop>]) -> Option<Vec<Hop>> {
    let mut walk = vec![usize::MAX; before.len()];
    for start in 0..before.len() {
        let mut node = start;
        while walk[node] == usize::MAX {
            walk[node] = start;
            let Some(hop) = before[node] else { break };
            node = hop.from;
        }
        if walk[node] == start
            && let Some(cycle) = cycle_through(before, node)
        {
            return Some(cycle);
        }
    }
    None
}

/// The hops from a node back to itself, in the order in which they lead; none if they end elsewhere.
fn cycle_through(before: &[Option<Hop>], node: usize) -> Option<Vec<Hop>> {
    let mut cycle = vec![before[node]?];
    while cycle.last()?.from != node {
        cycle.push(before[cycle.last()?.from]?);
    }
    cycle.reverse();
    Some(cycle)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::logic::cluster::table::{Copy, Mark};

    const SEED: u64 = 7;

    /// A cluster that grows and shrinks: its members by zone, and its table with all copies in sync.
    #[derive(Clone, Debug)]
    struct Cluster {
        members: Vec<(MemberId, String)>,
        next: u32,
        factor: u32,
        table: Vec<Assignment>,
    }

    impl Cluster {
        fn new(partitions: usize, factor: u32) -> Self {
            Self { members: Vec::new(), next: 1, factor, table: vec![Assignment::default(); partitions] }
        }

        fn of(partitions: usize, factor: u32, zones: &[&str]) -> Self {
            let mut cluster = Self::new(partitions, factor);
            for zone in zones {
                cluster.join(zone);
            }
            cluster.settle();
            cluster
        }

        fn join(&mut self, zone: &str) {
            self.members.push((MemberId(self.next), zone.to_owned()));
            self.next += 1;
        }

        fn leave(&mut self, index: usize) -> MemberId {
            self.members.remove(index % self.members.len()).0
        }

        fn seats(&self) -> Vec<Seat<'_>> {
            self.members.iter().map(|(id, zone)| Seat { id: *id, zone }).collect()
        }

        fn target(&self) -> Target {
            place(&self.seats(), &self.table, self.factor, SEED)
        }

        /// Carries the target out and returns how many copies had to be made.
        fn settle(&mut self) -> usize {
            let target = self.target();
            let moves = moves(&self.table, &target);
            self.table = table(&target);
            moves
        }

        fn copies(&self) -> usize {
            (self.factor as usize).min(self.members.len())
        }

        /// The most copies that one member may hold, as rule T9 says it.
        fn cap(&self, units_a_partition: usize) -> usize {
            let (units, members) = (self.table.len() * units_a_partition, self.members.len());
            units.div_ceil(members).max(units * 11 / (members * 10))
        }

        fn held(&self, member: MemberId) -> usize {
            self.table.iter().filter(|assignment| assignment.holds(member)).count()
        }

        fn led(&self, member: MemberId) -> usize {
            self.table.iter().filter(|assignment| assignment.primary() == Some(member)).count()
        }

        fn zones(&self) -> Vec<usize> {
            let mut sizes = std::collections::BTreeMap::new();
            for (id, zone) in &self.members {
                let name = if zone.is_empty() { id.to_string() } else { zone.clone() };
                *sizes.entry(name).or_insert(0) += 1;
            }
            sizes.into_values().collect()
        }

        /// Whether each partition can have its copies in different zones without breaking a cap.
        fn is_separable(&self) -> bool {
            let cap = self.cap(self.copies()).min(self.copies() * self.cap(1));
            let room: usize = self.zones().iter().map(|size| (size * cap).min(self.table.len())).sum();
            room >= self.table.len() * self.copies()
        }

        fn shared_zones(&self) -> usize {
            let zone = |id: MemberId| &self.members.iter().find(|member| member.0 == id).unwrap().1;
            let shared = |assignment: &Assignment| {
                let zones: Vec<_> = assignment.copies.iter().map(|copy| zone(copy.member)).collect();
                (1..zones.len()).filter(|&at| !zones[at].is_empty() && zones[..at].contains(&zones[at])).count()
            };
            self.table.iter().map(shared).sum()
        }

        fn check(&self) {
            for (partition, assignment) in self.table.iter().enumerate() {
                assert_eq!(assignment.copies.len(), self.copies(), "copies of partition {partition}");
                for (at, copy) in assignment.copies.iter().enumerate() {
                    assert!(self.members.iter().any(|member| member.0 == copy.member), "{} has no seat", copy.member);
                    assert!(!assignment.copies[..at].iter().any(|other| other.member == copy.member), "twice on one");
                }
            }
            for &(id, _) in &self.members {
                assert!(self.held(id) <= self.cap(self.copies()), "{id} holds {}", self.held(id));
                assert!(self.led(id) <= self.cap(1), "{id} leads {}", self.led(id));
            }
            assert!(!self.is_separable() || self.shared_zones() == 0, "{} in one zone", self.shared_zones());
            assert_eq!(table(&self.target()), self.table, "a second placement moves something");
        }
    }

    fn assignment(copies: &[(u32, bool)]) -> Assignment {
        let mark = |in_sync| if in_sync { Mark::InSync } else { Mark::Building };
        let copy = |&(id, in_sync)| Copy { member: MemberId(id), mark: mark(in_sync), since: 0 };
        Assignment { copies: copies.iter().map(copy).collect(), ..Assignment::default() }
    }

    fn table(target: &Target) -> Vec<Assignment> {
        let row = |copies: &Vec<MemberId>| assignment(&copies.iter().map(|id| (id.0, true)).collect::<Vec<_>>());
        target.copies.iter().map(row).collect()
    }

    fn moves(before: &[Assignment], target: &Target) -> usize {
        let new = |(row, copies): (&Assignment, &Vec<MemberId>)| copies.iter().filter(|&&id| !row.holds(id)).count();
        before.iter().zip(&target.copies).map(new).sum()
    }

    #[derive(Clone, Debug)]
    enum Step {
        Join(String),
        Leave(usize),
        Factor(u32),
    }

    fn step(zones: usize) -> impl Strategy<Value = Step> {
        let zone = (0..zones).prop_map(|zone| Step::Join(format!("z{zone}")));
        let unknown = Just(Step::Join(String::new()));
        let join = if zones == 0 { unknown.boxed() } else { zone.boxed() };
        prop_oneof![3 => join, 2 => (0..1000_usize).prop_map(Step::Leave), 1 => (1..=3_u32).prop_map(Step::Factor)]
    }

    /// A cluster of 2 to 50 members and up to ten things that happen to it.
    fn history(zones: usize) -> impl Strategy<Value = (Cluster, Vec<Step>)> {
        let start =
            (prop::sample::select(vec![16, 64, 256]), 1..=3_u32, prop::collection::vec(0..zones.max(1), 2..=50));
        let cluster = start.prop_map(move |(partitions, factor, members)| {
            let mut cluster = Cluster::new(partitions, factor);
            for zone in members {
                cluster.join(&if zones == 0 { String::new() } else { format!("z{zone}") });
            }
            cluster.settle();
            cluster
        });
        (cluster, prop::collection::vec(step(zones), 1..=10))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn caps_and_move_bounds_hold_through_any_history((mut cluster, steps) in history(0)) {
            cluster.check();
            for step in steps {
                match step {
                    Step::Join(zone) => {
                        cluster.join(&zone);
                        let moves = cluster.settle();
                        let bound = cluster.cap(cluster.copies());
                        prop_assert!(moves <= bound, "a join moves {moves} copies, more than {bound}");
                    }
                    Step::Leave(index) if cluster.members.len() > 1 => {
                        let leaver = cluster.leave(index);
                        let held = cluster.held(leaver);
                        let moves = cluster.settle();
                        // With few partitions a member may hold all that the leaver held: its share comes from others.
                        let bound = held + usize::from(cluster.table.len() == 16);
                        prop_assert!(moves <= bound, "a leave moves {moves} copies, more than {bound}");
                    }
                    Step::Leave(_) => {}
                    Step::Factor(factor) => {
                        cluster.factor = factor;
                        cluster.settle();
                    }
                }
                cluster.check();
            }
        }

        #[test]
        fn zones_are_separated_through_any_history((mut cluster, steps) in (1..=5_usize).prop_flat_map(history)) {
            cluster.check();
            for step in steps {
                match step {
                    Step::Join(zone) => cluster.join(&zone),
                    Step::Leave(index) if cluster.members.len() > 1 => drop(cluster.leave(index)),
                    Step::Leave(_) => {}
                    Step::Factor(factor) => cluster.factor = factor,
                }
                cluster.settle();
                cluster.check();
            }
        }
    }

    /// A partition's copies on members 1 to 5, of which some may have no seat.
    fn copies() -> impl Strategy<Value = Vec<(u32, bool)>> {
        let members = prop::sample::subsequence(vec![1_u32, 2, 3, 4, 5], 0..=4).prop_shuffle();
        (members, prop::collection::vec(any::<bool>(), 4))
            .prop_map(|(members, in_sync)| members.into_iter().zip(in_sync).collect())
    }

    /// All ways to take `count` of `items`.
    fn choices<T: Clone>(items: &[T], count: usize) -> Vec<Vec<T>> {
        match items.split_first() {
            _ if count == 0 => vec![Vec::new()],
            None => Vec::new(),
            Some((first, rest)) => {
                let with = choices(rest, count - 1).into_iter().map(|tail| [vec![first.clone()], tail].concat());
                with.chain(choices(rest, count)).collect()
            }
        }
    }

    /// All ways to take one item of each list.
    fn combinations<T: Clone>(lists: &[Vec<T>]) -> Vec<Vec<T>> {
        let extend = |all: Vec<Vec<T>>, list: &Vec<T>| {
            all.iter().flat_map(|head| list.iter().map(|item| [head.clone(), vec![item.clone()]].concat())).collect()
        };
        lists.iter().fold(vec![Vec::new()], extend)
    }

    /// Sum of 1 to `count`.
    fn rising(count: usize) -> usize {
        count * (count + 1) / 2
    }

    /// Units above `cap`, below `floor` and above `floor`, over all members.
    fn unevenness(cluster: &Cluster, holders: &[Vec<MemberId>], floor: usize, cap: usize) -> [usize; 3] {
        let load = |id: MemberId| holders.iter().flatten().filter(|&&holder| holder == id).count();
        let loads: Vec<usize> = cluster.members.iter().map(|member| load(member.0)).collect();
        let sum = |excess: &dyn Fn(usize) -> usize| loads.iter().map(|&load| rising(excess(load))).sum();
        [
            sum(&|load| load.saturating_sub(cap)),
            sum(&|load| floor.saturating_sub(load)),
            sum(&|load| load.saturating_sub(floor)),
        ]
    }

    /// What an arrangement of copies is worth, the most important number first; less is better.
    fn score_of_copies(cluster: &Cluster, holders: &[Vec<MemberId>]) -> [usize; 6] {
        let (units, cap) = (cluster.table.len() * cluster.copies(), cluster.cap(cluster.copies()));
        let cap = cap.min(cluster.copies() * cluster.cap(1));
        let [above, below, uneven] = unevenness(cluster, holders, units / cluster.members.len(), cap);
        let zone = |id: MemberId| cluster.members.iter().find(|member| member.0 == id).unwrap().1.as_str();
        let [mut together, mut moves, mut choice] = [0; 3];
        for (row, holders) in cluster.table.iter().zip(holders) {
            let pairs = choices(holders, 2);
            together += pairs.iter().filter(|ids| !zone(ids[0]).is_empty() && zone(ids[0]) == zone(ids[1])).count();
            for &holder in holders {
                match row.copies.iter().position(|copy| copy.member == holder) {
                    None => moves += 1,
                    Some(0) => {}
                    Some(at) => choice += if row.copies[at].in_sync() { 2 } else { 3 },
                }
            }
        }
        [above, together, below, moves, choice, uneven]
    }

    /// What a choice of primaries is worth.
    fn score_of_primaries(cluster: &Cluster, primaries: &[MemberId]) -> [usize; 5] {
        let holders: Vec<Vec<MemberId>> = primaries.iter().map(|&primary| vec![primary]).collect();
        let floor = primaries.len() / cluster.members.len();
        let [above, below, uneven] = unevenness(cluster, &holders, floor, cluster.cap(1));
        let [mut to_fill, mut handovers] = [0; 2];
        for (row, &primary) in cluster.table.iter().zip(primaries) {
            match row.copies.iter().position(|copy| copy.member == primary) {
                Some(0) => {}
                Some(at) if row.copies[at].in_sync() => handovers += 1,
                Some(_) => to_fill += 1,
                None => to_fill += 2,
            }
        }
        [above, below, to_fill, handovers, uneven]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(256))]

        #[test]
        fn nothing_better_exists(
            zones in prop::collection::vec(prop::sample::select(vec!["", "a", "b"]), 1..=4),
            factor in 1..=3_u32,
            rows in prop::collection::vec(copies(), 4),
        ) {
            let mut cluster = Cluster::new(0, factor);
            for zone in zones {
                cluster.join(zone);
            }
            cluster.table = rows.iter().map(|row| assignment(row)).collect();
            let target = cluster.target();

            let ids: Vec<MemberId> = cluster.members.iter().map(|member| member.0).collect();
            let all = combinations(&vec![choices(&ids, cluster.copies()); rows.len()]);
            let best = all.iter().map(|holders| score_of_copies(&cluster, holders)).min();
            prop_assert_eq!(Some(score_of_copies(&cluster, &target.copies)), best);
            prop_assert_eq!(best.unwrap()[0], 0, "above the cap");

            let primaries: Vec<MemberId> = target.copies.iter().map(|copies| copies[0]).collect();
            let all = combinations(&target.copies);
            let best = all.iter().map(|primaries| score_of_primaries(&cluster, primaries)).min();
            prop_assert_eq!(Some(score_of_primaries(&cluster, &primaries)), best);
            prop_assert_eq!(best.unwrap()[0], 0, "above the cap of primaries");
        }

        #[test]
        fn a_move_that_is_under_way_causes_no_others(
            (mut cluster, steps) in (0..=4_usize).prop_flat_map(history),
            done in prop::collection::vec((any::<bool>(), any::<bool>()), 256),
        ) {
            for step in steps {
                match step {
                    Step::Join(zone) => cluster.join(&zone),
                    Step::Leave(index) if cluster.members.len() > 1 => drop(cluster.leave(index)),
                    Step::Leave(_) => {}
                    Step::Factor(factor) => cluster.factor = factor,
                }
            }
            let target = cluster.target();
            let mut missing = moves(&cluster.table, &target);
            for ((row, wanted), (begun, in_sync)) in cluster.table.iter_mut().zip(&target.copies).zip(done) {
                for &member in wanted.iter().filter(|_| begun) {
                    if !row.holds(member) {
                        let mark = if in_sync { Mark::InSync } else { Mark::Building };
                        row.copies.push(Copy { member, mark, since: 0 });
                        missing -= 1;
                    }
                }
            }
            prop_assert_eq!(moves(&cluster.table, &cluster.target()), missing);
        }
    }

    #[test]
    fn copies_that_are_in_sync_survive_a_lower_factor() {
        let mut cluster = Cluster::new(0, 2);
        for _ in 0..3 {
            cluster.join("");
        }
        cluster.table = vec![
            assignment(&[(1, true), (2, false), (3, true)]),
            assignment(&[(2, true), (3, false), (1, true)]),
            assignment(&[(3, true), (1, false), (2, true)]),
        ];
        let ids = |ids: [u32; 2]| ids.map(MemberId).to_vec();
        assert_eq!(cluster.target().copies, [ids([1, 3]), ids([2, 1]), ids([3, 2])]);
    }

    #[test]
    fn primaries_stay_when_the_factor_changes() {
        let mut cluster = Cluster::of(256, 3, &[""; 7]);
        let primaries: Vec<_> = cluster.table.iter().map(Assignment::primary).collect();
        for factor in [2, 1, 2, 3] {
            cluster.factor = factor;
            cluster.settle();
            cluster.check();
            assert_eq!(cluster.table.iter().map(Assignment::primary).collect::<Vec<_>>(), primaries);
        }
    }

    #[test]
    fn a_lost_primary_is_followed_by_a_copy_in_sync() {
        let mut cluster = Cluster::new(0, 2);
        for _ in 0..3 {
            cluster.join("");
        }
        cluster.table = vec![
            assignment(&[(9, true), (1, false), (2, true)]),
            assignment(&[(9, true), (2, false), (3, true)]),
            assignment(&[(9, true), (3, false), (1, true)]),
        ];
        let ids = |ids: [u32; 2]| ids.map(MemberId).to_vec();
        assert_eq!(cluster.target().copies, [ids([2, 1]), ids([3, 2]), ids([1, 3])]);
    }

    #[test]
    fn a_joiner_takes_its_share_of_copies_and_primaries() {
        let mut cluster = Cluster::of(256, 3, &[""; 48]);
        cluster.join("");
        cluster.settle();
        let joiner = cluster.members[48].0;
        assert_eq!((cluster.held(joiner), cluster.led(joiner)), (256 * 3 / 49, 256 / 49));
    }

    #[test]
    fn there_are_as_many_copies_as_members_when_the_factor_is_higher() {
        let mut cluster = Cluster::of(16, 3, &[""]);
        for copies in 1..=3 {
            assert!(cluster.table.iter().all(|row| row.copies.len() == copies));
            cluster.check();
            cluster.join("");
            cluster.settle();
        }
        assert!(cluster.table.iter().all(|row| row.copies.len() == 3));
    }

    #[test]
    fn two_units_of_a_partition_do_not_enter_a_zone_in_one_cycle() {
        let weights = vec![0; 3 * 4];
        let mut flow = Flow::new(vec![0, 1, 2, 2], &weights, Share::of(4, 4), COPIES);
        flow.grades = vec![Some(Grade::InSync); weights.len()];
        flow.grades[2 * 4] = Some(Grade::New);
        for (partition, seat) in [(0, 0), (0, 1), (1, 2), (2, 3)] {
            flow.put(partition, seat);
        }
        let hop = |from, to, partition| Hop { from, to, partition: Some(partition) };
        let cycle = vec![hop(0, 2, 0), hop(2, 1, 1), hop(1, 3, 0), hop(3, 0, 2)];
        assert_eq!(flow.crossing(&cycle), Some((0, 2)));
        let cycle = flow.simple(cycle);
        let hops: Vec<_> = cycle.iter().map(|hop| (hop.from, hop.to, hop.partition)).collect();
        assert_eq!(hops, [(2, 1, Some(1)), (1, 2, Some(0))], "the cheaper half");
    }

    /// Three members with 34 partitions among themselves: as copies 34 each would be within the cap, as primaries only
    /// 11 each are.
    #[test]
    fn copies_leave_room_for_the_cap_of_primaries() {
        let mut cluster = Cluster::new(0, 3);
        for _ in 0..20 {
            cluster.join("");
        }
        let apart = (0..176).map(|at| [0, 1, 2].map(|copy| (4 + (3 * at + copy) % 17, true)));
        let table = std::iter::repeat_n([1, 2, 3].map(|id| (id, true)), 34).chain(apart);
        cluster.table = table.map(|copies| assignment(&copies)).collect();
        assert_eq!((cluster.cap(3), cluster.cap(1)), (34, 11));
        assert_eq!(cluster.settle(), 3);
        cluster.check();
    }

    #[test]
    fn without_seats_nobody_holds_anything() {
        let current = vec![assignment(&[(1, true)]), assignment(&[])];
        assert_eq!(place(&[], &current, 2, SEED).copies, [vec![], vec![]]);
        assert!(place(&[Seat { id: MemberId(1), zone: "" }], &[], 2, SEED).copies.is_empty());
    }

    #[test]
    fn the_order_of_seats_does_not_matter() {
        let cluster = Cluster::of(64, 2, &["a", "b", "", "c", "a"]);
        let mut seats = cluster.seats();
        seats.remove(1);
        let target = place(&seats, &cluster.table, 3, SEED);
        seats.reverse();
        assert_eq!(place(&seats, &cluster.table, 3, SEED), target);
    }
}
