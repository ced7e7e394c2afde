//! How the proxy sends bodies, as far as it changes what the picker does.

use crate::proto::ext_proc::{BodySendMode, ProcessingMode, ProtocolConfiguration};

/// How bodies of one direction come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum BodyMode {
    /// Not at all.
    None,
    /// Piece by piece; each piece waits for its reply.
    Streamed,
    /// As one message.
    Buffered,
    /// As one message, cut at the proxy's buffer; of a cut body nothing else follows.
    BufferedPartial,
    /// Piece by piece, replies independent of what comes.
    FullDuplex,
}

impl BodyMode {
    fn from_wire(mode: i32) -> Self {
        match BodySendMode::try_from(mode) {
            Ok(BodySendMode::None) => Self::None,
            Ok(BodySendMode::Streamed) => Self::Streamed,
            Ok(BodySendMode::Buffered) => Self::Buffered,
            Ok(BodySendMode::BufferedPartial) => Self::BufferedPartial,
            Ok(BodySendMode::FullDuplexStreamed | BodySendMode::Grpc) | Err(_) => Self::FullDuplex,
        }
    }
    /// Whether request bodies are hidden until the decision.
    pub fn is_blind(self) -> bool {
        matches!(self, Self::None | Self::Streamed)
    }
    /// The word for metrics and logs: the proxy's own.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::None => "NONE",
            Self::Streamed => "STREAMED",
            Self::Buffered => "BUFFERED",
            Self::BufferedPartial => "BUFFERED_PARTIAL",
            Self::FullDuplex => "FULL_DUPLEX_STREAMED",
        }
    }
}

/// The body modes of one stream. Without word from the proxy both are full duplex, as the picker protocol demands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Modes {
    /// Request bodies.
    pub request: BodyMode,
    /// Response bodies.
    pub response: BodyMode,
}

impl Default for Modes {
    fn default() -> Self {
        Self { request: BodyMode::FullDuplex, response: BodyMode::FullDuplex }
    }
}

impl From<ProtocolConfiguration> for Modes {
    fn from(wire: ProtocolConfiguration) -> Self {
        Self {
            request: BodyMode::from_wire(wire.request_body_mode),
            response: BodyMode::from_wire(wire.response_body_mode),
        }
    }
}

/// An override without a word on trailers hides them, and they may be what ends a body.
const TRAILERS_SENT: i32 = 1;

/// Asks for response bodies in another mode than configured, everything else as it is.
///
/// A proxy that does not allow overrides ignores it, so what follows must fit both modes.
pub fn response_override(now: Modes, response: BodySendMode) -> ProcessingMode {
    let request = match now.request {
        BodyMode::None => BodySendMode::None,
        BodyMode::Streamed => BodySendMode::Streamed,
        BodyMode::Buffered => BodySendMode::Buffered,
        BodyMode::BufferedPartial => BodySendMode::BufferedPartial,
        BodyMode::FullDuplex => BodySendMode::FullDuplexStreamed,
    };
    ProcessingMode {
        request_body_mode: request.into(),
        response_body_mode: response.into(),
        request_trailer_mode: TRAILERS_SENT,
        response_trailer_mode: TRAILERS_SENT,
        ..ProcessingMode::default()
    }
}

const TRAILERS_SKIPPED: i32 = 2;

impl Modes {
    /// Whether the proxy heeds an override that hides response bodies: not in full duplex, whichever direction has it.
    pub fn can_hide_responses(self) -> bool {
        let shown = !matches!(self.response, BodyMode::None | BodyMode::FullDuplex);
        shown && self.request != BodyMode::FullDuplex
    }
}

/// Asks to see nothing more of the response: no body and no trailers. The request stays as it is.
pub fn hiding_override(now: Modes) -> ProcessingMode {
    ProcessingMode { response_trailer_mode: TRAILERS_SKIPPED, ..response_override(now, BodySendMode::None) }
}

/// Asks to see no bodies at all, for what is a tunnel and no request.
pub fn tunnel_override() -> ProcessingMode {
    ProcessingMode {
        request_body_mode: BodySendMode::None.into(),
        response_body_mode: BodySendMode::None.into(),
        ..ProcessingMode::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_come_from_the_wire_and_unknown_ones_are_full_duplex() {
        let wire = |request, response| {
            Modes::from(ProtocolConfiguration { request_body_mode: request, response_body_mode: response })
        };
        assert_eq!(wire(0, 1), Modes { request: BodyMode::None, response: BodyMode::Streamed });
        assert_eq!(wire(2, 3), Modes { request: BodyMode::Buffered, response: BodyMode::BufferedPartial });
        assert_eq!(wire(4, 77), Modes::default());
        assert!(BodyMode::Streamed.is_blind() && !BodyMode::BufferedPartial.is_blind());
    }
}
