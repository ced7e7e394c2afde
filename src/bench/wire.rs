//! gRPC messages on an HTTP/2 stream, framed by hand: what is sent is prepared once and shared, and a body is copied
//! exactly once, into its frame.

use crate::proto::ext_proc::{
    BodySendMode, Event, HeaderMap, HeaderValue, HttpHeaders, ProcessingRequest, ProcessingResponse,
    ProtocolConfiguration,
};
use crate::proto::metadata::{Field, Kind, List, Metadata, Namespace, Struct, Value};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use prost::Message as _;
use prost::encoding::{encode_varint, encoded_len_varint};

/// Bytes before each message: a flag for compression and the length.
const HEAD: usize = 5;
/// Largest reply that is taken.
const MAX_REPLY: usize = 64 * 1024 * 1024;

/// One message with its gRPC head.
pub fn frame(message: &ProcessingRequest) -> Bytes {
    let length = message.encoded_len();
    let mut out = BytesMut::with_capacity(HEAD + length);
    out.put_u8(0);
    out.put_u32(length as u32);
    // A BytesMut grows as needed, so this cannot fail.
    let _grown = message.encode(&mut out);
    out.freeze()
}

/// Whose body a piece belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// The request's.
    Request,
    /// The response's.
    Response,
}

/// A piece of a body with its gRPC head, of the bytes that `fill` appends, which must be `length`.
pub fn body_frame(side: Side, length: usize, end: bool, fill: impl FnOnce(&mut BytesMut)) -> Bytes {
    let tag: u8 = if side == Side::Request { 4 << 3 | 2 } else { 5 << 3 | 2 };
    let body = if length == 0 { 0 } else { 1 + encoded_len_varint(length as u64) + length };
    let inner = body + if end { 2 } else { 0 };
    let message = 1 + encoded_len_varint(inner as u64) + inner;
    let mut out = BytesMut::with_capacity(HEAD + message);
    out.put_u8(0);
    out.put_u32(message as u32);
    out.put_u8(tag);
    encode_varint(inner as u64, &mut out);
    if length > 0 {
        out.put_u8(1 << 3 | 2);
        encode_varint(length as u64, &mut out);
        let before = out.len();
        fill(&mut out);
        debug_assert_eq!(out.len() - before, length, "a piece is as long as it says");
    }
    if end {
        out.put_slice(&[2 << 3, 1]);
    }
    out.freeze()
}

