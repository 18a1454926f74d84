//! Tar archives to start from, and how they are bent: names that want out, links and
//! what goes through them, whiteouts, sizes that lie, extended headers, sparse maps.

use std::ops::Range;

use crate::random::Random;
use crate::tape::{self, Piece};
use crate::text;

/// Entry types, known and unknown.
const KINDS: &[u8] = b"0123456 7LKxgVSDM\0";
const NUMBERS: &[Range<usize>] = &[
    tape::MODE,
    tape::UID,
    tape::GID,
    tape::SIZE,
    tape::MTIME,
    tape::MAJOR,
    tape::MINOR,
    tape::SPARSE_REAL,
];
const KEYS: &[&[u8]] = &[
    b"path",
    b"linkpath",
    b"size",
    b"uid",
    b"gid",
    b"mtime",
    b"SCHILY.xattr.user.x",
    b"SCHILY.xattr.trusted.overlay.redirect",
    b"SCHILY.xattr.trusted.overlay.opaque",
    b"SCHILY.xattr.security.capability",
    b"SCHILY.xattr.",
    b"GNU.sparse.major",
    b"GNU.sparse.minor",
    b"GNU.sparse.name",
    b"GNU.sparse.size",
    b"GNU.sparse.realsize",
    b"GNU.sparse.map",
    b"GNU.sparse.offset",
    b"GNU.sparse.numbytes",
    b"comment",
];

/// A seed archive with some mutations. `outside` is the absolute path of a directory that
/// must not be reached.
pub(crate) fn archive(random: &mut Random, outside: &str) -> Vec<u8> {
    let mut pieces = seed(random);
    let times = 1 + random.below(6);
    for _ in 0..times {
        once(random, &mut pieces, outside);
    }
    let mut bytes = tape::write(&pieces);
    if random.once_in(20) {
        text::bend(random, &mut bytes);
    }
    bytes
}

/// One mutation of the pieces.
pub(crate) fn once(random: &mut Random, pieces: &mut Vec<Piece>, outside: &str) {
    let (at, other) = (random.below(pieces.len()), random.below(pieces.len()));
    if pieces.is_empty() {
        pieces.push(entry(random, outside));
        return;
    }
    match random.below(15) {
        0 => pieces.swap(at, other),
        1 => pieces.insert(other, pieces[at].clone()),
        2 => drop(pieces.remove(at)),
        3 => pieces.insert(at, entry(random, outside)),
        4 => number(random, &mut pieces[at]),
        5 => pieces[at].header[tape::KIND] = *random.pick(KINDS),
        6 => {
            let name = name(random, outside);
            pieces[at].put(tape::NAME, &name);
        }
        7 => {
            let target = name(random, outside);
            pieces[at].put(tape::LINK, &target);
        }
        8 => pieces.insert(at, extended(random, outside)),
        9 => drop(pieces.splice(at..at, through_link(random, outside))),
        10 => old_sparse(random, &mut pieces[at]),
        11 => pieces.insert(at, long(random, outside)),
        12 => drop(pieces.splice(at..at, sparse_in_data(random))),
        13 => {
            let piece = &mut pieces[at];
            text::bend(random, &mut piece.data);
            piece.octal(tape::SIZE, piece.data.len() as u64);
        }
        _ => {
            let piece = &mut pieces[at];
            let byte = random.below(tape::BLOCK);
            piece.header[byte] = random.byte();
            piece.unsound = random.once_in(8);
        }
    }
}

fn seed(random: &mut Random) -> Vec<Piece> {
    let mut device = Piece::new(b'3', b"dev/null", b"");
    device.octal(tape::MAJOR, 1);
    device.octal(tape::MINOR, 3);
    let all = [
        Piece::new(b'5', b"./", b""),
        Piece::new(b'5', b"a/", b""),
        Piece::new(b'0', b"a/file", b"content"),
        Piece::new(b'0', b"a/big", &[7; 1500]),
        Piece::link(b'2', b"link", b"a"),
        Piece::new(b'0', b"link/through", b"1"),
        Piece::link(b'1', b"hard", b"a/file"),
        device,
        Piece::new(b'6', b"fifo", b""),
        Piece::new(b'0', b"a/.wh.gone", b""),
        Piece::new(b'0', b"b/.wh..wh..opq", b""),
        tape::pax(&[(b"path", b"p/long"), (b"SCHILY.xattr.user.a", b"v"), (b"mtime", b"1.5")]),
        Piece::new(b'0', b"short", b"x"),
    ];
    let start = random.below(all.len());
    let end = start + 1 + random.below(all.len() - start);
    all[start..end].to_vec()
}

fn entry(random: &mut Random, outside: &str) -> Piece {
    let name = name(random, outside);
    match random.below(7) {
        0 => Piece::new(b'5', &name, b""),
        1 => Piece::link(b'2', &name, &self::name(random, outside)),
        2 => Piece::link(b'1', &name, &self::name(random, outside)),
        3 => Piece::new(*random.pick(KINDS), &name, b""),
        4 => Piece::new(b'0', &whiteout(random), b""),
        _ => Piece::new(b'0', &name, b"evil"),
    }
}

/// Names of the seeds, so that entries meet, and names that want out.
fn name(random: &mut Random, outside: &str) -> Vec<u8> {
    let plain = ["a", "a/file", "link", "link/through", "hard", "a/gone", "b", "b/c/d", "fifo"];
    let evil = [
        "..",
        "../outside/canary",
        "a/../../outside/canary",
        "/../outside/canary",
        "./../../outside",
        "/proc/self/cwd/canary",
        "/proc/self/root",
        "a/../b/./c//d",
        "",
        ".",
        "/",
        "link/../../outside/canary",
        "link/canary",
        "a/",
    ];
    match random.below(8) {
        0..=2 => (*random.pick(&plain)).into(),
        3 => format!("{outside}/{}", random.pick(&["canary", "sub", "sub/inner", "new", "link"]))
            .into(),
        4 => outside.into(),
        5 => whiteout(random),
        6 if random.once_in(10) => {
            let part = random.pick(&["x/", "../", "a/../", "./"]);
            part.repeat(random.below(600)).into_bytes()
        }
        _ => (*random.pick(&evil)).into(),
    }
}

