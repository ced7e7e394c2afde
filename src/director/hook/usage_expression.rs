//! Expressions of the Common Expression Language over the token counts of one response.
//!
//! Known are `usage.prompt_tokens`, `usage.completion_tokens`, `usage.total_tokens` and
//! `usage.prompt_tokens_details.cached_tokens`, `has(…)` of them, numbers, `true` and `false`, arithmetic, comparisons,
//! `&&`, `||`, `!` and `? :`. All numbers are reals. The text is parsed by the `cel` crate.

use crate::request::Usage;
use cel::IdedExpr;
use cel::common::ast::{Expr, LiteralValue, SelectExpr, operators};

/// Longest expression in bytes, which bounds its cost too: there are no loops.
const MAX_BYTES: usize = 1024;

/// A token count.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Field {
    Prompt,
    Completion,
    Total,
    Cached,
}

impl Field {
    fn of(self, usage: &Usage) -> Option<f64> {
        let count = match self {
            Self::Prompt => usage.prompt,
            Self::Completion => usage.completion,
            Self::Total => usage.total,
            Self::Cached => usage.cached,
        };
        count.map(f64::from)
    }

    /// The field that a path such as `usage.prompt_tokens` means.
    fn find(select: &SelectExpr) -> Option<Self> {
        let parent = match &select.operand.expr {
            Expr::Ident(name) if name == "usage" => "",
            Expr::Select(SelectExpr { operand, field, test: false }) => match &operand.expr {
                Expr::Ident(name) if name == "usage" => field.as_str(),
                _ => return None,
            },
            _ => return None,
        };
        match (parent, select.field.as_str()) {
            ("", "prompt_tokens") => Some(Self::Prompt),
            ("", "completion_tokens") => Some(Self::Completion),
            ("", "total_tokens") => Some(Self::Total),
            ("prompt_tokens_details", "cached_tokens") => Some(Self::Cached),
            _ => None,
        }
    }
}

/// What an expression comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value {
    /// A number.
    Number(f64),
    /// True or false.
    Truth(bool),
}

/// An expression that was understood.
#[derive(Debug)]
pub(super) struct Expression(Node);

#[derive(Debug)]
enum Node {
    Const(Value),
    Read(Field),
    Has(Field),
    Not(Box<Node>),
    Negate(Box<Node>),
    Both(Operator, Box<[Node; 2]>),
    If(Box<[Node; 3]>),
}

#[derive(Clone, Copy, Debug)]
enum Operator {
    And,
    Or,
    Calculate(fn(f64, f64) -> f64),
    Compare(fn(f64, f64) -> bool),
}

impl Expression {
    /// Understands `text`, or says why not.
    pub(super) fn parse(text: &str) -> Result<Self, String> {
        if text.trim().is_empty() {
            return Err("it is empty".to_owned());
        }
        if text.len() > MAX_BYTES {
            return Err(format!("it has {} bytes, at most {MAX_BYTES} are allowed", text.len()));
        }
        let tree = cel::parser::Parser::new().parse(text).map_err(|errors| {
            errors.errors.first().map_or_else(
                || "it is no CEL".to_owned(),
                |e| format!("line {} column {}: {}", e.pos.0, e.pos.1, e.msg),
            )
        })?;
        Node::of(&tree).map(Self)
    }

    /// The value for `usage`; `None` where a count is missing or the kinds do not fit.
    pub(super) fn value(&self, usage: &Usage) -> Option<Value> {
        self.0.value(usage)
    }
}

impl Node {
    fn of(node: &IdedExpr) -> Result<Self, String> {
        match &node.expr {
            Expr::Literal(LiteralValue::Boolean(b)) => Ok(Self::Const(Value::Truth(**b))),
            #[allow(clippy::cast_precision_loss, reason = "all numbers are reals here")]
            Expr::Literal(LiteralValue::Int(n)) => Ok(Self::Const(Value::Number(**n as f64))),
            Expr::Literal(LiteralValue::Double(n)) => Ok(Self::Const(Value::Number(**n))),
            Expr::Select(select) => {
                let field =
                    Field::find(select).ok_or_else(|| format!("there is no `{}`; {KNOWN}", select.field))?;
                Ok(if select.test { Self::Has(field) } else { Self::Read(field) })
            }
            Expr::Call(call) if call.target.is_none() => Self::call(&call.func_name, &call.args),
            _ => Err(format!("only numbers and token counts stand here; {KNOWN}")),
        }
    }

