//! The demo's workloads: who asks what, and when. Pure: the same seed gives the same requests.

use std::fmt::Write as _;
use std::time::Duration;

/// Shape of a workload.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Teams, each with a system prompt of its own.
    pub(super) teams: usize,
    /// Conversations of each team.
    pub(super) conversations_per_team: usize,
    /// Turns of each conversation.
    pub(super) turns: usize,
    /// Words of a system prompt.
    pub(super) system_words: usize,
    /// Words of a user's turn.
    pub(super) turn_words: usize,
    /// Tokens of each answer.
    pub(super) answer_tokens: u32,
    /// Mean rate of requests.
    pub(super) requests_per_second: f64,
    /// Least time between the turns of one conversation.
    pub(super) think: Duration,
}

impl Shape {
    /// Multi-turn chat: system prompts shared within a team.
    pub(super) fn chat(scale: f64, requests_per_second: f64) -> Self {
        let conversations = (9.0 * scale).round().max(1.0) as usize;
        Self {
            teams: 12,
            conversations_per_team: conversations,
            turns: 5,
            system_words: 900,
            turn_words: 120,
            answer_tokens: 40,
            requests_per_second,
            think: Duration::from_secs(2),
        }
    }

    /// Every prompt is new: nothing to reuse, so a cache-aware pick can only lose.
    pub(super) fn unique(scale: f64, requests_per_second: f64) -> Self {
        let requests = (360.0 * scale).round().max(1.0) as usize;
        Self {
            teams: requests,
            conversations_per_team: 1,
            turns: 1,
            system_words: 900,
            ..Self::chat(scale, requests_per_second)
        }
    }
}

/// One request of the workload.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    /// When it is due, from the start.
    pub(super) at: Duration,
    /// Its body.
    pub(super) body: String,
}

/// All requests in order of their time.
pub(super) fn generate(shape: &Shape, seed: u64) -> Vec<Ask> {
    let mut rng = fastrand::Rng::with_seed(seed);
    let systems: Vec<String> = (0..shape.teams).map(|_| words(&mut rng, shape.system_words)).collect();
    let mut waiting: Vec<Conversation> = (0..shape.teams * shape.conversations_per_team)
        .map(|i| Conversation { team: i % shape.teams, next_turn: 0, free_at: 0.0, messages: String::new() })
        .collect();
    rng.shuffle(&mut waiting);
    let mut asks = Vec::new();
    let mut now = 0.0;
    while !waiting.is_empty() {
        now += -(1.0 - rng.f64()).ln() / shape.requests_per_second;
        let free: Vec<usize> = (0..waiting.len().min(48)).filter(|i| waiting[*i].free_at <= now).collect();
        let Some(chosen) = rng.choice(free) else { continue };
        let conversation = &mut waiting[chosen];
        let body = conversation.ask(&systems[conversation.team], &words(&mut rng, shape.turn_words), shape);
        asks.push(Ask { at: Duration::from_secs_f64(now), body });
        conversation.answer(&words(&mut rng, shape.answer_tokens as usize));
        conversation.free_at = now + shape.think.as_secs_f64() * (1.0 + rng.f64());
        if conversation.next_turn == shape.turns {
            waiting.swap_remove(chosen);
        }
    }
    asks
}

struct Conversation {
    team: usize,
    next_turn: usize,
    free_at: f64,
    messages: String,
}

impl Conversation {
    fn ask(&mut self, system: &str, question: &str, shape: &Shape) -> String {
        self.next_turn += 1;
        let _infallible = write!(self.messages, r#",{{"role":"user","content":"{question}"}}"#);
        format!(
            concat!(
                r#"{{"model":"demo","stream":true,"stream_options":{{"include_usage":true}},"ignore_eos":true,"#,
                r#""max_tokens":{},"messages":[{{"role":"system","content":"{}"}}{}]}}"#
            ),
            shape.answer_tokens, system, self.messages
        )
    }
    fn answer(&mut self, text: &str) {
        let _infallible = write!(self.messages, r#",{{"role":"assistant","content":"{text}"}}"#);
    }
}

/// Random words without anything that JSON escapes.
fn words(rng: &mut fastrand::Rng, count: usize) -> String {
    let mut text = String::with_capacity(count * 6);
    for i in 0..count {
        if i > 0 {
            text.push(' ');
        }
        for _ in 0..rng.usize(3..8) {
            text.push(rng.lowercase());
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_seed_gives_the_same_requests_and_each_turn_extends_the_last() {
        let shape = Shape { teams: 2, conversations_per_team: 2, turns: 3, ..Shape::chat(1.0, 50.0) };
        let asks = generate(&shape, 7);
        assert_eq!(asks.len(), 12);
        assert!(asks.windows(2).all(|w| w[0].at <= w[1].at));
        let again = generate(&shape, 7);
        assert!(asks.iter().zip(&again).all(|(a, b)| a.body == b.body && a.at == b.at));
        let lengths: std::collections::BTreeSet<usize> = asks
            .iter()
            .map(|a| {
                serde_json::from_str::<serde_json::Value>(&a.body).unwrap()["messages"]
                    .as_array()
                    .unwrap()
                    .len()
            })
            .collect();
        assert_eq!(lengths.into_iter().collect::<Vec<_>>(), [2, 4, 6]);
    }

    #[test]
    fn unique_prompts_share_no_start() {
        let asks = generate(&Shape::unique(0.1, 50.0), 1);
        let starts: std::collections::BTreeSet<&str> = asks.iter().map(|a| &a.body[..300]).collect();
        assert_eq!(starts.len(), asks.len());
    }
}
