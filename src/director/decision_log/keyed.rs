//! Keyed hashes: what is equal stays equal, and nobody without the key can tell what it was, nor try a guess.

use crate::request::{BASE_BLOCK_BYTES, InferenceRequest, Prompt, TextPrompt};
use std::fmt;
use std::hash::Hasher;

/// Tokens in one block of the log.
pub const BLOCK_TOKENS: u32 = crate::kv::chain::BASE_BLOCK_TOKENS;
/// Least bytes of a key that is handed in.
pub const LEAST_KEY_BYTES: usize = 16;

/// The key of a log. Never printed.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct LogKey([u64; 2]);

/// A text is too short to be a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("has {0} bytes and needs at least 16 random ones: head -c 32 /dev/urandom | base64 > FILE")]
pub struct ShortKey(pub usize);

/// What is hashed; each kind has hashes of its own.
#[derive(Clone, Copy)]
enum Kind {
    Session = 1,
    Sample,
    Model,
    Segment,
    Block,
}

impl LogKey {
    /// A key that no other process has.
    pub fn random() -> Self {
        use std::hash::{BuildHasher as _, RandomState};
        // Each state is made of 128 random bits of the system.
        Self([RandomState::new().hash_one("first half"), RandomState::new().hash_one("second half")])
    }

    /// The key that `secret` stands for; spaces and line ends around it do not count.
    ///
    /// # Errors
    /// When it is shorter than [`LEAST_KEY_BYTES`].
    pub fn of(secret: &[u8]) -> Result<Self, ShortKey> {
        let secret = secret.trim_ascii();
        if secret.len() < LEAST_KEY_BYTES {
            return Err(ShortKey(secret.len()));
        }
        let [low, high] = [0_u64, 1].map(|seed| xxhash_rust::xxh3::xxh3_64_with_seed(secret, seed));
        Ok(Self([low, high]))
    }

    /// The name of a session in the log.
    pub(super) fn session(&self, value: &str) -> u64 {
        self.hash(Kind::Session, &[value.as_bytes()])
    }

    /// Where `identity` stands among all that a sample is drawn from.
    pub(super) fn draw(&self, identity: &str) -> u64 {
        self.hash(Kind::Sample, &[identity.as_bytes()])
    }

    /// The prompt's blocks of [`BLOCK_TOKENS`] tokens each, the last one shorter, every one together with all before it,
    /// the model and the cache salt. Several prompts count as one after the other.
    ///
    /// Text is known by blocks that begin anew with each segment. A block of the log is called by all of these that begin
    /// before its end, so that prompts which are equal up to there have the same one, as in an engine.
    pub(super) fn blocks(&self, request: &InferenceRequest) -> Vec<u64> {
        let salt = request.parsed.cache_salt.as_ref().map(|salt| salt.as_bytes()).unwrap_or_default();
        let seed = self.hash(Kind::Model, &[salt, request.model().as_bytes()]);
        let mut chain = Chain { key: self, running: seed, end: 0, blocks: Vec::new() };
        match &request.parsed.prompt {
            Prompt::None => {}
            Prompt::Text(prompts) => prompts.iter().for_each(|prompt| chain.text(prompt)),
            Prompt::Tokens(prompts) => prompts.iter().for_each(|tokens| chain.tokens(tokens)),
            Prompt::Blocks { hashes, .. } => {
                hashes.iter().for_each(|hash| chain.add(&hash.to_le_bytes(), BASE_BLOCK_BYTES));
            }
        }
        chain.finish()
    }

    fn hash(&self, kind: Kind, parts: &[&[u8]]) -> u64 {
        #[expect(
            deprecated,
            reason = "SipHash 2-4 with a key of one's own; its successor promises no algorithm"
        )]
        let mut hasher = std::hash::SipHasher::new_with_keys(self.0[0], self.0[1]);
        hasher.write_u64(kind as u64);
        for part in parts {
            hasher.write_u64(part.len() as u64);
            hasher.write(part);
        }
        hasher.finish()
    }
}

impl fmt::Debug for LogKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("LogKey(..)")
    }
}

/// A prompt on its way to blocks of one size.
struct Chain<'a> {
    key: &'a LogKey,
    running: u64,
    /// Bytes of the prompt so far, four for each token.
    end: usize,
    blocks: Vec<u64>,
}

