//! Every field, written here and read by the generated types, and the other way round.

use super::*;
use crate::proto::metadata::{Field, Kind, List, Metadata, Namespace, Struct, Value};
use envoy_types::pb::envoy::config::core::v3 as core;
use envoy_types::pb::envoy::extensions::filters::http::ext_proc::v3 as filter;
use envoy_types::pb::envoy::service::ext_proc::v3 as theirs;
use envoy_types::pb::envoy::r#type::v3 as kinds;
use envoy_types::pb::google::protobuf as google;
use prost::Message;
use std::collections::HashMap;

fn b(text: &'static str) -> Bytes {
    Bytes::from_static(text.as_bytes())
}

/// What `ours` looks like when the generated type reads it; and it must come back the same.
fn across<O: Message + Default + PartialEq + std::fmt::Debug, T: Message + Default>(ours: &O) -> T {
    let theirs = T::decode(ours.encode_to_vec().as_slice()).unwrap();
    assert_eq!(&O::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours, "not the same on the way back");
    theirs
}

fn every_kind() -> Struct {
    let nested =
        Struct { fields: vec![Field { key: b("in"), value: Some(Value { kind: Some(Kind::Bool(true)) }) }] };
    let list = List { values: vec![Value { kind: Some(Kind::Number(1.5)) }] };
    let kinds = [
        ("null", Kind::Null(0)),
        ("number", Kind::Number(-2.5)),
        ("text", Kind::Text(b("t"))),
        ("bool", Kind::Bool(true)),
        ("struct", Kind::Struct(nested)),
        ("list", Kind::List(list)),
    ];
    let field = |(key, kind)| Field { key: b(key), value: Some(Value { kind: Some(kind) }) };
    Struct { fields: kinds.into_iter().map(field).collect() }
}

fn their_value(kind: google::value::Kind) -> google::Value {
    google::Value { kind: Some(kind) }
}

#[test]
fn metadata_of_every_kind() {
    use google::value::Kind as K;
    let ours = Metadata { filter_metadata: vec![Namespace { key: b("ns"), value: Some(every_kind()) }] };
    let theirs = core::Metadata::decode(ours.encode_to_vec().as_slice()).unwrap();
    let fields = &theirs.filter_metadata["ns"].fields;
    assert_eq!(fields["null"], their_value(K::NullValue(0)));
    assert_eq!(fields["number"], their_value(K::NumberValue(-2.5)));
    assert_eq!(fields["text"], their_value(K::StringValue("t".to_owned())));
    assert_eq!(fields["bool"], their_value(K::BoolValue(true)));
    let inner = HashMap::from([("in".to_owned(), their_value(K::BoolValue(true)))]);
    assert_eq!(fields["struct"], their_value(K::StructValue(google::Struct { fields: inner })));
    let values = vec![their_value(K::NumberValue(1.5))];
    assert_eq!(fields["list"], their_value(K::ListValue(google::ListValue { values })));
    let back = Metadata::decode(theirs.encode_to_vec().as_slice()).unwrap();
    let read = back.namespace("ns").unwrap();
    for field in &every_kind().fields {
        let name = std::str::from_utf8(&field.key).unwrap();
        assert_eq!(read.get(name), field.value.as_ref().unwrap().kind.as_ref(), "{name}");
    }
}

fn their_headers() -> theirs::HttpHeaders {
    let header =
        core::HeaderValue { key: "x-a".to_owned(), value: "text".to_owned(), raw_value: b"\xffraw".to_vec() };
    let attributes = HashMap::from([("ignored".to_owned(), google::Struct::default())]);
    theirs::HttpHeaders {
        headers: Some(core::HeaderMap { headers: vec![header] }),
        attributes,
        end_of_stream: true,
    }
}

fn our_headers() -> HttpHeaders {
    let header = HeaderValue { key: b("x-a"), value: b("text"), raw_value: Bytes::from_static(b"\xffraw") };
    HttpHeaders { headers: Some(HeaderMap { headers: vec![header] }), end_of_stream: true }
}

