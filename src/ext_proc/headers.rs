//! Between the proxy's header lists and ours.

use crate::proto::ext_proc::{AppendAction, HeaderMap, HeaderMutation, HeaderValue, HeaderValueOption};
use crate::request::{CONTROL_HEADERS, Headers};
use bytes::Bytes;

/// Reads a header list: the raw value where it is filled, else the text one. A name that is not UTF-8 cannot mean
/// anything here and is left out; values may be any bytes.
pub fn read(map: Option<HeaderMap>) -> Headers {
    let mut headers = Headers::default();
    for header in map.map(|m| m.headers).unwrap_or_default() {
        let Ok(name) = std::str::from_utf8(&header.key) else { continue };
        let value = if header.raw_value.is_empty() { header.value } else { header.raw_value };
        headers.push(name, value);
    }
    headers
}

/// The HTTP status of a response.
pub fn status(headers: &Headers) -> Option<u16> {
    headers.get(":status")?.trim().parse().ok()
}

/// What of a request's headers is still needed after they were handed to the director.
#[derive(Debug, Default)]
pub struct Facts {
    /// Whether it is a gRPC request, whose refusals carry a gRPC status.
    pub grpc: bool,
    /// Control headers that the client sent, with their values.
    pub control: Headers,
    /// The length that the client announced.
    pub content_length: Option<u64>,
    /// CONNECT or an upgrade: what follows is no body and may never end.
    pub tunnel: bool,
    /// A header that was taken out before anybody looked, and that the proxy still has.
    pub taken_out: Option<Bytes>,
}

impl Facts {
    /// Looks at the headers of a request.
    pub fn of(headers: &Headers) -> Self {
        let mut facts = Self::default();
        for (name, value) in headers.iter() {
            match name {
                "content-type" => facts.grpc = value.starts_with(b"application/grpc"),
                "content-length" => {
                    facts.content_length =
                        std::str::from_utf8(value).ok().and_then(|v| v.trim().parse().ok());
                }
                ":method" => facts.tunnel |= value.as_ref() == b"CONNECT",
                // A client that offers HTTP/2 this way sends its body all the same, and proxies ignore the offer.
                "upgrade" => facts.tunnel |= !value.is_empty() && !value.eq_ignore_ascii_case(b"h2c"),
                name if name.starts_with("x-") && CONTROL_HEADERS.contains(&name) => {
                    facts.control.push(name, value.clone());
                }
                _ => {}
            }
        }
        facts
    }
}

/// Collects header changes for one reply.
#[derive(Debug, Default)]
pub struct Changes(HeaderMutation);

impl Changes {
    /// Sets a header, whatever it was before. A value that could end the header line is left out and said.
    pub fn set(&mut self, name: impl Into<Bytes>, value: impl Into<Bytes>) {
        let (key, raw_value) = (name.into(), value.into());
        if memchr::memchr3(b'\r', b'\n', 0, &raw_value).is_some() || key.is_empty() {
            let name = String::from_utf8_lossy(&key);
            tracing::warn!(header = %name, "a header is not set: its value holds a line break or a zero byte");
            return;
        }
        self.0.set_headers.push(HeaderValueOption {
            header: Some(HeaderValue { key, value: Bytes::new(), raw_value }),
            append_action: AppendAction::Overwrite.into(),
        });
    }
    /// Takes a header out, unless this reply sets it.
    pub fn remove(&mut self, name: impl Into<Bytes>) {
        let name = name.into();
        let set = self.0.set_headers.iter().any(|h| h.header.as_ref().is_some_and(|h| h.key == name));
        if !set && !self.0.remove_headers.contains(&name) {
            self.0.remove_headers.push(name);
        }
    }
    /// The message; `None` when nothing changes.
    pub fn into_message(self) -> Option<HeaderMutation> {
        (!self.0.set_headers.is_empty() || !self.0.remove_headers.is_empty()).then_some(self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header(key: &'static [u8], value: &'static [u8], raw: &'static [u8]) -> HeaderValue {
        HeaderValue {
            key: Bytes::from_static(key),
            value: Bytes::from_static(value),
            raw_value: Bytes::from_static(raw),
        }
    }

    #[test]
    fn raw_values_come_first_and_names_that_are_no_text_are_left_out() {
        let map = HeaderMap {
            headers: vec![
                header(b"X-A", b"text", b"raw"),
                header(b":status", b"204", b""),
                header(b"x-\xff", b"1", b""),
                header(b"x-b", b"", b"\xff\xfe"),
            ],
        };
        let headers = read(Some(map));
        assert_eq!(headers.get("x-a"), Some("raw"));
        assert_eq!(status(&headers), Some(204));
        assert_eq!((headers.get("x-b"), headers.iter().count()), (None, 3));
        assert_eq!(read(None).iter().count(), 0);
    }

    #[test]
    fn facts_are_read_from_request_headers() {
        let of = |pairs: &[(&str, &'static str)]| {
            let mut headers = Headers::default();
            for (name, value) in pairs {
                headers.push(name, Bytes::from_static(value.as_bytes()));
            }
            Facts::of(&headers)
        };
        let plain =
            of(&[(":method", "POST"), ("content-length", "12"), ("content-type", "application/json")]);
        assert_eq!((plain.tunnel, plain.grpc, plain.content_length), (false, false, Some(12)));
        assert!(of(&[(":method", "CONNECT")]).tunnel);
        assert!(of(&[("upgrade", "websocket")]).tunnel);
        assert!(!of(&[("upgrade", "h2c")]).tunnel);
        assert!(of(&[("content-type", "application/grpc+proto")]).grpc);
        assert_eq!(of(&[("content-length", "-1")]).content_length, None);
        let forged = of(&[("x-gateway-destination-endpoint", "10.0.0.1:1"), ("x-mine", "1")]);
        assert_eq!(
            forged.control.iter().map(|(n, _)| n).collect::<Vec<_>>(),
            ["x-gateway-destination-endpoint"]
        );
    }

    #[test]
    fn line_breaks_are_never_sent_and_set_wins_over_remove() {
        let mut changes = Changes::default();
        changes.set("x-a", "1");
        changes.set("x-b", "1\r\nx-c: 2");
        changes.remove("x-a");
        changes.remove("x-d");
        changes.remove("x-d");
        let message = changes.into_message().unwrap();
        assert_eq!(message.set_headers.len(), 1);
        assert_eq!(message.set_headers[0].append_action, 2);
        assert_eq!(message.remove_headers, [Bytes::from_static(b"x-d")]);
        assert_eq!(Changes::default().into_message(), None);
    }
}
