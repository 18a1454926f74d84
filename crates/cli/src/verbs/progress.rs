//! Shows the progress of a load, import, pull, push or build: one line for each layer
//! that is redrawn on a terminal, plain lines elsewhere.

use std::fmt::Write as _;

use capsa_api::client::BodyStream;
use capsa_api::types::{JsonMessage, ProgressDetail};
use serde_json::Value;

use crate::failure::{Failure, Result};
use crate::output::units::human_size;
use crate::output::{self, terminal};

/// Where progress is shown.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shown {
    /// Nowhere.
    Nothing,
    /// On standard output.
    OnStdout,
    /// On standard error, so that data stays alone on standard output.
    OnStderr,
}

/// Shows every line of `body`; the values the daemon sent along come back. An error
/// line is the failure.
pub(crate) async fn follow(body: BodyStream, shown: Shown) -> Result<Vec<Value>> {
    let mut lines = body.json_lines::<JsonMessage>();
    let mut screen = Screen { shown, redraws: redraws(shown), ids: Vec::new() };
    let mut aux = Vec::new();
    while let Some(message) = lines.next().await? {
        if let Some(error) = error_of(&message) {
            return Err(Failure::said(error));
        }
        screen.show(&message);
        aux.extend(message.aux);
    }
    Ok(aux)
}

fn redraws(shown: Shown) -> bool {
    match shown {
        Shown::OnStdout => terminal::stdout_is(),
        Shown::OnStderr => rustix::termios::isatty(rustix::stdio::stderr()),
        Shown::Nothing => false,
    }
}

fn error_of(message: &JsonMessage) -> Option<String> {
    let detail = message.error_detail.as_ref().map(|detail| detail.message.as_str());
    let text = detail.filter(|text| !text.is_empty()).unwrap_or(&message.error);
    (!text.is_empty()).then(|| text.to_owned())
}

struct Screen {
    shown: Shown,
    redraws: bool,
    ids: Vec<String>,
}

impl Screen {
    fn show(&mut self, message: &JsonMessage) {
        if let Some(text) = &message.stream {
            self.ids.clear();
            return self.write(text);
        }
        if message.status.is_empty() {
            return;
        }
        let counted =
            message.progress_detail.filter(|detail| detail.current > 0 || detail.total > 0);
        let mut line = String::new();
        if !message.id.is_empty() {
            let _ = write!(line, "{}: ", message.id);
        }
        line.push_str(&message.status);
        if !self.redraws {
            if counted.is_none() {
                self.write(&format!("{line}\n"));
            }
            return;
        }
        if let Some(detail) = counted {
            let _ = write!(line, " {}", bar(detail));
        }
        if message.id.is_empty() {
            self.ids.clear();
            return self.write(&format!("{line}\n"));
        }
        self.redraw(&message.id, &line);
    }

    /// Goes up to the line of `id`, writes it anew, and comes back.
    fn redraw(&mut self, id: &str, line: &str) {
        let at = self.ids.iter().position(|known| known == id);
        let up = match at {
            Some(at) => self.ids.len() - at,
            None => {
                self.ids.push(id.to_owned());
                self.write("\n");
                1
            }
        };
        let room = terminal::columns().unwrap_or(80);
        let line: String = line.chars().take(room).collect();
        self.write(&format!("\x1b[{up}A\x1b[2K\r{line}\r\x1b[{up}B"));
    }

    fn write(&self, text: &str) {
        match self.shown {
            Shown::Nothing => {}
            Shown::OnStdout => output::out(text.as_bytes()),
            Shown::OnStderr => output::err(text.as_bytes()),
        }
    }
}

/// `[=====>     ]  1.2MB/5MB`.
fn bar(detail: ProgressDetail) -> String {
    const WIDTH: u64 = 30;
    let current = human_size(detail.current as f64, 4);
    if detail.total == 0 {
        return current;
    }
    let done = (detail.current.min(detail.total) * WIDTH / detail.total) as usize;
    let rest = WIDTH as usize - done;
    let total = human_size(detail.total as f64, 4);
    format!("[{}>{}]  {current}/{total}", "=".repeat(done), " ".repeat(rest))
}
