//! Device access on cgroup v2: a small BPF program per cgroup, written by hand.
//!
//! v2 has no devices controller: the kernel asks the programs of type
//! `CGROUP_DEVICE` that are attached to the cgroup and to each of its parents,
//! and all must say yes. The program dies with the cgroup.

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

use bitflags::bitflags;
use rustix::io::Errno;

use crate::{Error, Result};

bitflags! {
    /// What a process wants to do with a device; the kernel's `BPF_DEVCG_ACC_*`.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
    pub struct Access: u8 {
        /// Make a node.
        const MKNOD = 1;
        /// Open for reading.
        const READ = 2;
        /// Open for writing.
        const WRITE = 4;
    }
}

/// Kinds of device; the kernel's `BPF_DEVCG_DEV_*`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum DeviceKind {
    /// Block.
    Block = 1,
    /// Character.
    Char = 2,
}

/// Some devices and what may, or may not, be done with them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceEntry {
    /// Kind.
    pub kind: DeviceKind,
    /// Major number; any when absent.
    pub major: Option<u32>,
    /// Minor number; any when absent.
    pub minor: Option<u32>,
    /// Accesses.
    pub access: Access,
}

/// One instruction: opcode, registers, offset and immediate, as the kernel lays them out.
type Instruction = u64;

const LOAD_WORD: u8 = 0x61;
const MOVE_IMMEDIATE: u8 = 0xb7;
const MOVE_REGISTER: u8 = 0xbf;
const AND_IMMEDIATE: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_EQUAL: u8 = 0x15;
const JUMP_NOT_EQUAL: u8 = 0x55;
const EXIT: u8 = 0x95;

const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const KIND: u8 = 2;
const WANTED: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

