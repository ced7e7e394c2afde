//! The prefix cache: its parameters stood with the scorer before producers were plugins of their own.
//!
//! Sizes of blocks were characters up to the release that named them `blockSizeTokens`, at four characters a token, and
//! the cap on matched blocks counted such blocks. Both become tokens here.

use super::{Edit, instance, name_of};
use crate::config::error::Place;
use crate::config::node::{Data, Node};

const APPROX: &str = "approx-prefix-cache-producer";
const PRECISE: &str = "precise-prefix-cache-producer";
const PRODUCER_NAME: &str = "prefixMatchInfoProducerName";
const CHARACTERS_PER_TOKEN: i64 = 4;
/// The block of engines that do not say otherwise, which `autoTune` counted in.
const ENGINE_BLOCK_TOKENS: i64 = 16;

/// Keys that are the approximate producer's today.
const CACHE: &[&str] = &[
    "autoTune",
    "blockSizeTokens",
    "maxPrefixTokensToMatch",
    "maxPrefixBlocksToMatch",
    "lruCapacityPerServer",
    "hashBlockSize",
    "blockSize",
];
/// Keys that are the precise producer's today.
const TRACKING: &[&str] = &["tokenProcessorConfig", "indexerConfig", "kvEventsConfig", "kvCacheRedisAddr"];

/// Moves parameters of the cache out of a prefix scorer.
pub(super) fn scorer(plugin: &mut Node, edit: &mut Edit<'_>) {
    let Some(parameters) = plugin.field_mut("parameters").filter(|p| p.is_map()) else { return };
    let mode = parameters.take("mode");
    let tracking = take_all(parameters, TRACKING);
    let cache = take_all(parameters, CACHE);
    let place = parameters.place;
    let precise = mode.as_ref().and_then(Node::text) == Some("cache_tracking") || !tracking.is_empty();
    if precise {
        let told = bind_precise(plugin, edit, place, tracking);
        edit.tell(place, "parameters", told);
    } else if !cache.is_empty() {
        let told = bind_approx(plugin, edit, place, cache);
        edit.tell(place, "parameters", told);
    } else if let Some(mode) = mode {
        edit.tell(mode.place, "parameters.mode", "the scorer has no mode any more; take it out");
    }
}

/// Makes the scorer that hosted a precise index into a producer and a scorer that reads it.
pub(super) fn precise_scorer(plugin: &mut Node, edit: &mut Edit<'_>) {
    let (place, name) = (plugin.place, name_of(plugin).to_owned());
    let written = plugin.take("parameters").unwrap_or_else(|| Node::map(place, []));
    let Data::Map(entries) = written.data else {
        plugin.put("parameters", written);
        return;
    };
    plugin.put("type", Node::scalar(place, "prefix-cache-scorer"));
    plugin.put("name", Node::scalar(place, name));
    let moved = entries.into_iter().map(|(key, node)| (key.name, node)).collect();
    let told = bind_precise(plugin, edit, place, moved);
    let producer = edit.of_type(PRECISE).unwrap_or_else(|| PRECISE.to_owned());
    edit.extractors.push((name_of(plugin).to_owned(), producer));
    let scorer = plugin.flow();
    edit.tell(place, "type", format!("the scorer no longer hosts the index; {told}, and `{scorer}`"));
}

fn take_all(parameters: &mut Node, names: &[&str]) -> Vec<(String, Node)> {
    names.iter().filter_map(|name| Some(((*name).to_owned(), parameters.take(name)?))).collect()
}

/// Binds a scorer to the approximate producer with these parameters; what to write instead.
fn bind_approx(plugin: &mut Node, edit: &mut Edit<'_>, place: Place, cache: Vec<(String, Node)>) -> String {
    let parameters = in_tokens(place, cache);
    let same = edit.out.iter().find(|p| {
        p.text_of("type") == Some(APPROX)
            && p.older
            && p.field("parameters").is_some_and(|q| q.to_json() == parameters.to_json())
    });
    let (name, producer) = match same {
        Some(found) => (name_of(found).to_owned(), None),
        None => {
            let name = if edit.knows(APPROX) {
                edit.free_name(&format!("{}-cache", name_of(plugin)))
            } else {
                APPROX.into()
            };
            let producer = instance(place, &name, APPROX, parameters);
            (name, Some(producer))
        }
    };
    bind(plugin, place, &name, APPROX);
    match producer {
        Some(producer) => {
            let told = format!("the cache is a plugin of its own; write `{}`", producer.flow());
            edit.add(producer);
            told
        }
        None => format!("the cache is a plugin of its own; it is `{name}`, as above"),
    }
}

