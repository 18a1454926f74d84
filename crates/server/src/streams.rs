//! What flows into and out of a container: attach, logs, export, archives.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use capsa_api::types::PathStat as WireStat;
use capsa_engine::options::{AttachOptions, LogOptions};
use capsa_engine::view::PathStat;
use hyper::StatusCode;
use hyper::header::{HeaderName, HeaderValue};

use crate::detach_keys::DetachKeys;
use crate::error::{ApiError, Result};
use crate::hijack::{self, Input};
use crate::reply::{self, Reply, ReplyBody};
use crate::request::Call;
use crate::router::routes;
use crate::time;

const PATH_STAT: HeaderName = HeaderName::from_static("x-docker-container-path-stat");
const TAR: &str = "application/x-tar";

routes! {
    POST "containers" "{}" "attach" => attach;
    GET "containers" "{}" "attach" "ws" => attach_ws;
    GET "containers" "{}" "logs" => logs;
    GET "containers" "{}" "export" => export;
    GET "containers" "{}" "stats" => stats;
    HEAD "containers" "{}" "archive" => archive_stat;
    GET "containers" "{}" "archive" => archive_get;
    PUT "containers" "{}" "archive" => archive_put;
}

async fn attach(mut call: Call) -> Result<Reply> {
    let keys = DetachKeys::parse(call.query("detachKeys"))
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let options = AttachOptions {
        stdin: call.flag("stdin"),
        stdout: call.flag("stdout"),
        stderr: call.flag("stderr"),
        stream: call.flag("stream"),
        logs: call.flag("logs"),
    };
    let input = Input { wanted: options.stdin && options.stream, keys };
    let upgrade = call.upgrade.take();
    let stream = call.engine.containers().attach(&call.name, options).await?;
    Ok(hijack::join(upgrade, call.version, stream.tty, stream.io, input))
}

async fn attach_ws(_call: Call) -> Result<Reply> {
    Err(ApiError::not_implemented("attach over a websocket is not supported; use POST …/attach"))
}

async fn logs(call: Call) -> Result<Reply> {
    let options = LogOptions {
        stdout: call.flag("stdout"),
        stderr: call.flag("stderr"),
        follow: call.flag("follow"),
        since_ns: time::unix(call.query("since"), "since")?.unwrap_or(0),
        until_ns: time::unix(call.query("until"), "until")?.unwrap_or(0),
        timestamps: call.flag("timestamps"),
        details: call.flag("details"),
        tail: call.query("tail").parse().ok(),
    };
    if !options.stdout && !options.stderr {
        return Err(ApiError::bad_request("Bad parameters: you must choose at least one stream"));
    }
    let (tty, lines) = call.engine.containers().logs(&call.name, options).await?;
    Ok(reply::stream(hijack::content_type(tty, call.version), ReplyBody::Stream(lines)))
}

async fn export(call: Call) -> Result<Reply> {
    let tar = call.engine.containers().export(&call.name).await?;
    Ok(reply::stream(TAR, ReplyBody::Stream(tar)))
}

async fn stats(call: Call) -> Result<Reply> {
    call.engine.containers().inspect(&call.name, false).await?;
    Err(ApiError::not_implemented("stats are not built yet"))
}

async fn archive_stat(call: Call) -> Result<Reply> {
    let stat = call.engine.containers().archive_stat(&call.name, archive_path(&call)?).await?;
    Ok(with_stat(reply::empty(StatusCode::OK), &stat))
}

async fn archive_get(call: Call) -> Result<Reply> {
    let path = archive_path(&call)?;
    let (stat, tar) = call.engine.containers().archive_get(&call.name, path).await?;
    Ok(with_stat(reply::stream(TAR, ReplyBody::Stream(tar)), &stat))
}

async fn archive_put(call: Call) -> Result<Reply> {
    let path = archive_path(&call)?.to_owned();
    let no_overwrite = call.flag("noOverwriteDirNonDir");
    let copy_owner = call.flag("copyUIDGID");
    let (engine, name) = (call.engine.clone(), call.name.clone());
    let tar = call.upload();
    engine.containers().archive_put(&name, &path, tar, no_overwrite, copy_owner).await?;
    Ok(reply::empty(StatusCode::OK))
}

fn archive_path(call: &Call) -> Result<&str> {
    match call.query("path") {
        "" => Err(ApiError::bad_request("bad parameter: 'path' cannot be empty")),
        path => Ok(path),
    }
}

fn with_stat(mut reply: Reply, stat: &PathStat) -> Reply {
    let wire = WireStat {
        name: stat.name.clone(),
        size: stat.size,
        mode: go_mode(stat.mode),
        mtime: time::rfc3339(stat.mtime_ns),
        link_target: stat.link_target.clone(),
    };
    let text = STANDARD.encode(serde_json::to_vec(&wire).unwrap_or_default());
    if let Ok(value) = HeaderValue::from_str(&text) {
        reply.headers_mut().insert(PATH_STAT, value);
    }
    reply
}

/// Go's `FileMode` of an st_mode (inode(7)): permissions stay, the rest has other bits.
fn go_mode(mode: u32) -> u32 {
    let kind = match mode & 0o170_000 {
        0o040_000 => 1 << 31,
        0o120_000 => 1 << 27,
        0o060_000 => 1 << 26,
        0o020_000 => 1 << 26 | 1 << 21,
        0o010_000 => 1 << 25,
        0o140_000 => 1 << 24,
        _ => 0,
    };
    let special = [(0o4000, 1 << 23), (0o2000, 1 << 22), (0o1000, 1 << 20)];
    let special =
        special.iter().filter(|(bit, _)| mode & bit != 0).fold(0, |all, (_, go)| all | go);
    mode & 0o777 | kind | special
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_have_gos_bits() {
        assert_eq!(go_mode(0o100_644), 0o644);
        assert_eq!(go_mode(0o040_755), 1 << 31 | 0o755);
        assert_eq!(go_mode(0o041_777), 1 << 31 | 1 << 20 | 0o777);
        assert_eq!(go_mode(0o120_777), 1 << 27 | 0o777);
        assert_eq!(go_mode(0o104_755), 1 << 23 | 0o755);
        assert_eq!(go_mode(0o020_620), 1 << 26 | 1 << 21 | 0o620);
    }
}
