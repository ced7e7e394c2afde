//! Which session is bound to which endpoint: a bounded map whose entries expire when they are not used.

use crate::clock::Moment;
use crate::endpoint::EndpointKey;
use parking_lot::Mutex;
use std::collections::{HashMap, VecDeque};
use std::time::Duration;

/// Most sessions that are remembered: with about 200 bytes each, 13 MB. Beyond it those go that are unused for longest.
const MOST: usize = 65_536;

/// The map. Sessions are hashes.
pub(super) struct Sessions {
    ttl: Duration,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    bound: HashMap<u128, (EndpointKey, Moment)>,
    /// Uses in order of time; one that is not the last of its session is skipped.
    uses: VecDeque<(u128, Moment)>,
}

impl Sessions {
    /// An empty map whose entries expire `ttl` after their last use.
    pub(super) fn new(ttl: Duration) -> Self {
        Self { ttl, held: Mutex::default() }
    }

    /// Where `session` is bound.
    pub(super) fn get(&self, session: u128, now: Moment) -> Option<EndpointKey> {
        let held = self.held.lock();
        let (key, used) = held.bound.get(&session)?;
        (now.since(*used) < self.ttl).then(|| key.clone())
    }

    /// Notes that a request of `session` goes to `chosen`. The session is bound there, unless it is bound to another
    /// endpoint that `could_serve`.
    pub(super) fn bind(
        &self,
        session: u128,
        chosen: &EndpointKey,
        could_serve: impl Fn(&EndpointKey) -> bool,
        now: Moment,
    ) {
        let mut held = self.held.lock();
        let held = &mut *held;
        if let Some((bound, used)) = held.bound.get(&session) {
            let valid = now.since(*used) < self.ttl;
            if valid && bound != chosen && could_serve(bound) {
                return;
            }
        }
        held.bound.insert(session, (chosen.clone(), now));
        held.uses.push_back((session, now));
        held.forget(now, self.ttl);
    }
}

impl Held {
    fn forget(&mut self, now: Moment, ttl: Duration) {
        while let Some((session, used)) = self.uses.front().copied() {
            let last = self.bound.get(&session).is_some_and(|(_, at)| *at == used);
            if last && now.since(used) < ttl && self.bound.len() <= MOST {
                break;
            }
            self.uses.pop_front();
            if last {
                self.bound.remove(&session);
            }
        }
        if self.uses.len() > 2 * self.bound.len() + 64 {
            let bound = &self.bound;
            self.uses.retain(|(session, used)| bound.get(session).is_some_and(|(_, at)| at == used));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> EndpointKey {
        EndpointKey { namespace: "default".into(), name: name.into(), rank: 0 }
    }

    #[test]
    fn bindings_follow_the_catalogue() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let at = |seconds: u64| Moment::from_nanos(1).plus(Duration::from_secs(seconds));
        let (a, b) = (key("a"), key("b"));
        assert_eq!(sessions.get(1, at(0)), None);
        sessions.bind(1, &a, |_| true, at(0));
        assert_eq!(sessions.get(1, at(0)), Some(a.clone()));
        sessions.bind(1, &b, |_| true, at(1));
        assert_eq!(sessions.get(1, at(1)), Some(a.clone()));
        sessions.bind(1, &b, |bound| *bound != a, at(2));
        assert_eq!(sessions.get(1, at(2)), Some(b.clone()));
        sessions.bind(1, &b, |_| true, at(50));
        assert_eq!(sessions.get(1, at(100)), Some(b));
        assert_eq!(sessions.get(1, at(170)), None);
    }

    #[test]
    fn the_map_stays_bounded() {
        let sessions = Sessions::new(Duration::from_secs(60));
        let mut now = Moment::from_nanos(1);
        for session in 0..(MOST as u128 + 500) {
            now = now.plus(Duration::from_nanos(10));
            sessions.bind(session, &key("a"), |_| true, now);
            sessions.bind(MOST as u128 * 2, &key("b"), |_| true, now);
        }
        let held = sessions.held.lock();
        assert!(held.bound.len() <= MOST && held.uses.len() <= 2 * MOST + 64);
        assert!(held.bound.contains_key(&(MOST as u128 * 2)) && !held.bound.contains_key(&0));
    }
}
