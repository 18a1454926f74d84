//! Tokens to a tree.

use super::functions;
use super::lex::{Piece, Token};
use super::value::Value;

/// One node of the tree.
#[derive(Debug)]
pub(super) enum Node {
    /// Text as it stands.
    Text(String),
    /// A pipeline whose value is printed, unless it sets a variable.
    Print(Pipeline),
    /// Conditions in order, and what happens when none holds.
    If(Vec<(Pipeline, Vec<Node>)>, Vec<Node>),
    /// A loop: body, and what happens when there is nothing to loop over.
    Range(Pipeline, Vec<Node>, Vec<Node>),
    /// A body with another dot.
    With(Pipeline, Vec<Node>, Vec<Node>),
    /// Leaves a loop.
    Break,
    /// Goes on with the next round of a loop.
    Continue,
}

/// Commands, each given the value of the one before as its last argument.
#[derive(Debug, Default)]
pub(super) struct Pipeline {
    /// Variables it sets: none, the value, or index and value.
    pub(super) variables: Vec<String>,
    /// Whether it makes the variables (`:=`) or changes them (`=`).
    pub(super) declares: bool,
    /// Each a list of operands; the first may be a function.
    pub(super) commands: Vec<Vec<Operand>>,
}

/// A thing that has a value.
#[derive(Debug)]
pub(super) enum Operand {
    /// A constant.
    Constant(Value),
    /// `.`, `.A.B`
    Dot(Vec<String>),
    /// `$x`, `$x.A`
    Variable(String, Vec<String>),
    /// `( … )`, `( … ).A`
    Group(Pipeline, Vec<String>),
    /// A function.
    Function(String),
}

/// Builds the tree.
pub(super) fn parse(pieces: Vec<Piece>) -> Result<Vec<Node>, String> {
    let mut pieces = pieces.into_iter();
    let (nodes, end) = block(&mut pieces)?;
    match end {
        Ended::WithText => Ok(nodes),
        Ended::BeforeElse(_) => Err("unexpected {{else}}".to_owned()),
        Ended::AtEnd => Err("unexpected {{end}}".to_owned()),
    }
}

enum Ended {
    WithText,
    AtEnd,
    BeforeElse(Vec<Token>),
}

type Pieces = std::vec::IntoIter<Piece>;

fn block(pieces: &mut Pieces) -> Result<(Vec<Node>, Ended), String> {
    let mut nodes = Vec::new();
    while let Some(piece) = pieces.next() {
        let tokens = match piece {
            Piece::Text(text) => {
                nodes.push(Node::Text(text));
                continue;
            }
            Piece::Action(tokens) => tokens,
        };
        let keyword = match tokens.first() {
            Some(Token::Word(word)) => word.as_str(),
            _ => "",
        };
        match keyword {
            "end" => return Ok((nodes, Ended::AtEnd)),
            "else" => return Ok((nodes, Ended::BeforeElse(tokens[1..].to_vec()))),
            "if" => nodes.push(condition(&tokens[1..], pieces)?),
            "range" | "with" => {
                let head = pipeline(&tokens[1..])?;
                let (body, otherwise) = body_and_else(pieces)?;
                nodes.push(match keyword {
                    "range" => Node::Range(head, body, otherwise),
                    _ => Node::With(head, body, otherwise),
                });
            }
            "break" => nodes.push(Node::Break),
            "continue" => nodes.push(Node::Continue),
            "define" | "template" | "block" => {
                return Err(format!("{{{{{keyword}}}}} is not supported"));
            }
            _ => nodes.push(Node::Print(pipeline(&tokens)?)),
        }
    }
    Ok((nodes, Ended::WithText))
}

fn condition(head: &[Token], pieces: &mut Pieces) -> Result<Node, String> {
    let mut arms = Vec::new();
    let mut head = pipeline(head)?;
    loop {
        let (body, end) = block(pieces)?;
        arms.push((head, body));
        match end {
            Ended::WithText => return Err("unexpected EOF".to_owned()),
            Ended::AtEnd => return Ok(Node::If(arms, Vec::new())),
            Ended::BeforeElse(tokens) => match tokens.split_first() {
                None => {
                    let (otherwise, end) = block(pieces)?;
                    expect_end(&end)?;
                    return Ok(Node::If(arms, otherwise));
                }
                Some((Token::Word(word), rest)) if word == "if" => head = pipeline(rest)?,
                Some(_) => return Err("unexpected token in {{else}}".to_owned()),
            },
        }
    }
}

