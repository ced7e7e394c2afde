//! What data producers say about the candidates of one request.

use std::any::Any;
use std::fmt;
use std::marker::PhantomData;

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
#[derive(Default)]
pub struct Attributes(Vec<Option<Box<dyn Any + Send + Sync>>>);

impl Attributes {
    /// Writes an attribute.
    pub fn set<T: Any + Send + Sync>(&mut self, id: AttributeId<T>, value: T) {
        if self.0.len() <= id.index {
            self.0.resize_with(id.index + 1, || None);
        }
        self.0[id.index] = Some(Box::new(value));
    }
    /// Reads an attribute.
    pub fn get<T: Any + Send + Sync>(&self, id: AttributeId<T>) -> Option<&T> {
        self.0.get(id.index)?.as_ref()?.downcast_ref()
    }
}

impl fmt::Debug for Attributes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Attributes({} set)", self.0.iter().flatten().count())
    }
}
