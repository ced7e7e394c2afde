//! `envoy.service.ext_proc.v3`: the external processing protocol.

use super::metadata::{Metadata, Namespace, Struct};
use bytes::Bytes;

/// Full name of the gRPC service.
pub const SERVICE: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// Path of its only method.
pub const PROCESS_PATH: &str = "/envoy.service.ext_proc.v3.ExternalProcessor/Process";

/// One message from the proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingRequest {
    /// What the proxy's filters know.
    #[prost(message, optional, tag = "8")]
    pub metadata_context: Option<Metadata>,
    /// Values of the attributes that the proxy is configured to send, by the name of its filter; on the first message of a
    /// direction only.
    #[prost(message, repeated, tag = "9")]
    pub attributes: Vec<Namespace>,
    /// How bodies are sent; on the first message of a stream only.
    #[prost(message, optional, tag = "11")]
    pub protocol_config: Option<ProtocolConfiguration>,
    /// The event.
    #[prost(oneof = "Event", tags = "2, 3, 4, 5, 6, 7")]
    pub request: Option<Event>,
}

/// What the proxy reports.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Event {
    /// Request headers.
    #[prost(message, tag = "2")]
    RequestHeaders(HttpHeaders),
    /// Response headers.
    #[prost(message, tag = "3")]
    ResponseHeaders(HttpHeaders),
    /// A piece of the request body, or all of it.
    #[prost(message, tag = "4")]
    RequestBody(HttpBody),
    /// A piece of the response body, or all of it.
    #[prost(message, tag = "5")]
    ResponseBody(HttpBody),
    /// Request trailers.
    #[prost(message, tag = "6")]
    RequestTrailers(HttpTrailers),
    /// Response trailers.
    #[prost(message, tag = "7")]
    ResponseTrailers(HttpTrailers),
}

/// How the proxy sends bodies.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProtocolConfiguration {
    /// Request bodies.
    #[prost(enumeration = "BodySendMode", tag = "1")]
    pub request_body_mode: i32,
    /// Response bodies.
    #[prost(enumeration = "BodySendMode", tag = "2")]
    pub response_body_mode: i32,
}

/// Body modes of the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum BodySendMode {
    /// No bodies.
    None = 0,
    /// Piece by piece, each piece answered.
    Streamed = 1,
    /// One message.
    Buffered = 2,
    /// One message, cut at the proxy's buffer.
    BufferedPartial = 3,
    /// Piece by piece in both directions, independent of each other.
    FullDuplexStreamed = 4,
    /// One gRPC message at a time.
    Grpc = 5,
}

/// Headers of a request or response.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HttpHeaders {
    /// The headers.
    #[prost(message, optional, tag = "1")]
    pub headers: Option<HeaderMap>,
    /// Whether nothing follows.
    #[prost(bool, tag = "3")]
    pub end_of_stream: bool,
}

/// A list of headers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMap {
    /// In order.
    #[prost(message, repeated, tag = "1")]
    pub headers: Vec<HeaderValue>,
}

/// One header. Only one of the two values is filled.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeaderValue {
    /// Name.
    #[prost(bytes = "bytes", tag = "1")]
    pub key: Bytes,
    /// Value as text.
    #[prost(bytes = "bytes", tag = "2")]
    pub value: Bytes,
    /// Value as bytes.
    #[prost(bytes = "bytes", tag = "3")]
    pub raw_value: Bytes,
}

/// A piece of a body.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HttpBody {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// Whether it is the last.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
    /// Whether the body ended before this piece, which is then empty.
    #[prost(bool, tag = "3")]
    pub end_of_stream_without_message: bool,
}

/// Trailers; what stands in them is of no interest here.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HttpTrailers {}

/// One message to the proxy.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ProcessingResponse {
    /// Metadata for the proxy's filters and load balancer.
    #[prost(message, optional, tag = "8")]
    pub dynamic_metadata: Option<Struct>,
    /// Other modes for the rest of the stream; only on replies to headers.
    #[prost(message, optional, tag = "9")]
    pub mode_override: Option<ProcessingMode>,
    /// The reply.
    #[prost(oneof = "Reply", tags = "1, 2, 3, 4, 5, 6, 7")]
    pub response: Option<Reply>,
}

/// What the proxy is told.
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Reply {
    /// To request headers.
    #[prost(message, tag = "1")]
    RequestHeaders(HeadersResponse),
    /// To response headers.
    #[prost(message, tag = "2")]
    ResponseHeaders(HeadersResponse),
    /// To a piece of the request body.
    #[prost(message, tag = "3")]
    RequestBody(BodyResponse),
    /// To a piece of the response body.
    #[prost(message, tag = "4")]
    ResponseBody(BodyResponse),
    /// To request trailers.
    #[prost(message, tag = "5")]
    RequestTrailers(TrailersResponse),
    /// To response trailers.
    #[prost(message, tag = "6")]
    ResponseTrailers(TrailersResponse),
    /// An answer to the client in place of the engine's.
    #[prost(message, tag = "7")]
    Immediate(ImmediateResponse),
}