fn body_and_else(pieces: &mut Pieces) -> Result<(Vec<Node>, Vec<Node>), String> {
    let (body, end) = block(pieces)?;
    match end {
        Ended::BeforeElse(tokens) if tokens.is_empty() => {
            let (otherwise, end) = block(pieces)?;
            expect_end(&end)?;
            Ok((body, otherwise))
        }
        Ended::BeforeElse(_) => Err("unexpected token in {{else}}".to_owned()),
        end => expect_end(&end).map(|()| (body, Vec::new())),
    }
}

fn expect_end(end: &Ended) -> Result<(), String> {
    match end {
        Ended::AtEnd => Ok(()),
        Ended::BeforeElse(_) => Err("expected end; found {{else}}".to_owned()),
        Ended::WithText => Err("unexpected EOF".to_owned()),
    }
}

fn pipeline(tokens: &[Token]) -> Result<Pipeline, String> {
    let mut pipeline = Pipeline::default();
    let mut rest = tokens;
    match tokens {
        [Token::Variable(name), sign @ (Token::Declare | Token::Assign), tail @ ..] => {
            pipeline.variables = vec![name.clone()];
            pipeline.declares = *sign == Token::Declare;
            rest = tail;
        }
        [
            Token::Variable(index),
            Token::Comma,
            Token::Variable(item),
            sign @ (Token::Declare | Token::Assign),
            tail @ ..,
        ] => {
            pipeline.variables = vec![index.clone(), item.clone()];
            pipeline.declares = *sign == Token::Declare;
            rest = tail;
        }
        _ => {}
    }
    let mut at = 0;
    loop {
        pipeline.commands.push(command(rest, &mut at)?);
        match rest.get(at) {
            None => return Ok(pipeline),
            Some(Token::Pipe) => at += 1,
            Some(token) => return Err(format!("unexpected {token:?} in command")),
        }
    }
}

fn command(tokens: &[Token], at: &mut usize) -> Result<Vec<Operand>, String> {
    let mut operands = Vec::new();
    while let Some(token) = tokens.get(*at) {
        if matches!(token, Token::Pipe | Token::Close) {
            break;
        }
        *at += 1;
        operands.push(operand(token, tokens, at)?);
    }
    if operands.is_empty() {
        return Err("missing value for command".to_owned());
    }
    Ok(operands)
}

fn operand(token: &Token, tokens: &[Token], at: &mut usize) -> Result<Operand, String> {
    Ok(match token {
        Token::Dot => Operand::Dot(Vec::new()),
        Token::Field(name, _) => {
            let mut path = vec![name.clone()];
            path.extend(glued_fields(tokens, at));
            Operand::Dot(path)
        }
        Token::Variable(name) => Operand::Variable(name.clone(), glued_fields(tokens, at)),
        Token::Open => {
            let end = closing(tokens, *at)?;
            let inner = pipeline(&tokens[*at..end])?;
            *at = end + 1;
            Operand::Group(inner, glued_fields(tokens, at))
        }
        Token::Text(text) => Operand::Constant(Value::Text(text.clone())),
        Token::Int(number) => Operand::Constant(Value::Int(*number)),
        Token::Float(number) => Operand::Constant(Value::Float(*number)),
        Token::Word(word) => match word.as_str() {
            "true" => Operand::Constant(Value::Bool(true)),
            "false" => Operand::Constant(Value::Bool(false)),
            "nil" => Operand::Constant(Value::Null),
            name if functions::exists(name) => Operand::Function(word.clone()),
            name => return Err(format!("function {name:?} not defined")),
        },
        token => return Err(format!("unexpected {token:?} in operand")),
    })
}

fn glued_fields(tokens: &[Token], at: &mut usize) -> Vec<String> {
    let mut path = Vec::new();
    while let Some(Token::Field(name, true)) = tokens.get(*at) {
        path.push(name.clone());
        *at += 1;
    }
    path
}

fn closing(tokens: &[Token], from: usize) -> Result<usize, String> {
    let mut depth = 0usize;
    for (at, token) in tokens.iter().enumerate().skip(from) {
        match token {
            Token::Open => depth += 1,
            Token::Close if depth == 0 => return Ok(at),
            Token::Close => depth -= 1,
            _ => {}
        }
    }
    Err("unclosed left paren".to_owned())
}
