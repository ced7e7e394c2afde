//! What data producers say about the candidates of one request.

use super::Candidates;
use crate::reuse::{Reusable, Shelf};
use std::any::Any;
use std::fmt;
use std::marker::PhantomData;
use std::sync::Arc;
use std::thread::LocalKey;

/// Place of an attribute of type `T`, resolved from (kind, producer name) when the plan is built.
pub struct AttributeId<T> {
    index: usize,
    kind: PhantomData<fn() -> T>,
}

impl<T> AttributeId<T> {
    /// The place with this index. Only the plan builder makes these, so that one index has one type.
    pub fn new(index: usize) -> Self {
        Self { index, kind: PhantomData }
    }
}

impl<T> Clone for AttributeId<T> {
    fn clone(&self) -> Self {
        *self
    }
}
impl<T> Copy for AttributeId<T> {}
impl<T> fmt::Debug for AttributeId<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AttributeId({})", self.index)
    }
}

/// Attributes of one request's candidates. Reading what nobody wrote gives `None`.
///
/// Values that an earlier request left are still there, unseen: [`Attributes::spare`] hands one to its producer, which
/// then fills memory that is there already.
#[derive(Default)]
pub struct Attributes {
    slots: Vec<Option<Slot>>,
    /// Read where these have nothing.
    beneath: Option<Arc<Beneath>>,
}

/// Candidates of which others are made; see [`Candidates::over`].
pub(super) type Beneath = dyn AsRef<Candidates> + Send + Sync;

struct Slot {
    is_set: bool,
    value: Box<dyn Any + Send + Sync>,
}

impl Reusable for Attributes {
    fn shelf() -> &'static LocalKey<Shelf<Self>> {
        thread_local! {
            static SHELF: Shelf<Attributes> = const { Shelf::new() };
        }
        &SHELF
    }
    fn empty(&mut self) {
        self.slots.iter_mut().flatten().for_each(|slot| slot.is_set = false);
        self.beneath = None;
    }
    fn room(&self) -> usize {
        self.slots.capacity()
    }
}

impl Attributes {
    /// Reads what these have not from `beneath`.
    pub(super) fn lay_over(&mut self, beneath: Arc<Beneath>) {
        self.beneath = Some(beneath);
    }
    /// Writes an attribute.
    pub fn set<T: Any + Send + Sync>(&mut self, id: AttributeId<T>, value: T) {
        if self.slots.len() <= id.index {
            self.slots.resize_with(id.index + 1, || None);
        }
        let slot = &mut self.slots[id.index];
        if let Some(Slot { is_set, value: old }) = slot
            && let Some(old) = old.downcast_mut::<T>()
        {
            *old = value;
            *is_set = true;
        } else {
            *slot = Some(Slot { is_set: true, value: Box::new(value) });
        }
    }
    /// Reads an attribute.
    pub fn get<T: Any + Send + Sync>(&self, id: AttributeId<T>) -> Option<&T> {
        let own = self.slots.get(id.index).and_then(Option::as_ref).filter(|slot| slot.is_set);
        match (own, &self.beneath) {
            (Some(own), _) => own.value.downcast_ref(),
            (None, Some(beneath)) => (**beneath).as_ref().attributes.get(id),
            (None, None) => None,
        }
    }
    /// All values of a type that were written here, to be changed.
    pub fn all_mut<T: Any>(&mut self) -> impl Iterator<Item = &mut T> {
        self.slots
            .iter_mut()
            .flatten()
            .filter(|slot| slot.is_set)
            .filter_map(|slot| slot.value.downcast_mut())
    }
    /// A value to be filled and then [`set`](Attributes::set): what an earlier request had there, whatever it holds, or
    /// the default.
    pub fn spare<T: Any + Send + Sync + Default>(&mut self, id: AttributeId<T>) -> T {
        let old = self.slots.get_mut(id.index).and_then(Option::as_mut);
        let Some(slot) = old.filter(|slot| !slot.is_set) else { return T::default() };
        slot.value.downcast_mut().map(std::mem::take).unwrap_or_default()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes({} set)", self.slots.iter().flatten().filter(|slot| slot.is_set).count())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::reuse::Reused;

    #[test]
    fn what_an_earlier_request_wrote_is_memory_and_nothing_more() {
        let (numbers, name) = (AttributeId::<Vec<u32>>::new(2), AttributeId::<String>::new(2));
        let mut attributes = Reused::<Attributes>::take();
        attributes.set(numbers, vec![1, 2]);
        assert_eq!(attributes.get(numbers), Some(&vec![1, 2]));
        assert!(attributes.spare(numbers).is_empty(), "a value that is set is not to spare");
        drop(attributes);
        let mut attributes = Reused::<Attributes>::take();
        assert_eq!(attributes.get(numbers), None);
        assert_eq!(attributes.spare(numbers), [1, 2]);
        attributes.set(name, "another type".to_owned());
        assert_eq!(attributes.get(numbers), None);
        assert_eq!(attributes.get(name).map(String::as_str), Some("another type"));
    }
}
