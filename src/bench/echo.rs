//! The floor: a server that does what every picker has to do on the wire, and nothing else.
//!
//! It has the process shape of the picker (same runtime, TLS and HTTP/2 limits, one service with the same messages),
//! holds the reply to the headers until the body has ended, names a fixed destination, and sends bodies back as they came. It
//! reads no JSON, hashes nothing, knows no endpoints. Replies are pulled: no task and no channel for a stream.

use super::BenchError;
use crate::ext_proc::server::{Drain, Http2, Routes, serve};
use crate::ext_proc::tls::{Tls, TlsOptions};
use crate::proto::ext_proc::*;
use bytes::Bytes;
use futures::Stream;
use std::collections::VecDeque;
use std::convert::Infallible;
use std::future::{Future, Ready, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

const MAX_MESSAGE: usize = 65 * 1024 * 1024;
const DESTINATION: &[u8] = b"127.0.0.1:1";

/// Serves on `listener` until `shutdown` completes.
///
/// # Errors
/// When TLS cannot be set up or the server fails as a whole.
pub async fn run(
    listener: TcpListener,
    tls: bool,
    shutdown: impl Future<Output = ()>,
) -> Result<(), BenchError> {
    let tls = tls.then(|| Tls::new(&TlsOptions::default())).transpose();
    let tls = tls.map_err(|e| BenchError::Tls(e.to_string()))?;
    serve(listener, tls, Routes::new(Echo), Http2::default(), shutdown, Drain::within(Duration::ZERO))
        .await
        .map(|_drained| ())
        .map_err(|source| BenchError::Serve { what: "echo", source })
}

/// Where [`run`] listens.
///
/// # Errors
/// When the address is taken.
pub async fn listen(address: SocketAddr) -> Result<TcpListener, BenchError> {
    TcpListener::bind(address).await.map_err(|source| BenchError::Listen { address, source })
}

#[derive(Clone, Debug)]
struct Echo;

impl NamedService for Echo {
    const NAME: &'static str = SERVICE;
}

impl StreamingService<ProcessingRequest> for Echo {
    type Response = ProcessingResponse;
    type ResponseStream = EchoReplies<Streaming<ProcessingRequest>>;
    type Future = Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        ready(Ok(Response::new(EchoReplies::new(request.into_inner()))))
    }
}

impl<B> Service<http::Request<B>> for Echo
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<Self::Response, Infallible>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: http::Request<B>) -> Self::Future {
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default()).max_decoding_message_size(MAX_MESSAGE);
            Ok(grpc.streaming(Echo, request).await)
        })
    }
}

/// The replies of one stream.
struct EchoReplies<S> {
    inbound: S,
    duplex: bool,
    held: Vec<HttpBody>,
    ready: VecDeque<Reply>,
}

impl<S> EchoReplies<S> {
    fn new(inbound: S) -> Self {
        Self { inbound, duplex: false, held: Vec::new(), ready: VecDeque::new() }
    }

    fn on(&mut self, message: ProcessingRequest) {
        if let Some(config) = message.protocol_config {
            self.duplex = config.request_body_mode() == BodySendMode::FullDuplexStreamed;
        }
        match message.request {
            Some(Event::RequestHeaders(headers)) => {
                let response = if headers.end_of_stream {
                    Some(destination())
                } else if self.duplex {
                    return;
                } else {
                    None
                };
                self.ready.push_back(Reply::RequestHeaders(HeadersResponse { response }));
            }
            Some(Event::RequestBody(body)) if self.duplex => self.hold(body),
            Some(Event::RequestBody(_)) => {
                let response = Some(destination());
                self.ready.push_back(Reply::RequestBody(BodyResponse { response }));
            }
            Some(Event::ResponseHeaders(_)) => {
                self.ready.push_back(Reply::ResponseHeaders(HeadersResponse::default()));
            }
            Some(Event::ResponseBody(body)) => self.ready.push_back(Reply::ResponseBody(back(body))),
            Some(Event::RequestTrailers(_)) => {
                self.ready.push_back(Reply::RequestTrailers(TrailersResponse {}));
            }
            Some(Event::ResponseTrailers(_)) => {
                self.ready.push_back(Reply::ResponseTrailers(TrailersResponse {}));
            }
            None => {}
        }
    }

