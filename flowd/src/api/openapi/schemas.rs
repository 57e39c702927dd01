//! The shapes of answers, from the types that serde writes.

use std::collections::BTreeMap;

use serde_json::{Value, json};
use utoipa::ToSchema;

/// Those that the document speaks of, by name.
#[derive(Debug, Default)]
pub(super) struct Schemas(BTreeMap<String, Value>);

impl Schemas {
    /// A reference to the shape of `T`, which is in the document with all that it needs.
    pub(super) fn refer<T: ToSchema>(&mut self) -> Value {
        let name = T::name().into_owned();
        let mut found = vec![(name.clone(), T::schema())];
        T::schemas(&mut found);
        for (name, schema) in found {
            let mut schema = serde_json::to_value(schema).expect("a schema is JSON");
            tidy(&mut schema);
            let before = self.0.insert(name.clone(), schema.clone());
            assert!(before.is_none_or(|before| before == schema), "two shapes are called {name}");
        }
        json!({ "$ref": format!("#/components/schemas/{name}") })
    }

    /// All of them.
    pub(super) fn json(self) -> Value {
        json!(self.0)
    }
}

/// Says of a schema what its derivation does not know: null is written, and called null.
fn tidy(schema: &mut Value) {
    match schema {
        Value::Object(members) => {
            if let Some(Value::String(text)) = members.get_mut("description") {
                *text = text.replace("`None`", "null");
            }
            require_nullable(members);
            members.values_mut().for_each(tidy);
        }
        Value::Array(items) => items.iter_mut().for_each(tidy),
        _ => {}
    }
}

/// What may be null is there.
fn require_nullable(members: &mut serde_json::Map<String, Value>) {
    let Some(Value::Object(properties)) = members.get("properties") else { return };
    let nullable: Vec<Value> = properties
        .iter()
        .filter(|(_, property)| may_be_null(property))
        .map(|(name, _)| name.clone().into())
        .collect();
    let required = members.entry("required").or_insert_with(|| json!([]));
    if let Value::Array(required) = required {
        required.extend(nullable);
        required.sort_by(|a, b| a.as_str().cmp(&b.as_str()));
        required.dedup();
    }
}

fn may_be_null(schema: &Value) -> bool {
    let is_null = |kind: &Value| *kind == "null";
    match &schema["type"] {
        Value::Array(kinds) => kinds.iter().any(is_null),
        Value::String(_) => is_null(&schema["type"]),
        _ => schema["oneOf"].as_array().is_some_and(|all| all.iter().any(may_be_null)),
    }
}
