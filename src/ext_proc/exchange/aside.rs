//! A response that no decision belongs to: the proxy's own answer, or a stream that shows responses only.

use super::super::mode::BodyMode;
use super::super::reply::{self, Side};
use super::{Core, OutOfOrder, Phase, Step, Turn};
use crate::director::Router;
use crate::proto::ext_proc::Event;

/// How far the response is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    Nothing,
    Headers,
    Ended,
}

/// The response passes unchanged.
#[derive(Clone, Copy, Debug)]
pub(super) struct Aside {
    progress: Progress,
    /// Whether the stream began with a request, whose rest may still come.
    asked: bool,
}

impl Aside {
    /// The stream shows no request.
    pub(super) fn unasked() -> Self {
        Self { progress: Progress::Nothing, asked: false }
    }

    /// The proxy answered before an engine was asked.
    pub(super) fn instead_of_the_engine() -> Self {
        Self { progress: Progress::Nothing, asked: true }
    }

    pub(super) fn on_event<D: Router>(mut self, core: &mut Core<D>, event: Event) -> Turn<D::Route> {
        let echoed = core.modes.response == BodyMode::FullDuplex;
        match event {
            Event::ResponseHeaders(headers) if self.progress == Progress::Nothing => {
                core.out.push(reply::headers(Side::Response, None));
                self.progress = if headers.end_of_stream { Progress::Ended } else { Progress::Headers };
            }
            Event::ResponseBody(body) if self.progress != Progress::Ended => {
                let ends = body.end_of_stream || body.end_of_stream_without_message;
                if echoed {
                    core.out.chunk(Side::Response, body.body, ends);
                } else {
                    core.out.push(reply::body(Side::Response, None));
                }
                self.progress = if ends { Progress::Ended } else { Progress::Headers };
            }
            Event::ResponseBody(body) if body.body.is_empty() => {
                if !echoed {
                    core.out.push(reply::body(Side::Response, None));
                }
            }
            Event::ResponseTrailers(_) if self.progress != Progress::Ended => {
                core.out.push(reply::trailers(Side::Response));
                self.progress = Progress::Ended;
            }
            Event::RequestBody(_) | Event::RequestTrailers(_) if self.asked => {}
            other => return Err(OutOfOrder::new(&other, "in a response that no decision belongs to")),
        }
        Ok((Phase::Aside(self), Step::Wait))
    }
}
