//! What holds the shape of the tree: each rule is a function on text, with a test that it finds what it is for, and is
//! then held against every file.

// Here everything is a test, and an unwrap that fails is one that says so.
#![allow(clippy::unwrap_used, unreachable_pub)]

mod crate_graph;
mod declared;
mod outside_world;
mod sizes;
mod tree;

use tree::Source;

/// Fails with all faults that a rule found, each with its file.
fn require_none(rule: &str, faults: &[String]) {
    assert!(faults.is_empty(), "{rule}:\n{}", faults.join("\n"));
}

/// The faults of a rule in all files that are chosen.
fn faults_in(sources: &[Source], chosen: impl Fn(&str) -> bool, rule: impl Fn(&Source) -> Vec<String>) -> Vec<String> {
    let chosen = sources.iter().filter(|source| chosen(&source.path));
    chosen.flat_map(|source| rule(source).into_iter().map(|fault| format!("{}: {fault}", source.path))).collect()
}

/// Whether a file belongs to what decides (and does not do).
fn is_logic(path: &str) -> bool {
    path.contains("/src/logic/")
}

#[test]
fn logic_does_not_reach_for_the_outside_world() {
    let sources = tree::sources();
    assert!(sources.iter().any(|source| is_logic(&source.path)), "no logic was found: is the tree elsewhere?");
    require_none(
        "logic/ decides, io/ does",
        &faults_in(&sources, is_logic, |source| outside_world::reached(&source.text)),
    );
}

#[test]
fn every_file_is_declared() {
    require_none(
        "a file that no `mod` declares is never compiled",
        &declared::orphans(&tree::sources(), &tree::manifests()),
    );
}

#[test]
fn functions_and_mains_are_short() {
    let sources = tree::sources();
    require_none(
        "functions have at most 70 lines",
        &faults_in(&sources, |_| true, |source| sizes::long_functions(&source.text)),
    );
    let is_main = |path: &str| path.ends_with("src/main.rs");
    require_none(
        "main.rs wires, in under 50 lines",
        &faults_in(&sources, is_main, |source| sizes::long_main(&source.text)),
    );
}

#[test]
fn packages_know_only_what_they_may() {
    let manifests = tree::manifests();
    assert!(manifests.len() >= 4, "only {} packages were found", manifests.len());
    require_none("the crate graph", &crate_graph::faults(&manifests));
}
