//! The request parsers as plugin types. They take no parameters; whatever is written there is ignored, as the
//! reference does.

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
