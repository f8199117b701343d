//! The planner's decisions, each as a story: what a user does, and what the operator then does, step by step.

#![allow(clippy::expect_used, clippy::needless_for_each, clippy::unwrap_used)]

mod world;

use mizuya_operator::{
    crd::{CacheClusterSpec, Eviction, Placement, ReplicasFrom, ScaleDown, Zones},
    logic::{
        children::Child,
        plan::{Say, plan},
        report::{Outcome, report},
    },
};
use mizuya_wire::{admin::MemberState, quorum::MemberQuorum};
use serde_json::{Value, json};
use world::World;

fn reason(say: &Say) -> String {
    match say {
        Say::Reached => "Reached".into(),
        Say::Underway(reason, _) | Say::Blocked(reason, _) => reason.clone(),
    }
}

fn message(say: &Say) -> String {
    match say {
        Say::Reached => String::new(),
        Say::Underway(_, message) | Say::Blocked(_, message) => message.clone(),
    }
}

#[test]
fn an_empty_spec_makes_every_child_once_and_then_rests() {
    let mut world = World::new(CacheClusterSpec::default());
    world.reconcile(usize::MAX);
    assert_eq!(
        world.story,
        [
            "create 2 Secrets",
            "apply ServiceAccount",
            "apply Settings",
            "apply PeersService",
            "apply ClientService",
            "apply NetworkPolicy",
            "budget 1",
            "apply StatefulSet"
        ]
    );
    world.run_until_rest(60);
    world.assert_whole();
    let before = world.writes;
    world.run(300);
    assert_eq!(world.writes, before, "five minutes at rest: nothing is written");
}

#[test]
fn three_to_two_closes_the_budget_cordons_drains_and_lowers() {
    let mut world = World::settled(3);
    world.edit(|spec| spec.replicas = 2);
    world.run_until_rest(120);
    world.assert_whole();
    let expected = [
        "apply Settings",
        "budget 0",
        "cordon 2",
        "drain 2 depart",
        "lower to 2",
        "apply Settings",
        "budget 1",
        "forget 2",
    ];
    assert_eq!(world.story, expected);
}

#[test]
fn a_drain_shows_what_is_left_of_what_it_began_with() {
    let mut world = World::settled(3);
    world.edit(|spec| spec.replicas = 2);
    let mut seen = Vec::new();
    for _ in 0..60 {
        world.run(1);
        seen.extend(world.cluster.status.as_ref().and_then(|status| status.progress.clone()));
    }
    assert!(seen.iter().any(|text| text == "drain of quickstart-2: 8 of 8 partitions left"), "{seen:#?}");
    assert!(seen.iter().any(|text| text == "drain of quickstart-2: 2 of 8 partitions left"), "{seen:#?}");
    assert_eq!(world.cluster.status.unwrap().progress, None);
}

#[test]
fn turned_back_in_the_middle_nothing_is_removed_and_nothing_stays_cordoned() {
    let mut world = World::settled(4);
    world.edit(|spec| spec.replicas = 2);
    while !world.story.contains(&"drain 3 depart".to_owned()) {
        world.run(1);
    }
    world.run(1);
    world.edit(|spec| spec.replicas = 4);
    world.run_until_rest(60);
    world.assert_whole();
    assert!(world.story.contains(&"uncordon 3".to_owned()));
    assert!(!world.story.iter().any(|step| step.starts_with("lower")), "{:?}", world.story);

    // The next removal waits for the stabilization time.
    world.edit(|spec| spec.replicas = 3);
    world.run(250);
    assert_eq!(world.kubernetes.replicas(), 4);
    world.run(120);
    assert_eq!(world.kubernetes.replicas(), 3);
}

#[test]
fn without_a_reversal_nothing_waits_for_stabilization() {
    let mut world = World::settled(4);
    world.edit(|spec| spec.replicas = 2);
    world.run_until_rest(120);
    assert_eq!(world.kubernetes.replicas(), 2);
}

#[test]
fn two_to_four_raises_at_once() {
    let mut world = World::settled(2);
    world.edit(|spec| spec.replicas = 4);
    world.reconcile(usize::MAX);
    assert_eq!(world.story, ["apply Settings", "apply StatefulSet"]);
    world.run_until_rest(60);
    world.assert_whole();
}

