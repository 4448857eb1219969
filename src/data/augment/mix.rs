//! MixUp and CutMix: images of a batch mixed with each other, and their targets alike.

use crate::data::batch::BatchShape;
use crate::data::format::CHANNELS;
use crate::resample::Rect;
use crate::rng::Key;

/// The least α besides 0.
pub(super) const MIN_ALPHA: f64 = 1e-6;

/// The largest α of Beta(α, α).
pub(super) const MAX_ALPHA: f64 = 100.0;

/// Marks an image that is already mixed.
const DONE: u32 = u32::MAX;

/// What mixing works with: allocated once, used for every batch.
#[derive(Debug, Default)]
pub(crate) struct Mixer {
    /// Which image each one is mixed with.
    partners: Vec<u32>,
    /// A target that is overwritten before it has been mixed with all that need it.
    target: Vec<f32>,
}

impl Mixer {
    /// For batches of up to `batch` images and targets of `outputs` numbers.
    pub fn reserve(&mut self, batch: usize, outputs: usize) {
        self.partners.reserve_exact(batch);
        self.target.resize(outputs, 0.0);
    }

    /// The bytes that [`Mixer::reserve`] takes.
    pub fn bytes_for(batch: usize, outputs: usize) -> usize {
        size_of::<u32>().saturating_mul(batch).saturating_add(size_of::<f32>().saturating_mul(outputs))
    }

    /// Draws which image each of `n` is mixed with: every permutation equally likely.
    fn draw(&mut self, key: Key, n: usize) {
        self.partners.clear();
        self.partners.extend(0..n as u32);
        key.with_name("partners").stream().shuffle(&mut self.partners);
    }

    /// Calls `mix(i, image, partner's image)`, and gives each target its own share and the rest of its partner's, both as
    /// they were before any was mixed. `share` is of image i; `kept` has room for an image.
    fn mix(
        &mut self,
        batch: &mut Rows<'_>,
        kept: &mut [f32],
        mix: impl Fn(usize, &mut [f32], &[f32]),
        share: impl Fn(usize) -> f32,
    ) {
        // Along a cycle of the permutation each image is needed once more, by the one before it: only the first one, which
        // the last one needs, has to be kept.
        for start in 0..self.partners.len() {
            if self.partners[start] == DONE {
                continue;
            }
            kept.copy_from_slice(row(batch.images, kept.len(), start));
            let outputs = self.target.len();
            self.target.copy_from_slice(row(batch.targets, outputs, start));
            let mut i = start;
            while self.partners[i] != DONE {
                let partner = std::mem::replace(&mut self.partners[i], DONE) as usize;
                let (image, other) = pair(batch.images, kept, i, partner, start);
                mix(i, image, other);
                let (target, other) = pair(batch.targets, &self.target, i, partner, start);
                blend(target, other, share(i));
                i = partner;
            }
        }
    }
}

/// The images and targets of a batch, row by row, one of each for every image.
pub(crate) struct Rows<'a> {
    /// Images.
    pub n: usize,
    pub images: &'a mut [f32],
    pub targets: &'a mut [f32],
}

fn row(rows: &[f32], len: usize, i: usize) -> &[f32] {
    &rows[i * len..][..len]
}

/// Row `i` to write, and that of its partner, which is `kept` where it is the one that the cycle started with.
fn pair<'a>(
    rows: &'a mut [f32],
    kept: &'a [f32],
    i: usize,
    partner: usize,
    start: usize,
) -> (&'a mut [f32], &'a [f32]) {
    let len = kept.len();
    if partner == start {
        return (&mut rows[i * len..][..len], kept);
    }
    let (low, high) = rows.split_at_mut(i.max(partner) * len);
    let (low, high) = (&mut low[i.min(partner) * len..][..len], &mut high[..len]);
    if i < partner { (low, high) } else { (high, low) }
}

/// share·own + (1 − share)·other.
fn blend(own: &mut [f32], other: &[f32], share: f32) {
    own.iter_mut().zip(other).for_each(|(own, other)| *own = share * *own + (1.0 - share) * other);
}

/// MixUp (Zhang et al. 2017) as fastai has it: one permutation per batch, λ ~ Beta(α, α) for each image, the larger of λ and
/// 1 − λ being the image's own share.
pub(super) fn mixup(alpha: f64, key: Key, mut batch: Rows<'_>, kept: &mut [f32], mixer: &mut Mixer) {
    let key = key.with_name("mixup");
    let share = |i: usize| {
        let lambda = key.with(i as u64).stream().beta(alpha, alpha);
        lambda.max(1.0 - lambda) as f32
    };
    mixer.draw(key, batch.n);
    mixer.mix(&mut batch, kept, |i, own, other| blend(own, other, share(i)), share);
}

/// CutMix (Yun et al. 2019) as fastai has it: one permutation, one λ ~ Beta(α, α) and one box per batch. The box of the
/// partner's pixels is centred anywhere, as wide as 2·⌊round(width·√(1 − λ))/2⌋ and as high in proportion, cut off at the
/// edges; the shares of the target are the true shares of the area.
pub(super) fn cutmix(
    alpha: f64,
    key: Key,
    shape: &BatchShape,
    mut batch: Rows<'_>,
    kept: &mut [f32],
    mixer: &mut Mixer,
) {
    let key = key.with_name("cutmix");
    let part = cut(alpha, key, shape);
    let share = 1.0 - (part.height * part.width) as f32 / (shape.height * shape.width) as f32;
    mixer.draw(key, batch.n);
    mixer.mix(&mut batch, kept, |_, own, other| paste(own, other, shape.width, part), |_| share);
}

/// The box that comes from the partner.
fn cut(alpha: f64, key: Key, &BatchShape { height, width, .. }: &BatchShape) -> Rect {
    let mut random = key.stream();
    let side = (1.0 - random.beta(alpha, alpha)).sqrt();
    let mut along = |all: usize| {
        let half = (all as f64 * side).round_ties_even() as usize / 2;
        let middle = random.below(all as u64) as usize;
        let start = middle.saturating_sub(half);
        (start, (middle + half).min(all) - start)
    };
    let ((left, width), (top, height)) = (along(width), along(height));
    Rect { top, left, height, width }
}

fn paste(own: &mut [f32], other: &[f32], image_width: usize, Rect { top, left, height, width }: Rect) {
    let line = CHANNELS * image_width;
    let columns = CHANNELS * left..CHANNELS * (left + width);
    let rows = own.chunks_exact_mut(line).zip(other.chunks_exact(line)).skip(top).take(height);
    rows.for_each(|(own, other)| own[columns.clone()].copy_from_slice(&other[columns.clone()]));
}
