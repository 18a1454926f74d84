//! Execs: create, start (taking the connection over), resize, inspect.

use capsa_api::stream::{self, StreamKind};
use capsa_api::types::{ExecCreate, ExecStart, IdResponse};
use capsa_engine::Class;
use hyper::StatusCode;

use crate::containers::size_of;
use crate::convert::create::console_size;
use crate::convert::exec;
use crate::detach_keys::DetachKeys;
use crate::error::{ApiError, Result};
use crate::hijack::{self, Input};
use crate::reply::{self, Reply};
use crate::request::Call;
use crate::router::routes;

routes! {
    POST "containers" "{}" "exec" => create survives;
    POST "exec" "{}" "start" => start survives;
    POST "exec" "{}" "resize" => resize survives;
    GET "exec" "{}" "json" => show;
}

async fn create(call: Call) -> Result<Reply> {
    let (engine, container) = (call.engine.clone(), call.name.clone());
    let body: ExecCreate = call.json().await?;
    let id = engine.execs().create(&container, exec::spec(body)?).await?;
    Ok(reply::json(StatusCode::CREATED, &IdResponse { id }))
}

async fn start(mut call: Call) -> Result<Reply> {
    let (engine, id, version) = (call.engine.clone(), call.name.clone(), call.version);
    let upgrade = call.upgrade.take();
    let body: ExecStart = call.json_or_default().await?;
    let size = console_size(&body.console_size.unwrap_or_default())?;
    let spec = engine.execs().inspect(&id)?.spec;
    if !body.detach && body.tty != spec.tty {
        return Err(ApiError::bad_request(format!(
            "exec {id} was created with Tty {}, and is started with Tty {}",
            spec.tty, body.tty
        )));
    }
    let keys = DetachKeys::parse(spec.detach_keys.as_deref().unwrap_or_default())
        .map_err(|error| ApiError::bad_request(error.to_string()))?;
    let input = Input { wanted: spec.attach_stdin, keys };
    match engine.execs().start(&id, body.detach, size).await {
        Ok(Some(stream)) => Ok(hijack::join(upgrade, version, stream.tty, stream.io, input)),
        Ok(None) => Ok(reply::empty(StatusCode::OK)),
        // Docker has taken the connection over by then: the text comes as output, and the
        // code (126, 127) by inspect.
        Err(error) if error.class == Class::InvalidInput && !body.detach => {
            let text = told(&error.message, spec.tty);
            Ok(hijack::join(upgrade, version, spec.tty, text, input))
        }
        Err(error) => Err(error.into()),
    }
}

/// A stream that says `message` and ends.
fn told(message: &str, tty: bool) -> impl hijack::Duplex {
    let text = format!("{message}\r\n");
    let mut bytes = Vec::with_capacity(text.len() + 8);
    if !tty {
        let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
        bytes.extend_from_slice(&stream::header(StreamKind::Stdout, length));
    }
    bytes.extend_from_slice(text.as_bytes());
    tokio::io::join(std::io::Cursor::new(bytes), tokio::io::sink())
}

async fn resize(call: Call) -> Result<Reply> {
    let (rows, columns) = size_of(&call)?;
    call.engine.execs().resize(&call.name, rows, columns).await?;
    Ok(reply::empty(StatusCode::OK))
}

async fn show(call: Call) -> Result<Reply> {
    let view = call.engine.execs().inspect(&call.name)?;
    Ok(reply::ok(&exec::show(&view)))
}
