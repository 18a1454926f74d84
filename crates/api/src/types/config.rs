//! What a container runs: the `Config` of create and inspect, and the create body.

use serde::{Deserialize, Serialize};
use serde_json::{Error, Value};

use super::{HostConfig, NetworkingConfig, Set, StringMap, is_zero};
use crate::json;

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct Config {
    pub hostname: String,
    pub domainname: String,
    pub user: String,
    pub attach_stdin: bool,
    pub attach_stdout: bool,
    pub attach_stderr: bool,
    #[serde(skip_serializing_if = "Set::is_empty")]
    pub exposed_ports: Set,
    pub tty: bool,
    pub open_stdin: bool,
    pub stdin_once: bool,
    pub env: Option<Vec<String>>,
    #[serde(deserialize_with = "json::string_or_list")]
    pub cmd: Option<Vec<String>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<HealthConfig>,
    #[serde(skip_serializing_if = "is_zero")]
    pub args_escaped: bool,
    pub image: String,
    pub volumes: Option<Set>,
    pub working_dir: String,
    #[serde(deserialize_with = "json::string_or_list")]
    pub entrypoint: Option<Vec<String>>,
    #[serde(skip_serializing_if = "is_zero")]
    pub network_disabled: bool,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub mac_address: String,
    pub on_build: Option<Vec<String>>,
    pub labels: StringMap,
    #[serde(skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stop_timeout: Option<i64>,
    #[serde(deserialize_with = "json::string_or_list", skip_serializing_if = "Option::is_none")]
    pub shell: Option<Vec<String>>,
}

/// Durations are nanoseconds; 0 inherits.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct HealthConfig {
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub test: Vec<String>,
    #[serde(skip_serializing_if = "is_zero")]
    pub interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub timeout: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_period: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub start_interval: i64,
    #[serde(skip_serializing_if = "is_zero")]
    pub retries: i64,
}

/// Body of `POST /containers/create`.
#[derive(Clone, Debug, Default, Serialize)]
#[serde(rename_all = "PascalCase")]
pub struct CreateRequest {
    #[serde(flatten)]
    pub config: Config,
    pub host_config: HostConfig,
    pub networking_config: NetworkingConfig,
}

#[derive(Clone, Debug, Default, Serialize, Deserialize)]
#[serde(default, rename_all = "PascalCase")]
pub struct CreateResponse {
    pub id: String,
    pub warnings: Vec<String>,
}

impl CreateRequest {
    /// Reads a create body by the lenient rules of [`json`].
    ///
    /// # Errors
    /// Malformed JSON or a field of the wrong type.
    pub fn from_slice(body: &[u8]) -> Result<Self, Error> {
        Self::from_value(serde_json::from_slice(body)?)
    }

    /// Reads a parsed create body.
    ///
    /// # Errors
    /// A field of the wrong type.
    pub fn from_value(mut body: Value) -> Result<Self, Error> {
        let part = |body: &mut Value, key| {
            body.as_object_mut().and_then(|object| json::take(object, key)).unwrap_or_default()
        };
        let host_config = part(&mut body, "HostConfig");
        let networking_config = part(&mut body, "NetworkingConfig");
        Ok(Self {
            config: json::from_value(body)?,
            host_config: json::from_value(host_config)?,
            networking_config: json::from_value(networking_config)?,
        })
    }
}
