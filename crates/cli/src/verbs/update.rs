//! `update`: other limits and another restart policy for containers that exist.

use std::rc::Rc;

use capsa_api::encoding::encode;
use capsa_api::types::{HostConfig, UpdateResponse};

use super::{Outcome, each_argument};
use crate::create::flags;
use crate::create::resources::fill_changeable;
use crate::failure::Failure;
use crate::flags::{Arity, Command, Flag, Matches};
use crate::output::note;
use crate::session::Session;

/// `capsa update`.
pub(crate) static UPDATE: Command = Command {
    names: &["container update", "update"],
    usage: "[OPTIONS] CONTAINER [CONTAINER...]",
    about: "Change the limits of containers",
    flags: &[flags::CHANGEABLE, &[Flag::text("restart", "When to start it again")]],
    arity: Arity::AtLeast(1),
    interspersed: true,
    run: |session, matches| Box::pin(update(session, matches)),
};

async fn update(session: Rc<Session>, matches: Rc<Matches>) -> Outcome {
    let flags = UPDATE.flags.iter().flat_map(|group| group.iter());
    if !flags.into_iter().any(|flag| matches.given(flag.long)) {
        return Err(Failure::said("you must provide one or more flags when using this command"));
    }
    let mut change = HostConfig::default();
    fill_changeable(&matches, &mut change)?;
    change.pids_limit = matches.int("pids-limit");
    let client = session.client()?;
    let change = &change;
    each_argument(&matches.args, 1, |name| async move {
        let path = format!("/containers/{}/update", encode(name));
        let answer: UpdateResponse = client.post(&path, change).await?;
        answer.warnings.iter().for_each(|warning| note(warning));
        Ok(Some(name.to_owned()))
    })
    .await
}
