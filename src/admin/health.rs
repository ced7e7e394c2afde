//! gRPC health (`grpc.health.v1.Health`) on a port of its own, and beside ext_proc on the ext_proc port.
//!
//! | service | serving while |
//! |---|---|
//! | `liveness`, `inference-extension` | the process answers: neither the pool nor a drain matters |
//! | ``, `readiness`, the ext_proc service | every readiness gate is open and no drain has begun |
//!
//! | `pool/NAME`, where several pools are served | this pool is known, and the names above serve |
//!
//! `inference-extension` is what charts probe for liveness as well as readiness; tied to the pool it would have a
//! picker restarted for want of engines.

use crate::proto::health::{
    HealthCheckRequest, HealthCheckResponse, HealthListRequest, HealthListResponse, ServingStatus,
};
use crate::readiness::Readiness;
use futures::future::BoxFuture;
use futures::stream::{BoxStream, StreamExt};
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio_stream::wrappers::{TcpListenerStream, WatchStream};
use tonic::codegen::{Body, Service, StdError};
use tonic::server::{Grpc, NamedService, ServerStreamingService, UnaryService};
use tonic::{Request, Response, Status};
use tonic_prost::ProstCodec;

/// Name under which the ext_proc service is asked for.
pub const EXT_PROC: &str = "envoy.service.ext_proc.v3.ExternalProcessor";
/// All names that are known.
pub const NAMES: [&str; 5] = ["", "readiness", EXT_PROC, "liveness", "inference-extension"];

/// Streams that one connection may have open: probes are few.
const MAX_STREAMS: u32 = 64;

/// What stands before a pool's name.
const POOL: &str = "pool/";

/// The health service. Clones share one state.
#[derive(Clone, Debug)]
pub struct HealthServer {
    process: Readiness,
    /// Each pool with the name that it is asked for.
    pools: Arc<Vec<(String, Readiness)>>,
}

impl HealthServer {
    /// Health by these gates.
    pub fn new(readiness: Readiness) -> Self {
        Self::of_pools(readiness, &[])
    }

    /// Health of the process and of each of its pools.
    pub fn of_pools(process: Readiness, pools: &[(String, Readiness)]) -> Self {
        let named = |(name, readiness): &(String, Readiness)| (format!("{POOL}{name}"), readiness.clone());
        Self { process, pools: Arc::new(pools.iter().map(named).collect()) }
    }

    /// Status of a service; `None` for a name that is not known.
    pub fn status(&self, service: &str) -> Option<ServingStatus> {
        let ready = self.process.is_ready();
        match self.pool(service) {
            Some(pool) => Some(serving(ready && pool.is_ready())),
            None => status(service, ready),
        }
    }

    fn pool(&self, service: &str) -> Option<&Readiness> {
        self.pools.iter().find(|(name, _)| name == service).map(|(_, readiness)| readiness)
    }

    fn names(&self) -> impl Iterator<Item = &str> {
        NAMES.into_iter().chain(self.pools.iter().map(|(name, _)| name.as_str()))
    }

    /// Serves health alone, in the clear, until `stop` completes. Runs on the runtime of the requests on purpose: when
    /// that one hangs, probes fail.
    pub async fn serve(
        self,
        listener: TcpListener,
        stop: impl Future<Output = ()>,
    ) -> Result<(), tonic::transport::Error> {
        tonic::transport::Server::builder()
            .max_concurrent_streams(MAX_STREAMS)
            .http2_keepalive_interval(Some(Duration::from_secs(60)))
            .add_service(self)
            .serve_with_incoming_shutdown(TcpListenerStream::new(listener), stop)
            .await
    }

    fn check(&self, service: &str) -> Result<HealthCheckResponse, Status> {
        match self.status(service) {
            Some(status) => Ok(answer(status)),
            None => {
                let known: Vec<&str> = self.names().collect();
                Err(Status::not_found(format!("no service of this name; known are {}", known.join(", "))))
            }
        }
    }

    fn list(&self) -> HealthListResponse {
        let each = self.names().filter_map(|name| Some((name.to_owned(), answer(self.status(name)?))));
        HealthListResponse { statuses: each.collect() }
    }