fn whiteout(random: &mut Random) -> Vec<u8> {
    let names = [
        ".wh...",
        ".wh..",
        ".wh.",
        "a/.wh...",
        ".wh..wh..opq",
        "a/.wh..wh..opq",
        ".wh..wh..opq/x",
        ".wh..wh.plnk/x",
        ".wh.a",
        ".wh.a/file",
        "a/.wh.file",
        "link/.wh.canary",
        ".wh.link",
        ".wh..wh.aufs",
        "a/../.wh.b",
        ".wh.root",
    ];
    (*random.pick(&names)).into()
}

/// A link to somewhere, and entries that go through it.
fn through_link(random: &mut Random, outside: &str) -> Vec<Piece> {
    let target = name(random, outside);
    let mut pieces = vec![Piece::link(b'2', b"door", &target)];
    if random.once_in(3) {
        // A link through a link.
        pieces.push(Piece::link(b'2', b"gate", b"door/.."));
    }
    let below = random.pick(&["canary", "sub", "../outside/canary", ".wh.canary", ".wh..wh..opq"]);
    let kind = *random.pick(b"0512346");
    let door = random.pick(&["door", "gate"]);
    let mut piece = Piece::link(kind, format!("{door}/{below}").as_bytes(), b"door/canary");
    if random.once_in(2) {
        piece = Piece::new(kind, if random.once_in(2) { b"door" } else { b"door/" }, b"evil");
    }
    pieces.push(piece);
    pieces.push(Piece::link(b'1', b"stolen", format!("{door}/canary").as_bytes()));
    pieces
}

fn number(random: &mut Random, piece: &mut Piece) {
    let (field, value) = (random.pick(NUMBERS).clone(), random.number());
    match random.below(3) {
        0 => piece.octal(field, value),
        1 => piece.base256(field, value, random.once_in(2)),
        _ => {
            for at in field {
                piece.header[at] = *random.pick(b"01234567 8-\0\xff\x80");
            }
        }
    }
}

fn extended(random: &mut Random, outside: &str) -> Piece {
    let count = 1 + random.below(4);
    let records: Vec<(&[u8], Vec<u8>)> = (0..count)
        .map(|_| {
            let key = *random.pick(KEYS);
            let value = match random.below(6) {
                0 | 1 => name(random, outside),
                2 => random.number().to_string().into_bytes(),
                3 => sparse_map(random).into_bytes(),
                4 if random.once_in(30) => vec![b'v'; random.below(2 << 20)],
                4 => vec![random.byte(); random.below(300)],
                _ => (*random.pick(&["", "-1", "1", "0", "1.0", "-1.999999999999"])).into(),
            };
            (key, value)
        })
        .collect();
    let records: Vec<_> = records.iter().map(|(key, value)| (*key, &value[..])).collect();
    let mut piece = tape::pax(&records);
    if random.once_in(6) {
        text::bend(random, &mut piece.data);
    }
    piece
}

fn long(random: &mut Random, outside: &str) -> Piece {
    let mut name = name(random, outside);
    if random.once_in(10) {
        name.resize(random.below(6000), b'n');
    }
    Piece::new(*random.pick(b"LK"), b"././@LongLink", &name)
}

fn sparse_map(random: &mut Random) -> String {
    let mut at = 0_u64;
    let count = random.below(6);
    let mut numbers = Vec::new();
    for _ in 0..count {
        let number = if random.once_in(4) { random.number() } else { at };
        let length = if random.once_in(4) { random.number() } else { random.next() % 600 };
        numbers.extend([number.to_string(), length.to_string()]);
        at = number.wrapping_add(length).wrapping_add(random.next() % 600);
    }
    numbers.join(",")
}

fn old_sparse(random: &mut Random, piece: &mut Piece) {
    piece.header[tape::KIND] = b'S';
    piece.header[tape::SPARSE_MORE] = u8::from(random.once_in(4));
    let pairs = tape::SPARSE.step_by(12);
    for start in pairs.take(random.below(9)) {
        let value = if random.once_in(3) { random.number() } else { random.next() % 2000 };
        piece.octal(start..start + 12, value);
    }
    let real = if random.once_in(2) { random.number() } else { 1 << 20 };
    piece.octal(tape::SPARSE_REAL, real);
}

/// The 1.0 form: the map is in front of the content.
fn sparse_in_data(random: &mut Random) -> Vec<Piece> {
    let numbers = sparse_map(random).replace(',', "\n");
    let told = if random.once_in(3) { random.number() } else { numbers.lines().count() as u64 / 2 };
    let mut data = format!("{told}\n{numbers}\n").into_bytes();
    data.resize(data.len().next_multiple_of(tape::BLOCK), 0);
    data.resize(data.len() + random.below(1200), b's');
    let real = random.number().to_string();
    let records: [(&[u8], &[u8]); 4] = [
        (b"GNU.sparse.major", b"1"),
        (b"GNU.sparse.minor", b"0"),
        (b"GNU.sparse.name", b"sparse"),
        (b"GNU.sparse.realsize", real.as_bytes()),
    ];
    vec![tape::pax(&records), Piece::new(b'0', b"GNUSparseFile.0/sparse", &data)]
}
