//! The rules of passive health as a plain struct: events and time go in, transitions come out.

use crate::clock::Moment;
use std::collections::BTreeMap;
use std::time::Duration;

/// Refused or timed-out scrapes in a row that make an endpoint suspect.
pub const SCRAPES_TO_SUSPECT: u32 = 2;
/// Failed requests in a row that make an endpoint suspect.
pub const REQUESTS_TO_SUSPECT: u32 = 5;
/// Time between two probes of one suspect endpoint, and from the suspicion to its first probe.
pub const PROBE_INTERVAL: Duration = Duration::from_secs(1);

/// How a scrape failed, as far as health cares.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrapeFailure {
    /// The connection was refused. On the port that serves requests, nothing listens there: no request can succeed.
    Refused {
        /// Whether the metrics page is on the port that serves requests.
        serving_port: bool,
    },
    /// Connecting or reading took too long.
    TimedOut,
    /// Something answered, but not with a metrics page.
    Answered,
}

/// Why an endpoint became suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Cause {
    /// Its scrapes were refused.
    ScrapesRefused,
    /// Its scrapes timed out.
    ScrapesTimedOut,
    /// Its requests ended in 5xx or a reset.
    RequestsFailed,
}

impl Cause {
    /// The value of the label `reason`.
    pub fn label(self) -> &'static str {
        match self {
            Self::ScrapesRefused => "scrapes_refused",
            Self::ScrapesTimedOut => "scrapes_timed_out",
            Self::RequestsFailed => "requests_failed",
        }
    }
}

/// What changed for one endpoint.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Change {
    /// Now suspect.
    Suspected(Cause),
    /// Would be suspect, but half of the pool already is.
    HeldBack(Cause),
    /// No longer suspect: it answered.
    Recovered {
        /// Time it was suspect.
        after: Duration,
    },
    /// No longer suspect: another process took its place, or the pool shrank and too many were suspect.
    Released,
}

/// A suspicion that holds now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Suspicion {
    /// Why.
    pub cause: Cause,
    /// Since when.
    pub since: Moment,
    /// Whether its port refused connections and has not answered since: probing waits for that.
    pub awaits_scrape: bool,
    last_probe: Moment,
}

#[derive(Clone, Debug, Default)]
struct Member {
    failed_scrapes: u32,
    /// Whether its own port refused one of them.
    refused: bool,
    failed_requests: u32,
    /// Requests succeed although scrapes time out: the page is what is broken, so it proves nothing until it works.
    page_discredited: bool,
    held_back: bool,
    suspicion: Option<Suspicion>,
}

impl Member {
    fn is_untroubled(&self) -> bool {
        self.failed_scrapes == 0
            && self.failed_requests == 0
            && !self.page_discredited
            && self.suspicion.is_none()
    }

    fn forget_scrapes(&mut self) {
        self.failed_scrapes = 0;
        self.refused = false;
    }
}

/// All endpoints of a pool under observation, keyed by their slots.
#[derive(Clone, Debug, Default)]
pub struct Ward {
    members: BTreeMap<u32, Member>,
    suspects: usize,
}

impl Ward {
    /// Makes `slots` the members. Those that stay keep their state unless they are in `replaced`.
    pub fn set_members(&mut self, slots: &[u32], replaced: &[u32]) -> Vec<(u32, Change)> {
        let mut changes = Vec::new();
        let mut former = std::mem::take(&mut self.members);
        for slot in slots {
            let mut member = former.remove(slot).unwrap_or_default();
            if replaced.contains(slot) {
                if member.suspicion.is_some() {
                    changes.push((*slot, Change::Released));
                }
                member = Member::default();
            }
            self.members.insert(*slot, member);
        }
        self.suspects = self.members.values().filter(|m| m.suspicion.is_some()).count();
        while self.suspects > self.most_suspects() {
            // Those marked last have the thinnest evidence against them.
            let newest = self.members.iter_mut().filter(|(_, m)| m.suspicion.is_some());
            let Some((slot, member)) = newest.max_by_key(|(_, m)| m.suspicion.map(|s| s.since)) else {
                break;
            };
            member.suspicion = None;
            member.held_back = true;
            self.suspects -= 1;
            changes.push((*slot, Change::Released));
        }
        changes
    }

    /// At most this many members are suspect at once: half, rounded down.
    pub fn most_suspects(&self) -> usize {
        self.members.len() / 2
    }

    /// Members that are suspect.
    pub fn suspects(&self) -> impl Iterator<Item = (u32, Suspicion)> {
        self.members.iter().filter_map(|(slot, m)| m.suspicion.map(|s| (*slot, s)))
    }

