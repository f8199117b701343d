//! The Lease: one operator of several acts. Whoever loses it ends at once (rule O7).

use std::time::{Duration, Instant};

use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta},
    jiff::Timestamp,
};
use kube::{Api, api::PostParams};
use tokio::time::{sleep, timeout};
use tracing::{info, warn};

use crate::logic::lease::{DURATION, Decision, GIVE_UP_AFTER, LOOK_EVERY, RENEW_EVERY, Record, decide};

/// Longest time for one call, so that a hanging API server is noticed in time.
const CALL: Duration = Duration::from_secs(3);

/// One contender for the Lease.
pub struct Election {
    api: Api<Lease>,
    name: String,
    me: String,
    seen: Option<(Record, Instant)>,
}

impl Election {
    /// For the Lease `name`, as `me`.
    pub fn new(api: Api<Lease>, name: &str, me: String) -> Self {
        Self { api, name: name.to_owned(), me, seen: None }
    }

    /// Resolves when the Lease is ours.
    pub async fn win(&mut self) {
        info!(lease = %self.name, me = %self.me, "waiting for the lease");
        loop {
            match self.turn().await {
                Ok(true) => return,
                Ok(false) => {}
                Err(error) => warn!(%error, "cannot look at the lease"),
            }
            sleep(LOOK_EVERY).await;
        }
    }

    /// Renews until that has failed for too long or another took over.
    pub async fn hold(&mut self) {
        let mut last = Instant::now();
        loop {
            sleep(RENEW_EVERY.min(LOOK_EVERY.max(GIVE_UP_AFTER.saturating_sub(last.elapsed())))).await;
            match self.turn().await {
                Ok(true) => last = Instant::now(),
                Ok(false) => {
                    warn!("another process took the lease");
                    return;
                }
                Err(error) => warn!(%error, "cannot renew the lease"),
            }
            if last.elapsed() > GIVE_UP_AFTER {
                return;
            }
        }
    }

    /// Gives the Lease back, so that the next one need not wait.
    pub async fn give_back(&self) {
        let Ok(Ok(Some(mut lease))) = timeout(CALL, self.api.get_opt(&self.name)).await else { return };
        let Some(spec) = lease.spec.as_mut() else { return };
        if spec.holder_identity.as_deref() != Some(self.me.as_str()) {
            return;
        }
        spec.holder_identity = Some(String::new());
        let _ = timeout(CALL, self.api.replace(&self.name, &PostParams::default(), &lease)).await;
    }

    /// One look, and a write if it is called for. True: the Lease is ours.
    async fn turn(&mut self) -> Result<bool, String> {
        let look = timeout(CALL, self.api.get_opt(&self.name)).await;
        let lease = look.map_err(|_| "timed out".to_owned())?.map_err(|e| e.to_string())?;
        let record = lease.as_ref().map(record);
        let unchanged = self.unchanged_for(record.clone());
        let decision = decide(&self.me, record.as_ref(), unchanged);
        if decision == Decision::Wait {
            return Ok(false);
        }
        let next = self.next(lease.clone(), decision);
        let params = PostParams::default();
        let written = match lease {
            None => timeout(CALL, self.api.create(&params, &next)).await,
            Some(_) => timeout(CALL, self.api.replace(&self.name, &params, &next)).await,
        };
        match written.map_err(|_| "timed out".to_owned())? {
            Ok(_) => Ok(true),
            // Another was faster. The next look tells who.
            Err(kube::Error::Api(status)) if status.code == 409 && decision == Decision::Acquire => Ok(false),
            Err(error) => Err(error.to_string()),
        }
    }

    fn unchanged_for(&mut self, record: Option<Record>) -> Duration {
        let Some(record) = record else { return Duration::ZERO };
        match &self.seen {
            Some((seen, since)) if *seen == record => since.elapsed(),
            _ => {
                self.seen = Some((record, Instant::now()));
                Duration::ZERO
            }
        }
    }

    fn next(&self, lease: Option<Lease>, decision: Decision) -> Lease {
        let mut lease = lease.unwrap_or_else(|| Lease {
            metadata: ObjectMeta { name: Some(self.name.clone()), ..ObjectMeta::default() },
            spec: None,
        });
        let now = MicroTime(Timestamp::now());
        let spec = lease.spec.get_or_insert_with(LeaseSpec::default);
        if decision == Decision::Acquire {
            spec.acquire_time = Some(now.clone());
            spec.lease_transitions = Some(spec.lease_transitions.unwrap_or_default() + 1);
        }
        spec.holder_identity = Some(self.me.clone());
        spec.lease_duration_seconds = Some(DURATION.as_secs() as i32);
        spec.renew_time = Some(now);
        lease
    }
}

fn record(lease: &Lease) -> Record {
    let spec = lease.spec.clone().unwrap_or_default();
    Record {
        holder: spec.holder_identity.unwrap_or_default(),
        renewed: spec.renew_time.map(|time| time.0.to_string()).unwrap_or_default(),
    }
}
