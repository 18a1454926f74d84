//! One request, one answer: connections, TLS and timeouts, and nothing decided. No
//! redirect is followed here and nothing is tried twice.
//!
//! Hosts with settings of their own get a client of their own; all others share one,
//! with the system's authorities loaded once.

use std::collections::HashMap;
use std::io::{self, Read};
use std::sync::{Mutex, OnceLock, PoisonError};

use ureq::http::{Method, Request as HttpRequest, Response};
use ureq::tls::Certificate;
use ureq::unversioned::transport::{
    ConnectProxyConnector, Connector, RustlsConnector, TcpConnector,
};
use ureq::{Agent, Proxy, SendBody};

use super::config::RegistryConfig;
use super::error::reason;
use super::resolver::Names;
use super::tls;
use super::url::Origin;

const HEADERS_MAX: usize = 64 << 10;
const AGENT: &str = concat!("capsa/", env!("CARGO_PKG_VERSION"));

const SHARED: &str = "";
const DIRECT: &str = "direct";

/// An answer, its body still to be read.
pub(super) type Answer = Response<ureq::Body>;

/// No answer came.
#[derive(Debug)]
pub(super) struct Broken {
    pub(super) message: String,
    /// Trying again won't help.
    pub(super) lasting: bool,
    /// Nobody listens there.
    pub(super) refused: bool,
}

/// What is sent.
pub(super) struct Request<'a> {
    pub(super) method: Method,
    pub(super) url: &'a str,
    pub(super) headers: &'a [(&'static str, String)],
    pub(super) authorization: Option<&'a str>,
    /// The answer may take as long as storing what is sent.
    pub(super) patient: bool,
}

/// What is sent along.
pub(super) enum Payload<'a> {
    Empty,
    Bytes(&'a [u8]),
    Stream(&'a mut dyn Read, u64),
}

pub(super) struct Wire {
    config: RegistryConfig,
    names: Names,
    roots: OnceLock<Result<Vec<Certificate<'static>>, String>>,
    /// By scheme and authority; hosts without settings share [`SHARED`] and [`DIRECT`].
    agents: Mutex<HashMap<String, Agent>>,
}

impl Wire {
    pub(super) fn new(config: RegistryConfig) -> Self {
        let names = Names::new(&config);
        Self { config, names, roots: OnceLock::new(), agents: Mutex::default() }
    }

    /// Sends and waits for the head of the answer, whatever its status.
    pub(super) fn exchange(
        &self,
        request: &Request<'_>,
        payload: Payload<'_>,
    ) -> Result<Answer, Broken> {
        let Some(origin) = Origin::of(request.url) else {
            return Err(lasting(format!("{:?} is no URL to send to", request.url)));
        };
        let agent = self.agent(&origin)?;
        let mut head = HttpRequest::builder().method(request.method.clone()).uri(request.url);
        for (name, value) in request.headers {
            head = head.header(*name, value);
        }
        if let Some(authorization) = request.authorization {
            head = head.header("authorization", authorization);
        }
        let patient = request.patient;
        match payload {
            Payload::Empty => {
                if !matches!(request.method, Method::GET | Method::HEAD) {
                    head = head.header("content-length", "0");
                }
                self.run(&agent, head.body(SendBody::none()), patient)
            }
            Payload::Bytes(bytes) => {
                head = head.header("content-length", bytes.len());
                self.run(&agent, head.body(bytes), patient)
            }
            Payload::Stream(reader, length) => {
                head = head.header("content-length", length);
                self.run(&agent, head.body(SendBody::from_reader(reader)), patient)
            }
        }
    }

    fn run<S: ureq::AsSendBody>(
        &self,
        agent: &Agent,
        request: ureq::http::Result<HttpRequest<S>>,
        patient: bool,
    ) -> Result<Answer, Broken> {
        let mut request = request.map_err(|error| lasting(error.to_string()))?;
        if patient {
            let commit = Some(self.config.timeouts.commit);
            request = agent.configure_request(request).timeout_per_read(commit).build();
        }
        agent.run(request).map_err(|error| broken(&error))
    }

    fn agent(&self, origin: &Origin) -> Result<Agent, Broken> {
        let authority = origin.authority();
        let insecure = self.config.is_insecure(&authority);
        if !origin.is_https() && !insecure {
            let text = format!("{authority} is not listed as insecure, so TLS is required");
            return Err(lasting(text));
        }
        let own = format!("{origin}");
        let mut agents = self.agents.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(agent) = agents.get(&own) {
            return Ok(agent.clone());
        }
        let unreadable = |error: io::Error| lasting(error.to_string());
        let certs = tls::host_certs(&self.config.certs_d, &authority).map_err(unreadable)?;
        let proxy = self.config.proxy_for(&authority).filter(|_| origin.is_https());
        let key = match (insecure || certs.is_some(), proxy) {
            (true, _) => own,
            (false, Some(_)) => SHARED.to_owned(),
            (false, None) => DIRECT.to_owned(),
        };
        if let Some(agent) = agents.get(&key) {
            return Ok(agent.clone());
        }
        let none = Vec::new();
        // What is not verified needs no authorities.
        let roots = if insecure { &none } else { self.roots().map_err(lasting)? };
        let tls = tls::config(roots, certs, !insecure);
        let proxy = proxy.map(Proxy::new).transpose();
        let proxy = proxy.map_err(|error| lasting(format!("the proxy: {error}")))?;
        let agent = self.build(tls, proxy);
        agents.insert(key, agent.clone());
        Ok(agent)
    }

    fn roots(&self) -> Result<&Vec<Certificate<'static>>, String> {
        let load = || tls::roots(self.config.ca_bundle.as_deref()).map_err(|e| e.to_string());
        self.roots.get_or_init(load).as_ref().map_err(Clone::clone)
    }

    fn build(&self, tls: ureq::tls::TlsConfig, proxy: Option<Proxy>) -> Agent {
        let timeouts = self.config.timeouts;
        let config = Agent::config_builder()
            .http_status_as_error(false)
            .max_redirects(0)
            .max_redirects_will_error(false)
            .user_agent(AGENT)
            .accept_encoding("identity")
            .max_response_header_size(HEADERS_MAX)
            .timeout_resolve(Some(timeouts.connect))
            .timeout_connect(Some(timeouts.connect))
            .timeout_per_read(Some(timeouts.stall))
            .timeout_per_write(Some(timeouts.stall))
            .proxy(proxy)
            .tls_config(tls)
            .build();
        let connector =
            ().chain(ConnectProxyConnector::default())
                .chain(TcpConnector::default())
                .chain(RustlsConnector::default());
        Agent::with_parts(config, connector, self.names.clone())
    }
}

