//! `mm-embeddings-cache-producer`: which candidates hold the embeddings of a request's pictures, sounds and films, as far
//! as can be assumed from the requests that went there.
//!
//! An item is one distinct picture, sound or film (a hash over its part of the body, so a URL stands for what it shows);
//! each counts the same. When a request leaves, its items are remembered for the first target of the primary profile and
//! of the profile `encode`. An endpoint holds `cacheSizeInMBPerServer / 2` items, the least recently used going first; a
//! process that restarted holds none, and endpoints that left are forgotten. At most 256 items of one request count.
//!
//! ```yaml
//! - type: mm-embeddings-cache-producer
//!   parameters: {cacheSizeInMBPerServer: 4096}   # MiB; 0 means 4096
//! ```

use crate::endpoint::Occupant;
use crate::plugin::{
    BuildContext, BuildError, DataProducer, Departure, EncoderMatches, ExtractorSpec, HeaderEdits,
    PluginType, PreRequest, ProduceError, Roles, Stability,
};
use crate::pool::{AttributeId, Candidates, Position};
use crate::request::InferenceRequest;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use std::collections::{HashMap, VecDeque};
use std::sync::Arc;

pub(super) const TYPE: PluginType =
    PluginType { name: EncoderMatches::PRODUCER, stability: Stability::Beta, build };

const DEFAULT_MIB: u32 = 4096;
/// What one item is taken to need.
const MIB_PER_ITEM: u32 = 2;
/// Profile whose first target holds the items besides the primary one.
const ENCODE_PROFILE: &str = "encode";

#[derive(Default, Deserialize, Serialize)]
#[serde(deny_unknown_fields, default)]
struct Parameters {
    #[serde(rename = "cacheSizeInMBPerServer")]
    cache_size_mib: u32,
}

struct MmEmbeddingsCache {
    caches: Arc<Caches>,
    matches: AttributeId<EncoderMatches>,
}

fn capacity(mib: u32) -> usize {
    let mib = if mib == 0 { DEFAULT_MIB } else { mib };
    (mib / MIB_PER_ITEM).max(1) as usize
}

fn build(ctx: &mut BuildContext<'_>) -> Result<Roles, BuildError> {
    let written = ctx.settings::<Parameters>()?.cache_size_mib;
    ctx.in_force("cacheSizeInMBPerServer", if written == 0 { DEFAULT_MIB } else { written });
    let capacity = capacity(written);
    let make = || Caches { capacity, held: Mutex::default() };
    let plugin = Arc::new(MmEmbeddingsCache {
        caches: ctx.state.get_or_insert(ctx.name, capacity as u64, make),
        matches: ctx.produces(EncoderMatches::KIND),
    });
    Ok(Roles {
        // Endpoints that left are seen in the pool; the reference binds it to a source for that.
        extractor: Some(ExtractorSpec::Pageless),
        producer: Some(Arc::clone(&plugin) as Arc<dyn DataProducer>),
        pre_request: Some(plugin),
        ..Roles::default()
    })
}

/// What each process is believed to hold.
struct Caches {
    capacity: usize,
    held: Mutex<Held>,
}

#[derive(Default)]
struct Held {
    /// The last snapshot whose endpoints were compared.
    generation: u64,
    by_process: HashMap<Occupant, Items>,
}

/// A set of items that forgets the one unused for longest.
#[derive(Default)]
struct Items {
    clock: u64,
    last_use: HashMap<u64, u64>,
    /// Uses in order; one that is not the last of its item is skipped.
    uses: VecDeque<(u64, u64)>,
}

impl Items {
    fn touch(&mut self, item: u64, capacity: usize) {
        self.clock += 1;
        self.last_use.insert(item, self.clock);
        self.uses.push_back((item, self.clock));
        while self.last_use.len() > capacity || self.uses.len() > 2 * capacity + 64 {
            let Some((oldest, at)) = self.uses.pop_front() else { break };
            if self.last_use.get(&oldest) == Some(&at) {
                self.last_use.remove(&oldest);
            }
        }
    }
}

