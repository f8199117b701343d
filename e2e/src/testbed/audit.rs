//! Who wrote what, from the local API server's audit log: one JSON event a line.

use crate::kubernetes::state::State;
use anyhow::{Context, Result};
use serde::Deserialize;
use std::fs::File;
use std::io::{BufRead, BufReader, Seek, SeekFrom};
use std::path::PathBuf;

/// The part of an audit event that tests look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Write {
    /// What was done: create, update, patch, delete.
    pub verb: String,
    /// Who did it.
    pub user: User,
    /// To what.
    pub object_ref: Object,
    /// How it was answered.
    pub response_status: Status,
}

/// See [`Write::user`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct User {
    /// Such as `system:serviceaccount:mizuya-system:mizuya-operator`.
    pub username: String,
}

/// See [`Write::object_ref`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Object {
    /// Such as `pods`.
    pub resource: String,
    /// Such as `eviction`.
    pub subresource: String,
    /// Empty for objects of the whole cluster.
    pub namespace: String,
    /// Empty where the API server makes the name up.
    pub name: String,
}

/// See [`Write::response_status`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Status {
    /// HTTP status.
    pub code: u16,
}

/// The log from one moment on.
#[derive(Debug)]
pub struct Audit {
    path: PathBuf,
    from: u64,
}

impl Audit {
    /// From now on.
    pub fn begin() -> Result<Self> {
        let path = State::of_this_machine()?.audit_log();
        let from = std::fs::metadata(&path)
            .with_context(|| format!("there is no audit log {}: this needs the local cluster", path.display()))?
            .len();
        Ok(Self { path, from })
    }

    /// All writes since then, as far as they are in the log.
    pub fn writes(&self) -> Result<Vec<Write>> {
        let mut file = File::open(&self.path)?;
        file.seek(SeekFrom::Start(self.from))?;
        let lines = BufReader::new(file).lines();
        Ok(lines.map_while(Result::ok).filter_map(|line| serde_json::from_str(&line).ok()).collect())
    }

    /// The operator's writes in a namespace since then.
    pub fn operator_writes(&self, namespace: &str) -> Result<Vec<Write>> {
        let mut writes = self.writes()?;
        writes.retain(|write| write.is_operators() && write.object_ref.namespace == namespace);
        Ok(writes)
    }
}

impl Write {
    /// Whether the operator did it.
    pub fn is_operators(&self) -> bool {
        self.user.username == format!("system:serviceaccount:{0}:mizuya-operator", super::operator::NAMESPACE)
    }

    /// One line for people.
    pub fn line(&self) -> String {
        let object = &self.object_ref;
        let slash = if object.subresource.is_empty() { "" } else { "/" };
        format!(
            "{} {}{slash}{} {}/{} → {}",
            self.verb, object.resource, object.subresource, object.namespace, object.name, self.response_status.code
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_tells_who_did_what_to_which_object() {
        let event = r#"{"kind":"Event","verb":"create","user":{"username":"system:serviceaccount:mizuya-system:mizuya-operator"},
            "objectRef":{"resource":"pods","subresource":"eviction","namespace":"a","name":"b-0"},"responseStatus":{"code":201}}"#;
        let write: Write = serde_json::from_str(event).unwrap();
        assert!(write.is_operators());
        assert_eq!(write.line(), "create pods/eviction a/b-0 → 201");
    }
}
