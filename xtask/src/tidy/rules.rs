//! Rules on Rust source: headers, names, calls, `unsafe`.

use super::masked::{Masked, is_word_char};
use super::{Problem, SourceFile};

/// A call that has a better replacement here.
struct Banned {
    /// The text in the code, with comments and literals blanked out.
    call: &'static str,
    /// What to use, or why not at all.
    instead: &'static str,
    /// Folders in which it is right.
    allowed: &'static [&'static str],
    /// Whether tests may use it.
    in_tests: bool,
}

const BANNED: &[Banned] = &[
    Banned {
        call: "ToSocketAddrs",
        instead: "the static binary resolves no names: take a SocketAddr",
        allowed: &[],
        in_tests: false,
    },
    Banned {
        call: "to_socket_addrs",
        instead: "the static binary resolves no names: take a SocketAddr",
        allowed: &[],
        in_tests: false,
    },
    Banned {
        call: "lookup_host",
        instead: "the static binary resolves no names: take a SocketAddr",
        allowed: &[],
        in_tests: false,
    },
    Banned {
        call: "getaddrinfo",
        instead: "the static binary resolves no names: take a SocketAddr",
        allowed: &[],
        in_tests: false,
    },
    Banned {
        call: "process::exit",
        instead: "return an ExitCode, so that destructors run",
        allowed: &["crates/cli"],
        in_tests: false,
    },
    Banned {
        call: "thread::sleep",
        instead: "wait for the event: poll, a pidfd, a channel",
        allowed: &[],
        in_tests: false,
    },
    Banned {
        call: "println!",
        instead: "a library returns an error or a value; only cli, fuzz and xtask print",
        allowed: &["crates/cli", "fuzz", "xtask"],
        in_tests: true,
    },
    Banned {
        call: "eprintln!",
        instead: "a library returns an error or a value; only cli, fuzz and xtask print",
        allowed: &["crates/cli", "fuzz", "xtask"],
        in_tests: true,
    },
    Banned {
        call: ".unwrap()",
        instead: "return an error that says what was attempted",
        allowed: &[],
        in_tests: true,
    },
    Banned { call: "todo!", instead: "build it, or leave it out", allowed: &[], in_tests: false },
    Banned {
        call: "unimplemented!",
        instead: "build it, or return Unavailable",
        allowed: &[],
        in_tests: false,
    },
    Banned { call: "dbg!", instead: "remove it", allowed: &[], in_tests: false },
    Banned {
        call: "static mut",
        instead: "no mutable global: pass the value, or use an atomic",
        allowed: &[],
        in_tests: false,
    },
];

/// Where a banned call is right after all, each with its reason.
const EXCUSED: &[(&str, &str, &str)] = &[
    (
        "crates/runtime/src/cgroup/life.rs",
        "thread::sleep",
        "cgroup v1 has no event for a group that became empty",
    ),
    (
        "xtask/src/bench/measure.rs",
        "thread::sleep",
        "an idle host is what is measured: the pause is the event",
    ),
];

/// Words that say nothing about what a thing is.
const EMPTY_NAMES: &[&str] =
    &["manager", "service", "helper", "helpers", "util", "utils", "common", "handler", "handlers"];

/// Left-over notes; what must be done later is an issue, not a comment.
const NOTES: &[&str] = &[concat!("FIX", "ME"), concat!("TO", "DO"), concat!("HA", "CK")];

pub(crate) fn check(file: &SourceFile, masked: &Masked) -> Vec<Problem> {
    let mut problems = Vec::from_iter(header(file));
    problems.extend(file_name(file));
    problems.extend(type_names(file, masked));
    problems.extend(banned_calls(file, masked));
    problems.extend(notes(file, masked));
    problems.extend(unsafe_use(file, masked));
    problems
}

fn header(file: &SourceFile) -> Option<Problem> {
    let first = file.text.lines().find(|line| !line.trim().is_empty());
    let present = first.is_some_and(|line| line.starts_with("//!"));
    let message = "no `//!` header: say what this file is for, why, and what is not here";
    (!present).then(|| Problem::new(&file.path, 1, message))
}

fn file_name(file: &SourceFile) -> Option<Problem> {
    let stem = file.path.file_stem()?.to_str()?;
    let empty = stem.split('_').find(|word| EMPTY_NAMES.contains(word))?;
    Some(Problem::new(&file.path, 1, format!("{empty:?} in a file name: name the thing it is")))
}