    /// The suspicion of one member.
    pub fn suspicion(&self, slot: u32) -> Option<Suspicion> {
        self.members.get(&slot)?.suspicion
    }

    /// Members about which nothing bad is remembered.
    pub fn untroubled(&self) -> usize {
        self.members.values().filter(|m| m.is_untroubled()).count()
    }

    /// Whether anything bad is remembered of this member.
    pub fn is_troubled(&self, slot: u32) -> bool {
        self.members.get(&slot).is_some_and(|m| !m.is_untroubled())
    }

    /// Members.
    pub fn len(&self) -> usize {
        self.members.len()
    }

    /// Whether there is no member.
    pub fn is_empty(&self) -> bool {
        self.members.is_empty()
    }

    /// A scrape failed.
    pub fn scrape_failed(&mut self, slot: u32, failure: ScrapeFailure, now: Moment) -> Option<Change> {
        let member = self.members.get_mut(&slot)?;
        let (cause, conclusive) = match failure {
            ScrapeFailure::Answered => {
                member.forget_scrapes();
                if let Some(suspicion) = &mut member.suspicion {
                    suspicion.awaits_scrape = false;
                }
                return None;
            }
            ScrapeFailure::Refused { serving_port } => (Cause::ScrapesRefused, serving_port),
            ScrapeFailure::TimedOut => (Cause::ScrapesTimedOut, false),
        };
        member.failed_scrapes = member.failed_scrapes.saturating_add(1);
        member.refused |= conclusive;
        if member.failed_scrapes < SCRAPES_TO_SUSPECT || (member.page_discredited && !conclusive) {
            return None;
        }
        if let Some(suspicion) = &mut member.suspicion {
            suspicion.awaits_scrape |= conclusive;
            return None;
        }
        self.suspect(slot, cause, conclusive, now)
    }

    /// A scrape succeeded. It ends the wait for one, but only an answered request ends a suspicion.
    pub fn scrape_ok(&mut self, slot: u32) {
        if let Some(member) = self.members.get_mut(&slot) {
            member.forget_scrapes();
            member.page_discredited = false;
            member.held_back &= member.failed_requests >= REQUESTS_TO_SUSPECT;
            if let Some(suspicion) = &mut member.suspicion {
                suspicion.awaits_scrape = false;
            }
        }
    }

    /// A request ended in 5xx or a reset.
    pub fn request_failed(&mut self, slot: u32, now: Moment) -> Option<Change> {
        let member = self.members.get_mut(&slot)?;
        member.failed_requests = member.failed_requests.saturating_add(1);
        if member.failed_requests < REQUESTS_TO_SUSPECT || member.suspicion.is_some() {
            return None;
        }
        self.suspect(slot, Cause::RequestsFailed, false, now)
    }

    /// A request was answered below 500.
    pub fn request_ok(&mut self, slot: u32, now: Moment) -> Option<Change> {
        let member = self.members.get_mut(&slot)?;
        member.failed_requests = 0;
        // The answer may be older than the refusal, so it cannot outweigh it.
        if member.suspicion.is_some_and(|s| s.awaits_scrape) {
            return None;
        }
        member.held_back = false;
        member.page_discredited |= member.failed_scrapes >= SCRAPES_TO_SUSPECT;
        if !member.refused {
            // Who answers requests does not hang, whatever its page does.
            member.forget_scrapes();
        }
        let suspicion = member.suspicion.take()?;
        self.suspects -= 1;
        Some(Change::Recovered { after: now.since(suspicion.since) })
    }

    /// Whether a request may go to this suspect as a probe now; true at most once in [`PROBE_INTERVAL`].
    pub fn take_probe(&mut self, slot: u32, now: Moment) -> bool {
        let Some(suspicion) = self.members.get_mut(&slot).and_then(|m| m.suspicion.as_mut()) else {
            return false;
        };
        let due = !suspicion.awaits_scrape && now.since(suspicion.last_probe) >= PROBE_INTERVAL;
        if due {
            suspicion.last_probe = now;
        }
        due
    }

