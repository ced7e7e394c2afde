//! Headers that steer the picker or the data plane, and which of them a client may set.

use super::headers::{Headers, names};

/// Every control header, with its older names. Whatever a client sends under one of these never reaches an engine.
pub const CONTROL_HEADERS: [&str; 23] = [
    names::DESTINATION,
    names::SERVED,
    names::SUBSET,
    names::PREFILLER,
    names::ENCODERS,
    names::DATA_PARALLEL,
    names::KV_SOURCE,
    names::DROPPED_REASON,
    names::OBJECTIVE[0],
    names::OBJECTIVE[1],
    names::FAIRNESS[0],
    names::FAIRNESS[1],
    names::MODEL_REWRITE[0],
    names::MODEL_REWRITE[1],
    names::MODEL_REWRITE[2],
    names::PRIORITY,
    names::CACHE_POLICY,
    names::REQUEST_TIMEOUT,
    names::DECISION_HEADERS,
    names::SLO_TTFT[0],
    names::SLO_TTFT[1],
    names::SLO_TPOT[0],
    names::SLO_TPOT[1],
];

/// Control headers whose value counts whoever sends them.
const HARMLESS: [&str; 4] =
    [names::OBJECTIVE[0], names::OBJECTIVE[1], names::CACHE_POLICY, names::REQUEST_TIMEOUT];

/// Control headers whose value is taken from the request. An operator trusts them when something in front of the
/// picker sets or checks them. Destination, subset and the secondary endpoints can never be trusted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TrustedHeaders {
    /// The objective may raise priority above 0; untrusted it can only lower it.
    pub objective: bool,
    /// The fairness id.
    pub fairness: bool,
    /// The target model.
    pub model_rewrite: bool,
    /// Latency objectives.
    pub slo: bool,
    /// The priority itself.
    pub priority: bool,
    /// The wish to be told the decision in headers of the response.
    pub decision_headers: bool,
}

impl TrustedHeaders {
    /// All that can be trusted.
    pub const ALL: Self = Self {
        objective: true,
        fairness: true,
        model_rewrite: true,
        slo: true,
        priority: true,
        decision_headers: true,
    };

    /// Words of the flag: `none`, `all`, `objective`, `fairness`, `model-rewrite`, `slo`, `priority`,
    /// `decision-headers`, or a header's full name.
    pub fn parse(words: &str) -> Result<Self, String> {
        let mut trusted = Self::default();
        for word in words.split(',').map(str::trim).filter(|w| !w.is_empty()) {
            let word = word.to_ascii_lowercase();
            match word.as_str() {
                "none" => {}
                "all" => trusted = Self::ALL,
                w if w == "objective" || names::OBJECTIVE.contains(&w) => trusted.objective = true,
                w if w == "fairness" || names::FAIRNESS.contains(&w) => trusted.fairness = true,
                w if w == "model-rewrite" || names::MODEL_REWRITE.contains(&w) => {
                    trusted.model_rewrite = true
                }
                w if w == "slo" || names::SLO_TTFT.contains(&w) || names::SLO_TPOT.contains(&w) => {
                    trusted.slo = true;
                }
                w if w == "priority" || w == names::PRIORITY => trusted.priority = true,
                w if w == "decision-headers" || w == names::DECISION_HEADERS => {
                    trusted.decision_headers = true;
                }
                w if HARMLESS.contains(&w) => {}
                w if CONTROL_HEADERS.contains(&w) => {
                    return Err(format!(
                        "`{w}` steers where a request goes and can not be trusted from a client"
                    ));
                }
                w => {
                    return Err(format!(
                        "`{w}` is no control header; use none, all, objective, fairness, model-rewrite, slo, \
                         priority or decision-headers"
                    ));
                }
            }
        }
        Ok(trusted)
    }

    /// Takes every control header out of `headers` that is not trusted, the harmless ones excepted: untrusted, the
    /// objective can only lower the priority, and the others concern only the request itself. Returns how many kinds were taken out.
    pub fn strip(self, headers: &mut Headers) -> usize {
        let keep = |name: &str| {
            HARMLESS.contains(&name)
                || (self.priority && name == names::PRIORITY)
                || (self.decision_headers && name == names::DECISION_HEADERS)
                || (self.fairness && names::FAIRNESS.contains(&name))
                || (self.model_rewrite && names::MODEL_REWRITE.contains(&name))
                || (self.slo && (names::SLO_TTFT.contains(&name) || names::SLO_TPOT.contains(&name)))
        };
        // Most requests have none: one look at each header tells.
        if !headers.iter().any(|(name, _)| name.starts_with("x-") && CONTROL_HEADERS.contains(&name)) {
            return 0;
        }
        CONTROL_HEADERS.iter().filter(|name| !keep(name)).filter(|name| headers.remove(name)).count()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    #[test]
    fn the_flag_takes_words_and_names_and_refuses_what_steers() {
        assert_eq!(TrustedHeaders::parse(""), Ok(TrustedHeaders::default()));
        assert_eq!(TrustedHeaders::parse("all"), Ok(TrustedHeaders::ALL));
        assert!(TrustedHeaders::parse("slo, X-Gateway-Inference-Objective").unwrap().objective);
        assert!(TrustedHeaders::parse("priority").unwrap().priority);
        assert!(TrustedHeaders::parse("x-model-override").unwrap().model_rewrite);
        assert_eq!(TrustedHeaders::parse(names::CACHE_POLICY), Ok(TrustedHeaders::default()));
        assert!(TrustedHeaders::parse(names::DESTINATION).unwrap_err().contains("can not be trusted"));
        assert!(TrustedHeaders::parse("x-other").unwrap_err().contains("no control header"));
    }

    #[test]
    fn untrusted_headers_are_taken_out() {
        let mut headers = Headers::default();
        for name in CONTROL_HEADERS {
            headers.push(name, Bytes::from_static(b"v"));
        }
        let mut kept = headers.clone();
        TrustedHeaders::default().strip(&mut headers);
        assert_eq!(headers.iter().map(|(n, _)| n).collect::<Vec<_>>(), HARMLESS);
        TrustedHeaders::ALL.strip(&mut kept);
        assert!(!kept.contains(names::DESTINATION) && kept.contains(names::SLO_TTFT[1]));
    }
}
