//! From rules to classic BPF: a binary search over ranges of syscall numbers.
//!
//! The code is built from its end to its beginning, so that every jump's target
//! exists before the jump; a conditional jump reaches 255 instructions, and one
//! that would not reach goes by way of an unconditional one. Calls next to each
//! other with the same verdict are one range, equal returns are shared, and what
//! is allowed without a look at arguments never runs here at all: the kernel
//! knows it from a bitmap that it makes when the filter is loaded.

use capsa_oci::runtime::{Arg, Op};

/// What happens to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Always this return value.
    Return(u32),
    /// The return value of the first alternative whose conditions all hold, or the last one.
    Tests(Vec<Alternative>, u32),
}

/// Conditions that must all hold, and what then happens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Alternative {
    pub(super) conditions: Vec<Condition>,
    pub(super) value: u32,
}

/// A condition on an argument.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    pub(super) arg: Arg,
    /// The kernel looks at the low 32 bits only.
    pub(super) narrow: bool,
}

/// The calls of one architecture: verdicts from number `start` on, up to the next range.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Section {
    /// `seccomp_data.arch`.
    pub(super) token: u32,
    /// Sorted by start, the first starts at 0.
    pub(super) ranges: Vec<(u32, Verdict)>,
}

const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_GREATER_OR_EQUAL: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

const NUMBER: u32 = 0;
const ARCH: u32 = 4;
const ARGUMENTS: u32 = 16;

/// Makes the program; a call of another architecture gets `foreign`.
pub(super) fn assemble(sections: &[Section], foreign: u32) -> Vec<u8> {
    let mut code = Code::default();
    let entries: Vec<_> = sections
        .iter()
        .map(|section| {
            let tree = code.tree(&section.ranges);
            (section.token, code.push(LOAD, NUMBER, tree))
        })
        .collect();
    let mut entry = code.give(foreign);
    for (token, section) in entries.into_iter().rev() {
        entry = code.branch(JUMP_EQUAL, token, section, entry);
    }
    code.push(LOAD, ARCH, entry);
    code.bytes()
}

/// A place in the program, counted from its end.
type Place = usize;

/// A program from its end to its beginning.
#[derive(Default)]
struct Code {
    backwards: Vec<(u16, u8, u8, u32)>,
    returns: Vec<(u32, Place)>,
}

impl Code {
    /// `operation`, going on at `next`.
    fn push(&mut self, operation: u16, operand: u32, next: Place) -> Place {
        if next + 1 != self.backwards.len() {
            self.jump(next);
        }
        self.put(operation, 0, 0, operand)
    }

    /// Goes to `yes` if the test holds, to `no` if not.
    fn branch(&mut self, test: u16, operand: u32, yes: Place, no: Place) -> Place {
        if yes == no {
            return yes;
        }
        // A detour for one may push the other out of reach, so ask for room for both.
        let yes = self.within_reach(yes);
        let no = self.within_reach(no);
        let here = self.backwards.len();
        let distance = |to: Place| u8::try_from(here - to - 1).unwrap_or(u8::MAX);
        self.put(test, distance(yes), distance(no), operand)
    }

    /// Ends with `value`; shares an earlier end that is near.
    fn give(&mut self, value: u32) -> Place {
        let reach = self.backwards.len().saturating_sub(usize::from(u8::MAX) / 2);
        let near = self.returns.iter().rev().find(|(known, at)| *known == value && *at >= reach);
        if let Some((_, at)) = near {
            return *at;
        }
        let at = self.put(RETURN, 0, 0, value);
        self.returns.push((value, at));
        at
    }

    fn within_reach(&mut self, to: Place) -> Place {
        // Two instructions of room: one detour may still come between.
        if self.backwards.len() - to <= usize::from(u8::MAX) - 2 { to } else { self.jump(to) }
    }

    fn jump(&mut self, to: Place) -> Place {
        let distance = u32::try_from(self.backwards.len() - to - 1).unwrap_or(u32::MAX);
        self.put(JUMP, 0, 0, distance)
    }