#[test]
fn a_removal_that_leaves_too_little_memory_is_refused_with_the_shortage() {
    let mut world = World::settled(3);
    world.nodes.weight = 100; // 24 copies of 100 bytes; two nodes of 1000 may hold 2000
    world.run(2);
    world.edit(|spec| spec.replicas = 2);
    let (_, decided) = world.decide();
    assert_eq!(reason(&decided.say), "ScaleInBlocked");
    let text = message(&decided.say);
    assert!(text.contains("need 2400 bytes") && text.contains("400 bytes are missing"), "{text}");
    assert!(matches!(decided.say, Say::Blocked(..)));
    world.run(30);
    assert_eq!(world.story, ["apply Settings"]);

    world.edit(|spec| spec.scale_down = ScaleDown { allow_eviction: true, ..ScaleDown::default() });
    world.run_until_rest(120);
    assert_eq!(world.kubernetes.replicas(), 2);
}

#[test]
fn with_as_many_copies_as_nodes_one_copy_goes_with_the_node() {
    let mut world = World::settled(2);
    world.nodes.weight = 60; // 24 copies of 60 bytes are 1440; one node holds 720 of its 1000
    world.run(2);
    world.edit(|spec| spec.replicas = 1);
    world.run_until_rest(120);
    assert_eq!(world.kubernetes.replicas(), 1);
    assert!(world.nodes.lost.is_empty());
}

#[test]
fn a_removal_below_a_fixed_member_quorum_is_refused() {
    let mut world = World::settled(3);
    world.edit(|spec| {
        spec.replicas = 2;
        spec.replication.member_count_quorum = MemberQuorum::Fixed(3);
    });
    let (_, decided) = world.decide();
    assert_eq!(reason(&decided.say), "ScaleInBlocked");
    assert!(message(&decided.say).contains("set it to auto"));
}

#[test]
fn a_member_that_does_not_answer_keeps_every_gate_shut() {
    let mut world = World::settled(3);
    world.edit(|spec| spec.replicas = 2);
    world.silent.insert(1, world.now + 60);
    world.run(30);
    assert!(!world.story.iter().any(|step| step.starts_with("cordon")), "{:?}", world.story);
    let (_, decided) = world.decide();
    assert!(message(&decided.say).contains("quickstart-1 does not answer"), "{:?}", decided.say);
    world.run_until_rest(200);
    assert_eq!(world.kubernetes.replicas(), 2);
}

#[test]
fn a_member_that_falls_silent_in_the_middle_does_not_turn_the_drain_back() {
    let mut world = World::settled(3);
    world.edit(|spec| spec.replicas = 2);
    while !world.story.contains(&"cordon 2".to_owned()) {
        world.run(1);
    }
    world.silent.insert(0, world.now + 20);
    world.run_until_rest(200);
    assert!(!world.story.contains(&"uncordon 2".to_owned()), "{:?}", world.story);
    assert_eq!(world.kubernetes.replicas(), 2);
}

#[test]
fn a_restart_takes_one_pod_at_a_time_highest_first_each_after_its_handover() {
    let mut world = World::settled(3);
    world.kubernetes.restart();
    world.run_until_rest(300);
    world.assert_whole();
    let moves: Vec<&String> = world.story.iter().filter(|step| !step.starts_with("budget")).collect();
    assert_eq!(moves, ["drain 2 restart", "evict 2", "drain 1 restart", "evict 1", "drain 0 restart", "evict 0"]);
    assert!(world.nodes.lost.is_empty());
}

#[test]
fn another_way_to_evict_is_in_the_settings_and_reaches_the_nodes_one_by_one() {
    let mut world = World::settled(3);
    let file =
        |world: &World| world.kubernetes.live[&Child::Settings]["data"]["settings.yaml"].as_str().unwrap().to_owned();
    assert!(file(&world).contains("\neviction: auto\n"), "{}", file(&world));
    world.edit(|spec| spec.memory.eviction = Eviction::Lfu);
    world.run_until_rest(300);
    world.assert_whole();
    assert!(file(&world).contains("\neviction: lfu\n"), "{}", file(&world));
    let evicted: Vec<&String> = world.story.iter().filter(|step| step.starts_with("evict")).collect();
    assert_eq!(evicted, ["evict 2", "evict 1", "evict 0"]);
    assert!(world.nodes.lost.is_empty());
}

#[test]
fn a_restart_of_the_only_node_needs_nobody() {
    let mut world = World::settled(1);
    assert!(world.observe(false).live_budget().is_none(), "no budget at one replica");
    world.kubernetes.restart();
    world.run_until_rest(60);
    assert_eq!(world.story, ["evict 0"]);
}

