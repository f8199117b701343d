//! Whether a live object differs from what was rendered (rule O14): only rendered fields count, and values are compared
//! as the API server keeps them.

use serde_json::{Map, Value};
use sha2::{Digest, Sha256};

/// Annotation with the hash of all that was rendered, so that a field which is no longer rendered is noticed too.
pub const RENDERED: &str = "cache.mizuya.dev/rendered";

/// Adds the hash of a rendered object to it.
pub fn seal(mut rendered: Value) -> Value {
    let hash = hash(&rendered);
    if let Some(metadata) = rendered.get_mut("metadata").and_then(Value::as_object_mut) {
        let annotations = metadata.entry("annotations").or_insert_with(|| Value::Object(Map::new()));
        if let Some(annotations) = annotations.as_object_mut() {
            annotations.insert(RENDERED.to_owned(), Value::String(hash));
        }
    }
    rendered
}

/// A short hash of a value that does not depend on the order of keys.
pub fn hash(value: &Value) -> String {
    let mut hasher = Sha256::new();
    feed(value, &mut hasher);
    let digest = hasher.finalize();
    let first = digest.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
    format!("{first:016x}")
}

fn feed(value: &Value, hasher: &mut Sha256) {
    match value {
        Value::Object(map) => {
            let mut keys: Vec<&String> = map.keys().collect();
            keys.sort();
            hasher.update(b"{");
            for key in keys {
                hasher.update(key.as_bytes());
                hasher.update(b":");
                feed(&map[key], hasher);
                hasher.update(b",");
            }
            hasher.update(b"}");
        }
        Value::Array(items) => {
            hasher.update(b"[");
            for item in items {
                feed(item, hasher);
                hasher.update(b",");
            }
            hasher.update(b"]");
        }
        other => hasher.update(other.to_string().as_bytes()),
    }
}

/// The first rendered field that the live object lacks or has otherwise, as a path; none when nothing differs.
pub fn first_difference(rendered: &Value, live: &Value) -> Option<String> {
    let seal = |value: &Value| value.get("metadata")?.get("annotations")?.get(RENDERED).cloned();
    let unsealed = |value: &Value| {
        let mut value = value.clone();
        if let Some(annotations) = value.pointer_mut("/metadata/annotations").and_then(Value::as_object_mut) {
            annotations.remove(RENDERED);
        }
        value
    };
    // The seal differs with every other field; it is named only where it alone does.
    compare(&unsealed(rendered), live, "")
        .or_else(|| (seal(rendered) != seal(live)).then(|| format!(".metadata.annotations.{RENDERED}")))
}

fn compare(rendered: &Value, live: &Value, path: &str) -> Option<String> {
    match (rendered, live) {
        (Value::Object(fields), _) => fields.iter().find_map(|(name, value)| {
            let path = format!("{path}.{name}");
            match live.get(name) {
                Some(live) => compare(value, live, &path),
                None => (!is_empty(value)).then_some(path),
            }
        }),
        (Value::Array(items), Value::Array(live_items)) => compare_lists(items, live_items, path),
        _ if same(rendered, live, path) => None,
        _ => Some(path.to_owned()),
    }
}

/// Lists whose items have names are compared by name, and further items of others are left alone; other lists are
/// compared as a whole.
fn compare_lists(items: &[Value], live: &[Value], path: &str) -> Option<String> {
    let name = |item: &Value| item.get("name").and_then(Value::as_str).map(str::to_owned);
    if !items.is_empty() && items.iter().all(|item| name(item).is_some()) {
        return items.iter().find_map(|item| {
            let path = format!("{path}[{}]", name(item).unwrap_or_default());
            match live.iter().find(|live| name(live) == name(item)) {
                Some(live) => compare(item, live, &path),
                None => Some(path),
            }
        });
    }
    if items.len() != live.len() {
        return Some(path.to_owned());
    }
    items.iter().zip(live).enumerate().find_map(|(i, (item, live))| compare(item, live, &format!("{path}[{i}]")))
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(is_empty),
        _ => false,
    }
}

fn same(rendered: &Value, live: &Value, path: &str) -> bool {
    if rendered == live {
        return true;
    }
    let is_quantity = path.contains(".limits.") || path.contains(".requests.");
    is_quantity && quantity(rendered).is_some_and(|a| quantity(live) == Some(a))
}

/// A Kubernetes quantity in thousandths; the API server writes `0.5` as `500m` and `1024Mi` as `1Gi`.
pub fn quantity(value: &Value) -> Option<i128> {
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Number(number) => number.to_string(),
        _ => return None,
    };
    let split = text.find(|c: char| !(c.is_ascii_digit() || c == '.' || c == '-' || c == '+')).unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if fraction.len() > 9 {
        return None;
    }
    let digits: i128 = format!("{whole}{fraction}").parse().ok()?;
    let scale = 10_i128.pow(fraction.len() as u32);
    let (numerator, denominator) = multiplier(unit)?;
    Some(digits.checked_mul(numerator)?.checked_mul(1000)? / (scale * denominator))
}

