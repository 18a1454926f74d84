//! JSON read by the rules that Docker's clients rely on: keys match a struct's
//! fields whatever their case, `null` means the field's zero value, unknown keys
//! are ignored. Some clients write every field as `null`, others in lower case.
//!
//! Works on a parsed `Value`: the bodies are small, and one pass more costs
//! microseconds.

use serde::de::{
    self, DeserializeOwned, DeserializeSeed, Deserializer, IntoDeserializer, MapAccess, SeqAccess,
    Visitor,
};
use serde_json::{Error, Map, Value};

/// Reads `bytes` as a `T`.
///
/// # Errors
/// Malformed JSON, more after it, or a value of the wrong type.
pub fn from_slice<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    from_value(serde_json::from_slice(bytes)?)
}

/// Reads `bytes` exactly, and by the lenient rules only when that fails: for
/// answers of servers, nearly always exact.
///
/// # Errors
/// As [`from_slice`].
pub fn from_answer<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Error> {
    serde_json::from_slice(bytes).or_else(|_| from_slice(bytes))
}

/// Reads a parsed value as a `T`.
///
/// # Errors
/// A value of the wrong type.
pub fn from_value<T: DeserializeOwned>(value: Value) -> Result<T, Error> {
    T::deserialize(Lenient(value))
}

/// Takes the entry named `key`, whatever its case, out of an object.
pub fn take(object: &mut Map<String, Value>, key: &str) -> Option<Value> {
    object.remove(key).or_else(|| {
        let folded = object.keys().find(|k| k.eq_ignore_ascii_case(key))?.clone();
        object.remove(&folded)
    })
}

/// Reads a string or a list of strings as a list, as Docker's commands may be written.
///
/// # Errors
/// Anything else.
pub fn string_or_list<'de, D>(deserializer: D) -> Result<Option<Vec<String>>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(StringOrList)
}

struct StringOrList;

impl<'de> Visitor<'de> for StringOrList {
    type Value = Option<Vec<String>>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a string or a list of strings")
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(None)
    }

    fn visit_str<E>(self, text: &str) -> Result<Self::Value, E> {
        Ok(Some(vec![text.to_owned()]))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Self::Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = seq.next_element()? {
            list.push(item);
        }
        Ok(Some(list))
    }
}

struct Lenient(Value);

/// `null` becomes the zero value of what is wanted; everything else is read as it is.
macro_rules! null_is {
    ($($method:ident => $zero:expr,)*) => {
        $(fn $method<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
            match self.0 {
                Value::Null => $zero(visitor),
                _ => self.deserialize_any(visitor),
            }
        })*
    };
}

impl<'de> Deserializer<'de> for Lenient {
    type Error = Error;

    null_is! {
        deserialize_bool => |v: V| v.visit_bool(false),
        deserialize_i8 => |v: V| v.visit_u64(0),
        deserialize_i16 => |v: V| v.visit_u64(0),
        deserialize_i32 => |v: V| v.visit_u64(0),
        deserialize_i64 => |v: V| v.visit_u64(0),
        deserialize_u8 => |v: V| v.visit_u64(0),
        deserialize_u16 => |v: V| v.visit_u64(0),
        deserialize_u32 => |v: V| v.visit_u64(0),
        deserialize_u64 => |v: V| v.visit_u64(0),
        deserialize_f32 => |v: V| v.visit_f64(0.0),
        deserialize_f64 => |v: V| v.visit_f64(0.0),
        deserialize_str => |v: V| v.visit_str(""),
        deserialize_string => |v: V| v.visit_str(""),
        deserialize_seq => |v: V| v.visit_seq(List(Vec::new().into_iter())),
        deserialize_map => |v: V| v.visit_map(Fields::all(Map::new())),
    }

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        match self.0 {
            Value::Array(items) => visitor.visit_seq(List(items.into_iter())),
            Value::Object(object) => visitor.visit_map(Fields::all(object)),
            plain => plain.deserialize_any(visitor),
        }
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Error> {
        if self.0.is_null() { visitor.visit_none() } else { visitor.visit_some(self) }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Error> {
        match self.0 {
            Value::Object(object) => visitor.visit_map(Fields::of(object, fields)),
            Value::Null => visitor.visit_map(Fields::all(Map::new())),
            other => Err(de::Error::invalid_type(unexpected(&other), &visitor)),
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Error> {
        visitor.visit_newtype_struct(self)
    }

    fn deserialize_tuple<V: Visitor<'de>>(
        self,
        _len: usize,
        visitor: V,
    ) -> Result<V::Value, Error> {
        self.deserialize_any(visitor)
    }

    serde::forward_to_deserialize_any! {
        i128 u128 char bytes byte_buf unit unit_struct tuple_struct enum identifier ignored_any
    }
}

fn unexpected(value: &Value) -> de::Unexpected<'_> {
    match value {
        Value::Null => de::Unexpected::Unit,
        Value::Bool(b) => de::Unexpected::Bool(*b),
        Value::Number(_) => de::Unexpected::Other("number"),
        Value::String(s) => de::Unexpected::Str(s),
        Value::Array(_) => de::Unexpected::Seq,
        Value::Object(_) => de::Unexpected::Map,
    }
}

struct List(std::vec::IntoIter<Value>);

impl<'de> SeqAccess<'de> for List {
    type Error = Error;

