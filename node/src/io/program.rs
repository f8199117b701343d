//! What the program does with its arguments.

use std::{num::NonZeroUsize, path::Path, process::ExitCode};

use mizuya_wire::settings::Settings;

use super::{
    arguments::{self, Arguments, Command, Effective, Run},
    log, memory, own_address,
    runtime::{Running, Runtime},
    security,
    shutdown::{self, End, Signals},
    start::{Listeners, Start},
    zone,
};

/// Ends with this code when the process must start anew.
const RESTART: u8 = 75;

/// Does what was asked for.
pub fn run(arguments: Arguments) -> anyhow::Result<ExitCode> {
    match arguments.command {
        Some(Command::InitSecrets { dir, names }) => init_secrets(&dir, &names),
        Some(Command::CheckConfig { file }) => {
            let Effective { settings, warnings } = arguments::read(&file)?;
            for warning in &warnings {
                println!("warning: {warning}");
            }
            let quorums = settings.quorums();
            println!(
                "{} is valid: mode {:?}, {} members, {} copies, member quorum {}",
                file.display(),
                settings.mode,
                quorums.members,
                quorums.factor,
                quorums.member_count.resolve(quorums.members)
            );
            Ok(ExitCode::SUCCESS)
        }
        None => node(&arguments.run),
    }
}

fn init_secrets(dir: &Path, names: &[String]) -> anyhow::Result<ExitCode> {
    for file in security::init(dir, names)? {
        println!("{}", file.display());
    }
    println!("Give every member the same folder (without ca.key) as security.dir or --security-dir.");
    Ok(ExitCode::SUCCESS)
}

fn node(run: &Run) -> anyhow::Result<ExitCode> {
    let Effective { settings, warnings } = run.settings()?;
    log::start(&settings.log, run.log_format);
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    memory::look_through_rarely();
    // All but connections, which have threads of their own where there are several cores or `--threads` says so.
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let end = runtime.block_on(async {
        let mut signals = Signals::listen()?;
        let running = tokio::select! {
            running = start(settings, run) => running?,
            () = signals.next() => return anyhow::Ok(End::Left),
        };
        Ok(shutdown::until_signal(running, &mut signals).await)
    })?;
    runtime.shutdown_background();
    Ok(match end {
        End::Left => ExitCode::SUCCESS,
        End::Hurried => ExitCode::FAILURE,
        End::MustRestart(_) => ExitCode::from(RESTART),
    })
}

async fn start(mut settings: Settings, run: &Run) -> anyhow::Result<Running> {
    for peer in own_address::drop_own(&mut settings).await {
        tracing::info!(peer, "this peer is the member itself");
    }
    let zone = match &run.zone_file {
        Some(file) if run.zone.is_empty() => zone::read(file, zone::TIMEOUT).await,
        _ => run.zone.clone(),
    };
    let listeners = Listeners::bind(&settings).await?;
    let threads = run.threads.map(NonZeroUsize::get);
    let running = Runtime::start(Start { settings, zone, owns_process: true, threads }, listeners)?;
    let identity = running.runtime().identity();
    tracing::info!(
        name = %identity.name,
        mode = running.runtime().mode(),
        clients = identity.client_port,
        peers = identity.peer_port,
        threads = running.runtime().threads().count(),
        version = env!("CARGO_PKG_VERSION"),
        "started"
    );
    Ok(running)
}
