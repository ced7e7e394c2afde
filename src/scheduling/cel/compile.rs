//! From CEL's tree to typed nodes: unknown names, wrong types, unbounded loops and dear expressions are refused here.

mod calls;
mod context;

use super::names::{self, Name};
use super::node::{Branch, Compare, Place, Real, Text, Truth, Typed, Whole};
use crate::plugin::{BuildContext, BuildError, PrefixMatches};
use crate::pool::{AttributeId, Columns};
use cel::IdedExpr;
use cel::common::ast::{ComprehensionExpr, Expr, LiteralValue, SelectExpr, operators};
use context::{Compiler, Refused};

/// Longest expression in bytes.
const MAX_BYTES: usize = 4096;
/// Most nodes that one answer may visit.
const MAX_COST: u32 = 1000;

/// An expression that can be answered.
#[derive(Debug)]
pub(in crate::scheduling) struct Compiled {
    /// What it says.
    pub(in crate::scheduling) expression: Typed,
    /// Where prefix matches stand, when it asks for them.
    pub(in crate::scheduling) prefix: Option<AttributeId<PrefixMatches>>,
}

/// Compiles `source`; `prefix_producer` is the instance that `prefix` is read from, the default one when empty.
pub(in crate::scheduling) fn compile(
    source: &str,
    prefix_producer: &str,
    ctx: &mut BuildContext<'_>,
) -> Result<Compiled, BuildError> {
    let prefix_producer =
        ctx.producer("prefixMatchInfoProducerName", prefix_producer, PrefixMatches::PRODUCER);
    let refuse = |text: String| BuildError::Parameters(format!("`expression`: {text}"));
    if source.trim().is_empty() {
        return Err(refuse("it is empty".to_owned()));
    }
    if source.len() > MAX_BYTES {
        return Err(refuse(format!("it has {} bytes, at most {MAX_BYTES} are allowed", source.len())));
    }
    let (tree, places) = cel::parser::Parser::new().parse_with_source_info(source).map_err(|errors| {
        let first = errors.errors.first();
        refuse(first.map_or_else(
            || "it is no CEL".to_owned(),
            |e| format!("line {} column {}: {}", e.pos.0, e.pos.1, e.msg),
        ))
    })?;
    let mut compiler = Compiler::new(ctx, prefix_producer);
    let compiled =
        compiler.expression(&tree).map_err(|r| {
            let offset = r.node.and_then(|id| places.offset_for(id));
            refuse(offset.map_or_else(
                || r.text.clone(),
                |(start, _)| format!("at character {}: {}", start + 1, r.text),
            ))
        })?;
    let prefix = compiler.prefix();
    Ok(Compiled { expression: compiled, prefix })
}

impl<'t> Compiler<'t, '_, '_> {
    fn expression(&mut self, node: &'t IdedExpr) -> Result<Typed, Refused> {
        self.spend(node)?;
        match &node.expr {
            Expr::Literal(literal) => self.literal(literal).map_err(|text| Refused::at(node, text)),
            Expr::Ident(name) => self.identifier(node, name),
            Expr::Select(select) => self.select(node, select),
            Expr::Call(call) => self.call(node, call),
            Expr::Comprehension(macro_) => self.comprehension(node, macro_),
            Expr::List(_) => {
                Err(Refused::at(node, "a list stands only after `in` or before a macro such as `exists`"))
            }
            Expr::Map(_) | Expr::Struct(_) | Expr::Unspecified => {
                Err(Refused::at(node, "maps and messages cannot be written here"))
            }
        }
    }

