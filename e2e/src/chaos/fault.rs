//! What is done to a cache.

use crate::kubernetes::{node, partition, state::State};
use crate::testbed::{Cache, kill};
use anyhow::{Context, Result, bail};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use rand::RngExt;
use rand::rngs::StdRng;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL to the node's process.
    Crash,
    /// SIGSTOP, and SIGCONT a while later: shorter or longer than the suspicion time.
    Pause,
    /// No packet between one pod and all others, both ways.
    Isolation,
    /// No packet between two pods; a third reaches both.
    BrokenPair,
    /// The pod is deleted without grace.
    ForcedDelete,
    /// The Kubernetes node is lost as by a power failure, and comes back.
    NodeLoss,
    /// `kubectl rollout restart`.
    Roll,
    /// One node more or less.
    Scaling,
    /// A scaling and a roll that begin together.
    ScalingAndRoll,
    /// A crash in the middle of a scaling.
    ScalingAndCrash,
}

impl Fault {
    /// All of them; the first round of an attack takes them in this order.
    pub const ALL: [Self; 10] = [
        Self::Crash,
        Self::Isolation,
        Self::Scaling,
        Self::Pause,
        Self::Roll,
        Self::BrokenPair,
        Self::ScalingAndCrash,
        Self::NodeLoss,
        Self::ForcedDelete,
        Self::ScalingAndRoll,
    ];

    /// In words.
    pub fn name(self) -> &'static str {
        match self {
            Self::Crash => "SIGKILL",
            Self::Pause => "SIGSTOP",
            Self::Isolation => "a pod cut off",
            Self::BrokenPair => "two pods cut off from each other",
            Self::ForcedDelete => "forced delete",
            Self::NodeLoss => "a Kubernetes node lost",
            Self::Roll => "rolling restart",
            Self::Scaling => "scaling",
            Self::ScalingAndRoll => "scaling and rolling restart",
            Self::ScalingAndCrash => "scaling and SIGKILL",
        }
    }
}

/// The cache under attack, and chance.
pub struct Scene<'a> {
    cache: &'a Cache,
    kinds: Vec<Fault>,
    random: StdRng,
    /// Nodes that are wanted now.
    pub replicas: u32,
}

impl<'a> Scene<'a> {
    /// Of a cache of three nodes, to which these are done.
    pub fn new(cache: &'a Cache, kinds: Vec<Fault>, random: StdRng) -> Self {
        Self { cache, kinds, random, replicas: 3 }
    }

    /// The fault of this turn: each kind once, then any.
    pub fn choose(&mut self, turn: usize) -> Fault {
        self.kinds.get(turn).copied().unwrap_or_else(|| self.kinds[self.random.random_range(0..self.kinds.len())])
    }

    /// Does it, and tells what exactly.
    pub async fn inflict(&mut self, fault: Fault) -> Result<String> {
        let victim = self.cache.pod(self.random.random_range(0..self.replicas));
        Ok(match fault {
            Fault::Crash => {
                self.crash(&victim).await?;
                format!("SIGKILL to {victim}")
            }
            Fault::Pause => {
                let millis = self.random.random_range(100..4_000);
                kill::paused(self.cache, &victim, Duration::from_millis(millis)).await?;
                format!("{victim} stood still for {millis} ms")
            }
            Fault::Isolation => {
                let seconds = self.random.random_range(1..15);
                let others = self.pods_but(&victim);
                self.cut(&victim, &others, seconds).await?;
                format!("{victim} was cut off for {seconds} s")
            }
            Fault::BrokenPair => {
                let seconds = self.random.random_range(1..15);
                let other = self.pods_but(&victim).remove(0);
                self.cut(&victim, std::slice::from_ref(&other), seconds).await?;
                format!("{victim} and {other} were apart for {seconds} s")
            }
            Fault::ForcedDelete => {
                let before = self.cache.pod_uid(&victim).await?;
                self.kubectl(&["delete", "pod", &victim, "--grace-period=0", "--force"]).await?;
                self.cache.replaced(&victim, &before, super::WHOLE_LIMIT).await?;
                format!("{victim} was deleted by force")
            }
            Fault::NodeLoss => self.lose_a_node(&victim).await?,
            Fault::Roll => {
                self.roll().await?;
                "rolling restart".to_owned()
            }
            Fault::Scaling => self.scale().await?,
            Fault::ScalingAndRoll => {
                let scaling = self.scale().await?;
                self.roll().await?;
                format!("{scaling}, with a rolling restart")
            }
            Fault::ScalingAndCrash => {
                let scaling = self.scale().await?;
                tokio::time::sleep(Duration::from_millis(self.random.random_range(0..4_000))).await;
                let victim = self.cache.pod(self.random.random_range(0..3));
                self.crash(&victim).await?;
                format!("{scaling}, and SIGKILL to {victim} meanwhile")
            }
        })
    }

    fn pods_but(&self, victim: &str) -> Vec<String> {
        (0..self.replicas).map(|ordinal| self.cache.pod(ordinal)).filter(|pod| pod != victim).collect()
    }

    async fn crash(&self, pod: &str) -> Result<()> {
        let before = kill::restarts(self.cache, pod).await?;
        kill::pod(self.cache, pod).await?;
        kill::restarted_after(self.cache, pod, before, super::WHOLE_LIMIT).await
    }

    async fn cut(&self, victim: &str, others: &[String], seconds: u64) -> Result<()> {
        let one = self.address(victim).await?;
        for other in others {
            partition::split(one, self.address(other).await?)?;
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        partition::heal()
    }

    async fn address(&self, pod: &str) -> Result<Ipv4Addr> {
        match self.cache.pod_address(pod).await? {
            IpAddr::V4(address) => Ok(address),
            IpAddr::V6(address) => bail!("{pod} has the address {address}; the local cluster's are of version 4"),
        }
    }

    /// Loses the victim's Kubernetes node if no second pod of the cache is on it: copies are lost one at a time.
    async fn lose_a_node(&self, victim: &str) -> Result<String> {
        let pods: Api<Pod> = self.cache.api();
        let place = async |pod: String| -> Result<String> {
            pods.get(&pod).await?.spec.and_then(|spec| spec.node_name).with_context(|| format!("{pod} is nowhere"))
        };
        let lost = place(victim.to_owned()).await?;
        for other in self.pods_but(victim) {
            if place(other.clone()).await? == lost {
                self.crash(victim).await?;
                return Ok(format!("SIGKILL to {victim}, because {other} is on {lost} too"));
            }
        }
        let state = State::of_this_machine()?;
        node::kill(&state, node::named(&lost)?)?;
        tokio::time::sleep(Duration::from_secs(20)).await;
        node::start(&state, node::named(&lost)?)?;
        Ok(format!("{lost} with {victim} was lost for 20 s"))
    }

    async fn roll(&self) -> Result<()> {
        self.kubectl(&["rollout", "restart", &format!("statefulset/{}", self.cache.name)]).await?;
        // The operator is to hear of it before the cache is asked whether it is whole.
        self.cache.condition("Ready", "False", super::WHOLE_LIMIT).await.map(drop)
    }

    async fn scale(&mut self) -> Result<String> {
        let before = self.replicas;
        self.replicas = if before == 3 { 4 } else { 3 };
        self.cache.scale(self.replicas).await?;
        Ok(format!("scaling {before} → {}", self.replicas))
    }

    async fn kubectl(&self, arguments: &[&str]) -> Result<()> {
        self.cache.bed.kubectl(&[arguments, &["--namespace", &self.cache.namespace]].concat()).await.map(drop)
    }
}