#[test]
fn every_request_message() {
    use theirs::processing_request::Request as R;
    let their_body = theirs::HttpBody {
        body: b"bytes".to_vec(),
        end_of_stream: true,
        end_of_stream_without_message: true,
        ..Default::default()
    };
    let our_body = HttpBody { body: b("bytes"), end_of_stream: true, end_of_stream_without_message: true };
    let their_trailers = theirs::HttpTrailers { trailers: their_headers().headers };
    let pairs = [
        (R::RequestHeaders(their_headers()), Event::RequestHeaders(our_headers())),
        (R::ResponseHeaders(their_headers()), Event::ResponseHeaders(our_headers())),
        (R::RequestBody(their_body.clone()), Event::RequestBody(our_body.clone())),
        (R::ResponseBody(their_body), Event::ResponseBody(our_body)),
        (R::RequestTrailers(their_trailers.clone()), Event::RequestTrailers(HttpTrailers {})),
        (R::ResponseTrailers(their_trailers), Event::ResponseTrailers(HttpTrailers {})),
    ];
    for (request, event) in pairs {
        let sent = theirs::ProcessingRequest {
            request: Some(request),
            observability_mode: true,
            protocol_config: Some(theirs::ProtocolConfiguration {
                request_body_mode: 4,
                response_body_mode: 1,
                send_body_without_waiting_for_header_response: true,
            }),
            ..Default::default()
        };
        let read = ProcessingRequest::decode(sent.encode_to_vec().as_slice()).unwrap();
        assert_eq!(read.request, Some(event.clone()));
        let config = ProtocolConfiguration { request_body_mode: 4, response_body_mode: 1 };
        assert_eq!(read.protocol_config, Some(config));
        // And as a client of ours sends it.
        let ours = ProcessingRequest {
            metadata_context: Some(Metadata {
                filter_metadata: vec![Namespace { key: b("n"), value: None }],
            }),
            ..read
        };
        let theirs = theirs::ProcessingRequest::decode(ours.encode_to_vec().as_slice()).unwrap();
        assert!(theirs.metadata_context.unwrap().filter_metadata.contains_key("n"));
        assert_eq!(theirs.protocol_config.unwrap().response_body_mode, 1);
        let again = ProcessingRequest::decode(
            theirs::ProcessingRequest { request: theirs.request, ..Default::default() }
                .encode_to_vec()
                .as_slice(),
        );
        assert_eq!(again.unwrap().request, Some(event));
    }
}

#[test]
fn attributes_are_read_as_the_proxy_sends_them() {
    let text = google::Value { kind: Some(google::value::Kind::StringValue("batch".to_owned())) };
    let values = google::Struct { fields: [("xds.route_name".to_owned(), text)].into_iter().collect() };
    let sent = theirs::ProcessingRequest {
        attributes: [("envoy.filters.http.ext_proc".to_owned(), values)].into_iter().collect(),
        ..Default::default()
    };
    let read = ProcessingRequest::decode(sent.encode_to_vec().as_slice()).unwrap();
    let [filter] = &read.attributes[..] else { panic!("{read:?}") };
    assert_eq!(filter.key, "envoy.filters.http.ext_proc");
    let value = filter.value.as_ref().unwrap().get("xds.route_name");
    assert_eq!(value, Some(&Kind::Text(b("batch"))));
    let again = theirs::ProcessingRequest::decode(read.encode_to_vec().as_slice()).unwrap();
    assert_eq!(again, sent);
}

#[test]
fn a_header_that_is_not_utf8_does_not_break_the_message() {
    let header = HeaderValue { key: b("x"), value: Bytes::from_static(b"\xff\xfe"), raw_value: Bytes::new() };
    let wire = HeaderMap { headers: vec![header.clone()] }.encode_to_vec();
    assert_eq!(HeaderMap::decode(wire.as_slice()).unwrap().headers, [header]);
}

fn our_common() -> CommonResponse {
    let option = HeaderValueOption {
        header: Some(HeaderValue { key: b("k"), value: Bytes::new(), raw_value: b("v") }),
        append_action: AppendAction::Overwrite.into(),
    };
    CommonResponse {
        header_mutation: Some(HeaderMutation { set_headers: vec![option], remove_headers: vec![b("gone")] }),
        body_mutation: Some(BodyMutation {
            mutation: Some(Mutation::Streamed(StreamedBodyResponse {
                body: b("piece"),
                end_of_stream: true,
            })),
        }),
        clear_route_cache: true,
    }
}

fn check_common(common: &theirs::CommonResponse) {
    use core::header_value_option::HeaderAppendAction;
    assert!(common.clear_route_cache);
    assert_eq!(common.status, 0);
    let headers = common.header_mutation.as_ref().unwrap();
    assert_eq!(headers.remove_headers, ["gone"]);
    let set = &headers.set_headers[0];
    assert_eq!(set.append_action, i32::from(HeaderAppendAction::OverwriteIfExistsOrAdd));
    let header = set.header.as_ref().unwrap();
    assert_eq!((header.key.as_str(), header.raw_value.as_slice()), ("k", &b"v"[..]));
    let Some(theirs::body_mutation::Mutation::StreamedResponse(piece)) =
        common.body_mutation.as_ref().unwrap().mutation.clone()
    else {
        panic!()
    };
    assert_eq!((piece.body.as_slice(), piece.end_of_stream), (&b"piece"[..], true));
}

