//! Documents of images that agree with each other, to be bent afterwards.

use capsa_oci::{Digest, media_type as mt};
use serde_json::{Value, json};

use crate::random::Random;

/// A pointer to bytes.
pub(crate) fn descriptor(media_type: &str, bytes: &[u8]) -> Value {
    json!({"mediaType": media_type, "digest": Digest::sha256(bytes), "size": bytes.len()})
}

/// A config of these uncompressed layers.
pub(crate) fn config(layers: &[Vec<u8>]) -> Value {
    let diff_ids: Vec<_> = layers.iter().map(|layer| Digest::sha256(layer)).collect();
    json!({
        "architecture": "amd64",
        "os": "linux",
        "created": "2020-01-02T03:04:05Z",
        "config": {"Cmd": ["sh"], "Env": ["A=1"], "ExposedPorts": {"80/tcp": {}}, "User": "0"},
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": [{"created_by": "fuzz"}, {"empty_layer": true}],
    })
}

/// A manifest of a config and of layers as stored.
pub(crate) fn manifest(random: &mut Random, config: &[u8], layers: &[Vec<u8>]) -> Value {
    let docker = random.once_in(3);
    let (own, of_config) = if docker {
        (mt::DOCKER_MANIFEST, mt::DOCKER_CONFIG)
    } else {
        (mt::OCI_MANIFEST, mt::OCI_CONFIG)
    };
    let kinds = [mt::OCI_LAYER, mt::OCI_LAYER_GZIP, mt::OCI_LAYER_ZSTD];
    let layers: Vec<_> =
        layers.iter().map(|layer| descriptor(kinds[random.below(kinds.len())], layer)).collect();
    json!({
        "schemaVersion": 2,
        "mediaType": own,
        "config": descriptor(of_config, config),
        "layers": layers,
        "annotations": {"a": "b"},
    })
}

/// An index of these manifests, each for another platform.
pub(crate) fn index(random: &mut Random, manifests: &[(&str, Vec<u8>)]) -> Value {
    let platforms = [
        json!({"os": "linux", "architecture": "amd64"}),
        json!({"os": "linux", "architecture": "arm64", "variant": "v8"}),
        json!({"os": "linux", "architecture": "arm", "variant": "v7"}),
        json!({"os": "unknown", "architecture": "unknown"}),
    ];
    let entries: Vec<_> = manifests
        .iter()
        .map(|(kind, bytes)| {
            let mut entry = descriptor(kind, bytes);
            if !random.once_in(3) {
                entry["platform"] = random.pick(&platforms).clone();
            }
            if random.once_in(2) {
                entry["annotations"] = json!({
                    "io.containerd.image.name": "docker.io/library/x:1",
                    "org.opencontainers.image.ref.name": "1",
                });
            }
            entry
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": mt::OCI_INDEX, "manifests": entries})
}
