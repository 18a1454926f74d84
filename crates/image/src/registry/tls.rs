//! Whom to believe: the system's certificate authorities, and what `certs.d` says
//! about one host.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::CryptoProvider;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use ureq::tls::{Certificate, ClientCert, PemItem, PrivateKey, RootCerts, TlsConfig, parse_pem};

/// Where systems keep their bundle, Debian's place first.
const BUNDLES: &[&str] = &[
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/ca-bundle.pem",
    "/etc/ssl/cert.pem",
];
const FILE_MAX: u64 = 16 << 20;

type Roots = Vec<Certificate<'static>>;

/// Certificates from a host's own directory.
pub(super) struct HostCerts {
    roots: Roots,
    client: Option<ClientCert>,
}

/// The system's authorities, or those of `bundle`.
pub(super) fn roots(bundle: Option<&Path>) -> io::Result<Roots> {
    let found = BUNDLES.iter().map(Path::new).find(|path| path.exists());
    match bundle.or(found) {
        Some(path) => certificates(path),
        None => Ok(Vec::new()),
    }
}

/// What `certs.d` has for `authority`, `None` when it has no such directory.
pub(super) fn host_certs(certs_d: &Path, authority: &str) -> io::Result<Option<HostCerts>> {
    let dir = certs_d.join(authority);
    if authority.contains('/') || authority.starts_with('.') || !dir.is_dir() {
        return Ok(None);
    }
    let mut paths = fs::read_dir(&dir)
        .and_then(|entries| entries.map(|e| Ok(e?.path())).collect::<io::Result<Vec<PathBuf>>>())
        .map_err(|error| at(&dir, error))?;
    paths.sort();
    let mut certs = HostCerts { roots: Vec::new(), client: None };
    for path in paths {
        match path.extension().and_then(|e| e.to_str()) {
            Some("crt") => certs.roots.extend(certificates(&path)?),
            Some("cert") => certs.client = Some(client(&path)?),
            _ => {}
        }
    }
    Ok(Some(certs))
}

/// The settings for a host.
pub(super) fn config(roots: &Roots, host: Option<HostCerts>, verify: bool) -> TlsConfig {
    let host = host.unwrap_or(HostCerts { roots: Vec::new(), client: None });
    let all = [roots.as_slice(), &host.roots].concat();
    TlsConfig::builder()
        .root_certs(RootCerts::from(all.into_iter()))
        .client_cert(host.client)
        .disable_verification(!verify)
        .unversioned_rustls_crypto_provider(provider())
        .build()
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn certificates(path: &Path) -> io::Result<Roots> {
    let mut found = Vec::new();
    for item in parse_pem(&read(path)?) {
        if let PemItem::Certificate(certificate) = item.map_err(|e| at(path, e))? {
            found.push(certificate);
        }
    }
    Ok(found)
}

/// `x.cert` with `x.key` beside it. That they belong together is checked here: the HTTP
/// client would panic.
fn client(path: &Path) -> io::Result<ClientCert> {
    let chain = certificates(path)?;
    let key_path = path.with_extension("key");
    let key = PrivateKey::from_pem(&read(&key_path)?).map_err(|e| at(&key_path, e))?;
    let der = PrivateKeyDer::try_from(key.der().to_vec()).map_err(|e| at(&key_path, e))?;
    let owned = chain.iter().map(|c| CertificateDer::from(c.der().to_vec())).collect();
    rustls::ClientConfig::builder_with_provider(provider())
        .with_safe_default_protocol_versions()
        .and_then(|builder| {
            builder
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_client_auth_cert(owned, der)
        })
        .map_err(|e| at(path, e))?;
    Ok(ClientCert::new_with_certs(&chain, key))
}

fn read(path: &Path) -> io::Result<Vec<u8>> {
    let size = fs::metadata(path).map_err(|e| at(path, e))?.len();
    if size > FILE_MAX {
        return Err(at(path, "too large for certificates"));
    }
    fs::read(path).map_err(|e| at(path, e))
}

fn at(path: &Path, error: impl std::fmt::Display) -> io::Error {
    io::Error::other(format!("{}: {error}", path.display()))
}
