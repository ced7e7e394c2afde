//! Answers a typed tree for one endpoint.

use super::Fault;
use super::names::{RealName, TextName, TruthName, WholeName};
use super::node::{Arithmetic, Branch, Compare, Place, Real, Search, Text, Truth, Whole};
use crate::endpoint::{LoraState, Reading};
use crate::plugin::{Cycle, PrefixMatches};
use crate::pool::Position;
use std::cmp::Ordering;

/// What a question is asked of.
#[derive(Clone, Copy)]
pub(in crate::scheduling) struct Scope<'a> {
    /// The request and its candidates.
    pub(in crate::scheduling) cycle: &'a Cycle<'a>,
    /// What the candidates hold of the prompt; `None` when nobody said.
    pub(in crate::scheduling) prefix: Option<&'a PrefixMatches>,
    /// The endpoint.
    pub(in crate::scheduling) at: Position,
}

impl<'a> Scope<'a> {
    fn whole(self, name: WholeName) -> Result<i64, Fault> {
        let (request, candidates, p) = (self.cycle.request, self.cycle.candidates, self.at);
        Ok(match name {
            WholeName::Rank => i64::from(candidates.endpoint(p).key.rank),
            WholeName::Waiting => i64::from(candidates.fresh_waiting(p).ok_or(Fault::Unknown)?),
            WholeName::Running => i64::from(candidates.fresh_running(p).ok_or(Fault::Unknown)?),
            WholeName::InFlightRequests => i64::from(candidates.in_flight_requests(p)),
            WholeName::InFlightTokens => count(candidates.in_flight_tokens(p)),
            WholeName::Priority => i64::from(request.priority),
            WholeName::PromptTokens => i64::from(request.prompt_tokens()),
            WholeName::MaxOutputTokens => i64::from(request.parsed.max_output_tokens.ok_or(Fault::Missing)?),
            WholeName::BodyBytes => count(request.body_bytes as u64),
            WholeName::MatchedBlocks => self.prefix.map_or(0, |m| i64::from(m.matched(p))),
            WholeName::MatchedTokens => {
                self.prefix.map_or(0, |m| i64::from(m.matched(p)) * i64::from(m.block_tokens))
            }
            WholeName::TotalBlocks => self.prefix.map_or(0, |m| i64::from(m.total_blocks)),
        })
    }

    fn real(self, name: RealName) -> Result<f64, Fault> {
        match name {
            RealName::KvUsage => self.cycle.candidates.fresh_kv_usage(self.at).ok_or(Fault::Unknown),
            RealName::AgeSeconds => Some(f64::from(self.cycle.candidates.age_seconds(self.at)))
                .filter(|s| s.is_finite())
                .ok_or(Fault::Unknown),
            RealName::PrefixRatio => Ok(self.prefix.map_or(0.0, |m| m.ratio(self.at))),
        }
    }

    fn text(self, name: TextName) -> &'a str {
        let request = self.cycle.request;
        match name {
            TextName::EndpointName => &self.cycle.candidates.endpoint(self.at).key.name,
            TextName::Namespace => &self.cycle.candidates.endpoint(self.at).key.namespace,
            TextName::Model => request.model(),
            TextName::TargetModel => &request.target_model,
            TextName::FairnessId => &request.fairness_id,
        }
    }

    fn truth(self, name: TruthName) -> bool {
        match name {
            TruthName::Fresh => self.cycle.candidates.reading(self.at) == Reading::Fresh,
            TruthName::Stream => self.cycle.request.parsed.stream,
        }
    }

    fn has(self, place: Place, key: &str) -> Result<bool, Fault> {
        match place {
            Place::Labels => Ok(self.cycle.candidates.endpoint(self.at).labels.get(key).is_some()),
            Place::Headers => Ok(self.cycle.request.headers.contains(key)),
            Place::Adapters => {
                let lora: &LoraState = self.cycle.candidates.lora(self.at).ok_or(Fault::Unknown)?;
                Ok(lora.active.iter().chain(&lora.waiting).any(|a| **a == *key))
            }
        }
    }
}

