//! Every file belongs to a program, a library or a test: a file that no `mod` names is never compiled, and nobody notices.

use super::tree::Source;
use std::collections::BTreeSet;
use syn::{Attribute, Item, ItemMod};

/// Files that nothing declares.
pub fn orphans(sources: &[Source], manifests: &[Source]) -> Vec<String> {
    let mut declared = BTreeSet::new();
    for source in sources.iter().filter(|source| is_root(&source.path, manifests)) {
        follow(source, true, sources, &mut declared);
    }
    let known = |source: &&Source| !declared.contains(&source.path);
    sources.iter().filter(known).map(|source| format!("{} is declared nowhere", source.path)).collect()
}

/// Files that cargo compiles by themselves.
fn is_root(path: &str, manifests: &[Source]) -> bool {
    let parts: Vec<&str> = path.rsplit('/').collect();
    let by_place = matches!(
        parts.as_slice(),
        ["lib.rs" | "main.rs", "src", ..]
            | ["build.rs", ..]
            | [_, "bin", "src", ..]
            | ["main.rs", _, "bin", "src", ..]
            | [_, "tests" | "benches" | "examples", ..]
            | ["main.rs", _, "tests" | "benches" | "examples", ..]
    ) && !path.contains("/src/logic/")
        && !path.contains("/src/io/");
    by_place || manifests.iter().any(|manifest| names(manifest, path))
}

/// Whether a manifest gives this file as a target's path.
fn names(manifest: &Source, path: &str) -> bool {
    let folder = manifest.path.trim_end_matches("Cargo.toml");
    let targets = manifest
        .text
        .lines()
        .filter_map(|line| line.strip_prefix("path = ")?.trim().trim_matches('"').strip_suffix(".rs"));
    targets.into_iter().any(|target| format!("{folder}{target}.rs") == path)
}

fn follow(source: &Source, is_root: bool, sources: &[Source], declared: &mut BTreeSet<String>) {
    if !declared.insert(source.path.clone()) {
        return;
    }
    let Ok(file) = syn::parse_file(&source.text) else { return };
    let (folder, name) = source.path.rsplit_once('/').unwrap_or(("", &source.path));
    let is_folder_itself = is_root || name == "mod.rs";
    let own = if is_folder_itself { folder.to_owned() } else { format!("{folder}/{}", name.trim_end_matches(".rs")) };
    follow_items(&file.items, &own, folder, sources, declared);
}

fn follow_items(items: &[Item], own: &str, beside: &str, sources: &[Source], declared: &mut BTreeSet<String>) {
    let modules = items.iter().filter_map(|item| if let Item::Mod(module) = item { Some(module) } else { None });
    for module in modules {
        let name = module.ident.to_string();
        if let Some((_, items)) = &module.content {
            follow_items(items, &format!("{own}/{name}"), &format!("{own}/{name}"), sources, declared);
            continue;
        }
        let places = match given_path(module) {
            Some(path) => vec![format!("{beside}/{path}")],
            None => vec![format!("{own}/{name}.rs"), format!("{own}/{name}/mod.rs")],
        };
        for found in sources.iter().filter(|source| places.contains(&source.path)) {
            follow(found, false, sources, declared);
        }
    }
}

fn given_path(module: &ItemMod) -> Option<String> {
    let value = |attribute: &Attribute| match &attribute.meta {
        syn::Meta::NameValue(pair) if pair.path.is_ident("path") => match &pair.value {
            syn::Expr::Lit(syn::ExprLit { lit: syn::Lit::Str(text), .. }) => Some(text.value()),
            _ => None,
        },
        _ => None,
    };
    module.attrs.iter().find_map(value)
}

#[test]
fn it_finds_a_file_that_nothing_declares() {
    let sources = [
        Source::new("a/src/lib.rs", "mod one; mod two;"),
        Source::new("a/src/one.rs", "mod inner;"),
        Source::new("a/src/one/inner.rs", ""),
        Source::new("a/src/two/mod.rs", "mod deep { mod down; }"),
        Source::new("a/src/two/deep/down.rs", ""),
        Source::new("a/src/bin/tool.rs", ""),
        Source::new("a/tests/all/main.rs", "mod part;"),
        Source::new("a/tests/all/part.rs", ""),
        Source::new("a/simulation/start.rs", "#[path = \"elsewhere/x.rs\"] mod x;"),
        Source::new("a/simulation/elsewhere/x.rs", ""),
        Source::new("a/src/forgotten.rs", ""),
        Source::new("a/src/one/forgotten.rs", ""),
    ];
    let manifests = [Source::new("a/Cargo.toml", "[[test]]\npath = \"simulation/start.rs\"\n")];
    let orphans = orphans(&sources, &manifests);
    assert_eq!(orphans, ["a/src/forgotten.rs is declared nowhere", "a/src/one/forgotten.rs is declared nowhere"]);
}