impl Chain<'_> {
    fn text(&mut self, prompt: &TextPrompt) {
        for segment in &prompt.segments {
            self.running =
                self.key.hash(Kind::Segment, &[&segment.meta.to_le_bytes(), &self.running.to_le_bytes()]);
            let mut left = segment.bytes;
            for content in prompt.blocks.get(segment.blocks.clone()).unwrap_or_default() {
                let bytes = left.min(BASE_BLOCK_BYTES);
                left -= bytes;
                self.add(&content.to_le_bytes(), bytes);
            }
        }
    }

    fn tokens(&mut self, tokens: &[u32]) {
        for block in tokens.chunks(BLOCK_TOKENS as usize) {
            let bytes: Vec<u8> = block.iter().flat_map(|id| id.to_le_bytes()).collect();
            self.add(&bytes, bytes.len());
        }
    }

    /// Adds what takes at most one block's bytes.
    fn add(&mut self, content: &[u8], bytes: usize) {
        self.running = self.key.hash(Kind::Block, &[content, &self.running.to_le_bytes()]);
        let full = self.end / BASE_BLOCK_BYTES;
        self.end += bytes;
        if self.end / BASE_BLOCK_BYTES > full {
            self.blocks.push(self.running);
        }
    }

    fn finish(mut self) -> Vec<u64> {
        if !self.end.is_multiple_of(BASE_BLOCK_BYTES) {
            self.blocks.push(self.running);
        }
        self.blocks
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Moment;
    use crate::request::{Api, CacheSalt, Headers, Parsed, Segment, SegmentKind};

    fn key(n: u8) -> LogKey {
        LogKey::of(&[n; 16]).unwrap()
    }

    fn request(prompt: Prompt, model: &str, salt: Option<&str>) -> InferenceRequest {
        let mut parsed = Parsed::opaque(Api::Completions);
        parsed.prompt = prompt;
        parsed.model = Some(model.into());
        parsed.cache_salt = salt.map(|s| CacheSalt::new(s.as_bytes()));
        InferenceRequest {
            id: "r".into(),
            received: Moment::from_nanos(1),
            headers: Headers::default(),
            parsed,
            target_model: "t".into(),
            priority: 0,
            fairness_id: "f".into(),
            body_bytes: 0,
            wishes: Default::default(),
        }
    }

    /// Segments as (meta, contents of base blocks, bytes).
    fn text(segments: &[(u64, &[u64], usize)]) -> Prompt {
        let mut prompt = TextPrompt::default();
        for (meta, contents, bytes) in segments {
            let start = prompt.blocks.len();
            prompt.blocks.extend(*contents);
            prompt.segments.push(Segment {
                kind: SegmentKind::Message,
                meta: *meta,
                blocks: start..prompt.blocks.len(),
                bytes: *bytes,
                span: 0..0,
            });
        }
        Prompt::Text(vec![prompt])
    }

    fn blocks(prompt: Prompt) -> Vec<u64> {
        key(1).blocks(&request(prompt, "m", None))
    }

    /// The vector of the algorithm's authors: key 00 01 … 0f over 00 01 … 0e.
    #[test]
    #[expect(deprecated, reason = "the algorithm that the log relies on")]
    fn the_hash_is_siphash_2_4() {
        let bytes: Vec<u8> = (0..15).collect();
        let mut hasher = std::hash::SipHasher::new_with_keys(0x0706_0504_0302_0100, 0x0f0e_0d0c_0b0a_0908);
        hasher.write(&bytes);
        assert_eq!(hasher.finish(), 0xa129_ca61_49be_45e5);
    }

    #[test]
    fn a_block_is_64_tokens_whatever_the_segments_are() {
        for (prompt, wanted) in [
            (text(&[(1, &[10, 11], 512)]), 2),
            (text(&[(1, &[10], 40), (2, &[11], 40)]), 1),
            (text(&[(1, &[10], 200), (2, &[11], 200), (3, &[12], 112)]), 2),
            (text(&[(1, &[10], 200), (2, &[11], 200), (3, &[12], 113)]), 3),
            (Prompt::Tokens(vec![vec![7; 130]]), 3),
            (Prompt::Blocks { hashes: vec![1, 2, 3], block_tokens: 64 }, 3),
            (Prompt::None, 0),
        ] {
            let tokens = prompt.tokens();
            assert_eq!(blocks(prompt.clone()).len(), wanted, "{prompt:?}");
            assert_eq!(tokens.div_ceil(BLOCK_TOKENS) as usize, wanted, "{prompt:?}");
        }
    }

    #[test]
    fn prompts_share_blocks_as_far_as_they_are_equal() {
        let turns: [(u64, &[u64], usize); 3] = [(1, &[10, 11], 400), (2, &[12, 13, 14], 700), (3, &[15], 90)];
        let (short, long) = (blocks(text(&turns[..2])), blocks(text(&turns)));
        // 1,100 bytes are four whole blocks and a part of a fifth, which the next turn changes.
        assert_eq!((short.len(), long.len()), (5, 5));
        assert_eq!(short[..4], long[..4]);
        assert_ne!(short[4], long[4]);
        let other_role = blocks(text(&[turns[0], (9, turns[1].1, 700)]));
        // The second block holds the end of the first message and the begin of the second.
        assert_eq!((other_role[0] == short[0], other_role[1] == short[1]), (true, false));
        let repeated = blocks(text(&[(1, &[10, 10, 10], 768)]));
        assert!(
            repeated[0] != repeated[1] && repeated[1] != repeated[2],
            "each together with those before it"
        );
    }

    #[test]
    fn other_models_salts_and_keys_share_nothing() {
        let prompt = || Prompt::Tokens(vec![vec![7; 64]]);
        let all = [
            key(1).blocks(&request(prompt(), "m", None)),
            key(2).blocks(&request(prompt(), "m", None)),
            key(1).blocks(&request(prompt(), "n", None)),
            key(1).blocks(&request(prompt(), "m", Some("s"))),
        ];
        let distinct: std::collections::BTreeSet<_> = all.iter().collect();
        assert_eq!(distinct.len(), all.len());
        assert_ne!(key(1).session("a"), key(2).session("a"));
        assert_ne!(key(1).session("a"), key(1).draw("a"));
    }

    #[test]
    fn a_key_is_of_16_bytes_at_least_and_not_printed() {
        assert_eq!(LogKey::of(b" 0123456789abcde\n"), Err(ShortKey(15)));
        assert_eq!(LogKey::of(b"0123456789abcdef\n"), LogKey::of(b"0123456789abcdef"));
        assert_ne!(LogKey::random(), LogKey::random());
        assert_eq!(format!("{:?}", key(1)), "LogKey(..)");
    }
}
