//! Policy as an expression of the Common Expression Language (CEL).
//!
//! The text is parsed by the `cel` crate; what it may say is ours: [`compile`] walks the tree once, when the plan is
//! built, against the names of [`names`], refuses unknown ones, wrong types and loops over anything but a written list,
//! and bounds the cost. What is left is a tree of typed nodes that [`evaluate`] answers without allocating. A question
//! that has no answer for an endpoint (a label that it lacks, a number that its engine never told) is a [`Fault`]: it is
//! counted, and takes nothing out of service.
//!
//! Differences from CEL at large: whole and real numbers are compared with each other but not added without `double()`;
//! `uint`, bytes, maps, messages, timestamps and `matches` are left out; macros run over written lists only.

mod compile;
mod evaluate;
mod expression;
mod faults;
mod names;
mod node;
#[cfg(test)]
mod tests;

pub(super) use compile::compile;
pub(super) use evaluate::Scope;
pub use expression::{Answer, Expression};
pub(super) use faults::Faults;
pub(super) use node::{Real, Truth, Typed};

/// Why an expression has no answer for one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The engine never told this number, or long ago.
    Unknown,
    /// There is no such label, header or limit.
    Missing,
    /// Division by zero, or a number too large.
    Arithmetic,
    /// A text that is no number, or a number that is none.
    Conversion,
}

impl Fault {
    /// Every kind.
    pub(super) const ALL: [Fault; 4] = [Fault::Unknown, Fault::Missing, Fault::Arithmetic, Fault::Conversion];

    /// Its name in metrics.
    pub(super) fn name(self) -> &'static str {
        match self {
            Fault::Unknown => "unknown",
            Fault::Missing => "missing",
            Fault::Arithmetic => "arithmetic",
            Fault::Conversion => "conversion",
        }
    }
}
