//! `ps`: the list of containers.

use std::rc::Rc;

use capsa_api::encoding::with_query;
use capsa_api::types::{ContainerSummary, Port, StringMap};

use super::{Outcome, filters};
use crate::failure::Result;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::format::{Format, Titles, row};
use crate::output::time::{absolute, ago};
use crate::output::units::{ellipsis, human_size, short_id};
use crate::session::Session;
use crate::template::{Value, quote_json};

/// `capsa ps`.
pub(crate) static PS: Command = Command {
    names: &["container ls", "container list", "container ps", "ps"],
    usage: "[OPTIONS]",
    about: "List containers",
    flags: &[&[
        Flag::switch("all", "Show those that don't run too").short('a'),
        Flag::filter("Show only those for which KEY=VALUE holds"),
        Flag::text("format", "table, json, or a template such as '{{.ID}}: {{.Names}}'"),
        Flag::int("last", "Show so many of the newest, running or not").short('n'),
        Flag::switch("latest", "Show the newest, running or not").short('l'),
        Flag::switch("no-trunc", "Don't shorten"),
        Flag::switch("quiet", "Show only ids").short('q'),
        Flag::switch("size", "Show sizes").short('s'),
    ]],
    arity: Arity::None,
    interspersed: true,
    run: |session, matches| Box::pin(ps(session, matches)),
};

const TITLES: Titles = &[
    ("ID", "CONTAINER ID"),
    ("Names", "NAMES"),
    ("Image", "IMAGE"),
    ("Command", "COMMAND"),
    ("CreatedAt", "CREATED AT"),
    ("RunningFor", "CREATED"),
    ("Ports", "PORTS"),
    ("State", "STATE"),
    ("Status", "STATUS"),
    ("Size", "SIZE"),
    ("Labels", "LABELS"),
    ("Label", "LABEL"),
    ("Mounts", "MOUNTS"),
    ("LocalVolumes", "LOCAL VOLUMES"),
    ("Networks", "NETWORKS"),
    ("Platform", "PLATFORM"),
];

async fn ps(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let asked = matches.text("format").or_else(|| session.config().format("psFormat"));
    let quiet = matches.flag("quiet");
    let size = matches.flag("size");
    let needs_size = size || (!quiet && asked.is_some_and(|text| text.contains(".Size")));
    let last =
        if matches.flag("latest") { Some(1) } else { matches.int("last").filter(|n| *n > 0) };
    let last = last.map(|count| count.to_string());
    let filter = filters(&matches);
    let mut query = Vec::new();
    if matches.flag("all") || last.is_some() {
        query.push(("all", "1"));
    }
    query.extend(filter.as_deref().map(|filter| ("filters", filter)));
    query.extend(last.as_deref().map(|count| ("limit", count)));
    if needs_size {
        query.push(("size", "1"));
    }
    let path = with_query("/containers/json", &query);
    let containers: Vec<ContainerSummary> = session.client()?.get(&path).await?;
    let columns = match size {
        true => {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}\t{{.Size}}"
        }
        false => {
            "{{.ID}}\t{{.Image}}\t{{.Command}}\t{{.RunningFor}}\t{{.Status}}\t{{.Ports}}\t{{.Names}}"
        }
    };
    show(&containers, asked, quiet, columns, matches.flag("no-trunc"))?;
    Ok(0)
}

fn show(
    containers: &[ContainerSummary],
    asked: Option<&str>,
    quiet: bool,
    columns: &str,
    whole: bool,
) -> Result<()> {
    let rows: Vec<Value> = containers.iter().map(|container| describe(container, whole)).collect();
    Format::choose(asked, quiet, columns, "{{.ID}}")?.print(TITLES, &rows)
}

/// The named values of a container.
pub(crate) fn describe(container: &ContainerSummary, whole: bool) -> Value {
    let id = if whole { container.id.as_str() } else { short_id(&container.id) };
    let names: Vec<&str> =
        container.names.iter().map(|name| name.trim_start_matches('/')).collect();
    // Links put `other/alias` among the names.
    let own: Vec<&str> =
        names.iter().filter(|name| whole || !name.contains('/')).copied().collect();
    let mut command = String::new();
    let text = if whole { container.command.clone() } else { ellipsis(&container.command, 20) };
    quote_json(&text, &mut command);
    let networks: Vec<&str> =
        container.network_settings.networks.keys().map(String::as_str).collect();
    row(vec![
        ("Command", command.into()),
        ("CreatedAt", absolute(container.created).into()),
        ("ID", id.into()),
        ("Image", image(container, whole).into()),
        ("Label", lookup(&container.labels)),
        ("Labels", join_labels(&container.labels).into()),
        ("LocalVolumes", local_volumes(container).to_string().into()),
        ("Mounts", mounts(container, whole).into()),
        ("Names", own.join(",").into()),
        ("Networks", networks.join(",").into()),
        ("Platform", Value::Null),
        ("Ports", ports(&container.ports).into()),
        ("RunningFor", ago(container.created).into()),
        ("Size", sizes(container).into()),
        ("State", container.state.as_str().into()),
        ("Status", container.status.as_str().into()),
    ])
}

