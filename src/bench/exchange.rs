//! One HTTP request as a proxy takes it to a picker and back.

use super::connection::Connection;
use super::outgoing::{Outgoing, Sent};
use super::prompt::Body;
use super::wire::{self, Replies, Side};
use super::workload::{RequestMode, ResponseMode, Workload};
use crate::proto::ext_proc::{
    BodySendMode, CommonResponse, Event, HeaderMutation, Mutation, ProcessingRequest, Reply,
};
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use std::time::Instant;
use tokio::sync::mpsc;

const DESTINATION: &[u8] = b"x-gateway-destination-endpoint";
const SESSION_TOKEN: &str = "x-session-token";

/// Why an exchange did not go as it should, in words that tables count by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// The connection or the stream broke.
    #[error("stream broke: {0}")]
    Broke(String),
    /// gRPC said so.
    #[error("gRPC status {0}")]
    Status(String),
    /// The picker answered in place of an engine.
    #[error("refused with {0}")]
    Refused(i32),
    /// The decision names no endpoint.
    #[error("no destination in the reply")]
    NoDestination,
    /// A reply that does not belong there.
    #[error("a reply out of place")]
    OutOfPlace,
    /// The body that came back is not as long as what was sent.
    #[error("a body came back longer or shorter")]
    Length,
    /// A reply cannot be read.
    #[error("{0}")]
    Wire(#[from] wire::WireError),
    /// It took too long.
    #[error("not over within {0} s")]
    TimedOut(u64),
    /// So many were under way already that it was not begun.
    #[error("not begun: {0} under way")]
    NotBegun(usize),
    /// The generator did not keep up.
    #[error("not begun: the generator is behind")]
    GeneratorBehind,
    /// A chunk was not sent, the stream being behind.
    #[error("chunk not sent: the stream is behind")]
    ChunkBehind,
}

/// What is the same in every exchange of a workload.
#[derive(Debug)]
pub struct Plan {
    request: RequestMode,
    response: ResponseMode,
    piece: usize,
    subset: Vec<Bytes>,
    uri: http::Uri,
    /// Messages of the response, in order.
    head: Bytes,
    chunk: Bytes,
    last: Bytes,
    chunks: usize,
    chunk_bytes: usize,
}

impl Plan {
    /// Of `workload`.
    pub fn new(workload: &Workload) -> Self {
        let text: Vec<u8> = b"data: {\"choices\":[{\"delta\":{\"content\":\"word\"}}]}\n\n"
            .iter()
            .copied()
            .cycle()
            .take(workload.chunk_bytes)
            .collect();
        let fill = |out: &mut BytesMut| out.extend_from_slice(&text);
        let pairs = [
            (":status", Bytes::from_static(b"200")),
            ("content-type", Bytes::from_static(b"text/event-stream; charset=utf-8")),
            ("server", Bytes::from_static(b"uvicorn")),
            ("date", Bytes::from_static(b"Sat, 01 Nov 2025 12:00:00 GMT")),
        ];
        let head = Event::ResponseHeaders(wire::headers(&pairs, false));
        let subset = workload.subset.iter().map(|e| Bytes::copy_from_slice(e.as_bytes())).collect();
        Self {
            request: workload.request,
            response: workload.response,
            piece: workload.piece_bytes.max(1),
            subset,
            uri: http::Uri::from_static("http://picker/envoy.service.ext_proc.v3.ExternalProcessor/Process"),
            head: wire::frame(&ProcessingRequest { request: Some(head), ..Default::default() }),
            chunk: wire::body_frame(Side::Response, text.len(), false, fill),
            last: wire::body_frame(Side::Response, 0, true, |_out| {}),
            chunks: workload.chunks,
            chunk_bytes: text.len(),
        }
    }

    /// Whether requests go to a proxy in front of the picker.
    pub fn is_through_proxy(&self) -> bool {
        self.request == RequestMode::Http
    }

    /// One message of the response's body.
    pub fn chunk(&self) -> Bytes {
        self.chunk.clone()
    }

    /// Bytes of the response's body in each of them.
    pub fn chunk_bytes(&self) -> usize {
        self.chunk_bytes
    }

    /// The message that ends the response's body.
    pub fn last_chunk(&self) -> Bytes {
        self.last.clone()
    }

    /// Chunks of each response that is not paced.
    pub fn chunks(&self) -> usize {
        if self.response == ResponseMode::FullDuplex { self.chunks } else { 0 }
    }

