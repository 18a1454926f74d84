//! The functions a template may call.

use super::value::Value;
use std::cmp::Ordering;

const NAMES: [&str; 25] = [
    "and", "or", "not", "eq", "ne", "lt", "le", "gt", "ge", "len", "index", "slice", "print",
    "printf", "println", "json", "join", "split", "title", "lower", "upper", "pad", "truncate",
    "urlquery", "html",
];

/// Whether there is such a function.
pub(super) fn exists(name: &str) -> bool {
    NAMES.contains(&name)
}

/// Calls one.
pub(super) fn call(name: &str, arguments: &[Value]) -> Result<Value, String> {
    match (name, arguments) {
        ("not", [value]) => Ok(Value::Bool(!value.truth())),
        ("and", _) => Ok(arguments
            .iter()
            .find(|v| !v.truth())
            .or(arguments.last())
            .cloned()
            .unwrap_or_default()),
        ("or", _) => Ok(arguments
            .iter()
            .find(|v| v.truth())
            .or(arguments.last())
            .cloned()
            .unwrap_or_default()),
        ("eq", [first, rest @ ..]) if !rest.is_empty() => {
            Ok(Value::Bool(rest.iter().any(|other| same(first, other))))
        }
        ("ne", [a, b]) => Ok(Value::Bool(!same(a, b))),
        ("lt" | "le" | "gt" | "ge", [a, b]) => compare(name, a, b),
        ("len", [value]) => len(value),
        ("index", [first, keys @ ..]) => {
            keys.iter().try_fold(first.clone(), |value, key| index(&value, key))
        }
        ("slice", [value, bounds @ ..]) => slice(value, bounds),
        ("print", _) => Ok(Value::Text(print(arguments))),
        ("println", _) => {
            let words: Vec<String> = arguments.iter().map(shown).collect();
            Ok(Value::Text(words.join(" ") + "\n"))
        }
        ("printf", [Value::Text(format), rest @ ..]) => Ok(Value::Text(printf(format, rest))),
        ("json", [value]) => Ok(Value::Text(value.json())),
        ("join", [list, Value::Text(by)]) => {
            let words: Vec<String> = list.items().iter().map(shown).collect();
            Ok(Value::Text(words.join(by)))
        }
        ("split", [Value::Text(text), Value::Text(by)]) => {
            Ok(Value::List(text.split(by.as_str()).map(Value::from).collect()))
        }
        ("title", [value]) => Ok(Value::Text(title(&shown(value)))),
        ("lower", [value]) => Ok(Value::Text(shown(value).to_lowercase())),
        ("upper", [value]) => Ok(Value::Text(shown(value).to_uppercase())),
        ("pad", [Value::Text(text), Value::Int(before), Value::Int(after)]) => {
            let spaces = |count: &i64| " ".repeat(usize::try_from(*count).unwrap_or(0));
            let padded = format!("{}{text}{}", spaces(before), spaces(after));
            Ok(Value::Text(if text.is_empty() { String::new() } else { padded }))
        }
        ("truncate", [Value::Text(text), Value::Int(length)]) => {
            Ok(Value::Text(text.chars().take(usize::try_from(*length).unwrap_or(0)).collect()))
        }
        ("html" | "urlquery", [value]) => Ok(Value::Text(shown(value))),
        _ => Err(format!("error calling {name}: wrong number or kind of arguments")),
    }
}

fn shown(value: &Value) -> String {
    match value {
        Value::Null => "<nil>".to_owned(),
        value => value.to_string(),
    }
}

fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::Int(a), Value::Float(b)) | (Value::Float(b), Value::Int(a)) => *a as f64 == *b,
        (a, b) => a == b,
    }
}

fn compare(name: &str, a: &Value, b: &Value) -> Result<Value, String> {
    let number = |value: &Value| match value {
        Value::Int(number) => Some(*number as f64),
        Value::Float(number) => Some(*number),
        _ => None,
    };
    let order = match (a, b) {
        (Value::Text(a), Value::Text(b)) => Some(a.cmp(b)),
        _ => number(a).zip(number(b)).and_then(|(a, b)| a.partial_cmp(&b)),
    }
    .ok_or_else(|| format!("error calling {name}: incompatible types for comparison"))?;
    Ok(Value::Bool(match name {
        "lt" => order == Ordering::Less,
        "le" => order != Ordering::Greater,
        "gt" => order == Ordering::Greater,
        _ => order != Ordering::Less,
    }))
}

fn len(value: &Value) -> Result<Value, String> {
    let count = match value {
        Value::Text(text) => text.len(),
        Value::List(items) => items.len(),
        Value::Map(entries) => entries.len(),
        Value::Null => 0,
        other => return Err(format!("error calling len: len of {other}")),
    };
    Ok(Value::Int(i64::try_from(count).unwrap_or(i64::MAX)))
}