#[test]
fn a_wrong_image_stops_at_the_first_pod_and_the_right_one_goes_on_from_there() {
    let mut world = World::settled(3);
    world.edit(|spec| spec.image = Some("bad:2".into()));
    world.run(120);
    assert_eq!(world.story.iter().filter(|step| step.starts_with("evict")).count(), 1, "{:?}", world.story);
    let (_, decided) = world.decide();
    assert_eq!(reason(&decided.say), "ImagePullBackOff");
    assert!(message(&decided.say).contains("quickstart-2: ImagePullBackOff"), "{:?}", decided.say);
    world.edit(|spec| spec.image = Some("good:3".into()));
    world.run_until_rest(300);
    world.assert_whole();
    assert!(world.nodes.lost.is_empty());
}

#[test]
fn a_wrong_image_from_the_start_is_corrected_on_all_pods_at_once() {
    let mut world = World::new(CacheClusterSpec { image: Some("bad:1".into()), ..CacheClusterSpec::default() });
    world.run(20);
    let (_, decided) = world.decide();
    assert_eq!(reason(&decided.say), "ImagePullBackOff");
    world.edit(|spec| spec.image = Some("good:2".into()));
    world.run_until_rest(120);
    world.assert_whole();
}

#[test]
fn an_operator_with_a_newer_image_changes_nothing_unless_told() {
    let mut world = World::settled(3);
    world.operator.node_image = "node:2".into();
    let before = world.writes;
    world.run(60);
    let condition = |world: &World| {
        let status = world.cluster.status.clone().unwrap();
        status.conditions.into_iter().find(|c| c.type_ == "UpdateAvailable").unwrap().status
    };
    assert_eq!(condition(&world), "True");
    assert_eq!(world.writes, before + 1, "one status");
    assert_eq!(world.story, [""; 0]);
    world.edit(|spec| spec.update.automatic = true);
    world.run_until_rest(300);
    assert_eq!(world.kubernetes.pods[&0].image, "node:2");
}

#[test]
fn settings_that_are_live_restart_nobody_and_others_do() {
    let mut world = World::settled(3);
    world.edit(|spec| spec.replication.factor = 3);
    world.run_until_rest(120);
    assert!(world.story.contains(&"settings factor 3".to_owned()));
    assert!(!world.story.iter().any(|step| step.starts_with("evict")), "{:?}", world.story);

    world.story.clear();
    world.edit(|spec| spec.leave_timeout = "10s".into());
    world.run_until_rest(300);
    assert_eq!(world.story.iter().filter(|step| step.starts_with("evict")).count(), 3, "{:?}", world.story);
}

#[test]
fn a_strangers_object_of_our_name_is_never_touched() {
    for child in Child::ALL {
        let mut world = World::new(CacheClusterSpec::default());
        world
            .kubernetes
            .live
            .insert(child, json!({ "metadata": { "name": child.name("quickstart"), "uid": "stranger" } }));
        let (_, decided) = world.decide();
        assert_eq!(decided.steps, [], "{child:?}");
        assert_eq!(reason(&decided.say), "NameTaken");
        assert!(message(&decided.say).contains(&child.name("quickstart")), "{:?}", decided.say);
        world.reconcile(usize::MAX);
        let status = world.cluster.status.unwrap();
        let stalled = status.conditions.iter().find(|c| c.type_ == "Stalled").unwrap();
        assert_eq!((stalled.status.as_str(), stalled.reason.as_str()), ("True", "NameTaken"));
    }
}

#[test]
fn a_child_of_a_former_cluster_of_that_name_is_waited_for() {
    let mut world = World::new(CacheClusterSpec::default());
    let owner = json!([{ "controller": true, "uid": "former", "kind": "CacheCluster", "name": "quickstart", "apiVersion": "x" }]);
    world.kubernetes.live.insert(Child::ClientService, json!({ "metadata": { "ownerReferences": owner } }));
    let (_, decided) = world.decide();
    assert_eq!(reason(&decided.say), "WaitingForDeletion");
    assert_eq!(decided.steps, []);
}

#[test]
fn a_cluster_that_is_being_deleted_is_left_alone() {
    let mut world = World::settled(3);
    world.kubernetes.live.remove(&Child::ClientService);
    let mut observed = world.observe(true);
    observed.cluster.metadata.deletion_timestamp =
        Some(k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(observed.now));
    assert_eq!(plan(&observed).steps, []);
}

#[test]
fn a_paused_cluster_changes_nothing_but_its_budget() {
    let mut world = World::settled(3);
    world.edit(|spec| {
        spec.paused = true;
        spec.replicas = 2;
        spec.image = Some("node:9".into());
    });
    world.nodes.copies.insert(0, vec![0]);
    world.reconcile(usize::MAX);
    assert_eq!(world.story, ["budget 0"]);
    world.run(30);
    assert_eq!(world.story, ["budget 0", "budget 1"]);
    world.edit(|spec| spec.paused = false);
    world.run_until_rest(300);
    world.assert_whole();
}

