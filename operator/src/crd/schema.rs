//! The `CustomResourceDefinition`: the derived schema, made bounded everywhere, with the rules of [`super::rules`] in it.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::CustomResourceExt;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::{CacheCluster, rules};

/// What a CRD may take in bytes, as JSON, so that client-side apply can still annotate it.
pub const MAX_CRD_BYTES: usize = 262_144;

const QUANTITY: &str = r"^(\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))(([KMGTPE]i)|[numkMGTPE]|([eE](\+|-)?(([0-9]+(\.[0-9]*)?)|(\.[0-9]+))))?$";
/// Bounds of what has no bound of its own (rule O17): the cost of CEL rules is estimated from them.
const MAX_ITEMS: u64 = 32;
const MAX_PROPERTIES: u64 = 64;
const MAX_LENGTH: u64 = 1024;

/// A refusal to build the CRD, which only a mistake in this crate can cause.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// The derived CRD is not JSON of the expected form.
    #[error("the derived schema is not JSON of the expected form: {0}")]
    Json(#[from] serde_json::Error),
    /// A rule names a place that the schema does not have.
    #[error("the schema has no field '{0}'; correct the table of rules")]
    NoSuchField(String),
}

/// The CRD of CacheCluster with all its rules.
pub fn crd() -> Result<CustomResourceDefinition, SchemaError> {
    let mut crd = serde_json::to_value(CacheCluster::crd())?;
    let root = crd
        .pointer_mut("/spec/versions/0/schema/openAPIV3Schema")
        .ok_or_else(|| SchemaError::NoSuchField("openAPIV3Schema".to_owned()))?;
    bound(root);
    for rule in rules::RULES {
        add_rule(root, rule)?;
    }
    conditions_by_type(root)?;
    Ok(serde_json::from_value(crd)?)
}

fn at<'a>(root: &'a mut Value, path: &str) -> Result<&'a mut Value, SchemaError> {
    let mut place = root;
    for name in path.split('.').filter(|name| !name.is_empty()) {
        let pointer = format!("/properties/{name}");
        place = place.pointer_mut(&pointer).ok_or_else(|| SchemaError::NoSuchField(path.to_owned()))?;
    }
    Ok(place)
}

fn add_rule(root: &mut Value, rule: &rules::Rule) -> Result<(), SchemaError> {
    let place = at(root, rule.path)?;
    let mut entry = json!({ "rule": rule.rule, "message": rule.message });
    if !rule.field.is_empty() {
        entry["fieldPath"] = json!(rule.field);
    }
    let object = place.as_object_mut().ok_or_else(|| SchemaError::NoSuchField(rule.path.to_owned()))?;
    let list = object.entry("x-kubernetes-validations").or_insert_with(|| json!([]));
    if let Some(list) = list.as_array_mut() {
        list.push(entry);
    }
    Ok(())
}

fn conditions_by_type(root: &mut Value) -> Result<(), SchemaError> {
    let conditions = at(root, "status.conditions")?;
    conditions["x-kubernetes-list-type"] = json!("map");
    conditions["x-kubernetes-list-map-keys"] = json!(["type"]);
    Ok(())
}

/// Gives every list, map and string that has no bound one. Null is not a value: the API server drops it, and rules need
/// not think of it. Descriptions are one line each, as the file they come from breaks them anywhere.
fn bound(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    object.remove("nullable");
    if let Some(Value::String(text)) = object.get_mut("description") {
        *text = text.replace("\n\n", "\u{0}").replace('\n', " ").replace('\u{0}', "\n\n");
    }
    match object.get("type").and_then(Value::as_str) {
        Some("array") => limit(object, "maxItems", MAX_ITEMS),
        Some("string") if !object.contains_key("enum") && !object.contains_key("format") => {
            limit(object, "maxLength", MAX_LENGTH);
        }
        Some("object") if object.contains_key("additionalProperties") => limit(object, "maxProperties", MAX_PROPERTIES),
        _ => {}
    }
    for key in ["items", "additionalProperties"] {
        if let Some(inner) = object.get_mut(key) {
            bound(inner);
        }
    }
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(bound);
    }
}

fn limit(object: &mut Map<String, Value>, key: &str, most: u64) {
    object.entry(key).or_insert_with(|| json!(most));
}

pub(super) fn member_quorum(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "x-kubernetes-int-or-string": true })
}

pub(super) fn quantities(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "maxProperties": 16,
        "additionalProperties": {
            "x-kubernetes-int-or-string": true,
            "pattern": QUANTITY,
            "maxLength": 32,
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schema() -> Value {
        let crd = serde_json::to_value(crd().unwrap()).unwrap();
        crd.pointer("/spec/versions/0/schema/openAPIV3Schema").unwrap().clone()
    }

    fn each(path: &str, schema: &Value, visit: &mut dyn FnMut(&str, &Value)) {
        visit(path, schema);
        for (name, inner) in schema.get("properties").and_then(Value::as_object).into_iter().flatten() {
            each(&format!("{path}.{name}"), inner, visit);
        }
        for key in ["items", "additionalProperties"] {
            if let Some(inner) = schema.get(key) {
                each(&format!("{path}[]"), inner, visit);
            }
        }
    }

    #[test]
    fn every_field_of_ours_is_documented_and_everything_is_bounded() {
        let schema = schema();
        each("", &schema, &mut |path, field| {
            let foreign =
                ["affinity", "tolerations", "topologySpreadConstraints", "conditions"].iter().any(|f| path.contains(f));
            let object = field.as_object().unwrap();
            if path.starts_with(".spec.") && !path.ends_with("[]") && !foreign {
                assert!(object.contains_key("description"), "{path} has no description");
            }
            match object.get("type").and_then(Value::as_str) {
                Some("array") => assert!(object.contains_key("maxItems"), "{path}"),
                Some("string") => {
                    assert!(["maxLength", "enum", "format"].iter().any(|k| object.contains_key(*k)), "{path}");
                }
                _ => {}
            }
        });
    }

    #[test]
    fn the_crd_fits_into_the_annotation_of_a_client_side_apply() {
        let size = serde_json::to_vec(&crd().unwrap()).unwrap().len();
        assert!(size < MAX_CRD_BYTES, "{size} bytes");
    }

    #[test]
    fn the_defaults_make_an_empty_spec_three_nodes_with_two_copies() {
        let schema = schema();
        let default = |path: &str| schema.pointer(path).cloned().unwrap_or_default();
        assert_eq!(default("/properties/spec/properties/replicas/default"), 3);
        assert_eq!(default("/properties/spec/properties/replication/default/factor"), 2);
        assert_eq!(default("/properties/spec/properties/replication/default/memberCountQuorum"), "auto");
        assert_eq!(default("/properties/spec/properties/environment/default"), "lan");
        assert!(schema.pointer("/properties/spec/properties/ports/properties/gossip/default").is_none());
    }
}
