//! The daemon itself: ping, version, info, disk use; and routes of things that
//! this engine doesn't have, each with an answer that says so.

use std::collections::BTreeMap;

use capsa_api::Version;
use capsa_api::types::{
    AuthConfig, AuthResponse, BuildCache, Component, DiskUsage, ImageSummary, IndexInfo,
    PlatformName, PluginsInfo, RegistryConfig, Runtime, SwarmInfo, SystemInfo, SystemVersion,
    UsageData,
};
use capsa_engine::Class;
use capsa_oci::{Platform, Reference};
use hyper::StatusCode;
use hyper::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderName, HeaderValue, PRAGMA};
use serde_json::json;

use crate::convert::registry::{credentials, given};
use crate::convert::{image, inspect, summary, volume};
use crate::error::{ApiError, Result};
use crate::reply::{self, Reply, ReplyBody};
use crate::request::Call;
use crate::router::routes;
use crate::time;

const VERSION: &str = env!("CARGO_PKG_VERSION");
const RUNTIME: &str = "capsa";
const HUB: &str = "docker.io";

routes! {
    GET "_ping" => ping;
    HEAD "_ping" => ping;
    GET "version" => version;
    GET "info" => info;
    GET "system" "df" => disk_usage;
    POST "auth" => auth;
    POST "build" => build;
    POST "build" "prune" => build_prune;
    POST "build" "cancel" => build;
    POST "session" => build;
    POST "grpc" => build;
    GET "plugins" => plugins;
    GET "distribution" "{*}" "json" => distribution;
}

