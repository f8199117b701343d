//! Everything that is recorded while a cache is under load and its pods move.

use super::cache::{Cache, READY_LIMIT};
use super::moved::Moved;
use super::record::{self, Moment, Record};
use super::samples::{self, Sample, Samples};
use super::wait;
use crate::load::{Load, Report, Retries};
use anyhow::{Result, ensure};
use std::fmt;
use std::time::Instant;

/// Writes before something is done to the cache, and after it: each key is written about once in them.
const WRITES_AROUND: u64 = 12_000;
/// Writes a second below which a load tells nothing. More are offered; how many come of it depends on what else the
/// machine does, and the report says so.
const LEAST_RATE: u64 = 500;

/// A cache under load, with its watches.
#[derive(Debug)]
pub struct UnderLoad {
    load: Load,
    up: Record,
    deleted: Record,
    service: Record,
    members: Samples,
    moved: Moved,
}

/// What came of it.
#[derive(Debug)]
pub struct Outcome {
    /// How the load went.
    pub report: Report,
    /// Which pods were up.
    pub up: Vec<Moment>,
    /// Which pods were being deleted.
    pub deleted: Vec<Moment>,
    /// Which addresses the client Service gave out.
    pub service: Vec<Moment>,
    /// What the members said of each other.
    pub members: Vec<Sample>,
    /// Entries sent from node to node to build copies.
    pub moved: u64,
}

impl UnderLoad {
    /// Starts the load and the recordings, and waits until enough was written.
    pub async fn begin(cache: &Cache, retries: Retries) -> Result<Self> {
        Self::begin_with(cache, cache.load(retries).await?).await
    }

    /// As [`UnderLoad::begin`], with a load of one's own.
    pub async fn begin_with(cache: &Cache, options: crate::load::Options) -> Result<Self> {
        // The Service follows the pods with a delay.
        let pods = cache.pod_addresses().await?.len();
        let all = async || Ok((record::addresses(cache.api(), &cache.name).await?.len() >= pods).then_some(()));
        wait::by_asking("the Service to give out every pod", READY_LIMIT, all).await?;
        let selector = cache.selector();
        let up = Record::of_pods(cache.api(), &selector);
        let deleted = Record::of_deletions(cache.api(), &selector);
        let service = Record::of_service(cache.api(), &cache.name);
        let members = Samples::of(cache);
        let moved = Moved::of(cache).await;
        let mut load = Load::start(options).await?;
        load.go_on_for(WRITES_AROUND).await?;
        Ok(Self { load, up, deleted, service, members, moved })
    }

    /// Goes on for a while, verifies every key through every pod, and ends the recordings.
    pub async fn end(mut self, cache: &Cache) -> Result<Outcome> {
        self.load.go_on_for(WRITES_AROUND).await?;
        let report = self.load.finish(&cache.pod_addresses().await?).await?;
        cache.nothing_was_evicted().await?;
        Ok(Outcome {
            report,
            up: self.up.stop()?,
            deleted: self.deleted.stop()?,
            service: self.service.stop()?,
            members: self.members.stop(),
            moved: self.moved.stop(),
        })
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, to: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(to, "{}; {} entries moved", self.report, self.moved)
    }
}

impl Outcome {
    /// Nothing is lost, wrong, stale or back.
    pub fn require_sound(&self) -> Result<()> {
        ensure!(self.report.is_sound(), "{}\n{}", self.report, self.report.examples.join("\n"));
        Ok(())
    }

    /// As [`Outcome::require_sound`], and clients that never retry have felt nothing.
    pub fn require_unfelt(&self) -> Result<()> {
        self.require_sound()?;
        ensure!(self.report.errors == 0, "{}\n{}", self.report, self.report.examples.join("\n"));
        ensure!(self.report.rate() >= LEAST_RATE, "the load was too slow to tell: {}", self.report);
        Ok(())
    }

    /// Of `pods`, at most one was down at any time.
    pub fn require_one_down_at_most(&self, pods: usize) -> Result<()> {
        let fewest = record::fewest_ready(&self.up);
        ensure!(fewest + 1 >= pods, "only {fewest} of {pods} pods were up at one time");
        Ok(())
    }

    /// The client Service never gave out fewer addresses than this.
    pub fn require_addresses(&self, least: usize) -> Result<()> {
        let fewest = record::fewest_ready(&self.service);
        ensure!(fewest >= least, "the Service gave out only {fewest} addresses at one time");
        Ok(())
    }

    /// Each pod had handed over before it was deleted.
    pub fn require_handover(&self, pods: &[String]) -> Result<()> {
        self.require_before_deletion(pods, "had not handed over", samples::handed_over)
    }

    /// Each pod held nothing when it was deleted.
    pub fn require_empty(&self, pods: &[String]) -> Result<()> {
        self.require_before_deletion(pods, "still held partitions", samples::was_empty)
    }

    fn require_before_deletion(
        &self,
        pods: &[String],
        otherwise: &str,
        met: impl Fn(&[Sample], &str, Instant) -> bool,
    ) -> Result<()> {
        let deleted = record::first_seen(&self.deleted);
        for pod in pods {
            let Some(at) = deleted.get(pod) else { anyhow::bail!("{pod} was never seen being deleted") };
            ensure!(met(&self.members, pod, *at), "{pod} {otherwise} when it was deleted");
        }
        Ok(())
    }
}