impl Caches {
    fn count(&self, candidates: &Candidates, items: &[u64]) -> Vec<u32> {
        let mut held = self.held.lock();
        let pool = candidates.snapshot();
        if held.generation < pool.generation {
            held.generation = pool.generation;
            let there: std::collections::HashSet<_> = pool.endpoints.iter().map(|e| e.occupant()).collect();
            held.by_process.retain(|process, _| there.contains(process));
        }
        let count = |process: &Occupant| {
            let Some(cache) = held.by_process.get(process) else { return 0 };
            let found = items.iter().filter(|item| cache.last_use.contains_key(item)).count();
            u32::try_from(found).unwrap_or(u32::MAX)
        };
        candidates.occupants().iter().map(count).collect()
    }

    fn remember(&self, process: Occupant, items: &[u64]) {
        let mut held = self.held.lock();
        let cache = held.by_process.entry(process).or_default();
        items.iter().for_each(|item| cache.touch(*item, self.capacity));
    }
}

impl DataProducer for MmEmbeddingsCache {
    fn produce(&self, request: &InferenceRequest, candidates: &mut Candidates) -> Result<(), ProduceError> {
        let items = &request.parsed.media;
        if items.is_empty() {
            return Ok(());
        }
        let found = EncoderMatches {
            total: u32::try_from(items.len()).unwrap_or(u32::MAX),
            matched: self.caches.count(candidates, items),
        };
        candidates.attributes.set(self.matches, found);
        Ok(())
    }
}

impl PreRequest for MmEmbeddingsCache {
    fn before_send(&self, departure: &Departure<'_>, _: &mut HeaderEdits) {
        let items = &departure.request.parsed.media;
        if items.is_empty() {
            return;
        }
        let remember = |p: Position| self.caches.remember(departure.candidates.occupant(p), items);
        let primary = departure.outcome.primary.first();
        remember(primary);
        let encode = departure.outcome.runs.get(ENCODE_PROFILE).map(|run| run.targets.first());
        encode.into_iter().filter(|p| *p != primary).for_each(remember);
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Fixture, request};
    use super::*;
    use crate::plugin::{ProfileRuns, SchedulingOutcome, Targets};
    use crate::request::Prompt;
    use serde_json::json;

    #[test]
    fn capacities_of_the_catalogue() {
        assert_eq!([4, 2048, 0, 1].map(capacity), [2, 1024, 2048, 1]);
        assert!(Fixture::new().build(&TYPE, json!({"cacheSizeInMBPerServer": "bad"})).is_err());
        assert!(Fixture::new().build(&TYPE, json!({"cacheSizeInMB": 4})).is_err());
    }

    #[test]
    fn items_of_the_catalogue() {
        let (fixture, a, c) = (Fixture::new(), 0xa, 0xc);
        let roles = fixture.build(&TYPE, json!({"cacheSizeInMBPerServer": 4})).unwrap();
        let id = fixture.attribute::<EncoderMatches>(EncoderMatches::KIND, EncoderMatches::PRODUCER);
        let ask = |items: &[u64], to: Option<u32>| {
            let mut request = request("m", Prompt::None);
            request.parsed.media = items.to_vec();
            let mut candidates = fixture.candidates(3);
            roles.producer.as_ref().unwrap().produce(&request, &mut candidates).unwrap();
            if let Some(to) = to {
                let (primary, runs) = (Targets::one(Position(to)), ProfileRuns::default());
                let outcome = SchedulingOutcome { primary_profile: "default".into(), primary, runs };
                let departure = Departure { request: &request, candidates: &candidates, outcome: &outcome };
                let hook = roles.pre_request.as_ref().unwrap();
                hook.before_send(&departure, &mut HeaderEdits::default());
            }
            candidates.attributes.get(id).map(|m| (m.total, m.matched.clone()))
        };
        assert_eq!(ask(&[], None), None);
        ask(&[a], Some(0));
        ask(&[a], Some(1));
        assert_eq!(ask(&[a, c], Some(2)), Some((2, vec![1, 1, 0])));
        assert_eq!(ask(&[a, c], None), Some((2, vec![1, 1, 2])));
        ask(&[1, 2], Some(2));
        assert_eq!(ask(&[a, c], None), Some((2, vec![1, 1, 0])), "two fit");
        fixture.resize(1);
        assert_eq!(ask(&[a], None), Some((1, vec![1, 0, 0])), "what left is forgotten");
    }

    #[test]
    fn uses_stay_bounded() {
        let mut items = Items::default();
        (0..10_000).for_each(|i| items.touch(i % 3, 4));
        assert!(items.uses.len() <= 72 && items.last_use.len() == 3);
    }
}
