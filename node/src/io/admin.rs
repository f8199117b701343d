//! The admin service: what the operator, the kubectl plugin and people ask of a node.

use std::{sync::Arc, time::Duration};

use mizuya_wire::{
    admin::{
        ApplySettingsRequest, ChangeReply, CordonRequest, DrainRequest, ForgetRequest, Intent as WireIntent,
        StatusReply, StatusRequest, TableReply, TableRequest, UncordonRequest, admin_server::Admin,
    },
    quorum::MemberQuorum,
};
use tokio::time::{self, Instant};
use tonic::{Request, Response, Status};

use super::{peer::server::admit, runtime::Runtime};
use crate::logic::cluster::{
    member::{Intent, MemberName, State},
    message::Change,
    table::{Live, Table},
};

/// How long a change may take to show in the table in force.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(3);
/// Between two looks at the table.
const LOOK_EVERY: Duration = Duration::from_millis(20);

/// The service.
pub struct AdminService {
    runtime: Arc<Runtime>,
}

impl AdminService {
    /// For one node.
    pub fn new(runtime: Arc<Runtime>) -> Self {
        Self { runtime }
    }

    fn table(&self) -> Result<Arc<Table>, Status> {
        self.runtime.node().routing().table.clone().ok_or_else(|| {
            let reason = self.runtime.ready().err().unwrap_or_default();
            Status::failed_precondition(format!("{} is no member of a cluster: {reason}", self.runtime.identity().name))
        })
    }

    /// The state of a member, which must be in the table.
    fn state_of(&self, member: &str) -> Result<State, Status> {
        let table = self.table()?;
        table.named(&MemberName::from(member)).map(|found| found.state).ok_or_else(|| {
            let members: Vec<&str> = table.members.iter().map(|member| member.name.as_str()).collect();
            Status::not_found(format!("'{member}' is no member; members are {}", members.join(", ")))
        })
    }

    /// Asks for a change and returns once the table in force shows it.
    async fn change(&self, change: Change) -> Result<Response<ChangeReply>, Status> {
        let node = self.runtime.node();
        let deadline = Instant::now() + CHANGE_TIMEOUT;
        if !node.shows(&change) {
            node.change(change.clone(), self.runtime.clock());
        }
        while !node.shows(&change) {
            if Instant::now() >= deadline {
                if self.begun(&change) {
                    break;
                }
                let status = self.runtime.status();
                let reason = if status.ready { "try again".to_owned() } else { status.not_ready_because };
                return Err(Status::deadline_exceeded(format!(
                    "the change is not in a table in force after {} s (coordinator {}, table {}): {reason}",
                    CHANGE_TIMEOUT.as_secs(),
                    if status.coordinator.is_empty() { "unknown" } else { &status.coordinator },
                    status.epoch,
                )));
            }
            time::sleep(LOOK_EVERY).await;
        }
        Ok(Response::new(ChangeReply { epoch: node.routing().epoch }))
    }

    /// Copies are being built for settings whose quorums need them; their generation comes into force with the quorums.
    fn begun(&self, change: &Change) -> bool {
        let present = self.table().map(|table| table.live);
        matches!((change, present), (Change::Settings(wanted), Ok(present))
            if (present.factor, present.member_quorum) == (wanted.factor, wanted.member_quorum)
                && present.generation < wanted.generation)
    }
}

#[tonic::async_trait]
impl Admin for AdminService {
    async fn status(&self, request: Request<StatusRequest>) -> Result<Response<StatusReply>, Status> {
        admit(&self.runtime, &request)?;
        Ok(Response::new(self.runtime.status()))
    }

    async fn table(&self, request: Request<TableRequest>) -> Result<Response<TableReply>, Status> {
        admit(&self.runtime, &request)?;
        Ok(Response::new(self.runtime.node().table()))
    }

