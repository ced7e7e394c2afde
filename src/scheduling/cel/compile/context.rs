//! What a compilation carries along: the plan that is built, the cost so far, and the variables of macros.

use super::MAX_COST;
use crate::endpoint::ScalarId;
use crate::plugin::{BuildContext, PrefixMatches};
use crate::pool::{AttributeId, Columns};
use crate::scheduling::cel::node::{Text, Typed};
use cel::IdedExpr;

/// What is wrong, and with which node of the tree.
pub(super) struct Refused {
    pub(super) node: Option<u64>,
    pub(super) text: String,
}

impl Refused {
    /// `text` is wrong with `node`.
    pub(super) fn at(node: &IdedExpr, text: impl Into<String>) -> Self {
        Self { node: Some(node.id), text: text.into() }
    }
    /// `node` has another type than `wanted`.
    pub(super) fn wanted(node: &IdedExpr, wanted: &str, got: &Typed) -> Self {
        Self::at(node, format!("{wanted} is wanted here, not {}", got.type_name()))
    }
}

/// A compilation of a tree that lives for `'t`.
pub(super) struct Compiler<'t, 'c, 'b> {
    ctx: &'c mut BuildContext<'b>,
    prefix_producer: &'c str,
    prefix: Option<AttributeId<PrefixMatches>>,
    cost: u32,
    variables: Vec<(&'t str, &'t IdedExpr)>,
}

impl<'t, 'c, 'b> Compiler<'t, 'c, 'b> {
    /// A compilation that declares in `ctx` what it reads.
    pub(super) fn new(ctx: &'c mut BuildContext<'b>, prefix_producer: &'c str) -> Self {
        Self { ctx, prefix_producer, prefix: None, cost: 0, variables: Vec::new() }
    }
    /// One more node; refused beyond the bound.
    pub(super) fn spend(&mut self, node: &IdedExpr) -> Result<(), Refused> {
        self.cost += 1;
        if self.cost > MAX_COST {
            let text = format!(
                "an answer would take more than {MAX_COST} steps, lists of macros unrolled; make it smaller"
            );
            return Err(Refused::at(node, text));
        }
        Ok(())
    }
    /// Declares columns that are read.
    pub(super) fn reads(&mut self, columns: Columns) {
        self.ctx.reads(columns);
    }
    /// Declares that prefix matches are read.
    pub(super) fn needs_prefix(&mut self) {
        if self.prefix.is_none() {
            let producer = Some(self.prefix_producer);
            self.prefix = Some(self.ctx.consumes(PrefixMatches::KIND, producer, PrefixMatches::PRODUCER));
        }
    }
    /// Where prefix matches stand, when they are read.
    pub(super) fn prefix(&self) -> Option<AttributeId<PrefixMatches>> {
        self.prefix
    }
    /// The place of the configured metric `key`.
    pub(super) fn metric(&mut self, node: &IdedExpr, key: &Text) -> Result<ScalarId, Refused> {
        match key {
            Text::Const(name) => Ok(self.ctx.reads_scalar(name)),
            _ => Err(Refused::at(node, "the name of a metric must be written out")),
        }
    }
    /// What a macro's variable `name` stands for, and how many variables were there before it.
    pub(super) fn bound(&self, name: &str) -> Option<(&'t IdedExpr, usize)> {
        let index = self.variables.iter().rposition(|(n, _)| *n == name)?;
        self.variables.get(index).map(|(_, element)| (*element, index))
    }
    /// Compiles where only the first `outer` variables are known.
    pub(super) fn within<R>(&mut self, outer: usize, compile: impl FnOnce(&mut Self) -> R) -> R {
        let inner = self.variables.split_off(outer);
        let result = compile(self);
        self.variables.extend(inner);
        result
    }
    /// Compiles where `name` stands for `element`.
    pub(super) fn binding<R>(
        &mut self,
        name: &'t str,
        element: &'t IdedExpr,
        compile: impl FnOnce(&mut Self) -> R,
    ) -> R {
        self.variables.push((name, element));
        let result = compile(self);
        self.variables.pop();
        result
    }
}
