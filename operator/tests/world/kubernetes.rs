//! Kubernetes, as far as the operator sees it: a StatefulSet controller, kubelets, a disruption controller and the
//! Eviction API, each a tick behind.

use std::collections::BTreeMap;

use k8s_openapi::{
    api::{apps::v1::StatefulSet, policy::v1::PodDisruptionBudget},
    jiff::Timestamp,
};
use mizuya_operator::logic::{children::Child, observed::PodFacts};
use serde_json::{Value, json};

use super::{NAME, START, nodes::Nodes};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    Starting,
    CannotStart,
    Running,
    Terminating,
}

#[derive(Clone, Debug)]
pub struct Pod {
    pub uid: String,
    pub revision: String,
    pub image: String,
    pub phase: Phase,
    pub ticks: u32,
    pub since: i64,
    pub was_ready: bool,
    pub zone: Option<String>,
}

impl Pod {
    /// Any change of what a pod shows changes its version.
    pub fn version(&self) -> u64 {
        self.since as u64 * 10 + self.phase as u64 * 2 + u64::from(self.was_ready)
    }
}

#[derive(Clone, Debug, Default)]
pub struct Kubernetes {
    pub live: BTreeMap<Child, Value>,
    pub pods: BTreeMap<u32, Pod>,
    pub evicted_by_people: BTreeMap<u32, String>,
    next: u64,
    /// `kubectl rollout restart` wrote this.
    restarted_at: Option<String>,
}

impl Kubernetes {
    pub fn ordinal(pod: &str) -> u32 {
        pod.strip_prefix(NAME).and_then(|rest| rest.strip_prefix('-')).unwrap().parse().unwrap()
    }

