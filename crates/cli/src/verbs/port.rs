//! `port`: where a container's ports are on the host.

use std::rc::Rc;

use capsa_api::encoding::encode;
use capsa_api::types::{ContainerInspect, PortBinding};

use super::Outcome;
use crate::failure::Failure;
use crate::flags::values::parse_uint;
use crate::flags::{Arity, Command, Matches};
use crate::output::out;
use crate::session::Session;

/// `capsa port`.
pub(crate) static PORT: Command = Command {
    names: &["container port", "port"],
    usage: "CONTAINER [PRIVATE_PORT[/PROTO]]",
    about: "Show where a container's ports are on the host",
    flags: &[],
    arity: Arity::Range(1, 2),
    interspersed: true,
    run: |session, matches| Box::pin(port(session, matches)),
};

async fn port(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let path = format!("/containers/{}/json", encode(matches.arg(0)));
    let shown: ContainerInspect = session.client()?.get(&path).await?;
    let ports = shown.network_settings.ports;
    let address = |binding: &PortBinding| match binding.host_ip.contains(':') {
        true => format!("[{}]:{}", binding.host_ip, binding.host_port),
        false => format!("{}:{}", binding.host_ip, binding.host_port),
    };
    if let Some(wanted) = matches.args.get(1) {
        let (number, protocol) = wanted.split_once('/').unwrap_or((wanted, "tcp"));
        parse_uint(number, 65535)
            .map_err(|why| Failure::said(format!("Error: invalid port ({number}): {why}")))?;
        let key = format!("{number}/{protocol}");
        let Some(Some(bindings)) =
            ports.get(&key).filter(|list| list.as_ref().is_some_and(|l| !l.is_empty()))
        else {
            return Err(Failure::said(format!(
                "Error: No public port '{key}' published for {}",
                matches.arg(0)
            )));
        };
        let lines: Vec<String> = bindings.iter().map(|binding| address(binding) + "\n").collect();
        out(lines.concat().as_bytes());
        return Ok(0);
    }
    let mut ports: Vec<_> = ports.into_iter().collect();
    ports.sort_by_key(|(key, _)| {
        let (number, protocol) = key.split_once('/').unwrap_or((key, ""));
        (number.parse::<u32>().unwrap_or(0), protocol.to_owned())
    });
    let mut text = String::new();
    for (key, bindings) in &ports {
        for binding in bindings.iter().flatten() {
            text.push_str(&format!("{key} -> {}\n", address(binding)));
        }
    }
    out(text.as_bytes());
    Ok(0)
}
