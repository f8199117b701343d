//! A node in a process of its own, to be killed.

use std::{
    fs,
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

use mizuya_wire::{
    admin::{StatusReply, StatusRequest},
    settings::{Environment, Settings},
};
use nix::{sys::signal::Signal, unistd::Pid};
use tokio::time::sleep;

use super::{LIMIT, Place};

/// A running process; it is killed when it is dropped.
pub struct Process {
    child: Child,
}

impl Process {
    pub fn start(settings: &Settings) -> Self {
        let environment = match settings.environment {
            Environment::Local => "local",
            Environment::Lan => "lan",
            Environment::Wan => "wan",
        };
        let flags = [
            ("--name", settings.name.clone().unwrap()),
            ("--bind-addr", settings.bind_addr.to_string()),
            ("--http-addr", settings.http_addr.to_string()),
            ("--environment", environment.to_owned()),
            ("--replica-count", settings.replica_count.to_string()),
            ("--partitions", settings.partitions.to_string()),
            ("--hot-key-mirror", format!("{}ms", settings.hot_key_mirror.as_millis())),
            ("--max-memory", settings.max_memory.unwrap().to_string()),
            ("--threads", "2".to_owned()),
            ("--security-dir", settings.security.dir.clone().unwrap()),
            ("--log", std::env::var("MIZUYA_TEST_LOG").unwrap_or_else(|_| "error".to_owned())),
        ];
        let peers = settings.peers.iter().flat_map(|peer| ["--peer".to_owned(), peer.clone()]);
        let child = Command::new(env!("CARGO_BIN_EXE_mizuya-node"))
            .args(flags.into_iter().flat_map(|(flag, value)| [flag.to_owned(), value]).chain(peers))
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { child }
    }

    pub fn signal(&self, signal: Signal) {
        nix::sys::signal::kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Time that its threads were on a core.
    pub fn cpu(&self) -> Duration {
        let threads = fs::read_dir(format!("/proc/{}/task", self.child.id())).unwrap().flatten();
        let of = |thread: fs::DirEntry| {
            let figures = fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default();
            figures.split(' ').next().and_then(|text| text.parse::<u64>().ok()).unwrap_or(0)
        };
        Duration::from_nanos(threads.map(of).sum())
    }

    /// SIGKILL.
    pub fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Place {
    /// Waits until a member that answers the admin service says what is wanted.
    pub async fn until(&self, member: u8, what: &str, wanted: impl Fn(&StatusReply) -> bool) -> StatusReply {
        let began = Instant::now();
        loop {
            let status = match self.try_admin(member).await {
                Ok(mut admin) => admin.status(StatusRequest {}).await.map(tonic::Response::into_inner).ok(),
                Err(_) => None,
            };
            match status {
                Some(status) if wanted(&status) => return status,
                status => assert!(began.elapsed() < LIMIT, "not {what}: {status:#?}"),
            }
            sleep(Duration::from_millis(20)).await;
        }
    }
}