    /// The status now and after every change. A name that is not known is answered as such and stays so.
    fn watch(&self, service: &str) -> BoxStream<'static, Result<HealthCheckResponse, Status>> {
        let (service, health) = (service.to_owned(), self.clone());
        let mut last = None;
        let of_pool = self.pool(&service).map(|pool| WatchStream::new(pool.watch()));
        futures::stream::select(
            WatchStream::new(self.process.watch()),
            futures::stream::iter(of_pool).flatten(),
        )
        .map(move |_ready| health.status(&service).unwrap_or(ServingStatus::ServiceUnknown))
        .filter(move |status| {
            let changed = last.replace(*status) != Some(*status);
            std::future::ready(changed)
        })
        .map(|status| Ok(answer(status)))
        .boxed()
    }
}

fn serving(serving: bool) -> ServingStatus {
    if serving { ServingStatus::Serving } else { ServingStatus::NotServing }
}

fn status(service: &str, ready: bool) -> Option<ServingStatus> {
    match service {
        "liveness" | "inference-extension" => Some(serving(true)),
        "" | "readiness" | EXT_PROC => Some(serving(ready)),
        _ => None,
    }
}

fn answer(status: ServingStatus) -> HealthCheckResponse {
    HealthCheckResponse { status: status.into() }
}

impl NamedService for HealthServer {
    const NAME: &'static str = "grpc.health.v1.Health";
}

struct Check(HealthServer);
struct List(HealthServer);
struct Watch(HealthServer);

impl UnaryService<HealthCheckRequest> for Check {
    type Response = HealthCheckResponse;
    type Future = std::future::Ready<Result<Response<HealthCheckResponse>, Status>>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        std::future::ready(self.0.check(&request.get_ref().service).map(Response::new))
    }
}

impl UnaryService<HealthListRequest> for List {
    type Response = HealthListResponse;
    type Future = std::future::Ready<Result<Response<HealthListResponse>, Status>>;

    fn call(&mut self, _request: Request<HealthListRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.list())))
    }
}

impl ServerStreamingService<HealthCheckRequest> for Watch {
    type Response = HealthCheckResponse;
    type ResponseStream = BoxStream<'static, Result<HealthCheckResponse, Status>>;
    type Future = std::future::Ready<Result<Response<Self::ResponseStream>, Status>>;

    fn call(&mut self, request: Request<HealthCheckRequest>) -> Self::Future {
        std::future::ready(Ok(Response::new(self.0.watch(&request.get_ref().service))))
    }
}

impl<B> Service<::http::Request<B>> for HealthServer
where
    B: Body + Send + 'static,
    B::Error: Into<StdError> + Send + 'static,
{
    type Response = ::http::Response<tonic::body::Body>;
    type Error = Infallible;
    type Future = BoxFuture<'static, Result<Self::Response, Infallible>>;

    fn poll_ready(&mut self, _context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: ::http::Request<B>) -> Self::Future {
        let health = self.clone();
        Box::pin(async move {
            Ok(match request.uri().path() {
                "/grpc.health.v1.Health/Check" => {
                    Grpc::new(ProstCodec::default()).unary(Check(health), request).await
                }
                "/grpc.health.v1.Health/List" => {
                    Grpc::new(ProstCodec::default()).unary(List(health), request).await
                }
                "/grpc.health.v1.Health/Watch" => {
                    Grpc::new(ProstCodec::default()).server_streaming(Watch(health), request).await
                }
                _ => Status::unimplemented("the health service has Check, List and Watch").into_http(),
            })
        })
    }
}

