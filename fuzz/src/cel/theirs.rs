//! The same expressions answered by the interpreter of the `cel` crate.

use cel::{Context, Program, Value};
use pointsman::scheduling::Answer;
use std::collections::HashMap;

/// The first endpoint and the request, as the interpreter knows them.
pub struct World {
    context: Context<'static, 'static>,
}

fn map<const N: usize>(entries: [(&str, Value); N]) -> Value {
    entries.map(|(key, value)| (key.to_owned(), value)).into_iter().collect::<HashMap<_, _>>().into()
}

impl World {
    /// The names that stand for a value.
    pub fn new() -> Self {
        let mut context = Context::default();
        let int = Value::Int;
        let endpoint = map([
            ("name", "a".into()),
            ("namespace", "default".into()),
            ("rank", int(0)),
            ("labels", map([("tier", "gold".into()), ("zone", "a".into())])),
            ("waiting", int(3)),
            ("running", int(7)),
            ("kv_usage", Value::Float(0.25)),
            ("metrics", map([])),
            ("adapters", vec!["sql"].into()),
            ("fresh", Value::Bool(true)),
            ("age_seconds", Value::Float(0.0)),
            ("in_flight_requests", int(0)),
            ("in_flight_tokens", int(0)),
        ]);
        let request = map([
            ("model", "".into()),
            ("target_model", "m".into()),
            ("priority", int(-2)),
            ("fairness_id", "default-flow".into()),
            ("headers", map([("x-tier", "gold".into())])),
            ("prompt_tokens", int(0)),
            ("body_bytes", int(40)),
            ("stream", Value::Bool(false)),
        ]);
        let prefix = map([
            ("ratio", Value::Float(0.5)),
            ("matched_blocks", int(5)),
            ("matched_tokens", int(80)),
            ("total_blocks", int(10)),
        ]);
        for (name, value) in [("endpoint", endpoint), ("request", request), ("prefix", prefix)] {
            context.add_variable_from_value(name, value);
        }
        Self { context }
    }

    /// Where both have an answer it is the same one.
    pub fn check(&self, source: &str, ours: Result<Answer<'_>, &'static str>) {
        // Here names of headers are the same in either case.
        if source.bytes().any(|b| b.is_ascii_uppercase()) {
            return;
        }
        let program = Program::compile(source).unwrap_or_else(|e| panic!("{source} is no CEL to them: {e}"));
        let (Ok(ours), Ok(theirs)) = (ours, program.execute(&self.context)) else { return };
        let same = match (ours, &theirs) {
            (Answer::Truth(a), Value::Bool(b)) => a == *b,
            (Answer::Whole(a), Value::Int(b)) => a == *b,
            (Answer::Real(a), Value::Float(b)) => a == *b || (a.is_nan() && b.is_nan()),
            (Answer::Text(a), Value::String(b)) => *a == **b,
            _ => false,
        };
        assert!(same, "{source} is {ours:?} here and {theirs:?} there");
    }
}