impl Payload<'_> {
    pub(super) fn is_replayable(&self) -> bool {
        !matches!(self, Self::Stream(..))
    }

    /// The same once more; a stream must not be asked.
    pub(super) fn again(&mut self) -> Payload<'_> {
        match self {
            Self::Empty => Payload::Empty,
            Self::Bytes(bytes) => Payload::Bytes(bytes),
            Self::Stream(reader, length) => Payload::Stream(&mut **reader, *length),
        }
    }
}

/// The value of a header, if it is text.
pub(super) fn header<'a>(answer: &'a Answer, name: &str) -> Option<&'a str> {
    answer.headers().get(name)?.to_str().ok()
}

/// The body, of at most `max` bytes.
pub(super) fn read_body(answer: Answer, max: u64) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    answer.into_body().into_with_config().limit(max).reader().read_to_end(&mut bytes)?;
    Ok(bytes)
}

fn broken(error: &ureq::Error) -> Broken {
    use ureq::Error as E;
    let refused = |kind| kind == io::ErrorKind::ConnectionRefused;
    Broken {
        message: reason(error),
        lasting: match error {
            E::Io(source) => is_certificate(source),
            E::Timeout(_) => false,
            E::Rustls(source) => matches!(source, rustls::Error::InvalidCertificate(_)),
            _ => true,
        },
        refused: matches!(error, E::Io(source) if refused(source.kind())),
    }
}

/// TLS errors arrive inside of those of the stream.
fn is_certificate(error: &io::Error) -> bool {
    let inner = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
    inner.is_some_and(|inner| matches!(inner, rustls::Error::InvalidCertificate(_)))
}

fn lasting(message: String) -> Broken {
    Broken { message, lasting: true, refused: false }
}
