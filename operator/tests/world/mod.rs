//! A small world for the planner: one CacheCluster, a Kubernetes that lags a step behind, nodes that hold copies of
//! partitions, and people who scale, restart and drain. It breaks no rule that the real ones keep, and checks ours.
//!
//! One `tick` is about a second. Randomness is a seed, so that a failing run can be repeated.

#![allow(dead_code, missing_docs, unreachable_pub, clippy::unwrap_used)] // each test file uses a part of it

pub mod kubernetes;
pub mod nodes;

use std::collections::BTreeMap;

use k8s_openapi::{
    apimachinery::pkg::apis::meta::v1::{FieldsV1, ManagedFieldsEntry},
    jiff::Timestamp,
};
use kubernetes::{Kubernetes, Phase};
use mizuya_operator::{
    crd::{CacheCluster, CacheClusterSpec},
    logic::{
        children::Child,
        observed::{Observed, OperatorFacts},
        plan::{Intent, Plan, Say, Step, plan},
        report::{Outcome, report},
    },
};
use nodes::Nodes;
use serde_json::{Value, json};

pub const NAME: &str = "quickstart";
pub const NAMESPACE: &str = "default";
pub const START: i64 = 1_800_000_000;

/// Seeded randomness, enough for choosing.
#[derive(Clone, Debug)]
pub struct Dice(u64);

impl Dice {
    pub fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn roll(&mut self, below: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % below.max(1)
    }
}

/// The world.
#[derive(Clone, Debug)]
pub struct World {
    pub cluster: CacheCluster,
    pub kubernetes: Kubernetes,
    pub nodes: Nodes,
    pub now: i64,
    pub operator: OperatorFacts,
    /// Every step that was carried out, in words.
    pub story: Vec<String>,
    /// Members that do not answer the operator, until this time.
    pub silent: BTreeMap<u32, i64>,
    pub writes: usize,
    /// Zones of the machines that the operator may read.
    pub zones: BTreeMap<String, String>,
}

impl World {
    pub fn new(spec: CacheClusterSpec) -> Self {
        let mut cluster = CacheCluster::new(NAME, spec);
        cluster.metadata.namespace = Some(NAMESPACE.into());
        cluster.metadata.uid = Some("cluster-uid".into());
        cluster.metadata.generation = Some(1);
        let mut world = Self {
            cluster,
            kubernetes: Kubernetes::default(),
            nodes: Nodes::default(),
            now: START,
            operator: OperatorFacts {
                version: "0.1.0".into(),
                node_image: "node:1".into(),
                namespace: "mizuya-system".into(),
                reads_nodes: false,
            },
            story: Vec::new(),
            silent: BTreeMap::new(),
            writes: 0,
            zones: BTreeMap::new(),
        };
        world.somebody_applies(&json!({ "f:spec": { "f:replicas": {} } }));
        world
    }

    /// A cluster of this size that has come to rest.
    pub fn settled(replicas: i32) -> Self {
        let mut world = Self::new(CacheClusterSpec { replicas, ..CacheClusterSpec::default() });
        world.run_until_rest(120);
        world.story.clear();
        world
    }

    /// Server-side apply by somebody who from then on owns these fields and no others.
    pub fn somebody_applies(&mut self, fields: &Value) {
        self.cluster.metadata.managed_fields = Some(vec![ManagedFieldsEntry {
            manager: Some("agent".into()),
            operation: Some("Apply".into()),
            fields_v1: Some(FieldsV1(fields.clone())),
            ..ManagedFieldsEntry::default()
        }]);
    }

    /// A user edits the spec.
    pub fn edit(&mut self, change: impl FnOnce(&mut CacheClusterSpec)) {
        change(&mut self.cluster.spec);
        self.cluster.metadata.generation = self.cluster.metadata.generation.map(|g| g + 1);
    }

    pub fn observe(&self, all: bool) -> Observed {
        let mut observed = Observed {
            cluster: self.cluster.clone(),
            live: self.kubernetes.live.clone(),
            stateful_set: self.kubernetes.stateful_set(),
            budget: self.kubernetes.budget(),
            pods: self.kubernetes.pod_facts(&self.nodes),
            zones: self.zones.clone(),
            views: BTreeMap::new(),
            asked_all: false,
            operator: self.operator.clone(),
            now: Timestamp::from_second(self.now).unwrap(),
            random: (self.now % 7) as u32,
        };
        let able = observed.can_be_asked();
        let whom = if all { able.clone() } else { observed.whom_to_ask() };
        observed.asked_all = whom == able;
        for ordinal in whom {
            let view = if self.silent.get(&ordinal).is_some_and(|until| *until > self.now) {
                Err("timed out".to_owned())
            } else {
                Ok(self.nodes.view(ordinal, &self.cluster, &self.kubernetes))
            };
            observed.views.insert(ordinal, view);
        }
        observed
    }

    /// What the operator would do now.
    pub fn decide(&self) -> (Observed, Plan) {
        let observed = self.observe(false);
        let decided = plan(&observed);
        if !decided.ask_all {
            return (observed, decided);
        }
        let observed = self.observe(true);
        let decided = plan(&observed);
        assert!(!decided.ask_all, "everybody was asked and the plan asks for more");
        (observed, decided)
    }

