//! A timer per request: nobody slows anybody but through the load factor, seats and blocks.

use std::cmp::Reverse;
use std::collections::BinaryHeap;

use super::{Engine, Event, Time, TimedCost};

/// Pending token times: (when, order of setting, slot, epoch of the sequence).
#[derive(Default)]
pub(super) struct Timers {
    heap: BinaryHeap<Reverse<(Time, u64, u32, u64)>>,
    set: u64,
}

impl Timers {
    pub fn next(&self) -> Option<Time> {
        self.heap.peek().map(|Reverse(timer)| timer.0)
    }

    fn set(&mut self, at: Time, slot: u32, owner: u64) {
        self.set += 1;
        self.heap.push(Reverse((at, self.set, slot, owner)));
    }
}

impl Engine {
    pub(super) fn advance_timed(&mut self, now: Time, cost: &TimedCost, out: &mut Vec<Event>) {
        while let Some(at) = self.next_event().filter(|t| *t <= now) {
            if self.timers.next() == Some(at) {
                if let Some(Reverse((_, _, slot, owner))) = self.timers.heap.pop() {
                    self.timer_fired(at, slot, owner, cost, out);
                }
            } else {
                self.ready_at = None;
            }
            self.start_timed(at, cost, out);
        }
    }

    fn start_timed(&mut self, at: Time, cost: &TimedCost, out: &mut Vec<Event>) {
        let before = self.running.len();
        self.admit(at, u32::MAX, true, out);
        for i in before..self.running.len() {
            let slot = self.running[i];
            let factor = cost.load_factor(self.running.len(), self.config.max_num_seqs) * self.slowdown;
            let Some(seq) = self.seqs.get_mut(slot as usize).and_then(Option::as_mut) else { continue };
            let wait = cost.first(seq.known() - seq.computed, &mut self.rng).mul_f64(factor);
            let owner = owner_of(seq.key.1, seq.epoch);
            self.timers.set(at + wait, slot, owner);
        }
    }

    /// A token is due, unless its sequence ended or was preempted since the timer was set.
    fn timer_fired(&mut self, at: Time, slot: u32, owner: u64, cost: &TimedCost, out: &mut Vec<Event>) {
        let Some(seq) = self.seq_mut(slot).filter(|s| owner_of(s.key.1, s.epoch) == owner) else { return };
        seq.computed = seq.known();
        seq.scheduled = 0;
        if self.emit_token(slot, at, out) {
            self.running.retain(|s| *s != slot);
            return;
        }
        let Some(known) = self.seq(slot).map(|s| s.known()) else { return };
        if !self.grow_or_preempt(slot, known, at, out) {
            return;
        }
        let factor = cost.load_factor(self.running.len(), self.config.max_num_seqs) * self.slowdown;
        let wait = cost.inter_token.draw(&mut self.rng).mul_f64(factor);
        self.timers.set(at + wait, slot, owner);
    }
}

/// Names one stay of one sequence among the running ones; slots are used again, arrivals are not.
fn owner_of(arrival: u64, epoch: u32) -> u64 {
    arrival.wrapping_mul(0x9E37_79B9_7F4A_7C15) ^ u64::from(epoch)
}