    fn opening(&self, id: u64, length: usize, token: Option<&Bytes>) -> Bytes {
        let headers_only = self.request == RequestMode::HeadersOnly;
        let fixed = Bytes::from_static;
        let mut pairs = vec![
            (":authority", fixed(b"inference.example:8081")),
            (":path", fixed(if headers_only { b"/v1/models" } else { b"/v1/chat/completions" })),
            (":method", fixed(if headers_only { b"GET" } else { b"POST" })),
            (":scheme", fixed(b"http")),
            ("user-agent", fixed(b"pointsman-bench/1")),
            ("accept", fixed(b"*/*")),
            ("x-forwarded-for", fixed(b"10.1.2.3")),
            ("x-forwarded-proto", fixed(b"http")),
            ("x-request-id", format!("00000000-0000-4000-8000-{id:012x}").into()),
        ];
        if !headers_only {
            pairs.push(("content-type", fixed(b"application/json")));
            pairs.push(("content-length", length.to_string().into()));
        }
        if let Some(token) = token {
            pairs.push((SESSION_TOKEN, token.clone()));
        }
        let request = match self.request {
            RequestMode::Buffered => BodySendMode::Buffered,
            _ => BodySendMode::FullDuplexStreamed,
        };
        let response = match self.response {
            ResponseMode::None => BodySendMode::None,
            ResponseMode::FullDuplex => BodySendMode::FullDuplexStreamed,
        };
        let headers = wire::headers(&pairs, headers_only);
        wire::frame(&wire::opening(headers, request, response, &self.subset))
    }
}

/// Sends a request to a proxy and waits for the whole answer. The decision came when the answer's headers did.
pub async fn through_proxy(
    connection: &mut Connection,
    id: u64,
    mut body: Body,
) -> Result<Decision, Failure> {
    let (sent, mut whole) = (Sent::new(), BytesMut::with_capacity(body.remaining()));
    body.copy(usize::MAX, &mut whole);
    let (outgoing, more) = Outgoing::new(whole.freeze(), None, 1, sent.clone(), 1);
    drop(more);
    let request = http::Request::post("http://inference.example/v1/chat/completions")
        .header("content-type", "application/json")
        .header("x-request-id", format!("00000000-0000-4000-8000-{id:012x}"))
        .body(outgoing)
        .map_err(|e| Failure::Broke(e.to_string()))?;
    let response = connection.send_request(request).await.map_err(broke)?;
    let came = Instant::now();
    if !response.status().is_success() {
        return Err(Failure::Refused(i32::from(response.status().as_u16())));
    }
    let mut incoming = response.into_body();
    while let Some(frame) = incoming.frame().await {
        frame.map_err(broke)?;
    }
    Ok(Decision { destination: Bytes::new(), sent: sent.at(), came })
}

/// What the picker decided.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// Where the request goes.
    pub destination: Bytes,
    /// When the last byte of the request had been sent.
    pub sent: Instant,
    /// When the decision came.
    pub came: Instant,
}

/// One stream.
#[derive(Debug)]
pub struct Exchange<'a> {
    plan: &'a Plan,
    incoming: Incoming,
    replies: Replies,
    out: Option<mpsc::Sender<Bytes>>,
    status: Option<String>,
}

impl<'a> Exchange<'a> {
    /// Sends the request, waits for the decision and takes the request's body back.
    pub async fn begin(
        plan: &'a Plan,
        connection: &mut Connection,
        id: u64,
        body: Body,
        token: Option<&Bytes>,
        ahead: usize,
    ) -> Result<(Self, Decision), Failure> {
        let (sent, length) = (Sent::new(), body.remaining());
        let opening = plan.opening(id, length, token);
        let (first, mut later) = match plan.request {
            RequestMode::FullDuplex => (Some(body), None),
            RequestMode::Buffered => (None, Some(body)),
            RequestMode::HeadersOnly | RequestMode::Http => (None, None),
        };
        let (outgoing, out) = Outgoing::new(opening, first, plan.piece, sent.clone(), ahead.max(4));
        let request = http::Request::post(plan.uri.clone())
            .header("te", "trailers")
            .header("content-type", "application/grpc")
            .body(outgoing)
            .map_err(|e| Failure::Broke(e.to_string()))?;
        let response = connection.send_request(request).await.map_err(broke)?;
        let status =
            response.headers().get("grpc-status").map(|v| String::from_utf8_lossy(v.as_bytes()).into());
        let incoming = response.into_body();
        let mut this = Self { plan, incoming, replies: Replies::default(), out: Some(out), status };
        let decision = match later.take() {
            None => this.headers_reply().await?,
            Some(body) => {
                let _before_the_body = this.headers_reply().await?;
                this.whole_body(body, &sent).await?;
                this.body_reply().await?
            }
        };
        let came = Instant::now();
        let destination = decision.as_ref().and_then(|c| set_header(c, DESTINATION));
        let destination = destination.ok_or(Failure::NoDestination)?;
        if plan.request == RequestMode::FullDuplex {
            this.body_back(Side::Request, length).await?;
        }
        Ok((this, Decision { destination, sent: sent.at(), came }))
    }

    /// Goes through the response, none of it paced. Says which session token the picker handed out.
    pub async fn finish(mut self) -> Result<Option<Bytes>, Failure> {
        let token = self.response_head().await?;
        let chunks = self.plan.chunks();
        if self.plan.response == ResponseMode::FullDuplex {
            for _ in 0..chunks {
                self.send(self.plan.chunk()).await?;
            }
            self.send(self.plan.last_chunk()).await?;
            self.body_back(Side::Response, chunks * self.plan.chunk_bytes).await?;
        }
        self.end().await.map(|()| token)
    }

