//! `inspect`: everything the daemon knows of an object, as it says it.
//!
//! The daemon's JSON is indented, not read and written again: keys keep their
//! order and no number is rounded.

use std::rc::Rc;

use capsa_api::encoding::encode;
use capsa_api::{Client, ClientError, Payload};
use hyper::Method;

use super::Outcome;
use super::images::image_path;
use crate::failure::{Failure, Result};
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::{note, out};
use crate::session::Session;
use crate::template::{Missing, Template, Value};

const FORMAT: Flag =
    Flag::text("format", "json, or a template such as '{{.State.Status}}'").short('f');
const SIZE: Flag = Flag::switch("size", "Show the sizes of containers too").short('s');
const USAGE: &str = "[OPTIONS] NAME|ID [NAME|ID...]";

/// `capsa inspect`.
pub(crate) static ANY: Command = Command {
    names: &["inspect"],
    usage: USAGE,
    about: "Show all there is to know of objects of any kind",
    flags: &[&[
        FORMAT,
        SIZE,
        Flag::text("type", "Only this kind: container, image, volume, network"),
    ]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(any(session, matches)),
};

/// `capsa container inspect`.
pub(crate) static CONTAINER: Command = Command {
    names: &["container inspect"],
    usage: USAGE,
    about: "Show all there is to know of containers",
    flags: &[&[FORMAT, SIZE]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Container])),
};

/// `capsa image inspect`.
pub(crate) static IMAGE: Command = Command {
    names: &["image inspect"],
    usage: USAGE,
    about: "Show all there is to know of images",
    flags: &[&[FORMAT, Flag::text("platform", "Platform of the image")]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Image])),
};

/// `capsa volume inspect`.
pub(crate) static VOLUME: Command = Command {
    names: &["volume inspect"],
    usage: USAGE,
    about: "Show all there is to know of volumes",
    flags: &[&[FORMAT]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Volume])),
};

/// `capsa network inspect`.
pub(crate) static NETWORK: Command = Command {
    names: &["network inspect"],
    usage: USAGE,
    about: "Show all there is to know of networks",
    flags: &[&[FORMAT, Flag::switch("verbose", "Accepted for compatibility").short('v')]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(inspect(session, matches, &[Kind::Network])),
};

/// A kind of object.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Container,
    Image,
    Network,
    Volume,
}

const KINDS: [(&str, Kind); 4] = [
    ("container", Kind::Container),
    ("image", Kind::Image),
    ("network", Kind::Network),
    ("volume", Kind::Volume),
];

impl Kind {
    fn path(self, name: &str, size: bool) -> String {
        match self {
            Self::Container if size => format!("/containers/{}/json?size=1", encode(name)),
            Self::Container => format!("/containers/{}/json", encode(name)),
            Self::Image => format!("/images/{}/json", image_path(name)),
            Self::Network => format!("/networks/{}", encode(name)),
            Self::Volume => format!("/volumes/{}", encode(name)),
        }
    }
}

async fn any(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let wanted = matches.text_or_empty("type");
    match KINDS.iter().find(|(name, _)| *name == wanted) {
        Some((_, kind)) => inspect(session, matches, &[*kind]).await,
        None if wanted.is_empty() => {
            let every = [Kind::Container, Kind::Image, Kind::Network, Kind::Volume];
            inspect(session, matches, &every).await
        }
        None => Err(Failure::said(format!("{wanted:?} is not a valid value for --type"))),
    }
}

async fn inspect(session: Rc<Session>, matches: Rc<Matches>, kinds: &[Kind]) -> Outcome {
    let asked = matches.text("format").filter(|text| !text.is_empty());
    let template = match asked {
        None | Some("json") => None,
        Some(text) => {
            let text = text.replace("\\t", "\t").replace("\\n", "\n");
            Some(Template::parse(&text).map_err(|why| Failure::new(64, why))?)
        }
    };
    let client = session.client()?;
    let mut shown = Vec::new();
    let mut failures = Vec::new();
    for name in &matches.args {
        match find(client, name, kinds, matches.flag("size")).await {
            Ok(json) => shown.push(json),
            Err(failure) if failure.remedy.is_some() => return Err(failure),
            Err(failure) => failures.push(failure.text),
        }
    }
    match &template {
        None => {
            let list = format!("[{}]", shown.join(","));
            out(if asked.is_some() { format!("{list}\n") } else { indent(&list) }.as_bytes());
        }
        Some(template) => failures.extend(fill_in(template, &shown)),
    }
    for text in &failures {
        note(text);
    }
    Ok(u8::from(!failures.is_empty()))
}

