//! A container as a line of the list.

use std::collections::BTreeMap;

use capsa_api::Version;
use capsa_api::types::{ContainerSummary, Port, SummaryHostConfig, SummaryNetworks};
use capsa_engine::view::{ContainerView, Phase};

use super::{echo, inspect, ports};
use crate::time;

const NS: i64 = 1_000_000_000;

/// One line; `now_ns` for "how long ago".
pub(crate) fn summary(view: &ContainerView, version: Version, now_ns: i64) -> ContainerSummary {
    let echo = echo::read(&view.spec.echo);
    let network_mode =
        echo.host.get("NetworkMode").and_then(|mode| mode.as_str()).unwrap_or_default();
    ContainerSummary {
        id: view.id.clone(),
        names: vec![format!("/{}", view.name)],
        image: view.spec.image.clone(),
        image_id: view.image_id.to_string(),
        command: command(view),
        created: view.created_ns.div_euclid(NS),
        ports: port_list(view),
        size_rw: view.size.map_or(0, |size| inspect::signed(size.writable)),
        size_root_fs: view.size.map_or(0, |size| inspect::signed(size.total)),
        labels: view.resolved.labels.clone(),
        state: inspect::status(view).to_owned(),
        status: status(view, now_ns),
        host_config: SummaryHostConfig {
            network_mode: network_mode.to_owned(),
            annotations: if version.at_least(46) {
                view.spec.annotations.clone()
            } else {
                BTreeMap::new()
            },
        },
        network_settings: SummaryNetworks {
            networks: inspect::networks(view, &echo.endpoints, version),
        },
        mounts: view.mounts.iter().map(inspect::mount).collect(),
    }
}

/// The status column: `Up 5 seconds (Paused)`, `Exited (0) 2 hours ago`, …
fn status(view: &ContainerView, now_ns: i64) -> String {
    let since = |ns: i64| time::ago(now_ns.saturating_sub(ns));
    match view.phase {
        Phase::Running => format!("Up {}", since(view.started_ns)),
        Phase::Paused => format!("Up {} (Paused)", since(view.started_ns)),
        Phase::Removing => "Removal In Progress".to_owned(),
        Phase::Creating | Phase::Created => "Created".to_owned(),
        Phase::Stopped if view.restarting => {
            format!("Restarting ({}) {} ago", view.exit_code, since(view.finished_ns))
        }
        Phase::Stopped if view.started_ns == 0 => "Created".to_owned(),
        Phase::Stopped => format!("Exited ({}) {} ago", view.exit_code, since(view.finished_ns)),
    }
}

/// Program and arguments; those with spaces in quotes.
fn command(view: &ContainerView) -> String {
    let mut text = view.resolved.path.clone();
    for argument in &view.resolved.args {
        text.push(' ');
        if argument.contains(' ') {
            text.extend(["'", argument, "'"]);
        } else {
            text.push_str(argument);
        }
    }
    text
}

fn port_list(view: &ContainerView) -> Vec<Port> {
    if !matches!(view.phase, Phase::Running | Phase::Paused) {
        return Vec::new();
    }
    let published = view.ports.iter().map(|bound| Port {
        ip: bound.host_ip.to_string(),
        private_port: bound.port.number,
        public_port: bound.host_port,
        kind: ports::protocol_name(bound.port.protocol).to_owned(),
    });
    let exposed = view
        .resolved
        .exposed
        .iter()
        .filter(|port| !view.ports.iter().any(|bound| bound.port == **port))
        .map(|port| Port {
            private_port: port.number,
            kind: ports::protocol_name(port.protocol).to_owned(),
            ..Port::default()
        });
    published.chain(exposed).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::convert::inspect::tests::view;

    #[test]
    fn a_line_has_dockers_shape() {
        let shown = summary(&view(Phase::Running), Version::MAX, 7 * NS);
        let value = serde_json::to_value(shown).unwrap();
        assert_eq!(value["Names"], json!(["/web"]));
        assert_eq!(value["Command"], "sh -c 'echo hi'");
        assert_eq!((&value["Created"], &value["Status"]), (&json!(1), &json!("Up 5 seconds")));
        assert_eq!(
            value["Ports"],
            json!([
                {"IP": "0.0.0.0", "PrivatePort": 80, "PublicPort": 8080, "Type": "tcp"},
                {"PrivatePort": 90, "Type": "tcp"},
            ])
        );
        assert_eq!(value["HostConfig"], json!({"NetworkMode": "bridge"}));
        assert_eq!((&value["Mounts"], &value["Labels"]), (&json!([]), &json!({})));
        assert!(value.get("SizeRw").is_none());
    }

    #[test]
    fn the_status_says_where_a_container_is() {
        let text = |change: fn(&mut ContainerView)| {
            let mut view = view(Phase::Running);
            change(&mut view);
            status(&view, 3602 * NS)
        };
        assert_eq!(text(|v| v.phase = Phase::Paused), "Up About an hour (Paused)");
        assert_eq!(text(|v| v.phase = Phase::Created), "Created");
        let ended =
            text(|v| (v.phase, v.exit_code, v.finished_ns) = (Phase::Stopped, 137, 3600 * NS));
        assert_eq!(ended, "Exited (137) 2 seconds ago");
        let again = text(|v| {
            (v.phase, v.restarting, v.exit_code, v.finished_ns) =
                (Phase::Stopped, true, 1, 3601 * NS);
        });
        assert_eq!(again, "Restarting (1) 1 second ago");
    }
}