    /// Sends the response's headers and takes the reply.
    pub async fn response_head(&mut self) -> Result<Option<Bytes>, Failure> {
        self.send(self.plan.head.clone()).await?;
        match self.next().await? {
            Reply::ResponseHeaders(reply) => {
                Ok(reply.response.as_ref().and_then(|c| set_header(c, SESSION_TOKEN.as_bytes())))
            }
            other => Err(misplaced(&other)),
        }
    }

    /// What messages of the response are sent through.
    pub fn sender(&self) -> Option<mpsc::Sender<Bytes>> {
        self.out.clone()
    }

    /// Bytes of the next piece of the response's body that comes back, and whether it is the last.
    pub async fn next_piece(&mut self) -> Result<(usize, bool), Failure> {
        match self.next().await? {
            Reply::ResponseBody(reply) => Ok(piece(reply.response.as_ref())),
            other => Err(misplaced(&other)),
        }
    }

    /// Ends the sending half and waits for the end of the other.
    pub async fn end(mut self) -> Result<(), Failure> {
        self.out = None;
        match self.next().await {
            Ok(other) => Err(misplaced(&other)),
            Err(Failure::Status(code)) if code == "0" => Ok(()),
            Err(failure) => Err(failure),
        }
    }

    async fn send(&mut self, message: Bytes) -> Result<(), Failure> {
        let Some(out) = &self.out else { return Err(Failure::OutOfPlace) };
        out.send(message).await.map_err(|_gone| Failure::Broke("the picker ended the stream".to_owned()))
    }

    async fn headers_reply(&mut self) -> Result<Option<CommonResponse>, Failure> {
        match self.next().await? {
            Reply::RequestHeaders(reply) => Ok(reply.response),
            other => Err(misplaced(&other)),
        }
    }

    async fn body_reply(&mut self) -> Result<Option<CommonResponse>, Failure> {
        match self.next().await? {
            Reply::RequestBody(reply) => Ok(reply.response),
            other => Err(misplaced(&other)),
        }
    }

    async fn whole_body(&mut self, mut body: Body, sent: &Sent) -> Result<(), Failure> {
        let length = body.remaining();
        let message = wire::body_frame(Side::Request, length, true, |out| body.copy(length, out));
        self.send(message).await?;
        sent.mark();
        Ok(())
    }

    /// Takes a body back until its end; as much must come as was sent.
    async fn body_back(&mut self, side: Side, sent: usize) -> Result<(), Failure> {
        let mut came = 0;
        loop {
            let common = match (side, self.next().await?) {
                (Side::Request, Reply::RequestBody(reply)) | (Side::Response, Reply::ResponseBody(reply)) => {
                    reply.response
                }
                (_, other) => return Err(misplaced(&other)),
            };
            let (bytes, end) = piece(common.as_ref());
            came += bytes;
            if end {
                return if came == sent { Ok(()) } else { Err(Failure::Length) };
            }
        }
    }

    /// The next reply; the end of the stream is a [`Failure::Status`].
    async fn next(&mut self) -> Result<Reply, Failure> {
        loop {
            if let Some(reply) = self.replies.next()? {
                return reply.response.ok_or(Failure::OutOfPlace);
            }
            let Some(frame) = self.incoming.frame().await else {
                return Err(Failure::Status(self.status.take().unwrap_or_else(|| "missing".to_owned())));
            };
            match frame.map_err(broke)?.into_data() {
                Ok(data) => self.replies.push(data),
                Err(frame) => {
                    let trailers = frame.into_trailers().unwrap_or_default();
                    let status = trailers.get("grpc-status").map(|v| String::from_utf8_lossy(v.as_bytes()));
                    self.status = status.map(|s| s.into_owned());
                }
            }
        }
    }
}

fn broke(error: hyper::Error) -> Failure {
    let cause = std::error::Error::source(&error).map(ToString::to_string);
    Failure::Broke(cause.unwrap_or_else(|| error.to_string()))
}

fn misplaced(reply: &Reply) -> Failure {
    match reply {
        Reply::Immediate(answer) => Failure::Refused(answer.status.map_or(0, |s| s.code)),
        _ => Failure::OutOfPlace,
    }
}

fn piece(common: Option<&CommonResponse>) -> (usize, bool) {
    match common.and_then(|c| c.body_mutation.as_ref()).and_then(|m| m.mutation.as_ref()) {
        Some(Mutation::Streamed(piece)) => (piece.body.len(), piece.end_of_stream),
        _ => (0, false),
    }
}

fn set_header(common: &CommonResponse, name: &[u8]) -> Option<Bytes> {
    let HeaderMutation { set_headers, .. } = common.header_mutation.as_ref()?;
    let header = set_headers.iter().filter_map(|h| h.header.as_ref()).find(|h| h.key == name)?;
    let value = if header.raw_value.is_empty() { &header.value } else { &header.raw_value };
    Some(value.clone())
}
