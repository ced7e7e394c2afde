//! The typed tree that an expression becomes. A node of the wrong type cannot be written down.

use super::names::{RealName, TextName, TruthName, WholeName};
use crate::endpoint::ScalarId;

/// An expression of one of the four types.
#[derive(Debug, PartialEq)]
pub(in crate::scheduling) enum Typed {
    /// True or false.
    Truth(Truth),
    /// A whole number of 64 bits.
    Whole(Whole),
    /// A number of double precision.
    Real(Real),
    /// Text.
    Text(Text),
}

impl Typed {
    /// CEL's name of the type.
    pub(in crate::scheduling) fn type_name(&self) -> &'static str {
        match self {
            Typed::Truth(_) => "bool",
            Typed::Whole(_) => "int",
            Typed::Real(_) => "double",
            Typed::Text(_) => "string",
        }
    }
}

/// How two values are compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum Compare {
    Equal,
    Unequal,
    Less,
    AtMost,
    More,
    AtLeast,
}

/// What is done with two numbers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum Arithmetic {
    Add,
    Subtract,
    Multiply,
    Divide,
    /// Whole numbers only.
    Remainder,
}

/// A condition and what holds with and without it.
#[derive(Debug, PartialEq)]
pub(in crate::scheduling) struct Branch<T> {
    pub(in crate::scheduling) condition: Truth,
    pub(in crate::scheduling) then: T,
    pub(in crate::scheduling) otherwise: T,
}

/// How one text is looked for in another.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum Search {
    StartsWith,
    EndsWith,
    Contains,
}

/// Where a text may be found as a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::scheduling) enum Place {
    Labels,
    Headers,
    Adapters,
}

/// A `bool`.
#[derive(Debug, PartialEq)]
pub(in crate::scheduling) enum Truth {
    Const(bool),
    Read(TruthName),
    Not(Box<Truth>),
    /// `&&` and `all`: false as soon as one is false, whatever the others say.
    Every(Vec<Truth>),
    /// `||` and `exists`: true as soon as one is true, whatever the others say.
    Any(Vec<Truth>),
    /// `exists_one`
    ExactlyOne(Vec<Truth>),
    If(Box<Branch<Truth>>),
    Same(Box<(Truth, Truth)>),
    Wholes(Compare, Box<(Whole, Whole)>),
    Reals(Compare, Box<(Real, Real)>),
    Texts(Compare, Box<(Text, Text)>),
    Search(Search, Box<(Text, Text)>),
    Has(Place, Text),
    HasMetric(ScalarId),
}

/// An `int`.
#[derive(Debug, PartialEq)]
pub(in crate::scheduling) enum Whole {
    Const(i64),
    Read(WholeName),
    Negate(Box<Whole>),
    Arithmetic(Arithmetic, Box<(Whole, Whole)>),
    If(Box<Branch<Whole>>),
    Least(Vec<Whole>),
    Greatest(Vec<Whole>),
    /// `int(double)`: towards zero.
    Truncate(Box<Real>),
    /// `int(string)`
    Parse(Text),
    /// `size(string)` in characters.
    Size(Text),
}

/// A `double`.
#[derive(Debug, PartialEq)]
pub(in crate::scheduling) enum Real {
    Const(f64),
    Read(RealName),
    Metric(ScalarId),
    Negate(Box<Real>),
    Arithmetic(Arithmetic, Box<(Real, Real)>),
    If(Box<Branch<Real>>),
    Least(Vec<Real>),
    Greatest(Vec<Real>),
    /// `double(int)`
    Of(Box<Whole>),
    /// `double(string)`
    Parse(Text),
}

/// A `string`.
#[derive(Debug, PartialEq)]
pub(in crate::scheduling) enum Text {
    Const(Box<str>),
    Read(TextName),
    Label(Box<Text>),
    Header(Box<Text>),
    If(Box<Branch<Text>>),
}
