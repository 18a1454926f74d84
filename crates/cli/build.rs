//! Compiles the demo's web server and hands it to the crate as a file, packed: it is
//! nearly all standard library, and everybody who runs a container carries it.
//!
//! It is one file that needs `std` only, so rustc is called directly: a crate
//! of its own would have to be built before this one, for the same target and
//! with other settings, which cargo can't express without a nightly feature.

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use flate2::Compression;
use flate2::write::GzEncoder;

const SOURCE: &str = "site/main.rs";

fn main() -> ExitCode {
    println!("cargo::rerun-if-changed={SOURCE}");
    println!("cargo::rerun-if-changed=build.rs");
    match compile_site().and_then(|site| pack(&site)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(message) => {
            println!("cargo::error={message}");
            ExitCode::FAILURE
        }
    }
}

fn compile_site() -> Result<PathBuf, String> {
    let rustc = variable("RUSTC")?;
    let output = PathBuf::from(variable("OUT_DIR")?).join("site");
    let mut command = Command::new(rustc);
    command.arg(Path::new(SOURCE)).arg("-o").arg(&output);
    command.args(["--crate-name", "site", "--crate-type", "bin", "--edition", "2024"]);
    command.arg("--target").arg(variable("TARGET")?);
    // Small before fast: the binary carries it. Static, as its image is empty.
    for setting in [
        "opt-level=s",
        "codegen-units=1",
        "lto=fat",
        "panic=abort",
        "strip=symbols",
        "target-feature=+crt-static",
        "relocation-model=static",
    ] {
        command.arg("-C").arg(setting);
    }
    if let Some(linker) = env::var_os("RUSTC_LINKER") {
        let mut setting = OsString::from("linker=");
        setting.push(linker);
        command.arg("-C").arg(setting);
    }
    let status = command.status().map_err(|error| format!("cannot run {command:?}: {error}"))?;
    if status.success() { Ok(output) } else { Err(format!("{command:?} ended with {status}")) }
}

fn pack(site: &Path) -> Result<(), String> {
    let packed = || -> std::io::Result<()> {
        let out = std::fs::File::create(site.with_extension("gz"))?;
        let mut out = GzEncoder::new(out, Compression::best());
        std::io::copy(&mut std::fs::File::open(site)?, &mut out)?;
        out.finish().map(drop)
    };
    packed().map_err(|error| format!("cannot pack {}: {error}", site.display()))
}

fn variable(name: &str) -> Result<OsString, String> {
    env::var_os(name).ok_or_else(|| format!("cargo set no {name}"))
}
