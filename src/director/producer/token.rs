//! `token-producer`: how many tokens a prompt has, by estimate.
//!
//! The estimate (exact for token ids, four bytes a token for text) is made while the body is parsed, so this producer
//! only accepts the configuration. What is not text counts the reference's usual size, whatever it is: a picture 225 tokens,
//! a film 4,500, a sound 500. `estimate.image`, `estimate.video`, `vllm` and `udsTokenizerConfig` are accepted with a
//! warning: other sizes, and a tokenizer behind a URL or a socket, are not part of this release.
//!
//! ```yaml
//! - type: token-producer
//!   parameters: {estimate: {}}
//! ```

use crate::plugin::{BuildContext, BuildError, DataProducer, PluginType, ProduceError, Roles, Stability};
use crate::pool::Candidates;
use crate::request::InferenceRequest;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

pub(super) const TYPE: PluginType = PluginType { name: "token-producer", stability: Stability::Beta, build };

#[derive(Deserialize, Serialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Parameters {
    #[serde(default)]
    estimate: Estimate,
    vllm: Option<Value>,
    uds_tokenizer_config: Option<Value>,
    #[serde(rename = "modelName")]
    _model_name: Option<String>,
}

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
struct Estimate {
    image: Option<Value>,
    video: Option<Value>,
}

struct TokenProducer;

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let parameters: Parameters = ctx.settings()?;
    let backends = [("vllm", parameters.vllm), ("udsTokenizerConfig", parameters.uds_tokenizer_config)];
    for (key, _) in backends.iter().filter(|(_, value)| value.is_some()) {
        ctx.notice(format!("`{key}` has no effect: this release estimates tokens and asks no tokenizer"));
    }
    let media = [("image", parameters.estimate.image), ("video", parameters.estimate.video)];
    for (key, _) in media.iter().filter(|(_, value)| value.is_some()) {
        ctx.notice(format!(
            "`estimate.{key}` has no effect: every picture counts 225 tokens, every film 4500"
        ));
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
    fn all_backends_are_accepted() {
        let fixture = Fixture::new();
        for parameters in
            [Value::Null, json!({"estimate": {}}), json!({"estimate": {"image": {"mode": "static"}}})]
        {
            assert!(fixture.build(&TYPE, parameters.clone()).unwrap().producer.is_some(), "{parameters}");
        }
        let tokenizer = json!({"vllm": {"url": "http://x"}, "modelName": "m"});
        assert!(fixture.build(&TYPE, tokenizer).unwrap().producer.is_some(), "taken, with a word");
        assert!(fixture.build(&TYPE, json!({"estimated": {}})).is_err());
    }
}
