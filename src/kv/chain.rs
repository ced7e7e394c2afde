//! From a prompt to the chain of block hashes under which the approximate prefix index knows it.
//!
//! With X = XXH64, seed 0, and LE64 = eight bytes, little endian:
//!
//! - the seed is X(model ++ cache salt); a LoRA adapter is asked for by its model name, so it is in the seed too;
//! - each block is X(LE64(content) ++ LE64(the hash before it)), the seed before the first;
//! - content of token ids is X over them as little-endian u32; the last block may be shorter;
//! - content of text is the hash of its base block, or X over the hashes (LE64) of the base blocks that one effective
//!   block spans. A segment starts a new block; before its first one, its meta hash is folded into the running hash the
//!   same way, so other tools, another role or another order of messages give another chain from there on.

use crate::request::{BASE_BLOCK_BYTES, BYTES_PER_TOKEN, CacheSalt, Prompt, TextPrompt};
use xxhash_rust::xxh64::{Xxh64, xxh64};

/// Tokens that one base block of text counts for.
pub const BASE_BLOCK_TOKENS: u32 = (BASE_BLOCK_BYTES / BYTES_PER_TOKEN) as u32;

/// One chain for each prompt that is not empty. Text blocks span `effective_block_tokens` rounded up to whole base
/// blocks ([`BASE_BLOCK_TOKENS`]); blocks of a trace are taken as they are. At most `max_blocks` a chain; 0 tokens a
/// block, or 0 blocks, give no chain.
pub fn chains(
    prompt: &Prompt,
    model: &str,
    salt: Option<&CacheSalt>,
    effective_block_tokens: u32,
    max_blocks: u32,
) -> Vec<Vec<u64>> {
    let mut out = Vec::new();
    chains_into(prompt, model, salt, effective_block_tokens, max_blocks, &mut out);
    out
}

/// [`chains`] into vectors that are there already: what they held is gone, their memory is used again.
pub fn chains_into(
    prompt: &Prompt,
    model: &str,
    salt: Option<&CacheSalt>,
    effective_block_tokens: u32,
    max_blocks: u32,
    out: &mut Vec<Vec<u64>>,
) {
    let mut used = 0;
    let (block, max) = (effective_block_tokens as usize, max_blocks as usize);
    if block > 0 && max > 0 {
        let seed = seed(model, salt);
        let mut next = |fill: &mut dyn FnMut(&mut Vec<u64>)| {
            if used == out.len() {
                out.push(Vec::new());
            }
            out[used].clear();
            fill(&mut out[used]);
            used += usize::from(!out[used].is_empty());
        };
        match prompt {
            Prompt::None => {}
            Prompt::Text(prompts) => {
                let span = effective_block_tokens.div_ceil(BASE_BLOCK_TOKENS) as usize;
                prompts.iter().for_each(|p| next(&mut |chain| text_chain(p, seed, span, max, chain)));
            }
            Prompt::Tokens(prompts) => {
                prompts.iter().for_each(|p| next(&mut |chain| token_chain(p, seed, block, max, chain)));
            }
            Prompt::Blocks { hashes, .. } => next(&mut |chain| {
                extend(seed, hashes.iter().copied().take(max), chain);
            }),
        }
    }
    out.truncate(used);
}

fn seed(model: &str, salt: Option<&CacheSalt>) -> u64 {
    let mut hash = Xxh64::new(0);
    hash.update(model.as_bytes());
    if let Some(salt) = salt {
        hash.update(salt.as_bytes());
    }
    hash.digest()
}

/// X(LE64(content) ++ LE64(before)).
fn link(content: u64, before: u64) -> u64 {
    let mut bytes = [0; 16];
    bytes[..8].copy_from_slice(&content.to_le_bytes());
    bytes[8..].copy_from_slice(&before.to_le_bytes());
    xxh64(&bytes, 0)
}

fn extend(before: u64, contents: impl Iterator<Item = u64>, chain: &mut Vec<u64>) -> u64 {
    contents.fold(before, |before, content| {
        let hash = link(content, before);
        chain.push(hash);
        hash
    })
}