    /// One reconcile; `at_most` steps are carried out before the operator dies.
    pub fn reconcile(&mut self, at_most: usize) -> Plan {
        let (observed, decided) = self.decide();
        self.carry_out(&observed, &decided, at_most);
        decided
    }

    pub fn carry_out(&mut self, observed: &Observed, decided: &Plan, at_most: usize) {
        let mut done = Vec::new();
        for step in decided.steps.iter().take(at_most) {
            if !self.step(step) {
                return; // overtaken: the next reconcile observes anew
            }
            self.writes += 1;
            done.push(step.clone());
        }
        if at_most < decided.steps.len() {
            return;
        }
        let told = report(observed, decided, &Outcome { done, failure: None });
        if self.cluster.status.as_ref() != Some(&told.status) {
            self.writes += 1;
            self.cluster.status = Some(told.status);
        }
    }

    /// Carries out one step as the API server and the nodes would. False: refused as out of date.
    fn step(&mut self, step: &Step) -> bool {
        let words = match step {
            Step::CreateSecrets { missing } => {
                missing.iter().for_each(|child| self.kubernetes.create_secret(*child));
                format!("create {} Secrets", missing.len())
            }
            Step::Apply { child, manifest, .. } => {
                if !self.kubernetes.apply(*child, manifest) {
                    return false;
                }
                let budget = manifest.pointer("/spec/maxUnavailable").filter(|_| *child == Child::DisruptionBudget);
                match budget {
                    Some(budget) => format!("budget {budget}"),
                    None => format!("apply {child:?}"),
                }
            }
            Step::Delete { child, .. } => {
                self.kubernetes.live.remove(child);
                format!("delete {child:?}")
            }
            Step::Lower { to, manifest } => {
                assert!(self.nodes.is_empty(*to), "pod {to} is removed and holds {:?}", self.nodes.held_by(*to));
                if !self.kubernetes.apply(Child::StatefulSet, manifest) {
                    return false;
                }
                format!("lower to {to}")
            }
            Step::Cordon { member } => self.nodes.cordon(*member),
            Step::Uncordon { member } => self.nodes.uncordon(*member),
            Step::Drain { member, intent } => self.nodes.drain(*member, *intent),
            Step::Forget { member } => self.nodes.forget(*member, &self.kubernetes),
            Step::ApplySettings(live) => self.nodes.settings(*live),
            Step::Evict { pod, uid, resource_version } => {
                let ordinal = Kubernetes::ordinal(pod);
                let pods = &self.kubernetes.pods;
                if !pods.get(&ordinal).is_some_and(|p| p.uid == *uid && p.version().to_string() == *resource_version) {
                    return false;
                }
                let alone = self.kubernetes.pods.len() == 1;
                if pods[&ordinal].phase == Phase::Running && self.nodes.is_active_or_leaving(ordinal) && !alone {
                    assert_eq!(self.nodes.primaries(ordinal), 0, "{pod} is evicted and still has primaries");
                }
                if pods[&ordinal].phase == Phase::Running && !alone {
                    self.kubernetes.assert_nobody_else_is_down(ordinal, &self.nodes);
                }
                self.kubernetes.terminate(ordinal);
                format!("evict {ordinal}")
            }
            Step::PutBack { pod, .. } => format!("put {pod} back"),
            Step::TellZone { pod, zone, .. } => self.kubernetes.tell_zone(pod, zone),
        };
        self.story.push(words);
        true
    }

    /// The world moves on by a second.
    pub fn tick(&mut self) {
        self.now += 1;
        self.kubernetes.tick(self.now, &mut self.nodes);
        self.nodes.tick(&self.cluster, &self.kubernetes);
    }

    pub fn run(&mut self, ticks: usize) {
        for _ in 0..ticks {
            self.reconcile(usize::MAX);
            self.tick();
        }
    }

    /// Until the operator is at rest for ten seconds.
    pub fn run_until_rest(&mut self, most: usize) {
        let mut quiet = 0;
        for _ in 0..most {
            let before = self.writes;
            let decided = self.reconcile(usize::MAX);
            self.tick();
            quiet = if self.writes == before && decided.say == Say::Reached { quiet + 1 } else { 0 };
            if quiet >= 10 {
                return;
            }
        }
        let (_, decided) = self.decide();
        panic!(
            "no rest after {most} s: {:?} {:?}, {} nodes are wanted\n{}\n{:?}\n{:?}",
            decided.say,
            decided.steps,
            decided.replicas,
            self.story.join("\n"),
            self.nodes,
            self.kubernetes.pods
        );
    }

    /// What must hold of a cluster at rest.
    pub fn assert_whole(&self) {
        let wanted = self.observe(false).wanted_replicas();
        let (_, decided) = self.decide();
        assert_eq!(decided.steps, [], "the plan of a cluster at rest is empty");
        assert_eq!(self.kubernetes.replicas(), wanted);
        assert_eq!(self.kubernetes.pods.len() as u32, wanted);
        assert!(self.nodes.all_active(wanted), "{:#?}", self.nodes);
        let budget = self.observe(false).live_budget();
        assert_eq!(budget, (wanted > 1).then_some(1));
    }
}

/// How an intent reads in a story.
pub fn word(intent: Intent) -> &'static str {
    intent.as_str()
}