async fn ping(_call: Call) -> Result<Reply> {
    let mut reply = reply::stream("text/plain; charset=utf-8", ReplyBody::Whole(Some("OK".into())));
    let headers = reply.headers_mut();
    headers.insert(HeaderName::from_static("builder-version"), HeaderValue::from_static("1"));
    headers.insert(HeaderName::from_static("swarm"), HeaderValue::from_static("inactive"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-cache, no-store, must-revalidate"));
    headers.insert(PRAGMA, HeaderValue::from_static("no-cache"));
    debug_assert!(headers.contains_key(CONTENT_TYPE));
    Ok(reply)
}

async fn version(call: Call) -> Result<Reply> {
    let kernel = call.engine.info().kernel;
    let architecture = Platform::host().architecture;
    let details = [
        ("ApiVersion", Version::MAX.to_string()),
        ("Arch", architecture.clone()),
        ("Experimental", "false".to_owned()),
        ("KernelVersion", kernel.clone()),
        ("MinAPIVersion", Version::MIN.to_string()),
        ("Os", "linux".to_owned()),
    ];
    let engine = Component {
        name: "Engine".to_owned(),
        version: VERSION.to_owned(),
        details: details.map(|(key, value)| (key.to_owned(), value)).into(),
    };
    Ok(reply::ok(&SystemVersion {
        platform: PlatformName { name: "capsa".to_owned() },
        components: vec![engine],
        version: VERSION.to_owned(),
        api_version: Version::MAX.to_string(),
        min_api_version: Version::MIN.to_string(),
        os: "linux".to_owned(),
        arch: architecture,
        kernel_version: kernel,
        ..SystemVersion::default()
    }))
}

async fn info(call: Call) -> Result<Reply> {
    let view = call.engine.info();
    let (running, paused, stopped) = view.containers;
    let count = |n: usize| i64::try_from(n).unwrap_or(i64::MAX);
    let mut security = vec!["name=seccomp,profile=builtin".to_owned(), "name=cgroupns".to_owned()];
    if view.user_namespaces {
        security.push("name=userns".to_owned());
    }
    let info = SystemInfo {
        id: view.id,
        containers: count(running + paused + stopped),
        containers_running: count(running),
        containers_paused: count(paused),
        containers_stopped: count(stopped),
        images: count(view.images),
        driver: inspect::GRAPH_DRIVER.to_owned(),
        driver_status: vec![["User Namespaces".to_owned(), view.user_namespaces.to_string()]],
        plugins: plugin_names(),
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: true,
        n_fd: -1,
        n_goroutines: -1,
        system_time: time::rfc3339(time::now_ns()),
        logging_driver: view.log_driver,
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: view.cgroup_version,
        kernel_version: view.kernel,
        operating_system: view.operating_system,
        os_type: "linux".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: registry_config(),
        ncpu: count(view.cpus),
        mem_total: inspect::signed(view.memory),
        docker_root_dir: volume::path(&view.data_root),
        name: view.name,
        labels: view.labels,
        server_version: VERSION.to_owned(),
        runtimes: [(RUNTIME.to_owned(), Runtime { path: RUNTIME.to_owned() })].into(),
        default_runtime: RUNTIME.to_owned(),
        swarm: SwarmInfo { local_node_state: "inactive".to_owned(), ..SwarmInfo::default() },
        live_restore_enabled: true,
        init_binary: RUNTIME.to_owned(),
        security_options: security,
        warnings: (!view.warnings.is_empty()).then_some(view.warnings),
        ..SystemInfo::default()
    };
    Ok(reply::ok(&info))
}

fn plugin_names() -> PluginsInfo {
    let list = |names: &[&str]| names.iter().map(ToString::to_string).collect();
    PluginsInfo {
        volume: list(&["local"]),
        network: list(&["bridge", "host", "null"]),
        authorization: None,
        log: list(&["json-file", "local", "none"]),
    }
}

fn registry_config() -> RegistryConfig {
    let hub = IndexInfo { name: HUB.to_owned(), mirrors: Vec::new(), secure: true, official: true };
    RegistryConfig {
        insecure_registry_cidrs: vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()],
        index_configs: BTreeMap::from([(HUB.to_owned(), hub)]),
        mirrors: None,
    }
}

/// What takes space; `type` may be given to ask for some kinds only.
async fn disk_usage(call: Call) -> Result<Reply> {
    const KINDS: [&str; 4] = ["container", "image", "volume", "build-cache"];
    if let Some(kind) = call.all("type").find(|kind| !KINDS.contains(kind)) {
        return Err(ApiError::bad_request(format!("unknown object type: {kind}")));
    }
    let wanted = |kind: &str| !call.has("type") || call.all("type").any(|k| k == kind);
    let engine = &call.engine;
    let mut usage = DiskUsage::default();
    if wanted("image") {
        let images = engine.images().list().await?;
        let taken = engine.images().usage().await?;
        usage.layers_size = inspect::signed(taken.layers);
        let lines = images.iter().map(|view| ImageSummary {
            containers: inspect::signed(view.containers as u64),
            shared_size: image::shared_size(&taken, view),
            ..image::summary(view, call.version)
        });
        usage.images = Some(lines.collect());
    }
    if wanted("container") {
        let now = time::now_ns();
        let mut lines = Vec::new();
        for view in engine.containers().list(true) {
            // One that went in the meantime takes no space.
            if let Ok(sized) = engine.containers().inspect(&view.id, true).await {
                lines.push(summary::summary(&sized, call.version, now));
            }
        }
        usage.containers = Some(lines);
    }
    if wanted("volume") {
        let with_use = |view: &capsa_engine::view::VolumeView| {
            let ref_count = i64::try_from(engine.volumes().users(&view.name).len()).unwrap_or(-1);
            let mut shown = volume::show(view);
            // One that went in the meantime takes no space.
            let size = engine.volumes().size(&view.name).map_or(0, inspect::signed);
            shown.usage_data = Some(UsageData { ref_count, size });
            shown
        };
        usage.volumes = Some(engine.volumes().list()?.iter().map(with_use).collect());
    }
    if wanted("build-cache") {
        usage.build_cache = Some(Vec::<BuildCache>::new());
    }
    Ok(reply::ok(&usage))
}

async fn auth(call: Call) -> Result<Reply> {
    let engine = call.engine.clone();
    let auth: AuthConfig = call.json().await?;
    let server = auth.server_address.clone();
    let credentials = given(auth).ok_or_else(|| ApiError::bad_request("no username given"))?;
    let token = engine.images().login(registry_of(&server), credentials).await;
    match token {
        Ok(token) => Ok(reply::ok(&AuthResponse {
            status: "Login Succeeded".to_owned(),
            identity_token: token.unwrap_or_default(),
        })),
        // Docker answers 401 here, and 403 elsewhere.
        Err(error) if error.class == Class::Denied => {
            Err(ApiError::new(StatusCode::UNAUTHORIZED, error.message))
        }
        Err(error) => Err(error.into()),
    }
}

/// The registry that a server's address means.
fn registry_of(address: &str) -> &str {
    let address = address.trim_start_matches("https://").trim_start_matches("http://");
    let host = address.split('/').next().unwrap_or(address);
    match host {
        "" | "index.docker.io" | "registry-1.docker.io" => "docker.io",
        host => host,
    }
}

async fn build(_call: Call) -> Result<Reply> {
    Err(ApiError::not_implemented("building images is not built yet"))
}

/// There is no build cache, so nothing to prune.
async fn build_prune(_call: Call) -> Result<Reply> {
    Ok(reply::ok(&json!({ "CachesDeleted": null, "SpaceReclaimed": 0 })))
}

async fn plugins(_call: Call) -> Result<Reply> {
    Ok(reply::ok(&json!([])))
}

async fn distribution(call: Call) -> Result<Reply> {
    let reference = Reference::parse(&call.name)
        .map_err(|error| ApiError::bad_request(format!("invalid reference format: {error}")))?;
    let credentials = credentials(&call);
    let view = call.engine.images().distribution(&reference, credentials).await?;
    Ok(reply::ok(&json!({ "Descriptor": view.descriptor, "Platforms": view.platforms })))
}
