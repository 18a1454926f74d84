//! Walks the tree and fills it in.

use super::parse::{Node, Operand, Pipeline};
use super::value::Value;
use super::{Missing, functions};

/// Keys whose entries are named by users: asking for one that isn't there is no mistake.
const USER_KEYS: [&str; 12] = [
    "Labels",
    "Networks",
    "Ports",
    "Options",
    "DriverOpts",
    "Sysctls",
    "ExposedPorts",
    "Volumes",
    "Annotations",
    "LogConfig",
    "Containers",
    "PortBindings",
];

/// Keys that are there only when they have something to say.
const OPTIONAL_KEYS: [&str; 12] = [
    "Health",
    "Healthcheck",
    "SizeRw",
    "SizeRootFs",
    "StorageOpt",
    "Tmpfs",
    "Mounts",
    "Init",
    "Runtime",
    "Annotations",
    "OnBuild",
    "ExposedPorts",
];

/// Fills `nodes` in. With `titles` functions hand their first argument on.
pub(super) fn render(
    nodes: &[Node],
    data: &Value,
    missing: Missing,
    titles: bool,
) -> Result<String, String> {
    let mut walk = Walk {
        out: String::new(),
        variables: vec![(String::new(), data.clone())],
        missing,
        titles,
    };
    walk.block(nodes, data)?;
    Ok(walk.out)
}

struct Walk {
    out: String,
    variables: Vec<(String, Value)>,
    missing: Missing,
    titles: bool,
}

enum Flow {
    Next,
    Break,
    Continue,
}

impl Walk {
    fn block(&mut self, nodes: &[Node], dot: &Value) -> Result<Flow, String> {
        let depth = self.variables.len();
        let mut flow = Flow::Next;
        for node in nodes {
            flow = self.node(node, dot)?;
            if !matches!(flow, Flow::Next) {
                break;
            }
        }
        self.variables.truncate(depth);
        Ok(flow)
    }

    fn node(&mut self, node: &Node, dot: &Value) -> Result<Flow, String> {
        match node {
            Node::Text(text) => self.out.push_str(text),
            Node::Print(pipeline) => {
                let value = self.pipeline(pipeline, dot)?;
                if pipeline.variables.is_empty() {
                    self.out.push_str(&value.to_string());
                }
            }
            Node::If(arms, otherwise) => {
                let depth = self.variables.len();
                for (head, body) in arms {
                    if self.pipeline(head, dot)?.truth() {
                        let flow = self.block(body, dot);
                        self.variables.truncate(depth);
                        return flow;
                    }
                }
                let flow = self.block(otherwise, dot);
                self.variables.truncate(depth);
                return flow;
            }
            Node::With(head, body, otherwise) => {
                let depth = self.variables.len();
                let value = self.pipeline(head, dot)?;
                let flow = if value.truth() {
                    self.block(body, &value)
                } else {
                    self.block(otherwise, dot)
                };
                self.variables.truncate(depth);
                return flow;
            }
            Node::Range(head, body, otherwise) => return self.range(head, body, otherwise, dot),
            Node::Break => return Ok(Flow::Break),
            Node::Continue => return Ok(Flow::Continue),
        }
        Ok(Flow::Next)
    }

    fn range(
        &mut self,
        head: &Pipeline,
        body: &[Node],
        otherwise: &[Node],
        dot: &Value,
    ) -> Result<Flow, String> {
        let over = self.commands(head, dot)?;
        let rounds = rounds(&over)?;
        if rounds.is_empty() {
            return self.block(otherwise, dot);
        }
        let depth = self.variables.len();
        for (key, item) in rounds {
            match head.variables.as_slice() {
                [name] => self.bind(name, item.clone(), head.declares),
                [index, name] => {
                    self.bind(index, key, head.declares);
                    self.bind(name, item.clone(), head.declares);
                }
                _ => {}
            }
            let flow = self.block(body, &item)?;
            self.variables.truncate(depth);
            if matches!(flow, Flow::Break) {
                break;
            }
        }
        Ok(Flow::Next)
    }

    fn bind(&mut self, name: &str, value: Value, declares: bool) {
        if !declares
            && let Some(slot) = self.variables.iter_mut().rev().find(|(known, _)| known == name)
        {
            slot.1 = value;
            return;
        }
        self.variables.push((name.to_owned(), value));
    }

    fn pipeline(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let value = self.commands(pipeline, dot)?;
        if let [name] = pipeline.variables.as_slice() {
            self.bind(name, value.clone(), pipeline.declares);
        }
        Ok(value)
    }

