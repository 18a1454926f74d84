//! Help texts of the whole and of groups of verbs.

use super::{CLIENT, COMMANDS};
use crate::flags::{Flag, options};
use crate::output::terminal;

/// Groups of verbs and what they are about.
const GROUPS: [(&str, &str); 7] = [
    ("builder", "Build images"),
    ("container", "Containers"),
    ("context", "Named daemons"),
    ("image", "Images"),
    ("network", "Networks"),
    ("system", "The daemon and its host"),
    ("volume", "Volumes"),
];

/// Roles that are no verbs but may be called.
const ROLES: [(&str, &str); 3] = [
    ("daemon", "Run the daemon in the foreground"),
    ("demo", "Show what it can do, on this host, and clean up"),
    ("oci", "OCI runtime verbs, for other engines"),
];

/// Whether this word names a group.
pub(super) fn is_group(word: &str) -> bool {
    GROUPS.iter().any(|(name, _)| *name == word)
}

/// The text that was asked for by `help …`, a group alone, or a group with `--help`.
pub(super) fn wanted(words: &[String]) -> Option<String> {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["help"] => Some(overview()),
        ["help", rest @ ..] => {
            let owned: Vec<String> = rest.iter().map(|word| (*word).to_owned()).collect();
            if let [name] = rest
                && is_group(name)
            {
                return Some(group(name));
            }
            let found = super::find(&owned).ok()?;
            Some(crate::flags::command_help(found.command, &found.name))
        }
        [name] if is_group(name) => Some(group(name)),
        [name, "--help" | "-h" | "help"] if is_group(name) => Some(group(name)),
        _ => None,
    }
}

/// `capsa --help`.
pub(super) fn overview() -> String {
    let mut text = format!("Usage:  capsa {}\n\n{}\n", CLIENT.usage, CLIENT.about);
    let short: Vec<(&str, &str)> = COMMANDS
        .iter()
        .filter_map(|command| {
            let name = command.names.iter().rev().find(|name| !name.contains(' '))?;
            Some((*name, command.about))
        })
        .collect();
    section(&mut text, "Commands", &mut short.clone());
    section(&mut text, "Groups", &mut GROUPS.to_vec());
    section(&mut text, "Roles", &mut ROLES.to_vec());
    let flags: Vec<&Flag> =
        CLIENT.flags.iter().flat_map(|group| group.iter()).filter(|flag| !flag.hidden).collect();
    text.push_str("\nGlobal Options:\n");
    text.push_str(&options(&flags, terminal::columns().unwrap_or(80)));
    text.push_str("\nRun 'capsa COMMAND --help' for more information on a command.\n");
    text
}

fn group(name: &str) -> String {
    let about = GROUPS.iter().find(|(group, _)| *group == name).map_or("", |(_, about)| about);
    let mut text = format!("Usage:  capsa {name} COMMAND\n\n{about}\n");
    let prefix = format!("{name} ");
    let mut verbs: Vec<(&str, &str)> = COMMANDS
        .iter()
        .filter_map(|command| {
            let verb = command.names.iter().find_map(|full| full.strip_prefix(&prefix))?;
            Some((verb, command.about))
        })
        .collect();
    section(&mut text, "Commands", &mut verbs);
    text.push_str(&format!(
        "\nRun 'capsa {name} COMMAND --help' for more information on a command.\n"
    ));
    text
}

fn section(text: &mut String, title: &str, verbs: &mut [(&str, &str)]) {
    verbs.sort_unstable();
    text.push_str(&format!("\n{title}:\n"));
    for (name, about) in verbs {
        text.push_str(&format!("  {name:<12}{about}\n"));
    }
}