    async fn cordon(&self, request: Request<CordonRequest>) -> Result<Response<ChangeReply>, Status> {
        admit(&self.runtime, &request)?;
        let member = request.into_inner().member;
        match self.state_of(&member)? {
            State::Active | State::Cordoned => self.set(&member, State::Cordoned).await,
            state => Err(unfit(&member, state, "only an active member can be cordoned")),
        }
    }

    async fn uncordon(&self, request: Request<UncordonRequest>) -> Result<Response<ChangeReply>, Status> {
        admit(&self.runtime, &request)?;
        let member = request.into_inner().member;
        match self.state_of(&member)? {
            State::Active | State::Cordoned | State::Leaving(_) => self.set(&member, State::Active).await,
            state => Err(unfit(&member, state, "only a member that runs can be turned back")),
        }
    }

    async fn drain(&self, request: Request<DrainRequest>) -> Result<Response<ChangeReply>, Status> {
        admit(&self.runtime, &request)?;
        let request = request.into_inner();
        let intent = match request.intent() {
            WireIntent::Restart => Intent::Restart,
            WireIntent::Depart => Intent::Depart,
            WireIntent::Unspecified => {
                return Err(Status::invalid_argument("intent: say RESTART (it comes back) or DEPART (it does not)"));
            }
        };
        match self.state_of(&request.member)? {
            State::Active | State::Cordoned | State::Leaving(_) => {
                self.set(&request.member, State::Leaving(intent)).await
            }
            state => Err(unfit(&request.member, state, "only a member that runs can be drained; forget it instead")),
        }
    }

    async fn forget(&self, request: Request<ForgetRequest>) -> Result<Response<ChangeReply>, Status> {
        admit(&self.runtime, &request)?;
        let member = request.into_inner().member;
        let name = MemberName::from(member.as_str());
        match self.table()?.named(&name).map(|found| found.state) {
            // Gone is what was asked for, so a call that is repeated succeeds.
            None | Some(State::Down | State::Away) => self.change(Change::Forget(name)).await,
            Some(state) => Err(unfit(&member, state, "it runs; drain it with intent DEPART first")),
        }
    }

    async fn apply_settings(&self, request: Request<ApplySettingsRequest>) -> Result<Response<ChangeReply>, Status> {
        admit(&self.runtime, &request)?;
        let settings = request.into_inner().settings.ok_or_else(|| Status::invalid_argument("settings: missing"))?;
        let live = Live {
            generation: settings.generation,
            factor: settings.factor,
            read_quorum: settings.read_quorum,
            write_quorum: settings.write_quorum,
            member_quorum: MemberQuorum::from_wire(settings.member_count_quorum),
        };
        check(&live)?;
        let present = self.table()?.live;
        if present.generation > live.generation || (present.generation == live.generation && present != live) {
            return Err(Status::failed_precondition(format!(
                "generation {} is not above {}, which the cluster has",
                live.generation, present.generation
            )));
        }
        self.change(Change::Settings(live)).await
    }
}

impl AdminService {
    async fn set(&self, member: &str, state: State) -> Result<Response<ChangeReply>, Status> {
        self.change(Change::SetState(MemberName::from(member), state)).await
    }
}

fn unfit(member: &str, state: State, rule: &str) -> Status {
    let state = match state {
        State::Joining => "joining",
        State::Active => "active",
        State::Cordoned => "cordoned",
        State::Leaving(_) => "leaving",
        State::Away => "away",
        State::Down => "down",
    };
    Status::failed_precondition(format!("'{member}' is {state}: {rule}"))
}

fn check(live: &Live) -> Result<(), Status> {
    if live.factor == 0 || live.factor > 16 {
        return Err(Status::invalid_argument(format!("factor: {} must be between 1 and 16", live.factor)));
    }
    for (name, quorum) in [("read_quorum", live.read_quorum), ("write_quorum", live.write_quorum)] {
        if quorum == 0 || quorum > live.factor {
            return Err(Status::invalid_argument(format!(
                "{name}: {quorum} must be between 1 and the factor ({})",
                live.factor
            )));
        }
    }
    Ok(())
}
