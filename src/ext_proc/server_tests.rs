//! The service over real sockets.

use super::*;
use crate::clock::Clock;
use crate::ext_proc::budget::Budget;
use crate::ext_proc::pools::{Named, Signs};
use crate::ext_proc::testing::{
    DESTINATION, Fake, Script, immediate, kinds, mutation, request_body, request_headers, set_header,
};
use crate::ext_proc::tls::TlsOptions;
use crate::ext_proc::{ExtProc, Lane, Limits, Meters, Pools};
use crate::proto::ext_proc::{PROCESS_PATH, ProcessingRequest, ProcessingResponse};
use crate::request::names;
use crate::telemetry::recorder::Scale;
use crate::telemetry::{MetricsHandle, Scope};
use bytes::{BufMut, Bytes, BytesMut};
use futures::{Stream, StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::client::conn::http2::SendRequest;
use hyper_util::rt::{TokioExecutor, TokioIo};
use prost::Message;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tokio_util::sync::{CancellationToken, DropGuard};

type Outbound = http_body_util::combinators::UnsyncBoxBody<Bytes, io::Error>;

struct Running {
    address: SocketAddr,
    fake: Arc<Fake>,
    budget: Arc<Budget>,
    stop: oneshot::Sender<()>,
    serving: JoinHandle<io::Result<Drained>>,
}

async fn start(tls: Option<Tls>, max_message: usize, drain: Duration) -> Running {
    start_with(tls, max_message, Drain { notice: Duration::ZERO, within: drain }).await
}

async fn start_with(tls: Option<Tls>, max_message: usize, drain: Drain) -> Running {
    let (fake, budget, lane) = lane(Meters::new(false));
    start_pools(Pools::one(lane), fake, budget, (tls, max_message, drain)).await
}

/// A pool whose router takes any body.
fn lane(meters: Meters) -> (Arc<Fake>, Arc<Budget>, Lane<Fake>) {
    let fake = Fake::new(Script { opaque: true, ..Script::default() });
    let budget = Budget::new(1 << 30);
    let (router, held, meters) = (Arc::clone(&fake), Arc::clone(&budget), Arc::new(meters));
    (fake, budget, Lane { router, budget: held, meters, scope: Scope::default() })
}

async fn start_pools(
    pools: Pools<Fake>,
    fake: Arc<Fake>,
    budget: Arc<Budget>,
    (tls, max_message, drain): (Option<Tls>, usize, Drain),
) -> Running {
    let service = ExtProc::new(pools, Clock::system(), Limits::default(), max_message);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel();
    let shutdown = async {
        let _either_way = stopped.await;
    };
    let serving = serve(listener, tls, Routes::new(service), Http2::default(), shutdown, drain);
    Running { address, fake, budget, stop, serving: tokio::spawn(serving) }
}

async fn plain() -> Running {
    start(None, 1 << 20, Duration::from_secs(5)).await
}

async fn connect(address: SocketAddr) -> SendRequest<Outbound> {
    handshaken(TcpStream::connect(address).await.unwrap()).await
}

async fn handshaken(io: impl AsyncRead + AsyncWrite + Unpin + Send + 'static) -> SendRequest<Outbound> {
    // Proxies remember the streams that they reset, so that what still comes for them is no error.
    let made = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
        .max_concurrent_reset_streams(20_000)
        .handshake(TokioIo::new(io))
        .await;
    let (sender, connection) = made.unwrap();
    tokio::spawn(async move {
        if let Err(problem) = connection.await {
            // Shown when the test that it belongs to fails.
            println!("the connection ended: {problem:?}");
        }
    });
    sender
}

fn framed(message: &ProcessingRequest) -> Bytes {
    let mut frame = BytesMut::new();
    frame.put_u8(0);
    frame.put_u32(u32::try_from(message.encoded_len()).unwrap());
    message.encode(&mut frame).unwrap();
    frame.freeze()
}

/// One stream: these messages; then it stays open until the guard is dropped, which resets it.
fn call(
    messages: impl Stream<Item = ProcessingRequest> + Send + 'static,
) -> (http::Request<Outbound>, DropGuard) {
    let token = CancellationToken::new();
    let cancelled = token.clone().cancelled_owned();
    let frames = messages.map(|message| Ok(Frame::data(framed(&message)))).chain(stream::once(async move {
        cancelled.await;
        Err(io::Error::other("the client went away"))
    }));
    let request = http::Request::post(format!("http://picker{PROCESS_PATH}"))
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(StreamBody::new(frames).boxed_unsync())
        .unwrap();
    (request, token.drop_guard())
}

fn post() -> ProcessingRequest {
    request_headers(&[(":method", "POST"), (":path", "/x")], false)
}

/// Reads `count` replies.
async fn replies(body: &mut Incoming, count: usize) -> Vec<ProcessingResponse> {
    let (mut buffer, mut out) = (BytesMut::new(), Vec::new());
    while out.len() < count {
        let frame = body.frame().await.expect("the stream ended").expect("the stream broke");
        buffer.extend_from_slice(&frame.into_data().expect("trailers came too early"));
        while buffer.len() >= 5 {
            let size = u32::from_be_bytes([buffer[1], buffer[2], buffer[3], buffer[4]]) as usize;
            if buffer.len() < 5 + size {
                break;
            }
            let message = buffer.split_to(5 + size).split_off(5).freeze();
            out.push(ProcessingResponse::decode(message).unwrap());
        }
    }
    out
}

async fn good_exchange(sender: &mut SendRequest<Outbound>) {
    let messages = stream::iter([post(), request_body("hello", true)]);
    let (request, _open) = call(messages);
    let response = sender.send_request(request).await.expect("the connection is gone");
    let out = replies(&mut response.into_body(), 2).await;
    assert_eq!(kinds(&out), ["request_headers", "request_body"]);
    assert_eq!(set_header(&out[0], names::DESTINATION).as_deref(), Some(DESTINATION));
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let waiting = async {
        while !condition() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn ten_thousand_cancelled_requests_leave_the_connection_alive() {
    let running = plain().await;
    let mut sender = connect(running.address).await;
    good_exchange(&mut sender).await;
    for batch in 0..100 {
        let begin = |_| call(stream::iter([post(), request_body([b'x'; 100], false)]));
        let (requests, guards): (Vec<_>, Vec<_>) = (0..100).map(begin).unzip();
        let open: Vec<_> = requests.into_iter().map(|request| sender.send_request(request)).collect();
        if batch % 2 == 0 {
            // Cancelled once the server works on them.
            drop((futures::future::join_all(open).await, guards));
        } else {
            // Cancelled at once, some before the server has seen them.
            tokio::task::yield_now().await;
            drop((open, guards));
        }
    }
    good_exchange(&mut sender).await;
    drop(sender);
    until("bytes stay counted", || running.budget.used() == 0).await;
    let log = Arc::clone(&running.fake.log);
    until("a route was not ended", || log.lock().endings.len() == 2).await;
}

#[tokio::test]
async fn tls_by_default_and_only_h2() {
    let running = start(Some(Tls::new(&TlsOptions::default()).unwrap()), 1 << 20, Duration::ZERO).await;
    let mut config =
        rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .unwrap()
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(AnyServer))
            .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec(), b"h2".to_vec()];
    let connector = tokio_rustls::TlsConnector::from(Arc::new(config));
    let tcp = TcpStream::connect(running.address).await.unwrap();
    let stream = connector.connect("localhost".try_into().unwrap(), tcp).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    good_exchange(&mut handshaken(stream).await).await;
}

#[tokio::test]
async fn a_client_without_tls_harms_nobody() {
    let running = start(Some(Tls::new(&TlsOptions::default()).unwrap()), 1 << 20, Duration::ZERO).await;
    let sender = connect(running.address).await;
    until("the connection stays open", || sender.is_closed()).await;
    assert!(!running.serving.is_finished());
}

#[tokio::test]
async fn a_message_over_the_limit_is_answered_with_413() {
    let running = start(None, 1000, Duration::ZERO).await;
    let mut sender = connect(running.address).await;
    let messages = stream::iter([post(), request_body([b'x'; 2000], false)]);
    let (request, _open) = call(messages);
    let response = sender.send_request(request).await.unwrap();
    let out = replies(&mut response.into_body(), 1).await;
    assert_eq!(immediate(&out).status.unwrap().code, 413);
    good_exchange(&mut sender).await;
}

#[tokio::test]
async fn messages_out_of_order_end_the_stream_with_invalid_argument() {
    let running = plain().await;
    let mut sender = connect(running.address).await;
    let (request, _open) = call(stream::iter([request_body("x", true)]));
    let response = sender.send_request(request).await.unwrap();
    let mut body = response.into_body();
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().expect("a reply came");
    assert_eq!(trailers["grpc-status"], "3");
    assert!(trailers["grpc-message"].to_str().unwrap().contains("request_body"));
}

#[tokio::test]
async fn draining_lets_open_streams_finish_and_takes_no_new_connection() {
    let running = plain().await;
    let mut sender = connect(running.address).await;
    let (more, rest) = futures::channel::mpsc::unbounded();
    let (request, open) = call(stream::iter([post()]).chain(rest));
    let response = sender.send_request(request).await.unwrap();
    running.stop.send(()).unwrap();
    let address = running.address;
    until("the port is still open", || std::net::TcpStream::connect(address).is_err()).await;
    assert!(!running.serving.is_finished());
    more.unbounded_send(request_body("x", true)).unwrap();
    let mut body = response.into_body();
    assert_eq!(kinds(&replies(&mut body, 2).await), ["request_headers", "request_body"]);
    drop((body, more, open, sender));
    assert_eq!(running.serving.await.unwrap().unwrap(), Drained::Whole);
}

#[tokio::test]
async fn until_the_notice_is_over_new_connections_and_streams_are_taken() {
    let drain = Drain { notice: Duration::from_secs(600), within: Duration::from_secs(3600) };
    let running = start_with(None, 1 << 20, drain).await;
    let first = connect(running.address).await;
    running.stop.send(()).unwrap();
    let mut sender = connect(running.address).await;
    let (request, open) = call(stream::iter([post(), request_body("x", true)]));
    let mut body = sender.send_request(request).await.unwrap().into_body();
    assert_eq!(kinds(&replies(&mut body, 2).await), ["request_headers", "request_body"]);
    assert!(!running.serving.is_finished());
    // No proxy is left: nobody has to be told any more.
    drop((first, body, open, sender));
    assert_eq!(running.serving.await.unwrap().unwrap(), Drained::Whole);
}

#[tokio::test]
async fn the_drain_timeout_cuts_off_what_does_not_finish() {
    let running = start(None, 1 << 20, Duration::from_millis(20)).await;
    let mut sender = connect(running.address).await;
    let (request, _open) = call(stream::iter([post()]));
    let _response = sender.send_request(request).await.unwrap();
    running.stop.send(()).unwrap();
    assert_eq!(running.serving.await.unwrap().unwrap(), Drained::CutOff);
}

#[tokio::test]
async fn a_client_that_says_all_at_once_and_closes_its_side_gets_its_replies_and_gzip_is_taken() {
    use tonic::codec::CompressionEncoding;
    let running = plain().await;
    let endpoint = tonic::transport::Endpoint::from_shared(format!("http://{}", running.address)).unwrap();
    let channel = endpoint.connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel).send_compressed(CompressionEncoding::Gzip);
    client.ready().await.unwrap();
    let codec = tonic_prost::ProstCodec::<ProcessingRequest, ProcessingResponse>::default();
    let messages = stream::iter([post(), request_body([b'x'; 5000], true)]);
    let path = http::uri::PathAndQuery::from_static(PROCESS_PATH);
    let response = client.streaming(tonic::Request::new(messages), path, codec).await.unwrap();
    let out: Vec<_> = response.into_inner().map(|reply| reply.unwrap()).collect().await;
    assert_eq!(kinds(&out), ["request_headers", "request_body"]);
    let log = Arc::clone(&running.fake.log);
    until("the route was not ended", || log.lock().endings.len() == 1).await;
}

