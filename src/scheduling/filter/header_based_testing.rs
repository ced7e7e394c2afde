//! `header-based-testing-filter`: the request's own header says which endpoints may serve it. For tests only: whoever can
//! send the header chooses the endpoint.
//!
//! The header `test-epp-endpoint-selection` lists `ip` or `ip:port`, separated by commas, IPv6 with a port in brackets.
//! The endpoints are kept in the order of the header, each once. Without the header, or when nothing of it is a
//! candidate, none is left and the request is refused. It has no parameters and ignores any.
//!
//! ```yaml
//! - type: header-based-testing-filter
//! ```

use crate::endpoint::{Host, HostPort};
use crate::plugin::{BuildContext, BuildError, Cycle, Filter, PluginType, Roles, Shortlist, Stability};
use crate::pool::Position;
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: "header-based-testing-filter", stability: Stability::Beta, build };

const HEADER: &str = "test-epp-endpoint-selection";

struct HeaderFilter;

fn build(_: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    Ok(Roles { filter: Some(Arc::new(HeaderFilter)), ..Roles::default() })
}

/// A listed host, with its port when it names one; `None` when it is no address.
fn read(entry: &str) -> Option<(Host, Option<u16>)> {
    let entry = entry.trim();
    match entry.parse::<HostPort>() {
        Ok(HostPort { host, port }) => Some((host, Some(port))),
        Err(_) => Some((entry.parse().ok()?, None)),
    }
}

impl Filter for HeaderFilter {
    fn filter(&self, cycle: &Cycle<'_>, shortlist: &mut Shortlist) {
        let listed = cycle.request.headers.get(HEADER).unwrap_or_default();
        let mut wanted: Vec<Position> = Vec::new();
        for (host, port) in listed.split(',').filter_map(read) {
            for p in shortlist.positions() {
                let address = &cycle.candidates.endpoint(*p).address;
                let meant = address.host == host && port.is_none_or(|port| address.port == port);
                if meant && !wanted.contains(p) {
                    wanted.push(*p);
                }
            }
        }
        shortlist.replace(&wanted);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::Prompt;
    use crate::scheduling::testing::{Row, freeze, kept, request, request_with};
    use serde_json::json;

    #[test]
    fn selections_of_the_catalogue() {
        let candidates = freeze(&vec![Row::default(); 3]);
        let cases = [
            ("10.0.0.99", vec![]),
            ("10.0.0.1:9999", vec![]),
            ("10.0.0.1", vec![0]),
            ("10.0.0.2:8000", vec![1]),
            ("10.0.0.3:8000, 10.0.0.2, nonsense, 10.0.0.3,10.0.0.2:8000", vec![2, 1]),
            ("", vec![]),
        ];
        for (header, wanted) in cases {
            assert_eq!(
                kept(&TYPE, json!({"any": 1}), &request_with(HEADER, header), &candidates),
                wanted,
                "{header}"
            );
        }
        assert!(kept(&TYPE, json!({}), &request("m", Prompt::None), &candidates).is_empty());
    }

    #[test]
    fn addresses_of_either_family_are_read() {
        assert_eq!(read(" [fd00::1]:3002"), Some(("fd00::1".parse().unwrap(), Some(3002))));
        assert_eq!(read("fd00::2"), Some(("fd00::2".parse().unwrap(), None)));
        assert_eq!(read("host name"), None);
    }
}
