//! What the members of a cache say of each other, asked many times a second: to know how it stood just before something
//! else was seen.

use super::cache::Cache;
use super::nodes::{self, Caller, Node};
use mizuya_wire::admin::{MemberState, MemberSummary, StatusRequest};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::task::JoinHandle;

/// Time between two samples.
const BETWEEN: Duration = Duration::from_millis(25);

/// All members, as one of them told at one time.
#[derive(Clone, Debug)]
pub struct Sample {
    /// When the answer came.
    pub at: Instant,
    /// What it said.
    pub members: Vec<MemberSummary>,
}

/// Samples from its start until it is stopped.
#[derive(Debug)]
pub struct Samples {
    taken: Arc<Mutex<Vec<Sample>>>,
    task: JoinHandle<()>,
}

impl Samples {
    /// Begins to sample.
    pub fn of(cache: &Cache) -> Self {
        let taken = Arc::new(Mutex::new(Vec::new()));
        let (kept, cache) = (Arc::clone(&taken), cache.clone());
        let task = tokio::spawn(async move {
            let mut ticks = tokio::time::interval(BETWEEN);
            ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
            let mut asked: Vec<Node> = Vec::new();
            loop {
                ticks.tick().await;
                // Whoever does not answer is not asked again; pods come and go.
                let Some(node) = asked.last_mut() else {
                    asked = clients(&cache).await;
                    continue;
                };
                match node.status(StatusRequest {}).await {
                    Ok(reply) => {
                        let sample = Sample { at: Instant::now(), members: reply.into_inner().members };
                        kept.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
                    }
                    Err(_) => drop(asked.pop()),
                }
            }
        });
        Self { taken, task }
    }

    /// Ends the sampling.
    pub fn stop(self) -> Vec<Sample> {
        self.task.abort();
        self.taken.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl Drop for Samples {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn clients(cache: &Cache) -> Vec<Node> {
    let mut clients = Vec::new();
    for pod in cache.pod_names().await.unwrap_or_default() {
        clients.extend(nodes::connect(cache, &pod, Caller::Operator).await);
    }
    // The highest numbers go first in scale-downs, so the lowest is asked: it is the last.
    clients.reverse();
    clients
}

/// Whether the pod had handed over all that it had to before `then`, and still held nothing in the last sample before it.
pub fn handed_over(samples: &[Sample], pod: &str, then: Instant) -> bool {
    let before = samples.iter().take_while(|sample| sample.at <= then);
    let own = before.filter_map(|sample| sample.members.iter().find(|member| is_pod(member, pod)));
    own.last().is_some_and(|member| member.state() == MemberState::Leaving && member.drained)
}

/// Whether the pod held no partition at all in the last sample before `then`.
pub fn was_empty(samples: &[Sample], pod: &str, then: Instant) -> bool {
    let before = samples.iter().take_while(|sample| sample.at <= then);
    let own = before.filter_map(|sample| sample.members.iter().find(|member| is_pod(member, pod)));
    own.last().is_some_and(|member| member.primaries == 0 && member.backups == 0)
}

fn is_pod(member: &MemberSummary, pod: &str) -> bool {
    member.name.split('.').next() == Some(pod)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample(at: Instant, state: MemberState, drained: bool, primaries: u32) -> Sample {
        let name = "q-2.q-peers.default.svc".to_owned();
        let member = MemberSummary { name, state: state.into(), drained, primaries, ..MemberSummary::default() };
        Sample { at, members: vec![member] }
    }

    #[test]
    fn only_what_was_seen_before_counts() {
        let start = Instant::now();
        let at = |millis| start + Duration::from_millis(millis);
        let samples = [
            sample(at(0), MemberState::Active, false, 80),
            sample(at(10), MemberState::Leaving, false, 40),
            sample(at(20), MemberState::Leaving, true, 0),
        ];
        assert!(!handed_over(&samples, "q-2", at(15)));
        assert!(!was_empty(&samples, "q-2", at(15)));
        assert!(handed_over(&samples, "q-2", at(25)));
        assert!(was_empty(&samples, "q-2", at(25)));
        assert!(!handed_over(&samples, "q-1", at(25)));
    }
}
