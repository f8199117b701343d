//! Clients that people have already, against the Service.

use anyhow::{Context, Result, ensure};
use mizuya_e2e::kubernetes::state;
use mizuya_e2e::testbed::bed::{self, run};
use mizuya_e2e::testbed::cache::READY_LIMIT;
use mizuya_e2e::testbed::scenario;
use serde_json::json;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;
use tokio::process::Command;

/// The version that the test was written with.
const REDIS_PY: &str = "redis==6.4.0";

#[test]
fn clients_redis_cli_redis_benchmark_and_redis_py_work() {
    scenario("clients", Duration::from_secs(400), async |scenario| {
        let cache = scenario.cache("served");
        cache.apply(&json!({})).await?;
        cache.ready(READY_LIMIT).await?;
        let service = cache.service_address().await?;
        redis_cli(service).await?;
        redis_benchmark(service).await?;
        redis_py(service).await
    });
}

async fn redis_cli(service: SocketAddr) -> Result<()> {
    let ask = async |words: &[&str]| client("redis-cli", service, words).await;
    for protocol in ["-2", "-3"] {
        ensure!(ask(&[protocol, "PING"]).await?.trim() == "PONG", "PING");
        ensure!(ask(&[protocol, "SET", "greeting", "hello", "EX", "100"]).await?.trim() == "OK", "SET");
        ensure!(ask(&[protocol, "GET", "greeting"]).await?.trim() == "hello", "GET");
        ensure!(ask(&[protocol, "MSET", "a", "1", "b", "2"]).await?.trim() == "OK", "MSET");
        ensure!(ask(&[protocol, "MGET", "a", "b", "none"]).await? == "1\n2\n\n", "MGET");
        ensure!(ask(&[protocol, "DEL", "a", "b", "greeting"]).await?.trim() == "3", "DEL");
    }
    ask(&["SET", "scanned", "1"]).await?;
    ensure!(ask(&["--scan"]).await?.lines().any(|key| key == "scanned"), "--scan");
    ensure!(ask(&["INFO", "server"]).await?.contains("redis_version"), "INFO");
    Ok(())
}

async fn redis_benchmark(service: SocketAddr) -> Result<()> {
    let words = ["-t", "ping,set,get,incr,mset", "-n", "20000", "-c", "20", "-P", "8", "-r", "10000", "-q"];
    let printed = client("redis-benchmark", service, &words).await?;
    let results: Vec<&str> = printed.split(['\r', '\n']).filter(|line| line.contains("requests per second")).collect();
    println!("{}", results.join("\n"));
    ensure!(results.len() >= 6, "{printed}");
    ensure!(!printed.contains("Error"), "{printed}");
    Ok(())
}

async fn client(program: &str, service: SocketAddr, words: &[&str]) -> Result<String> {
    let mut command = Command::new(program);
    command.args(["-h", &service.ip().to_string(), "-p", &service.port().to_string()]).args(words);
    let output = run(command, "").await.context("`apt-get install redis-tools` has it")?;
    ensure!(output.success && !output.err.contains("rror"), "{program} {words:?}: {}{}", output.out, output.err);
    Ok(output.out)
}

async fn redis_py(service: SocketAddr) -> Result<()> {
    let python = environment().await?;
    let script = bed::workspace().join("e2e/tests/scenarios/redis_py.py");
    let mut command = Command::new(python);
    command.arg(script).args([service.ip().to_string(), service.port().to_string()]);
    let output = run(command, "").await?;
    println!("{}", output.out);
    ensure!(output.success, "redis-py: {}{}", output.out, output.err);
    Ok(())
}

/// A Python with redis-py, kept for the next run.
async fn environment() -> Result<PathBuf> {
    let folder = state::cache()?.join(format!("python-{REDIS_PY}"));
    let python = folder.join("bin/python");
    if !folder.join("complete").exists() {
        let mut venv = Command::new("python3");
        venv.args(["-m", "venv", "--clear"]).arg(&folder);
        let made = run(venv, "").await?;
        ensure!(made.success, "python3 -m venv: {}{}", made.out, made.err);
        let mut pip = Command::new(&python);
        pip.args(["-m", "pip", "install", "--quiet", "--disable-pip-version-check", REDIS_PY]);
        let installed = run(pip, "").await?;
        ensure!(installed.success, "pip install {REDIS_PY}: {}{}", installed.out, installed.err);
        std::fs::write(folder.join("complete"), "")?;
    }
    Ok(python)
}
