//! Which of our packages may know which.

use super::tree::Source;

/// A package and the packages of ours that it may depend on. What is not listed may not exist.
const ALLOWED: &[(&str, &[&str])] = &[
    ("node/wire/Cargo.toml", &[]),
    ("node/Cargo.toml", &["mizuya-wire"]),
    ("operator/Cargo.toml", &["mizuya-wire"]),
    // The tests look from outside, as users do.
    ("e2e/Cargo.toml", &["mizuya-wire"]),
];

/// Dependencies that are not allowed.
pub fn faults(manifests: &[Source]) -> Vec<String> {
    manifests.iter().flat_map(faults_of).collect()
}

fn faults_of(manifest: &Source) -> Vec<String> {
    let Some((_, allowed)) = ALLOWED.iter().find(|(path, _)| *path == manifest.path) else {
        return vec![format!("{}: who may know this package, and whom may it know?", manifest.path)];
    };
    let names = manifest.text.lines().filter(|line| line.starts_with("mizuya-"));
    let depends = names.filter_map(|line| line.split(['.', ' ', '=']).next());
    depends.filter(|name| !allowed.contains(name)).map(|name| format!("{} depends on {name}", manifest.path)).collect()
}

#[test]
fn it_finds_a_dependency_that_turns_the_graph_around() {
    let bad = [
        Source::new("node/wire/Cargo.toml", "[dependencies]\nmizuya-node = { path = \"..\" }\n"),
        Source::new(
            "operator/Cargo.toml",
            "[dependencies]\nmizuya-wire.workspace = true\nmizuya-node.workspace = true\n",
        ),
        Source::new("other/Cargo.toml", ""),
    ];
    let faults = faults(&bad);
    assert_eq!(
        faults[..2],
        ["node/wire/Cargo.toml depends on mizuya-node", "operator/Cargo.toml depends on mizuya-node"]
    );
    assert!(faults[2].starts_with("other/Cargo.toml"), "{faults:?}");
}
