//! What goes into the engine and what comes out of it.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64_with_seed;

use super::{Time, WaitKey};

/// A request's name, chosen by the caller, unique among those that have not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub u64);

/// The number of a LoRA adapter, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AdapterId(pub u16);

impl AdapterId {
    pub(super) fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// The identity of each full KV block of a sequence, in order. Two sequences share block *i* exactly when their keys are
/// equal up to *i*. Blocks beyond the keys (an unknown output, a partial last block) are never shared.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct BlockKeys(Box<[u64]>);

impl BlockKeys {
    /// Keys of a sequence of token ids: each block hashed together with everything before it. `seed` separates what must
    /// not be shared (model, adapter, salt).
    pub fn from_tokens(seed: u64, tokens: impl IntoIterator<Item = u32>, block_size: u32) -> Self {
        let mut keys = Vec::new();
        let width = block_size.max(1) as usize * 4;
        let mut bytes = Vec::with_capacity(width);
        let mut parent = seed;
        for token in tokens {
            bytes.extend_from_slice(&token.to_le_bytes());
            if bytes.len() == width {
                parent = xxh3_64_with_seed(&bytes, parent);
                keys.push(parent);
                bytes.clear();
            }
        }
        Self(keys.into())
    }

    /// Keys of a traced prompt of `tokens` tokens given as one id per `id_block` tokens (512 in Mooncake traces), where
    /// equal ids mean equal prefixes up to there. `id_block` should be a multiple of `block_size`; with another ratio the
    /// block that straddles two ids takes the later one.
    pub fn from_hash_ids(seed: u64, ids: &[u64], id_block: u32, tokens: u32, block_size: u32) -> Self {
        let (id_block, block_size) = (id_block.max(1), block_size.max(1));
        let full = tokens / block_size;
        let keys = (0..full).map_while(|i| {
            let last_token = (i + 1) * block_size - 1;
            let id = ids.get((last_token / id_block) as usize)?;
            let mut bytes = [0; 12];
            bytes[..8].copy_from_slice(&id.to_le_bytes());
            bytes[8..].copy_from_slice(&(last_token % id_block).to_le_bytes());
            Some(xxh3_64_with_seed(&bytes, seed))
        });
        Self(keys.collect())
    }

    /// The keys.
    pub fn as_slice(&self) -> &[u64] {
        &self.0
    }

    /// How many full blocks have a key.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether nothing of this sequence can be shared.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

/// One generation.
#[derive(Clone, Debug)]
pub struct Request {
    /// Unique among requests that have not ended.
    pub id: RequestId,
    /// Length of the prompt; at least 1.
    pub prompt_tokens: u32,
    /// Tokens that will be generated; at least 1.
    pub output_tokens: u32,
    /// Keys of the prompt's full blocks, followed by those of prompt and output together as far as the output is known.
    pub keys: BlockKeys,
    /// LoRA adapter, if any. Its number is in no key: seed the keys with it.
    pub adapter: Option<AdapterId>,
    /// Lower runs earlier, as vLLM has it.
    pub priority: i32,
    /// How it ends when all its tokens are out.
    pub natural_end: FinishReason,
}

/// Why a request ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum FinishReason {
    /// The model ended its answer.
    Stop,
    /// The token limit was reached.
    Length,
    /// The client went away.
    Abort,
}

/// Why a request was not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The waiting queue is at its bound.
    #[error("the waiting queue is full ({limit} requests)")]
    QueueFull {
        /// The bound.
        limit: u32,
    },
    /// Prompt and output are longer than the model length or the whole KV cache, or one of them is empty.
    #[error("{tokens} tokens of prompt and output; possible are {limit}, and at least one of each")]
    Length {
        /// Prompt plus output.
        tokens: u64,
        /// The smaller of model length and KV cache.
        limit: u64,
    },
    /// A request with this id has not ended yet.
    #[error("a request with this id is already here")]
    DuplicateId,
}

/// Something that happened to a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Event {
    /// When.
    pub at: Time,
    /// To whom. For block events: whose blocks caused it.
    pub id: RequestId,
    /// What.
    pub kind: EventKind,
}