    fn put(&mut self, operation: u16, yes: u8, no: u8, operand: u32) -> Place {
        self.backwards.push((operation, yes, no, operand));
        self.backwards.len() - 1
    }

    fn tree(&mut self, ranges: &[(u32, Verdict)]) -> Place {
        match ranges {
            [] => self.give(0),
            [(_, verdict)] => self.verdict(verdict),
            _ => {
                let (low, high) = ranges.split_at(ranges.len() / 2);
                let above = self.tree(high);
                let below = self.tree(low);
                self.branch(JUMP_GREATER_OR_EQUAL, high[0].0, above, below)
            }
        }
    }

    fn verdict(&mut self, verdict: &Verdict) -> Place {
        let (alternatives, otherwise) = match verdict {
            Verdict::Return(value) => return self.give(*value),
            Verdict::Tests(alternatives, otherwise) => (alternatives, *otherwise),
        };
        let mut no = self.give(otherwise);
        for alternative in alternatives.iter().rev() {
            let mut yes = self.give(alternative.value);
            for condition in alternative.conditions.iter().rev() {
                yes = self.condition(condition, yes, no);
            }
            no = yes;
        }
        no
    }

    fn condition(&mut self, condition: &Condition, yes: Place, no: Place) -> Place {
        let Condition { arg, narrow } = condition;
        match arg.op {
            Op::Eq => self.compare(*condition, JUMP_EQUAL, yes, no),
            Op::Ne => self.compare(*condition, JUMP_EQUAL, no, yes),
            Op::Gt => self.compare(*condition, JUMP_GREATER, yes, no),
            Op::Le => self.compare(*condition, JUMP_GREATER, no, yes),
            Op::Ge => self.compare(*condition, JUMP_GREATER_OR_EQUAL, yes, no),
            Op::Lt => self.compare(*condition, JUMP_GREATER_OR_EQUAL, no, yes),
            Op::MaskedEq => {
                let low = self.masked(arg, false, yes, no);
                if *narrow { low } else { self.masked(arg, true, low, no) }
            }
        }
    }

    /// `==`, `>` or `>=` on 64 bits, the high half first.
    fn compare(&mut self, condition: Condition, test: u16, yes: Place, no: Place) -> Place {
        let Condition { arg, narrow } = condition;
        let (high, low) = halves(arg.value);
        let place = self.branch(test, low, yes, no);
        let low_half = self.push(LOAD, word(arg.index, false), place);
        if narrow {
            return low_half;
        }
        let mut place = self.branch(JUMP_EQUAL, high, low_half, no);
        if test != JUMP_EQUAL {
            place = self.branch(JUMP_GREATER, high, yes, place);
        }
        self.push(LOAD, word(arg.index, true), place)
    }

    /// One half of `argument & value == value_two`.
    fn masked(&mut self, arg: &Arg, upper: bool, yes: Place, no: Place) -> Place {
        let half = |value| if upper { halves(value).0 } else { halves(value).1 };
        let (mask, expected) = (half(arg.value), half(arg.value_two));
        if mask == 0 && expected == 0 {
            return yes;
        }
        let place = self.branch(JUMP_EQUAL, expected, yes, no);
        let place = self.push(AND, mask, place);
        self.push(LOAD, word(arg.index, upper), place)
    }

    fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.backwards.len() * 8);
        for (operation, yes, no, operand) in self.backwards.iter().rev() {
            bytes.extend(operation.to_ne_bytes());
            bytes.extend([*yes, *no]);
            bytes.extend(operand.to_ne_bytes());
        }
        bytes
    }
}

/// Offset of one half of an argument in `seccomp_data`.
fn word(argument: u32, upper: bool) -> u32 {
    let second = upper == cfg!(target_endian = "little");
    ARGUMENTS + 8 * argument + 4 * u32::from(second)
}

#[expect(clippy::cast_possible_truncation, reason = "the halves are what is wanted")]
fn halves(value: u64) -> (u32, u32) {
    ((value >> 32) as u32, value as u32)
}
