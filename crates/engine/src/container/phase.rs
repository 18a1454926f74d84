//! Phases of a container, and which request fits which.
//!
//!   Creating ──► Created ──► Running ◄──► Paused
//!      │            │           │
//!      └────────────┴──► Stopped ──► Removing ──► (gone)
//!
//! Pure: no clock, no IO. The actor asks here before it acts. A request that
//! does not fit is a `Conflict` that names the container and its phase; it is
//! never ignored. The texts are those that Docker's clients know.

use crate::view::Phase;
use crate::{Error, Result};

/// Whether a start has to do something: false when it runs already.
pub(crate) fn may_start(phase: Phase) -> Result<bool> {
    match phase {
        Phase::Created | Phase::Stopped => Ok(true),
        Phase::Running => Ok(false),
        Phase::Paused => {
            Err(Error::conflict("cannot start a paused container, try unpause instead"))
        }
        Phase::Creating | Phase::Removing => {
            Err(Error::conflict("container is marked for removal and cannot be started"))
        }
    }
}

/// Whether a process is there to signal.
pub(crate) fn must_run(phase: Phase, id: &str) -> Result<()> {
    match phase {
        Phase::Running | Phase::Paused => Ok(()),
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

/// Whether a process can be frozen.
pub(crate) fn may_pause(phase: Phase, id: &str) -> Result<()> {
    match phase {
        Phase::Running => Ok(()),
        Phase::Paused => Err(Error::conflict(format!("container {id} is already paused"))),
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

/// Whether a process is frozen.
pub(crate) fn may_unpause(phase: Phase, id: &str) -> Result<()> {
    match phase {
        Phase::Paused => Ok(()),
        Phase::Running => Err(Error::conflict(format!("container {id} is not paused"))),
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

/// Whether a further process can be run in it.
pub(crate) fn may_exec(phase: Phase, id: &str) -> Result<()> {
    match phase {
        Phase::Running => Ok(()),
        Phase::Paused => Err(Error::conflict(format!(
            "container {id} is paused, unpause the container before exec"
        ))),
        _ => Err(Error::conflict(format!("container {id} is not running"))),
    }
}

/// Whether it can be removed without killing it.
pub(crate) fn may_remove(phase: Phase, name: &str) -> Result<()> {
    match phase {
        Phase::Running | Phase::Paused => {
            let state = if phase == Phase::Paused { "paused" } else { "running" };
            let cure = if phase == Phase::Paused { "unpause and then stop" } else { "stop" };
            Err(Error::conflict(format!(
                "cannot remove container \"{name}\": container is {state}: {cure} the container before removing or force remove"
            )))
        }
        Phase::Removing => {
            Err(Error::conflict(format!("removal of container {name} is already in progress")))
        }
        Phase::Creating | Phase::Created | Phase::Stopped => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: [Phase; 6] = [
        Phase::Creating,
        Phase::Created,
        Phase::Running,
        Phase::Paused,
        Phase::Stopped,
        Phase::Removing,
    ];

    fn fits(check: impl Fn(Phase) -> bool) -> Vec<Phase> {
        ALL.into_iter().filter(|phase| check(*phase)).collect()
    }

    #[test]
    fn each_request_fits_exactly_its_phases() {
        use Phase::{Created, Creating, Paused, Running, Stopped};
        assert_eq!(fits(|p| may_start(p) == Ok(true)), [Created, Stopped]);
        assert_eq!(fits(|p| may_start(p) == Ok(false)), [Running]);
        assert_eq!(fits(|p| must_run(p, "x").is_ok()), [Running, Paused]);
        assert_eq!(fits(|p| may_pause(p, "x").is_ok()), [Running]);
        assert_eq!(fits(|p| may_unpause(p, "x").is_ok()), [Paused]);
        assert_eq!(fits(|p| may_exec(p, "x").is_ok()), [Running]);
        assert_eq!(fits(|p| may_remove(p, "x").is_ok()), [Creating, Created, Stopped]);
    }
}
