//! Rust source with comments and literals blanked out, line for line.
//!
//! Enough of Rust's lexical grammar to know where code is: nested block
//! comments, raw, byte and C strings, character literals against lifetimes.
//! Each masked byte becomes a space (inside literals, an `s`), newlines stay,
//! so offsets and line numbers are those of the source. Not here: syntax.

/// A source text split into what is code and what is comment.
pub(crate) struct Masked {
    code: String,
    comments: String,
    lines: Vec<usize>,
}

impl Masked {
    pub(crate) fn new(source: &str) -> Self {
        let mut lexer = Lexer::new(source);
        lexer.run();
        let lines = std::iter::once(0)
            .chain(
                source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at + 1),
            )
            .collect();
        Self { code: into_text(lexer.code), comments: into_text(lexer.comments), lines }
    }

    /// The code alone, as long as the source.
    pub(crate) fn code(&self) -> &str {
        &self.code
    }

    /// The comments alone, line by line.
    pub(crate) fn comment_lines(&self) -> Vec<&str> {
        self.comments.split('\n').collect()
    }

    /// The code alone, line by line.
    pub(crate) fn code_lines(&self) -> Vec<&str> {
        self.code.split('\n').collect()
    }

    /// The one-based line of a byte offset.
    pub(crate) fn line_of(&self, offset: usize) -> usize {
        self.lines.partition_point(|start| *start <= offset)
    }

    /// Every identifier of the code with its offset, in order.
    pub(crate) fn words(&self) -> impl Iterator<Item = (usize, &str)> {
        let mut rest = 0;
        std::iter::from_fn(move || {
            let tail = &self.code[rest..];
            let start = rest + tail.find(is_word_char)?;
            let tail = &self.code[start..];
            let length = tail.find(|c| !is_word_char(c)).unwrap_or(tail.len());
            rest = start + length;
            Some((start, &self.code[start..rest]))
        })
    }

    /// The spans (start, end) of everything that only tests compile: the item
    /// behind each `#[cfg(test)]`.
    pub(crate) fn test_spans(&self) -> Vec<(usize, usize)> {
        let attribute = "#[cfg(test)]";
        self.code
            .match_indices(attribute)
            .filter_map(|(at, _)| {
                let end = self.block_after(at + attribute.len())?;
                Some((at, end))
            })
            .collect()
    }

    /// The end of the first `{...}` at or after `from`, or None if a `;`
    /// outside any bracket comes first.
    pub(crate) fn block_after(&self, from: usize) -> Option<usize> {
        let open = self.block_start(from)?;
        self.block_end(open)
    }

    /// The offset of the first `{` outside round and square brackets at or
    /// after `from`; None if a `;` comes first.
    pub(crate) fn block_start(&self, from: usize) -> Option<usize> {
        let mut depth = 0i32;
        for (at, byte) in self.code.bytes().enumerate().skip(from) {
            match byte {
                b'(' | b'[' => depth += 1,
                b')' | b']' => depth -= 1,
                b'{' if depth <= 0 => return Some(at),
                b';' if depth <= 0 => return None,
                _ => {}
            }
        }
        None
    }

    /// The offset of the `}` that closes the `{` at `open`.
    pub(crate) fn block_end(&self, open: usize) -> Option<usize> {
        let mut depth = 0i32;
        for (at, byte) in self.code.bytes().enumerate().skip(open) {
            match byte {
                b'{' => depth += 1,
                b'}' => {
                    depth -= 1;
                    if depth == 0 {
                        return Some(at);
                    }
                }
                _ => {}
            }
        }
        None
    }
}

pub(crate) fn is_word_char(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// The masks hold ASCII only, so the conversion keeps every byte in place.
fn into_text(bytes: Vec<u8>) -> String {
    bytes.into_iter().map(char::from).collect()
}

struct Lexer<'a> {
    source: &'a [u8],
    at: usize,
    code: Vec<u8>,
    comments: Vec<u8>,
}

impl<'a> Lexer<'a> {
    fn new(source: &'a str) -> Self {
        let capacity = source.len();
        Self {
            source: source.as_bytes(),
            at: 0,
            code: Vec::with_capacity(capacity),
            comments: Vec::with_capacity(capacity),
        }
    }