fn multiplier(unit: &str) -> Option<(i128, i128)> {
    let binary = |power: u32| Some((1_i128 << (10 * power), 1));
    let decimal = |power: u32| Some((10_i128.pow(power), 1));
    match unit {
        "" => Some((1, 1)),
        "n" => Some((1, 1_000_000_000)),
        "u" => Some((1, 1_000_000)),
        "m" => Some((1, 1000)),
        "k" => decimal(3),
        "M" => decimal(6),
        "G" => decimal(9),
        "T" => decimal(12),
        "P" => decimal(15),
        "E" => decimal(18),
        "Ki" => binary(1),
        "Mi" => binary(2),
        "Gi" => binary(3),
        "Ti" => binary(4),
        "Pi" => binary(5),
        "Ei" => binary(6),
        _ => match unit.strip_prefix(['e', 'E'])?.parse::<i32>().ok()? {
            power @ 0..=18 => decimal(power as u32),
            power @ -9..=-1 => Some((1, 10_i128.pow(power.unsigned_abs()))),
            _ => None,
        },
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn quantities_compare_as_the_api_server_writes_them() {
        for (a, b) in [("0.5", "500m"), ("1024Mi", "1Gi"), ("1", "1000m"), ("1.5Gi", "1536Mi"), ("1e3", "1k")] {
            assert_eq!(quantity(&json!(a)), quantity(&json!(b)), "{a} {b}");
        }
        assert_eq!(quantity(&json!(2)), quantity(&json!("2")));
        assert_ne!(quantity(&json!("1Gi")), quantity(&json!("1G")));
        assert_eq!(quantity(&json!("lots")), None);
    }

    #[test]
    fn only_rendered_fields_count() {
        let rendered =
            json!({"spec": {"ports": [{"name": "redis", "port": 3320}], "replicas": 3, "empty": [], "none": null}});
        let live = |ports: Value, replicas: i32| json!({"spec": {"ports": ports, "replicas": replicas, "clusterIP": "10.0.0.1"}, "status": {}});
        let defaulted = json!([{"name": "redis", "port": 3320, "protocol": "TCP"}]);
        let with_more = json!([{"name": "mine", "port": 1}, {"name": "redis", "port": 3320, "nodePort": 30000}]);
        assert_eq!(first_difference(&rendered, &live(defaulted.clone(), 3)), None);
        assert_eq!(first_difference(&rendered, &live(with_more, 3)), None);
        assert_eq!(first_difference(&rendered, &live(defaulted, 2)), Some(".spec.replicas".into()));
        let edited = json!([{"name": "redis", "port": 1}]);
        assert_eq!(first_difference(&rendered, &live(edited, 3)), Some(".spec.ports[redis].port".into()));
        assert_eq!(first_difference(&rendered, &live(json!([]), 3)), Some(".spec.ports[redis]".into()));
    }

    #[test]
    fn lists_without_names_are_compared_as_a_whole() {
        let rendered = json!({"args": ["a", "b"]});
        assert_eq!(first_difference(&rendered, &json!({"args": ["a", "b"]})), None);
        assert_eq!(first_difference(&rendered, &json!({"args": ["a"]})), Some(".args".into()));
        assert_eq!(first_difference(&rendered, &json!({"args": ["a", "c"]})), Some(".args[1]".into()));
    }

    #[test]
    fn a_quantity_written_otherwise_is_no_difference_but_a_name_is() {
        let rendered = json!({"resources": {"limits": {"cpu": "0.5"}}, "name": "0.5"});
        assert_eq!(
            first_difference(&rendered, &json!({"resources": {"limits": {"cpu": "500m"}}, "name": "0.5"})),
            None
        );
        assert_eq!(
            first_difference(&rendered, &json!({"resources": {"limits": {"cpu": "500m"}}, "name": "500m"})),
            Some(".name".into())
        );
    }

    #[test]
    fn a_field_that_is_no_longer_rendered_shows_in_the_seal() {
        let with = seal(json!({"metadata": {"name": "x"}, "spec": {"nodeSelector": {"disk": "fast"}, "replicas": 3}}));
        let without = seal(json!({"metadata": {"name": "x"}, "spec": {"replicas": 3}}));
        assert_eq!(first_difference(&with, &with), None);
        assert_eq!(first_difference(&without, &with), Some(format!(".metadata.annotations.{RENDERED}")));
    }
}