    fn fresh(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    pub fn create_secret(&mut self, child: Child) {
        let owner = json!([{ "controller": true, "uid": "cluster-uid", "kind": "CacheCluster", "name": NAME, "apiVersion": "x" }]);
        self.live.insert(child, json!({ "metadata": { "ownerReferences": owner } }));
    }

    /// Server-side apply. False: the resource version is not the one observed.
    pub fn apply(&mut self, child: Child, manifest: &Value) -> bool {
        let old = self.live.get(&child).cloned();
        let given = manifest.pointer("/metadata/resourceVersion");
        let live_version = old.as_ref().and_then(|old| old.pointer("/metadata/resourceVersion"));
        if given.is_some() && given != live_version {
            return false;
        }
        let mut new = manifest.clone();
        let spec_changed = old.as_ref().is_none_or(|old| old["spec"] != new["spec"]);
        let generation =
            old.as_ref().map_or(0, |old| old["metadata"]["generation"].as_i64().unwrap()) + i64::from(spec_changed);
        new["metadata"]["generation"] = json!(generation);
        new["metadata"]["uid"] = json!(format!("{child:?}"));
        new["metadata"]["resourceVersion"] = json!(self.fresh().to_string());
        if child == Child::StatefulSet
            && let Some(at) = &self.restarted_at
        {
            new["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!(at);
        }
        if let Some(status) = old.and_then(|old| old.get("status").cloned()) {
            new["status"] = status;
        }
        self.live.insert(child, new);
        true
    }

    /// `kubectl rollout restart`.
    pub fn restart(&mut self) {
        let at = format!("t{}", self.fresh());
        self.restarted_at = Some(at.clone());
        let version = self.fresh();
        if let Some(set) = self.live.get_mut(&Child::StatefulSet) {
            set["spec"]["template"]["metadata"]["annotations"]["kubectl.kubernetes.io/restartedAt"] = json!(at);
            set["metadata"]["generation"] = json!(set["metadata"]["generation"].as_i64().unwrap() + 1);
            set["metadata"]["resourceVersion"] = json!(version.to_string());
        }
    }

    pub fn stateful_set(&self) -> Option<StatefulSet> {
        self.live.get(&Child::StatefulSet).map(|set| serde_json::from_value(set.clone()).unwrap())
    }

    pub fn budget(&self) -> Option<PodDisruptionBudget> {
        self.live.get(&Child::DisruptionBudget).map(|budget| serde_json::from_value(budget.clone()).unwrap())
    }

    pub fn replicas(&self) -> u32 {
        self.live.get(&Child::StatefulSet).map_or(0, |set| set["spec"]["replicas"].as_u64().unwrap() as u32)
    }

    fn template(&self) -> Option<(String, String)> {
        let template = &self.live.get(&Child::StatefulSet)?["spec"]["template"];
        let image = template["spec"]["containers"][0]["image"].as_str().unwrap().to_owned();
        Some((mizuya_operator::logic::drift::hash(template), image))
    }

    pub fn is_ready(&self, ordinal: u32, nodes: &Nodes) -> bool {
        self.pods.get(&ordinal).is_some_and(|pod| pod.phase == Phase::Running) && nodes.is_serving(ordinal)
    }

    pub fn pod_facts(&self, nodes: &Nodes) -> BTreeMap<u32, PodFacts> {
        let facts = self.pods.iter().map(|(ordinal, pod)| {
            let running = matches!(pod.phase, Phase::Running | Phase::Terminating);
            let facts = PodFacts {
                name: format!("{NAME}-{ordinal}"),
                uid: pod.uid.clone(),
                resource_version: pod.version().to_string(),
                address: running.then(|| format!("10.0.0.{ordinal}")),
                ready: self.is_ready(*ordinal, nodes),
                since: Timestamp::from_second(pod.since).ok(),
                terminating: pod.phase == Phase::Terminating,
                stopping_since: None,
                running,
                ever_ran: running,
                handed_over: false,
                revision: pod.revision.clone(),
                waiting: (pod.phase == Phase::CannotStart)
                    .then(|| ("ImagePullBackOff".to_owned(), "no such image".to_owned())),
                node: Some(format!("machine-{ordinal}")),
                zone: pod.zone.clone(),
            };
            (*ordinal, facts)
        });
        facts.collect()
    }

    pub fn tell_zone(&mut self, pod: &str, zone: &str) -> String {
        if let Some(pod) = self.pods.get_mut(&Self::ordinal(pod)) {
            pod.zone = Some(zone.to_owned());
        }
        format!("tell {pod} that it is in {zone}")
    }

    pub fn terminate(&mut self, ordinal: u32) {
        let now = self.now();
        if let Some(pod) = self.pods.get_mut(&ordinal)
            && pod.phase != Phase::Terminating
        {
            (pod.phase, pod.ticks, pod.since) = (Phase::Terminating, 0, now);
        }
    }

    fn now(&self) -> i64 {
        self.pods.values().map(|pod| pod.since).max().unwrap_or(START)
    }

    /// `kubectl drain` tries to evict a pod. It may only when the budget's status is current and allows it.
    pub fn people_evict(&mut self, ordinal: u32, nodes: &Nodes) -> bool {
        let Some(pod) = self.pods.get(&ordinal).filter(|pod| pod.phase == Phase::Running) else { return false };
        let uid = pod.uid.clone();
        if let Some(budget) = self.live.get_mut(&Child::DisruptionBudget) {
            let current = budget["status"]["observedGeneration"] == budget["metadata"]["generation"];
            let allowed = budget["status"]["disruptionsAllowed"].as_i64().unwrap_or(0);
            if !current || allowed <= 0 {
                return false;
            }
            budget["status"]["disruptionsAllowed"] = json!(allowed - 1);
            budget["status"]["disruptedPods"][format!("{NAME}-{ordinal}")] = json!("2026-01-01T00:00:00Z");
            self.assert_nobody_else_is_down(ordinal, nodes);
        }
        self.evicted_by_people.insert(ordinal, uid);
        self.terminate(ordinal);
        true
    }

    /// At most one pod is taken away at a time by those who ask; a pod that cannot start was never there.
    pub fn assert_nobody_else_is_down(&self, ordinal: u32, nodes: &Nodes) {
        for (other, pod) in &self.pods {
            let gone = pod.phase == Phase::Terminating || (pod.was_ready && !self.is_ready(*other, nodes));
            let wanted = *other < self.replicas();
            assert!(
                *other == ordinal || !gone || !wanted || nodes.crashed.contains(other),
                "{ordinal} is taken while {other} is away"
            );
        }
    }

    pub fn tick(&mut self, now: i64, nodes: &mut Nodes) {
        self.stateful_set_controller(now);
        self.kubelets(now, nodes);
        self.disruption_controller(nodes);
    }

    fn stateful_set_controller(&mut self, now: i64) {
        let Some((revision, image)) = self.template() else { return };
        let replicas = self.replicas();
        for ordinal in 0..replicas {
            if !self.pods.contains_key(&ordinal) {
                let pod = Pod {
                    uid: format!("pod-{}", self.fresh()),
                    revision: revision.clone(),
                    image: image.clone(),
                    phase: Phase::Starting,
                    ticks: 0,
                    since: now,
                    was_ready: false,
                    zone: None,
                };
                self.pods.insert(ordinal, pod);
            }
        }
        let surplus: Vec<u32> = self.pods.keys().copied().filter(|ordinal| *ordinal >= replicas).collect();
        for ordinal in surplus {
            self.terminate(ordinal);
        }
        if let Some(set) = self.live.get_mut(&Child::StatefulSet) {
            let generation = set["metadata"]["generation"].clone();
            let status = json!({ "replicas": replicas, "observedGeneration": generation, "updateRevision": revision });
            if set.get("status") != Some(&status) {
                set["status"] = status;
                self.next += 1;
                set["metadata"]["resourceVersion"] = json!(self.next.to_string());
            }
        }
    }

    fn kubelets(&mut self, now: i64, nodes: &mut Nodes) {
        let ordinals: Vec<u32> = self.pods.keys().copied().collect();
        for ordinal in ordinals {
            let ready = self.is_ready(ordinal, nodes);
            let Some(pod) = self.pods.get_mut(&ordinal) else { continue };
            pod.ticks += 1;
            if ready != pod.was_ready && pod.phase == Phase::Running {
                (pod.was_ready, pod.since) = (ready, now);
            }
            match pod.phase {
                Phase::Starting if pod.ticks >= 2 && pod.image.starts_with("bad") => {
                    (pod.phase, pod.since) = (Phase::CannotStart, now);
                }
                Phase::Starting if pod.ticks >= 2 => {
                    (pod.phase, pod.since) = (Phase::Running, now);
                    nodes.start(ordinal);
                }
                Phase::Terminating => {
                    nodes.stop(ordinal);
                    if pod.ticks >= 3 {
                        nodes.gone(ordinal);
                        self.pods.remove(&ordinal);
                    }
                }
                _ => {}
            }
        }
    }

    fn disruption_controller(&mut self, nodes: &Nodes) {
        let ready = self.pods.iter().filter(|(ordinal, _)| self.is_ready(**ordinal, nodes)).count() as i64;
        let expected = i64::from(self.replicas());
        let still_there: Vec<String> = self
            .pods
            .iter()
            .filter(|(ordinal, pod)| {
                self.evicted_by_people.get(ordinal) == Some(&pod.uid) && pod.phase != Phase::Terminating
            })
            .map(|(ordinal, _)| format!("{NAME}-{ordinal}"))
            .collect();
        if let Some(budget) = self.live.get_mut(&Child::DisruptionBudget) {
            let most_away = budget["spec"]["maxUnavailable"].as_i64().unwrap();
            let disrupted: Value =
                still_there.iter().map(|name| (name.clone(), json!("2026-01-01T00:00:00Z"))).collect();
            budget["status"] = json!({
                "observedGeneration": budget["metadata"]["generation"],
                "currentHealthy": ready,
                "desiredHealthy": expected - most_away,
                "expectedPods": expected,
                "disruptionsAllowed": (ready - (expected - most_away)).max(0),
                "disruptedPods": disrupted,
            });
        }
    }
}