    fn hold(&mut self, body: HttpBody) {
        let end = body.end_of_stream;
        self.held.push(body);
        if end {
            let response = Some(destination());
            self.ready.push_back(Reply::RequestHeaders(HeadersResponse { response }));
            self.ready.extend(self.held.drain(..).map(|body| Reply::RequestBody(back(body))));
        }
    }
}

fn destination() -> CommonResponse {
    let header = HeaderValue {
        key: Bytes::from_static(b"x-gateway-destination-endpoint"),
        value: Bytes::new(),
        raw_value: Bytes::from_static(DESTINATION),
    };
    let set_headers =
        vec![HeaderValueOption { header: Some(header), append_action: AppendAction::Overwrite.into() }];
    let header_mutation = Some(HeaderMutation { set_headers, remove_headers: Vec::new() });
    CommonResponse { header_mutation, clear_route_cache: true, ..Default::default() }
}

fn back(body: HttpBody) -> BodyResponse {
    let piece = StreamedBodyResponse { body: body.body, end_of_stream: body.end_of_stream };
    let body_mutation = Some(BodyMutation { mutation: Some(Mutation::Streamed(piece)) });
    BodyResponse { response: Some(CommonResponse { body_mutation, ..Default::default() }) }
}

impl<S> Stream for EchoReplies<S>
where
    S: Stream<Item = Result<ProcessingRequest, Status>> + Unpin,
{
    type Item = Result<ProcessingResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            if let Some(reply) = self.ready.pop_front() {
                return Poll::Ready(Some(Ok(ProcessingResponse {
                    response: Some(reply),
                    ..Default::default()
                })));
            }
            match Pin::new(&mut self.inbound).poll_next(cx) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Some(Ok(message))) => self.on(message),
                Poll::Ready(Some(Err(status))) => return Poll::Ready(Some(Err(status))),
                Poll::Ready(None) => return Poll::Ready(None),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::StreamExt as _;

    fn message(event: Event, mode: Option<BodySendMode>) -> Result<ProcessingRequest, Status> {
        let protocol_config =
            mode.map(|m| ProtocolConfiguration { request_body_mode: m.into(), response_body_mode: 0 });
        Ok(ProcessingRequest { protocol_config, request: Some(event), ..Default::default() })
    }

    fn body(text: &'static str, end_of_stream: bool) -> Event {
        let body = Bytes::from_static(text.as_bytes());
        Event::RequestBody(HttpBody { body, end_of_stream, ..Default::default() })
    }

    async fn replies(messages: Vec<Result<ProcessingRequest, Status>>) -> Vec<Reply> {
        let replies = EchoReplies::new(futures::stream::iter(messages));
        replies.map(|r| r.unwrap().response.unwrap()).collect().await
    }

    #[tokio::test]
    async fn in_full_duplex_the_reply_to_the_headers_waits_for_the_body() {
        let open =
            message(Event::RequestHeaders(HttpHeaders::default()), Some(BodySendMode::FullDuplexStreamed));
        assert!(replies(vec![open.clone(), message(body("a", false), None)]).await.is_empty());
        let got = replies(vec![open, message(body("a", false), None), message(body("", true), None)]).await;
        let [Reply::RequestHeaders(head), Reply::RequestBody(_), Reply::RequestBody(_)] = &got[..] else {
            panic!("{got:?}")
        };
        assert_eq!(head.response, Some(destination()));
    }

    #[tokio::test]
    async fn buffered_bodies_and_lone_headers_are_answered_with_the_destination() {
        let open = message(Event::RequestHeaders(HttpHeaders::default()), Some(BodySendMode::Buffered));
        let got = replies(vec![open, message(body("a", true), None)]).await;
        let [Reply::RequestHeaders(first), Reply::RequestBody(second)] = &got[..] else { panic!("{got:?}") };
        assert_eq!((first.response.is_none(), second.response.clone()), (true, Some(destination())));
        let lone = HttpHeaders { end_of_stream: true, ..Default::default() };
        let got = replies(vec![message(Event::RequestHeaders(lone), None)]).await;
        assert!(matches!(&got[..], [Reply::RequestHeaders(head)] if head.response.is_some()));
    }
}
