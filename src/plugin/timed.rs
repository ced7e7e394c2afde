//! Times the calls of plugins, from outside: a plugin knows nothing of it.

use super::{
    AdmissionView, Admitter, Cycle, DataProducer, Departure, Filter, HeaderEdits, Picker, PreRequest,
    ProduceError, Ranked, ResponseHook, ResponseView, Roles, Scorer, Scores, Shortlist, Targets,
};
use crate::pool::Candidates;
use crate::request::{Ending, InferenceRequest, Usage};
use crate::telemetry::plugins::{PluginTimer, point};
use std::sync::Arc;

/// A plugin's role with the timer of its calls.
struct Timed<T: ?Sized> {
    inner: Arc<T>,
    timer: PluginTimer,
}

/// The same roles, each call timed under the plugin's type and name. Make it after the recorder is installed.
#[must_use]
pub fn timed(mut roles: Roles, plugin_type: &str, name: &str) -> Roles {
    fn wrap<T: ?Sized>(inner: Arc<T>, point: &'static str, of: (&str, &str)) -> Arc<Timed<T>> {
        Arc::new(Timed { inner, timer: PluginTimer::new(point, of.0, of.1) })
    }
    let of = (plugin_type, name);
    roles.filter = roles.filter.map(|inner| wrap(inner, point::FILTER, of) as Arc<dyn Filter>);
    roles.scorer = roles.scorer.map(|inner| wrap(inner, point::SCORER, of) as Arc<dyn Scorer>);
    roles.picker = roles.picker.map(|inner| wrap(inner, point::PICKER, of) as Arc<dyn Picker>);
    roles.admitter = roles.admitter.map(|inner| wrap(inner, point::ADMISSION, of) as Arc<dyn Admitter>);
    roles.producer =
        roles.producer.map(|inner| wrap(inner, point::DATA_PRODUCER, of) as Arc<dyn DataProducer>);
    roles.pre_request =
        roles.pre_request.map(|inner| wrap(inner, point::PRE_REQUEST, of) as Arc<dyn PreRequest>);
    roles.response =
        roles.response.map(|inner| wrap(inner, point::RESPONSE_RECEIVED, of) as Arc<dyn ResponseHook>);
    roles
}

impl Filter for Timed<dyn Filter> {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        self.timer.time(|| self.inner.filter(cycle, shortlist));
    }
}

impl Scorer for Timed<dyn Scorer> {
    fn score(&self, cycle: &Cycle<'_>, shortlist: &Shortlist, scores: &mut Scores<'_>) {
        self.timer.time(|| self.inner.score(cycle, shortlist, scores));
    }
}

impl Picker for Timed<dyn Picker> {
    fn pick(&self, ranked: &Ranked<'_>, rng: &mut fastrand::Rng) -> Targets {
        self.timer.time(|| self.inner.pick(ranked, rng))
    }
}

impl Admitter for Timed<dyn Admitter> {
    fn admits(&self, request: &InferenceRequest, view: &AdmissionView<'_>, draw: f64) -> bool {
        self.timer.time(|| self.inner.admits(request, view, draw))
    }
}

impl DataProducer for Timed<dyn DataProducer> {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        self.timer.time(|| self.inner.produce(request, candidates))
    }
}

impl PreRequest for Timed<dyn PreRequest> {
    fn before_send(&self, departure: &Departure<'_>, edits: &mut HeaderEdits) {
        self.timer.time(|| self.inner.before_send(departure, edits));
    }
}

impl ResponseHook for Timed<dyn ResponseHook> {
    fn on_headers(&self, response: &ResponseView<'_>, edits: &mut HeaderEdits) {
        self.timer.time(|| self.inner.on_headers(response, edits));
    }
    fn on_end(&self, response: &ResponseView<'_>, usage: Usage, ending: Ending) {
        self.inner.on_end(response, usage, ending);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pool::Position;
    use crate::telemetry::MetricsHandle;

    struct First;

    impl Picker for First {
        fn pick(&self, _: &Ranked<'_>, _: &mut fastrand::Rng) -> Targets {
            Targets::one(Position(1))
        }
    }

    #[test]
    fn a_timed_plugin_answers_as_before_and_its_calls_are_counted() {
        let metrics = MetricsHandle::detached(false);
        let plain = Roles { picker: Some(Arc::new(First)), ..Roles::default() };
        let roles = metrics::with_local_recorder(&metrics, || timed(plain, "t", "n"));
        assert!(roles.filter.is_none() && roles.scorer.is_none());
        let ranked = Ranked::new(&[Position(1)], &[0.0]).unwrap();
        let targets = roles.picker.unwrap().pick(&ranked, &mut fastrand::Rng::with_seed(1));
        assert_eq!(targets.first(), Position(1));
        let labels = r#"extension_point="Picker",plugin_type="t",plugin_name="n""#;
        assert!(
            metrics.render().contains(&format!("llm_d_epp_plugin_duration_seconds_count{{{labels}}} 1\n"))
        );
    }
}