fn count(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

impl Compare {
    fn holds(self, order: Option<Ordering>) -> bool {
        match self {
            Compare::Equal => order == Some(Ordering::Equal),
            Compare::Unequal => order != Some(Ordering::Equal),
            Compare::Less => order == Some(Ordering::Less),
            Compare::AtMost => matches!(order, Some(Ordering::Less | Ordering::Equal)),
            Compare::More => order == Some(Ordering::Greater),
            Compare::AtLeast => matches!(order, Some(Ordering::Greater | Ordering::Equal)),
        }
    }
}

impl<T> Branch<T> {
    fn taken(&self, scope: Scope<'_>) -> Result<&T, Fault> {
        Ok(if self.condition.answer(scope)? { &self.then } else { &self.otherwise })
    }
}

/// `decisive` as soon as one says so; otherwise the first fault, otherwise the contrary.
fn until(all: &[Truth], decisive: bool, scope: Scope<'_>) -> Result<bool, Fault> {
    let mut fault = None;
    for one in all {
        match one.answer(scope) {
            Ok(answer) if answer == decisive => return Ok(decisive),
            Ok(_) => {}
            Err(f) => fault = fault.or(Some(f)),
        }
    }
    fault.map_or(Ok(!decisive), Err)
}

impl Truth {
    /// Whether it holds at the scope's endpoint.
    pub(in crate::scheduling) fn answer(&self, scope: Scope<'_>) -> Result<bool, Fault> {
        match self {
            Truth::Const(b) => Ok(*b),
            Truth::Read(name) => Ok(scope.truth(*name)),
            Truth::Not(inner) => Ok(!inner.answer(scope)?),
            Truth::Every(all) => until(all, false, scope),
            Truth::Any(all) => until(all, true, scope),
            Truth::ExactlyOne(all) => {
                let mut held = 0;
                for one in all {
                    held += usize::from(one.answer(scope)?);
                }
                Ok(held == 1)
            }
            Truth::If(branch) => branch.taken(scope)?.answer(scope),
            Truth::Same(pair) => Ok(pair.0.answer(scope)? == pair.1.answer(scope)?),
            Truth::Wholes(how, pair) => {
                Ok(how.holds(Some(pair.0.answer(scope)?.cmp(&pair.1.answer(scope)?))))
            }
            Truth::Reals(how, pair) => {
                Ok(how.holds(pair.0.answer(scope)?.partial_cmp(&pair.1.answer(scope)?)))
            }
            Truth::Texts(how, pair) => Ok(how.holds(Some(pair.0.answer(scope)?.cmp(pair.1.answer(scope)?)))),
            Truth::Search(how, pair) => {
                let (text, part) = (pair.0.answer(scope)?, pair.1.answer(scope)?);
                Ok(match how {
                    Search::StartsWith => text.starts_with(part),
                    Search::EndsWith => text.ends_with(part),
                    Search::Contains => text.contains(part),
                })
            }
            Truth::Has(place, key) => scope.has(*place, key.answer(scope)?),
            Truth::HasMetric(id) => Ok(scope.cycle.candidates.scalar(scope.at, *id).is_some()),
        }
    }
}

impl Whole {
    /// Its value at the scope's endpoint.
    pub(in crate::scheduling) fn answer(&self, scope: Scope<'_>) -> Result<i64, Fault> {
        match self {
            Whole::Const(n) => Ok(*n),
            Whole::Read(name) => scope.whole(*name),
            Whole::Negate(inner) => inner.answer(scope)?.checked_neg().ok_or(Fault::Arithmetic),
            Whole::Arithmetic(what, pair) => {
                let (a, b) = (pair.0.answer(scope)?, pair.1.answer(scope)?);
                match what {
                    Arithmetic::Add => a.checked_add(b),
                    Arithmetic::Subtract => a.checked_sub(b),
                    Arithmetic::Multiply => a.checked_mul(b),
                    Arithmetic::Divide => a.checked_div(b),
                    Arithmetic::Remainder => a.checked_rem(b),
                }
                .ok_or(Fault::Arithmetic)
            }
            Whole::If(branch) => branch.taken(scope)?.answer(scope),
            Whole::Least(all) => fold(all.iter().map(|n| n.answer(scope)), i64::MAX, i64::min),
            Whole::Greatest(all) => fold(all.iter().map(|n| n.answer(scope)), i64::MIN, i64::max),
            Whole::Truncate(inner) => truncate(inner.answer(scope)?),
            Whole::Parse(text) => text.answer(scope)?.parse().map_err(|_| Fault::Conversion),
            Whole::Size(text) => Ok(count(text.answer(scope)?.chars().count() as u64)),
        }
    }
}

/// `value` towards zero, when it is a number that fits.
fn truncate(value: f64) -> Result<i64, Fault> {
    // Both bounds are powers of two and therefore exact; the upper one itself does not fit.
    let fits = (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value);
    #[expect(clippy::cast_possible_truncation, reason = "in range by the line above; the fraction is to go")]
    if fits { Ok(value as i64) } else { Err(Fault::Conversion) }
}

fn fold<T>(
    values: impl Iterator<Item = Result<T, Fault>>,
    start: T,
    choose: fn(T, T) -> T,
) -> Result<T, Fault> {
    let mut best = start;
    for value in values {
        best = choose(best, value?);
    }
    Ok(best)
}

impl Real {
    /// Its value at the scope's endpoint.
    pub(in crate::scheduling) fn answer(&self, scope: Scope<'_>) -> Result<f64, Fault> {
        match self {
            Real::Const(n) => Ok(*n),
            Real::Read(name) => scope.real(*name),
            Real::Metric(id) => scope.cycle.candidates.scalar(scope.at, *id).ok_or(Fault::Unknown),
            Real::Negate(inner) => Ok(-inner.answer(scope)?),
            Real::Arithmetic(what, pair) => {
                let (a, b) = (pair.0.answer(scope)?, pair.1.answer(scope)?);
                Ok(match what {
                    Arithmetic::Add => a + b,
                    Arithmetic::Subtract => a - b,
                    Arithmetic::Multiply => a * b,
                    Arithmetic::Divide => a / b,
                    Arithmetic::Remainder => a % b,
                })
            }
            Real::If(branch) => branch.taken(scope)?.answer(scope),
            Real::Least(all) => fold(all.iter().map(|n| n.answer(scope)), f64::INFINITY, f64::min),
            Real::Greatest(all) => fold(all.iter().map(|n| n.answer(scope)), f64::NEG_INFINITY, f64::max),
            Real::Of(inner) => {
                let whole = inner.answer(scope)?;
                #[expect(clippy::cast_precision_loss, reason = "what CEL's double() does")]
                Ok(whole as f64)
            }
            Real::Parse(text) => text.answer(scope)?.parse().map_err(|_| Fault::Conversion),
        }
    }
}

impl Text {
    pub(super) fn answer<'a>(&'a self, scope: Scope<'a>) -> Result<&'a str, Fault> {
        match self {
            Text::Const(text) => Ok(text),
            Text::Read(name) => Ok(scope.text(*name)),
            Text::Label(key) => {
                scope.cycle.candidates.endpoint(scope.at).labels.get(key.answer(scope)?).ok_or(Fault::Missing)
            }
            Text::Header(key) => scope.cycle.request.headers.get(key.answer(scope)?).ok_or(Fault::Missing),
            Text::If(branch) => branch.taken(scope)?.answer(scope),
        }
    }
}