/// Headers with their values as Envoy sends them, as bytes.
pub fn headers(pairs: &[(&'static str, Bytes)], end_of_stream: bool) -> HttpHeaders {
    let header = |(key, value): &(&'static str, Bytes)| HeaderValue {
        key: Bytes::from_static(key.as_bytes()),
        value: Bytes::new(),
        raw_value: value.clone(),
    };
    HttpHeaders { headers: Some(HeaderMap { headers: pairs.iter().map(header).collect() }), end_of_stream }
}

/// The message that opens a stream.
pub fn opening(
    headers: HttpHeaders,
    request: BodySendMode,
    response: BodySendMode,
    subset: &[Bytes],
) -> ProcessingRequest {
    ProcessingRequest {
        metadata_context: subset_hint(subset),
        protocol_config: Some(ProtocolConfiguration {
            request_body_mode: request.into(),
            response_body_mode: response.into(),
        }),
        request: Some(Event::RequestHeaders(headers)),
        ..ProcessingRequest::default()
    }
}

/// The proxy's subset hint; none when the list is empty.
fn subset_hint(endpoints: &[Bytes]) -> Option<Metadata> {
    if endpoints.is_empty() {
        return None;
    }
    let item = |e: &Bytes| Value { kind: Some(Kind::Text(e.clone())) };
    let list = Kind::List(List { values: endpoints.iter().map(item).collect() });
    let key = Bytes::from_static(b"x-gateway-destination-endpoint-subset");
    let fields = vec![Field { key, value: Some(Value { kind: Some(list) }) }];
    let key = Bytes::from_static(b"envoy.lb.subset_hint");
    Some(Metadata { filter_metadata: vec![Namespace { key, value: Some(Struct { fields }) }] })
}

/// Why a reply cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum WireError {
    /// The message is compressed, which was not asked for.
    #[error("a compressed reply")]
    Compressed,
    /// The message is too large.
    #[error("a reply over 64 MiB")]
    TooLarge,
    /// It is no `ProcessingResponse`.
    #[error("a reply that is no ProcessingResponse")]
    Malformed,
}

/// Cuts what arrives into replies. A reply that came whole in one piece is not copied.
#[derive(Debug, Default)]
pub struct Replies {
    held: BytesMut,
    ready: Bytes,
}

impl Replies {
    /// Takes what arrived.
    pub fn push(&mut self, data: Bytes) {
        if self.held.is_empty() && self.ready.is_empty() {
            self.ready = data;
            return;
        }
        self.hold();
        self.held.extend_from_slice(&data);
    }

    fn hold(&mut self) {
        if !self.ready.is_empty() {
            self.held.extend_from_slice(&std::mem::take(&mut self.ready));
        }
    }

    /// The next whole reply.
    pub fn next(&mut self) -> Result<Option<ProcessingResponse>, WireError> {
        if self.held.is_empty() {
            let Some(length) = announced(&self.ready)? else { return Ok(None) };
            if self.ready.len() >= HEAD + length {
                self.ready.advance(HEAD);
                return decode(self.ready.split_to(length)).map(Some);
            }
            self.hold();
            self.held.reserve((HEAD + length).saturating_sub(self.held.len()));
            return Ok(None);
        }
        let Some(length) = announced(&self.held)? else { return Ok(None) };
        if self.held.len() < HEAD + length {
            return Ok(None);
        }
        self.held.advance(HEAD);
        let message = self.held.split_to(length).freeze();
        // What is left is whole messages or the start of one: read on without copying.
        self.ready = std::mem::take(&mut self.held).freeze();
        decode(message).map(Some)
    }
}

fn announced(bytes: &[u8]) -> Result<Option<usize>, WireError> {
    let [flag, a, b, c, d, ..] = *bytes else { return Ok(None) };
    if flag != 0 {
        return Err(WireError::Compressed);
    }
    let length = u32::from_be_bytes([a, b, c, d]) as usize;
    if length > MAX_REPLY { Err(WireError::TooLarge) } else { Ok(Some(length)) }
}

fn decode(message: Bytes) -> Result<ProcessingResponse, WireError> {
    ProcessingResponse::decode(message).map_err(|_error| WireError::Malformed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::ext_proc::{BodyResponse, HttpBody, ImmediateResponse, Reply};
    use proptest::prelude::*;

    fn body(side: Side, text: &'static str, end: bool) -> HttpBody {
        let bytes = body_frame(side, text.len(), end, |out| out.extend_from_slice(text.as_bytes()));
        let length = u32::from_be_bytes([bytes[1], bytes[2], bytes[3], bytes[4]]) as usize;
        assert_eq!(length, bytes.len() - HEAD);
        match (side, ProcessingRequest::decode(bytes.slice(HEAD..)).unwrap().request.unwrap()) {
            (Side::Request, Event::RequestBody(body)) | (Side::Response, Event::ResponseBody(body)) => body,
            (side, other) => panic!("{side:?}: {other:?}"),
        }
    }

    #[test]
    fn bodies_written_by_hand_are_read_by_the_crates_messages() {
        for side in [Side::Request, Side::Response] {
            for (text, end) in [("", true), ("", false), ("abc", false), ("abc", true)] {
                let read = body(side, text, end);
                assert_eq!((&*read.body, read.end_of_stream), (text.as_bytes(), end));
            }
        }
    }

    #[test]
    fn the_opening_carries_modes_headers_and_subset() {
        let subset = [Bytes::from_static(b"10.0.0.1:80")];
        let headers = headers(&[(":path", Bytes::from_static(b"/v1"))], false);
        let mode = BodySendMode::FullDuplexStreamed;
        let bytes = frame(&opening(headers, mode, BodySendMode::None, &subset));
        let read = ProcessingRequest::decode(bytes.slice(HEAD..)).unwrap();
        let config = read.protocol_config.unwrap();
        assert_eq!((config.request_body_mode(), config.response_body_mode()), (mode, BodySendMode::None));
        let metadata = read.metadata_context.unwrap();
        let hint = metadata.namespace("envoy.lb.subset_hint").unwrap();
        assert!(
            matches!(hint.get("x-gateway-destination-endpoint-subset"), Some(Kind::List(list)) if list.values.len() == 1)
        );
        assert_eq!(subset_hint(&[]), None);
    }

    fn replies() -> Vec<ProcessingResponse> {
        let of = |reply| ProcessingResponse { response: Some(reply), ..Default::default() };
        let large = ImmediateResponse { body: vec![7; 3_000].into(), ..Default::default() };
        vec![of(Reply::RequestBody(BodyResponse::default())), of(Reply::Immediate(large)), Default::default()]
    }

    proptest! {
        #[test]
        fn replies_come_whole_however_they_are_cut(cuts in prop::collection::vec(1_usize..900, 1..40)) {
            let mut stream = BytesMut::new();
            for reply in replies() {
                stream.put_u8(0);
                stream.put_u32(reply.encoded_len() as u32);
                reply.encode(&mut stream).unwrap();
            }
            let (mut stream, mut reader, mut read) = (stream.freeze(), Replies::default(), Vec::new());
            let mut cuts = cuts.into_iter().cycle();
            while !stream.is_empty() {
                let n = cuts.next().unwrap().min(stream.len());
                reader.push(stream.split_to(n));
                while let Some(reply) = reader.next().unwrap() {
                    read.push(reply);
                }
            }
            prop_assert_eq!(read, replies());
        }
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        for (bytes, error) in [
            (&[1_u8, 0, 0, 0, 0][..], WireError::Compressed),
            (&[0, 255, 0, 0, 0], WireError::TooLarge),
            (&[0, 0, 0, 0, 1, 255], WireError::Malformed),
        ] {
            let mut replies = Replies::default();
            replies.push(Bytes::copy_from_slice(bytes));
            assert_eq!(replies.next(), Err(error));
        }
    }
}