/// The program that allows exactly `entries` (`allow`), or everything but them (not `allow`).
///
/// As in the v1 controller, an allowing entry must cover all that is wanted, and a denying
/// entry bites when it covers any of it.
pub fn device_program(allow: bool, entries: &[DeviceEntry]) -> Vec<Instruction> {
    let mut code = vec![
        instruction(LOAD_WORD, KIND, CONTEXT, 0, 0),
        instruction(MOVE_REGISTER, WANTED, KIND, 0, 0),
        instruction(AND_IMMEDIATE, KIND, 0, 0, 0xffff),
        instruction(SHIFT_RIGHT, WANTED, 0, 0, 16),
        instruction(LOAD_WORD, MAJOR, CONTEXT, 4, 0),
        instruction(LOAD_WORD, MINOR, CONTEXT, 8, 0),
    ];
    for entry in entries {
        code.extend(entry_code(allow, entry));
    }
    code.push(instruction(MOVE_IMMEDIATE, RESULT, 0, 0, i32::from(!allow)));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

fn entry_code(allow: bool, entry: &DeviceEntry) -> Vec<Instruction> {
    // (opcode of the jump away, register, immediate); the offset follows when the length is known.
    let mut tests = vec![(JUMP_NOT_EQUAL, KIND, entry.kind as i32)];
    for (register, number) in [(MAJOR, entry.major), (MINOR, entry.minor)] {
        if let Some(number) = number {
            tests.push((JUMP_NOT_EQUAL, register, number.cast_signed()));
        }
    }
    let (mask, away) = if allow {
        (Access::all().difference(entry.access), JUMP_NOT_EQUAL)
    } else {
        (entry.access, JUMP_EQUAL)
    };
    // The context pointer is no longer needed: its register takes the masked access.
    let mut masked = Vec::new();
    if !(allow && mask.is_empty()) {
        masked.push(instruction(MOVE_REGISTER, CONTEXT, WANTED, 0, 0));
        masked.push(instruction(AND_IMMEDIATE, CONTEXT, 0, 0, i32::from(mask.bits())));
        tests.push((away, CONTEXT, 0));
    }
    let length = tests.len() + masked.len() + 2;
    let mut code = Vec::with_capacity(length);
    for (at, (opcode, register, immediate)) in tests.into_iter().enumerate() {
        if register == CONTEXT {
            code.append(&mut masked);
        }
        let here = if register == CONTEXT { at + 2 } else { at };
        let over = i16::try_from(length - here - 1).unwrap_or(i16::MAX);
        code.push(instruction(opcode, register, 0, over, immediate));
    }
    code.push(instruction(MOVE_IMMEDIATE, RESULT, 0, 0, i32::from(allow)));
    code.push(instruction(EXIT, 0, 0, 0, 0));
    code
}

fn instruction(opcode: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    let registers = if cfg!(target_endian = "little") { to | from << 4 } else { to << 4 | from };
    let [o0, o1] = offset.to_ne_bytes();
    let [i0, i1, i2, i3] = immediate.to_ne_bytes();
    u64::from_ne_bytes([opcode, registers, o0, o1, i0, i1, i2, i3])
}

#[repr(C)]
#[derive(Default)]
struct LoadAttr {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log: u64,
    kernel_version: u32,
    flags: u32,
    name: [u8; 16],
    interface: u32,
    attach_type: u32,
}

#[repr(C)]
#[derive(Default)]
struct AttachAttr {
    target: u32,
    program: u32,
    attach_type: u32,
    flags: u32,
    replace: u32,
    relative: u32,
    revision: u64,
}

#[repr(C)]
#[derive(Default)]
struct QueryAttr {
    target: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    ids: u64,
    count: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct IdAttr {
    id: u32,
    next: u32,
    flags: u32,
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const PROG_DETACH: libc::c_int = 9;
const PROG_GET_FD_BY_ID: libc::c_int = 13;
const PROG_QUERY: libc::c_int = 16;
const TYPE_CGROUP_DEVICE: u32 = 15;
const ATTACH_CGROUP_DEVICE: u32 = 6;
const ALLOW_MULTI: u32 = 2;
const REPLACE: u32 = 4;
const MAX_QUERIED: usize = 64;

/// Loads a program made by [`device_program`]. Needs CAP_BPF and CAP_NET_ADMIN, or CAP_SYS_ADMIN.
pub fn load_device_program(code: &[Instruction]) -> Result<OwnedFd> {
    let attr = LoadAttr {
        kind: TYPE_CGROUP_DEVICE,
        count: u32::try_from(code.len()).unwrap_or(u32::MAX),
        instructions: code.as_ptr().expose_provenance() as u64,
        license: c"Apache".as_ptr().expose_provenance() as u64,
        name: *b"capsa_devices\0\0\0",
        attach_type: ATTACH_CGROUP_DEVICE,
        ..LoadAttr::default()
    };
    let fd = bpf(PROG_LOAD, &attr).map_err(|errno| {
        Error::new("bpf PROG_LOAD", format!("device program of {} instructions", code.len()), errno)
    })?;
    // SAFETY: PROG_LOAD answers with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// Attaches `program` to the v2 cgroup directory `cgroup`, which has none of ours yet.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    attach(cgroup, program, None)
}

/// Attaches `program` and removes what was attached to this very cgroup before; there is
/// no moment without a program.
pub fn replace_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<()> {
    let old = attached(cgroup)?;
    if let [only] = old.as_slice() {
        return attach(cgroup, program, Some(only.as_fd()));
    }
    attach(cgroup, program, None)?;
    for one in old {
        let attr = AttachAttr {
            target: number(cgroup),
            program: number(one.as_fd()),
            attach_type: ATTACH_CGROUP_DEVICE,
            ..AttachAttr::default()
        };
        bpf(PROG_DETACH, &attr)
            .map_err(|errno| Error::new("bpf PROG_DETACH", "device program", errno))?;
    }
    Ok(())
}

fn attach(
    cgroup: BorrowedFd<'_>,
    program: BorrowedFd<'_>,
    instead_of: Option<BorrowedFd<'_>>,
) -> Result<()> {
    let attr = AttachAttr {
        target: number(cgroup),
        program: number(program),
        attach_type: ATTACH_CGROUP_DEVICE,
        flags: ALLOW_MULTI | instead_of.map_or(0, |_| REPLACE),
        replace: instead_of.map_or(0, number),
        ..AttachAttr::default()
    };
    bpf(PROG_ATTACH, &attr)
        .map(drop)
        .map_err(|errno| Error::new("bpf PROG_ATTACH", "device program", errno))
}

fn attached(cgroup: BorrowedFd<'_>) -> Result<Vec<OwnedFd>> {
    let mut ids = [0u32; MAX_QUERIED];
    let mut attr = QueryAttr {
        target: number(cgroup),
        attach_type: ATTACH_CGROUP_DEVICE,
        ids: ids.as_mut_ptr().expose_provenance() as u64,
        count: MAX_QUERIED as u32,
        ..QueryAttr::default()
    };
    // SAFETY: PROG_QUERY writes at most `count` ids behind `ids`, and the counters in `attr`.
    let answer = unsafe {
        libc::syscall(
            libc::SYS_bpf,
            PROG_QUERY,
            std::ptr::from_mut(&mut attr),
            size_of::<QueryAttr>(),
        )
    };
    if answer < 0 {
        return Err(Error::new("bpf PROG_QUERY", "device programs", last_errno()));
    }
    let count = usize::try_from(attr.count).unwrap_or(0).min(MAX_QUERIED);
    ids[..count].iter().map(|id| by_id(*id)).collect()
}

fn by_id(id: u32) -> Result<OwnedFd> {
    let attr = IdAttr { id, ..IdAttr::default() };
    let fd = bpf(PROG_GET_FD_BY_ID, &attr)
        .map_err(|errno| Error::new("bpf PROG_GET_FD_BY_ID", id, errno))?;
    // SAFETY: PROG_GET_FD_BY_ID answers with a new descriptor that nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(fd) })
}

/// A command that only reads `attr` and what it points to.
fn bpf<T>(command: libc::c_int, attr: &T) -> Result<i32, Errno> {
    // SAFETY: bpf(2) reads `size_of::<T>()` bytes; the addresses inside are those of slices that the
    // callers borrow over the call, and none of these commands writes through them.
    let answer =
        unsafe { libc::syscall(libc::SYS_bpf, command, std::ptr::from_ref(attr), size_of::<T>()) };
    if answer < 0 { Err(last_errno()) } else { i32::try_from(answer).map_err(|_| Errno::BADF) }
}

fn number(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn last_errno() -> Errno {
    Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::IO)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs a program as the kernel would: an oracle for the encoding.
    fn run(code: &[Instruction], kind: DeviceKind, major: u32, minor: u32, want: Access) -> bool {
        let context = [u32::from(want.bits()) << 16 | kind as u32, major, minor];
        let mut registers = [0u64; 11];
        let mut at = 0usize;
        loop {
            let [opcode, pair, o0, o1, i0, i1, i2, i3] = code[at].to_ne_bytes();
            let (to, from) = (usize::from(pair & 15), usize::from(pair >> 4));
            let offset = usize::try_from(i16::from_ne_bytes([o0, o1])).unwrap();
            let immediate = i64::from(i32::from_ne_bytes([i0, i1, i2, i3])).cast_unsigned();
            at += 1;
            match opcode {
                LOAD_WORD => registers[to] = u64::from(context[offset / 4]),
                MOVE_IMMEDIATE => registers[to] = immediate,
                MOVE_REGISTER => registers[to] = registers[from],
                AND_IMMEDIATE => registers[to] &= immediate,
                SHIFT_RIGHT => registers[to] >>= immediate,
                JUMP_EQUAL => at += if registers[to] == immediate { offset } else { 0 },
                JUMP_NOT_EQUAL => at += if registers[to] == immediate { 0 } else { offset },
                EXIT => return registers[0] != 0,
                other => panic!("opcode {other:#x}"),
            }
        }
    }

    fn matches(entry: &DeviceEntry, kind: DeviceKind, major: u32, minor: u32) -> bool {
        entry.kind == kind
            && entry.major.is_none_or(|m| m == major)
            && entry.minor.is_none_or(|m| m == minor)
    }

    #[test]
    fn programs_decide_like_the_entries_they_are_made_of() {
        let mut entries = Vec::new();
        for (seed, kind) in
            [DeviceKind::Char, DeviceKind::Block].into_iter().cycle().take(9).enumerate()
        {
            entries.push(DeviceEntry {
                kind,
                major: (seed % 3 != 0).then_some(seed as u32 % 4),
                minor: (seed % 4 != 1).then_some(seed as u32 % 3),
                access: Access::from_bits_truncate(seed as u8),
            });
        }
        for count in 0..=entries.len() {
            let some = &entries[..count];
            for allow in [true, false] {
                let code = device_program(allow, some);
                for case in 0..2 * 5 * 5 * 8u32 {
                    let kind = if case % 2 == 0 { DeviceKind::Char } else { DeviceKind::Block };
                    let (major, minor) = (case / 2 % 5, case / 10 % 5);
                    let want = Access::from_bits_truncate((case / 50) as u8);
                    let hit = some.iter().any(|entry| {
                        matches(entry, kind, major, minor)
                            && if allow {
                                entry.access.contains(want)
                            } else {
                                entry.access.intersects(want)
                            }
                    });
                    assert_eq!(
                        run(&code, kind, major, minor, want),
                        hit == allow,
                        "{some:?} {case}"
                    );
                }
            }
        }
    }

    #[test]
    fn the_kernel_takes_the_program() {
        if rustix::process::geteuid().is_root() {
            let entry = DeviceEntry {
                kind: DeviceKind::Char,
                major: Some(1),
                minor: None,
                access: Access::READ,
            };
            load_device_program(&device_program(true, &[entry])).unwrap();
        }
    }
}