fn token_chain(tokens: &[u32], seed: u64, block: usize, max: usize, chain: &mut Vec<u64>) {
    extend(seed, tokens.chunks(block).take(max).map(|ids| laid_out(ids, |id| id.to_le_bytes())), chain);
}

/// Words hashed in one call: the hasher's set-up and its bookkeeping of odd lengths cost more than 256 bytes of work.
const WORDS_AT_ONCE: usize = 64;

/// X over words laid out one after the other.
fn laid_out<T: Copy, const WIDTH: usize>(words: &[T], bytes: impl Fn(T) -> [u8; WIDTH]) -> u64 {
    let mut buffer = [[0; WIDTH]; WORDS_AT_ONCE];
    let mut hash = Xxh64::new(0);
    for part in words.chunks(WORDS_AT_ONCE) {
        buffer.iter_mut().zip(part).for_each(|(place, word)| *place = bytes(*word));
        let filled = buffer[..part.len()].as_flattened();
        if words.len() == part.len() {
            return xxh64(filled, 0);
        }
        hash.update(filled);
    }
    hash.digest()
}

fn text_chain(prompt: &TextPrompt, seed: u64, span: usize, max: usize, chain: &mut Vec<u64>) {
    let mut running = seed;
    for segment in &prompt.segments {
        let left = max - chain.len();
        if left == 0 {
            return;
        }
        if segment.meta != 0 {
            running = link(segment.meta, running);
        }
        let blocks = prompt.blocks.get(segment.blocks.clone()).unwrap_or_default();
        running = extend(running, blocks.chunks(span).take(left).map(content), chain);
    }
}

