//! `logic/` takes time, chance and what was observed as arguments, and returns what to do. So it names nothing that
//! reaches for them.

use proc_macro2::{TokenStream, TokenTree};
use syn::visit::{self, Visit};
use syn::{Macro, Path, UseTree};

/// Paths that reach for the outside world. Types that only describe, such as addresses and durations, do not.
const FORBIDDEN: &[&str] = &[
    "tokio",
    "tonic",
    "hyper",
    "axum",
    "kube::Api",
    "kube::Client",
    "kube::api",
    "kube::client",
    "kube::runtime",
    "std::fs",
    "std::io",
    "std::net::TcpListener",
    "std::net::TcpStream",
    "std::net::ToSocketAddrs",
    "std::net::UdpSocket",
    "std::process",
    "std::thread",
    "std::time::Instant",
    "std::time::SystemTime",
    "Instant::now",
    "SystemTime::now",
    "rand::rng",
    "rand::random",
    "rand::rngs::ThreadRng",
    "crate::io",
    "super::io",
];

/// What a file reaches for and must not.
pub fn reached(text: &str) -> Vec<String> {
    let mut search = Search::default();
    match syn::parse_file(text) {
        Ok(file) => search.visit_file(&file),
        Err(error) => search.found.push(format!("can't be parsed: {error}")),
    }
    search.found
}

#[derive(Default)]
struct Search {
    found: Vec<String>,
}

impl Search {
    fn judge(&mut self, path: &str) {
        // `super::super::io` is as bad as `super::io`.
        let shortened = path.replace("super::super", "super");
        let bad = |forbidden: &&&str| shortened == **forbidden || shortened.starts_with(&format!("{forbidden}::"));
        if let Some(forbidden) = FORBIDDEN.iter().find(bad) {
            self.found.push(format!("{path} ({forbidden} is for io/)"));
        }
    }

    fn walk(&mut self, tree: &UseTree, before: &str) {
        let join = |name: &dyn std::fmt::Display| {
            if before.is_empty() { name.to_string() } else { format!("{before}::{name}") }
        };
        match tree {
            UseTree::Path(path) => self.walk(&path.tree, &join(&path.ident)),
            UseTree::Name(name) if name.ident == "self" => self.judge(before),
            UseTree::Name(name) => self.judge(&join(&name.ident)),
            UseTree::Rename(rename) => self.judge(&join(&rename.ident)),
            UseTree::Glob(_) => self.judge(before),
            UseTree::Group(group) => group.items.iter().for_each(|item| self.walk(item, before)),
        }
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_item_use(&mut self, item: &'ast syn::ItemUse) {
        self.walk(&item.tree, "");
    }

    fn visit_path(&mut self, path: &'ast Path) {
        let names: Vec<String> = path.segments.iter().map(|segment| segment.ident.to_string()).collect();
        self.judge(&names.join("::"));
        visit::visit_path(self, path);
    }

    // What a macro is given is no syntax tree: its paths are taken from the text.
    fn visit_macro(&mut self, call: &'ast Macro) {
        let text = without_literals(call.tokens.clone());
        let is_path = |one: char| one.is_alphanumeric() || one == '_' || one == ':';
        for path in text.split(|one| !is_path(one)).filter(|word| word.contains("::")) {
            self.judge(path.trim_matches(':'));
        }
        visit::visit_macro(self, call);
    }
}

fn without_literals(tokens: TokenStream) -> String {
    let text = |token| match token {
        TokenTree::Literal(_) => String::new(),
        TokenTree::Group(group) => without_literals(group.stream()),
        TokenTree::Punct(sign) if sign.as_char() == ':' => ":".to_owned(),
        other => format!(" {other} "),
    };
    tokens.into_iter().map(text).collect::<String>().replace(" ::", "::").replace(":: ", "::")
}

#[test]
fn it_finds_each_way_to_reach_out() {
    for text in [
        "use tokio::sync::mpsc;",
        "use std::{collections::BTreeMap, fs};",
        "use std::time::{Duration, Instant as Clock};",
        "use std::net::*; fn f() { std::net::TcpStream::connect(x); }",
        "fn f() { let _ = SystemTime::now(); }",
        "fn f(at: std::time::Instant) {}",
        "fn f() -> u8 { rand::random() }",
        "use rand::rng;",
        "use kube::{Client, ResourceExt};",
        "use kube::runtime::watcher;",
        "fn f() { crate::io::send(); }",
        "use super::super::io::socket;",
        "fn f() { assert!(std::fs::exists(path)); }",
        "#[cfg(test)] mod tests { use tonic::Code; }",
    ] {
        assert!(!reached(text).is_empty(), "{text}");
    }
}

#[test]
fn it_lets_decisions_be() {
    let text = "use std::{collections::BTreeMap, net::SocketAddr, time::Duration};\nuse rand::rngs::SmallRng;\n\
                use kube::{CustomResource, ResourceExt, core::ObjectMeta};\nuse crate::logic::plan::Plan;\n\
                fn f(io: u8) -> u8 { println!(\"std::fs {io}\", io = io); io }";
    assert_eq!(reached(text), Vec::<String>::new());
}
