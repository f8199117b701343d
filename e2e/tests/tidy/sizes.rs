//! How long things may be.

use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Lines of a function, with its signature.
const LONGEST_FUNCTION: usize = 70;
/// Lines of a `main.rs`, less than this.
const LONGEST_MAIN: usize = 50;

/// Functions that are too long.
pub fn long_functions(text: &str) -> Vec<String> {
    let mut search = Search::default();
    if let Ok(file) = syn::parse_file(text) {
        search.visit_file(&file);
    }
    search.found
}

/// Whether a `main.rs` is too long.
pub fn long_main(text: &str) -> Vec<String> {
    let lines = text.lines().count();
    if lines < LONGEST_MAIN { Vec::new() } else { vec![format!("{lines} lines")] }
}

#[derive(Default)]
struct Search {
    found: Vec<String>,
}

impl Search {
    fn judge(&mut self, signature: &syn::Signature, body: &syn::Block) {
        let lines = body.span().end().line - signature.span().start().line + 1;
        if lines > LONGEST_FUNCTION {
            self.found.push(format!("fn {} has {lines} lines", signature.ident));
        }
    }
}

impl<'ast> Visit<'ast> for Search {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.judge(&item.sig, &item.block);
        visit::visit_item_fn(self, item);
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.judge(&item.sig, &item.block);
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(body) = &item.default {
            self.judge(&item.sig, body);
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[test]
fn it_finds_a_long_function_wherever_it_is() {
    let body = "let _ = 1;\n".repeat(69);
    for text in [
        format!("fn long() {{\n{body}}}"),
        format!("impl X {{ fn long(&self) {{\n{body}}} }}"),
        format!("trait X {{ fn long(&self) {{\n{body}}} }}"),
        format!("mod tests {{ #[test] fn long() {{\n{body}}} }}"),
    ] {
        assert_eq!(long_functions(&text), ["fn long has 71 lines"], "{text}");
    }
    let short = "let _ = 1;\n".repeat(68);
    assert_eq!(long_functions(&format!("fn short() {{\n{short}}}")), Vec::<String>::new());
}

#[test]
fn it_finds_a_long_main() {
    assert!(long_main(&"\n".repeat(49)).is_empty());
    assert_eq!(long_main(&"\n".repeat(50)), ["50 lines"]);
}
