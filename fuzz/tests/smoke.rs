//! Each target holds for a few seconds of inputs that are the same every time.
#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

use std::process::Command;

#[track_caller]
fn holds(target: &str, runs: &str) {
    let fuzz = env!("CARGO_BIN_EXE_capsa-fuzz");
    let output = Command::new(fuzz).args([target, runs, "--seed", "1"]).output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{said}{complaint}");
    assert!(said.contains(&format!("{target}: {runs} executions")), "{said}");
}

#[test]
fn layers_stay_in_their_root() {
    holds("tar", "500");
}

#[test]
fn documents_of_images_agree_or_are_refused() {
    holds("manifest", "2000");
}

#[test]
fn references_are_shown_as_they_are_parsed() {
    holds("reference", "20000");
}

#[test]
fn archives_are_written_as_they_were_read() {
    holds("archive", "300");
}

#[test]
fn a_registry_is_believed_in_nothing() {
    holds("registry", "300");
}
