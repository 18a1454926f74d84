//! Scheduling and execution domain, as the spec names them.

use capsa_oci::runtime::{IoPriorityClass, Linux, Process, Scheduler};
use capsa_sys::schedule::{self, Scheduling};

use crate::error::{Error, Result, Stage};

/// Applies what `process` asks for to the caller, who still has all its rights.
pub(crate) fn apply(process: &Process) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        schedule::set_scheduling(scheduling(scheduler)?).stage("scheduler")?;
    }
    if let Some(io) = process.io_priority {
        let class = match io.class {
            IoPriorityClass::RealTime => 1,
            IoPriorityClass::BestEffort => 2,
            IoPriorityClass::Idle => 3,
        };
        let priority = u32::try_from(io.priority)
            .map_err(|_| Error::invalid("process.ioPriority", io.priority.to_string()))?;
        schedule::set_io_priority(class, priority).stage("I/O priority")?;
    }
    Ok(())
}

/// Sets the execution domain of the container.
pub(super) fn set_personality(linux: Option<&Linux>) -> Result<()> {
    let Some(personality) = linux.and_then(|linux| linux.personality.as_ref()) else {
        return Ok(());
    };
    let domain = match personality.domain.as_str() {
        "LINUX" => 0,
        "LINUX32" => 8,
        other => return Err(Error::invalid("linux.personality", other)),
    };
    schedule::set_personality(domain).stage("personality")
}

fn scheduling(wanted: &Scheduler) -> Result<Scheduling> {
    let unknown = |name: &str| Error::invalid("process.scheduler", name);
    let flag = |name: &String| schedule::flag(name).ok_or_else(|| unknown(name));
    let flags = wanted.flags.iter().map(flag).collect::<Result<Vec<_>>>()?;
    let priority = wanted.priority.unwrap_or(0);
    Ok(Scheduling {
        policy: schedule::policy(&wanted.policy).ok_or_else(|| unknown(&wanted.policy))?,
        flags: flags.into_iter().fold(0, |all, bit| all | bit),
        nice: wanted.nice.unwrap_or(0),
        priority: u32::try_from(priority).map_err(|_| unknown(&priority.to_string()))?,
        runtime: wanted.runtime.unwrap_or(0),
        deadline: wanted.deadline.unwrap_or(0),
        period: wanted.period.unwrap_or(0),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_become_numbers() {
        let wanted = Scheduler {
            policy: "SCHED_FIFO".into(),
            priority: Some(9),
            flags: vec!["SCHED_FLAG_RESET_ON_FORK".into()],
            ..Scheduler::default()
        };
        let found = scheduling(&wanted).unwrap();
        assert_eq!((found.policy, found.priority, found.flags), (1, 9, 1));
        assert!(scheduling(&Scheduler { policy: "FIFO".into(), ..wanted.clone() }).is_err());
        assert!(scheduling(&Scheduler { priority: Some(-1), ..wanted }).is_err());
    }
}