    fn literal(&self, literal: &LiteralValue) -> Result<Typed, &'static str> {
        Ok(match literal {
            LiteralValue::Boolean(b) => Typed::Truth(Truth::Const(**b)),
            LiteralValue::Int(n) => Typed::Whole(Whole::Const(**n)),
            LiteralValue::Double(n) => Typed::Real(Real::Const(**n)),
            LiteralValue::String(s) => Typed::Text(Text::Const(s.inner().into())),
            LiteralValue::UInt(_) => return Err("numbers have no `u` here"),
            LiteralValue::Bytes(_) => return Err("bytes are not known here"),
            LiteralValue::Null => return Err("nothing is `null` here; ask with `has(…)` or `in`"),
        })
    }

    fn identifier(&mut self, node: &'t IdedExpr, name: &str) -> Result<Typed, Refused> {
        if let Some((element, outer)) = self.bound(name) {
            return self.within(outer, |c| c.expression(element));
        }
        Err(Refused::at(node, format!("`{name}` by itself is no value; {}", names::known(name))))
    }

    /// The declared name that `node` spells.
    fn name_of(&mut self, node: &IdedExpr) -> Result<Option<Name>, Refused> {
        let Expr::Select(SelectExpr { operand, field, test: false }) = &node.expr else { return Ok(None) };
        let Expr::Ident(object) = &operand.expr else { return Ok(None) };
        if self.bound(object).is_some() {
            return Ok(None);
        }
        let Some(name) = names::find(object, field) else {
            return Err(Refused::at(
                node,
                format!("`{object}.{field}` is not declared; {}", names::known(object)),
            ));
        };
        match name {
            Name::Metrics => self.reads(Columns { scalars: true, ..Columns::default() }),
            Name::Adapters => self.reads(Columns { lora: true, ..Columns::default() }),
            _ if object == "prefix" => self.needs_prefix(),
            _ => {}
        }
        Ok(Some(name))
    }

    fn select(&mut self, node: &'t IdedExpr, select: &'t SelectExpr) -> Result<Typed, Refused> {
        let key = || Text::Const(select.field.as_str().into());
        if select.test {
            let Some(place) = self.name_of(&select.operand)? else {
                return Err(Refused::at(
                    node,
                    "has() takes a label, header or metric: `has(endpoint.labels.tier)`",
                ));
            };
            return self.present(node, place, key()).map(Typed::Truth);
        }
        if let Some(name) = self.name_of(node)? {
            return match name {
                Name::Truth(t) => Ok(Typed::Truth(Truth::Read(t))),
                Name::Whole(w) => Ok(Typed::Whole(Whole::Read(w))),
                Name::Real(r) => Ok(Typed::Real(Real::Read(r))),
                Name::Text(t) => Ok(Typed::Text(Text::Read(t))),
                Name::Labels | Name::Headers | Name::Metrics => {
                    Err(Refused::at(node, format!("`{}` is a map; give a key: `[\"key\"]`", select.field)))
                }
                Name::Adapters => {
                    Err(Refused::at(node, "`adapters` is a list; ask `request.model in endpoint.adapters`"))
                }
            };
        }
        match self.name_of(&select.operand)? {
            Some(place) => self.entry(node, place, key()),
            None => Err(Refused::at(node, format!("there is no `{}` here", select.field))),
        }
    }

    /// The entry `key` of a map.
    fn entry(&mut self, node: &IdedExpr, place: Name, key: Text) -> Result<Typed, Refused> {
        match place {
            Name::Labels => Ok(Typed::Text(Text::Label(Box::new(key)))),
            Name::Headers => Ok(Typed::Text(Text::Header(Box::new(lower(key))))),
            Name::Metrics => self.metric(node, &key).map(|id| Typed::Real(Real::Metric(id))),
            _ => Err(Refused::at(
                node,
                "only `endpoint.labels`, `endpoint.metrics` and `request.headers` have entries",
            )),
        }
    }

    /// Whether a map or list has `key`.
    fn present(&mut self, node: &IdedExpr, place: Name, key: Text) -> Result<Truth, Refused> {
        match place {
            Name::Labels => Ok(Truth::Has(Place::Labels, key)),
            Name::Headers => Ok(Truth::Has(Place::Headers, lower(key))),
            Name::Adapters => Ok(Truth::Has(Place::Adapters, key)),
            Name::Metrics => self.metric(node, &key).map(Truth::HasMetric),
            _ => Err(Refused::at(node, "only labels, headers, metrics and adapters can be asked for a key")),
        }
    }

    /// A macro over a written list, unrolled.
    fn comprehension(&mut self, node: &'t IdedExpr, it: &'t ComprehensionExpr) -> Result<Typed, Refused> {
        let Expr::List(list) = &it.iter_range.expr else {
            return Err(Refused::at(
                &it.iter_range,
                "a macro runs over a written list only, so that its cost is known",
            ));
        };
        let Expr::Call(step) = &it.loop_step.expr else {
            return Err(Refused::at(node, "of the macros, `exists`, `all` and `exists_one` are known here"));
        };
        let (predicate, join): (_, fn(Vec<Truth>) -> Truth) =
            match (step.func_name.as_str(), step.args.as_slice()) {
                (operators::LOGICAL_OR, [_, predicate]) => (predicate, Truth::Any),
                (operators::LOGICAL_AND, [_, predicate]) => (predicate, Truth::Every),
                (operators::CONDITIONAL, [predicate, ..])
                    if matches!(it.accu_init.expr, Expr::Literal(_)) =>
                {
                    (predicate, Truth::ExactlyOne)
                }
                _ => {
                    return Err(Refused::at(
                        node,
                        "of the macros, `exists`, `all` and `exists_one` are known here",
                    ));
                }
            };
        let mut all = Vec::with_capacity(list.elements.len());
        for element in &list.elements {
            all.push(self.binding(&it.iter_var, element, |c| c.truth(predicate))?);
        }
        Ok(Typed::Truth(join(all)))
    }

    fn truth(&mut self, node: &'t IdedExpr) -> Result<Truth, Refused> {
        match self.expression(node)? {
            Typed::Truth(t) => Ok(t),
            other => Err(Refused::wanted(node, "bool", &other)),
        }
    }

    fn text(&mut self, node: &'t IdedExpr) -> Result<Text, Refused> {
        match self.expression(node)? {
            Typed::Text(t) => Ok(t),
            other => Err(Refused::wanted(node, "string", &other)),
        }
    }

    fn compare(&mut self, node: &IdedExpr, how: Compare, a: Typed, b: Typed) -> Result<Truth, Refused> {
        let equality = matches!(how, Compare::Equal | Compare::Unequal);
        Ok(match (a, b) {
            (Typed::Whole(a), Typed::Whole(b)) => Truth::Wholes(how, Box::new((a, b))),
            (Typed::Real(a), Typed::Real(b)) => Truth::Reals(how, Box::new((a, b))),
            (Typed::Whole(a), Typed::Real(b)) => Truth::Reals(how, Box::new((Real::Of(Box::new(a)), b))),
            (Typed::Real(a), Typed::Whole(b)) => Truth::Reals(how, Box::new((a, Real::Of(Box::new(b))))),
            (Typed::Text(a), Typed::Text(b)) => Truth::Texts(how, Box::new((a, b))),
            (Typed::Truth(a), Typed::Truth(b)) if equality => {
                let same = Truth::Same(Box::new((a, b)));
                if how == Compare::Equal { same } else { Truth::Not(Box::new(same)) }
            }
            (a, b) => {
                let text = format!("{} and {} cannot be compared like this", a.type_name(), b.type_name());
                return Err(Refused::at(node, text));
            }
        })
    }

    fn branch(
        &mut self,
        node: &IdedExpr,
        condition: Truth,
        then: Typed,
        otherwise: Typed,
    ) -> Result<Typed, Refused> {
        Ok(match (then, otherwise) {
            (Typed::Truth(then), Typed::Truth(otherwise)) => {
                Typed::Truth(Truth::If(Box::new(Branch { condition, then, otherwise })))
            }
            (Typed::Whole(then), Typed::Whole(otherwise)) => {
                Typed::Whole(Whole::If(Box::new(Branch { condition, then, otherwise })))
            }
            (Typed::Real(then), Typed::Real(otherwise)) => {
                Typed::Real(Real::If(Box::new(Branch { condition, then, otherwise })))
            }
            (Typed::Text(then), Typed::Text(otherwise)) => {
                Typed::Text(Text::If(Box::new(Branch { condition, then, otherwise })))
            }
            (a, b) => {
                let text = format!(
                    "both sides of `:` must be of one type, not {} and {}",
                    a.type_name(),
                    b.type_name()
                );
                return Err(Refused::at(node, text));
            }
        })
    }
}

/// Header names are kept in lower case.
fn lower(key: Text) -> Text {
    match key {
        Text::Const(name) => Text::Const(name.to_ascii_lowercase().into()),
        other => other,
    }
}
