//! From a path to what serves it. Image names have slashes, and stand in the middle of
//! paths, so a route is a list of segments of which one may span several.
//!
//! The tables are static and small; the first segment chooses one, the rest is
//! compared in order. Nothing is built per request.

use std::future::Future;
use std::pin::Pin;

use capsa_api::Version;
use capsa_api::encoding::decode_path;
use hyper::{Method, StatusCode};

use crate::error::{ApiError, NO_SWARM, Result};
use crate::reply::Reply;
use crate::request::Call;
use crate::{containers, events, execs, images, networks, own, streams, system, volumes};

/// What serves a route.
pub(crate) type Serve = fn(Call) -> Pin<Box<dyn Future<Output = Result<Reply>> + Send>>;

/// A method, a pattern, and who serves it. In a pattern `{}` is one segment and
/// `{*}` one or more.
///
/// What changes something runs to its end even when the client leaves: it `survives`.
pub(crate) struct Route {
    pub(crate) method: Method,
    pub(crate) pattern: &'static [&'static str],
    pub(crate) serve: Serve,
    pub(crate) survives: bool,
}

/// Writes a table of routes: `METHOD "a" "{}" "b" => function`, with `survives`
/// after the function when it survives its client.
macro_rules! routes {
    ($($method:ident $($segment:literal)+ => $serve:ident $($survives:ident)?;)*) => {
        pub(crate) const ROUTES: &[$crate::router::Route] = &[$(
            $crate::router::Route {
                method: hyper::Method::$method,
                pattern: &[$($segment),+],
                serve: |call| Box::pin($serve(call)),
                survives: $crate::router::routes!(@ $($survives)?),
            },
        )*];
    };
    (@) => { false };
    (@ survives) => { true };
}
pub(crate) use routes;

/// Whether a path asks for a version, and the path without it.
pub(crate) fn split_version(path: &str) -> Result<(Version, &str)> {
    let rest = path.trim_start_matches('/');
    let (first, after) = rest.split_once('/').unwrap_or((rest, ""));
    let numbers = match first.strip_prefix('v') {
        Some(text) if text.starts_with(|c: char| c.is_ascii_digit()) => text,
        _ => return Ok((Version::MAX, rest)),
    };
    if !numbers.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
        return Ok((Version::MAX, rest));
    }
    let version: Version = numbers
        .parse()
        .map_err(|_| ApiError::bad_request(format!("invalid API version {numbers:?}")))?;
    if version > Version::MAX {
        return Err(ApiError::bad_request(format!(
            "client version {numbers} is too new. Maximum supported API version is {}",
            Version::MAX
        )));
    }
    if version < Version::MIN {
        return Err(ApiError::bad_request(format!(
            "client version {numbers} is too old. Minimum supported API version is {}, please \
             upgrade your client to a newer version",
            Version::MIN
        )));
    }
    Ok((version, after))
}

/// The route of `method` and a path without version, and what its `{}` stands for.
pub(crate) fn find(method: &Method, path: &str) -> Result<(&'static Route, String)> {
    let path = decode_path(path.trim_matches('/'));
    let segments: Vec<&str> = path.split('/').collect();
    for table in tables(segments[0])? {
        for route in *table {
            if route.method == *method
                && let Some(name) = matches(route.pattern, &segments)
            {
                return Ok((route, name));
            }
        }
    }
    Err(ApiError::no_such_page())
}

fn tables(first: &str) -> Result<&'static [&'static [Route]]> {
    Ok(match first {
        "containers" => const { &[containers::ROUTES, streams::ROUTES, execs::ROUTES] },
        "exec" => const { &[execs::ROUTES] },
        "images" | "commit" => const { &[images::ROUTES] },
        "volumes" => const { &[volumes::ROUTES] },
        "networks" => const { &[networks::ROUTES] },
        "events" => const { &[events::ROUTES] },
        "_ping" | "version" | "info" | "system" | "auth" | "build" | "session" | "grpc"
        | "plugins" | "distribution" => const { &[system::ROUTES] },
        "capsa" => const { &[own::ROUTES] },
        "swarm" | "nodes" | "services" | "tasks" | "secrets" | "configs" => {
            return Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, NO_SWARM));
        }
        _ => return Err(ApiError::no_such_page()),
    })
}

/// What the pattern's `{}` or `{*}` stands for, if the segments fit.
fn matches(pattern: &[&str], segments: &[&str]) -> Option<String> {
    let Some(at) = pattern.iter().position(|p| p.starts_with('{')) else {
        return (pattern == segments).then(String::new);
    };
    let after = pattern.len() - at - 1;
    let spans = pattern[at] == "{*}";
    let fits = segments.len() == pattern.len() || (spans && segments.len() > pattern.len());
    if !fits {
        return None;
    }
    let end = segments.len() - after;
    let around = segments[..at] == pattern[..at] && segments[end..] == pattern[at + 1..];
    let name = segments[at..end].join("/");
    (around && !name.is_empty()).then_some(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(method: Method, path: &str) -> Option<String> {
        find(&method, path).ok().map(|(_, name)| name)
    }

    #[test]
    fn names_in_the_middle_may_have_slashes() {
        let name = |path| found(Method::GET, path);
        assert_eq!(name("images/host:5000/a/b:t/json").as_deref(), Some("host:5000/a/b:t"));
        assert_eq!(name("images/host%3A5000%2Fa:t/history").as_deref(), Some("host:5000/a:t"));
        assert_eq!(name("images/json").as_deref(), Some(""));
        assert_eq!(name("containers/json/").as_deref(), Some(""));
        assert_eq!(name("containers/abc/json").as_deref(), Some("abc"));
        assert_eq!(found(Method::DELETE, "images/a/b@sha256:1").as_deref(), Some("a/b@sha256:1"));
    }

    #[test]
    fn unknown_paths_and_methods_are_no_page() {
        for (method, path) in [
            (Method::GET, ""),
            (Method::GET, "nothing"),
            (Method::POST, "containers/json"),
            (Method::GET, "containers//json"),
            (Method::GET, "containers/a/b/json"),
            (Method::PATCH, "_ping"),
        ] {
            assert_eq!(find(&method, path).err(), Some(ApiError::no_such_page()), "{path}");
        }
        let swarm = find(&Method::GET, "services").err().unwrap();
        assert_eq!(swarm.status, StatusCode::SERVICE_UNAVAILABLE);
    }

    #[test]
    fn versions_outside_the_range_are_refused_with_dockers_texts() {
        assert_eq!(split_version("/v1.41/info"), Ok((Version::minor(41), "info")));
        assert_eq!(split_version("/info"), Ok((Version::MAX, "info")));
        assert_eq!(split_version("/volumes/v1"), Ok((Version::MAX, "volumes/v1")));
        let text = |path| split_version(path).unwrap_err().message;
        assert_eq!(
            text("/v1.99/info"),
            "client version 1.99 is too new. Maximum supported API version is 1.51"
        );
        assert_eq!(
            text("/v1.20/info"),
            "client version 1.20 is too old. Minimum supported API version is 1.24, please upgrade \
             your client to a newer version"
        );
        assert_eq!(text("/v1/info"), "invalid API version \"1\"");
    }
}
