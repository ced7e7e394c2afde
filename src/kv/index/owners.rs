//! Who may hold blocks: one owner for each process that a space knows, and those that went.

use super::Space;
use super::holders::OwnerId;
use super::recency::Recency;
use crate::endpoint::{Incarnation, Occupant};
use parking_lot::Mutex;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::Relaxed};

/// One process in one space.
pub(super) struct Owner {
    pub(super) id: OwnerId,
    pub(super) recency: Mutex<Recency>,
    /// Sequence of the last delta that had one.
    pub(super) sequence: Mutex<u64>,
    /// Use of its oldest entry; meaningless while it has none.
    pub(super) oldest_use: AtomicU32,
    pub(super) entries: AtomicU32,
    pub(super) retired: AtomicBool,
}

struct Tenant {
    incarnation: Incarnation,
    owner: Arc<Owner>,
}

/// What became of the question for an owner.
pub(super) enum Found {
    /// The owner.
    Owner(Arc<Owner>),
    /// A later process is known in the slot.
    Outdated,
    /// Nobody yet.
    Nobody,
}

/// All owners.
#[derive(Default)]
pub(super) struct Owners {
    spaces: Vec<(Space, Vec<Option<Tenant>>)>,
    by_id: Vec<Option<Arc<Owner>>>,
    free: Vec<OwnerId>,
}

impl Owners {
    pub(super) fn find(&self, space: Space, occupant: Occupant) -> Found {
        match self.tenant(space, occupant) {
            Some(t) if t.incarnation == occupant.incarnation => Found::Owner(Arc::clone(&t.owner)),
            Some(t) if t.incarnation > occupant.incarnation => Found::Outdated,
            _ => Found::Nobody,
        }
    }

    /// Id of the owner, only when its process is still the one of the slot.
    pub(super) fn id(&self, space: Space, occupant: Occupant) -> Option<OwnerId> {
        self.tenant(space, occupant).filter(|t| t.incarnation == occupant.incarnation).map(|t| t.owner.id)
    }

    fn tenant(&self, space: Space, occupant: Occupant) -> Option<&Tenant> {
        let (_, slots) = self.spaces.iter().find(|(s, _)| *s == space)?;
        slots.get(occupant.slot.0 as usize)?.as_ref()
    }

    /// A new owner in the place of whoever was there; `None` when all ids are taken. The former one is returned retired.
    pub(super) fn settle(
        &mut self,
        space: Space,
        occupant: Occupant,
    ) -> Option<(Arc<Owner>, Option<Arc<Owner>>)> {
        let id = self.take_id()?;
        let owner = Arc::new(Owner {
            id,
            recency: Mutex::new(Recency::new()),
            sequence: Mutex::new(0),
            oldest_use: AtomicU32::new(0),
            entries: AtomicU32::new(0),
            retired: AtomicBool::new(false),
        });
        self.by_id[usize::from(id)] = Some(Arc::clone(&owner));
        let at = self.spaces.iter().position(|(s, _)| *s == space).unwrap_or_else(|| {
            self.spaces.push((space, Vec::new()));
            self.spaces.len() - 1
        });
        let slots = &mut self.spaces[at].1;
        let slot = occupant.slot.0 as usize;
        if slots.len() <= slot {
            slots.resize_with(slot + 1, || None);
        }
        let tenant = Tenant { incarnation: occupant.incarnation, owner: Arc::clone(&owner) };
        let former = slots[slot].replace(tenant).map(|t| t.owner);
        if let Some(former) = &former {
            former.retired.store(true, Relaxed);
        }
        Some((owner, former))
    }

    /// Retires the owners of `space` whose process is not `live`.
    pub(super) fn retire(&mut self, space: Space, live: impl Fn(Occupant) -> bool) -> Vec<Arc<Owner>> {
        let mut gone = Vec::new();
        for (_, slots) in self.spaces.iter_mut().filter(|(s, _)| *s == space) {
            for (slot, place) in (0_u32..).zip(slots.iter_mut()) {
                let occupant =
                    |t: &Tenant| Occupant { slot: crate::endpoint::Slot(slot), incarnation: t.incarnation };
                if place.as_ref().is_some_and(|t| !live(occupant(t)))
                    && let Some(tenant) = place.take()
                {
                    tenant.owner.retired.store(true, Relaxed);
                    gone.push(tenant.owner);
                }
            }
        }
        self.spaces.retain(|(_, slots)| slots.iter().any(Option::is_some));
        gone
    }

    fn take_id(&mut self) -> Option<OwnerId> {
        if let Some(id) = self.free.pop() {
            return Some(id);
        }
        let id = OwnerId::try_from(self.by_id.len()).ok().filter(|id| *id < OwnerId::MAX)?;
        self.by_id.push(None);
        Some(id)
    }

    /// Gives the id of an owner back that holds nothing any more.
    pub(super) fn forget(&mut self, id: OwnerId) {
        if let Some(place) = self.by_id.get_mut(usize::from(id))
            && place.take().is_some()
        {
            self.free.push(id);
        }
    }

    /// All ids that were ever handed out: one more than the largest.
    pub(super) fn ids(&self) -> usize {
        self.by_id.len()
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Arc<Owner>> {
        self.by_id.iter().flatten()
    }
}
