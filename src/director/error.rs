//! Why a request is refused: a closed list, each case with its class.

use crate::plugin::ScheduleError;
use crate::request::ParseError;
use std::sync::Arc;

/// What a refusal means to the client. Only the edge turns a class into a status code.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ErrorClass {
    /// The request cannot be read or lacks something.
    BadRequest,
    /// What it asks for is not here.
    NotFound,
    /// The client took too long to send it.
    Timeout,
    /// It is larger than allowed.
    TooLarge,
    /// A condition that the client set does not hold.
    PreconditionFailed,
    /// There is capacity, but it is taken.
    Saturated,
    /// Nothing can serve it now.
    Unavailable,
    /// The picker is at fault.
    Internal,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
pub enum RouteError {
    /// The body cannot be read.
    #[error(transparent)]
    Body(#[from] ParseError),
    /// Neither the body nor a rewrite names a model.
    #[error("model not found in request body: set `model` to one of the served models")]
    NoModel,
    /// The gateway names a pool that is not served here.
    #[error(
        "the request is routed to a pool that this picker does not serve: the gateway's route must name another"
    )]
    UnknownPool,
    /// There are several pools and nothing says which one is meant.
    #[error("the request is not routed to a pool: the gateway's route must name one")]
    NoPool,
    /// No endpoint lists the model, and the operator asked to refuse such requests.
    #[error("model `{0}` is served by no endpoint of this pool: GET /v1/models lists what is served")]
    ModelNotServed(String),
    /// The body is over the cap of one request.
    #[error("request body is over {limit} bytes: shorten the prompt, or raise --max-body-bytes")]
    BodyTooLarge {
        /// The cap.
        limit: usize,
    },
    /// The bodies in flight are over the cap of the process.
    #[error(
        "request bodies in flight fill the picker's buffer of {limit} bytes: retry later, or raise --max-buffered-bytes"
    )]
    BufferFull {
        /// The cap.
        limit: usize,
    },
    /// The body stayed open without progress.
    #[error(
        "request body made no progress for {seconds} s: send it whole, or raise --request-body-idle-timeout"
    )]
    BodyIdle {
        /// How long.
        seconds: u64,
    },
    /// The pool has no endpoint.
    #[error(
        "failed to find endpoint candidates for serving the request: pool `{pool}` has no ready endpoint"
    )]
    NoEndpoints {
        /// Name of the pool.
        pool: String,
    },
    /// The subset hint allows none of the pool's endpoints.
    #[error(
        "failed to find endpoint candidates for serving the request: the subset hint allows none of {endpoints} endpoints"
    )]
    SubsetEmpty {
        /// Endpoints of the pool.
        endpoints: usize,
    },
    /// A sheddable request met a full pool.
    #[error(
        "system saturated, sheddable request dropped: retry later, or with an objective of priority 0 or more"
    )]
    Shed,
    /// An admitter declined it.
    #[error(
        "request declined by `{admitter}`, the pool is loaded: retry later, or with an objective of higher priority"
    )]
    Declined {
        /// Instance name of the admitter.
        admitter: Arc<str>,
    },
    /// The time that the client gave was over before an endpoint was chosen.
    #[error("no endpoint was chosen within the request's x-request-timeout: retry later, or allow more time")]
    DeadlineOver,
    /// Scheduling found nothing.
    #[error(transparent)]
    Schedule(#[from] ScheduleError),
    /// The picker is draining.
    #[error("the picker is shutting down: retry, another replica will answer")]
    Draining,
    /// Something that should not happen.
    #[error("internal error: {0}")]
    Internal(String),
}

impl RouteError {
    /// The class of this refusal.
    pub fn class(&self) -> ErrorClass {
        match self {
            Self::Body(_) | Self::NoModel => ErrorClass::BadRequest,
            Self::ModelNotServed(_) | Self::UnknownPool | Self::NoPool => ErrorClass::NotFound,
            Self::BodyTooLarge { .. } => ErrorClass::TooLarge,
            Self::BodyIdle { .. } => ErrorClass::Timeout,
            Self::Shed
            | Self::Declined { .. }
            | Self::DeadlineOver
            | Self::Schedule(ScheduleError::Filtered { .. }) => ErrorClass::Saturated,
            Self::BufferFull { .. }
            | Self::NoEndpoints { .. }
            | Self::SubsetEmpty { .. }
            | Self::Draining => ErrorClass::Unavailable,
            Self::Schedule(ScheduleError::NoProfile(_)) => ErrorClass::BadRequest,
            Self::Internal(_) => ErrorClass::Internal,
        }
    }

    /// Value of the header that tells why a request was dropped, where one applies.
    pub fn dropped_reason(&self) -> Option<&'static str> {
        match self {
            Self::Shed
            | Self::Declined { .. }
            | Self::Schedule(ScheduleError::Filtered { .. })
            | Self::BufferFull { .. } => Some("rejected-saturated"),
            Self::NoEndpoints { .. } | Self::SubsetEmpty { .. } => Some("rejected-no-endpoints"),
            Self::DeadlineOver => Some("rejected-ttl-expired"),
            Self::Draining => Some("rejected-shutting-down"),
            _ => None,
        }
    }

    /// The word for metrics and the `code` of the error body; the reference's names where it has them.
    pub fn code(&self) -> &'static str {
        match self.class() {
            ErrorClass::BadRequest => "BadRequest",
            ErrorClass::NotFound => "NotFound",
            ErrorClass::Timeout => "RequestTimeout",
            ErrorClass::TooLarge => "PayloadTooLarge",
            ErrorClass::PreconditionFailed => "PreconditionFailed",
            ErrorClass::Saturated => "ResourceExhausted",
            ErrorClass::Unavailable => "ServiceUnavailable",
            ErrorClass::Internal => "Internal",
        }
    }
}