/// Binds a scorer to the precise producer, made with these parameters when there is none; what to write instead.
fn bind_precise(plugin: &mut Node, edit: &mut Edit<'_>, place: Place, moved: Vec<(String, Node)>) -> String {
    if let Some(name) = edit.of_type(PRECISE) {
        bind(plugin, place, &name, APPROX);
        return format!("the index is the plugin `{name}`; this one's own parameters have no effect");
    }
    let mut parameters = Node::map(place, []);
    for (key, node) in moved {
        if key == "kvCacheRedisAddr" {
            let redis = Node::map(place, [("address", node)]);
            let backend = Node::map(place, [("redisConfig", redis)]);
            parameters.put("indexerConfig", Node::map(place, [("kvBlockIndexConfig", backend)]));
        } else {
            parameters.put(&key, node);
        }
    }
    settle(&mut parameters);
    let producer = instance(place, PRECISE, PRECISE, parameters);
    let told = format!("the index is a plugin of its own; write `{}`", producer.flow());
    edit.add(producer);
    bind(plugin, place, PRECISE, APPROX);
    told
}

fn bind(plugin: &mut Node, place: Place, producer: &str, default: &str) {
    if producer != default
        && let Some(parameters) = plugin.section("parameters", place)
    {
        parameters.put(PRODUCER_NAME, Node::scalar(place, producer));
    }
    if plugin.field("parameters").is_some_and(|p| p.to_json() == serde_json::json!({})) {
        plugin.take("parameters");
    }
}

/// Parameters of the precise producer in their present places. True when something moved.
pub(super) fn settle(parameters: &mut Node) -> bool {
    let mut moved = false;
    if let Some(indexer) = parameters.field_mut("indexerConfig").filter(|i| i.is_map()) {
        let tokens = indexer.take("tokenProcessorConfig");
        let store = indexer.take("prefixStoreConfig");
        let pool = indexer.take("tokenizersPoolConfig");
        // It was the approximate scorer's and never meant anything here.
        let cap = indexer.field_mut("kvBlockIndexConfig").and_then(|i| i.take("maxPrefixBlocksToMatch"));
        let empty = indexer.to_json() == serde_json::json!({});
        moved = tokens.is_some() || store.is_some() || pool.is_some() || cap.is_some();
        if empty {
            parameters.take("indexerConfig");
        }
        if let Some(tokens) = tokens.filter(|_| parameters.field("tokenProcessorConfig").is_none()) {
            parameters.put("tokenProcessorConfig", tokens);
        }
    }
    if let Some(tokens) = parameters.field_mut("tokenProcessorConfig").filter(|t| t.is_map())
        && let Some(size) = tokens.take("blockSize")
    {
        moved = true;
        if tokens.field("blockSizeTokens").is_none() {
            tokens.put("blockSizeTokens", size);
        }
    }
    moved
}

/// The cache's parameters with characters and blocks made tokens.
fn in_tokens(place: Place, cache: Vec<(String, Node)>) -> Node {
    let mut parameters = Node::map(place, []);
    let find = |name: &str| cache.iter().find(|(key, _)| key == name).map(|(_, node)| node);
    let characters = find("hashBlockSize").or_else(|| find("blockSize"));
    let whole = |node: Option<&Node>| node.and_then(Node::whole).filter(|n| *n > 0);
    let tuned = find("autoTune").is_none_or(|node| node.to_json() != serde_json::json!(false))
        && find("hashBlockSize").is_none();
    let said = whole(find("blockSizeTokens"));
    let block = said.or_else(|| {
        whole(characters).map(|n| n.saturating_add(CHARACTERS_PER_TOKEN - 1) / CHARACTERS_PER_TOKEN)
    });
    for name in ["autoTune", "maxPrefixTokensToMatch", "lruCapacityPerServer"] {
        if let Some(node) = find(name) {
            parameters.put(name, node.clone());
        }
    }
    match (find("blockSizeTokens"), characters, block) {
        (Some(node), ..) => parameters.put("blockSizeTokens", node.clone()),
        (None, Some(node), Some(tokens)) => {
            parameters.put("blockSizeTokens", Node::scalar(node.place, tokens))
        }
        // Not a size: the producer says so.
        (None, Some(node), None) => parameters.put("blockSizeTokens", node.clone()),
        (None, None, _) => {}
    }
    let Some(cap) = find("maxPrefixBlocksToMatch").filter(|_| find("maxPrefixTokensToMatch").is_none())
    else {
        return parameters;
    };
    let block = block.unwrap_or(ENGINE_BLOCK_TOKENS);
    let counted = if tuned { block.max(ENGINE_BLOCK_TOKENS) } else { block };
    match cap.whole().and_then(|blocks| blocks.checked_mul(counted)) {
        Some(tokens @ 1..) => parameters.put("maxPrefixTokensToMatch", Node::scalar(cap.place, tokens)),
        Some(_) => {
            parameters.put("maxPrefixTokensToMatch", Node::scalar(cap.place, 0));
            parameters.put("maxPrefixBlocksToMatch", Node::scalar(cap.place, 0));
        }
        None => parameters.put("maxPrefixBlocksToMatch", cap.clone()),
    }
    parameters
}
