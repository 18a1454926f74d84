//! Which file the user's command is, and what to say when it cannot be run.
//!
//! Looked up as the user, in the container, before `Start`. The texts are those that
//! Docker's clients know from Go's `exec.LookPath`.

use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use capsa_oci::runtime::Process;
use capsa_sys::process;
use rustix::fs::{Access, AtFlags, CWD, FileType};
use rustix::io::Errno;

use crate::protocol::Failure;

const NOT_FOUND: i32 = 127;
const NOT_EXECUTABLE: i32 = 126;

/// A command that can be run.
#[derive(Debug)]
pub(crate) struct Program {
    file: CString,
    args: Vec<CString>,
    env: Vec<CString>,
}

impl Program {
    /// Finds the file of `process.args[0]`.
    pub(crate) fn find(process: &Process) -> Result<Self, Failure> {
        let Some(name) = process.args.first() else {
            return Err(Failure::engine("exec", "process.args is empty"));
        };
        let file = look_up(name, search_path(&process.env))?;
        let strings = |list: &[String]| list.iter().map(|text| c_string(text.as_bytes())).collect();
        let args: Result<_, Failure> = strings(&process.args);
        Ok(Self {
            file: c_string(file.as_os_str().as_bytes())?,
            args: args?,
            env: strings(&process.env)?,
        })
    }

    /// Replaces the calling process; returns only on failure.
    pub(crate) fn exec(&self) -> Failure {
        let error = process::exec(&self.file, &self.args, &self.env);
        let name = self.args.first().map(|name| name.to_string_lossy()).unwrap_or_default();
        refused(&name, error.errno, "exec")
    }
}

/// The last PATH of `env`.
fn search_path(env: &[String]) -> &str {
    env.iter().rev().find_map(|variable| variable.strip_prefix("PATH=")).unwrap_or("")
}

fn look_up(name: &str, path: &str) -> Result<PathBuf, Failure> {
    if name.contains('/') {
        return match check(Path::new(name)) {
            Ok(()) => Ok(PathBuf::from(name)),
            Err(errno) => Err(refused(name, errno, "stat")),
        };
    }
    let dirs = path.split(':').map(|dir| if dir.is_empty() { "." } else { dir });
    let mut found = dirs.map(|dir| Path::new(dir).join(name));
    found.find(|file| !name.is_empty() && check(file).is_ok()).ok_or_else(|| Failure {
        code: NOT_FOUND,
        stage: "exec".to_owned(),
        message: format!("exec: {name:?}: executable file not found in $PATH"),
    })
}

/// A regular file that the caller may execute.
fn check(file: &Path) -> Result<(), Errno> {
    let stat = rustix::fs::stat(file)?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
        return Err(Errno::ISDIR);
    }
    if stat.st_mode & 0o111 == 0 {
        return Err(Errno::ACCESS);
    }
    rustix::fs::accessat(CWD, file, Access::EXEC_OK, AtFlags::EACCESS)
}

fn refused(name: &str, errno: Errno, call: &str) -> Failure {
    let (code, said) = match errno {
        Errno::NOENT if call == "stat" => {
            (NOT_FOUND, format!("stat {name}: no such file or directory"))
        }
        Errno::NOENT => (NOT_FOUND, "no such file or directory".to_owned()),
        Errno::ACCESS | Errno::PERM => (NOT_EXECUTABLE, "permission denied".to_owned()),
        Errno::ISDIR => (NOT_EXECUTABLE, "is a directory".to_owned()),
        Errno::NOTDIR => (NOT_EXECUTABLE, format!("stat {name}: not a directory")),
        Errno::NOEXEC => (NOT_EXECUTABLE, "exec format error".to_owned()),
        other => (NOT_EXECUTABLE, text(other)),
    };
    Failure { code, stage: "exec".to_owned(), message: format!("exec: {name:?}: {said}") }
}

/// The kernel's words, first letter small as Go has them.
fn text(errno: Errno) -> String {
    errno.to_string().to_lowercase()
}

fn c_string(bytes: &[u8]) -> Result<CString, Failure> {
    CString::new(bytes).map_err(|_| Failure::engine("exec", "a zero byte in process.args or env"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_and_codes_are_dockers() {
        let of = |name: &str, path: &str| {
            let failure = look_up(name, path).unwrap_err();
            (failure.code, failure.message)
        };
        assert_eq!(
            of("foo", "/bin:/usr/bin"),
            (127, r#"exec: "foo": executable file not found in $PATH"#.into())
        );
        assert_eq!(of("/x", ""), (127, r#"exec: "/x": stat /x: no such file or directory"#.into()));
        assert_eq!(
            of("/etc/passwd", ""),
            (126, r#"exec: "/etc/passwd": permission denied"#.into())
        );
        assert_eq!(of("/etc", ""), (126, r#"exec: "/etc": is a directory"#.into()));
        assert_eq!(of("", "/bin").0, 127);
    }

    #[test]
    fn the_last_path_counts_and_is_searched_in_order() {
        let env =
            ["PATH=/nowhere".to_owned(), "HOME=/".to_owned(), "PATH=/nowhere:/bin".to_owned()];
        assert_eq!(look_up("sh", search_path(&env)).unwrap(), Path::new("/bin/sh"));
    }
}