/// Two pools, `a` and `b`, told apart by a header; the fake of each, and the page on which they are counted.
async fn two_pools() -> (Running, Arc<Fake>, MetricsHandle) {
    let metrics = MetricsHandle::new(false, Scale::SeveralPools);
    let named = |name: &str| {
        let scope = Scope::of(metrics.of_pool(name));
        let (fake, budget, lane) = lane(scope.run(|| Meters::new(false)));
        (fake, budget, Named { names: vec![name.into()], lane: Lane { scope, ..lane } })
    };
    let ((a, budget, first), (b, _, other)) = (named("a"), named("b"));
    let header = Some(Bytes::from_static(b"x-inference-pool"));
    let signs = Signs { header, attribute: Bytes::from_static(b"xds.route_name") };
    let pools = Pools::several(first, vec![other], signs, &metrics);
    let drain = Drain { notice: Duration::ZERO, within: Duration::from_secs(5) };
    let running = start_pools(pools, a, budget, (None, 1 << 20, drain)).await;
    (running, b, metrics)
}

#[tokio::test]
async fn the_first_message_chooses_the_pool() {
    let (running, b, metrics) = two_pools().await;
    let mut sender = connect(running.address).await;
    for (pool, fake) in [("a", &running.fake), ("b", &b), ("b", &b)] {
        let headers = [(":method", "POST"), (":path", "/x"), ("x-inference-pool", pool)];
        // Newer proxies may say something before that is not known here.
        let first = [ProcessingRequest::default(), request_headers(&headers, false)];
        let (request, open) = call(stream::iter(first).chain(stream::iter([request_body("hello", true)])));
        let before = fake.log.lock().routed;
        let response = sender.send_request(request).await.unwrap();
        let mut body = response.into_body();
        let out = replies(&mut body, 2).await;
        assert_eq!(kinds(&out), ["request_headers", "request_body"]);
        assert_eq!(mutation(&out[0]).remove_headers, [Bytes::from_static(b"x-inference-pool")]);
        assert_eq!(fake.log.lock().routed, before + 1);
        drop((open, body));
    }
    let page = || metrics.render();
    until("streams stay counted", || page().contains("streams_open{inference_pool=\"b\"} 0\n")).await;
    assert!(page().contains("streams_total{code=\"OK\",inference_pool=\"b\"} 2\n"), "{}", page());
    assert!(page().contains("streams_total{code=\"OK\",inference_pool=\"a\"} 1\n"));
}

