//! The sending half of one stream.

use super::prompt::Body;
use super::wire::{Side, body_frame};
use bytes::Bytes;
use hyper::body::Frame;
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::task::{Context, Poll};
use std::time::Instant;
use tokio::sync::mpsc;

/// When the last byte of a request left the generator's hands.
#[derive(Clone, Debug)]
pub struct Sent {
    base: Instant,
    nanos: Arc<AtomicU64>,
}

impl Sent {
    /// Not yet.
    pub fn new() -> Self {
        Self { base: Instant::now(), nanos: Arc::default() }
    }
    /// Now.
    pub fn mark(&self) {
        self.nanos.store(u64::try_from(self.base.elapsed().as_nanos()).unwrap_or(u64::MAX), Relaxed);
    }
    /// When that was; the beginning if it never was.
    pub fn at(&self) -> Instant {
        self.base + std::time::Duration::from_nanos(self.nanos.load(Relaxed))
    }
}

/// What a stream sends: the opening, the pieces of the body, then whatever comes through the channel until its sender
/// goes.
#[derive(Debug)]
pub struct Outgoing {
    opening: Option<Bytes>,
    body: Option<Body>,
    piece: usize,
    sent: Sent,
    rest: mpsc::Receiver<Bytes>,
}

impl Outgoing {
    /// The sending half and the way to add to it. At most `ahead` messages wait in it.
    pub fn new(
        opening: Bytes,
        body: Option<Body>,
        piece: usize,
        sent: Sent,
        ahead: usize,
    ) -> (Self, mpsc::Sender<Bytes>) {
        let (sender, rest) = mpsc::channel(ahead);
        (Self { opening: Some(opening), body, piece, sent, rest }, sender)
    }

    /// As Envoy does it in full duplex: pieces as they are, then an empty message with the end.
    fn next_piece(&mut self) -> Option<Bytes> {
        let body = self.body.as_mut()?;
        let length = body.remaining().min(self.piece);
        let end = length == 0;
        let piece = body_frame(Side::Request, length, end, |out| body.copy(length, out));
        if end {
            self.body = None;
            self.sent.mark();
        }
        Some(piece)
    }
}

impl hyper::body::Body for Outgoing {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        if let Some(opening) = self.opening.take() {
            if self.body.is_none() {
                self.sent.mark();
            }
            return Poll::Ready(Some(Ok(Frame::data(opening))));
        }
        if let Some(piece) = self.next_piece() {
            return Poll::Ready(Some(Ok(Frame::data(piece))));
        }
        self.rest.poll_recv(cx).map(|next| next.map(|bytes| Ok(Frame::data(bytes))))
    }
}

#[cfg(test)]
mod tests {
    use super::super::prompt::{Prompts, Shape};
    use super::*;
    use crate::proto::ext_proc::{Event, ProcessingRequest};
    use http_body_util::BodyExt as _;
    use prost::Message as _;

    #[tokio::test]
    async fn a_body_goes_in_pieces_and_ends_with_an_empty_message() {
        let prompts = Prompts::new(Shape { bytes: 2_500, shared: 0.0, groups: 0, turn_bytes: 0 }, 1, 1);
        let (opening, late) = (Bytes::from_static(b"opening"), Bytes::from_static(b"late"));
        let sent = Sent::new();
        let begun = sent.at();
        let (mut outgoing, more) =
            Outgoing::new(opening.clone(), Some(prompts.body(0, 0)), 1_000, sent.clone(), 1);
        more.try_send(late.clone()).unwrap();
        drop(more);
        assert_eq!(outgoing.frame().await.unwrap().unwrap().into_data().unwrap(), opening);
        let mut pieces = Vec::new();
        for _ in 0..4 {
            assert_eq!(sent.at(), begun);
            let frame = outgoing.frame().await.unwrap().unwrap().into_data().unwrap();
            match ProcessingRequest::decode(frame.slice(5..)).unwrap().request {
                Some(Event::RequestBody(body)) => pieces.push((body.body.len(), body.end_of_stream)),
                other => panic!("{other:?}"),
            }
        }
        assert!(sent.at() > begun);
        assert_eq!(pieces, [(1_000, false), (1_000, false), (500, false), (0, true)]);
        assert_eq!(outgoing.frame().await.unwrap().unwrap().into_data().unwrap(), late);
        assert!(outgoing.frame().await.is_none());
    }
}
