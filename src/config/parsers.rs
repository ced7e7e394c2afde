//! The request parsers as plugin types. They take no parameters; whatever is written there is ignored, as the
//! reference does. The longest path that fits the end of a request's path counts, whole segments only.
//!
//! | type | reads |
//! |---|---|
//! | `openai-parser` | `chat/completions`, `completions` (both with `/render` too), `embeddings`, `responses`, `conversations`, `images/generations` |
//! | `anthropic-parser` | `messages`, `messages/count_tokens` |
//! | `vllmhttp-parser` | `inference/v1/generate` |
//! | `sglanghttp-parser` | `generate` |
//! | `vllmgrpc-parser` | `vllm.grpc.engine.VllmEngine/Generate` and `/Embed` |
//! | `passthrough-parser` | any other path, unread; ends the list |
//!
//! All are Beta. Without any the first three and `passthrough-parser` hold.
//!
//! ```yaml
//! requestHandler:
//!   parsers:
//!   - pluginRef: openai-parser
//!   - pluginRef: vllmgrpc-parser
//! ```

use crate::plugin::{BuildContext, BuildError, PluginType, Roles, Stability};
use crate::request::ParserKind;

/// The parsers' plugin types.
pub const TABLE: &[PluginType] = &[
    row("openai-parser", |_| parser(ParserKind::OpenAi)),
    row("anthropic-parser", |_| parser(ParserKind::Anthropic)),
    row("vllmhttp-parser", |_| parser(ParserKind::VllmHttp)),
    row("sglanghttp-parser", |_| parser(ParserKind::SglangHttp)),
    row("vllmgrpc-parser", |_| parser(ParserKind::VllmGrpc)),
    row("passthrough-parser", |_| parser(ParserKind::Passthrough)),
];

/// Parsers of a configuration that names none, in order of precedence.
pub const DEFAULTS: [&str; 4] =
    ["openai-parser", "anthropic-parser", "vllmhttp-parser", "passthrough-parser"];

const fn row(
    name: &'static str,
    build: fn(&mut BuildContext<'_>) -> Result<Roles, BuildError>,
) -> PluginType {
    PluginType { name, stability: Stability::Beta, build }
}

fn parser(kind: ParserKind) -> Result<Roles, BuildError> {
    Ok(Roles { parser: Some(kind), ..Roles::default() })
}
