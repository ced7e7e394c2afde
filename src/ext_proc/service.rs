//! The gRPC service `envoy.service.ext_proc.v3.ExternalProcessor`.

use super::exchange::{Exchange, Limits};
use super::pools::{Place, Pools};
use super::stream::Answers;
use crate::clock::Clock;
use crate::director::Router;
use crate::proto::ext_proc::{PROCESS_PATH, ProcessingRequest, ProcessingResponse, SERVICE};
use std::convert::Infallible;
use std::future::{Ready, ready};
use std::sync::Arc;
use std::task::{Context, Poll};
use tonic::codec::CompressionEncoding;
use tonic::codegen::{Body, BoxFuture, Service, StdError};
use tonic::server::{Grpc, NamedService, StreamingService};
use tonic::{Request, Response, Status, Streaming};
use tonic_prost::ProstCodec;

/// What every stream works with.
#[derive(Debug)]
pub(super) struct Shared<D> {
    pub(super) pools: Pools<D>,
    pub(super) clock: Clock,
    limits: Limits,
    max_message_bytes: usize,
}

impl<D: Router> Shared<D> {
    /// A fresh exchange of the pool at `place`.
    pub(super) fn exchange(&self, place: Place) -> Exchange<D> {
        let lane = self.pools.lane(place);
        let (router, budget) = (Arc::clone(&lane.router), Arc::clone(&lane.budget));
        Exchange::new(router, self.limits, budget, Arc::clone(&lane.meters))
    }
}

/// The service. One stream is one HTTP request.
#[derive(Debug)]
pub struct ExtProc<D>(Arc<Shared<D>>);

impl<D> Clone for ExtProc<D> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<D: Router> ExtProc<D> {
    /// The service over `pools`. Messages over `max_message_bytes` are refused; it should be the body cap and 1 MiB,
    /// so that a body that comes in one message meets the body cap first.
    pub fn new(pools: Pools<D>, clock: Clock, limits: Limits, max_message_bytes: usize) -> Self {
        Self(Arc::new(Shared { pools, clock, limits, max_message_bytes }))
    }
}

impl<D: Router> StreamingService<ProcessingRequest> for ExtProc<D> {
    type Response = ProcessingResponse;
    type ResponseStream = Answers<D>;
    type Future = Ready<Result<Response<Answers<D>>, Status>>;

    fn call(&mut self, request: Request<Streaming<ProcessingRequest>>) -> Self::Future {
        ready(Ok(Response::new(Answers::new(Arc::clone(&self.0), request))))
    }
}

impl<D, B> Service<http::Request<B>> for ExtProc<D>
where
    D: Router,
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
        if request.uri().path() != PROCESS_PATH {
            let answer = Status::unimplemented("the only method is Process").into_http();
            return Box::pin(ready(Ok(answer)));
        }
        let service = self.clone();
        Box::pin(async move {
            let mut grpc = Grpc::new(ProstCodec::default())
                .accept_compressed(CompressionEncoding::Gzip)
                .max_decoding_message_size(service.0.max_message_bytes);
            Ok(grpc.streaming(service, request).await)
        })
    }
}

impl<D> NamedService for ExtProc<D> {
    const NAME: &'static str = SERVICE;
}