fn image(container: &ContainerSummary, whole: bool) -> String {
    match container.image.as_str() {
        "" => "<no image>".to_owned(),
        image if !whole && image.starts_with("sha256:") => short_id(image).to_owned(),
        image => image
            .split_once('@')
            .map_or(image, |(name, _)| if whole { image } else { name })
            .to_owned(),
    }
}

fn sizes(container: &ContainerSummary) -> String {
    let written = human_size(container.size_rw as f64, 3);
    match container.size_root_fs {
        0 => written,
        all => format!("{written} (virtual {})", human_size(all as f64, 3)),
    }
}

fn local_volumes(container: &ContainerSummary) -> usize {
    container.mounts.iter().filter(|mount| mount.driver == "local").count()
}

fn mounts(container: &ContainerSummary, whole: bool) -> String {
    let names = container.mounts.iter().map(|mount| {
        let name = if mount.name.is_empty() { &mount.source } else { &mount.name };
        if whole { name.clone() } else { ellipsis(name, 15) }
    });
    names.collect::<Vec<_>>().join(",")
}

/// Labels as `a=b,c=d`.
pub(crate) fn join_labels(labels: &StringMap) -> String {
    labels.iter().map(|(key, value)| format!("{key}={value}")).collect::<Vec<_>>().join(",")
}

/// Labels to ask for by name.
pub(crate) fn lookup(labels: &StringMap) -> Value {
    Value::Lookup(labels.iter().map(|(key, value)| (key.clone(), value.clone())).collect())
}

/// Ports as bound, runs of neighbours as one: `0.0.0.0:80-81->80-81/tcp, 90/udp`.
fn ports(ports: &[Port]) -> String {
    let mut ports = ports.to_vec();
    ports.sort_by(|a, b| {
        (&a.ip, a.private_port, a.public_port, &a.kind).cmp(&(
            &b.ip,
            b.private_port,
            b.public_port,
            &b.kind,
        ))
    });
    let mut groups: Vec<Vec<&Port>> = Vec::new();
    for port in &ports {
        let follows = groups.last().and_then(|group| group.last()).is_some_and(|last| {
            last.ip == port.ip
                && last.kind == port.kind
                && last.private_port.checked_add(1) == Some(port.private_port)
                && match last.public_port {
                    0 => port.public_port == 0,
                    public => public.checked_add(1) == Some(port.public_port),
                }
        });
        match groups.last_mut().filter(|_| follows) {
            Some(group) => group.push(port),
            None => groups.push(vec![port]),
        }
    }
    // Ports that nobody outside can reach come last.
    groups.sort_by_key(|group| group.first().is_some_and(|port| port.public_port == 0));
    groups
        .iter()
        .filter_map(|group| Some(span(group.first()?, group.last()?)))
        .collect::<Vec<_>>()
        .join(", ")
}

fn span(first: &Port, last: &Port) -> String {
    let range = |from: u16, to: u16| match from == to {
        true => from.to_string(),
        false => format!("{from}-{to}"),
    };
    let inside = format!("{}/{}", range(first.private_port, last.private_port), first.kind);
    if first.public_port == 0 {
        return inside;
    }
    let outside = range(first.public_port, last.public_port);
    match first.ip.as_str() {
        "" => format!("{outside}->{inside}"),
        ip if ip.contains(':') => format!("[{ip}]:{outside}->{inside}"),
        ip => format!("{ip}:{outside}->{inside}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(ip: &str, private_port: u16, public_port: u16, kind: &str) -> Port {
        Port { ip: ip.to_owned(), private_port, public_port, kind: kind.to_owned() }
    }

    #[test]
    fn neighbouring_ports_are_one_range() {
        let list = [
            port("::", 80, 8080, "tcp"),
            port("0.0.0.0", 81, 8081, "tcp"),
            port("0.0.0.0", 80, 8080, "tcp"),
            port("", 90, 0, "udp"),
            port("", 91, 0, "udp"),
            port("0.0.0.0", 99, 7000, "tcp"),
        ];
        assert_eq!(
            ports(&list),
            "0.0.0.0:8080-8081->80-81/tcp, 0.0.0.0:7000->99/tcp, [::]:8080->80/tcp, 90-91/udp"
        );
        assert_eq!(ports(&[]), "");
    }

    #[test]
    fn a_container_is_one_row() {
        let container = ContainerSummary {
            id: "0123456789abcdef".to_owned(),
            names: vec!["/web".to_owned(), "/other/alias".to_owned()],
            image: "busybox".to_owned(),
            command: "sh -c 'a very long command'".to_owned(),
            labels: [("a".to_owned(), "b".to_owned())].into(),
            ..ContainerSummary::default()
        };
        let row = describe(&container, false);
        assert_eq!(row.str("ID"), "0123456789ab");
        assert_eq!(row.str("Names"), "web");
        assert_eq!(row.str("Command"), "\"sh -c 'a very long …\"");
        assert_eq!(row.str("Labels"), "a=b");
        assert_eq!(row.str("Size"), "0B");
    }
}
