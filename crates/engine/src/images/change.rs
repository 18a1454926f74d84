//! Changes to an image's defaults in Dockerfile words: `--change` of commit and import.
//!
//! One instruction a line, those that only touch the config. Variables are not
//! expanded: the values are the user's own.

use capsa_oci::{Empty, ExecConfig};
use serde_json::{Map, Value, json};

use crate::{Error, Result};

const SHELL: [&str; 2] = ["/bin/sh", "-c"];

/// Applies `changes` in their order.
///
/// # Errors
/// `InvalidInput` naming the line that is no such instruction.
pub fn apply_changes(config: &mut ExecConfig, changes: &[String]) -> Result<()> {
    let mut cmd_was_set = false;
    for line in changes.iter().map(|line| line.trim()).filter(|line| !line.is_empty()) {
        let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        let (word, rest) = (word.to_ascii_uppercase(), rest.trim());
        let required = |what: &str| match rest {
            "" => Err(Error::invalid(format!("{word} requires {what}"))),
            rest => Ok(rest.to_owned()),
        };
        match word.as_str() {
            "CMD" => {
                config.cmd = Some(command(config, rest));
                cmd_was_set = true;
            }
            "ENTRYPOINT" => {
                config.entrypoint = Some(command(config, rest)).filter(|words| !words.is_empty());
                if !cmd_was_set {
                    config.cmd = None;
                }
            }
            "ENV" => pairs(rest, "ENV")?.into_iter().for_each(|(k, v)| set_env(config, &k, &v)),
            "LABEL" => config.labels.get_or_insert_default().extend(pairs(rest, "LABEL")?),
            "EXPOSE" => expose(config, &required("at least one argument")?)?,
            "ONBUILD" => on_build(config, required("at least one argument")?)?,
            "STOPSIGNAL" => config.stop_signal = Some(required("exactly one argument")?),
            "USER" => config.user = Some(required("exactly one argument")?),
            "VOLUME" => volumes(config, &required("at least one argument")?)?,
            "WORKDIR" => work_dir(config, &required("exactly one argument")?),
            "HEALTHCHECK" => config.healthcheck = Some(health(config, rest)?),
            _ => return Err(Error::invalid(format!("{word} is not a valid change command"))),
        }
    }
    Ok(())
}

/// A JSON list as it is; anything else is for the shell.
fn command(config: &ExecConfig, rest: &str) -> Vec<String> {
    if let Some(words) = json_words(rest) {
        return words;
    }
    if rest.is_empty() {
        return Vec::new();
    }
    let shell = config.shell.clone();
    let mut words = shell.unwrap_or_else(|| SHELL.map(str::to_owned).to_vec());
    words.push(rest.to_owned());
    words
}

fn json_words(rest: &str) -> Option<Vec<String>> {
    if rest.starts_with('[') { serde_json::from_str(rest).ok() } else { None }
}

/// `KEY=VALUE …` with quotes, or one `KEY VALUE`.
fn pairs(rest: &str, word: &str) -> Result<Vec<(String, String)>> {
    let bad = || Error::invalid(format!("{word} must have two arguments"));
    let words = words(rest)?;
    let first = words.first().ok_or_else(bad)?;
    if !first.contains('=') {
        let (key, value) = rest.split_once(char::is_whitespace).ok_or_else(bad)?;
        return Ok(vec![(key.to_owned(), value.trim().to_owned())]);
    }
    words
        .iter()
        .map(|pair| match pair.split_once('=') {
            Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
            _ => Err(Error::invalid(format!(
                "Syntax error - can't find = in {pair:?}. Must be of the form: name=value"
            ))),
        })
        .collect()
}

/// Words between blanks; quotes and backslashes as in a shell.
fn words(text: &str) -> Result<Vec<String>> {
    let (mut words, mut word, mut quote) = (Vec::new(), None::<String>, None);
    let mut chars = text.chars();
    while let Some(c) = chars.next() {
        match (c, quote) {
            ('\'' | '"', None) => {
                quote = Some(c);
                word.get_or_insert_default();
            }
            (c, Some(open)) if c == open => quote = None,
            ('\\', None | Some('"')) => word.get_or_insert_default().extend(chars.next()),
            (c, None) if c.is_whitespace() => words.extend(word.take()),
            (c, _) => word.get_or_insert_default().push(c),
        }
    }
    if quote.is_some() {
        return Err(Error::invalid(format!(
            "unexpected end of statement while looking for a quote: {text}"
        )));
    }
    words.extend(word);
    Ok(words)
}