/// Prints each object through the template; what went wrong comes back.
fn fill_in(template: &Template, objects: &[String]) -> Vec<String> {
    let mut text = String::new();
    let mut failures = Vec::new();
    for json in objects {
        let filled = serde_json::from_str::<Value>(json)
            .map_err(|error| error.to_string())
            .and_then(|value| template.render(&value, Missing::Error));
        match filled {
            Ok(line) => text.push_str(&line),
            Err(why) => failures.push(why),
        }
        text.push('\n');
    }
    out(text.as_bytes());
    failures
}

/// The first kind that has such an object.
async fn find(client: &Client, name: &str, kinds: &[Kind], size: bool) -> Result<String> {
    let mut last = None;
    for kind in kinds {
        match client.bytes(Method::GET, &kind.path(name, size), Payload::Empty).await {
            Ok(bytes) => return Ok(String::from_utf8_lossy(&bytes).trim().to_owned()),
            Err(error) if goes_on(&error) => last = Some(error),
            Err(error) => return Err(error.into()),
        }
    }
    match (kinds, last) {
        ([_], Some(error)) => Err(error.into()),
        _ => Err(Failure::said(format!("error: no such object: {name}"))),
    }
}

/// Not this kind of object: look for the next.
fn goes_on(error: &ClientError) -> bool {
    match error {
        ClientError::Api { status: 404 | 501, .. } => true,
        ClientError::Api { status: 400, message } => message.contains("invalid reference format"),
        _ => false,
    }
}

/// JSON with four spaces for each level, otherwise as it is.
pub(crate) fn indent(json: &str) -> String {
    let mut out = String::with_capacity(json.len() * 2);
    let mut depth = 0usize;
    let mut chars = json.chars().peekable();
    let break_line = |out: &mut String, depth: usize| {
        out.push('\n');
        out.extend(std::iter::repeat_n("    ", depth));
    };
    while let Some(c) = chars.next() {
        match c {
            '"' => {
                out.push(c);
                copy_text(&mut chars, &mut out);
            }
            '{' | '[' => {
                out.push(c);
                while chars.next_if(|next| next.is_whitespace()).is_some() {}
                if let Some(end) = chars.next_if(|next| matches!(next, '}' | ']')) {
                    out.push(end);
                } else {
                    depth += 1;
                    break_line(&mut out, depth);
                }
            }
            '}' | ']' => {
                depth = depth.saturating_sub(1);
                break_line(&mut out, depth);
                out.push(c);
            }
            ',' => {
                out.push(c);
                break_line(&mut out, depth);
            }
            ':' => out.push_str(": "),
            c if c.is_whitespace() => {}
            c => out.push(c),
        }
    }
    out.push('\n');
    out
}

/// Copies the rest of a string, its closing quote included.
fn copy_text(chars: &mut std::iter::Peekable<std::str::Chars<'_>>, out: &mut String) {
    while let Some(c) = chars.next() {
        out.push(c);
        match c {
            '"' => return,
            '\\' => out.extend(chars.next()),
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_indented_without_being_changed() {
        let json = r#"[{"b":1.50,"a":[],"c":{ },"t":"x, {\"y\"}","d":[1,2]}]"#;
        let want = "[\n    {\n        \"b\": 1.50,\n        \"a\": [],\n        \"c\": {},\n        \"t\": \"x, {\\\"y\\\"}\",\n        \"d\": [\n            1,\n            2\n        ]\n    }\n]\n";
        assert_eq!(indent(json), want);
        assert_eq!(indent("[]"), "[]\n");
    }
}