    fn next_element_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        self.0.next().map(|item| seed.deserialize(Lenient(item))).transpose()
    }

    fn size_hint(&self) -> Option<usize> {
        Some(self.0.len())
    }
}

/// The entries of an object; with `fields`, each under the field's own name and at most once.
struct Fields {
    entries: serde_json::map::IntoIter,
    fields: Option<&'static [&'static str]>,
    seen: Vec<&'static str>,
    value: Option<Value>,
}

impl Fields {
    fn all(object: Map<String, Value>) -> Self {
        Self { entries: object.into_iter(), fields: None, seen: Vec::new(), value: None }
    }

    fn of(object: Map<String, Value>, fields: &'static [&'static str]) -> Self {
        Self { fields: Some(fields), ..Self::all(object) }
    }

    /// The field that `key` means, unless it was given before.
    fn field(&mut self, fields: &'static [&'static str], key: &str) -> Option<&'static str> {
        let field = fields
            .iter()
            .find(|f| **f == key)
            .or_else(|| fields.iter().find(|f| f.eq_ignore_ascii_case(key)))?;
        if self.seen.contains(field) {
            return None;
        }
        self.seen.push(field);
        Some(field)
    }
}

impl<'de> MapAccess<'de> for Fields {
    type Error = Error;

    fn next_key_seed<S: DeserializeSeed<'de>>(
        &mut self,
        seed: S,
    ) -> Result<Option<S::Value>, Error> {
        while let Some((key, value)) = self.entries.next() {
            let Some(fields) = self.fields else {
                self.value = Some(value);
                return seed.deserialize(key.into_deserializer()).map(Some);
            };
            if value.is_null() {
                continue;
            }
            if let Some(field) = self.field(fields, &key) {
                self.value = Some(value);
                return seed.deserialize(field.into_deserializer()).map(Some);
            }
        }
        Ok(None)
    }

    fn next_value_seed<S: DeserializeSeed<'de>>(&mut self, seed: S) -> Result<S::Value, Error> {
        seed.deserialize(Lenient(self.value.take().unwrap_or_default()))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde::Deserialize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, rename_all = "PascalCase")]
    struct Sample {
        count: i64,
        name: String,
        list: Vec<String>,
        maybe: Option<bool>,
        map: BTreeMap<String, Option<Vec<i32>>>,
        #[serde(deserialize_with = "string_or_list")]
        cmd: Option<Vec<String>>,
    }

    #[test]
    fn nulls_are_zero_values_and_case_does_not_matter() {
        let all_null =
            r#"{"Count":null,"Name":null,"List":null,"Maybe":null,"Map":null,"Cmd":null,"X":1}"#;
        assert_eq!(from_slice::<Sample>(all_null.as_bytes()).unwrap(), Sample::default());
        let lower =
            r#"{"count":3,"NAME":"n","list":["a",null],"map":{"k":null},"cmd":"sh","Count":4}"#;
        let sample = from_slice::<Sample>(lower.as_bytes()).unwrap();
        assert_eq!(sample.count, 4, "the exact key sorts first and wins");
        assert_eq!(sample.list, ["a", ""]);
        assert_eq!(sample.map["k"], None);
        assert_eq!(sample.cmd, Some(vec!["sh".to_owned()]));
    }

    #[test]
    fn wrong_types_and_trailing_text_are_errors() {
        for bad in [r#"{"Count":"1"}"#, r#"{"Count":1.5}"#, "[]", "{} x", "", r#"{"List":{}}"#] {
            assert!(from_slice::<Sample>(bad.as_bytes()).is_err(), "{bad}");
        }
    }
}
