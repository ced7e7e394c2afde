//! Operators and functions.

use super::context::{Compiler, Refused};
use crate::scheduling::cel::node::{Arithmetic, Compare, Real, Search, Truth, Typed, Whole};
use cel::IdedExpr;
use cel::common::ast::{CallExpr, Expr, operators};

const FUNCTIONS: &str =
    "known are size, int, double, startsWith, endsWith, contains, math.least and math.greatest";

impl<'t> Compiler<'t, '_, '_> {
    pub(super) fn call(&mut self, node: &'t IdedExpr, call: &'t CallExpr) -> Result<Typed, Refused> {
        if let Some(target) = call.target.as_deref() {
            return self.method(node, call, target);
        }
        let truth = |t: Truth| Ok(Typed::Truth(t));
        match (call.func_name.as_str(), call.args.as_slice()) {
            (operators::LOGICAL_AND, all) => truth(Truth::Every(self.truths(all)?)),
            (operators::LOGICAL_OR, all) => truth(Truth::Any(self.truths(all)?)),
            (operators::LOGICAL_NOT, [inner]) => truth(Truth::Not(Box::new(self.truth(inner)?))),
            (operators::CONDITIONAL, [condition, then, otherwise]) => {
                let condition = self.truth(condition)?;
                let (then, otherwise) = (self.expression(then)?, self.expression(otherwise)?);
                self.branch(node, condition, then, otherwise)
            }
            (operators::NEGATE, [inner]) => match self.expression(inner)? {
                Typed::Whole(n) => Ok(Typed::Whole(Whole::Negate(Box::new(n)))),
                Typed::Real(n) => Ok(Typed::Real(Real::Negate(Box::new(n)))),
                other => Err(Refused::wanted(inner, "a number", &other)),
            },
            (operators::INDEX, [map, key]) => {
                let Some(place) = self.name_of(map)? else {
                    return Err(Refused::at(
                        map,
                        "only `endpoint.labels`, `endpoint.metrics` and `request.headers` have entries",
                    ));
                };
                let key = self.text(key)?;
                self.entry(node, place, key)
            }
            (operators::IN, [key, place]) => self.within_list(node, key, place).map(Typed::Truth),
            ("size", [text]) => Ok(Typed::Whole(Whole::Size(self.text(text)?))),
            ("int", [inner]) => self.whole_of(inner),
            ("double", [inner]) => self.real_of(inner),
            (operator, [a, b]) => {
                if let Some(how) = comparison(operator) {
                    let (a, b) = (self.expression(a)?, self.expression(b)?);
                    self.compare(node, how, a, b).map(Typed::Truth)
                } else if let Some(what) = arithmetic(operator) {
                    let (a, b) = (self.expression(a)?, self.expression(b)?);
                    calculate(node, what, a, b)
                } else {
                    Err(Refused::at(node, format!("there is no `{operator}` with 2 arguments; {FUNCTIONS}")))
                }
            }
            (name, args) => Err(Refused::at(
                node,
                format!("there is no `{name}` with {} arguments; {FUNCTIONS}", args.len()),
            )),
        }
    }

    fn truths(&mut self, all: &'t [IdedExpr]) -> Result<Vec<Truth>, Refused> {
        all.iter().map(|one| self.truth(one)).collect()
    }

    fn method(
        &mut self,
        node: &'t IdedExpr,
        call: &'t CallExpr,
        target: &'t IdedExpr,
    ) -> Result<Typed, Refused> {
        let name = call.func_name.as_str();
        if matches!(&target.expr, Expr::Ident(library) if library == "math") {
            return self.extreme(node, name, &call.args);
        }
        let how = match name {
            "startsWith" => Search::StartsWith,
            "endsWith" => Search::EndsWith,
            "contains" => Search::Contains,
            "size" if call.args.is_empty() => return Ok(Typed::Whole(Whole::Size(self.text(target)?))),
            _ => return Err(Refused::at(node, format!("there is no `{name}`; {FUNCTIONS}"))),
        };
        let [part] = call.args.as_slice() else {
            return Err(Refused::at(node, format!("`{name}` takes one argument")));
        };
        let pair = Box::new((self.text(target)?, self.text(part)?));
        Ok(Typed::Truth(Truth::Search(how, pair)))
    }

