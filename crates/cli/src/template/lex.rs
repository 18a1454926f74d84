//! Splits a template into text and the tokens inside `{{ }}`.

/// A piece of a template.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Piece {
    /// Text as it stands.
    Text(String),
    /// The tokens of one action.
    Action(Vec<Token>),
}

/// A token inside an action.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Token {
    /// `.`
    Dot,
    /// `.Name`; glued when it follows another operand without a space.
    Field(String, bool),
    /// `$name`
    Variable(String),
    /// A keyword or the name of a function.
    Word(String),
    /// A string.
    Text(String),
    /// A whole number or a character.
    Int(i64),
    /// Another number.
    Float(f64),
    /// `(`
    Open,
    /// `)`
    Close,
    /// `|`
    Pipe,
    /// `,`
    Comma,
    /// `:=`
    Declare,
    /// `=`
    Assign,
}

/// Splits.
pub(super) fn split(template: &str) -> Result<Vec<Piece>, String> {
    let mut pieces = Vec::new();
    let mut rest = template;
    let mut trim_next = false;
    loop {
        let (text, action) = match rest.find("{{") {
            Some(at) => (&rest[..at], Some(&rest[at + 2..])),
            None => (rest, None),
        };
        let text = if trim_next { text.trim_start_matches(SPACE) } else { text };
        let Some(action) = action else {
            push_text(&mut pieces, text);
            return Ok(pieces);
        };
        let trims = action.starts_with('-') && action[1..].starts_with(SPACE);
        push_text(&mut pieces, if trims { text.trim_end_matches(SPACE) } else { text });
        let action = if trims { &action[1..] } else { action };
        let (body, after) = close(action)?;
        trim_next = body.ends_with('-') && body[..body.len() - 1].ends_with(SPACE);
        let body = if trim_next { &body[..body.len() - 1] } else { body };
        let body = body.trim();
        if !(body.starts_with("/*") && body.ends_with("*/")) {
            pieces.push(Piece::Action(tokens(body)?));
        }
        rest = after;
    }
}

const SPACE: [char; 4] = [' ', '\t', '\r', '\n'];

fn push_text(pieces: &mut Vec<Piece>, text: &str) {
    if !text.is_empty() {
        pieces.push(Piece::Text(text.to_owned()));
    }
}

/// Finds the `}}` that isn't inside a string or comment.
fn close(action: &str) -> Result<(&str, &str), String> {
    let start = action.trim_start();
    if start.starts_with("/*") {
        let end = action.find("*/").ok_or("unclosed comment")?;
        let close = action[end..].find("}}").ok_or("unclosed comment")? + end;
        return Ok((&action[..close], &action[close + 2..]));
    }
    let bytes = action.as_bytes();
    let mut at = 0;
    while at < bytes.len() {
        match bytes[at] {
            quote @ (b'"' | b'\'' | b'`') => {
                at += 1;
                while at < bytes.len() && bytes[at] != quote {
                    at += if bytes[at] == b'\\' && quote != b'`' { 2 } else { 1 };
                }
            }
            b'}' if bytes.get(at + 1) == Some(&b'}') => {
                return Ok((&action[..at], &action[at + 2..]));
            }
            _ => {}
        }
        at += 1;
    }
    Err("unclosed action".to_owned())
}

fn tokens(body: &str) -> Result<Vec<Token>, String> {
    let chars: Vec<char> = body.chars().collect();
    let mut tokens = Vec::new();
    let mut at = 0;
    while at < chars.len() {
        let c = chars[at];
        let glued = at > 0
            && !SPACE.contains(&chars[at - 1])
            && !matches!(chars[at - 1], '(' | '|' | ',' | '=');
        let next = chars.get(at + 1).copied().unwrap_or(' ');
        let token = match c {
            c if SPACE.contains(&c) => {
                at += 1;
                continue;
            }
            '(' => one(&mut at, Token::Open),
            ')' => one(&mut at, Token::Close),
            '|' => one(&mut at, Token::Pipe),
            ',' => one(&mut at, Token::Comma),
            '=' => one(&mut at, Token::Assign),
            ':' if next == '=' => {
                at += 2;
                Token::Declare
            }
            '.' if is_word(next) && !next.is_ascii_digit() => {
                at += 1;
                Token::Field(word(&chars, &mut at), glued)
            }
            '.' if !next.is_ascii_digit() => one(&mut at, Token::Dot),
            '$' => {
                at += 1;
                Token::Variable(word(&chars, &mut at))
            }
            '"' | '`' | '\'' => quoted(&chars, &mut at)?,
            c if c.is_ascii_digit()
                || (matches!(c, '-' | '+' | '.') && (next.is_ascii_digit() || next == '.')) =>
            {
                number(&chars, &mut at)?
            }
            c if is_word(c) => Token::Word(word(&chars, &mut at)),
            c => return Err(format!("unexpected {c:?} in command")),
        };
        tokens.push(token);
    }
    Ok(tokens)
}

fn one(at: &mut usize, token: Token) -> Token {
    *at += 1;
    token
}

fn is_word(c: char) -> bool {
    c.is_alphanumeric() || c == '_'
}

fn word(chars: &[char], at: &mut usize) -> String {
    let start = *at;
    while *at < chars.len() && is_word(chars[*at]) {
        *at += 1;
    }
    chars[start..*at].iter().collect()
}

fn number(chars: &[char], at: &mut usize) -> Result<Token, String> {
    let start = *at;
    *at += 1;
    while *at < chars.len() && (is_word(chars[*at]) || chars[*at] == '.') {
        *at += 1;
    }
    let text: String = chars[start..*at].iter().collect();
    if let Ok(number) = crate::flags::values::parse_int(&text) {
        return Ok(Token::Int(number));
    }
    text.parse().map(Token::Float).map_err(|_| format!("bad number syntax: {text:?}"))
}

fn quoted(chars: &[char], at: &mut usize) -> Result<Token, String> {
    let quote = chars[*at];
    *at += 1;
    let mut text = String::new();
    loop {
        let c = *chars.get(*at).ok_or("unterminated quoted string")?;
        *at += 1;
        if c == quote {
            break;
        }
        if c != '\\' || quote == '`' {
            text.push(c);
            continue;
        }
        let c = *chars.get(*at).ok_or("unterminated quoted string")?;
        *at += 1;
        text.push(match c {
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'a' => '\u{7}',
            'x' | 'u' => {
                let digits = if c == 'x' { 2 } else { 4 };
                let hex: String = chars.iter().skip(*at).take(digits).collect();
                *at += digits;
                u32::from_str_radix(&hex, 16)
                    .ok()
                    .and_then(char::from_u32)
                    .ok_or("bad escape in string")?
            }
            other => other,
        });
    }
    match quote {
        '\'' => {
            let mut chars = text.chars();
            match (chars.next(), chars.next()) {
                (Some(c), None) => Ok(Token::Int(i64::from(u32::from(c)))),
                _ => Err("malformed character constant".to_owned()),
            }
        }
        _ => Ok(Token::Text(text)),
    }
}
