//! Shared steps: chunked prefill and decode of all running sequences in one batch.

use super::{Engine, Event, StepCost, Time};

impl Engine {
    pub(super) fn advance_steps(&mut self, now: Time, cost: &StepCost, out: &mut Vec<Event>) {
        loop {
            match (self.step_end, self.ready_at) {
                (Some(end), _) if end <= now => {
                    self.step_end = None;
                    self.ready_at = None;
                    self.finish_step(end, out);
                    self.start_step(end, cost, out);
                }
                (None, Some(ready)) if ready <= now => {
                    self.ready_at = None;
                    self.start_step(ready, cost, out);
                }
                _ => return,
            }
        }
    }

    /// Chooses what the next step computes: running sequences first, in order, then waiting ones.
    fn start_step(&mut self, at: Time, cost: &StepCost, out: &mut Vec<Event>) {
        let mut budget = self.config.max_num_batched_tokens;
        let seats = self.running.len();
        let mut next = 0;
        while next < self.running.len() && budget > 0 {
            let slot = self.running[next];
            let Some((wanted, computed)) = self.seq(slot).map(|s| (s.known() - s.computed, s.computed))
            else {
                break;
            };
            let chunk = wanted.min(budget);
            if !self.grow_or_preempt(slot, computed + chunk, at, out) {
                break;
            }
            if let Some(seq) = self.seq_mut(slot) {
                seq.scheduled = chunk;
            }
            budget -= chunk;
            next += 1;
        }
        // Who was just sent away must not come straight back for the blocks it gave.
        if self.running.len() == seats {
            self.admit(at, budget, false, out);
        }
        self.step_end = self.step_length(cost).map(|length| at + length);
    }

    /// The time of the step, or `None` when there is nothing to compute.
    fn step_length(&self, cost: &StepCost) -> Option<std::time::Duration> {
        let (mut prefill, mut decode, mut context) = (0, 0, 0);
        for seq in self.running.iter().filter_map(|slot| self.seq(*slot)) {
            if seq.scheduled == 1 && seq.generated > 0 {
                decode += 1;
                context += u64::from(seq.known());
            } else {
                prefill += seq.scheduled;
            }
        }
        (prefill + decode > 0).then(|| cost.step(prefill, decode, context).mul_f64(self.slowdown))
    }

    /// Books what the step computed; a sequence whose known tokens are all computed gets its next token.
    fn finish_step(&mut self, at: Time, out: &mut Vec<Event>) {
        let mut running = std::mem::take(&mut self.running);
        running.retain(|slot| {
            let Some(seq) = self.seq_mut(*slot) else { return false };
            seq.computed += std::mem::take(&mut seq.scheduled);
            seq.computed < seq.known() || !self.emit_token(*slot, at, out)
        });
        self.running = running;
    }
}
