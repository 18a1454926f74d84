//! What will run: the request laid over the image's defaults.
//!
//! Pure. The rules are Docker's: a new entrypoint drops the image's command; the
//! request's environment replaces variable by variable; labels, exposed ports and
//! volumes add up.

use std::collections::BTreeMap;

use capsa_oci::{ExecConfig, signal};

use crate::spec::{ContainerSpec, Port, Protocol};
use crate::view::Resolved;
use crate::{Error, Result};

const DEFAULT_PATH: &str = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
const SIGTERM: i32 = 15;

/// Merges `spec` over `image`; `id` gives the default host name.
///
/// # Errors
/// When there is nothing to run, or a stop signal of the image is none.
pub(crate) fn resolve(spec: &ContainerSpec, image: &ExecConfig, id: &str) -> Result<Resolved> {
    let process = &spec.process;
    let entrypoint = chosen_entrypoint(process.entrypoint.as_ref(), image);
    let cmd = match (&process.cmd, &process.entrypoint) {
        (Some(cmd), _) => {
            Some(cmd.clone()).filter(|cmd| !cmd.is_empty() || process.entrypoint.is_some())
        }
        (None, Some(_)) => None,
        (None, None) => image.cmd.clone(),
    };
    let cmd = cmd.or_else(|| if process.entrypoint.is_none() { image.cmd.clone() } else { None });
    let mut words = entrypoint.iter().flatten().chain(cmd.iter().flatten());
    let path = words.next().cloned().unwrap_or_default();
    if path.is_empty() {
        return Err(Error::invalid("no command specified"));
    }
    let args = words.cloned().collect();
    let user = if process.user.is_empty() {
        image.user.clone().unwrap_or_default()
    } else {
        process.user.clone()
    };
    Ok(Resolved {
        path,
        args,
        env: merged_env(image.env.as_deref().unwrap_or_default(), &process.env),
        entrypoint,
        cmd,
        working_dir: working_dir(process.working_dir.as_deref(), image),
        user,
        labels: merged_labels(spec, image),
        exposed: exposed_ports(spec, image)?,
        volumes: volume_paths(spec, image),
        stop_signal: stop_signal(spec.stop_signal, image)?,
        hostname: spec.hostname.clone().unwrap_or_else(|| id[..12].to_owned()),
    })
}

/// Parses `80/tcp`; a bare number is TCP.
pub(crate) fn parse_port(text: &str) -> Result<Port> {
    let (number, protocol) = text.split_once('/').unwrap_or((text, "tcp"));
    let protocol = match protocol.to_ascii_lowercase().as_str() {
        "tcp" => Protocol::Tcp,
        "udp" => Protocol::Udp,
        "sctp" => Protocol::Sctp,
        other => {
            return Err(Error::invalid(format!(
                "invalid port {text:?}: unknown protocol {other:?}"
            )));
        }
    };
    let number = number.parse().map_err(|_| {
        Error::invalid(format!("invalid port {text:?}: want a number from 1 to 65535"))
    })?;
    Ok(Port { number, protocol })
}

/// An entrypoint of `[]` or `[""]` clears the image's.
fn chosen_entrypoint(asked: Option<&Vec<String>>, image: &ExecConfig) -> Option<Vec<String>> {
    match asked {
        Some(words) if words.iter().all(String::is_empty) => None,
        Some(words) => Some(words.clone()),
        None => image.entrypoint.clone(),
    }
}

fn working_dir(asked: Option<&str>, image: &ExecConfig) -> String {
    let image_dir = image.working_dir.as_deref();
    asked
        .filter(|d| !d.is_empty())
        .or(image_dir)
        .filter(|d| !d.is_empty())
        .unwrap_or("/")
        .to_owned()
}

/// The image's variables in their order, replaced or removed by the request's, then the new ones.
fn merged_env(image: &[String], asked: &[String]) -> Vec<String> {
    let mut env: Vec<String> = Vec::new();
    if !image.iter().chain(asked).any(|var| var.starts_with("PATH=")) {
        env.push(DEFAULT_PATH.to_owned());
    }
    for var in image.iter().chain(asked) {
        let key = var.split('=').next().unwrap_or_default();
        let at = env.iter().position(|have| have.split('=').next() == Some(key));
        match (at, var.contains('=')) {
            (Some(at), true) => env[at].clone_from(var),
            (None, true) => env.push(var.clone()),
            (Some(at), false) => drop(env.remove(at)),
            (None, false) => {}
        }
    }
    env
}

