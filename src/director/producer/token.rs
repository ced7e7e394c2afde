//! `token-producer`: how many tokens a prompt has, by estimate.
//!
//! The estimate (exact for token ids, four bytes a token for text) is made while the body is parsed, so this producer
//! only accepts the configuration. Pictures and videos are not counted yet: `estimate.image` and `estimate.video` are
//! accepted with a warning. A tokenizer behind a URL is not part of this release and refused, because scheduling would
//! quietly rest on other numbers than the configuration says. `tokenizer` is the older name.
//!
//! ```yaml
//! - type: token-producer
//!   parameters: {estimate: {}}
//! ```

use crate::plugin::{BuildContext, BuildError, DataProducer, PluginType, ProduceError, Roles, Stability};
use crate::pool::Candidates;
use crate::request::InferenceRequest;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "token-producer", stability: Stability::Beta, build };
pub(super) const OLDER: PluginType =
    PluginType { name: "tokenizer", stability: Stability::Deprecated("token-producer"), build };

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    estimate: Estimate,
    vllm: Option<Value>,
    uds_tokenizer_config: Option<Value>,
    #[serde(rename = "modelName")]
    _model_name: Option<String>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Estimate {
    image: Option<Value>,
    video: Option<Value>,
}

struct TokenProducer;

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: Parameters = ctx.decode()?;
    let backends = [("vllm", parameters.vllm), ("udsTokenizerConfig", parameters.uds_tokenizer_config)];
    if let Some((key, _)) = backends.iter().find(|(_, value)| value.is_some()) {
        return Err(BuildError::Parameters(format!(
            "`{key}`: this release estimates tokens and asks no tokenizer; remove the key, or use `estimate: {{}}`"
        )));
    }
    let media = [("image", parameters.estimate.image), ("video", parameters.estimate.video)];
    for (key, _) in media.iter().filter(|(_, value)| value.is_some()) {
        tracing::warn!(plugin = %ctx.name, "estimate.{key} has no effect: this release counts text only");
    }
    Ok(Roles { producer: Some(Arc::new(TokenProducer)), ..Roles::default() })
}

impl DataProducer for TokenProducer {
    fn produce(&self, _: &InferenceRequest, _: &mut Candidates) -> Result<(), ProduceError> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Fixture;
    use super::*;
    use serde_json::json;

    #[test]
    fn only_the_estimate_is_accepted() {
        let fixture = Fixture::new();
        for parameters in
            [Value::Null, json!({"estimate": {}}), json!({"estimate": {"image": {"mode": "static"}}})]
        {
            assert!(fixture.build(&TYPE, parameters.clone()).unwrap().producer.is_some(), "{parameters}");
        }
        let refused = fixture.build(&OLDER, json!({"vllm": {"url": "http://x"}, "modelName": "m"}));
        assert!(refused.err().unwrap().to_string().contains("`vllm`"));
        assert!(fixture.build(&TYPE, json!({"estimated": {}})).is_err());
    }
}
