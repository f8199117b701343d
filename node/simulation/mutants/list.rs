//! Wrong versions of the logic. Each text must stand exactly once in its file, under `node/src/logic`.

use crate::invariants::{
    copies_are_equal, copies_come_back, linearizable, no_acknowledged_write_lost, no_miss_by_a_move,
    no_old_value_returns, no_read_goes_back, one_primary_an_epoch, one_table, only_own_values,
    planned_moves_are_not_felt, planned_moves_lose_nothing, predecessor_is_silent, within_limits,
};

/// One wrong version.
pub(crate) struct Mutant {
    pub(crate) name: &'static str,
    pub(crate) file: &'static str,
    pub(crate) text: &'static str,
    pub(crate) instead: &'static str,
    /// The invariant that must catch it in histories; or the story that must, by its path.
    pub(crate) caught_by: &'static str,
}

const fn mutant(
    name: &'static str,
    file: &'static str,
    (text, instead): (&'static str, &'static str),
    caught_by: &'static str,
) -> Mutant {
    Mutant { name, file, text, instead, caught_by }
}

pub(crate) const MUTANTS: &[Mutant] = &[
    // W: writes and replication
    mutant(
        "acknowledged_before_replication",
        "cluster/replica/commands.rs",
        ("if primary.writes.is_empty() && primary.holds(sequence) {", "if sequence < u64::MAX {"),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "building_copies_count_for_w",
        "cluster/replica/primary.rs",
        ("filter(|copy| copy.in_sync() && copy.has(sequence)).count()", "filter(|copy| copy.has(sequence)).count()"),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "word_of_a_former_copy_counts",
        "cluster/replica/stream.rs",
        ("if (1..copy.since).contains(&confirm.since) {", "if confirm.since == u64::MAX {"),
        "scenarios::a_late_word_of_a_former_copy_makes_no_empty_one_a_successor",
    ),
    mutant(
        "silent_copies_not_waited_for",
        "cluster/replica/primary.rs",
        ("holders >= self.write_quorum && self.survives(sequence)", "holders >= self.write_quorum"),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "syncing_copy_promoted",
        "cluster/next_table.rs",
        (".filter(|at| assignment.copies[*at].has_all())", ".filter(|at| assignment.copies[*at].since > 0)"),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "eligible_copy_not_promoted",
        "cluster/next_table.rs",
        (".filter(|at| assignment.copies[*at].has_all())", ".filter(|at| assignment.copies[*at].in_sync())"),
        "scenarios::a_copy_that_its_primary_could_not_reach_goes_on_with_all_that_was_acknowledged",
    ),
    mutant(
        "eligibility_never_ends",
        "cluster/next_table.rs",
        (".zip(acknowledges).filter(|(_, yes)| *yes)", ".zip(acknowledges).filter(|(_, yes)| *yes && needed == 0)"),
        "scenarios::a_copy_that_writes_no_longer_wait_for_is_not_promoted",
    ),
    mutant(
        "cut_off_primary_calls_copies_silent",
        "cluster/replica/stream.rs",
        (
            "hears.is_some_and(|since| now >= copy.heard.max(since) + replica_timeout)",
            "hears.is_none() || now >= copy.heard + replica_timeout",
        ),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "late_claim_accepted",
        "cluster/next_table.rs",
        ("copy.member == claim.member && copy.since == claim.since", "copy.member == claim.member"),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "gap_ignored",
        "cluster/replica/following.rs",
        (
            "let follows = starts == self.last || (starts.sequence < self.last.sequence && self.overlaps(&append));",
            "let follows = starts.sequence < u64::MAX || self.overlaps(&append);\n        if starts.sequence > self.last.sequence {\n            self.restart_log(starts);\n        }",
        ),
        copies_are_equal::NAME,
    ),
    mutant(
        "removals_not_replicated",
        "cluster/replica/following.rs",
        (
            "                    self.store.apply(&record.op, record.version);\n                    self.last = record.version;",
            "                    if !matches!(record.op, crate::logic::store::Op::Remove { .. }) {\n                        self.store.apply(&record.op, record.version);\n                    }\n                    self.last = record.version;",
        ),
        no_old_value_returns::NAME,
    ),
    mutant(
        "removal_that_finds_nothing_does_not_wait",
        "node/requests.rs",
        (
            "Access::Write => replica.answer_write(origin, reply, replica.last().sequence, clock.now),",
            "Access::Write => Some(reply),",
        ),
        no_acknowledged_write_lost::NAME,
    ),
    mutant(
        "time_to_live_by_the_wall_clock",
        "commands/call.rs",
        (
            "Some(Millis(self.now().0.saturating_add(left as u64).min(u64::MAX - 1)))",
            "Some(Millis(self.context.clock.wall.saturating_add(left as u64)))",
        ),
        no_old_value_returns::NAME,
    ),
    mutant(
        "log_never_trimmed",
        "cluster/replica/stream.rs",
        ("        self.forget_to(keep_after);\n", "        let _ = keep_after;\n"),
        within_limits::NAME,
    ),
    mutant(
        "nothing_is_evicted",
        "node/account.rs",
        ("self.budget.load(Ordering::Relaxed)", "self.budget.load(Ordering::Relaxed) * 1000"),
        within_limits::NAME,
    ),
    // W7, T2: leases and handing over
    mutant(
        "read_quorum_ignored_by_the_short_way",
        "node/requests.rs",
        ("self.answers(&mut replica, now) && replica.answers_reads_at_once()", "self.answers(&mut replica, now)"),
        no_read_goes_back::NAME,
    ),
    mutant(
        "lease_ignored",
        "node/requests.rs",
        ("== Standing::Serving && self.has_lease(now)", "== Standing::Serving"),
        no_old_value_returns::NAME,
    ),
    mutant(
        "lease_not_waited_for",
        "node/tables.rs",
        (
            "control.taking.as_ref().filter(|taking| taking.leases_until <= clock.now)",
            "control.taking.as_ref().filter(|taking| taking.leases_until.0 < u64::MAX)",
        ),
        predecessor_is_silent::NAME,
    ),
    mutant(
        "old_owner_goes_on",
        "cluster/replica/commands.rs",
        ("if primary.frozen.is_some() {", "if primary.frozen == Some(Millis(0)) {"),
        predecessor_is_silent::NAME,
    ),
    mutant(
        "left_out_and_still_answering",
        "node/control.rs",
        (
            "let resigned = control.said_goodbye || control.voter",
            "let resigned = control.said_goodbye && control.voter",
        ),
        predecessor_is_silent::NAME,
    ),
    mutant(
        "older_table_obeyed",
        "cluster/voter.rs",
        ("is_some_and(|known| known.epoch >= table.epoch)", "is_some_and(|known| known.epoch == table.epoch)"),
        predecessor_is_silent::NAME,
    ),
    mutant(
        "consent_of_the_loser_skipped",
        "cluster/proposer.rs",
        ("!table.is_live(side) || answers.contains(&side)", "!table.is_live(side) || answers.len() < 99"),
        "scenarios::a_former_primary_that_hears_of_it_late_is_waited_for",
    ),
    mutant(
        "leaver_does_not_wait_for_its_copies",
        "cluster/next_table.rs",
        ("    nobody_left\n        ||", "    nobody_left || true\n        ||"),
        planned_moves_lose_nothing::NAME,
    ),
    mutant(
        "handed_to_a_copy_that_is_being_built",
        "cluster/next_table.rs",
        (
            "            .in_sync()\n            .find(|id| Some(*id) == first_choice)",
            "            .copies.iter().map(|copy| copy.member)\n            .find(|id| Some(*id) == first_choice)",
        ),
        no_miss_by_a_move::NAME,
    ),
    // T: the table
    mutant(
        "quorum_counted_wrong",
        "cluster/proposer.rs",
        ("voted >= table.quorum as usize ||", "voted + 1 >= table.quorum as usize ||"),
        one_primary_an_epoch::NAME,
    ),
    mutant(
        "voter_without_memory_votes",
        "cluster/proposer.rs",
        ("|| (voted > 0 && all(table, answers, replaced))", "|| voted > 0 && !replaced.is_empty()"),
        one_table::NAME,
    ),
    mutant(
        "table_not_told_to_those_who_missed_it",
        "node/control.rs",
        (
            "if ours > theirs {\n            self.send_table(control, from, effects);\n        } else if theirs > ours {",
            "if ours > theirs && ours < theirs {",
        ),
        one_table::NAME,
    ),
    mutant(
        "copies_are_not_made_good",
        "cluster/next_table.rs",
        (
            "if assignment.holds(*id) || !takes || rests",
            "if assignment.holds(*id) || !takes || rests || self.counter > 0",
        ),
        copies_come_back::NAME,
    ),
    // Q1, F: reading and forwarding
    mutant(
        "read_quorum_ignored",
        "cluster/replica/commands.rs",
        ("if primary.read_quorum <= 1 {", "if primary.read_quorum < u32::MAX as usize {"),
        no_read_goes_back::NAME,
    ),
    mutant(
        "read_answered_before_what_it_read_is_safe",
        "cluster/replica/commands.rs",
        ("|| !primary.survives(read.sequence) {", "{"),
        linearizable::NAME,
    ),
    mutant(
        "write_of_unknown_outcome_sent_again",
        "node/forwards.rs",
        (
            "Access::Write => self.reply(request.origin, outcome_unknown(request.partition), effects),",
            "Access::Write => self.wait(Waiting { request, deadline: clock + HOLD, epoch: 0 }, effects),",
        ),
        linearizable::NAME,
    ),
    mutant(
        "commands_that_come_back_wait_behind_later_ones",
        "node/waiting.rs",
        (
            "matches!(waiting.request.origin, Origin::Peer { .. })",
            "matches!(waiting.request.origin, Origin::Peer { hops: 9, .. })",
        ),
        planned_moves_are_not_felt::NAME,
    ),
    mutant(
        "lost_replies_not_noticed",
        "node/mod.rs",
        (
            "self.outbox(peer).unheard();\n        self.forwards_broke(peer, clock, effects);",
            "self.outbox(peer).unheard();",
        ),
        planned_moves_are_not_felt::NAME,
    ),
    mutant(
        "numbers_of_forwards_come_again",
        "node/forwards.rs",
        ("let id = forwards.next.wrapping_add(1);", "let id = forwards.next.wrapping_add(1) % 4;"),
        only_own_values::NAME,
    ),
    mutant(
        "maps_share_their_keys",
        "commands/call.rs",
        ("        (self.map, self.spot) = (map, None);\n", "        let _ = map;\n"),
        only_own_values::NAME,
    ),
    // S1, S2: volumes
    mutant(
        "damage_not_noticed",
        "snapshot/reader.rs",
        ("if section.get_u32_le() == sum {", "if section.get_u32_le() == sum || length > 0 {"),
        "volumes::of_a_damaged_snapshot_nothing_damaged_is_served",
    ),
    mutant(
        "periodic_snapshot_taken_for_final",
        "cluster/next_table.rs",
        (
            "kept.final_of.is_some_and(|id| last.iter().any(|copy| copy.member == id))",
            "kept.final_of.is_none_or(|id| last.iter().any(|copy| copy.member == id))",
        ),
        "volumes::a_crash_of_all_brings_periodic_snapshots_back_only_when_losses_are_allowed",
    ),
    mutant(
        "nothing_is_kept_of_what_differs",
        "cluster/replica/following.rs",
        (
            "if matches!(&self.role, Role::Copy(following) if following.holds) {\n            self.drop_others(chunk);",
            "if matches!(&self.role, Role::Copy(following) if following.holds && following.anew && following.gap) {\n            self.drop_others(chunk);",
        ),
        "volumes::what_was_deleted_while_a_node_was_away_does_not_come_back_with_it",
    ),
    mutant(
        "table_confirmed_before_it_is_on_disk",
        "node/volume.rs",
        ("self.works && self.writing.is_some()", "self.works && self.writing.is_some() && self.asked == 0"),
        "volumes::a_table_that_writes_rest_on_is_remembered_however_slow_volumes_are",
    ),
    mutant(
        "snapshot_of_a_copy_that_had_been_left_out_is_final",
        "cluster/next_table.rs",
        ("kept.final_of.is_some_and(|id| last.iter().any(|copy| copy.member == id))", "kept.final_of.is_some()"),
        "volumes::what_was_final_before_others_went_on_does_not_come_back",
    ),
    mutant(
        "lowest_snapshot_taken",
        "cluster/next_table.rs",
        ("keepers.max_by_key(|(_, kept)| kept.last)", "keepers.min_by_key(|(_, kept)| kept.last)"),
        "volumes::where_losses_are_allowed_the_newest_snapshot_comes_back",
    ),
    mutant(
        "not_everyone_waited_for",
        "cluster/next_table.rs",
        ("None if away => Source::Wait,", "None if away && self.counter == 0 => Source::Wait,"),
        "volumes::a_partition_whose_only_holder_restarts_waits_for_it",
    ),
    // C: what clients see
    mutant(
        "mirror_outlives_a_write_through_its_node",
        "node/mirrors.rs",
        ("for key in keys {", "for key in keys.take(0) {"),
        no_old_value_returns::NAME,
    ),
    mutant(
        "mirror_of_an_answer_from_before_a_write",
        "node/mirrors.rs",
        ("if number < watched.last {", "if number == 0 {"),
        no_old_value_returns::NAME,
    ),
    mutant(
        "mirror_lives_too_long",
        "node/mirrors.rs",
        ("self.config.lasts.min(", "(self.config.lasts * 4).max("),
        no_old_value_returns::NAME,
    ),
    mutant(
        "who_departs_leaves_nobody_who_remembers",
        "node/control.rs",
        ("filter(|name| followed || *name != self.name())", "filter(|name| followed || !name.as_str().is_empty())"),
        "scenarios::a_member_whose_only_other_one_ends_while_it_departs_can_go",
    ),
    mutant(
        "what_was_there_before_an_empty_start_stays",
        "cluster/replica/orders.rs",
        (
            "if mine.has_all() && self.last.epoch.0 < assignment.began {",
            "if mine.has_all() && self.last.epoch.0 > u64::MAX / 2 {",
        ),
        no_old_value_returns::NAME,
    ),
];