/// The content hash of one effective block out of its base blocks.
fn content(blocks: &[u64]) -> u64 {
    match blocks {
        [one] => *one,
        many => laid_out(many, u64::to_le_bytes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::request::{Segment, SegmentKind};

    fn tokens(prompts: &[&[u32]], model: &str, salt: Option<&str>, block: u32, max: u32) -> Vec<Vec<u64>> {
        let prompt = Prompt::Tokens(prompts.iter().map(|p| p.to_vec()).collect());
        let salt = salt.map(|s| CacheSalt::new(s.as_bytes()));
        chains(&prompt, model, salt.as_ref(), block, max)
    }

    #[test]
    fn token_chains_are_those_of_the_catalogue() {
        let eight: Vec<u32> = (1..=8).collect();
        let ten: Vec<u32> = (1..=10).collect();
        let first = [0xbbaf_f9ab_40b2_fc24, 0xaccb_2a88_63c7_324c];
        assert_eq!(tokens(&[&eight], "test-model", None, 4, 2048), [first]);
        assert_eq!(
            tokens(&[&ten], "test-model", None, 4, 2048),
            [[first[0], first[1], 0x2ca6_840a_ac25_5efb]]
        );
        assert_eq!(
            tokens(&[&[1, 2, 3, 4]], "m", None, 2, 2048),
            [[0xbdea_da20_7194_3583, 0x7aac_fb53_1261_b051]]
        );
        assert_eq!(
            tokens(&[&[1, 2, 3, 4]], "m", Some("salt"), 2, 2048),
            [[0x6b0e_68c5_4f9c_eac3, 0xf143_3d4f_f41f_4429]]
        );
        assert_eq!(
            tokens(&[&[1, 2, 3, 4]], "model", None, 2, 2048),
            [[0xffdc_a57d_2290_6a0b, 0x9f53_fe56_00b4_b914]]
        );
        assert_eq!(tokens(&[&[3, 4]], "model", None, 2, 2048), [[0xe3c1_1834_59da_d609]]);
    }

    #[test]
    fn words_are_hashed_as_their_bytes_in_a_row() {
        for count in [0, 1, 7, 63, 64, 65, 128, 200] {
            let words: Vec<u64> = (0..count).map(|n| u64::wrapping_mul(n, 0x9e37_79b9_7f4a_7c15)).collect();
            let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
            assert_eq!(laid_out(&words, u64::to_le_bytes), xxh64(&bytes, 0), "{count} words");
        }
    }

    #[test]
    fn empty_prompts_have_no_chain_and_each_other_its_own() {
        let all = tokens(&[&[1, 2], &[], &[3, 4]], "model", None, 2, 2048);
        let one = tokens(&[&[1, 2, 3, 4]], "model", None, 2, 2048);
        assert_eq!(all.len(), 2);
        assert_eq!(all[0][0], one[0][0]);
        assert_ne!(all[1][0], one[0][1]);
    }

    #[test]
    fn blocks_are_cut_and_capped() {
        let of = |n: u32, block, max| {
            let ids: Vec<u32> = (0..n).collect();
            tokens(&[&ids], "m", None, block, max).first().map_or(0, Vec::len)
        };
        assert_eq!((of(8, 4, 9), of(10, 4, 9), of(0, 4, 9), of(8, 0, 9)), (2, 3, 0, 0));
        assert_eq!((of(4, 1, 2), of(4, 1, 3), of(4, 1, u32::MAX), of(4, 1, 0)), (2, 3, 4, 0));
        assert_eq!(of(192, 128, 2048), 2);
    }

    fn text(segments: &[(u64, &[u64])]) -> Prompt {
        let mut prompt = TextPrompt::default();
        for (meta, blocks) in segments {
            let from = prompt.blocks.len();
            prompt.blocks.extend_from_slice(blocks);
            prompt.segments.push(Segment {
                kind: SegmentKind::Message,
                meta: *meta,
                blocks: from..prompt.blocks.len(),
                bytes: blocks.len() * BASE_BLOCK_BYTES,
                span: 0..0,
            });
        }
        Prompt::Text(vec![prompt])
    }

    #[test]
    fn text_blocks_fold_base_blocks_and_segments_start_new_ones() {
        let prompt = text(&[(1, &[10, 11, 12]), (2, &[13])]);
        let of = |block| chains(&prompt, "m", None, block, 99)[0].clone();
        assert_eq!((of(64).len(), of(128).len(), of(100).len(), of(256).len()), (4, 3, 3, 2));
        assert_eq!(chains(&prompt, "m", None, 64, 2), [of(64)[..2].to_vec()]);
        let first = link(10, link(1, seed("m", None)));
        assert_eq!(of(64)[..2], [first, link(11, first)]);
    }

    #[test]
    fn model_salt_and_meta_change_every_block_after_them() {
        let base = &chains(&text(&[(1, &[10]), (2, &[11])]), "m", None, 64, 9)[0];
        let salt = CacheSalt::new(b"s");
        let with_salt = chains(&text(&[(1, &[10]), (2, &[11])]), "m", Some(&salt), 64, 9);
        let lora = chains(&text(&[(1, &[10]), (2, &[11])]), "lora", None, 64, 9);
        let tools = chains(&text(&[(9, &[]), (1, &[10]), (2, &[11])]), "m", None, 64, 9);
        let role = chains(&text(&[(1, &[10]), (3, &[11])]), "m", None, 64, 9);
        for other in [&with_salt[0], &lora[0], &tools[0]] {
            assert!(base.iter().all(|hash| !other.contains(hash)));
        }
        assert_eq!((role[0][0] == base[0], role[0][1] == base[1]), (true, false));
    }

    #[test]
    fn the_memory_of_earlier_chains_is_used_again() {
        let mut out = vec![Vec::with_capacity(64), vec![1, 2, 3]];
        let memory = out[0].as_ptr();
        chains_into(&Prompt::Tokens(vec![vec![1, 2, 3]]), "m", None, 2, 9, &mut out);
        assert_eq!((out.len(), out[0].len(), out[0].as_ptr()), (1, 2, memory));
        chains_into(&Prompt::None, "m", None, 2, 9, &mut out);
        assert!(out.is_empty());
    }

    #[test]
    fn blocks_of_a_trace_are_chained() {
        let prompt = Prompt::Blocks { hashes: vec![5, 6, 7], block_tokens: 512 };
        let chain = &chains(&prompt, "m", None, 64, 9)[0];
        assert_eq!(chain[0], link(5, seed("m", None)));
        assert_eq!(chain.len(), 3);
    }
}
