//! The compiler against an oracle: the program run by an interpreter of classic BPF must
//! decide every call as a direct reading of the rules does. And against the kernel.

use capsa_oci::runtime::{Arg, Op, Seccomp, SeccompAction, SyscallRule};
use proptest::prelude::*;

use super::*;

/// `struct seccomp_data`.
#[derive(Clone, Copy, Debug)]
struct Call {
    number: u32,
    token: u32,
    args: [u64; 6],
}

/// Runs `program` on `call` as the kernel does, and checks what its verifier would.
fn run(program: &[u8], call: Call) -> u32 {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.token,
        _ => {
            let arg = call.args[(offset as usize - 16) / 8];
            if offset.is_multiple_of(8) { arg as u32 } else { (arg >> 32) as u32 }
        }
    };
    let mut accumulator = 0u32;
    let mut at = 0usize;
    loop {
        let [o0, o1, yes, no, k0, k1, k2, k3] = *program[at * 8..].first_chunk().unwrap();
        let operand = u32::from_ne_bytes([k0, k1, k2, k3]);
        at += 1;
        let test = match u16::from_ne_bytes([o0, o1]) {
            0x20 => {
                assert!(operand % 4 == 0 && operand < 64 && operand != 8 && operand != 12);
                accumulator = word(operand);
                continue;
            }
            0x54 => {
                accumulator &= operand;
                continue;
            }
            0x05 => {
                at += operand as usize;
                continue;
            }
            0x06 => return operand,
            0x15 => accumulator == operand,
            0x25 => accumulator > operand,
            0x35 => accumulator >= operand,
            other => panic!("instruction {other:#x}"),
        };
        at += usize::from(if test { yes } else { no });
    }
}

/// What the rules say, read directly.
fn expected(profile: &Seccomp, call: Call) -> u32 {
    let Some(arch) = architectures(profile).into_iter().find(|a| a.token() == call.token) else {
        return KILL_PROCESS;
    };
    if arch == Arch::X86_64 && call.number >= arch::X32_BIT {
        return ERRNO | ENOSYS;
    }
    let default = return_value(profile.default_action, profile.default_errno_ret).unwrap();
    let value = |rule: &SyscallRule| return_value(rule.action, rule.errno_ret).unwrap();
    let numbers: Vec<(u32, &str, &SyscallRule)> = profile
        .syscalls
        .iter()
        .flat_map(|rule| rule.names.iter().map(move |name| (name.as_str(), rule)))
        .filter_map(|(name, rule)| names::number(name, arch).map(|n| (n, name, rule)))
        .collect();
    let mine: Vec<_> = numbers
        .iter()
        .filter(|(number, _, rule)| *number == call.number && value(rule) != default)
        .collect();
    if let Some((.., rule)) = mine.iter().find(|(.., rule)| rule.args.is_empty()) {
        return value(rule);
    }
    for (_, name, rule) in &mine {
        let holds = |arg: &Arg| holds(arg, call.args[arg.index as usize], name);
        let mut indices: Vec<_> = rule.args.iter().map(|arg| arg.index).collect();
        indices.sort_unstable();
        let twice = indices.windows(2).any(|pair| pair[0] == pair[1]);
        if if twice { rule.args.iter().any(holds) } else { rule.args.iter().all(holds) } {
            return value(rule);
        }
    }
    let newest = numbers.iter().map(|(n, ..)| *n).filter(|n| *n < arch.special_from()).max();
    match newest {
        Some(newest) if mine.is_empty() && call.number > newest && forbids(default) => {
            ERRNO | ENOSYS
        }
        _ => default,
    }
}

fn holds(arg: &Arg, actual: u64, name: &str) -> bool {
    let narrow = arch::is_narrow(name, arg.index);
    let cut = |value: u64| if narrow { value & 0xffff_ffff } else { value };
    let (actual, value) = (cut(actual), cut(arg.value));
    match arg.op {
        Op::Ne => actual != value,
        Op::Lt => actual < value,
        Op::Le => actual <= value,
        Op::Eq => actual == value,
        Op::Ge => actual >= value,
        Op::Gt => actual > value,
        Op::MaskedEq => actual & value == cut(arg.value_two),
    }
}

