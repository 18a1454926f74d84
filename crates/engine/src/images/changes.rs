//! Dockerfile instructions that change an image's config (`commit --change`, `import --change`).

use std::collections::BTreeMap;

use capsa_oci::{Empty, ExecConfig, signal};

use crate::container::resolve::parse_port;
use crate::{Error, Result};

/// Applies one instruction.
///
/// # Errors
/// `InvalidInput` for an instruction that is not known or not allowed here.
pub(super) fn apply(config: &mut ExecConfig, instruction: &str) -> Result<()> {
    let text = instruction.trim();
    let (keyword, rest) = text.split_once(char::is_whitespace).unwrap_or((text, ""));
    let rest = rest.trim();
    let keyword = keyword.to_ascii_uppercase();
    if rest.is_empty() {
        return Err(Error::invalid(format!("{keyword} requires at least one argument")));
    }
    match keyword.as_str() {
        "CMD" => config.cmd = Some(command(rest)),
        "ENTRYPOINT" => config.entrypoint = Some(command(rest)),
        "ENV" => set_env(config.env.get_or_insert_default(), rest)?,
        "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest)?),
        "EXPOSE" => {
            for word in words(rest) {
                let port = parse_port(&word)?.to_string();
                config.exposed_ports.get_or_insert_default().insert(port, Empty {});
            }
        }
        "VOLUME" => {
            let paths = json_words(rest).unwrap_or_else(|| words(rest));
            let volumes: &mut BTreeMap<_, _> = config.volumes.get_or_insert_default();
            volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
        }
        "USER" => config.user = Some(rest.to_owned()),
        "WORKDIR" => config.working_dir = Some(working_dir(config.working_dir.as_deref(), rest)),
        "STOPSIGNAL" => {
            signal::parse(rest).map_err(|error| Error::invalid(error.to_string()))?;
            config.stop_signal = Some(rest.to_owned());
        }
        "ONBUILD" => config.on_build.get_or_insert_default().push(rest.to_owned()),
        other => {
            return Err(Error::invalid(format!("{other} is not a valid change command")).with_hint(
                "known are CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, ONBUILD, STOPSIGNAL, USER, VOLUME, WORKDIR",
            ));
        }
    }
    Ok(())
}

/// The JSON form, or the shell form.
fn command(text: &str) -> Vec<String> {
    json_words(text).unwrap_or_else(|| vec!["/bin/sh".to_owned(), "-c".to_owned(), text.to_owned()])
}

fn json_words(text: &str) -> Option<Vec<String>> {
    text.starts_with('[').then(|| serde_json::from_str(text).ok()).flatten()
}

fn working_dir(present: Option<&str>, asked: &str) -> String {
    match (asked.starts_with('/'), present) {
        (false, Some(present)) => format!("{}/{asked}", present.trim_end_matches('/')),
        (false, None) => format!("/{asked}"),
        (true, _) => asked.to_owned(),
    }
}

fn set_env(env: &mut Vec<String>, text: &str) -> Result<()> {
    for (key, value) in pairs(text)? {
        let prefix = format!("{key}=");
        env.retain(|var| !var.starts_with(&prefix));
        env.push(format!("{prefix}{value}"));
    }
    Ok(())
}

/// `a=1 b="two words"`, or the old form `a one value`.
fn pairs(text: &str) -> Result<Vec<(String, String)>> {
    let words = words(text);
    let first = words.first().map(String::as_str).unwrap_or_default();
    if !first.contains('=') {
        let (key, value) = text
            .split_once(char::is_whitespace)
            .ok_or_else(|| Error::invalid(format!("{text:?} must have the form name=value")))?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|word| {
            word.split_once('=')
                .map(|(key, value)| (key.to_owned(), value.to_owned()))
                .ok_or_else(|| Error::invalid(format!("{word:?} must have the form name=value")))
        })
        .collect()
}

/// Words at blanks, with quotes and backslashes taken as a shell does.
fn words(text: &str) -> Vec<String> {
    let mut words = Vec::new();
    let mut word: Option<String> = None;
    let mut quote = None;
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (quote, c) {
            (None, c) if c.is_whitespace() => words.extend(word.take()),
            (None, '\'' | '"') => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (Some(open), c) if c == open => quote = None,
            (None | Some('"'), '\\') => word.get_or_insert_default().extend(chars.next()),
            (_, c) => word.get_or_insert_default().push(c),
        }
    }
    words.extend(word);
    words
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(instructions: &[&str]) -> ExecConfig {
        let mut config = ExecConfig::default();
        for instruction in instructions {
            apply(&mut config, instruction).unwrap();
        }
        config
    }

    #[test]
    fn each_instruction_changes_its_field() {
        let config = changed(&[
            r#"CMD ["a", "b"]"#,
            "entrypoint run it",
            r#"ENV A=1 B="two words""#,
            "ENV A 3",
            "EXPOSE 80 53/udp",
            "WORKDIR /x",
            "WORKDIR y",
            "LABEL k=v",
            "VOLUME /data",
            "STOPSIGNAL SIGINT",
        ]);
        assert_eq!(config.cmd.unwrap(), ["a", "b"]);
        assert_eq!(config.entrypoint.unwrap(), ["/bin/sh", "-c", "run it"]);
        assert_eq!(config.env.unwrap(), ["B=two words", "A=3"]);
        let ports: Vec<_> = config.exposed_ports.unwrap().into_keys().collect();
        assert_eq!(ports, ["53/udp", "80/tcp"]);
        assert_eq!(config.working_dir.unwrap(), "/x/y");
        assert_eq!(config.labels.unwrap()["k"], "v");
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in ["FROM x", "RUN y", "CMD", "STOPSIGNAL nope", "EXPOSE http", "LABEL novalue"] {
            assert!(apply(&mut ExecConfig::default(), bad).is_err(), "{bad}");
        }
    }
}
