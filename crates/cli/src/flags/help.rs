//! Help texts: usage line, what it does, spellings, options in columns.

use super::{Command, Flag, Kind};
use crate::output::terminal;

/// `Usage:  capsa ps [OPTIONS]`.
pub(crate) fn usage_line(command: &Command, name: &str) -> String {
    format!("Usage:  capsa {name} {}", command.usage).trim_end().to_owned()
}

/// Everything that `--help` prints.
pub(crate) fn command_help(command: &Command, name: &str) -> String {
    let mut text = format!("{}\n\n{}\n", usage_line(command, name), command.about);
    if command.names.len() > 1 {
        let names: Vec<String> = command.names.iter().map(|name| format!("capsa {name}")).collect();
        text.push_str(&format!("\nAliases:\n  {}\n", names.join(", ")));
    }
    let mut flags: Vec<&Flag> =
        command.flags.iter().flat_map(|group| group.iter()).filter(|flag| !flag.hidden).collect();
    if !flags.is_empty() {
        flags.sort_by_key(|flag| flag.long);
        text.push_str("\nOptions:\n");
        text.push_str(&options(&flags, terminal::columns().unwrap_or(80)));
    }
    text
}

/// One line for each flag, the explanation wrapped in its own column.
pub(crate) fn options(flags: &[&Flag], columns: usize) -> String {
    let left: Vec<String> = flags.iter().map(|flag| left_side(flag)).collect();
    let width = left.iter().map(String::len).max().unwrap_or(0) + 3;
    let room = columns.saturating_sub(width).max(24);
    let mut text = String::new();
    for (flag, left) in flags.iter().zip(&left) {
        let mut lead = left.as_str();
        for line in wrap(flag.help, room) {
            text.push_str(format!("{lead:width$}{line}").trim_end());
            text.push('\n');
            lead = "";
        }
    }
    text
}

fn left_side(flag: &Flag) -> String {
    let letter = match flag.short {
        Some(letter) => format!("-{letter}, "),
        None => "    ".to_owned(),
    };
    match flag.kind {
        Kind::Bool => format!("  {letter}--{}", flag.long),
        Kind::One(word) | Kind::Many(word) => format!("  {letter}--{} {word}", flag.long),
    }
}

/// Breaks a text at spaces so that no line is longer than `room` where that can be helped.
fn wrap(text: &str, room: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        if !lines[last].is_empty() && lines[last].chars().count() + 1 + word.chars().count() > room
        {
            lines.push(word.to_owned());
        } else {
            if !lines[last].is_empty() {
                lines[last].push(' ');
            }
            lines[last].push_str(word);
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_explanations_stay_in_their_column() {
        const FLAGS: [Flag; 2] = [
            Flag::switch("all", "One two three four five six seven").short('a'),
            Flag::text("name", "Short"),
        ];
        let flags: Vec<&Flag> = FLAGS.iter().collect();
        assert_eq!(
            options(&flags, 46),
            "  -a, --all           One two three four five\n                      six seven\n      --name string   Short\n"
        );
    }
}