/// Wrong versions that no history of the default run tells from the right one, and why, as far as is known. Only
/// played when `ONLY` names them.
pub(crate) const NOT_TOLD_APART: &[(Mutant, &str)] = &[
    (
        mutant(
            "mark_before_everything_is_confirmed",
            "cluster/replica/stream.rs",
            ("            && copy.build.is_none()\n            && copy.has(primary.acknowledged)\n", ""),
            copies_are_equal::NAME,
        ),
        "rare: a primary would have to end between the table and the last chunk",
    ),
    (
        mutant(
            "eligible_copy_emptied",
            "cluster/replica/following.rs",
            (
                "following.mark == Mark::Eligible && !self.store.is_empty()",
                "following.mark == Mark::Eligible && self.store.len() > usize::MAX / 2",
            ),
            no_acknowledged_write_lost::NAME,
        ),
        "rare: its primary must be sending it a first chunk at that moment; a test of the copy alone tells it apart",
    ),
    (
        mutant(
            "half_built_successor_keeps_its_version",
            "cluster/replica/orders.rs",
            ("            && following.mark != Mark::InSync\n", "            && following.mark == Mark::InSync\n"),
            copies_are_equal::NAME,
        ),
        "rare: another copy must be at the very version at which it is half built; a test of the copy alone tells it apart",
    ),
    (
        mutant(
            "claim_of_an_older_epoch_accepted",
            "cluster/next_table.rs",
            ("if assignment.epoch != claim.epoch {", "if assignment.epoch < claim.epoch {"),
            no_acknowledged_write_lost::NAME,
        ),
        "second line: a claim also names the number of the copy's build, and is forgotten soon",
    ),
    (
        mutant(
            "epoch_not_checked_by_primaries",
            "cluster/replica/stream.rs",
            ("if confirm.epoch != primary.epoch || confirm.refused {", "if confirm.refused {"),
            no_acknowledged_write_lost::NAME,
        ),
        "second line: what is confirmed is a version, which is looked up in the primary's own history",
    ),
    (
        mutant(
            "highest_table_ignored",
            "cluster/proposer.rs",
            ("            *highest = table;\n", "            drop(table);\n"),
            one_primary_an_epoch::NAME,
        ),
        "rare: the only table that is lost so is one that nobody but its dead proposer knew to be in force",
    ),
    (
        mutant(
            "promises_not_kept",
            "cluster/voter.rs",
            (
                "if !first_of_cluster && table.epoch < self.promised {",
                "if !first_of_cluster && table.epoch < Epoch::default() {",
            ),
            no_acknowledged_write_lost::NAME,
        ),
        "second line: nobody obeys a table lower than the one in force",
    ),
    (
        mutant(
            "joiner_that_died_counts_as_a_voter",
            "cluster/next_table.rs",
            (
                "member.state != State::Joining || !is_down(member)",
                "member.generation == Generation(0) || member.state != State::Away || true",
            ),
            one_table::NAME,
        ),
        "rare: it asks for one voter more, until the dead member comes back",
    ),
    (
        mutant(
            "sync_keeps_what_the_primary_lacks",
            "cluster/replica/following.rs",
            ("self.start_from(chunk.at);", "self.restart_log(chunk.at);"),
            copies_are_equal::NAME,
        ),
        "second line: copies are compared by digest, and built anew where they differ",
    ),
    (
        mutant(
            "cut_off_coordinator_judges_at_once",
            "node/hearing.rs",
            ("control.hears_quorum.is_none_or(|since| now < since + suspicion)", "now.0 == 0"),
            no_acknowledged_write_lost::NAME,
        ),
        "second line: nobody is called down who was heard within the suspicion time",
    ),
    (
        mutant(
            "snapshot_of_another_cluster_used",
            "cluster/next_table.rs",
            ("keeps.cluster == self.table.cluster;", "keeps.cluster.0 > 0;"),
            "volumes::the_snapshot_of_another_cluster_is_not_served",
        ),
        "second line: entries of another cluster are dropped when a table comes",
    ),
];