    fn suspect(&mut self, slot: u32, cause: Cause, awaits_scrape: bool, now: Moment) -> Option<Change> {
        let full = self.suspects >= self.most_suspects();
        let member = self.members.get_mut(&slot)?;
        if full {
            let said = std::mem::replace(&mut member.held_back, true);
            return (!said).then_some(Change::HeldBack(cause));
        }
        member.held_back = false;
        member.suspicion = Some(Suspicion { cause, since: now, awaits_scrape, last_probe: now });
        self.suspects += 1;
        Some(Change::Suspected(cause))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const REFUSED: ScrapeFailure = ScrapeFailure::Refused { serving_port: true };

    fn at(millis: u64) -> Moment {
        Moment::from_nanos(1 + millis * 1_000_000)
    }

    fn ward(members: u32) -> Ward {
        let mut ward = Ward::default();
        ward.set_members(&(0..members).collect::<Vec<_>>(), &[]);
        ward
    }

    #[test]
    fn two_refused_scrapes_make_a_suspect_and_a_scrape_then_a_probe_bring_it_back() {
        let mut w = ward(2);
        assert_eq!(w.scrape_failed(0, REFUSED, at(0)), None);
        assert_eq!(w.scrape_failed(0, REFUSED, at(50)), Some(Change::Suspected(Cause::ScrapesRefused)));
        assert!(!w.take_probe(0, at(5_000)), "nothing listens there, so a probe would only fail");
        assert_eq!(w.request_ok(0, at(5_000)), None, "an answer from before the refusal proves nothing");
        w.scrape_ok(0);
        assert!(w.suspicion(0).is_some(), "a page alone does not prove that requests work");
        assert!(w.take_probe(0, at(5_050)));
        let back = Change::Recovered { after: Duration::from_millis(5_010) };
        assert_eq!(w.request_ok(0, at(5_060)), Some(back));
    }

    #[test]
    fn a_good_scrape_in_between_starts_the_count_anew() {
        let mut w = ward(2);
        for _ in 0..10 {
            assert_eq!(w.scrape_failed(0, ScrapeFailure::TimedOut, at(0)), None);
            w.scrape_ok(0);
        }
        for _ in 0..10 {
            assert_eq!(w.scrape_failed(0, ScrapeFailure::TimedOut, at(0)), None);
            assert_eq!(w.scrape_failed(0, ScrapeFailure::Answered, at(0)), None, "a 500 is an answer");
        }
    }

    #[test]
    fn five_failed_requests_in_a_row_make_a_suspect() {
        let mut w = ward(2);
        for _ in 0..4 {
            assert_eq!(w.request_failed(0, at(0)), None);
        }
        assert_eq!(w.request_ok(0, at(0)), None);
        for _ in 0..4 {
            assert_eq!(w.request_failed(0, at(0)), None);
        }
        assert_eq!(w.request_failed(0, at(0)), Some(Change::Suspected(Cause::RequestsFailed)));
        assert_eq!(w.request_failed(0, at(1)), None, "it is said once");
        assert!(!w.take_probe(0, at(999)));
        assert!(w.take_probe(0, at(1_000)));
        assert!(!w.take_probe(0, at(1_999)));
        assert!(matches!(w.request_ok(0, at(1_100)), Some(Change::Recovered { .. })));
    }

    #[test]
    fn a_hanging_page_costs_nothing_once_requests_are_seen_to_work() {
        let mut w = ward(2);
        w.scrape_failed(0, ScrapeFailure::TimedOut, at(0));
        assert!(matches!(w.scrape_failed(0, ScrapeFailure::TimedOut, at(1_000)), Some(Change::Suspected(_))));
        assert!(w.take_probe(0, at(2_000)), "a page that hangs does not stop probes");
        assert!(matches!(w.request_ok(0, at(2_010)), Some(Change::Recovered { .. })));
        for second in 3..100 {
            assert_eq!(w.scrape_failed(0, ScrapeFailure::TimedOut, at(second * 1_000)), None);
        }
        let elsewhere = ScrapeFailure::Refused { serving_port: false };
        assert_eq!(w.scrape_failed(0, elsewhere, at(100_000)), None);
        assert!(
            w.scrape_failed(0, REFUSED, at(101_000)).is_some(),
            "its own port refusing is another matter"
        );
    }

    #[test]
    fn an_answered_request_between_two_timeouts_outweighs_them_but_no_refusal() {
        let mut w = ward(2);
        for _ in 0..10 {
            assert_eq!(w.scrape_failed(0, ScrapeFailure::TimedOut, at(0)), None);
            assert_eq!(w.request_ok(0, at(10)), None);
            assert!(!w.is_troubled(0));
        }
        w.scrape_failed(0, ScrapeFailure::TimedOut, at(20));
        assert!(
            w.scrape_failed(0, ScrapeFailure::TimedOut, at(30)).is_some(),
            "without an answer in between it hangs"
        );
        w.scrape_failed(1, REFUSED, at(0));
        w.request_ok(1, at(1));
        assert_eq!(
            w.scrape_failed(1, REFUSED, at(2)),
            Some(Change::HeldBack(Cause::ScrapesRefused)),
            "the answer may be older than the refusal"
        );
    }

    #[test]
    fn half_of_the_pool_at_most() {
        let mut w = ward(3);
        for slot in 0..3 {
            w.scrape_failed(slot, REFUSED, at(0));
        }
        assert_eq!(w.scrape_failed(0, REFUSED, at(1)), Some(Change::Suspected(Cause::ScrapesRefused)));
        assert_eq!(w.scrape_failed(1, REFUSED, at(1)), Some(Change::HeldBack(Cause::ScrapesRefused)));
        assert_eq!(w.scrape_failed(1, REFUSED, at(2)), None, "that is said once");
        w.scrape_ok(0);
        assert!(w.request_ok(0, at(3)).is_some());
        let next = w.scrape_failed(1, REFUSED, at(4));
        assert_eq!(next, Some(Change::Suspected(Cause::ScrapesRefused)), "the place is free now");
        assert_eq!(ward(1).scrape_failed(0, REFUSED, at(0)), None);
        let mut one = ward(1);
        one.scrape_failed(0, REFUSED, at(0));
        assert_eq!(one.scrape_failed(0, REFUSED, at(0)), Some(Change::HeldBack(Cause::ScrapesRefused)));
    }

    #[test]
    fn a_smaller_pool_releases_the_newest_and_a_replaced_process_starts_clean() {
        let mut w = ward(4);
        for (slot, millis) in [(0, 1), (1, 2)] {
            w.scrape_failed(slot, REFUSED, at(millis));
            w.scrape_failed(slot, REFUSED, at(millis));
        }
        assert_eq!(w.set_members(&[0, 1, 2], &[]), [(1, Change::Released)]);
        assert_eq!(w.set_members(&[0, 1, 2], &[0]), [(0, Change::Released)]);
        assert_eq!(w.suspects().count(), 0);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Scrape(u32, Option<u8>),
        Request(u32, bool),
        Probe(u32),
        Resize(u32),
        Wait(u64),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            4 => (0u32..6, prop::option::weighted(0.8, 0u8..4)).prop_map(|(s, k)| Step::Scrape(s, k)),
            4 => (0u32..6, prop::bool::weighted(0.2)).prop_map(|(s, ok)| Step::Request(s, ok)),
            2 => (0u32..6).prop_map(Step::Probe),
            1 => (0u32..7).prop_map(Step::Resize),
            2 => (1u64..700).prop_map(Step::Wait),
        ];
        prop::collection::vec(step, 0..300)
    }

