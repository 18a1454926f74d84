//! Accepting connections and answering the requests on them.
//!
//! A request is dropped when its client leaves, unless its route says that it
//! survives. On shutdown idle connections close at once and busy ones get a grace.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
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

struct Shared {
    engine: Engine,
    cpus: usize,
}

/// Serves `engine` on `listeners` until `shutdown` resolves; then stops accepting,
/// gives answers under way a few seconds, and returns.
pub async fn serve(engine: Engine, listeners: Vec<Listener>, shutdown: impl Future<Output = ()>) {
    let cpus = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let shared = Arc::new(Shared { engine, cpus });
    let (stop, stopped) = watch::channel(());
    let mut accepting = JoinSet::new();
    for listener in listeners {
        accepting.spawn(accept(listener, Arc::clone(&shared), stopped.clone()));
    }
    shutdown.await;
    drop(stop);
    drop(stopped);
    while accepting.join_next().await.is_some() {}
}

async fn accept(listener: Listener, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    let mut connections = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = next(&listener) => accepted,
            _ = stopped.changed() => break,
        };
        match accepted {
            Ok(transport) => {
                connections.spawn(connection(transport, Arc::clone(&shared), stopped.clone()));
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

async fn connection(transport: Transport, shared: Arc<Shared>, mut stopped: watch::Receiver<()>) {
    let opened = tokio::select! {
        opened = Intercept::open(transport) => opened,
        _ = stopped.changed() => return,
    };
    let Ok(io) = opened else { return };
    let service = service_fn(move |request| answer(Arc::clone(&shared), request));
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

async fn answer(shared: Arc<Shared>, request: Request<Incoming>) -> Result<Reply, Infallible> {
    let reply = match dispatch(&shared, request).await {
        Ok(reply) => reply,
        Err(error) => reply::failure(&error),
    };
    Ok(reply::finish(reply))
}

async fn dispatch(shared: &Shared, request: Request<Incoming>) -> Result<Reply> {
    if request.method() == Method::OPTIONS {
        return Ok(reply::empty(StatusCode::OK));
    }
    let (version, path) = router::split_version(request.uri().path())?;
    let (route, name) = router::find(request.method(), path)?;
    let mut call = Call::new(shared.engine.clone(), shared.cpus, version, request);
    call.name = name;
    let work = (route.handler)(call);
    if !route.survives {
        return work.await;
    }
    tokio::spawn(work).await.unwrap_or_else(|error| {
        Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, format!("internal error: {error}")))
    })
}
