//! Addresses of names. A data plane wants `ip:port`, and an endpoint must not hop between the addresses of its name, so
//! an address is kept as long as the name has it.

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

/// Most time for one resolution.
const LIMIT: Duration = Duration::from_secs(5);
/// Resolutions at once.
const AT_ONCE: usize = 16;

/// Remembers the address of each name.
#[derive(Debug, Default)]
pub struct Resolver {
    addresses: BTreeMap<Arc<str>, IpAddr>,
    /// Names whose last resolution failed, which is said once.
    failing: BTreeSet<Arc<str>>,
}

impl Resolver {
    /// The address of `name`, when it was ever resolved.
    pub fn address(&self, name: &str) -> Option<IpAddr> {
        self.addresses.get(name).copied()
    }

    /// Resolves these names anew and forgets all others. A name that cannot be resolved keeps its last address.
    pub async fn refresh<'n>(&mut self, names: impl Iterator<Item = &'n Arc<str>>) {
        self.refresh_with(names, lookup).await;
    }

    async fn refresh_with<'n, F: Future<Output = Result<Vec<IpAddr>, String>>>(
        &mut self,
        names: impl Iterator<Item = &'n Arc<str>>,
        look_up: impl Fn(Arc<str>) -> F,
    ) {
        use futures::StreamExt;
        let names: BTreeSet<Arc<str>> = names.cloned().collect();
        self.addresses.retain(|name, _| names.contains(name));
        self.failing.retain(|name| names.contains(name));
        let look_up = &look_up;
        let answers: Vec<_> = futures::stream::iter(names)
            .map(|name| async move { (Arc::clone(&name), look_up(name).await) })
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        for (name, answer) in answers {
            self.take(name, answer);
        }
    }

    fn take(&mut self, name: Arc<str>, answer: Result<Vec<IpAddr>, String>) {
        let former = self.address(&name);
        let addresses = match answer {
            Ok(addresses) if !addresses.is_empty() => addresses,
            Ok(_) => return self.cannot(name, "the name has no address", former),
            Err(error) => return self.cannot(name, &error, former),
        };
        if self.failing.remove(&name) {
            tracing::info!(%name, "name resolves again");
        }
        if former.is_some_and(|former| addresses.contains(&former)) {
            return;
        }
        // Resolvers shuffle their answers; the smallest address is the same everywhere and every time.
        if let Some(address) = addresses.iter().min() {
            tracing::info!(%name, %address, of = addresses.len(), former = former.map(|f| f.to_string()), "name resolved");
            self.addresses.insert(name, *address);
        }
    }

    fn cannot(&mut self, name: Arc<str>, error: &str, former: Option<IpAddr>) {
        if self.failing.insert(Arc::clone(&name)) {
            match former {
                Some(address) => {
                    tracing::warn!(%name, %address, error, "name no longer resolves: its last address stays")
                }
                None => {
                    tracing::warn!(%name, error, "name does not resolve: its endpoints are skipped until it does")
                }
            }
        }
    }
}

async fn lookup(name: Arc<str>) -> Result<Vec<IpAddr>, String> {
    match tokio::time::timeout(LIMIT, tokio::net::lookup_host((&*name, 0))).await {
        Err(_late) => Err("no answer from the resolver in 5 s".to_owned()),
        Ok(Err(error)) => Err(error.to_string()),
        Ok(Ok(addresses)) => Ok(addresses.map(|a| a.ip()).collect()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn refresh(resolver: &mut Resolver, names: &[&str], answer: Result<&[&str], &str>) {
        let names: Vec<Arc<str>> = names.iter().map(|n| Arc::from(*n)).collect();
        let answer =
            answer.map(|list| list.iter().map(|a| a.parse().unwrap()).collect()).map_err(str::to_owned);
        resolver.refresh_with(names.iter(), |_| std::future::ready(answer.clone())).await;
    }

    #[tokio::test]
    async fn an_address_stays_while_the_name_has_it() {
        let mut resolver = Resolver::default();
        refresh(&mut resolver, &["a"], Ok(&["10.0.0.9", "10.0.0.2"])).await;
        assert_eq!(resolver.address("a"), Some("10.0.0.2".parse().unwrap()));
        refresh(&mut resolver, &["a"], Ok(&["10.0.0.1", "10.0.0.2"])).await;
        assert_eq!(resolver.address("a"), Some("10.0.0.2".parse().unwrap()));
        refresh(&mut resolver, &["a"], Ok(&["10.0.0.7"])).await;
        assert_eq!(resolver.address("a"), Some("10.0.0.7".parse().unwrap()));
    }

    #[tokio::test]
    async fn an_outage_of_the_resolver_changes_nothing() {
        let mut resolver = Resolver::default();
        refresh(&mut resolver, &["a"], Ok(&["fd00::1"])).await;
        refresh(&mut resolver, &["a", "b"], Err("timed out")).await;
        assert_eq!(resolver.address("a"), Some("fd00::1".parse().unwrap()));
        assert_eq!(resolver.address("b"), None);
        refresh(&mut resolver, &["a"], Ok(&[])).await;
        assert!(resolver.address("a").is_some());
        refresh(&mut resolver, &[], Ok(&[])).await;
        assert_eq!(resolver.address("a"), None, "names that nobody asks for are forgotten");
    }
}
