//! The language as a whole: what is answered, what is refused, what cannot be answered.

use super::*;
use crate::clock::Clock;
use crate::endpoint::{LoraState, Reading};
use crate::plugin::{AttributeTable, BuildContext, Cycle, PrefixMatches, ProfileRuns, StateStore};
use crate::pool::Position;
use crate::scheduling::testing::{Row, freeze, request_with};
use proptest::prelude::*;

fn compiled(source: &str) -> Result<Typed, String> {
    let (state, clock, mut table) = (StateStore::default(), Clock::manual(), AttributeTable::default());
    let mut ctx = BuildContext {
        name: &"cel".into(),
        parameters: &serde_json::Value::Null,
        state: &state,
        clock: &clock,
        prefix_index_bytes: 1 << 20,
        table: &mut table,
    };
    compile(source, "", &mut ctx).map(|c| c.expression).map_err(|e| e.to_string())
}

/// The answer as text, for an endpoint with labels, numbers and a half-matched prompt.
fn answer(source: &str) -> String {
    let row = Row {
        labels: vec![("tier", "gold"), ("zone", "a")],
        waiting: Some(3),
        running: Some(7),
        kv: Some(0.25),
        lora: Some(LoraState { max_active: 2, active: vec!["sql".into()], waiting: vec![] }),
        in_flight: 2,
        tokens: 500,
        ..Row::default()
    };
    let unknown = Row { reading: Reading::Never, ..Row::default() };
    let candidates = freeze(&[row, unknown]);
    let request = request_with("x-tier", "gold");
    let done = ProfileRuns::default();
    let cycle =
        Cycle { request: &request, candidates: &candidates, profile: "p", done: &done, shadow: false };
    let prefix = PrefixMatches {
        total_blocks: 10,
        block_tokens: 16,
        matched_blocks: vec![5, 0],
        chains: Default::default(),
    };
    let scope = Scope { cycle: &cycle, prefix: Some(&prefix), at: Position(0) };
    let expression = compiled(source).unwrap_or_else(|e| panic!("{source}: {e}"));
    let said = match &expression {
        Typed::Truth(t) => t.answer(scope).map(|v| v.to_string()),
        Typed::Whole(w) => w.answer(scope).map(|v| v.to_string()),
        Typed::Real(r) => r.answer(scope).map(|v| format!("{v:?}")),
        Typed::Text(t) => t.answer(scope).map(str::to_owned),
    };
    said.unwrap_or_else(|fault| fault.name().to_owned())
}

#[test]
fn values() {
    for (source, wanted) in [
        ("endpoint.waiting + endpoint.running * 2", "17"),
        ("endpoint.kv_usage + 0.5", "0.75"),
        ("endpoint.in_flight_requests", "2"),
        ("endpoint.in_flight_tokens", "500"),
        ("endpoint.name + ''", "cannot"),
        ("prefix.ratio", "0.5"),
        ("prefix.matched_tokens", "80"),
        ("prefix.total_blocks - prefix.matched_blocks", "5"),
        ("endpoint.labels['tier'] == request.headers['x-tier']", "true"),
        ("endpoint.labels[request.headers['x-tier']]", "missing"),
        ("'zone' in endpoint.labels && has(endpoint.labels.zone)", "true"),
        ("has(request.headers.nothing)", "false"),
        ("'sql' in endpoint.adapters", "true"),
        ("endpoint.waiting in [1, 2, 3]", "true"),
        ("[1, 2].all(n, n < endpoint.waiting)", "true"),
        ("[1, 3].exists(n, n == endpoint.waiting)", "true"),
        ("[3, 3].exists_one(n, n == endpoint.waiting)", "false"),
        ("['a', 'b'].exists(x, ['b', 'c'].exists(y, x == y))", "true"),
        ("endpoint.waiting > 2.5", "true"),
        ("endpoint.waiting == 3 ? 'three' : 'other'", "three"),
        ("double(endpoint.waiting) / 4.0", "0.75"),
        ("int(2.9) + int('4')", "6"),
        ("double('1e2')", "100.0"),
        ("-7 % 4", "-3"),
        ("-endpoint.kv_usage", "-0.25"),
        ("size('héé')", "3"),
        ("'abc'.startsWith('ab') && 'abc'.endsWith('c') && 'abc'.contains('b')", "true"),
        ("math.least(4, endpoint.waiting, 9)", "3"),
        ("math.greatest(0.1, endpoint.kv_usage)", "0.25"),
        ("request.priority >= 0 || request.stream", "true"),
        ("endpoint.fresh != false", "true"),
        ("endpoint.rank", "0"),
    ] {
        if wanted == "cannot" {
            assert!(compiled(source).is_err(), "{source}");
        } else {
            assert_eq!(answer(source), wanted, "{source}");
        }
    }
}

