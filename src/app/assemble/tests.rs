use super::*;
use crate::plugin::{
    AdmissionView, BuildContext, Cycle, DataProducer, ExtractorSpec, Filter, HttpSource, Picker, PluginType,
    PrefixMatches, ProduceError, ProfileHandler, ProfileRuns, Ranked, Roles, SaturationDetector,
    ScheduleError, Scorer, Scores, Shortlist, SourceSpec, Stability, Targets, Verdict,
};
use crate::pool::Candidates;
use crate::request::{InferenceRequest, ParserKind};
use std::sync::Arc;

/// One plugin of every kind, doing nothing.
pub(super) struct Idle;

impl Filter for Idle {
    fn filter(&self, _: &Cycle<'_>, _: &mut Shortlist) {}
}
impl Scorer for Idle {
    fn score(&self, _: &Cycle<'_>, _: &Shortlist, _: &mut Scores<'_>) {}
}
impl Picker for Idle {
    fn pick(&self, ranked: &Ranked<'_>, _: &mut fastrand::Rng) -> Targets {
        Targets::one(ranked.first())
    }
}
impl ProfileHandler for Idle {
    fn next(&self, _: &InferenceRequest, _: &[Arc<str>], _: &ProfileRuns) -> Option<Arc<str>> {
        None
    }
    fn primary(&self, _: &InferenceRequest, _: &ProfileRuns) -> Result<Arc<str>, ScheduleError> {
        Err(ScheduleError::NoProfile("idle".into()))
    }
}
impl SaturationDetector for Idle {
    fn saturation(&self, _: &AdmissionView<'_>) -> Verdict {
        Verdict { saturation: 0.0, stale_endpoints: 0 }
    }
}
impl DataProducer for Idle {
    fn produce(&self, _: &InferenceRequest, _: &mut Candidates) -> Result<(), ProduceError> {
        Ok(())
    }
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScorerParameters {
    #[serde(default)]
    #[expect(dead_code, reason = "only its type is checked")]
    block_size: Option<u32>,
}

/// Parameters of a producer that reads another's attribute.
#[derive(Default, serde::Deserialize)]
#[serde(default, deny_unknown_fields)]
struct ChainParameters {
    reads: Option<String>,
}

fn scorer(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    context.decode::<ScorerParameters>()?;
    Ok(Roles { scorer: Some(Arc::new(Idle)), ..Roles::default() })
}
fn needy_scorer(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: ChainParameters = context.decode()?;
    context.consumes::<PrefixMatches>("Match", parameters.reads.as_deref(), "chain-producer");
    scorer_roles()
}
fn scorer_roles() -> Result<Roles, BuildError> {
    Ok(Roles { scorer: Some(Arc::new(Idle)), ..Roles::default() })
}
fn chain(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: ChainParameters = context.decode()?;
    context.produces::<PrefixMatches>("Match");
    if let Some(other) = &parameters.reads {
        context.consumes::<PrefixMatches>("Match", Some(other), "");
    } else if &**context.name == "chain-producer" {
        context.consumes::<u32>("Tokens", None, "token-producer");
    }
    Ok(Roles { producer: Some(Arc::new(Idle)), ..Roles::default() })
}
fn tokens(context: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    context.produces::<u32>("Tokens");
    Ok(Roles { producer: Some(Arc::new(Idle)), ..Roles::default() })
}
pub(super) fn http() -> HttpSource {
    HttpSource::plain("/metrics")
}

pub(super) const fn row(
    name: &'static str,
    build: fn(&mut BuildContext<'_>) -> Result<Roles, BuildError>,
) -> PluginType {
    PluginType { name, stability: Stability::Beta, build }
}

const FIXTURES: &[PluginType] = &[
    row("test-plugin", |_| Ok(Roles::default())),
    row("test-scorer", scorer),
    row("queue-scorer", scorer),
    row("kv-cache-utilization-scorer", scorer),
    row("prefix-cache-scorer", needy_scorer),
    row("test-filter", |_| Ok(Roles { filter: Some(Arc::new(Idle)), ..Roles::default() })),
    row("test-picker", |_| Ok(Roles { picker: Some(Arc::new(Idle)), ..Roles::default() })),
    row("max-score-picker", |_| Ok(Roles { picker: Some(Arc::new(Idle)), ..Roles::default() })),
    row("single-profile-handler", |_| {
        Ok(Roles { profile_handler: Some(Arc::new(Idle)), ..Roles::default() })
    }),
    row("many-profile-handler", |_| Ok(Roles { profile_handler: Some(Arc::new(Idle)), ..Roles::default() })),
    row("utilization-detector", |_| Ok(Roles { saturation: Some(Arc::new(Idle)), ..Roles::default() })),
    row("metrics-data-source", |_| {
        Ok(Roles { source: Some(SourceSpec::Metrics(http())), ..Roles::default() })
    }),
    row("test-source", |_| Ok(Roles { source: Some(SourceSpec::Models(http())), ..Roles::default() })),
    row("core-metrics-extractor", |_| {
        Ok(Roles { extractor: Some(ExtractorSpec::Models), ..Roles::default() })
    }),
    row("file-discovery", |_| {
        let spec =
            DiscoverySpec::File { path: "/configured".into(), watch: false, policies: Default::default() };
        Ok(Roles { discovery: Some(spec), ..Roles::default() })
    }),
    row("chain-producer", chain),
    row("token-producer", tokens),
    PluginType { name: "alpha-scorer", stability: Stability::Alpha, build: scorer },
    PluginType { name: "old-scorer", stability: Stability::Deprecated("test-scorer"), build: scorer },
];

const HEAD: &str = "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\n";

fn with(text: &str, change: impl FnOnce(&mut Inputs<'_>)) -> Result<Assembled, ConfigErrors> {
    let registry = Registry::from_tables(&[FIXTURES, parsers::TABLE]).unwrap();
    let (state, clock) = (StateStore::default(), Clock::manual());
    let mut inputs = Inputs {
        registry: &registry,
        state: &state,
        clock: &clock,
        prefix_index_bytes: 1 << 20,
        allow_experimental: false,
        endpoints_file: None,
        generation: 1,
        scalars: &[],
    };
    change(&mut inputs);
    assemble(&Loaded { origin: "test.yaml".into(), text: text.to_owned() }, &inputs)
}

fn good(body: &str) -> (Assembled, Vec<String>) {
    let assembled = with(&format!("{HEAD}{body}"), |_| {}).unwrap_or_else(|e| panic!("{body}\n{e}"));
    let notices = assembled.notices.iter().map(ToString::to_string).collect();
    (assembled, notices)
}

fn bad(body: &str) -> Vec<String> {
    let errors = with(&format!("{HEAD}{body}"), |_| {}).expect_err(body);
    errors.problems.iter().map(ToString::to_string).collect()
}

/// Name, filters, scorers with weights of a profile.
type Shape = (String, Vec<String>, Vec<(String, f64)>);

fn shape(assembled: &Assembled) -> Vec<Shape> {
    let profiles = assembled.plan.scheduler.profiles().iter();
    profiles
        .map(|p| {
            let filters = p.filters.iter().map(|(name, ..)| name.to_string()).collect();
            let scorers = p.scorers.iter().map(|s| (s.name.to_string(), s.weight)).collect();
            (p.name.to_string(), filters, scorers)
        })
        .collect()
}

fn scorers(list: &[(&str, f64)]) -> Vec<(String, f64)> {
    list.iter().map(|(name, weight)| ((*name).to_owned(), *weight)).collect()
}

fn bound(assembled: &Assembled) -> Vec<(&str, usize)> {
    assembled.data.sources.iter().map(|s| (&*s.name, s.extractors.len())).collect()
}

#[test]
fn without_a_document_the_built_in_one_holds() {
    for source in [crate::config::ConfigSource::BuiltIn, crate::config::ConfigSource::Text(" \n".into())] {
        let loaded = Loaded::read(&source).unwrap();
        let assembled = with(&loaded.text, |_| {}).unwrap();
        assert!(assembled.notices.is_empty(), "{:?}", assembled.notices);
        let wanted = scorers(&[
            ("queue-scorer", 2.0),
            ("kv-cache-utilization-scorer", 2.0),
            ("prefix-cache-scorer", 3.0),
        ]);
        assert_eq!(shape(&assembled), [("default".to_owned(), vec![], wanted)]);
        assert_eq!(bound(&assembled), [("metrics-data-source", 1)]);
        use ParserKind::{Anthropic, OpenAi, Passthrough, VllmHttp};
        assert_eq!(assembled.parsers, [OpenAi, Anthropic, VllmHttp, Passthrough]);
        let producers: Vec<_> = assembled.plan.producers.iter().map(|(name, _)| &**name).collect();
        assert_eq!(producers, ["token-producer", "chain-producer"], "needs are met transitively, in order");
        assert_eq!((assembled.plan.generation, assembled.plan.digest.len()), (1, 16));
        assert_eq!(assembled.data.discovery, None);
    }
}

#[test]
fn a_profile_is_made_of_what_is_there_in_order() {
    let (assembled, notices) = good(
        "plugins: [{type: test-plugin}, {type: test-filter}, {type: test-scorer}, {type: queue-scorer}]",
    );
    let wanted = scorers(&[("test-scorer", 1.0), ("queue-scorer", 1.0)]);
    assert_eq!(shape(&assembled), [("default".to_owned(), vec!["test-filter".to_owned()], wanted)]);
    assert_eq!(notices.len(), 1, "the plugin without a role is said to have no effect: {notices:?}");
}

#[test]
fn a_listed_picker_is_used_wherever_it_stands_and_filters_keep_their_order() {
    let (assembled, notices) = good(
        "plugins: [{name: b, type: test-filter}, {name: a, type: test-filter}, {type: test-picker}, {type: test-scorer}]
schedulingProfiles:
- name: p
  plugins: [{pluginRef: test-picker}, {pluginRef: a}, {pluginRef: b}, {pluginRef: test-scorer, weight: -0.5}]",
    );
    let filters = vec!["a".to_owned(), "b".to_owned()];
    assert_eq!(shape(&assembled), [("p".to_owned(), filters, scorers(&[("test-scorer", -0.5)]))]);
    assert_eq!(notices, [] as [&str; 0]);
}

#[test]
fn the_metrics_source_is_added_unless_it_is_there_or_unwanted() {
    let plugins = "plugins: [{type: test-source}, {name: mine, type: metrics-data-source}]\n";
    for (body, wanted) in [
        (String::new(), vec![("metrics-data-source", 1)]),
        ("dataLayer: {}".into(), vec![("metrics-data-source", 1)]),
        ("dataLayer: {injectDefaults: false}".into(), vec![]),
        (
            format!("{plugins}dataLayer: {{sources: [{{pluginRef: test-source}}]}}"),
            vec![("test-source", 0), ("metrics-data-source", 1)],
        ),
        (format!("{plugins}dataLayer: {{sources: [{{pluginRef: mine}}]}}"), vec![("mine", 0)]),
    ] {
        assert_eq!(bound(&good(&body).0), wanted, "{body}");
    }
}

#[test]
fn parsers_may_be_named_by_type_or_instance() {
    let parsers = |body: &str| good(body).0.parsers;
    use ParserKind::{Anthropic, OpenAi, Passthrough, SglangHttp};
    assert_eq!(parsers("requestHandler: {parsers: [{pluginRef: openai-parser}]}"), [OpenAi]);
    let two = "requestHandler: {parsers: [{pluginRef: sglanghttp-parser}, {pluginRef: anthropic-parser}]}";
    assert_eq!(parsers(two), [SglangHttp, Anthropic]);
    let named = "plugins: [{name: o, type: openai-parser}, {name: f, type: passthrough-parser}]
requestHandler: {parsers: [{pluginRef: o}, {pluginRef: f}]}";
    assert_eq!(parsers(named), [OpenAi, Passthrough]);
    assert_eq!(parsers("parser: {pluginRef: openai-parser}"), [OpenAi]);
    let (assembled, notices) =
        good("requestHandler: {parsers: [{pluginRef: passthrough-parser}, {pluginRef: openai-parser}]}");
    assert_eq!(assembled.parsers, [Passthrough]);
    assert!(notices[0].contains("takes every path"), "{notices:?}");
}

#[test]
fn discovery_comes_from_the_document_or_the_flag() {
    let body = "plugins: [{type: file-discovery}]\ndataLayer: {discovery: {pluginRef: file-discovery}}";
    let configured =
        DiscoverySpec::File { path: "/configured".into(), watch: false, policies: Default::default() };
    assert_eq!(good(body).0.data.discovery, Some(configured));
    let by_flag = with(HEAD, |inputs| inputs.endpoints_file = Some("/flag".into())).unwrap();
    assert_eq!(
        by_flag.data.discovery,
        Some(DiscoverySpec::File { path: "/flag".into(), watch: true, policies: Default::default() })
    );
    let both =
        with(&format!("{HEAD}{body}"), |inputs| inputs.endpoints_file = Some("/flag".into())).unwrap_err();
    assert!(both.to_string().contains("--endpoints-file at once"), "{both}");
}

fn tells(body: &str, told: &str) {
    let problems = bad(body);
    assert!(problems.iter().any(|p| p.contains(told)), "{body}\nwanted: {told}\ngot: {problems:#?}");
    assert_eq!(problems.len(), 1, "one mistake, one complaint: {body}\n{problems:#?}");
}

#[test]
fn every_mistake_in_plugins_and_profiles_has_its_text_and_its_line() {
    let profile = "schedulingProfiles:\n- name: default\n  plugins:\n";
    for (body, told) in [
        (
            "plugins: [{type: test-scoer}]",
            "line 3, column 11: plugins[0]: plugin type 'test-scoer' is not registered; did you mean `test-scorer`?",
        ),
        (
            "plugins:\n- {name: a, type: test-plugin}\n- {name: a, type: test-scorer}",
            "line 5, column 3: plugins[1]: duplicate plugin name 'a'",
        ),
        (
            "plugins:\n- type: test-scorer\n  parameters:\n    blocksize: 1",
            "line 6, column 5: plugins[0].parameters.blocksize: plugin 'test-scorer' (type: 'test-scorer'): unknown field `blocksize`, expected `blockSize`; did you mean `blockSize`?",
        ),
        (
            "plugins:\n- type: test-scorer\n  parameters:\n    blockSize: asdf",
            "line 6, column 5: plugins[0].parameters.blockSize: plugin 'test-scorer' (type: 'test-scorer'): invalid type",
        ),
        (
            &format!("plugins: [{{type: test-scorer}}]\n{profile}  - pluginRef: test-scorr"),
            "line 7, column 16: schedulingProfiles[0].plugins[0].pluginRef: schedulingProfiles[default] references undefined plugin 'test-scorr'; did you mean `test-scorer`?",
        ),
        (
            "plugins: [{type: many-profile-handler}]\nschedulingProfiles: [{name: a, plugins: []}, {name: a, plugins: []}]",
            "line 4, column 46: schedulingProfiles[1]: duplicate profile 'a'",
        ),
        ("schedulingProfiles: [{name: a}, {name: b}]", "plugins: no profile handler configured"),
        (
            "plugins: [{type: single-profile-handler}, {name: x, type: many-profile-handler}]",
            "plugins[1]: multiple profile handlers found ('single-profile-handler', 'x'); only one is allowed",
        ),
        (
            &format!(
                "plugins: [{{type: test-picker}}, {{type: max-score-picker}}]\n{profile}  - pluginRef: test-picker\n  - pluginRef: max-score-picker"
            ),
            "line 8, column 16: schedulingProfiles[0].plugins[1].pluginRef: failed to set 'max-score-picker' as picker, already have 'test-picker' as a registered picker",
        ),
        (
            "requestHandler: {parsers: [{pluginRef: wrongParser}]}",
            "plugin type 'wrongParser' not found in registry",
        ),
        ("requestHandler: {parsers: [{pluginRef: openai-parsr}]}", "did you mean `openai-parser`?"),
        (
            "plugins: [{type: test-scorer}]\nrequestHandler: {parsers: [{pluginRef: test-scorer}]}",
            "'test-scorer' is not a parser plugin",
        ),
    ] {
        tells(body, told);
    }
}

#[test]
fn every_mistake_in_references_has_its_text() {
    for (body, told) in [
        ("dataLayer: {sources: [{pluginRef: test-one}]}", "the plugin test-one is not registered"),
        (
            "plugins: [{type: test-scorer}]\ndataLayer: {sources: [{pluginRef: test-scorer}]}",
            "plugin 'test-scorer' (type: 'test-scorer') is no data source",
        ),
        (
            "plugins: [{type: test-source}]\ndataLayer: {sources: [{pluginRef: test-source, extractors: [{pluginRef: test-source}]}]}",
            "is no extractor",
        ),
        ("dataLayer: {discovery: {pluginRef: nope}}", "the plugin nope is not registered"),
        (
            "flowControl: {saturationDetector: {pluginRef: nope}}",
            "saturation detector 'nope' is not defined under plugins",
        ),
        (
            "plugins: [{type: test-scorer}]\nsaturationDetector: {pluginRef: test-scorer}",
            "plugin 'test-scorer' (type: 'test-scorer') is no saturation detector",
        ),
        (
            "plugins: [{type: prefix-cache-scorer, parameters: {reads: chain-produce}}]",
            "needs Match from 'chain-produce': no plugin is called 'chain-produce'",
        ),
        (
            "plugins: [{type: prefix-cache-scorer, parameters: {reads: token-producer}}, {type: token-producer}]",
            "plugin 'token-producer' does not produce it",
        ),
        (
            "plugins: [{name: a, type: chain-producer, parameters: {reads: b}}, {name: b, type: chain-producer, parameters: {reads: a}}]",
            "cycle detected: the producers a, b wait",
        ),
    ] {
        tells(body, told);
    }
}

#[test]
fn everything_that_is_wrong_is_told_at_once_in_order() {
    let problems = bad("plugins:
- {}
- {type: test-scorer, parameters: {blockSize: x}}
- {type: nothing-like-it}
schedulingProfiles:
- name: default
  plugins: [{pluginRef: nothing-like-it}, {pluginRef: ghost}, {pluginRef: test-scorer}]
dataLayer: {sources: [{pluginRef: ghost}]}
extra: 1
");
    let wanted = [
        "missing a type",
        "invalid type",
        "'nothing-like-it' is not registered",
        "undefined plugin 'ghost'",
        "the plugin ghost is not registered",
        "unknown field",
    ];
    assert_eq!(problems.len(), wanted.len(), "{problems:#?}");
    for (problem, part) in problems.iter().zip(wanted) {
        assert!(problem.contains(part), "wanted {part}: {problem}");
    }
    let shown = with("{", |_| {}).unwrap_err().to_string();
    assert!(shown.starts_with("the configuration (test.yaml) has 1 problem:\n  line "), "{shown}");
}

#[test]
fn what_is_accepted_with_a_word_gets_it_once() {
    let profile = "schedulingProfiles: [{name: d, plugins: [{pluginRef: x";
    for (body, told) in [
        (format!("plugins: [{{name: x, type: alpha-scorer}}]\n{profile}}}]}}]"), "Alpha stability level"),
        (format!("plugins: [{{name: x, type: old-scorer}}]\n{profile}}}]}}]"), "use 'test-scorer'"),
        (
            format!("plugins: [{{name: x, type: token-producer}}]\n{profile}}}]}}]"),
            "neither filter, scorer nor picker",
        ),
        (
            format!("plugins: [{{name: x, type: test-filter}}]\n{profile}, weight: 2}}]}}]"),
            "only scorers are weighted",
        ),
        (
            format!("plugins: [{{name: x, type: test-picker}}]\n{profile}, weight: 2}}]}}]"),
            "only scorers are weighted",
        ),
        ("plugins: [{type: test-source}]".into(), "plugin 'test-source' has no effect: nothing refers to it"),
        ("featureGates: [flowControl]".into(), "requests are not queued"),
    ] {
        let (_, notices) = good(&body);
        assert!(notices.len() == 1 && notices[0].contains(told), "{body}: {notices:#?}");
    }
    let body = format!("{HEAD}plugins: [{{name: x, type: alpha-scorer}}]");
    assert!(with(&body, |inputs| inputs.allow_experimental = true).unwrap().notices.is_empty());
}

#[test]
fn producers_run_after_what_they_read_wherever_they_stand() {
    let (assembled, _) = good(
        "plugins:
- {name: c, type: chain-producer, parameters: {reads: b}}
- {name: b, type: chain-producer, parameters: {reads: a}}
- {name: a, type: chain-producer}",
    );
    let names: Vec<_> = assembled.plan.producers.iter().map(|(name, _)| &**name).collect();
    assert_eq!(names, ["a", "b", "c"]);
}