fn index(value: &Value, key: &Value) -> Result<Value, String> {
    match (value, key) {
        (Value::List(items), Value::Int(at)) => {
            usize::try_from(*at).ok().and_then(|at| items.get(at)).cloned().ok_or_else(|| {
                format!("error calling index: reflect: slice index out of range: {at}")
            })
        }
        (Value::Map(_), Value::Text(key)) => {
            // A missing text of a map of texts is "", as Go's zero value is.
            Ok(value.get(key).cloned().unwrap_or_else(|| zero(value)))
        }
        (Value::Null, _) => Err("error calling index: index of untyped nil".to_owned()),
        (other, key) => Err(format!("error calling index: can't index {other} with {key}")),
    }
}

fn zero(map: &Value) -> Value {
    match map.entries().first() {
        Some((_, Value::Text(_))) => Value::text(""),
        _ => Value::Null,
    }
}

fn slice(value: &Value, bounds: &[Value]) -> Result<Value, String> {
    let bound = |at: usize, otherwise: usize| match bounds.get(at) {
        Some(Value::Int(number)) => usize::try_from(*number).ok(),
        None => Some(otherwise),
        Some(_) => None,
    };
    let out_of_range = "error calling slice: index out of range";
    match value {
        Value::Text(text) => {
            let (from, to) = (bound(0, 0), bound(1, text.len()));
            let part = from.zip(to).and_then(|(from, to)| text.get(from..to));
            part.map(Value::from).ok_or_else(|| out_of_range.to_owned())
        }
        Value::List(items) => {
            let (from, to) = (bound(0, 0), bound(1, items.len()));
            let part = from.zip(to).and_then(|(from, to)| items.get(from..to));
            part.map(|part| Value::List(part.to_vec())).ok_or_else(|| out_of_range.to_owned())
        }
        _ => Err("error calling slice: can't slice item".to_owned()),
    }
}

/// Go's Sprint: a space between two operands when neither is a text.
fn print(values: &[Value]) -> String {
    let mut out = String::new();
    let mut after_text = true;
    for value in values {
        let is_text = matches!(value, Value::Text(_));
        if !after_text && !is_text {
            out.push(' ');
        }
        out.push_str(&shown(value));
        after_text = is_text;
    }
    out
}

fn title(text: &str) -> String {
    let mut start = true;
    text.chars()
        .flat_map(|c| {
            let up = start && c.is_alphabetic();
            start = !(c.is_alphanumeric() || c == '_' || c == '\'');
            if up { c.to_uppercase().collect::<Vec<char>>() } else { vec![c] }
        })
        .collect()
}

/// `%s %v %d %q %x %t %f %%` with flags `-0+`, width and precision.
fn printf(format: &str, arguments: &[Value]) -> String {
    let mut out = String::new();
    let mut arguments = arguments.iter();
    let mut chars = format.chars().peekable();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut spec = Spec::default();
        while let Some(flag) = chars.next_if(|c| matches!(c, '-' | '0' | '+' | ' ' | '#')) {
            spec.left |= flag == '-';
            spec.zero |= flag == '0';
            spec.plus |= flag == '+';
        }
        while let Some(digit) = chars.next_if(char::is_ascii_digit) {
            spec.width = spec.width * 10 + usize::try_from(u32::from(digit) - 48).unwrap_or(0);
        }
        if chars.next_if_eq(&'.').is_some() {
            let mut precision = 0;
            while let Some(digit) = chars.next_if(char::is_ascii_digit) {
                precision = precision * 10 + usize::try_from(u32::from(digit) - 48).unwrap_or(0);
            }
            spec.precision = Some(precision);
        }
        match chars.next() {
            Some('%') => out.push('%'),
            Some(verb) => match arguments.next() {
                Some(value) => out.push_str(&spec.apply(verb, value)),
                None => out.push_str(&format!("%!{verb}(MISSING)")),
            },
            None => out.push_str("%!(NOVERB)"),
        }
    }
    out
}

#[derive(Default)]
struct Spec {
    left: bool,
    zero: bool,
    plus: bool,
    width: usize,
    precision: Option<usize>,
}

impl Spec {
    fn apply(&self, verb: char, value: &Value) -> String {
        let body = match (verb, value) {
            ('d', Value::Int(number)) if self.plus => format!("{number:+}"),
            ('x', Value::Int(number)) => format!("{number:x}"),
            ('X', Value::Int(number)) => format!("{number:X}"),
            ('x', Value::Text(text)) => text.bytes().map(|byte| format!("{byte:02x}")).collect(),
            ('q', value) => {
                let mut quoted = String::new();
                super::quote_json(&shown(value), &mut quoted);
                quoted
            }
            ('f' | 'g' | 'e', Value::Float(number)) => {
                format!("{number:.*}", self.precision.unwrap_or(6))
            }
            ('f', Value::Int(number)) => {
                format!("{:.*}", self.precision.unwrap_or(6), *number as f64)
            }
            ('s', value) => {
                let text = shown(value);
                self.precision.map_or(text.clone(), |most| text.chars().take(most).collect())
            }
            (_, value) => shown(value),
        };
        let length = body.chars().count();
        let fill = self.width.saturating_sub(length);
        if self.left {
            return body + &" ".repeat(fill);
        }
        if self.zero && matches!(value, Value::Int(_) | Value::Float(_)) {
            return "0".repeat(fill) + &body;
        }
        " ".repeat(fill) + &body
    }
}
