//! Requests by their token ids.

/// One request.
pub struct Arrival {
    /// Its prompt.
    pub prompt: Vec<u32>,
    /// Tokens of its answer.
    pub output: u32,
}

/// Requests in order of arrival.
pub struct Workload(pub Vec<Arrival>);

/// Token ids that no other call with another tag gives.
fn ids(tag: u32, n: u32) -> impl Iterator<Item = u32> {
    (0..n).map(move |i| tag.wrapping_mul(0x9E37_79B9).wrapping_add(i))
}

impl Workload {
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// `n` requests that begin with the same `prefix` tokens and end with `own` ones.
    pub fn shared_prefix(n: u32, prefix: u32, own: u32, output: u32) -> Self {
        let arrival = |i| Arrival { prompt: ids(0, prefix).chain(ids(i + 1, own)).collect(), output };
        Self((0..n).map(arrival).collect())
    }

    /// `n` requests that share nothing.
    pub fn unique(n: u32, prompt: u32, output: u32) -> Self {
        Self((0..n).map(|i| Arrival { prompt: ids(i + 1, prompt).collect(), output }).collect())
    }

    /// `n` turns of `open` conversations at a time, each under one of `systems` system prompts. A turn repeats all
    /// before it and adds `turn` tokens of the user; one in eight ends its conversation.
    pub fn conversations(n: u32, open: usize, systems: u32, system: u32, turn: u32, output: u32) -> Self {
        let mut rng = fastrand::Rng::with_seed(11);
        let mut tag = 1000;
        let fresh = |rng: &mut fastrand::Rng| ids(1 + rng.u32(0..systems), system).collect::<Vec<_>>();
        let mut conversations: Vec<_> = (0..open).map(|_| fresh(&mut rng)).collect();
        let turns = (0..n).map(|_| {
            let which = rng.usize(0..open);
            tag += 2;
            conversations[which].extend(ids(tag, turn));
            let prompt = conversations[which].clone();
            conversations[which].extend(ids(tag + 1, output));
            if rng.u32(0..8) == 0 {
                conversations[which] = fresh(&mut rng);
            }
            Arrival { prompt, output }
        });
        Self(turns.collect())
    }
}