#[tokio::test]
async fn a_stream_of_no_pool_ends_with_its_refusal_and_the_connection_goes_on() {
    let (running, b, metrics) = two_pools().await;
    let mut sender = connect(running.address).await;
    let (request, _open) = call(stream::iter([post(), request_body("hello", true)]));
    let mut body = sender.send_request(request).await.unwrap().into_body();
    let out = replies(&mut body, 1).await;
    assert_eq!(immediate(&out).status.unwrap().code, 404);
    let trailers = body.frame().await.unwrap().unwrap().into_trailers().expect("the stream goes on");
    assert_eq!(trailers["grpc-status"], "0");
    // One that says nothing at all.
    let (silent, open) = call(stream::iter([]));
    let waiting = sender.send_request(silent).await.unwrap();
    drop((open, waiting));
    assert_eq!((running.fake.log.lock().routed, b.log.lock().routed), (0, 0));
    assert!(metrics.render().contains("pointsman_refusals_total{code=\"NotFound\"} 1\n"));
    let chosen = [(":method", "POST"), (":path", "/x"), ("x-inference-pool", "b")];
    let (request, _open) = call(stream::iter([request_headers(&chosen, false), request_body("x", true)]));
    let mut body = sender.send_request(request).await.unwrap().into_body();
    assert_eq!(replies(&mut body, 2).await.len(), 2);
}

/// Takes any certificate, as proxies do with the picker's.
#[derive(Debug)]
struct AnyServer;

impl rustls::client::danger::ServerCertVerifier for AnyServer {
    fn verify_server_cert(
        &self,
        _end_entity: &rustls_pki_types::CertificateDer<'_>,
        _intermediates: &[rustls_pki_types::CertificateDer<'_>],
        _server_name: &rustls_pki_types::ServerName<'_>,
        _ocsp_response: &[u8],
        _now: rustls_pki_types::UnixTime,
    ) -> Result<rustls::client::danger::ServerCertVerified, rustls::Error> {
        Ok(rustls::client::danger::ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _message: &[u8],
        _cert: &rustls_pki_types::CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _message: &[u8],
        _cert: &rustls_pki_types::CertificateDer<'_>,
        _signature: &rustls::DigitallySignedStruct,
    ) -> Result<rustls::client::danger::HandshakeSignatureValid, rustls::Error> {
        Ok(rustls::client::danger::HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<rustls::SignatureScheme> {
        rustls::crypto::ring::default_provider().signature_verification_algorithms.supported_schemes()
    }
}
