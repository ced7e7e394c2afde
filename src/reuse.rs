//! Memory of values that every request needs and drops: what is dropped on a thread is used again on that thread.
//!
//! A decision fills some twenty columns as long as the pool. [`Reused`] holds such a value; dropping it empties it and
//! lays it on its thread's shelf with the memory that it grew to, and the next [`Reused::take`] on that thread finds it
//! there. Whoever keeps a value keeps its memory; the thread that drops it in the end has it. A shelf holds at most
//! [`MOST_KEPT`] values of a type, none with room for more than [`Reusable::MOST_ITEMS`] items in one column.

use std::cell::Cell;
use std::fmt;
use std::ops::{Deref, DerefMut};
use std::thread::LocalKey;

/// Most values of one type that a thread keeps.
pub const MOST_KEPT: usize = 8;

/// [`Reusable::MOST_ITEMS`] of a type that says nothing else.
pub const MOST_ITEMS: usize = 1 << 16;

/// A value whose memory is worth keeping.
pub trait Reusable: Default + 'static {
    /// A value with room for more items in its longest column is freed instead of kept.
    const MOST_ITEMS: usize = MOST_ITEMS;
    /// Where a thread keeps values of this type: a `thread_local!` of the type's own.
    fn shelf() -> &'static LocalKey<Shelf<Self>>;
    /// Forgets everything and keeps the memory.
    fn empty(&mut self);
    /// Items that the longest column has room for; a value with room for none is not kept.
    fn room(&self) -> usize;
}

/// Values that one thread has to spare.
pub struct Shelf<T>(Cell<Vec<T>>);

impl<T> Shelf<T> {
    /// An empty one.
    pub const fn new() -> Self {
        Self(Cell::new(Vec::new()))
    }

    fn take(&self) -> Option<T> {
        let mut spare = self.0.take();
        let found = spare.pop();
        self.0.set(spare);
        found
    }

    fn put(&self, value: T) {
        let mut spare = self.0.take();
        if spare.len() < MOST_KEPT {
            spare.push(value);
        }
        self.0.set(spare);
    }
}

impl<T> Default for Shelf<T> {
    fn default() -> Self {
        Self::new()
    }
}

/// A `T` whose memory goes back to the shelf of the thread that drops it.
pub struct Reused<T: Reusable>(T);

impl<T: Reusable> Reused<T> {
    /// An empty value, with memory from this thread's shelf where there is some.
    pub fn take() -> Self {
        Self(T::shelf().try_with(Shelf::take).ok().flatten().unwrap_or_default())
    }
}

/// An empty value without any memory.
impl<T: Reusable> Default for Reused<T> {
    fn default() -> Self {
        Self(T::default())
    }
}

impl<T: Reusable> Drop for Reused<T> {
    fn drop(&mut self) {
        if (1..=T::MOST_ITEMS).contains(&self.0.room()) {
            let mut value = std::mem::take(&mut self.0);
            value.empty();
            // While the thread ends there may be no shelf any more: then the value is freed.
            let _ = T::shelf().try_with(|shelf| shelf.put(value));
        }
    }
}

impl<T: Reusable> Deref for Reused<T> {
    type Target = T;
    fn deref(&self) -> &T {
        &self.0
    }
}

impl<T: Reusable> DerefMut for Reused<T> {
    fn deref_mut(&mut self) -> &mut T {
        &mut self.0
    }
}

impl<T: Reusable + Clone> Clone for Reused<T> {
    fn clone(&self) -> Self {
        let mut copy = Self::take();
        copy.0.clone_from(&self.0);
        copy
    }
}

impl<T: Reusable + PartialEq> PartialEq for Reused<T> {
    fn eq(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl<T: Reusable + Eq> Eq for Reused<T> {}

impl<T: Reusable + fmt::Debug> fmt::Debug for Reused<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Gives a type with one list inside its shelf.
#[macro_export]
macro_rules! reusable_list {
    ($type:ty, $($list:tt)+) => {
        impl $crate::reuse::Reusable for $type {
            fn shelf() -> &'static std::thread::LocalKey<$crate::reuse::Shelf<Self>> {
                thread_local! {
                    static SHELF: $crate::reuse::Shelf<$type> = const { $crate::reuse::Shelf::new() };
                }
                &SHELF
            }
            fn empty(&mut self) {
                self.$($list)+.clear();
            }
            fn room(&self) -> usize {
                self.$($list)+.capacity()
            }
        }
    };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Clone, Debug, Default, PartialEq)]
    struct Numbers(Vec<u32>);

    reusable_list!(Numbers, 0);

    fn spare() -> usize {
        Numbers::shelf().with(|shelf| {
            let spare = shelf.0.take();
            let n = spare.len();
            shelf.0.set(spare);
            n
        })
    }

    #[test]
    fn memory_comes_back_empty() {
        let mut first = Reused::<Numbers>::take();
        first.0.0.extend([1, 2, 3]);
        let memory = first.0.0.as_ptr();
        drop(first);
        let second = Reused::<Numbers>::take();
        assert_eq!((second.0.0.as_ptr(), second.0.0.len()), (memory, 0));
    }

    #[test]
    fn a_copy_is_equal_and_in_memory_of_its_own() {
        let mut first = Reused::<Numbers>::take();
        first.0.0.push(7);
        let copy = first.clone();
        assert_eq!(copy, first);
        assert_ne!(copy.0.0.as_ptr(), first.0.0.as_ptr());
    }

    #[test]
    fn little_is_kept_and_nothing_large() {
        let of = |n| {
            let mut value = Reused::<Numbers>::default();
            value.0.0.reserve_exact(n);
            value
        };
        drop(of(0));
        drop(of(MOST_ITEMS + 1));
        assert_eq!(spare(), 0);
        drop((0..MOST_KEPT + 3).map(|_| of(4)).collect::<Vec<_>>());
        assert_eq!(spare(), MOST_KEPT);
    }

    #[test]
    fn the_thread_that_drops_a_value_has_its_memory() {
        let mut value = Reused::<Numbers>::take();
        value.0.0.push(1);
        let there = std::thread::spawn(move || {
            drop(value);
            spare()
        });
        assert_eq!(there.join().unwrap(), 1);
        assert_eq!(spare(), 0);
    }
}
