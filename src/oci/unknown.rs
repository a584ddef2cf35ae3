//! Properties that the types of the specification do not have.

use serde_json::Value;

/// The most unknown properties that are listed.
const MOST: usize = 64;

/// Returns the paths of the properties of `given` that are not in `read`, which is what the types
/// have taken from it. The specification wants a runtime to pass over what it does not know; who
/// has written it may want to know.
pub(super) fn unknown(given: &Value, read: &Value) -> Vec<String> {
    let mut all = Vec::new();
    compare("", given, read, &mut all);
    all
}

/// Returns the path of the first property that is given as a list, and was read as an object of the
/// list's values in their order.
pub(super) fn list_for_object(given: &Value, read: &Value) -> Option<String> {
    match (given, read) {
        (Value::Array(_), Value::Object(_)) => Some(String::new()),
        (Value::Object(given), Value::Object(read)) => given.iter().find_map(|(name, value)| {
            let below = list_for_object(value, read.get(name)?)?;
            Some(if below.is_empty() || below.starts_with('[') {
                name.clone() + &below
            } else {
                format!("{name}.{below}")
            })
        }),
        (Value::Array(given), Value::Array(read)) => {
            given.iter().zip(read).enumerate().find_map(|(i, (given, read))| {
                let below = list_for_object(given, read)?;
                Some(if below.is_empty() { format!("[{i}]") } else { format!("[{i}].{below}") })
            })
        }
        _ => None,
    }
}

/// Returns whether a value says nothing, which the types may leave out.
fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(map) => map.values().all(is_empty),
        _ => false,
    }
}

fn compare(path: &str, given: &Value, read: &Value, all: &mut Vec<String>) {
    match (given, read) {
        (Value::Object(given), Value::Object(read)) => {
            for (name, value) in given {
                let path = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
                match read.get(name) {
                    Some(read) => compare(&path, value, read, all),
                    None if is_empty(value) || all.len() == MOST => {}
                    None => all.push(path),
                }
            }
        }
        (Value::Array(given), Value::Array(read)) => {
            for (i, (given, read)) in given.iter().zip(read).enumerate() {
                compare(&format!("{path}[{i}]"), given, read, all);
            }
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_the_types_have_left_out_is_listed_by_its_path() {
        let given = json!({"a": 1, "b": [{"c": 1, "new": {"x": 1}}], "later": true, "empty": {"n": null}});
        let read = json!({"a": 1, "b": [{"c": 1}]});
        assert_eq!(unknown(&given, &read), ["b[0].new", "later"]);
        assert_eq!(unknown(&read, &read), [""; 0]);
    }

    #[test]
    fn a_list_does_not_stand_for_an_object() {
        let read = json!({"a": {"b": [{"c": 1}]}});
        assert_eq!(list_for_object(&read, &read), None);
        assert_eq!(list_for_object(&json!({"a": [1]}), &read).as_deref(), Some("a"));
        assert_eq!(list_for_object(&json!({"a": {"b": [[1]]}}), &read).as_deref(), Some("a.b[0]"));
        assert_eq!(list_for_object(&json!([]), &read).as_deref(), Some(""));
    }

    #[test]
    fn the_list_is_bounded() {
        let given = (0..10_000).map(|i| (i.to_string(), json!(1))).collect::<serde_json::Map<_, _>>();
        assert_eq!(unknown(&given.into(), &json!({})).len(), MOST);
    }
}
