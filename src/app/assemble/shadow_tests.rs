//! Profiles that are only watched, with the plugin types of this release.

use super::shipped::build;
use super::*;
use crate::config::ConfigErrors;

fn loaded(plugins: &str, profiles: &str) -> Loaded {
    let text = format!(
        "apiVersion: llm-d.ai/v1alpha1\nkind: EndpointPickerConfig\nplugins:\n{plugins}schedulingProfiles:\n{profiles}"
    );
    Loaded { origin: "test.yaml".to_owned(), text }
}

fn assembled(plugins: &str, profiles: &str) -> Result<Assembled, ConfigErrors> {
    build(&loaded(plugins, profiles))
}

fn names<T: ?Sized>(list: &[(std::sync::Arc<str>, std::sync::Arc<T>)]) -> Vec<&str> {
    list.iter().map(|(name, _)| &**name).collect()
}

const LOAD: &str = "- name: load\n  plugins: [{pluginRef: active-request-scorer}]\n";
const WATCHED: &str = "- name: watched\n  shadow: true\n  plugins:\n";

#[test]
fn a_shadow_is_no_profile_that_a_handler_can_run() {
    let plugins = "- type: active-request-scorer\n- type: queue-scorer\n";
    let plan = assembled(plugins, &format!("{WATCHED}  - pluginRef: queue-scorer\n{LOAD}")).unwrap().plan;
    let running: Vec<_> = plan.scheduler.profiles().iter().map(|p| &*p.name).collect();
    assert_eq!(running, ["load"], "one profile chooses, so the usual handler is added");
    let watched: Vec<_> = plan.shadow.as_ref().unwrap().profiles().map(|p| &*p.name).collect();
    assert_eq!(watched, ["watched"]);
    let none = assembled(plugins, &format!("{LOAD}- name: b\n  shadow: false\n  plugins: []\n")).unwrap_err();
    assert!(none.to_string().contains("no profile handler configured"), "{none}");
}

#[test]
fn what_only_a_shadow_uses_stays_away_from_requests() {
    let plugins =
        "- type: active-request-scorer\n- type: prefix-cache-scorer\n- type: session-affinity-scorer\n";
    let shadow =
        format!("{WATCHED}  - pluginRef: prefix-cache-scorer\n  - pluginRef: session-affinity-scorer\n");
    let with = assembled(plugins, &format!("{LOAD}{shadow}")).unwrap();
    let without = assembled("- type: active-request-scorer\n", LOAD).unwrap();
    // The cost model reads prefix matches where there are any: a shadow does not bring them about.
    assert_eq!(names(&with.plan.producers), names(&without.plan.producers));
    assert_eq!(names(&with.plan.pre_request), names(&without.plan.pre_request));
    assert_eq!(names(&with.plan.response), names(&without.plan.response));
    assert_eq!(with.plan.response_readers, without.plan.response_readers);
    let shadow = format!("{:?}", with.plan.shadow);
    assert!(shadow.contains("approx-prefix-cache-producer"), "its producer runs behind the reply: {shadow}");
    let notices: Vec<_> = with.notices.iter().map(ToString::to_string).collect();
    assert!(
        matches!(&notices[..], [told] if told.contains("'session-affinity-scorer' is used by shadow profiles only")),
        "{notices:?}"
    );
}

#[test]
fn what_a_real_profile_uses_as_well_stays_where_it_was() {
    let plugins = "- type: prefix-cache-scorer\n- type: session-affinity-scorer\n";
    let refs = "  - pluginRef: prefix-cache-scorer\n  - pluginRef: session-affinity-scorer\n";
    let real = format!("- name: real\n  plugins:\n{refs}");
    let with = assembled(plugins, &format!("{real}{WATCHED}{refs}")).unwrap();
    let without = assembled(plugins, &real).unwrap();
    assert_eq!(names(&with.plan.producers), names(&without.plan.producers));
    assert_eq!(names(&with.plan.response), names(&without.plan.response));
    assert!(with.notices.is_empty() && without.notices.is_empty(), "{:?}", with.notices);
    assert!(names(&with.plan.producers).contains(&"approx-prefix-cache-producer"));
}

#[test]
fn mistakes_with_shadows_are_told() {
    let scorer = "- type: queue-scorer\n";
    let header = format!("{scorer}- type: header-profile-handler\n  parameters: {{defaultProfile: b}}\n");
    let later =
        format!("{scorer}- type: disagg-profile-handler\n  parameters: {{profiles: {{decode: b}}}}\n");
    let profile = |name: &str, shadow: &str| {
        format!("- name: {name}\n  shadow: {shadow}\n  plugins: [{{pluginRef: queue-scorer}}]\n")
    };
    let three = [profile("a", "false"), profile("b", "true"), profile("c", "false")].concat();
    for (plugins, profiles, told) in [
        (
            scorer,
            [profile("a", "true"), profile("b", "true")].concat(),
            "every scheduling profile is marked `shadow: true`",
        ),
        (
            scorer,
            profile("a", "perhaps"),
            "line 7, column 11: schedulingProfiles[0].shadow: must be true or false",
        ),
        (scorer, [profile("a", "false"), profile("a", "true")].concat(), "duplicate profile 'a'"),
        (
            &header,
            three.clone(),
            "profile handler 'header-profile-handler' asks for the profile 'b', which is marked `shadow: true`",
        ),
        (&later, three, "profile handler 'disagg-profile-handler' asks for the profile 'b'"),
        (
            scorer,
            format!("{LOAD}{WATCHED}  - pluginRef: queue-scorr\n"),
            "references undefined plugin 'queue-scorr'",
        ),
    ] {
        let errors = assembled(plugins, &profiles).map(|_| ()).expect_err(told).to_string();
        assert!(errors.contains(told), "wanted: {told}\ngot: {errors}");
    }
}

#[test]
fn a_picker_on_trial_is_no_other_profiles_picker() {
    let shadow =
        |picker: &str| format!("{WATCHED}  - pluginRef: active-request-scorer\n  - pluginRef: {picker}\n");
    let picker = |plugins: &str, profiles: &str| {
        let loaded = loaded(plugins, profiles);
        shipped::with_inputs(|inputs| examine(&loaded, inputs)).outline.profiles[0].picker.clone()
    };
    let scorer = "- type: active-request-scorer\n";
    let without = picker(scorer, LOAD);
    assert_eq!(without.as_deref(), Some("max-score-picker"));
    let with = format!("{scorer}- type: random-picker\n");
    assert_eq!(picker(&with, &format!("{LOAD}{}", shadow("random-picker"))), without);
    // The usual picker is the usual one, also where a shadow names it.
    let with = format!("{scorer}- type: max-score-picker\n");
    assert_eq!(picker(&with, &format!("{LOAD}{}", shadow("max-score-picker"))), without);
    // One that nobody names, or that another profile has, stays everybody's.
    let with = format!("{scorer}- type: random-picker\n");
    assert_ne!(picker(&with, LOAD), without);
}