    /// `math.least` and `math.greatest`.
    fn extreme(&mut self, node: &IdedExpr, name: &str, args: &'t [IdedExpr]) -> Result<Typed, Refused> {
        let least = match name {
            "least" => true,
            "greatest" => false,
            _ => return Err(Refused::at(node, format!("there is no `math.{name}`; {FUNCTIONS}"))),
        };
        let (mut wholes, mut reals) = (Vec::new(), Vec::new());
        for arg in args {
            match self.expression(arg)? {
                Typed::Whole(n) => wholes.push(n),
                Typed::Real(n) => reals.push(n),
                other => return Err(Refused::wanted(arg, "a number", &other)),
            }
        }
        match (wholes.is_empty(), reals.is_empty()) {
            (false, true) if least => Ok(Typed::Whole(Whole::Least(wholes))),
            (false, true) => Ok(Typed::Whole(Whole::Greatest(wholes))),
            (true, false) if least => Ok(Typed::Real(Real::Least(reals))),
            (true, false) => Ok(Typed::Real(Real::Greatest(reals))),
            (true, true) => Err(Refused::at(node, format!("`math.{name}` takes at least one number"))),
            (false, false) => Err(Refused::at(node, "int and double are mixed; write 1.0 or double(…)")),
        }
    }

    fn within_list(
        &mut self,
        node: &IdedExpr,
        key: &'t IdedExpr,
        place: &'t IdedExpr,
    ) -> Result<Truth, Refused> {
        if let Expr::List(list) = &place.expr {
            let mut any = Vec::with_capacity(list.elements.len());
            for element in &list.elements {
                let (key, element) = (self.expression(key)?, self.expression(element)?);
                any.push(self.compare(node, Compare::Equal, key, element)?);
            }
            return Ok(Truth::Any(any));
        }
        let Some(name) = self.name_of(place)? else {
            return Err(Refused::at(place, "`in` takes a list, labels, headers, metrics or adapters"));
        };
        let key = self.text(key)?;
        self.present(place, name, key)
    }

    fn whole_of(&mut self, node: &'t IdedExpr) -> Result<Typed, Refused> {
        Ok(Typed::Whole(match self.expression(node)? {
            Typed::Whole(n) => n,
            Typed::Real(n) => Whole::Truncate(Box::new(n)),
            Typed::Text(text) => Whole::Parse(text),
            other @ Typed::Truth(_) => return Err(Refused::wanted(node, "a number or string", &other)),
        }))
    }

    fn real_of(&mut self, node: &'t IdedExpr) -> Result<Typed, Refused> {
        Ok(Typed::Real(match self.expression(node)? {
            Typed::Real(n) => n,
            Typed::Whole(n) => Real::Of(Box::new(n)),
            Typed::Text(text) => Real::Parse(text),
            other @ Typed::Truth(_) => return Err(Refused::wanted(node, "a number or string", &other)),
        }))
    }
}

fn comparison(operator: &str) -> Option<Compare> {
    Some(match operator {
        operators::EQUALS => Compare::Equal,
        operators::NOT_EQUALS => Compare::Unequal,
        operators::LESS => Compare::Less,
        operators::LESS_EQUALS => Compare::AtMost,
        operators::GREATER => Compare::More,
        operators::GREATER_EQUALS => Compare::AtLeast,
        _ => return None,
    })
}

fn arithmetic(operator: &str) -> Option<Arithmetic> {
    Some(match operator {
        operators::ADD => Arithmetic::Add,
        operators::SUBSTRACT => Arithmetic::Subtract,
        operators::MULTIPLY => Arithmetic::Multiply,
        operators::DIVIDE => Arithmetic::Divide,
        operators::MODULO => Arithmetic::Remainder,
        _ => return None,
    })
}

fn calculate(node: &IdedExpr, what: Arithmetic, a: Typed, b: Typed) -> Result<Typed, Refused> {
    match (a, b) {
        (Typed::Whole(a), Typed::Whole(b)) => Ok(Typed::Whole(Whole::Arithmetic(what, Box::new((a, b))))),
        (Typed::Real(a), Typed::Real(b)) if what != Arithmetic::Remainder => {
            Ok(Typed::Real(Real::Arithmetic(what, Box::new((a, b)))))
        }
        (Typed::Whole(_), Typed::Real(_)) | (Typed::Real(_), Typed::Whole(_)) => {
            Err(Refused::at(node, "int and double are mixed; write 1.0 or double(…)"))
        }
        (a, b) => Err(Refused::at(
            node,
            format!("{} and {} cannot be calculated with", a.type_name(), b.type_name()),
        )),
    }
}