    fn call(name: &str, args: &[IdedExpr]) -> Result<Self, String> {
        match args {
            [one] if name == operators::LOGICAL_NOT => Ok(Self::Not(Box::new(Self::of(one)?))),
            [one] if name == operators::NEGATE => Ok(Self::Negate(Box::new(Self::of(one)?))),
            [one] if name == "int" || name == "double" => Self::of(one),
            [a, b, c] if name == operators::CONDITIONAL => {
                Ok(Self::If(Box::new([Self::of(a)?, Self::of(b)?, Self::of(c)?])))
            }
            [first, rest @ ..] if !rest.is_empty() => {
                let operator = operator(name).ok_or_else(|| format!("there is no `{name}` here"))?;
                let mut whole = Self::of(first)?;
                for next in rest {
                    whole = Self::Both(operator, Box::new([whole, Self::of(next)?]));
                }
                Ok(whole)
            }
            _ => Err(format!("there is no `{name}` with {} arguments here", args.len())),
        }
    }

    fn number(&self, usage: &Usage) -> Option<f64> {
        match self.value(usage)? {
            Value::Number(n) => Some(n),
            Value::Truth(_) => None,
        }
    }

    fn truth(&self, usage: &Usage) -> Option<bool> {
        match self.value(usage)? {
            Value::Truth(b) => Some(b),
            Value::Number(_) => None,
        }
    }

    fn value(&self, usage: &Usage) -> Option<Value> {
        Some(match self {
            Self::Const(value) => *value,
            Self::Read(field) => Value::Number(field.of(usage)?),
            Self::Has(field) => Value::Truth(field.of(usage).is_some()),
            Self::Not(inner) => Value::Truth(!inner.truth(usage)?),
            Self::Negate(inner) => Value::Number(-inner.number(usage)?),
            Self::If(parts) => {
                let [condition, then, otherwise] = &**parts;
                return if condition.truth(usage)? { then.value(usage) } else { otherwise.value(usage) };
            }
            Self::Both(Operator::And, sides) => {
                Value::Truth(sides[0].truth(usage)? && sides[1].truth(usage)?)
            }
            Self::Both(Operator::Or, sides) => Value::Truth(sides[0].truth(usage)? || sides[1].truth(usage)?),
            Self::Both(Operator::Calculate(f), sides) => {
                Value::Number(f(sides[0].number(usage)?, sides[1].number(usage)?))
            }
            Self::Both(Operator::Compare(f), sides) => {
                Value::Truth(f(sides[0].number(usage)?, sides[1].number(usage)?))
            }
        })
    }
}

const KNOWN: &str = "known are usage.prompt_tokens, usage.completion_tokens, usage.total_tokens and \
                     usage.prompt_tokens_details.cached_tokens";

#[allow(clippy::float_cmp, reason = "the expression asks for equality")]
fn operator(name: &str) -> Option<Operator> {
    Some(match name {
        operators::LOGICAL_AND => Operator::And,
        operators::LOGICAL_OR => Operator::Or,
        operators::ADD => Operator::Calculate(|a, b| a + b),
        operators::SUBSTRACT => Operator::Calculate(|a, b| a - b),
        operators::MULTIPLY => Operator::Calculate(|a, b| a * b),
        operators::DIVIDE => Operator::Calculate(|a, b| a / b),
        operators::MODULO => Operator::Calculate(|a, b| a % b),
        operators::EQUALS => Operator::Compare(|a, b| a == b),
        operators::NOT_EQUALS => Operator::Compare(|a, b| a != b),
        operators::LESS => Operator::Compare(|a, b| a < b),
        operators::LESS_EQUALS => Operator::Compare(|a, b| a <= b),
        operators::GREATER => Operator::Compare(|a, b| a > b),
        operators::GREATER_EQUALS => Operator::Compare(|a, b| a >= b),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn value(text: &str) -> Option<Value> {
        let usage = Usage { prompt: Some(15), completion: Some(4), cached: None, total: Some(19) };
        Expression::parse(text).unwrap().value(&usage)
    }

    #[test]
    fn counts_are_calculated_with() {
        let number = |n| Some(Value::Number(n));
        assert_eq!(value("usage.prompt_tokens"), number(15.0));
        assert_eq!(value("usage.prompt_tokens + 2 * usage.completion_tokens - 1"), number(22.0));
        assert_eq!(value("usage.total_tokens > 18 && usage.prompt_tokens != 3 ? -1.5 : 0.0"), number(-1.5));
        let cached = "usage.prompt_tokens_details.cached_tokens";
        assert_eq!(value(&format!("has({cached}) ? {cached} : double(7)")), number(7.0));
        assert_eq!(value(cached), None);
        assert_eq!(value("usage.prompt_tokens >= 15 || false"), Some(Value::Truth(true)));
        assert_eq!(value("true + 1"), None, "kinds that do not fit have no value");
    }

    #[test]
    fn what_is_not_understood_is_told() {
        for text in
            ["", "usage.", "usage.cost", "prompt_tokens", "'text'", "size(usage)", "[1].all(x, x > 0)"]
        {
            assert!(Expression::parse(text).is_err(), "{text}");
        }
        assert!(Expression::parse(&"1+".repeat(600)).unwrap_err().contains("at most 1024"));
        assert!(Expression::parse("usage.cost").unwrap_err().contains("usage.prompt_tokens"));
    }
}