#[test]
fn what_has_no_answer_is_a_fault_unless_the_rest_decides() {
    for (source, wanted) in [
        ("endpoint.labels['no'] == 'x'", "missing"),
        ("endpoint.labels['no'] == 'x' || true", "true"),
        ("endpoint.labels['no'] == 'x' && false", "false"),
        ("endpoint.labels['no'] == 'x' && true", "missing"),
        ("request.max_output_tokens > 3", "missing"),
        ("endpoint.metrics['power'] > 3.0", "unknown"),
        ("'power' in endpoint.metrics", "false"),
        ("1 / (endpoint.waiting - 3)", "arithmetic"),
        ("9223372036854775807 + endpoint.waiting", "arithmetic"),
        ("int('three')", "conversion"),
        ("int(1e300)", "conversion"),
    ] {
        assert_eq!(answer(source), wanted, "{source}");
    }
}

#[test]
fn refusals_name_the_place_and_the_way_out() {
    let bomb = format!("{}1 == 1{}", "[1,2,3,4].exists(x, ".repeat(6), ")".repeat(6));
    for (source, wanted) in [
        (
            "endpoint.queue > 1",
            "at character 9: `endpoint.queue` is not declared; `endpoint` has name, namespace",
        ),
        ("pod.name == 'a'", "`pod.name` is not declared; declared are `endpoint`, `request` and `prefix`"),
        ("1 + 1.0", "int and double are mixed; write 1.0 or double("),
        ("endpoint.waiting && true", "bool is wanted here, not int"),
        ("endpoint.labels == 'a'", "`labels` is a map; give a key"),
        ("endpoint.name.matches('a.*')", "there is no `matches`; known are size"),
        ("size(1)", "string is wanted here, not int"),
        ("endpoint.adapters.exists(a, a == 'x')", "a macro runs over a written list only"),
        ("[1].map(x, x + 1) == 1", "of the macros, `exists`, `all` and `exists_one` are known"),
        ("[1] == [1]", "a list stands only after `in`"),
        ("1u == 1u", "numbers have no `u` here"),
        ("endpoint.labels['a'] == null", "nothing is `null` here"),
        ("true ? 1 : 'a'", "both sides of `:` must be of one type"),
        ("endpoint.metrics[endpoint.name] > 1.0", "the name of a metric must be written out"),
        (&bomb, "more than 1000 steps"),
        ("endpoint.waiting >", "line 1 column"),
        (" ", "it is empty"),
    ] {
        let error = compiled(source).expect_err(source);
        assert!(error.contains(wanted), "{source}: {error}");
    }
    assert!(compiled(&"1+".repeat(2048)).is_err());
    assert!(compiled(&"(".repeat(4000)).is_err());
}

/// An expression of its own has the steps that its text says, and no more than the bound on them lets through.
#[test]
fn steps_are_counted_before_anything_is_asked() {
    let steps = |source: &str| {
        let (state, clock, mut table) = (StateStore::default(), Clock::manual(), AttributeTable::default());
        let mut ctx = BuildContext {
            name: &"cel".into(),
            parameters: &serde_json::Value::Null,
            state: &state,
            clock: &clock,
            prefix_index_bytes: 1 << 20,
            table: &mut table,
        };
        Expression::compile(source, &mut ctx).map(|e| e.steps())
    };
    for (source, wanted) in [
        ("true", 1),
        ("endpoint.waiting + 1 > 2", 5),
        ("endpoint.fresh ? 1 : endpoint.waiting + 2", 5),
        ("[1, 2, 3].exists(n, n == endpoint.waiting)", 10),
        ("endpoint.labels['tier'] == 'gold'", 4),
        ("math.least(double(endpoint.waiting), 1.0)", 4),
    ] {
        assert_eq!(steps(source), Ok(wanted), "{source}");
    }
    let long = format!("endpoint.waiting in [{}]", vec!["1"; 400].join(", "));
    assert_eq!(steps(&long), Ok(1201));
    assert!(steps(&format!("endpoint.waiting in [{}]", vec!["1"; 600].join(", "))).is_err());
}

fn words() -> impl Strategy<Value = String> {
    let words = [
        "endpoint.waiting",
        "endpoint.kv_usage",
        "endpoint.labels['tier']",
        "request.headers['x-tier']",
        "prefix.ratio",
        "(",
        ")",
        "[",
        "]",
        "&&",
        "||",
        "!",
        "==",
        "<",
        "+",
        "-",
        "/",
        "%",
        "?",
        ":",
        ".",
        ",",
        "in",
        "1",
        "2.5",
        "'a'",
        "x",
        ".exists(x,",
        "size(",
        "int(",
        "double(",
        "math.least(",
        "has(",
        "true",
        "\u{e9}",
        "\n",
    ];
    prop::collection::vec(prop::sample::select(words.to_vec()), 0..24).prop_map(|w| w.join(" "))
}

proptest! {
    #[test]
    fn nothing_that_is_written_makes_a_panic(source in prop_oneof![words(), ".{0,60}"]) {
        if compiled(&source).is_ok() {
            let _ = answer(&source);
        }
    }
}