fn type_names(file: &SourceFile, masked: &Masked) -> Vec<Problem> {
    let words: Vec<(usize, &str)> = masked.words().collect();
    let pairs = words.windows(2);
    pairs
        .filter(|pair| matches!(pair[0].1, "struct" | "enum" | "trait" | "type" | "mod"))
        .filter_map(|pair| {
            let (at, name) = pair[1];
            let empty =
                split_name(name).into_iter().find(|word| EMPTY_NAMES.contains(&word.as_str()))?;
            let message = format!("{empty:?} in the name {name}: name the thing it is");
            Some(Problem::new(&file.path, masked.line_of(at), message))
        })
        .collect()
}

/// `ImageManager` and `image_manager` both become `image`, `manager`.
pub(crate) fn split_name(name: &str) -> Vec<String> {
    let mut words = vec![String::new()];
    for c in name.chars() {
        if c == '_' || c.is_ascii_uppercase() {
            words.push(String::new());
        }
        if c != '_' {
            let last = words.len() - 1;
            words[last].push(c.to_ascii_lowercase());
        }
    }
    words
}

fn banned_calls(file: &SourceFile, masked: &Masked) -> Vec<Problem> {
    let spans = masked.test_spans();
    let test_file = file.path.components().any(|part| part.as_os_str() == "tests")
        || file.path.ends_with("tests.rs");
    let mut problems = Vec::new();
    for banned in BANNED {
        let excused =
            EXCUSED.iter().any(|(path, call, _)| file.named(path) && banned.call == *call);
        if excused || banned.allowed.iter().any(|folder| file.under(folder)) {
            continue;
        }
        for at in occurrences(masked.code(), banned.call) {
            let in_test =
                test_file || spans.iter().any(|(start, end)| (*start..*end).contains(&at));
            if !(in_test && banned.in_tests) {
                let message = format!("{}: {}", banned.call, banned.instead);
                problems.push(Problem::new(&file.path, masked.line_of(at), message));
            }
        }
    }
    problems
}

/// Offsets of `call` where it isn't part of a longer word.
fn occurrences<'a>(code: &'a str, call: &'a str) -> impl Iterator<Item = usize> {
    code.match_indices(call).map(|(at, _)| at).filter(move |at| {
        let before = code[..*at].chars().next_back();
        let after = code[at + call.len()..].chars().next();
        let starts_word = call.starts_with(is_word_char);
        let ends_word = call.ends_with(is_word_char);
        let inside_word = (starts_word && before.is_some_and(is_word_char))
            || (ends_word && after.is_some_and(is_word_char));
        !inside_word
    })
}

fn notes(file: &SourceFile, masked: &Masked) -> Vec<Problem> {
    let lines = masked.comment_lines().into_iter().enumerate();
    lines
        .filter_map(|(at, comment)| {
            let note = NOTES.iter().find(|note| occurrences(comment, note).next().is_some())?;
            Some(Problem::new(
                &file.path,
                at + 1,
                format!("{note} in a comment: do it now or open an issue"),
            ))
        })
        .collect()
}

/// How often the code says `unsafe` where it takes a risk: blocks and impls.
pub(crate) fn count_unsafe(masked: &Masked) -> usize {
    unsafe_sites(masked).len()
}

fn unsafe_sites(masked: &Masked) -> Vec<usize> {
    let words = masked.words().filter(|(_, word)| *word == "unsafe");
    words
        .map(|(at, _)| at)
        .filter(|at| {
            let rest = masked.code()[at + "unsafe".len()..].trim_start();
            rest.starts_with('{') || rest.starts_with("impl")
        })
        .collect()
}

fn unsafe_use(file: &SourceFile, masked: &Masked) -> Vec<Problem> {
    let sites = unsafe_sites(masked).into_iter().map(|at| masked.line_of(at));
    let in_sys = file.under("crates/sys");
    let message = |line: usize| match in_sys {
        false => Some("unsafe outside crates/sys: add a safe call there"),
        true if has_safety_note(masked, line) => None,
        true => Some("unsafe without a SAFETY note that names the kernel's contract"),
    };
    sites.filter_map(|line| Some(Problem::new(&file.path, line, message(line)?))).collect()
}

/// Whether a comment with the note stands on the line or above the statement
/// that the line belongs to.
fn has_safety_note(masked: &Masked, line: usize) -> bool {
    let code = masked.code_lines();
    let comments = masked.comment_lines();
    let mut at = line - 1;
    loop {
        if comments[at].contains("SAFETY:") {
            return true;
        }
        if at == 0 {
            return false;
        }
        at -= 1;
        let ends_statement = code[at].trim_end().ends_with([';', '{', '}']);
        if ends_statement {
            return false;
        }
    }
}
