//! The architectures a filter can be for, and what is special about each.

/// Architectures whose syscalls a kernel that we run on may accept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Arch {
    X86_64,
    X86,
    Aarch64,
    Arm,
}

impl Arch {
    /// The one of this program.
    pub(super) const NATIVE: Self =
        if cfg!(target_arch = "aarch64") { Self::Aarch64 } else { Self::X86_64 };

    /// By the name that specs use; none for those that this machine can't run.
    pub(super) fn parse(name: &str) -> Option<Self> {
        let arch = match name {
            "SCMP_ARCH_X86_64" => Self::X86_64,
            "SCMP_ARCH_X86" => Self::X86,
            "SCMP_ARCH_AARCH64" => Self::Aarch64,
            "SCMP_ARCH_ARM" => Self::Arm,
            _ => return None,
        };
        arch.runs_here().then_some(arch)
    }

    fn runs_here(self) -> bool {
        match Self::NATIVE {
            Self::X86_64 | Self::X86 => matches!(self, Self::X86_64 | Self::X86),
            Self::Aarch64 | Self::Arm => matches!(self, Self::Aarch64 | Self::Arm),
        }
    }

    /// The kernel's token, `seccomp_data.arch`.
    pub(super) fn token(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// Numbers from here on are not ordinary calls: x32 on x86_64, private calls on arm.
    pub(super) fn special_from(self) -> u32 {
        match self {
            Self::X86_64 => X32_BIT,
            Self::Arm => 0xf_0000,
            Self::X86 | Self::Aarch64 => u32::MAX,
        }
    }
}

/// The x32 ABI shares x86_64's token and sets this bit in the number.
pub(super) const X32_BIT: u32 = 0x4000_0000;

/// Calls that i386 also offers through one multiplexer: their number in its first argument.
pub(super) fn multiplexed(name: &str) -> Option<(&'static str, u64)> {
    const SOCKET: [&str; 20] = [
        "socket",
        "bind",
        "connect",
        "listen",
        "accept",
        "getsockname",
        "getpeername",
        "socketpair",
        "send",
        "recv",
        "sendto",
        "recvfrom",
        "shutdown",
        "setsockopt",
        "getsockopt",
        "sendmsg",
        "recvmsg",
        "accept4",
        "recvmmsg",
        "sendmmsg",
    ];
    const IPC: [(&str, u64); 11] = [
        ("semop", 1),
        ("semget", 2),
        ("semctl", 3),
        ("semtimedop", 4),
        ("msgsnd", 11),
        ("msgrcv", 12),
        ("msgget", 13),
        ("msgctl", 14),
        ("shmat", 21),
        ("shmdt", 22),
        ("shmget", 23),
    ];
    if let Some(at) = SOCKET.iter().position(|known| *known == name) {
        return Some(("socketcall", at as u64 + 1));
    }
    let ipc = IPC.iter().find(|(known, _)| *known == name).map(|(_, call)| ("ipc", *call));
    ipc.or_else(|| (name == "shmctl").then_some(("ipc", 24)))
}

/// Arguments that the kernel cuts to 32 bits before it looks at them: comparing all 64 would
/// let a caller step round a rule with bits that have no effect.
pub(super) fn is_narrow(name: &str, argument: u32) -> bool {
    matches!((name, argument), ("socket" | "socketpair", 0..=2) | ("personality", 0))
}