/// What can happen. `FirstToken` and every `Token` come at the end of the step that computed them.
#[derive(Clone, Debug, PartialEq)]
pub enum EventKind {
    /// Left the queue for the first time.
    Started {
        /// Leading prompt tokens found in the cache; always less than the prompt.
        cached_tokens: u32,
    },
    /// The prompt is computed and the first token is out.
    FirstToken,
    /// Another token is out.
    Token {
        /// How many tokens are out now.
        index: u32,
    },
    /// Had to give its blocks to earlier requests and waits again.
    Preempted,
    /// All tokens are out. The last event of a request that was not cancelled.
    Finished(Summary),
    /// A block became findable.
    BlockStored {
        /// Its key.
        key: u64,
        /// The key of the block before it.
        parent: Option<u64>,
    },
    /// A block was handed out anew.
    BlockRemoved {
        /// The key it had.
        key: u64,
    },
}

/// The life of a request.
#[derive(Clone, Debug, PartialEq)]
pub struct Summary {
    /// When it was submitted.
    pub arrived: Time,
    /// When it first left the queue.
    pub started: Option<Time>,
    /// When its first token was out.
    pub first_token: Option<Time>,
    /// When it ended.
    pub finished: Time,
    /// Why.
    pub reason: FinishReason,
    /// Length of the prompt.
    pub prompt_tokens: u32,
    /// Of these found in the cache when it started.
    pub cached_tokens: u32,
    /// Tokens generated.
    pub generated_tokens: u32,
    /// How often it was sent back to wait.
    pub preemptions: u32,
}

impl Summary {
    /// From submission to the first token.
    pub fn time_to_first_token(&self) -> Option<Duration> {
        self.first_token.map(|t| t - self.arrived)
    }

    /// Mean time of a token after the first; `None` when there was no second.
    pub fn time_per_output_token(&self) -> Option<Duration> {
        let first = self.first_token?;
        (self.generated_tokens > 1).then(|| (self.finished - first) / (self.generated_tokens - 1))
    }
}

/// A request inside the engine.
pub(super) struct Seq {
    pub id: RequestId,
    pub key: WaitKey,
    pub prompt_tokens: u32,
    pub output_tokens: u32,
    pub keys: BlockKeys,
    pub adapter: Option<AdapterId>,
    pub natural_end: FinishReason,
    pub blocks: Vec<u32>,
    /// Leading blocks that are hits or have been offered to the cache.
    pub stored: usize,
    /// Tokens whose KV is there.
    pub computed: u32,
    /// Tokens of the current step.
    pub scheduled: u32,
    pub generated: u32,
    pub cached_tokens: u32,
    pub preemptions: u32,
    /// Goes up with each preemption, so that timers set before are seen to be void.
    pub epoch: u32,
    pub arrived: Time,
    pub started: Option<Time>,
    pub first_token: Option<Time>,
}

impl Seq {
    pub fn new(request: Request, key: WaitKey, arrived: Time) -> Self {
        Self {
            id: request.id,
            key,
            prompt_tokens: request.prompt_tokens,
            output_tokens: request.output_tokens,
            keys: request.keys,
            adapter: request.adapter,
            natural_end: request.natural_end,
            blocks: Vec::new(),
            stored: 0,
            computed: 0,
            scheduled: 0,
            generated: 0,
            cached_tokens: 0,
            preemptions: 0,
            epoch: 0,
            arrived,
            started: None,
            first_token: None,
        }
    }

    /// Tokens that are known: the prompt and what was generated.
    pub fn known(&self) -> u32 {
        self.prompt_tokens + self.generated
    }

    pub fn summary(&self, finished: Time, reason: FinishReason) -> Summary {
        Summary {
            arrived: self.arrived,
            started: self.started,
            first_token: self.first_token,
            finished,
            reason,
            prompt_tokens: self.prompt_tokens,
            cached_tokens: self.cached_tokens,
            generated_tokens: self.generated,
            preemptions: self.preemptions,
        }
    }
}
