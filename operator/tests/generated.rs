//! Generated files say what the code says. `make generate` writes them anew.

#![allow(clippy::expect_used, clippy::needless_for_each, clippy::unwrap_used)]

use std::{fs, path::PathBuf};

use mizuya_operator::{
    crd,
    logic::install::{Install, objects, to_yaml},
};

fn assert_same(file: &str, command: &str, expected: &str) {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(file);
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(found == expected, "{file} is out of date: run make generate (mizuya-operator {command})");
}

#[test]
fn the_crd_file_is_what_the_types_say() {
    let crd = serde_json::to_value(crd::crd().unwrap()).unwrap();
    let expected = to_yaml("mizuya-operator crd", &[crd]).unwrap();
    assert_same("crds/cache.mizuya.dev_cacheclusters.yaml", "crd", &expected);
}

#[test]
fn the_install_files_are_what_the_code_says() {
    let base = objects(&Install::default());
    let expected = to_yaml("mizuya-operator manifests --without-crd", &base).unwrap();
    assert_same("manifests/install/operator.yaml", "manifests --without-crd", &expected);

    let mut all = base;
    all.insert(1, serde_json::to_value(crd::crd().unwrap()).unwrap());
    let expected = to_yaml("mizuya-operator manifests", &all).unwrap();
    assert_same("manifests/install.yaml", "manifests", &expected);
}

#[test]
fn only_an_installation_for_all_namespaces_reads_kubernetes_nodes() {
    let reads = |watch_namespace: Option<&str>| {
        let install = Install { watch_namespace: watch_namespace.map(str::to_owned), ..Install::default() };
        objects(&install).iter().any(|object| object.to_string().contains("\"nodes\""))
    };
    assert!(reads(None));
    assert!(!reads(Some("cache")));
}