    proptest! {
        /// Whatever happens: never more than half suspect, never two probes of one endpoint within a second, and an
        /// endpoint that works again is back after one scrape and one probe, at most a second later.
        #[test]
        fn bounds_hold_and_everyone_recovers(steps in steps()) {
            let mut w = ward(6);
            let mut now = 0;
            let mut probes: BTreeMap<u32, u64> = BTreeMap::new();
            for step in steps {
                match step {
                    Step::Scrape(s, None) => w.scrape_ok(s),
                    Step::Scrape(s, Some(k)) => {
                        let kinds = [REFUSED, ScrapeFailure::Refused { serving_port: false },
                            ScrapeFailure::TimedOut, ScrapeFailure::Answered];
                        w.scrape_failed(s, kinds[usize::from(k)], at(now));
                    }
                    Step::Request(s, true) => { w.request_ok(s, at(now)); }
                    Step::Request(s, false) => { w.request_failed(s, at(now)); }
                    Step::Probe(s) => {
                        let last = if w.take_probe(s, at(now)) { probes.insert(s, now) } else { None };
                        prop_assert!(last.is_none_or(|last| now - last >= 1_000), "{last:?}, then {now}");
                    }
                    Step::Resize(n) => {
                        w.set_members(&(0..n).collect::<Vec<_>>(), &[]);
                        probes.retain(|s, _| *s < n);
                    }
                    Step::Wait(ms) => now += ms,
                }
                prop_assert!(w.suspects().count() <= w.most_suspects());
                prop_assert_eq!(w.suspects().count(), w.suspects);
            }
            now += 1_000;
            for slot in w.members.keys().copied().collect::<Vec<_>>() {
                w.scrape_ok(slot);
                if w.suspicion(slot).is_some() {
                    prop_assert!(w.take_probe(slot, at(now)));
                }
                w.request_ok(slot, at(now));
            }
            prop_assert_eq!(w.suspects().count(), 0);
            prop_assert_eq!(w.untroubled(), w.len());
        }
    }
}