/// Body and header modes.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct ProcessingMode {
    /// Request headers: 0 default, 1 sent, 2 skipped.
    #[prost(int32, tag = "1")]
    pub request_header_mode: i32,
    /// Response headers.
    #[prost(int32, tag = "2")]
    pub response_header_mode: i32,
    /// Request bodies.
    #[prost(enumeration = "BodySendMode", tag = "3")]
    pub request_body_mode: i32,
    /// Response bodies.
    #[prost(enumeration = "BodySendMode", tag = "4")]
    pub response_body_mode: i32,
    /// Request trailers: 0 default, 1 sent, 2 skipped.
    #[prost(int32, tag = "5")]
    pub request_trailer_mode: i32,
    /// Response trailers.
    #[prost(int32, tag = "6")]
    pub response_trailer_mode: i32,
}

/// Reply to headers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeadersResponse {
    /// The changes.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// Reply to a piece of a body.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyResponse {
    /// The changes.
    #[prost(message, optional, tag = "1")]
    pub response: Option<CommonResponse>,
}

/// Reply to trailers: nothing is ever changed in them.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct TrailersResponse {}

/// Changes to headers or a body. Its status is always the default, CONTINUE.
#[derive(Clone, PartialEq, prost::Message)]
pub struct CommonResponse {
    /// Changes of headers.
    #[prost(message, optional, tag = "2")]
    pub header_mutation: Option<HeaderMutation>,
    /// The body in place of what came.
    #[prost(message, optional, tag = "3")]
    pub body_mutation: Option<BodyMutation>,
    /// Whether the proxy chooses the route anew.
    #[prost(bool, tag = "5")]
    pub clear_route_cache: bool,
}

/// Changes of headers.
#[derive(Clone, PartialEq, prost::Message)]
pub struct HeaderMutation {
    /// Headers to set.
    #[prost(message, repeated, tag = "1")]
    pub set_headers: Vec<HeaderValueOption>,
    /// Headers to take out.
    #[prost(bytes = "bytes", repeated, tag = "2")]
    pub remove_headers: Vec<Bytes>,
}

/// One header to set.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct HeaderValueOption {
    /// The header.
    #[prost(message, optional, tag = "1")]
    pub header: Option<HeaderValue>,
    /// What happens to one that is there already.
    #[prost(enumeration = "AppendAction", tag = "3")]
    pub append_action: i32,
}

/// What happens to a header that is there already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, prost::Enumeration)]
#[repr(i32)]
pub enum AppendAction {
    /// A second one is added.
    Append = 0,
    /// It stays.
    AddIfAbsent = 1,
    /// It is replaced.
    Overwrite = 2,
    /// It is replaced, and none is added where there was none.
    OverwriteIfExists = 3,
}

/// A body in place of what came.
#[derive(Clone, PartialEq, prost::Message)]
pub struct BodyMutation {
    /// The body.
    #[prost(oneof = "Mutation", tags = "1, 2, 3")]
    pub mutation: Option<Mutation>,
}

/// The forms of [`BodyMutation`].
#[derive(Clone, PartialEq, prost::Oneof)]
pub enum Mutation {
    /// Other bytes for what the message held.
    #[prost(bytes = "bytes", tag = "1")]
    Body(Bytes),
    /// No bytes for what the message held.
    #[prost(bool, tag = "2")]
    Clear(bool),
    /// The next piece in full-duplex mode.
    #[prost(message, tag = "3")]
    Streamed(StreamedBodyResponse),
}

/// The next piece of a body in full-duplex mode.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub struct StreamedBodyResponse {
    /// Its bytes.
    #[prost(bytes = "bytes", tag = "1")]
    pub body: Bytes,
    /// Whether it is the last.
    #[prost(bool, tag = "2")]
    pub end_of_stream: bool,
}

/// An answer to the client in place of the engine's.
#[derive(Clone, PartialEq, prost::Message)]
pub struct ImmediateResponse {
    /// HTTP status.
    #[prost(message, optional, tag = "1")]
    pub status: Option<HttpStatus>,
    /// Its headers.
    #[prost(message, optional, tag = "2")]
    pub headers: Option<HeaderMutation>,
    /// Its body.
    #[prost(bytes = "bytes", tag = "3")]
    pub body: Bytes,
    /// gRPC status, for gRPC requests.
    #[prost(message, optional, tag = "4")]
    pub grpc_status: Option<GrpcStatus>,
    /// What the proxy's access log says.
    #[prost(string, tag = "5")]
    pub details: String,
}

/// `envoy.type.v3.HttpStatus`
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct HttpStatus {
    /// The code.
    #[prost(int32, tag = "1")]
    pub code: i32,
}

/// A gRPC status code.
#[derive(Clone, Copy, PartialEq, Eq, prost::Message)]
pub struct GrpcStatus {
    /// The code.
    #[prost(uint32, tag = "1")]
    pub status: u32,
}

#[cfg(test)]
#[path = "ext_proc_tests.rs"]
mod tests;