fn default_profile(caps: &[&str]) -> Seccomp {
    let caps: Vec<_> = caps.iter().map(|cap| (*cap).to_owned()).collect();
    docker_default(Facts { caps: &caps, arch: "amd64", kernel: (6, 1) }).unwrap()
}

const DOCKER_CAPS: [&str; 3] = ["CAP_CHOWN", "CAP_SYS_CHROOT", "CAP_NET_RAW"];

/// Words on both sides of every boundary that rules like to have.
const WORDS: [u64; 16] = [
    0,
    1,
    8,
    37,
    38,
    39,
    40,
    41,
    0x7fff_ffff,
    0x8000_0000,
    0xffff_ffff,
    0x1_0000_0000,
    0x1_0000_0028,
    0x7e02_0000,
    0x1000_0000_0000_0000,
    u64::MAX,
];

fn agree(profile: &Seccomp, calls: impl Iterator<Item = Call>) {
    let program = compile(profile).unwrap();
    for call in calls {
        assert_eq!(run(&program, call), expected(profile, call), "{call:x?} {profile:?}");
    }
}

fn interesting_numbers() -> impl Iterator<Item = u32> {
    (0..600).chain([0x3fff_ffff, 0x4000_0000, 0x4000_0001, 0x4000_0208, 0xf_0002, u32::MAX])
}

#[test]
fn the_default_profile_decides_every_call_as_it_reads() {
    for caps in [&DOCKER_CAPS[..], &["CAP_SYS_ADMIN"]] {
        let profile = default_profile(caps);
        let tokens = [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0];
        let calls = tokens.into_iter().flat_map(|token| {
            interesting_numbers().flat_map(move |number| {
                WORDS.into_iter().map(move |word| Call { number, token, args: [word; 6] })
            })
        });
        agree(&profile, calls);
    }
}

#[test]
fn the_default_profile_is_small() {
    let mut profile = default_profile(&DOCKER_CAPS);
    let both = compile(&profile).unwrap().len() / 8;
    profile.architectures.truncate(1);
    let one = compile(&profile).unwrap().len() / 8;
    assert!(one <= 200, "{one} instructions for one architecture");
    assert!(both <= 400, "{both} instructions for both");
}

#[test]
fn high_bits_do_not_smuggle_an_address_family_past_the_default_profile() {
    let program = compile(&default_profile(&DOCKER_CAPS)).unwrap();
    let socket = |family: u64| {
        let number = names::number("socket", Arch::NATIVE).unwrap();
        run(&program, Call { number, token: Arch::NATIVE.token(), args: [family, 1, 0, 0, 0, 0] })
    };
    assert_eq!(socket(2), ALLOW);
    for forbidden in [38, 40] {
        assert_eq!(socket(forbidden), ERRNO | EPERM);
        assert_eq!(socket(1 << 32 | forbidden), ERRNO | EPERM);
    }
}

#[test]
fn far_targets_are_reached() {
    // Each call has conditions of its own, so the halves of the tree are far apart.
    let names = ["read", "write", "open", "close", "stat", "fstat", "lstat", "poll", "lseek"];
    let syscalls = (0..30u64)
        .flat_map(|round| {
            names.map(|name| SyscallRule {
                names: vec![name.into()],
                action: SeccompAction::Allow,
                errno_ret: None,
                args: vec![
                    Arg { index: 0, value: round << 33 | 5, value_two: 0, op: Op::Eq },
                    Arg { index: 1, value: round, value_two: 0, op: Op::Gt },
                ],
            })
        })
        .collect();
    let profile = Seccomp { syscalls, ..Seccomp::default() };
    let calls = (0..12).flat_map(|number| {
        (0..31u64).map(move |round| Call {
            number,
            token: Arch::NATIVE.token(),
            args: [round << 33 | 5, round + 1, 0, 0, 0, 0],
        })
    });
    agree(&profile, calls);
}

#[test]
fn what_no_kernel_would_take_is_refused() {
    let rule = |args, errno_ret| Seccomp {
        syscalls: vec![SyscallRule {
            names: vec!["read".into()],
            action: SeccompAction::Errno,
            errno_ret,
            args,
        }],
        default_action: SeccompAction::Allow,
        ..Seccomp::default()
    };
    let sixth = Arg { index: 6, value: 0, value_two: 0, op: Op::Eq };
    assert!(compile(&rule(vec![sixth], None)).is_err());
    assert!(compile(&rule(Vec::new(), Some(5000))).is_err());
    let many = (0..3000).map(|value| Arg { index: 0, value, value_two: 0, op: Op::Eq }).collect();
    assert!(compile(&rule(many, None)).is_err());
    let flagged = Seccomp { flags: vec!["X".into()], ..Seccomp::default() };
    assert!(flags(&flagged).is_err());
}