fn set_env(config: &mut ExecConfig, key: &str, value: &str) {
    let env = config.env.get_or_insert_default();
    let line = format!("{key}={value}");
    let known = env.iter_mut().find(|old| old.split('=').next() == Some(key));
    match known {
        Some(old) => *old = line,
        None => env.push(line),
    }
}

/// `80`, `53/udp`, `8000-8010/tcp`.
fn expose(config: &mut ExecConfig, rest: &str) -> Result<()> {
    for spec in rest.split_whitespace() {
        let bad = || Error::invalid(format!("invalid containerPort: {spec}"));
        let (range, protocol) = spec.split_once('/').unwrap_or((spec, "tcp"));
        let protocol = protocol.to_ascii_lowercase();
        if !matches!(protocol.as_str(), "tcp" | "udp" | "sctp") {
            return Err(Error::invalid(format!("invalid proto: {protocol}")));
        }
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let port = |text: &str| text.parse::<u16>().map_err(|_| bad());
        let (first, last) = (port(first)?, port(last)?);
        if first > last {
            return Err(bad());
        }
        let ports = config.exposed_ports.get_or_insert_default();
        ports.extend((first..=last).map(|port| (format!("{port}/{protocol}"), Empty {})));
    }
    Ok(())
}

fn on_build(config: &mut ExecConfig, trigger: String) -> Result<()> {
    let word = trigger.split_whitespace().next().unwrap_or_default().to_ascii_uppercase();
    match word.as_str() {
        "ONBUILD" => Err(Error::invalid("Chaining ONBUILD via `ONBUILD ONBUILD` isn't allowed")),
        "MAINTAINER" | "FROM" => {
            Err(Error::invalid(format!("{word} isn't allowed as an ONBUILD trigger")))
        }
        _ => {
            config.on_build.get_or_insert_default().push(trigger);
            Ok(())
        }
    }
}

fn volumes(config: &mut ExecConfig, rest: &str) -> Result<()> {
    let paths = match json_words(rest) {
        Some(paths) => paths,
        None => words(rest)?,
    };
    if paths.iter().any(String::is_empty) {
        return Err(Error::invalid("VOLUME specified can not be an empty string"));
    }
    let volumes = config.volumes.get_or_insert_default();
    volumes.extend(paths.into_iter().map(|path| (path, Empty {})));
    Ok(())
}

/// Relative to the directory before, cleaned.
fn work_dir(config: &mut ExecConfig, path: &str) {
    let before = config.working_dir.as_deref().unwrap_or("/");
    let whole = if path.starts_with('/') { path.to_owned() } else { format!("{before}/{path}") };
    let mut parts = Vec::new();
    for part in whole.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    config.working_dir = Some(format!("/{}", parts.join("/")));
}

/// `NONE`, or options and `CMD`; durations are nanoseconds in the config.
fn health(config: &ExecConfig, rest: &str) -> Result<Value> {
    if rest.eq_ignore_ascii_case("none") {
        return Ok(json!({"Test": ["NONE"]}));
    }
    let (mut check, mut rest) = (Map::new(), rest);
    while rest.starts_with("--") {
        let (option, after) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
        rest = after.trim();
        let (name, value) = option[2..].split_once('=').unwrap_or((&option[2..], ""));
        let (key, value) = match name {
            "interval" => ("Interval", json!(duration(value)?)),
            "timeout" => ("Timeout", json!(duration(value)?)),
            "start-period" => ("StartPeriod", json!(duration(value)?)),
            "start-interval" => ("StartInterval", json!(duration(value)?)),
            "retries" => ("Retries", json!(retries(value)?)),
            _ => return Err(Error::invalid(format!("unknown flag: {name}"))),
        };
        check.insert(key.to_owned(), value);
    }
    let (word, rest) = rest.split_once(char::is_whitespace).unwrap_or((rest, ""));
    if !word.eq_ignore_ascii_case("cmd") {
        return Err(Error::invalid(format!("Unknown type {word:?} in HEALTHCHECK (try CMD)")));
    }
    let test = match json_words(rest.trim()) {
        Some(words) => [vec!["CMD".to_owned()], words].concat(),
        None if config.shell.is_some() => {
            [vec!["CMD".to_owned()], command(config, rest.trim())].concat()
        }
        None => vec!["CMD-SHELL".to_owned(), rest.trim().to_owned()],
    };
    if test.len() < 2 || test[1].is_empty() {
        return Err(Error::invalid("Missing command after HEALTHCHECK CMD"));
    }
    check.insert("Test".to_owned(), json!(test));
    Ok(Value::Object(check))
}