fn merged_labels(spec: &ContainerSpec, image: &ExecConfig) -> BTreeMap<String, String> {
    let mut labels = image.labels.clone().unwrap_or_default();
    labels.extend(spec.labels.clone());
    labels
}

fn exposed_ports(spec: &ContainerSpec, image: &ExecConfig) -> Result<Vec<Port>> {
    let mut ports = spec.network.exposed.clone();
    ports.extend(spec.network.published.iter().map(|publish| publish.port));
    for text in image.exposed_ports.iter().flat_map(BTreeMap::keys) {
        ports.push(parse_port(text)?);
    }
    ports.sort_unstable();
    ports.dedup();
    Ok(ports)
}

fn volume_paths(spec: &ContainerSpec, image: &ExecConfig) -> Vec<String> {
    let mut paths = spec.anonymous_volumes.clone();
    paths.extend(image.volumes.iter().flat_map(BTreeMap::keys).cloned());
    paths.sort_unstable();
    paths.dedup();
    paths
}

fn stop_signal(asked: Option<i32>, image: &ExecConfig) -> Result<i32> {
    match (asked, &image.stop_signal) {
        (Some(signal), _) => Ok(signal),
        (None, Some(name)) if !name.is_empty() => {
            signal::parse(name).map_err(|error| Error::invalid(error.to_string()))
        }
        _ => Ok(SIGTERM),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "0123456789abcdef";

    fn image(entrypoint: &[&str], cmd: &[&str]) -> ExecConfig {
        let words =
            |w: &[&str]| (!w.is_empty()).then(|| w.iter().map(ToString::to_string).collect());
        ExecConfig { entrypoint: words(entrypoint), cmd: words(cmd), ..ExecConfig::default() }
    }

    fn asked(entrypoint: Option<&[&str]>, cmd: Option<&[&str]>) -> ContainerSpec {
        let words = |w: &[&str]| w.iter().map(ToString::to_string).collect::<Vec<_>>();
        let mut spec = ContainerSpec::default();
        spec.process.entrypoint = entrypoint.map(words);
        spec.process.cmd = cmd.map(words);
        spec
    }

    fn line(spec: &ContainerSpec, image: &ExecConfig) -> String {
        let resolved = resolve(spec, image, ID).unwrap();
        [vec![resolved.path], resolved.args].concat().join(" ")
    }

    #[test]
    fn entrypoint_and_command_follow_dockers_table() {
        let image = image(&["/entry"], &["a", "b"]);
        assert_eq!(line(&asked(None, None), &image), "/entry a b");
        assert_eq!(line(&asked(None, Some(&["c"])), &image), "/entry c");
        assert_eq!(line(&asked(Some(&["/new"]), None), &image), "/new");
        assert_eq!(line(&asked(Some(&["/new"]), Some(&["c"])), &image), "/new c");
        assert_eq!(line(&asked(Some(&[""]), Some(&["c"])), &image), "c");
        let nothing = resolve(&asked(Some(&[""]), None), &image, ID);
        assert_eq!(nothing.unwrap_err().message, "no command specified");
    }

    #[test]
    fn the_environment_is_replaced_variable_by_variable() {
        let image = ["PATH=/bin".to_owned(), "A=1".to_owned(), "B=2".to_owned()];
        let asked = ["A=9".to_owned(), "B".to_owned(), "C=3".to_owned()];
        assert_eq!(merged_env(&image, &asked), ["PATH=/bin", "A=9", "C=3"]);
        assert_eq!(merged_env(&[], &[]), [DEFAULT_PATH]);
    }

    #[test]
    fn ports_need_a_number_and_a_known_protocol() {
        assert_eq!(parse_port("53/UDP").unwrap(), Port { number: 53, protocol: Protocol::Udp });
        assert!(parse_port("http").is_err());
        assert!(parse_port("80/icmp").is_err());
    }
}