/// Filters belong to threads, so a thread of its own can be filtered for real.
#[test]
fn the_kernel_obeys_the_default_profile() {
    let program = compile(&default_profile(&DOCKER_CAPS)).unwrap();
    std::thread::spawn(move || {
        rustix::thread::set_no_new_privs(true).unwrap();
        capsa_sys::seccomp::load(&program, Flags::default()).unwrap();
        use rustix::io::Errno;
        let mount = rustix::mount::mount(
            c"none",
            c"/nonexistent",
            c"tmpfs",
            rustix::mount::MountFlags::empty(),
            None,
        );
        assert_eq!(mount, Err(Errno::PERM));
        assert_eq!(rustix::system::sethostname(b"x"), Err(Errno::PERM));
        let socket = |family: u16| {
            let family = rustix::net::AddressFamily::from_raw(family);
            rustix::net::socket(family, rustix::net::SocketType::DGRAM, None).map(drop)
        };
        assert_eq!(socket(2), Ok(()));
        assert_eq!(socket(38), Err(Errno::PERM));
        assert_eq!(rustix::process::chroot(c"/nonexistent"), Err(Errno::NOENT));
        assert!(std::fs::read_to_string("/proc/self/status").is_ok());
    })
    .join()
    .unwrap();
}

fn any_rule() -> impl Strategy<Value = SyscallRule> {
    let names = prop::sample::subsequence(
        vec!["read", "write", "socket", "personality", "clone", "clone3", "ipc", "nonsense"],
        1..4,
    );
    let action = prop::sample::select(vec![
        SeccompAction::Allow,
        SeccompAction::Errno,
        SeccompAction::Trap,
        SeccompAction::KillProcess,
        SeccompAction::Log,
    ]);
    let op =
        prop::sample::select(vec![Op::Ne, Op::Lt, Op::Le, Op::Eq, Op::Ge, Op::Gt, Op::MaskedEq]);
    let word = || prop::sample::select(WORDS.to_vec());
    let arg = (0..3u32, word(), word(), op).prop_map(|(index, value, value_two, op)| Arg {
        index,
        value,
        value_two,
        op,
    });
    (names, action, prop::option::of(1..50u32), prop::collection::vec(arg, 0..4)).prop_map(
        |(names, action, errno_ret, args)| SyscallRule {
            names: names.into_iter().map(ToOwned::to_owned).collect(),
            action,
            errno_ret,
            args,
        },
    )
}

fn any_profile() -> impl Strategy<Value = Seccomp> {
    let default = prop::sample::select(vec![
        SeccompAction::Allow,
        SeccompAction::Errno,
        SeccompAction::KillThread,
        SeccompAction::Log,
    ]);
    let arches = prop::sample::subsequence(
        vec!["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32", "SCMP_ARCH_S390"],
        0..4,
    );
    (default, prop::option::of(1..50u32), arches, prop::collection::vec(any_rule(), 0..8)).prop_map(
        |(default_action, default_errno_ret, arches, syscalls)| Seccomp {
            default_action,
            default_errno_ret,
            architectures: arches.into_iter().map(ToOwned::to_owned).collect(),
            syscalls,
            ..Seccomp::default()
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_profile_decides_as_it_reads(
        profile in any_profile(),
        picks in prop::collection::vec((0..3usize, 0..WORDS.len(), 0..WORDS.len(), 0..WORDS.len()), 8),
    ) {
        // On i386 `socket` is also reached by the multiplexer, which the direct reading leaves out.
        let multiplexer = names::number("socketcall", Arch::X86);
        let tokens = [0xc000_003e, 0x4000_0003, 0xc000_00b7];
        let calls = picks.into_iter().flat_map(|(token, a, b, c)| {
            interesting_numbers().map(move |number| Call {
                number,
                token: tokens[token],
                args: [WORDS[a], WORDS[b], WORDS[c], 0, 0, 0],
            })
        });
        agree(&profile, calls.filter(|c| Some(c.number) != multiplexer));
    }
}