/// Opens the port of the health service.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::client::Grpc as Client;
    use tonic::codegen::http::uri::PathAndQuery;
    use tonic::transport::Channel;

    #[test]
    fn every_name_in_every_state() {
        use ServingStatus::{NotServing, Serving};
        let readiness = Readiness::new();
        let pool = readiness.gate("pool");
        let health = HealthServer::new(readiness.clone());
        let table = |expected: [ServingStatus; 5]| {
            for (name, expected) in NAMES.into_iter().zip(expected) {
                assert_eq!(health.status(name), Some(expected), "{name}");
            }
        };
        table([NotServing, NotServing, NotServing, Serving, Serving]);
        pool.open();
        table([Serving; 5]);
        readiness.drain();
        table([NotServing, NotServing, NotServing, Serving, Serving]);
        assert_eq!(health.status("other"), None);
    }

    fn two_pools() -> (HealthServer, Readiness, crate::readiness::Gate) {
        let (process, b) = (Readiness::new(), Readiness::new());
        let gate = b.gate("pool");
        let pools = [("a".to_owned(), Readiness::new()), ("ns/b".to_owned(), b)];
        (HealthServer::of_pools(process.clone(), &pools), process, gate)
    }

    #[test]
    fn each_of_several_pools_has_a_name_of_its_own() {
        use ServingStatus::{NotServing, Serving};
        let (health, process, b) = two_pools();
        let status = |name: &str| health.status(name);
        assert_eq!((status("pool/a"), status("pool/ns/b")), (Some(Serving), Some(NotServing)));
        assert_eq!((status("readiness"), status("pool/c"), status("a")), (Some(Serving), None, None));
        b.open();
        assert_eq!(status("pool/ns/b"), Some(Serving));
        let listed: Vec<String> = health.list().statuses.into_keys().collect();
        assert!(listed.len() == NAMES.len() + 2 && listed.contains(&"pool/ns/b".to_owned()), "{listed:?}");
        process.drain();
        assert_eq!(status("pool/a"), Some(NotServing), "who drains serves no pool");
        assert!(health.check("x").unwrap_err().message().contains("pool/a"));
    }

    #[tokio::test]
    async fn watch_tells_what_becomes_of_one_pool() {
        let (health, process, b) = two_pools();
        let mut statuses = health.watch("pool/ns/b");
        let mut next = async || statuses.next().await.unwrap().unwrap().status();
        assert_eq!(next().await, ServingStatus::NotServing);
        b.open();
        assert_eq!(next().await, ServingStatus::Serving);
        process.drain();
        assert_eq!(next().await, ServingStatus::NotServing);
    }

    async fn client(health: HealthServer) -> Client<Channel> {
        let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(health.serve(listener, std::future::pending()));
        let channel = Channel::from_shared(format!("http://{address}")).unwrap().connect().await.unwrap();
        let mut client = Client::new(channel);
        client.ready().await.unwrap();
        client
    }

    async fn check(client: &mut Client<Channel>, service: &str) -> Result<ServingStatus, tonic::Code> {
        client.ready().await.unwrap();
        let request = Request::new(HealthCheckRequest { service: service.to_owned() });
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Check");
        let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
        client.unary(request, path, codec).await.map(|r| r.into_inner().status()).map_err(|s| s.code())
    }

    #[tokio::test]
    async fn check_answers_over_the_wire() {
        let mut client = client(HealthServer::new(Readiness::new())).await;
        assert_eq!(check(&mut client, EXT_PROC).await, Ok(ServingStatus::Serving));
        assert_eq!(check(&mut client, "nobody").await, Err(tonic::Code::NotFound));
    }

    #[tokio::test]
    async fn list_names_all_and_other_methods_are_unknown() {
        let mut client = client(HealthServer::new(Readiness::new())).await;
        let codec: ProstCodec<HealthListRequest, HealthListResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/List");
        let list = client.unary(Request::new(HealthListRequest {}), path, codec).await.unwrap().into_inner();
        assert_eq!(list.statuses.len(), NAMES.len());
        client.ready().await.unwrap();
        let codec: ProstCodec<HealthListRequest, HealthListResponse> = ProstCodec::default();
        let path = PathAndQuery::from_static("/grpc.health.v1.Health/Nothing");
        let error = client.unary(Request::new(HealthListRequest {}), path, codec).await.unwrap_err();
        assert_eq!(error.code(), tonic::Code::Unimplemented);
    }

    #[tokio::test]
    async fn watch_tells_every_change() {
        let readiness = Readiness::new();
        let mut client = client(HealthServer::new(readiness.clone())).await;
        let mut watch = async |service: &str| {
            client.ready().await.unwrap();
            let request = Request::new(HealthCheckRequest { service: service.to_owned() });
            let path = PathAndQuery::from_static("/grpc.health.v1.Health/Watch");
            let codec: ProstCodec<HealthCheckRequest, HealthCheckResponse> = ProstCodec::default();
            client.server_streaming(request, path, codec).await.unwrap().into_inner()
        };
        let (mut ready, mut alive, mut nobody) =
            (watch("readiness").await, watch("liveness").await, watch("x").await);
        assert_eq!(ready.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        assert_eq!(alive.message().await.unwrap().unwrap().status(), ServingStatus::Serving);
        assert_eq!(nobody.message().await.unwrap().unwrap().status(), ServingStatus::ServiceUnknown);
        readiness.drain();
        assert_eq!(ready.message().await.unwrap().unwrap().status(), ServingStatus::NotServing);
    }
}