#[test]
fn the_budget_is_closed_while_a_copy_is_missing_and_open_at_rest() {
    let mut world = World::settled(3);
    world.kubernetes.terminate(1);
    world.run(6);
    assert_eq!(world.story.first().map(String::as_str), Some("budget 0"));
    world.run_until_rest(60);
    assert_eq!(world.story, ["budget 0", "budget 1"]);
}

#[test]
fn replicas_that_nobody_wrote_are_no_wish() {
    let mut world = World::settled(4);
    world.somebody_applies(&json!({ "f:spec": { "f:partitions": {} } }));
    world.edit(|spec| spec.replicas = 3); // the schema's default came back
    world.run(30);
    assert_eq!(world.kubernetes.replicas(), 4);
    let status = world.cluster.status.clone().unwrap();
    assert!(status.conditions.iter().any(|c| c.type_ == "ReplicasUnmanaged" && c.status == "True"));
    world.somebody_applies(&json!({ "f:spec": { "f:replicas": {} } }));
    world.run_until_rest(120);
    assert_eq!(world.kubernetes.replicas(), 3);
}

/// `kubectl scale` to the number that is there already makes the API server forget who wrote it.
#[test]
fn replicas_whose_owner_was_forgotten_are_a_wish_where_nobody_applies_server_side() {
    let mut world = World::settled(5);
    world.cluster.metadata.managed_fields = None;
    world.edit(|spec| spec.replicas = 3);
    world.run_until_rest(600);
    assert_eq!(world.kubernetes.replicas(), 3);
}

/// The API server notes no owner of what is written through /scale when nobody owned it before.
#[test]
fn what_came_through_scale_is_a_wish_that_nobody_owns() {
    let mut world = World::settled(3);
    world.somebody_applies(&json!({ "f:spec": { "f:partitions": {} } }));
    for replicas in [5, 3, 4, 3] {
        world.edit(|spec| spec.replicas = replicas);
        world.run_until_rest(600);
        assert_eq!(world.kubernetes.replicas(), replicas as u32);
        assert_eq!(world.cluster.status.as_ref().unwrap().replicas_from, ReplicasFrom::Scale);
    }
}

#[test]
fn a_hand_edit_of_a_rendered_field_is_undone_and_of_another_is_not() {
    let mut world = World::settled(3);
    let service = world.kubernetes.live.get_mut(&Child::ClientService).unwrap();
    service["spec"]["sessionAffinity"] = json!("ClientIP");
    service["metadata"]["labels"]["mine"] = json!("yes");
    assert_eq!(world.decide().1.steps, []);
    let service = world.kubernetes.live.get_mut(&Child::ClientService).unwrap();
    service["spec"]["ports"][0]["port"] = json!(1);
    world.reconcile(usize::MAX);
    assert_eq!(world.story, ["apply ClientService"]);
}

#[test]
fn a_pod_that_vanished_beyond_the_replicas_is_forgotten() {
    let mut world = World::settled(3);
    world.nodes.members.insert(
        7,
        world::nodes::Member {
            state: MemberState::Down,
            leaving: None,
            running: false,
            away_for: 0,
            bytes: 0,
            max_bytes: 0,
        },
    );
    world.run(2);
    assert_eq!(world.story, ["forget 7"]);
}

#[test]
fn quorums_are_computed_for_the_status() {
    let computed = |replicas: i32, factor: i32, read: i32, write: i32| {
        let mut world = World::new(CacheClusterSpec { replicas, ..CacheClusterSpec::default() });
        world.edit(|spec| {
            (spec.replication.factor, spec.replication.read_quorum, spec.replication.write_quorum) =
                (factor, read, write);
        });
        world.reconcile(usize::MAX);
        let quorum = world.cluster.status.unwrap().quorum.unwrap();
        (quorum.members, quorum.copies, quorum.posture)
    };
    assert_eq!(computed(1, 2, 1, 1), (1, 1, "eventual".to_owned()));
    assert_eq!(computed(2, 2, 1, 1), (1, 2, "eventual".to_owned()));
    assert_eq!(computed(3, 2, 1, 1), (2, 2, "eventual".to_owned()));
    assert_eq!(computed(3, 3, 2, 2), (2, 3, "majority".to_owned()));
    assert_eq!(computed(5, 3, 1, 3), (3, 3, "strong".to_owned()));
}

