//! What a batch comes to.

use ndarray::{ArrayView1, ArrayView2};

use crate::Result;
use crate::backend::{Backend, Real};
use crate::plan::{Machine, Plan};

/// What one batch gave.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Outcome {
    /// Images.
    pub images: usize,
    /// The mean loss.
    pub loss: f64,
    /// Images whose highest score is the class of the highest target.
    pub correct: usize,
    /// Images where that class is among the five highest scores.
    pub correct5: usize,
}

/// The class of the highest target of each image.
pub(super) fn wanted<E: Real>(targets: ArrayView2<'_, E>) -> impl Iterator<Item = usize> {
    let highest = |row: ArrayView1<'_, E>| (0..row.len()).fold(0, |best, j| if row[j] > row[best] { j } else { best });
    (0..targets.dim().0).map(move |i| highest(targets.row(i)))
}

/// What the last forward run of `n` images came to.
pub(super) fn outcome<B: Backend>(
    plan: &Plan,
    n: usize,
    wanted: impl Iterator<Item = usize>,
    machine: &mut B::Machine,
) -> Result<Outcome> {
    machine.send(plan, n)?;
    received::<B>(plan, n, wanted, machine)
}

/// What the run of `n` images came to whose scores and losses were sent first.
pub(super) fn received<B: Backend>(
    plan: &Plan,
    n: usize,
    wanted: impl Iterator<Item = usize>,
    machine: &mut B::Machine,
) -> Result<Outcome> {
    machine.receive(plan, n)?;
    let loss = machine.losses(plan, n).iter().map(|loss| loss.wide()).sum::<f64>() / n as f64;
    let mut outcome = Outcome { images: n, loss, correct: 0, correct5: 0 };
    for (scores, wanted) in machine.logits(plan, n).outer_iter().zip(wanted) {
        // Among equal scores the class with the lowest number comes first, as in an argmax.
        let ahead = |j: &usize| scores[*j] > scores[wanted] || (scores[*j] == scores[wanted] && *j < wanted);
        let rank = (0..scores.len()).filter(ahead).count();
        let finite = scores[wanted].wide().is_finite();
        outcome.correct += usize::from(finite && rank == 0);
        outcome.correct5 += usize::from(finite && rank < 5);
    }
    Ok(outcome)
}