    fn commands(&mut self, pipeline: &Pipeline, dot: &Value) -> Result<Value, String> {
        let mut last = None;
        for command in &pipeline.commands {
            last = Some(self.command(command, last, dot)?);
        }
        Ok(last.unwrap_or_default())
    }

    fn command(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        let (first, rest) = operands.split_first().ok_or("missing value for command")?;
        if let Operand::Function(name) = first {
            if matches!(name.as_str(), "and" | "or") && !self.titles {
                return self.junction(name == "or", rest, piped, dot);
            }
            let arguments = self.arguments(rest, piped, dot)?;
            if self.titles {
                return Ok(arguments.into_iter().next_back().unwrap_or_default());
            }
            return functions::call(name, &arguments);
        }
        let value = self.operand(first, dot)?;
        let arguments = self.arguments(rest, piped, dot)?;
        match (value, arguments.as_slice()) {
            (value, []) => Ok(value),
            (Value::Lookup(labels), [Value::Text(key)]) => Ok(Value::Text(
                labels
                    .iter()
                    .find(|(name, _)| name == key)
                    .map(|(_, v)| v.clone())
                    .unwrap_or_default(),
            )),
            (_, [Value::Text(key)]) if self.titles => Ok(Value::Text(key.clone())),
            _ => Err("can't give argument to non-function".to_owned()),
        }
    }

    fn arguments(
        &mut self,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Vec<Value>, String> {
        let mut values = Vec::with_capacity(operands.len() + 1);
        for operand in operands {
            values.push(self.operand(operand, dot)?);
        }
        values.extend(piped);
        Ok(values)
    }

    /// `and`, `or`: evaluates no further than it must.
    fn junction(
        &mut self,
        or: bool,
        operands: &[Operand],
        piped: Option<Value>,
        dot: &Value,
    ) -> Result<Value, String> {
        let mut last = Value::Null;
        for operand in operands {
            last = self.operand(operand, dot)?;
            if last.truth() == or {
                return Ok(last);
            }
        }
        Ok(piped.unwrap_or(last))
    }

    fn operand(&mut self, operand: &Operand, dot: &Value) -> Result<Value, String> {
        match operand {
            Operand::Constant(value) => Ok(value.clone()),
            Operand::Dot(path) => self.field(dot, path),
            Operand::Variable(name, path) => {
                let value = self
                    .variables
                    .iter()
                    .rev()
                    .find(|(known, _)| known == name)
                    .map(|(_, value)| value.clone())
                    .ok_or_else(|| format!("undefined variable \"${name}\""))?;
                self.field(&value, path)
            }
            Operand::Group(pipeline, path) => {
                let value = self.pipeline(pipeline, dot)?;
                self.field(&value, path)
            }
            Operand::Function(name) => functions::call(name, &[]),
        }
    }

    fn field(&self, value: &Value, path: &[String]) -> Result<Value, String> {
        let mut current = value;
        let mut parent = "";
        for key in path {
            match current.get(key) {
                Some(next) => current = next,
                None => {
                    self.tolerate(current, parent, key)?;
                    return Ok(Value::Null);
                }
            }
            parent = key;
        }
        Ok(current.clone())
    }

    /// Whether a missing key is to be passed over.
    fn tolerate(&self, holder: &Value, parent: &str, key: &str) -> Result<(), String> {
        match holder {
            Value::Map(_) if self.missing == Missing::NoValue => Ok(()),
            Value::Map(_) if USER_KEYS.contains(&parent) || OPTIONAL_KEYS.contains(&key) => Ok(()),
            Value::Map(_) => Err(format!("at <.{key}>: map has no entry for key {key:?}")),
            Value::Null if self.missing == Missing::NoValue => Ok(()),
            Value::Null => Err(format!("nil data; no entry for key {key:?}")),
            other => Err(format!("can't evaluate field {key} in {other}")),
        }
    }
}

fn rounds(over: &Value) -> Result<Vec<(Value, Value)>, String> {
    match over {
        Value::Null => Ok(Vec::new()),
        Value::Text(text) if text.is_empty() => Ok(Vec::new()),
        Value::List(items) => Ok(items
            .iter()
            .enumerate()
            .map(|(at, item)| (Value::Int(i64::try_from(at).unwrap_or(i64::MAX)), item.clone()))
            .collect()),
        Value::Map(entries) => {
            let mut rounds: Vec<_> = entries
                .iter()
                .map(|(key, item)| (Value::Text(key.clone()), item.clone()))
                .collect();
            rounds.sort_by(|a, b| a.0.as_str().cmp(b.0.as_str()));
            Ok(rounds)
        }
        Value::Int(count) => Ok((0..*count).map(|at| (Value::Int(at), Value::Int(at))).collect()),
        other => Err(format!("range can't iterate over {other}")),
    }
}
