//! What follows a convolution's sums in inference, where the layers behind it are part of it.

use super::{Activation, Epilogue};
use std::fmt;

/// With v = act(sum + bias) (+ y): `y ← last(v·scale + shift + residual)`, then the finisher.
///
/// The sum with what `y` holds comes behind scale and shift, as the residual does.
///
/// ```
/// use handgrad::backend::cpu::conv::{Epilogue, Finisher, PackedConvolution, Tail};
/// use handgrad::backend::cpu::{gemm::LinearGeometry, simd::Level};
/// let layer = PackedConvolution::linear(Level::best(), &LinearGeometry { inputs: 1, outputs: 1 });
/// let (mut packed, mut scratch) = (vec![0.0; layer.packed_len()], vec![0.0; layer.scratch(1)]);
/// layer.pack(&[3.0], &mut packed);
/// let halved = |_: usize, values: &mut [f32]| values.iter_mut().for_each(|v| *v /= 2.0);
/// let (scale, residual, finisher) = (Some((&[10.0][..], &[1.0][..])), Some(&[5.0][..]), Some(Finisher(&halved)));
/// let epilogue = Epilogue { tail: Tail { scale, residual, finisher, ..Tail::NONE }, ..Epilogue::NONE };
/// let mut y = [0.0];
/// layer.run(1, &[2.0], &packed, &mut y, epilogue, &mut scratch);
/// assert_eq!(y, [(2.0 * 3.0 * 10.0 + 1.0 + 5.0) / 2.0]);
/// ```
#[derive(Clone, Copy, Debug)]
pub struct Tail<'a> {
    /// Scale and shift, one float per output channel each.
    pub scale: Option<(&'a [f32], &'a [f32])>,
    /// What is added, as long as `y`.
    pub residual: Option<&'a [f32]>,
    /// The last pointwise function.
    pub activation: Activation,
    /// What a register tile cannot do.
    pub finisher: Option<Finisher<'a>>,
}

impl Tail<'_> {
    /// Nothing.
    pub const NONE: Tail<'static> = Tail { scale: None, residual: None, activation: Activation::None, finisher: None };

    /// Whether y may as well be added first.
    pub(super) fn is_sum(&self) -> bool {
        self.scale.is_none() && self.activation == Activation::None
    }

    /// Whether nothing but the finisher follows.
    pub(super) fn is_plain(&self) -> bool {
        self.is_sum() && self.residual.is_none()
    }

    /// The tail of one value but for its finisher: of channel `c`, float `at` of `y`, which holds `old` to be added.
    #[inline(always)]
    pub(super) fn apply(&self, value: f32, old: f32, c: usize, at: usize) -> f32 {
        let scaled = self.scale.map_or(value, |(scale, shift)| value * scale[c] + shift[c]);
        self.activation.apply(scaled + old + self.residual.map_or(0.0, |residual| residual[at]))
    }
}

/// A function of finished values while they lie in a cache, called by any thread: it gets the place in `y` of the first
/// value, and the values, which are whole pixels or channels of one pixel.
#[derive(Clone, Copy)]
pub struct Finisher<'a>(pub &'a (dyn Fn(usize, &mut [f32]) + Sync));

impl Finisher<'_> {
    pub(super) fn run(&self, start: usize, values: &mut [f32]) {
        (self.0)(start, values);
    }
}

impl fmt::Debug for Finisher<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Finisher")
    }
}

crate::multiversion! {
    /// What the epilogue makes of sums, but for its finisher: of a pixel's channels from `first` on, which lie at `start`
    /// of the output. `old` is what is added where the epilogue accumulates. A loop for each part that there is: all of
    /// them vectorise.
    pub(super) fn finish(sums: &mut [f32], old: &[f32], epilogue: &Epilogue, first: usize, start: usize) {
        let Epilogue { bias, activation, tail, .. } = *epilogue;
        let len = sums.len();
        if let Some(bias) = bias {
            sums.iter_mut().zip(&bias[first..]).for_each(|(sum, bias)| *sum += bias);
        }
        activate(activation, sums);
        if let Some((scale, shift)) = tail.scale {
            let channels = scale[first..first + len].iter().zip(&shift[first..]);
            sums.iter_mut().zip(channels).for_each(|(sum, (scale, shift))| *sum = *sum * scale + shift);
        }
        sums.iter_mut().zip(old).for_each(|(sum, old)| *sum += old);
        if let Some(residual) = tail.residual {
            sums.iter_mut().zip(&residual[start..start + len]).for_each(|(sum, residual)| *sum += residual);
        }
        activate(tail.activation, sums);
    }
}

#[inline(always)]
fn activate(activation: Activation, values: &mut [f32]) {
    match activation {
        Activation::None => {}
        Activation::Relu => values.iter_mut().for_each(|value| *value = Activation::Relu.apply(*value)),
        Activation::LeakyRelu(slope) => {
            values.iter_mut().for_each(|value| *value = Activation::LeakyRelu(slope).apply(*value));
        }
    }
}
