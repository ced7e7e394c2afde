//! Every refusal, and that the page for people names it.

use super::*;
use crate::plugin::ScheduleError;
use crate::request::{Api, ParseError};
use std::sync::Arc;

fn every_error() -> Vec<(&'static str, RouteError)> {
    let filtered = ScheduleError::Filtered { profile: Arc::from("p"), filter: Arc::from("f"), before: 3 };
    let list = vec![
        RouteError::Body(ParseError::NoParser { path: "/x".to_owned() }),
        RouteError::Body(ParseError::Malformed { problem: "no JSON".to_owned(), offset: 7 }),
        RouteError::Body(ParseError::Invalid {
            api: Api::Completions,
            problem: "must have prompt field".to_owned(),
        }),
        RouteError::NoModel,
        RouteError::ModelNotServed("a \"model\"\n".to_owned()),
        RouteError::UnknownPool,
        RouteError::NoPool,
        RouteError::BodyTooLarge { limit: 5 },
        RouteError::BufferFull { limit: 5 },
        RouteError::BodyIdle { seconds: 60 },
        RouteError::NoEndpoints { pool: "p".to_owned() },
        RouteError::SubsetEmpty { endpoints: 4 },
        RouteError::Shed,
        RouteError::Declined { admitter: "a".into() },
        RouteError::DeadlineOver,
        RouteError::Schedule(filtered),
        RouteError::Schedule(ScheduleError::NoProfile("why".to_owned())),
        RouteError::Draining,
        RouteError::Internal("why".to_owned()),
    ];
    list.into_iter().map(|error| (variant(&error), error)).collect()
}

/// The name of each case in `docs/errors.md`. A new case does not compile until it has one.
fn variant(error: &RouteError) -> &'static str {
    match error {
        RouteError::Body(ParseError::NoParser { .. }) => "Body/NoParser",
        RouteError::Body(ParseError::Malformed { .. }) => "Body/Malformed",
        RouteError::Body(ParseError::Invalid { .. }) => "Body/Invalid",
        RouteError::NoModel => "NoModel",
        RouteError::ModelNotServed(_) => "ModelNotServed",
        RouteError::UnknownPool => "UnknownPool",
        RouteError::NoPool => "NoPool",
        RouteError::BodyTooLarge { .. } => "BodyTooLarge",
        RouteError::BufferFull { .. } => "BufferFull",
        RouteError::BodyIdle { .. } => "BodyIdle",
        RouteError::NoEndpoints { .. } => "NoEndpoints",
        RouteError::SubsetEmpty { .. } => "SubsetEmpty",
        RouteError::Shed => "Shed",
        RouteError::DeadlineOver => "DeadlineOver",
        RouteError::Declined { .. } => "Declined",
        RouteError::Schedule(ScheduleError::Filtered { .. }) => "Schedule/Filtered",
        RouteError::Schedule(ScheduleError::NoProfile(_)) => "Schedule/NoProfile",
        RouteError::Draining => "Draining",
        RouteError::Internal(_) => "Internal",
    }
}

fn immediate(message: ProcessingResponse) -> ImmediateResponse {
    match message.response {
        Some(Reply::Immediate(immediate)) => immediate,
        other => panic!("{other:?}"),
    }
}

fn header(immediate: &ImmediateResponse, name: &str) -> Option<String> {
    let set = &immediate.headers.as_ref()?.set_headers;
    let found = set.iter().filter_map(|h| h.header.as_ref()).find(|h| h.key == name.as_bytes())?;
    Some(String::from_utf8_lossy(&found.raw_value).into_owned())
}

#[test]
fn every_refusal_has_openais_shape_and_names_its_cause() {
    for (name, error) in every_error() {
        let answer = immediate(refusal(&error, false));
        let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
        let inner = &body["error"];
        let message = inner["message"].as_str().unwrap();
        assert!(message.starts_with(&format!("inference error: {} - ", error.code())), "{name}: {message}");
        assert!(message.ends_with(&error.to_string()), "{name}: {message}");
        assert_eq!(inner["code"], error.code(), "{name}");
        assert!(inner["type"].as_str().unwrap().ends_with("_error"), "{name}");
        assert!(inner["param"].is_null(), "{name}");
        assert_eq!(header(&answer, "content-type").as_deref(), Some("application/json"), "{name}");
        let status = answer.status.unwrap().code;
        assert_eq!(header(&answer, "retry-after").is_some(), status == 429 || status == 503, "{name}");
        assert_eq!(header(&answer, names::DROPPED_REASON).as_deref(), error.dropped_reason(), "{name}");
        assert_eq!(answer.grpc_status, None, "{name}");
    }
}

#[test]
fn statuses_follow_the_class() {
    let wanted = [
        (ErrorClass::BadRequest, 400, 3),
        (ErrorClass::NotFound, 404, 5),
        (ErrorClass::Timeout, 408, 4),
        (ErrorClass::PreconditionFailed, 412, 9),
        (ErrorClass::TooLarge, 413, 8),
        (ErrorClass::Saturated, 429, 8),
        (ErrorClass::Internal, 500, 13),
        (ErrorClass::Unavailable, 503, 14),
    ];
    for (class, http, grpc) in wanted {
        assert_eq!((http_status(class), face(class).grpc), (http, grpc));
    }
}

#[test]
fn a_grpc_request_is_told_in_grpcs_way() {
    let answer = immediate(refusal(&RouteError::Shed, true));
    assert_eq!(answer.grpc_status, Some(GrpcStatus { status: 8 }));
    assert!(answer.body.starts_with(b"inference error: ResourceExhausted - system saturated"));
    assert_eq!(header(&answer, "content-type"), None);
    let evicted = immediate(evicted(None, true));
    assert_eq!(header(&evicted, names::DROPPED_REASON).as_deref(), Some("evicted"));
    assert!(evicted.body.starts_with(b"request evicted by flow control"));
}

#[test]
fn the_page_of_errors_has_every_refusal_with_its_status_and_code() {
    let page = include_str!("../../docs/errors.md");
    for (name, error) in every_error() {
        let row = page.lines().find(|line| line.starts_with(&format!("| `{name}` |")));
        let row = row.unwrap_or_else(|| panic!("docs/errors.md has no row `{name}`"));
        let status = http_status(error.class()).to_string();
        for wanted in [status.as_str(), error.code(), error.dropped_reason().unwrap_or("–")] {
            assert!(row.contains(wanted), "docs/errors.md, `{name}`: {wanted} is missing");
        }
        assert_eq!(row.matches('|').count(), 8, "docs/errors.md, `{name}`: a column is missing");
    }
}
