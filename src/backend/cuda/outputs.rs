//! Class scores and losses on their way to the host.

use super::memory::Pinned;
use super::{Buffer, Gpu};
use crate::Result;
use crate::plan::Plan;

/// What forward runs gave, up to `N` of them under way, which are received in the order in which they were sent.
pub(super) struct Outputs<const N: usize> {
    slots: [Option<Slot>; N],
    /// The slot that is received next, and how many were sent and not received.
    next: usize,
    sent: usize,
    logits: Vec<f32>,
    losses: Vec<f32>,
}

/// Scores of one run, its losses behind them.
struct Slot {
    memory: Pinned,
    logits: usize,
    losses: usize,
}

impl<const N: usize> Default for Outputs<N> {
    fn default() -> Self {
        Outputs { slots: [const { None }; N], next: 0, sent: 0, logits: Vec::new(), losses: Vec::new() }
    }
}

impl<const N: usize> Outputs<N> {
    /// Queues the copies behind the run's kernels.
    ///
    /// # Panics
    /// Where `N` are under way.
    pub fn send(&mut self, arena: &Buffer, gpu: &'static Gpu, plan: &Plan, n: usize) -> Result<()> {
        assert!(self.sent < N, "{N} runs are under way");
        let (logits, losses) = (plan.logits_range(n), plan.losses_range(n));
        let slot = &mut self.slots[(self.next + self.sent) % N];
        // For the largest batch at once: no later step allocates.
        let most = plan.logits_range(plan.max_batch()).len() + plan.losses_range(plan.max_batch()).len();
        let slot = match slot {
            Some(slot) if slot.memory.len() >= most => slot,
            slot => slot.insert(Slot { memory: Pinned::new(gpu, most)?, logits: 0, losses: 0 }),
        };
        (slot.logits, slot.losses) = (logits.len(), losses.len());
        arena.receive(logits, &mut slot.memory, 0, gpu.stream())?;
        arena.receive(losses, &mut slot.memory, slot.logits, gpu.stream())?;
        self.sent += 1;
        Ok(())
    }

    /// Waits for the run that was sent first; without one there is nothing to do.
    pub fn receive(&mut self) -> Result<()> {
        let Some(slot) = self.slots[self.next].as_mut().filter(|_| self.sent > 0) else { return Ok(()) };
        (self.next, self.sent) = ((self.next + 1) % N, self.sent - 1);
        let (logits, losses) = slot.memory.elements()?[..slot.logits + slot.losses].split_at(slot.logits);
        for (to, from) in [(&mut self.logits, logits), (&mut self.losses, losses)] {
            to.clear();
            to.extend_from_slice(from);
        }
        Ok(())
    }

    /// Scores of the run that was received last.
    pub fn logits(&self) -> &[f32] {
        &self.logits
    }

    /// Its losses.
    pub fn losses(&self) -> &[f32] {
        &self.losses
    }
}