    fn run(&mut self) {
        while let Some(byte) = self.peek(0) {
            match byte {
                b'/' if self.peek(1) == Some(b'/') => self.line_comment(),
                b'/' if self.peek(1) == Some(b'*') => self.block_comment(),
                b'"' => self.string(),
                b'\'' => self.quote(),
                b'r' | b'b' | b'c' if !self.in_word() => self.maybe_prefixed(),
                _ => self.take_code(1),
            }
        }
    }

    fn peek(&self, ahead: usize) -> Option<u8> {
        self.source.get(self.at + ahead).copied()
    }

    /// Whether the byte before belongs to the same identifier.
    fn in_word(&self) -> bool {
        self.at > 0 && is_word_char(char::from(self.source[self.at - 1]))
    }

    fn take_code(&mut self, count: usize) {
        for _ in 0..count {
            let Some(byte) = self.peek(0) else { return };
            self.code.push(if byte.is_ascii() { byte } else { b'?' });
            self.comments.push(if byte == b'\n' { byte } else { b' ' });
            self.at += 1;
        }
    }

    fn take_comment(&mut self) {
        let Some(byte) = self.peek(0) else { return };
        self.code.push(if byte == b'\n' { byte } else { b' ' });
        self.comments.push(if byte.is_ascii() { byte } else { b'?' });
        self.at += 1;
    }

    fn take_literal(&mut self, count: usize) {
        for _ in 0..count {
            let Some(byte) = self.peek(0) else { return };
            let shown = match byte {
                b'\n' | b'"' => byte,
                _ => b's',
            };
            self.code.push(shown);
            self.comments.push(if byte == b'\n' { byte } else { b' ' });
            self.at += 1;
        }
    }

    fn line_comment(&mut self) {
        while self.peek(0).is_some_and(|byte| byte != b'\n') {
            self.take_comment();
        }
    }

    fn block_comment(&mut self) {
        let mut depth = 0usize;
        while self.peek(0).is_some() {
            let pair = (self.peek(0), self.peek(1));
            if pair == (Some(b'/'), Some(b'*')) {
                depth += 1;
                self.take_comment();
            } else if pair == (Some(b'*'), Some(b'/')) {
                depth -= 1;
                self.take_comment();
            }
            self.take_comment();
            if depth == 0 {
                return;
            }
        }
    }

    fn string(&mut self) {
        self.take_literal(1);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' => self.take_literal(2),
                b'"' => return self.take_literal(1),
                _ => self.take_literal(1),
            }
        }
    }

    /// A character literal or a lifetime: `'a'` and `'\n'` against `'a`.
    fn quote(&mut self) {
        let literal = match (self.peek(1), self.peek(2)) {
            (Some(b'\\'), _) | (_, Some(b'\'')) => true,
            (Some(first), _) => !first.is_ascii(),
            _ => false,
        };
        if !literal {
            return self.take_code(1);
        }
        self.take_literal(1);
        while let Some(byte) = self.peek(0) {
            match byte {
                b'\\' => self.take_literal(2),
                b'\'' => return self.take_literal(1),
                _ => self.take_literal(1),
            }
        }
    }

    /// `r"`, `r#"`, `b"`, `br"`, `b'`, `c"`, `cr"`; or a plain word.
    fn maybe_prefixed(&mut self) {
        let rest = &self.source[self.at..];
        let letters = rest.iter().take_while(|byte| matches!(byte, b'r' | b'b' | b'c')).count();
        let raw = rest[..letters].contains(&b'r');
        let hashes = rest[letters..].iter().take_while(|byte| **byte == b'#').count();
        match rest.get(letters + hashes) {
            Some(b'"') if raw && letters <= 2 => self.raw_string(letters, hashes),
            Some(b'"') if letters == 1 && hashes == 0 => {
                self.take_literal(1);
                self.string();
            }
            Some(b'\'') if letters == 1 && rest[0] == b'b' && hashes == 0 => {
                self.take_literal(1);
                self.quote();
            }
            _ => self.take_code(letters.max(1)),
        }
    }

    fn raw_string(&mut self, letters: usize, hashes: usize) {
        self.take_literal(letters + hashes + 1);
        while let Some(byte) = self.peek(0) {
            self.take_literal(1);
            let closing = (0..hashes).all(|n| self.peek(n) == Some(b'#'));
            if byte == b'"' && closing {
                return self.take_literal(hashes);
            }
        }
    }
}
