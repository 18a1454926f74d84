//! Variables and labels, from flags and from files.

use std::collections::BTreeMap;
use std::env;

use crate::failure::{Failure, Result};
use crate::flags::Matches;

/// Says whether `-e` makes sense.
pub(super) fn check_variable(text: &str) -> Result<(), String> {
    match text.starts_with('=') {
        true => Err(format!("invalid environment variable: {text}")),
        false => Ok(()),
    }
}

/// Says whether `-a` names a stream.
pub(super) fn check_stream(text: &str) -> Result<(), String> {
    let known = ["stdin", "stdout", "stderr"];
    match known.contains(&text.to_lowercase().as_str()) {
        true => Ok(()),
        false => Err("valid streams are STDIN, STDOUT and STDERR".to_owned()),
    }
}

/// Variables of the files and then of the flags; a bare name takes its value from our
/// own environment, and stays bare when it has none there.
pub(crate) fn variables(matches: &Matches) -> Result<Vec<String>> {
    let mut variables = Vec::new();
    for path in matches.list("env-file") {
        for line in lines(path)? {
            let (key, value) = match line.split_once('=') {
                Some((key, value)) => (key, Some(value)),
                None => (line.as_str(), None),
            };
            check_key(key, path)?;
            match value {
                Some(_) => variables.push(line.clone()),
                None => variables.extend(own(key).map(|value| format!("{key}={value}"))),
            }
        }
    }
    for text in matches.list("env") {
        let bare = !text.contains('=');
        match own(text).filter(|_| bare) {
            Some(value) => variables.push(format!("{text}={value}")),
            None => variables.push(text.to_owned()),
        }
    }
    Ok(variables)
}

/// Labels of the files and then of the flags.
pub(crate) fn labels(matches: &Matches) -> Result<BTreeMap<String, String>> {
    let mut labels = BTreeMap::new();
    for path in matches.list("label-file") {
        for line in lines(path)? {
            if let Some((key, value)) = line.split_once('=') {
                check_key(key, path)?;
                labels.insert(key.to_owned(), value.to_owned());
            }
        }
    }
    labels.extend(map(&matches.list("label")));
    Ok(labels)
}

/// `KEY=VALUE` texts as a map; a bare key has no value.
pub(crate) fn map(texts: &[&str]) -> BTreeMap<String, String> {
    texts
        .iter()
        .map(|text| text.split_once('=').unwrap_or((text, "")))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn own(key: &str) -> Option<String> {
    env::var_os(key).map(|value| value.to_string_lossy().into_owned())
}

/// The lines that say something: no comments, no leading space.
fn lines(path: &str) -> Result<Vec<String>> {
    let bytes = std::fs::read(path).map_err(|error| Failure::io("open", path, &error))?;
    let text = String::from_utf8(bytes)
        .map_err(|_| Failure::said(format!("invalid utf8 bytes in env file '{path}'")))?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
    Ok(text
        .lines()
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
        .map(str::to_owned)
        .collect())
}

fn check_key(key: &str, path: &str) -> Result<()> {
    if key.is_empty() {
        return Err(Failure::said(format!("invalid env file ({path}): no variable name on line")));
    }
    if key.contains(char::is_whitespace) {
        return Err(Failure::said(format!(
            "invalid env file ({path}): variable '{key}' contains whitespaces"
        )));
    }
    Ok(())
}