#[test]
fn a_problem_that_a_node_reports_names_the_cause_in_a_condition() {
    let mut world = World::settled(3);
    world.nodes.problems = vec![mizuya_wire::admin::Problem {
        code: "EnvironmentMismatch".into(),
        subject: "10.0.0.9:3322".into(),
        message: "it runs in environment wan, this cluster in lan: correct its settings".into(),
    }];
    world.run(20);
    let condition = |world: &World| {
        let status = world.cluster.status.clone().unwrap();
        status.conditions.into_iter().find(|c| c.type_ == "Degraded").unwrap()
    };
    assert_eq!((condition(&world).status.as_str(), condition(&world).reason.as_str()), ("True", "EnvironmentMismatch"));
    let before = world.writes;
    world.run(60);
    assert_eq!(world.writes, before, "a problem that stays is written once");
    world.nodes.problems.clear();
    world.run(20);
    assert_eq!(condition(&world).status, "False");
}

/// Machines of three zones, and an operator that may read them or not.
fn with_machines(placement: Placement, reads_nodes: bool) -> World {
    let mut world = World::new(CacheClusterSpec { placement, ..CacheClusterSpec::default() });
    world.operator.reads_nodes = reads_nodes;
    if reads_nodes {
        let zones = [("machine-0", "a"), ("machine-1", "b"), ("machine-2", "c")];
        world.zones = zones.map(|(machine, zone)| (machine.to_owned(), zone.to_owned())).into();
    }
    world.run_until_rest(120);
    world
}

fn told(world: &World) -> Vec<&String> {
    let mut told: Vec<&String> = world.story.iter().filter(|words| words.starts_with("tell ")).collect();
    told.sort();
    told
}

/// Where the pods find their zone, and what the status says of it.
fn zone_field(world: &World) -> (Option<String>, String) {
    let set = &world.kubernetes.live[&Child::StatefulSet];
    let sources = set.pointer("/spec/template/spec/volumes/0/projected/sources").and_then(Value::as_array).unwrap();
    let field = |source: &Value| {
        let path = source.pointer("/downwardAPI/items/0/fieldRef/fieldPath").and_then(Value::as_str);
        path.map(str::to_owned)
    };
    let field = sources.iter().find_map(field);
    assert_eq!(field.is_some(), set.to_string().contains("MIZUYA_ZONE_FILE"));
    let observed = world.observe(true);
    let status = report(&observed, &plan(&observed), &Outcome::default()).status;
    let known = status.conditions.into_iter().find(|condition| condition.type_ == "ZonesKnown").unwrap();
    (field, known.reason)
}

#[test]
fn each_pod_is_told_the_zone_of_its_machine_once() {
    let mut world = with_machines(Placement::default(), true);
    let name = |ordinal: u32| format!("{}-{ordinal}", world::NAME);
    let expected: Vec<String> =
        (0..3).zip(["a", "b", "c"]).map(|(pod, zone)| format!("tell {} that it is in {zone}", name(pod))).collect();
    assert_eq!(told(&world), expected.iter().collect::<Vec<_>>());
    let field = "metadata.annotations['cache.mizuya.dev/zone']".to_owned();
    assert_eq!(zone_field(&world), (Some(field), "ZonesTold".to_owned()));
    // The node read it at its start: a label that changes later writes nothing.
    world.story.clear();
    world.zones.insert("machine-0".to_owned(), "d".to_owned());
    world.run(60);
    assert_eq!(told(&world), Vec::<&String>::new());
}

#[test]
fn machines_without_a_zone_are_told_apart_from_zones_that_nobody_told() {
    let mut world = with_machines(Placement::default(), true);
    for machine in 0..3 {
        world.zones.insert(format!("machine-{machine}"), "-".to_owned());
    }
    for ordinal in 0..3 {
        world.kubernetes.tell_zone(&format!("{}-{ordinal}", world::NAME), "-");
    }
    assert_eq!(zone_field(&world).1, "NodesWithoutZone");
}

#[test]
fn without_a_right_to_read_machines_zones_come_from_a_label_or_are_off() {
    let world = with_machines(Placement::default(), false);
    assert_eq!((told(&world).len(), zone_field(&world)), (0, (None, "NodesNotReadable".to_owned())));
    let label = Placement { zone_label: Some("example.com/zone".to_owned()), ..Placement::default() };
    for reads_nodes in [false, true] {
        let world = with_machines(label.clone(), reads_nodes);
        let field = Some("metadata.labels['example.com/zone']".to_owned());
        assert_eq!((told(&world).len(), zone_field(&world)), (0, (field, "ZonesTold".to_owned())));
    }
    let world = with_machines(Placement { zones: Zones::Off, ..Placement::default() }, true);
    assert_eq!((told(&world).len(), zone_field(&world)), (0, (None, "ZonesOff".to_owned())));
}