fn retries(value: &str) -> Result<u32> {
    value.parse().map_err(|_| Error::invalid(format!("--retries: {value:?} is not a number")))
}

/// `1h30m`, `1.5s`, `300ms` in nanoseconds.
fn duration(text: &str) -> Result<i64> {
    let bad = || Error::invalid(format!("time: invalid duration {text:?}"));
    let (mut total, mut rest) = (0.0, text);
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit() && c != '.').ok_or_else(bad)?;
        let value: f64 = rest[..digits].parse().map_err(|_| bad())?;
        rest = &rest[digits..];
        let unit = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let scale = match &rest[..unit] {
            "ns" => 1.0,
            "us" | "µs" => 1e3,
            "ms" => 1e6,
            "s" => 1e9,
            "m" => 60e9,
            "h" => 3600e9,
            _ => return Err(bad()),
        };
        total += value * scale;
        rest = &rest[unit..];
    }
    if text.is_empty() || !(0.0..9e18).contains(&total) {
        return Err(bad());
    }
    #[expect(clippy::cast_possible_truncation, reason = "within range by the check above")]
    Ok(total as i64)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn changed(lines: &[&str]) -> Result<Value> {
        let mut config = ExecConfig { cmd: Some(vec!["old".into()]), ..ExecConfig::default() };
        let lines: Vec<String> = lines.iter().map(|line| (*line).to_owned()).collect();
        apply_changes(&mut config, &lines)?;
        Ok(serde_json::to_value(config).unwrap())
    }

    #[test]
    fn each_instruction_changes_its_field() {
        for (line, key, value) in [
            ("CMD [\"a\", \"b c\"]", "Cmd", json!(["a", "b c"])),
            ("cmd echo $HOME", "Cmd", json!(["/bin/sh", "-c", "echo $HOME"])),
            ("ENTRYPOINT [\"x\"]", "Entrypoint", json!(["x"])),
            ("ENV A=1 B=\"2 3\" C='4'", "Env", json!(["A=1", "B=2 3", "C=4"])),
            ("ENV A some value", "Env", json!(["A=some value"])),
            ("LABEL a.b=\"c d\" e=", "Labels", json!({"a.b": "c d", "e": ""})),
            (
                "EXPOSE 80 53/udp 90-91",
                "ExposedPorts",
                json!({"80/tcp": {}, "53/udp": {}, "90/tcp": {}, "91/tcp": {}}),
            ),
            ("VOLUME [\"/a\"]", "Volumes", json!({"/a": {}})),
            ("VOLUME /a /b", "Volumes", json!({"/a": {}, "/b": {}})),
            ("WORKDIR a/../b", "WorkingDir", json!("/b")),
            ("USER 1:2", "User", json!("1:2")),
            ("STOPSIGNAL SIGINT", "StopSignal", json!("SIGINT")),
            ("ONBUILD RUN make", "OnBuild", json!(["RUN make"])),
            ("HEALTHCHECK NONE", "Healthcheck", json!({"Test": ["NONE"]})),
            (
                "HEALTHCHECK --interval=1m30s --retries=3 CMD curl -f x",
                "Healthcheck",
                json!({"Interval": 90_000_000_000_i64, "Retries": 3, "Test": ["CMD-SHELL", "curl -f x"]}),
            ),
        ] {
            assert_eq!(changed(&[line]).unwrap()[key], value, "{line}");
        }
    }

    #[test]
    fn an_entrypoint_takes_back_the_command_unless_one_was_just_set() {
        assert_eq!(changed(&["ENTRYPOINT x"]).unwrap()["Cmd"], Value::Null);
        assert_eq!(changed(&["CMD [\"y\"]", "ENTRYPOINT x"]).unwrap()["Cmd"], json!(["y"]));
        let env = changed(&["ENV A=1", "ENV A=2 B=3"]).unwrap()["Env"].clone();
        assert_eq!(env, json!(["A=2", "B=3"]));
    }

    #[test]
    fn what_is_no_change_is_refused() {
        for bad in [
            "RUN ls",
            "ENV A",
            "EXPOSE x",
            "EXPOSE 2-1",
            "ONBUILD FROM x",
            "HEALTHCHECK foo",
            "ENV A=\"1",
            "WORKDIR",
            "HEALTHCHECK --interval=5 CMD x",
            "LABEL a=1 b",
        ] {
            assert!(changed(&[bad]).is_err(), "{bad}");
        }
    }
}
