//! The table of refused `CacheCluster`s is whole: every rule has one that breaks it, and every answer says the way out.
//!
//! Whether the API server refuses them indeed is proved on a real one: the end-to-end tests read the same table.

#![allow(clippy::expect_used, clippy::needless_for_each, clippy::unwrap_used)]

use mizuya_operator::crd::rules::RULES;
use serde::Deserialize;

#[derive(Debug, Deserialize)]
struct Refused {
    name: String,
    refused: String,
}

fn table() -> Vec<Refused> {
    serde_yaml_ng::from_str(include_str!("refused.yaml")).unwrap()
}

#[test]
fn every_rule_has_a_cluster_that_breaks_it() {
    let table = table();
    for rule in RULES {
        assert!(
            table.iter().any(|case| rule.message.contains(&case.refused)),
            "nothing in refused.yaml breaks: {}",
            rule.message
        );
    }
}

#[test]
fn every_answer_comes_from_a_rule_or_from_the_schema() {
    let of_the_schema = ["supported values", "must be of type integer", "should match"];
    for case in table() {
        let from_rule = RULES.iter().any(|rule| rule.message.contains(&case.refused));
        let from_schema = of_the_schema.iter().any(|text| case.refused.contains(text));
        assert!(from_rule || from_schema, "{}: no rule says '{}'", case.name, case.refused);
    }
}

#[test]
fn every_message_says_the_way_out() {
    let words =
        ["must be", "set ", "leave it out", "leave maxMemory out", "delete", "use ", "shorten", "lower", "raise"];
    for rule in RULES {
        assert!(words.iter().any(|word| rule.message.contains(word)), "no way out in: {}", rule.message);
    }
}
