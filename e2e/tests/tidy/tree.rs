//! The files that rules are held against.

use std::fs;
use std::path::{Path, PathBuf};

/// Folders that hold nothing of ours.
const SKIPPED: [&str; 2] = ["target", ".git"];

/// A file with its path from the root of the tree.
#[derive(Clone, Debug)]
pub struct Source {
    pub path: String,
    pub text: String,
}

impl Source {
    #[cfg(test)]
    pub fn new(path: &str, text: &str) -> Self {
        Self { path: path.to_owned(), text: text.to_owned() }
    }
}

/// All Rust files.
pub fn sources() -> Vec<Source> {
    files(|name| Path::new(name).extension().is_some_and(|extension| extension == "rs"))
}

/// All packages' manifests; the root's is none.
pub fn manifests() -> Vec<Source> {
    let mut manifests = files(|name| name == "Cargo.toml");
    manifests.retain(|manifest| manifest.path != "Cargo.toml");
    manifests
}

fn files(wanted: impl Fn(&str) -> bool + Copy) -> Vec<Source> {
    let root = mizuya_e2e::testbed::bed::workspace();
    let mut paths = Vec::new();
    collect(&root, wanted, &mut paths);
    paths.sort();
    let source = |path: PathBuf| {
        let text = fs::read_to_string(&path).unwrap();
        let path = path.strip_prefix(&root).unwrap().to_str().unwrap().to_owned();
        Source { path, text }
    };
    paths.into_iter().map(source).collect()
}

fn collect(folder: &Path, wanted: impl Fn(&str) -> bool + Copy, paths: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap().flatten() {
        let (path, name) = (entry.path(), entry.file_name().to_string_lossy().into_owned());
        if path.is_dir() && !SKIPPED.contains(&name.as_str()) {
            collect(&path, wanted, paths);
        } else if path.is_file() && wanted(&name) {
            paths.push(path);
        }
    }
}
