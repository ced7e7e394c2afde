//! A fetched page, in memory that no endpoint keeps between two fetches.

use crate::reuse::{Reusable, Reused, Shelf};
use bytes::Bytes;
use std::ops::Deref;
use std::thread::LocalKey;

/// A larger buffer is freed instead of kept for the next page.
const MOST_KEPT_BYTES: usize = 1024 * 1024;

/// The bytes of a page. One that came in one piece is that piece; the pieces of another are joined in a buffer that the
/// thread's next page uses again. So memory grows with the pages that are under way at once, not with the pool.
#[derive(Debug, Default)]
pub struct Page {
    first: Bytes,
    joined: Option<Reused<Joined>>,
}

#[derive(Debug, Default)]
struct Joined(Vec<u8>);

impl Page {
    /// Adds what came next.
    pub fn push(&mut self, piece: Bytes) {
        match &mut self.joined {
            None if self.first.is_empty() => self.first = piece,
            Some(joined) => joined.0.extend_from_slice(&piece),
            joined @ None => {
                let mut both = Reused::<Joined>::take();
                both.0.extend_from_slice(&self.first);
                both.0.extend_from_slice(&piece);
                self.first = Bytes::new();
                *joined = Some(both);
            }
        }
    }
}

impl Deref for Page {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        self.joined.as_ref().map_or(&*self.first, |joined| &*joined.0)
    }
}

impl Reusable for Joined {
    const MOST_ITEMS: usize = MOST_KEPT_BYTES;
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Joined> = const { Shelf::new() };
        }
        &SHELF
    }
    fn empty(&mut self) {
        self.0.clear();
    }
    fn room(&self) -> usize {
        self.0.capacity()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_its_pieces_in_order_however_many() {
        for pieces in [&[][..], &["a"], &["", "a"], &["ab", "", "c"], &["a", "b", "c", "d"]] {
            let mut page = Page::default();
            pieces.iter().for_each(|piece| page.push(Bytes::from_static(piece.as_bytes())));
            assert_eq!(&*page, pieces.concat().as_bytes());
        }
    }

    #[test]
    fn one_piece_is_not_copied_and_several_use_the_buffer_of_the_page_before() {
        let piece = Bytes::from(vec![7; 100_000]);
        let mut page = Page::default();
        page.push(piece.clone());
        assert_eq!(page.as_ptr(), piece.as_ptr());
        page.push(piece.clone());
        let buffer = page.as_ptr();
        drop(page);
        let mut next = Page::default();
        next.push(piece.slice(..10));
        next.push(piece.slice(..10));
        assert_eq!((next.len(), next.as_ptr()), (20, buffer));
    }
}