#[test]
fn every_reply() {
    use theirs::processing_response::Response as R;
    let headers = HeadersResponse { response: Some(our_common()) };
    let body = BodyResponse { response: Some(our_common()) };
    let replies = [
        Reply::RequestHeaders(headers.clone()),
        Reply::ResponseHeaders(headers),
        Reply::RequestBody(body.clone()),
        Reply::ResponseBody(body),
        Reply::RequestTrailers(TrailersResponse {}),
        Reply::ResponseTrailers(TrailersResponse {}),
    ];
    for (index, reply) in replies.into_iter().enumerate() {
        let ours = ProcessingResponse { dynamic_metadata: None, mode_override: None, response: Some(reply) };
        let read: theirs::ProcessingResponse = across(&ours);
        match (index, read.response.unwrap()) {
            (0, R::RequestHeaders(h)) | (1, R::ResponseHeaders(h)) => check_common(&h.response.unwrap()),
            (2, R::RequestBody(b)) | (3, R::ResponseBody(b)) => check_common(&b.response.unwrap()),
            (4, R::RequestTrailers(t)) | (5, R::ResponseTrailers(t)) => assert_eq!(t, Default::default()),
            (index, other) => panic!("{index}: {other:?}"),
        }
    }
}

#[test]
fn an_immediate_response() {
    let immediate = ImmediateResponse {
        status: Some(HttpStatus { code: 429 }),
        headers: our_common().header_mutation,
        body: b("why"),
        grpc_status: Some(GrpcStatus { status: 8 }),
        details: "detail".to_owned(),
    };
    let read: theirs::ProcessingResponse = across(&ProcessingResponse {
        dynamic_metadata: None,
        mode_override: None,
        response: Some(Reply::Immediate(immediate)),
    });
    let Some(theirs::processing_response::Response::ImmediateResponse(read)) = read.response else {
        panic!()
    };
    assert_eq!(read.status.unwrap().code(), kinds::StatusCode::TooManyRequests);
    assert_eq!(read.headers.unwrap().set_headers.len(), 1);
    assert_eq!((read.body.as_slice(), read.details.as_str()), (&b"why"[..], "detail"));
    assert_eq!(read.grpc_status.unwrap().status, 8);
}

#[test]
fn metadata_and_modes_of_a_reply() {
    let mode = ProcessingMode {
        request_header_mode: 1,
        response_header_mode: 2,
        request_body_mode: BodySendMode::BufferedPartial.into(),
        response_body_mode: BodySendMode::FullDuplexStreamed.into(),
        request_trailer_mode: 2,
        response_trailer_mode: 1,
    };
    let mut fields = Struct::default();
    fields.push("k", Kind::Text(b("v")));
    let read: theirs::ProcessingResponse = across(&ProcessingResponse {
        dynamic_metadata: Some(fields),
        mode_override: Some(mode),
        response: None,
    });
    let wanted = filter::ProcessingMode {
        request_header_mode: 1,
        response_header_mode: 2,
        request_body_mode: filter::processing_mode::BodySendMode::BufferedPartial.into(),
        response_body_mode: filter::processing_mode::BodySendMode::FullDuplexStreamed.into(),
        request_trailer_mode: 2,
        response_trailer_mode: 1,
    };
    assert_eq!(read.mode_override, Some(wanted));
    let text = google::value::Kind::StringValue("v".to_owned());
    assert_eq!(read.dynamic_metadata.unwrap().fields["k"], their_value(text));
}

#[test]
fn the_other_forms_of_a_body_mutation_and_the_enums() {
    use theirs::body_mutation::Mutation as M;
    let read: theirs::BodyMutation = across(&BodyMutation { mutation: Some(Mutation::Body(b("all"))) });
    assert_eq!(read.mutation, Some(M::Body(b"all".to_vec())));
    let read: theirs::BodyMutation = across(&BodyMutation { mutation: Some(Mutation::Clear(true)) });
    assert_eq!(read.mutation, Some(M::ClearBody(true)));
    for number in 0..6 {
        let ours = BodySendMode::try_from(number).unwrap();
        let theirs = filter::processing_mode::BodySendMode::try_from(number).unwrap();
        let plain = |name: &str| name.to_ascii_lowercase().replace('_', "");
        assert_eq!(plain(&format!("{ours:?}")), plain(theirs.as_str_name()));
    }
}
