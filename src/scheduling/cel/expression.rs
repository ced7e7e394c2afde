//! An expression by itself, outside of a plugin: what tools and the fuzz target ask.

use super::node::{Branch, Text, Whole};
use super::{Real, Scope, Truth, Typed, compile};
use crate::plugin::{BuildContext, BuildError, Cycle, PrefixMatches};
use crate::pool::Position;

/// A CEL expression, compiled against the names that plugins declare.
#[derive(Debug)]
pub struct Expression(Typed);

/// What an expression says of one endpoint.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Answer<'a> {
    /// `bool`
    Truth(bool),
    /// `int`
    Whole(i64),
    /// `double`
    Real(f64),
    /// `string`
    Text(&'a str),
}

impl Expression {
    /// Compiles `source` as `cel-filter` and `cel-scorer` do, with the default producer of prefix matches.
    ///
    /// # Errors
    /// What is wrong with it and where.
    pub fn compile(source: &str, ctx: &mut BuildContext<'_>) -> Result<Self, BuildError> {
        compile(source, "", ctx).map(|compiled| Self(compiled.expression))
    }

    /// Steps that one answer takes at most: its nodes, each answered once at most.
    pub fn steps(&self) -> usize {
        self.0.steps()
    }

    /// The answer for the endpoint `at`; an error is the kind of fault, as `pointsman_expression_faults_total` has it.
    ///
    /// # Errors
    /// The question has no answer for this endpoint.
    pub fn answer<'a>(
        &'a self,
        cycle: &'a Cycle<'a>,
        prefix: Option<&'a PrefixMatches>,
        at: Position,
    ) -> Result<Answer<'a>, &'static str> {
        let scope = Scope { cycle, prefix, at };
        let answer = match &self.0 {
            Typed::Truth(t) => t.answer(scope).map(Answer::Truth),
            Typed::Whole(w) => w.answer(scope).map(Answer::Whole),
            Typed::Real(r) => r.answer(scope).map(Answer::Real),
            Typed::Text(t) => t.answer(scope).map(Answer::Text),
        };
        answer.map_err(super::Fault::name)
    }
}

impl Typed {
    fn steps(&self) -> usize {
        match self {
            Typed::Truth(t) => t.steps(),
            Typed::Whole(w) => w.steps(),
            Typed::Real(r) => r.steps(),
            Typed::Text(t) => t.steps(),
        }
    }
}

/// A branch takes its condition and the longer one of its sides.
fn branch<T>(it: &Branch<T>, steps: fn(&T) -> usize) -> usize {
    it.condition.steps() + steps(&it.then).max(steps(&it.otherwise))
}

fn pair<T>(it: &(T, T), steps: fn(&T) -> usize) -> usize {
    steps(&it.0) + steps(&it.1)
}

impl Truth {
    fn steps(&self) -> usize {
        1 + match self {
            Truth::Const(_) | Truth::Read(_) | Truth::HasMetric(_) => 0,
            Truth::Not(inner) => inner.steps(),
            Truth::Every(all) | Truth::Any(all) | Truth::ExactlyOne(all) => {
                all.iter().map(Truth::steps).sum()
            }
            Truth::If(it) => branch(it, Truth::steps),
            Truth::Same(it) => pair(it, Truth::steps),
            Truth::Wholes(_, it) => pair(it, Whole::steps),
            Truth::Reals(_, it) => pair(it, Real::steps),
            Truth::Texts(_, it) | Truth::Search(_, it) => pair(it, Text::steps),
            Truth::Has(_, key) => key.steps(),
        }
    }
}

impl Whole {
    fn steps(&self) -> usize {
        1 + match self {
            Whole::Const(_) | Whole::Read(_) => 0,
            Whole::Negate(inner) => inner.steps(),
            Whole::Arithmetic(_, it) => pair(it, Whole::steps),
            Whole::If(it) => branch(it, Whole::steps),
            Whole::Least(all) | Whole::Greatest(all) => all.iter().map(Whole::steps).sum(),
            Whole::Truncate(inner) => inner.steps(),
            Whole::Parse(text) | Whole::Size(text) => text.steps(),
        }
    }
}

impl Real {
    fn steps(&self) -> usize {
        1 + match self {
            Real::Const(_) | Real::Read(_) | Real::Metric(_) => 0,
            Real::Negate(inner) => inner.steps(),
            Real::Arithmetic(_, it) => pair(it, Real::steps),
            Real::If(it) => branch(it, Real::steps),
            Real::Least(all) | Real::Greatest(all) => all.iter().map(Real::steps).sum(),
            Real::Of(inner) => inner.steps(),
            Real::Parse(text) => text.steps(),
        }
    }
}

impl Text {
    fn steps(&self) -> usize {
        1 + match self {
            Text::Const(_) | Text::Read(_) => 0,
            Text::Label(key) | Text::Header(key) => key.steps(),
            Text::If(it) => branch(it, Text::steps),
        }
    }
}
