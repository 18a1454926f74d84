//! Tests of the checks on small made-up sources.

use std::path::PathBuf;

use super::masked::Masked;
use super::shape::{Function, functions};
use super::{SourceFile, edges, rules};

fn file(path: &str, text: &str) -> SourceFile {
    SourceFile { path: PathBuf::from(path), text: text.to_owned() }
}

fn messages(path: &str, text: &str) -> Vec<String> {
    let problems = rules::check(&file(path, text), &Masked::new(text));
    problems.into_iter().map(|problem| problem.to_string()).collect()
}

fn function(name: &str, line: usize, lines: usize) -> Function {
    Function { name: name.to_owned(), line, lines }
}

#[test]
fn braces_in_literals_and_comments_do_not_count() {
    let source = r##"
fn a() {
    let _ = "}"; // }
    let _ = '}'; /* } /* } */ } */
    let _ = r#"}"}"#;
    let _ = b'}';
    let _: &'static str = "\"}";
}
fn b<'a>(x: &'a str) -> char { '\'' }
"##;
    assert_eq!(functions(&Masked::new(source)), [function("a", 2, 7), function("b", 9, 1)]);
}

#[test]
fn a_raw_string_ends_at_its_own_hashes() {
    let source = "fn a() {\n let _ = br##\"}\"#}\"##;\n}\nfn b() {}\n";
    assert_eq!(functions(&Masked::new(source)), [function("a", 1, 3), function("b", 4, 1)]);
}

#[test]
fn declarations_and_pointers_have_no_body() {
    let source =
        "trait T { fn a(&self) -> [u8; 4]; }\nstruct S { f: fn(u8) -> u8 }\nfn b(f: fn()) {\n}\n";
    assert_eq!(functions(&Masked::new(source)), [function("b", 3, 2)]);
}

#[test]
fn a_masked_text_keeps_offsets() {
    let source = "let a = \"ü\"; // ü\nlet b = 'ü';\n";
    let masked = Masked::new(source);
    assert_eq!(masked.code().len(), source.len());
    assert_eq!(masked.code().matches('\n').count(), 2);
    assert!(masked.code().contains("let b"));
}

#[test]
fn a_call_in_a_string_is_no_call() {
    assert_eq!(messages("crates/net/src/a.rs", "//! A.\nconst A: &str = \"todo!()\";\n"), [""; 0]);
    let found = messages("crates/net/src/a.rs", "//! A.\nfn a() { todo!() }\n");
    assert_eq!(found, ["crates/net/src/a.rs:2: todo!: build it, or leave it out"]);
}

#[test]
fn unwrap_is_for_tests_only() {
    let inside = "//! A.\n#[cfg(test)]\nmod tests {\n    fn a() { x.unwrap(); }\n}\n";
    assert_eq!(messages("crates/net/src/a.rs", inside), [""; 0]);
    assert_eq!(messages("crates/net/tests/a.rs", "//! A.\nfn a() { x.unwrap(); }\n"), [""; 0]);
    assert_eq!(messages("crates/net/src/a.rs", "//! A.\nfn a() { x.unwrap(); }\n").len(), 1);
}

#[test]
fn unsafe_needs_its_place_and_its_note() {
    let noted = "//! A.\nfn a() {\n    // SAFETY: close(2) takes any number.\n    let n =\n        unsafe { close(1) };\n}\n";
    assert_eq!(messages("crates/sys/src/a.rs", noted), [""; 0]);
    assert_eq!(messages("crates/net/src/a.rs", noted).len(), 1);
    let bare = "//! A.\n// SAFETY: for another.\nfn a() {\n    unsafe { close(1) };\n}\n";
    assert_eq!(messages("crates/sys/src/a.rs", bare).len(), 1);
}

#[test]
fn empty_names_are_refused() {
    let found = messages("crates/net/src/a.rs", "//! A.\nstruct ImageManager;\nstruct Servicer;\n");
    assert_eq!(found.len(), 1, "{found:?}");
    assert_eq!(messages("crates/net/src/net_utils.rs", "//! A.\n").len(), 1);
    assert_eq!(rules::split_name("ImagePull_plan"), ["", "image", "pull", "plan"]);
}

#[test]
fn a_file_needs_its_header() {
    assert_eq!(messages("crates/net/src/a.rs", "fn a() {}\n").len(), 1);
}

#[test]
fn an_edge_must_be_in_the_table() {
    let table = file("ARCHITECTURE.md", "text\n```edges\nsys ->\nnet -> sys\n```\nnet -> oci\n");
    let good = file(
        "crates/net/Cargo.toml",
        "[lints]\nworkspace = true\n[dependencies]\ncapsa-sys.workspace = true\nserde = \"1\"\n",
    );
    let bad = file(
        "crates/sys/Cargo.toml",
        "[lints]\nworkspace = true\n[dev-dependencies]\ncapsa-oci = { path = \"../oci\" }\n",
    );
    let unknown = file("crates/new/Cargo.toml", "[dependencies]\n");
    let problems = edges::check(&[table, good, bad, unknown]).unwrap();
    let texts: Vec<String> = problems.iter().map(ToString::to_string).collect();
    assert_eq!(
        texts,
        [
            "crates/sys/Cargo.toml:4: edge sys -> oci is not allowed by ARCHITECTURE.md",
            "crates/new/Cargo.toml:1: crate new is not in ARCHITECTURE.md's edges",
        ]
    );
}
