//! Replies that wait to be pulled.

use super::super::budget::Permit;
use super::super::reply::{self, MAX_PIECE, Side};
use crate::proto::ext_proc::ProcessingResponse;
use crate::proto::metadata::Struct;
use crate::request::Body;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// Replies in order. Bodies are cut into pieces only when they are pulled, so a large one costs no list of messages.
#[derive(Debug)]
pub(super) struct Outbox {
    items: VecDeque<Item>,
    /// The request body's bytes in `items`.
    permit: Permit,
    /// Goes with the last of the replies that wait.
    metadata: Option<Struct>,
}

#[derive(Debug)]
enum Item {
    Message(Box<ProcessingResponse>),
    Pieces { side: Side, chunks: VecDeque<Bytes>, left: usize, end_of_stream: bool },
}

impl Outbox {
    pub(super) fn new(permit: Permit) -> Self {
        Self { items: VecDeque::new(), permit, metadata: None }
    }

    pub(super) fn push(&mut self, message: ProcessingResponse) {
        self.items.push_back(Item::Message(Box::new(message)));
    }

    /// Pieces of a request body. Without `end_of_stream` an empty body gives none.
    pub(super) fn request_body(&mut self, body: Body, permit: Permit, end_of_stream: bool) {
        self.permit.absorb(permit);
        let left = body.len();
        if left > 0 || end_of_stream {
            let chunks = body.pieces(usize::MAX).collect();
            self.items.push_back(Item::Pieces { side: Side::Request, chunks, left, end_of_stream });
        }
    }

    /// Pieces of a chunk that passes through.
    pub(super) fn chunk(&mut self, side: Side, chunk: Bytes, end_of_stream: bool) {
        if !chunk.is_empty() && chunk.len() <= MAX_PIECE {
            return self.push(reply::piece(side, chunk, end_of_stream));
        }
        let left = chunk.len();
        if left > 0 || end_of_stream {
            let chunks = VecDeque::from([chunk]);
            self.items.push_back(Item::Pieces { side, chunks, left, end_of_stream });
        }
    }

    /// Metadata for the last of the replies that wait.
    pub(super) fn end_with(&mut self, metadata: Option<Struct>) {
        self.metadata = metadata;
    }

    /// The next reply.
    pub(super) fn pop(&mut self) -> Option<ProcessingResponse> {
        let mut reply = self.pop_bare()?;
        if self.items.is_empty()
            && let Some(metadata) = self.metadata.take()
        {
            reply.dynamic_metadata = Some(metadata);
        }
        Some(reply)
    }

    fn pop_bare(&mut self) -> Option<ProcessingResponse> {
        let (side, piece, last) = match self.items.front_mut()? {
            Item::Message(_) => match self.items.pop_front() {
                Some(Item::Message(message)) => return Some(*message),
                _ => return None,
            },
            Item::Pieces { side, chunks, left, end_of_stream } => {
                let piece = next_piece(chunks, *left);
                *left -= piece.len();
                (*side, piece, (*left == 0).then_some(*end_of_stream))
            }
        };
        if last.is_some() {
            self.items.pop_front();
        }
        if side == Side::Request {
            self.permit.give_back(piece.len());
        }
        if self.items.is_empty() {
            self.permit.give_all_back();
        }
        Some(reply::piece(side, piece, last.unwrap_or(false)))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.items.is_empty()
    }

    /// Forgets what was not pulled.
    pub(super) fn clear(&mut self) {
        self.items.clear();
        self.metadata = None;
        self.permit.give_all_back();
    }
}

/// Takes the next piece: always full but the last, whatever the chunks are, so that replies do not depend on how a body
/// was split. Bytes are copied only where a piece reaches over the end of a chunk.
fn next_piece(chunks: &mut VecDeque<Bytes>, left: usize) -> Bytes {
    let size = left.min(MAX_PIECE);
    match chunks.front_mut() {
        None => Bytes::new(),
        Some(front) if front.len() > size => front.split_to(size),
        Some(front) if front.len() == size => chunks.pop_front().unwrap_or_default(),
        Some(_) => {
            let mut piece = BytesMut::with_capacity(size);
            while let Some(front) = chunks.front_mut().filter(|_| piece.len() < size) {
                let part = front.split_to(front.len().min(size - piece.len()));
                piece.extend_from_slice(&part);
                if front.is_empty() {
                    chunks.pop_front();
                }
            }
            piece.freeze()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ext_proc::budget::Budget;
    use crate::proto::ext_proc::{Mutation, Reply};
    use proptest::prelude::*;

    fn pieces(outbox: &mut Outbox) -> Vec<(Bytes, bool)> {
        let mut out = Vec::new();
        while let Some(message) = outbox.pop() {
            let Some(Reply::RequestBody(body)) = message.response else { panic!("{message:?}") };
            let mutation = body.response.unwrap().body_mutation.unwrap().mutation;
            let Some(Mutation::Streamed(piece)) = mutation else { panic!() };
            out.push((piece.body, piece.end_of_stream));
        }
        out
    }

    fn cut(bytes: &[u8], chunk: usize, end_of_stream: bool) -> Vec<(Bytes, bool)> {
        let budget = Budget::new(usize::MAX);
        let mut permit = Permit::new(std::sync::Arc::clone(&budget));
        let mut body = Body::default();
        bytes.chunks(chunk).for_each(|c| body.push(Bytes::copy_from_slice(c)));
        assert!(permit.take(bytes.len()));
        let mut outbox = Outbox::new(Permit::new(std::sync::Arc::clone(&budget)));
        outbox.request_body(body, permit, end_of_stream);
        let out = pieces(&mut outbox);
        assert_eq!(budget.used(), 0);
        out
    }

    #[test]
    fn the_borders_of_pieces() {
        for (size, wanted) in [(0, 1), (1, 1), (62_000, 1), (62_001, 2), (125_000, 3)] {
            let out = cut(&vec![7; size], 100_000, true);
            assert_eq!(out.len(), wanted, "{size}");
            assert!(out.iter().rev().skip(1).all(|(piece, end)| piece.len() == 62_000 && !end));
            assert!(out.last().unwrap().1);
        }
        assert!(cut(b"", 1, false).is_empty());
        assert_eq!(cut(b"ab", 1, false), [(Bytes::from_static(b"ab"), false)]);
    }

    proptest! {
        #[test]
        fn pieces_do_not_depend_on_chunks(size in 0usize..300_000, a in 1usize..200_000, b in 1usize..5_000) {
            let bytes: Vec<u8> = (0..size).map(|i| (i % 253) as u8).collect();
            prop_assert_eq!(cut(&bytes, a, true), cut(&bytes, b, true));
        }
    }
}
