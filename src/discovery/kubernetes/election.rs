//! Who leads: the rules of a Lease as a state machine. Time is handed in; nothing is asked or written here.
//!
//! As everywhere in Kubernetes, nobody compares clocks: a holder counts as gone when its record has not changed for the
//! lease's duration since *we* first saw it. A leader that could not renew stops leading before anybody else may begin.

use std::time::Duration;

/// The times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Terms {
    /// A record that does not change for so long is free to take.
    pub duration: Duration,
    /// A leader that has not renewed for so long leads no more; shorter than the duration.
    pub renew_within: Duration,
    /// Time between two tries.
    pub retry: Duration,
}

impl Default for Terms {
    fn default() -> Self {
        Self {
            duration: Duration::from_secs(15),
            renew_within: Duration::from_secs(10),
            retry: Duration::from_secs(2),
        }
    }
}

/// What stands in a Lease.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who holds it; empty when it was released.
    pub holder: String,
    /// How often it went to another holder.
    pub transitions: i32,
    /// Its version, which changes with every write.
    pub version: String,
}

/// What to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Create the Lease in our name.
    Create,
    /// Renew our own record.
    Renew,
    /// Take over, as holder number `transitions`.
    Take {
        /// The count to write.
        transitions: i32,
    },
    /// Nothing: another one holds it.
    Wait,
}

/// One candidate's view. Times are since any fixed moment.
#[derive(Debug)]
pub struct Election {
    me: String,
    terms: Terms,
    /// The last record seen, and when it was seen first.
    observed: Option<(Record, Duration)>,
    /// When the last write that made or kept us leader was begun.
    held_since: Option<Duration>,
}

impl Election {
    /// A candidate called `me`.
    pub fn new(me: impl Into<String>, terms: Terms) -> Self {
        Self { me: me.into(), terms, observed: None, held_since: None }
    }

    /// What to do about the Lease as it was read at `now`; `None` when there is none.
    pub fn decide(&mut self, now: Duration, seen: Option<Record>) -> Action {
        let Some(record) = seen else {
            self.observed = None;
            self.held_since = None;
            return Action::Create;
        };
        let seen_at = match &self.observed {
            Some((known, at)) if *known == record => *at,
            _ => now,
        };
        let (holder, transitions) = (record.holder.clone(), record.transitions);
        self.observed = Some((record, seen_at));
        if holder == self.me {
            return Action::Renew;
        }
        // Somebody else wrote its name: whatever we believed is over.
        self.held_since = None;
        if holder.is_empty() || now >= seen_at + self.terms.duration {
            return Action::Take { transitions: transitions.saturating_add(1) };
        }
        Action::Wait
    }

    /// A write that was begun at `begun` succeeded.
    pub fn wrote(&mut self, begun: Duration) {
        self.held_since = Some(begun);
    }

    /// Whether we lead at `now`.
    pub fn leads(&self, now: Duration) -> bool {
        self.held_since.is_some_and(|since| now < since + self.terms.renew_within)
    }

    /// When leading ends unless it is renewed.
    pub fn leads_until(&self) -> Option<Duration> {
        self.held_since.map(|since| since + self.terms.renew_within)
    }

    /// Stops being a candidate; whether there is a record of ours to release.
    pub fn resign(&mut self) -> bool {
        self.held_since.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const S: fn(u64) -> Duration = Duration::from_secs;

    fn record(holder: &str, version: &str) -> Record {
        Record { holder: holder.to_owned(), transitions: 3, version: version.to_owned() }
    }

    #[test]
    fn the_first_one_creates_renews_and_leads_until_the_deadline() {
        let mut a = Election::new("a", Terms::default());
        assert_eq!(a.decide(S(0), None), Action::Create);
        assert!(!a.leads(S(0)), "not before the write succeeded");
        a.wrote(S(0));
        assert!(a.leads(S(9)) && !a.leads(S(10)));
        assert_eq!(a.decide(S(8), Some(record("a", "1"))), Action::Renew);
        a.wrote(S(8));
        assert!(a.leads(S(17)) && !a.leads(S(18)));
        assert_eq!(a.leads_until(), Some(S(18)));
    }

    #[test]
    fn another_one_waits_until_the_record_stands_still_for_the_duration() {
        let mut b = Election::new("b", Terms::default());
        assert_eq!(b.decide(S(100), Some(record("a", "1"))), Action::Wait);
        assert_eq!(b.decide(S(114), Some(record("a", "2"))), Action::Wait, "it was renewed");
        assert_eq!(b.decide(S(128), Some(record("a", "2"))), Action::Wait);
        assert_eq!(b.decide(S(129), Some(record("a", "2"))), Action::Take { transitions: 4 });
    }

    #[test]
    fn a_released_lease_is_taken_at_once() {
        let mut b = Election::new("b", Terms::default());
        assert_eq!(b.decide(S(0), Some(record("", "5"))), Action::Take { transitions: 4 });
    }

    #[test]
    fn a_leader_that_reads_another_name_leads_no_more() {
        let mut a = Election::new("a", Terms::default());
        a.wrote(S(0));
        assert_eq!(a.decide(S(1), Some(record("b", "7"))), Action::Wait);
        assert!(!a.leads(S(1)) && !a.resign());
    }

    #[derive(Clone, Debug)]
    struct Turn {
        who: usize,
        /// Milliseconds since the last turn.
        pause: u64,
        /// Whether the write gets through, and how long it takes.
        write: bool,
        slow: u64,
    }

    fn turns() -> impl Strategy<Value = Vec<Turn>> {
        let turn = (0usize..3, 0u64..6000, any::<bool>(), 0u64..4000);
        prop::collection::vec(
            turn.prop_map(|(who, pause, write, slow)| Turn { who, pause, write, slow }),
            1..200,
        )
    }

    proptest! {
        /// Three candidates at one Lease with versions checked on write, in any order, with lost and slow writes: there
        /// are never two leaders.
        #[test]
        fn there_are_never_two_leaders(turns in turns()) {
            let mut all: Vec<Election> = ["a", "b", "c"].iter().map(|n| Election::new(*n, Terms::default())).collect();
            let (mut lease, mut version, mut now): (Option<Record>, u32, Duration) = (None, 0, S(0));
            for turn in turns {
                now += Duration::from_millis(turn.pause);
                let candidate = &mut all[turn.who];
                let begun = now;
                let action = candidate.decide(now, lease.clone());
                if action != Action::Wait && turn.write {
                    version += 1;
                    let transitions = match action {
                        Action::Take { transitions } => transitions,
                        _ => lease.as_ref().map_or(0, |l| l.transitions),
                    };
                    let holder = candidate.me.clone();
                    lease = Some(Record { holder, transitions, version: version.to_string() });
                    now += Duration::from_millis(turn.slow);
                    candidate.wrote(begun);
                }
                prop_assert!(all.iter().filter(|c| c.leads(now)).count() <= 1);
            }
        }
    }
}
