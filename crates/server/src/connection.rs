//! Accepting connections and answering the requests on them.
//!
//! A request is dropped when its client leaves, unless its route says that it
//! survives. On shutdown idle connections close at once and busy ones get a grace.

use std::convert::Infallible;
use std::future::Future;
use std::time::Duration;

use capsa_api::Transport;
use capsa_engine::Engine;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::sync::watch;
use tokio::task::JoinSet;

use crate::error::{ApiError, Result};
use crate::listen::Listener;
use crate::raw::Intercept;
use crate::reply::{self, Reply};
use crate::request::Call;
use crate::router;

/// How long answers under way may go on after a shutdown was asked for.
const GRACE: Duration = Duration::from_secs(3);
/// Pause after accept(2) failed, mostly for want of descriptors.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Serves `engine` on `listeners` until `shutdown` resolves; then stops accepting,
/// gives answers under way a few seconds, and returns.
pub async fn serve(engine: Engine, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let answer = move |request| {
        let engine = engine.clone();
        async move {
            let reply = dispatch(engine, cpus, request).await;
            reply::finish(reply.unwrap_or_else(|error| reply::failure(&error)))
        }
    };
    run(listeners, shutdown, answer).await;
}

/// What answers requests.
trait Answer<F>: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static {}
impl<F, A: Fn(Request<Incoming>) -> F + Clone + Send + Sync + 'static> Answer<F> for A {}

async fn run<F>(
    listeners: Vec<Listener>,
    shutdown: impl Future<Output = ()>,
    answer: impl Answer<F>,
) where
    F: Future<Output = Reply> + Send + 'static,
{
    let (stop, stopped) = watch::channel(());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, answer.clone(), stopped.clone()));
    }
    shutdown.await;
    drop(stop);
    while accepting.join_next().await.is_some() {}
}

