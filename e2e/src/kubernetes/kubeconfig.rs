//! How a client finds the API server and says who it is.

use super::certificates::Pair;
use super::state::State;
use super::topology::CONTROL_PLANE;
use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::json;
use std::path::{Path, PathBuf};

/// Writes a kubeconfig that holds all it names, so that it can be copied.
pub fn write(state: &State, file: &str, authority: &Path, user: &Pair) -> Result<PathBuf> {
    let embedded = |path: &Path| -> Result<String> {
        let content = std::fs::read(path).with_context(|| format!("can't read {}", path.display()))?;
        Ok(STANDARD.encode(content))
    };
    let content = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": "mizuya", "cluster": {
            "server": format!("https://{CONTROL_PLANE}:6443"),
            "certificate-authority-data": embedded(authority)?,
        }}],
        "users": [{ "name": "mizuya", "user": {
            "client-certificate-data": embedded(&user.certificate)?,
            "client-key-data": embedded(&user.key)?,
        }}],
        "contexts": [{ "name": "mizuya", "context": { "cluster": "mizuya", "user": "mizuya" } }],
        "current-context": "mizuya",
    });
    let path = state.write_json(file, &content)?;
    std::fs::set_permissions(&path, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
    Ok(path)
}
