//! Changing limits and restart policy of a container, running or not.

use capsa_store::Durability;

use super::actor::Actor;
use crate::oci_spec::limits;
use crate::spec::{Resources, RestartPolicy};
use crate::view::Phase;
use crate::{Error, Result};

impl Actor {
    /// Lays the given values over the present ones; the kernel's first, so that a refusal
    /// changes nothing.
    pub(super) fn update(&mut self, asked: Resources, policy: Option<RestartPolicy>) -> Result<()> {
        if policy.is_some_and(|policy| policy != RestartPolicy::No) && self.record.spec.auto_remove
        {
            return Err(Error::invalid(
                "Restart policy cannot be updated because AutoRemove is enabled for the container",
            ));
        }
        let merged = merge(&self.record.spec.resources, asked);
        if matches!(self.record.live.phase, Phase::Running | Phase::Paused) {
            let limits = limits::limits(&merged)?;
            self.world.cgroup(&self.record)?.update(&limits)?;
        }
        self.record.spec.resources = merged;
        if let Some(policy) = policy {
            self.record.spec.restart = policy;
        }
        self.save(Durability::Durable)?;
        self.world.container_event(&self.record, "update", []);
        Ok(())
    }
}

/// What is not asked for stays.
fn merge(present: &Resources, asked: Resources) -> Resources {
    let present = present.clone();
    Resources {
        memory: asked.memory.or(present.memory),
        memory_swap: asked.memory_swap.or(present.memory_swap),
        memory_reservation: asked.memory_reservation.or(present.memory_reservation),
        memory_swappiness: asked.memory_swappiness.or(present.memory_swappiness),
        nano_cpus: asked.nano_cpus.or(present.nano_cpus),
        cpu_shares: asked.cpu_shares.or(present.cpu_shares),
        cpu_period: asked.cpu_period.or(present.cpu_period),
        cpu_quota: asked.cpu_quota.or(present.cpu_quota),
        cpuset_cpus: asked.cpuset_cpus.or(present.cpuset_cpus),
        cpuset_mems: asked.cpuset_mems.or(present.cpuset_mems),
        pids: asked.pids.or(present.pids),
        blkio_weight: asked.blkio_weight.or(present.blkio_weight),
        ..present
    }
}