async fn accept<F>(listener: Listener, answer: impl Answer<F>, mut stopped: watch::Receiver<()>)
where
    F: Future<Output = Reply> + Send + 'static,
{
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener) => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok(transport) => {
                connections.spawn(connection(transport, answer.clone(), stopped.clone()));
            }
            Err(error) => {
                tracing::warn!(%error, "accepting a connection");
                tokio::time::sleep(ACCEPT_PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
    drop(listener);
    let all_done = async { while connections.join_next().await.is_some() {} };
    if tokio::time::timeout(GRACE, all_done).await.is_err() {
        tracing::debug!("closing connections that are still busy");
    }
}

async fn next(listener: &Listener) -> std::io::Result<Transport> {
    match listener {
        Listener::Unix(listener) => Ok(Transport::Unix(listener.accept().await?.0)),
        Listener::Tcp(listener) => {
            let stream = listener.accept().await?.0;
            stream.set_nodelay(true)?;
            Ok(Transport::Tcp(stream))
        }
    }
}

async fn connection<F>(
    transport: Transport,
    answer: impl Answer<F>,
    mut stopped: watch::Receiver<()>,
) where
    F: Future<Output = Reply> + Send + 'static,
{
    let opened = tokio::select! {
        opened = Intercept::open(transport) => opened,
        _ = stopped.changed() => return,
    };
    let Ok(io) = opened else { return };
    let service = service_fn(move |request| {
        let reply = answer(request);
        async move { Ok::<Reply, Infallible>(reply.await) }
    });
    let served = http1::Builder::new().serve_connection(TokioIo::new(io), service).with_upgrades();
    tokio::pin!(served);
    let outcome = tokio::select! {
        outcome = served.as_mut() => outcome,
        _ = stopped.changed() => {
            served.as_mut().graceful_shutdown();
            served.await
        }
    };
    if let Err(error) = outcome {
        tracing::debug!(%error, "connection ended");
    }
}

async fn dispatch(engine: Engine, cpus: usize, request: Request<Incoming>) -> Result<Reply> {
    if request.method() == Method::OPTIONS {
        return Ok(reply::empty(StatusCode::OK));
    }
    let (version, path) = router::split_version(request.uri().path())?;
    let (route, name) = router::find(request.method(), path)?;
    let mut call = Call::new(engine, cpus, version, request);
    call.name = name;
    let work = (route.serve)(call);
    if !route.survives {
        return work.await;
    }
    tokio::spawn(work).await.unwrap_or_else(|error| {
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("internal error: {error}")))
    })
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use capsa_api::{Client, Endpoint, Payload, Version};
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::UnixStream;
    use tokio::sync::oneshot;

    use super::*;
    use crate::detach_keys::DetachKeys;
    use crate::hijack::{self, Input};

    /// A server whose every hijack echoes its stdin, and whose every other path waits for ever.
    struct Server {
        directory: tempfile::TempDir,
        stop: oneshot::Sender<()>,
        task: tokio::task::JoinHandle<()>,
    }

    fn start() -> Server {
        let directory = tempfile::tempdir().unwrap();
        let listener = Listener::unix(&directory.path().join("s")).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async { drop(stopped.await) };
        let task = tokio::spawn(run(vec![listener], shutdown, answer));
        Server { directory, stop, task }
    }

    async fn answer(mut request: Request<Incoming>) -> Reply {
        let upgrade = request.extensions_mut().remove();
        match request.uri().path() {
            path if path.ends_with("/attach") => {
                let (io, container) = UnixStream::pair().unwrap();
                tokio::spawn(async move {
                    let (mut stdin, mut output) = container.into_split();
                    tokio::io::copy(&mut stdin, &mut output).await.unwrap();
                });
                let input = Input { wanted: true, keys: DetachKeys::default() };
                hijack::join(upgrade, Version::MAX, false, io, input)
            }
            "/v1.51/ok" => reply::ok(&["yes"]),
            _ => reply::later(std::future::pending()),
        }
    }

    impl Server {
        fn path(&self) -> std::path::PathBuf {
            self.directory.path().join("s")
        }

        fn client(&self) -> Client {
            Client::new(Endpoint::Unix(self.path()))
        }
    }

    async fn raw(path: &Path, request: &str) -> String {
        let mut stream = UnixStream::connect(path).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        stream.shutdown().await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn a_client_calls_streams_and_hijacks() {
        let server = start();
        let client = server.client();
        assert_eq!(client.get::<Vec<String>>("/ok").await.unwrap(), ["yes"]);
        let waiting = client.stream(Method::POST, "/x/wait", Payload::Empty).await.unwrap();
        assert_eq!(waiting.status, StatusCode::OK, "headers come before the body");
        assert_eq!(client.get::<Vec<String>>("/ok").await.unwrap(), ["yes"]);
        let mut hijacked = client.hijack("/containers/x/attach", &()).await.unwrap();
        assert!(hijacked.multiplexed);
        hijacked.write_all(b"stdin").await.unwrap();
        hijacked.shutdown().await.unwrap();
        let mut output = String::new();
        hijacked.read_to_string(&mut output).await.unwrap();
        assert_eq!(output, "stdin");
    }

    #[tokio::test]
    async fn stdin_sent_with_the_request_and_closed_at_once_arrives() {
        let server = start();
        let head = "POST /v1.41/containers/x/attach HTTP/1.1\r\nHost: x\r\n";
        let upgraded =
            raw(&server.path(), &format!("{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\nearly"))
                .await;
        assert!(upgraded.starts_with("HTTP/1.1 101 UPGRADED\r\n"), "{upgraded}");
        assert!(upgraded.ends_with("\r\n\r\nearly"), "{upgraded}");
        let plain = raw(&server.path(), &format!("{head}\r\nearly")).await;
        assert_eq!(
            plain,
            "HTTP/1.1 200 OK\r\nContent-Type: application/vnd.docker.raw-stream\r\n\r\nearly"
        );
        let with_body =
            raw(&server.path(), &format!("{head}Content-Length: 2\r\n\r\n{{}}in")).await;
        assert!(with_body.ends_with("\r\n\r\nin"), "{with_body}");
    }

    #[tokio::test]
    async fn shutdown_ends_idle_connections_at_once() {
        let server = start();
        let client = server.client();
        assert_eq!(client.get::<Vec<String>>("/ok").await.unwrap(), ["yes"]);
        let Server { stop, task, directory } = server;
        drop(stop);
        tokio::time::timeout(GRACE / 2, task).await.unwrap().unwrap();
        assert!(client.get::<Vec<String>>("/ok").await.unwrap_err().is_unreachable());
        drop(directory);
    }
}
