//! A moving average of the weights.

use rayon::prelude::*;

use super::table::at_level;
use crate::backend::{Real, simd_level};
use crate::{Error, ErrorKind, Params, Result};

/// Elements per work item; see `table.rs`.
const PIECE: usize = 16 * 1024;

/// An exponential moving average of a model's parameters and state (running statistics, without which averaged weights
/// would meet statistics of other weights). After step t, counted from 1,
///
/// ```text
/// d = min(decay, (1 + t)/(10 + t))
/// average ← d·average + (1 − d)·value
/// ```
///
/// It starts at the values before the first step; the rising d, TensorFlow's, lets it forget them soon. Kept as
/// `average + (1 − d)·(value − average)`. The floor is memory: 3 accesses per element.
///
/// ```
/// use handgrad::{Params, models, optim::Ema, rng::Key};
/// let graph = models::build("simplenet", &Default::default())?;
/// let mut params = Params::<f32>::zeros(&graph)?;
/// let mut ema = Ema::new(0.999, &params)?;
/// params.values_mut().fill(1.1);
/// ema.update(&params)?;
/// ema.swap(&mut params)?; // now the model predicts with the averages
/// assert!((params.values()[0] - 0.9).abs() < 1e-6); // 2/11 of 0 and 9/11 of 1.1
/// ema.swap(&mut params)?; // and now it can be trained on
/// # Ok::<(), handgrad::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Ema<E> {
    decay: f64,
    steps: u64,
    values: Vec<E>,
    states: Vec<E>,
    /// The same on a device, where they follow there.
    #[cfg(feature = "cuda")]
    device: super::device::There<[crate::backend::cuda::Buffer; 2]>,
}

impl<E: Real> Ema<E> {
    /// An average that starts at the values of `params`.
    ///
    /// # Errors
    /// `Usage` unless `decay` is in `[0, 1)`.
    pub fn new(decay: f64, params: &Params<E>) -> Result<Self> {
        super::rule::check_fraction("ema", decay)?;
        Ok(Ema {
            decay,
            steps: 0,
            values: params.values().to_vec(),
            states: params.states().to_vec(),
            #[cfg(feature = "cuda")]
            device: Default::default(),
        })
    }

    /// Takes in the parameters and state after a step.
    ///
    /// # Errors
    /// `Shape` if they are not those of the same model.
    pub fn update(&mut self, params: &Params<E>) -> Result<()> {
        self.check(ErrorKind::Shape, params.values().len(), params.states().len())?;
        self.fetch()?;
        self.leave_device();
        let take = E::of(self.next());
        for (averages, values) in [(&mut self.values, params.values()), (&mut self.states, params.states())] {
            let follow = |(averages, values): (&mut [E], &[E])| {
                averages.iter_mut().zip(values).for_each(|(average, &value)| *average += take * (value - *average));
            };
            let pieces = averages.par_chunks_mut(PIECE).zip(values.par_chunks(PIECE));
            pieces.for_each(|piece| at_level(simd_level(), follow, piece));
        }
        Ok(())
    }

    /// Counts a step; how much of its values is taken in.
    fn next(&mut self) -> f64 {
        self.steps += 1;
        let t = self.steps as f64;
        1.0 - self.decay.min((1.0 + t) / (10.0 + t))
    }

    /// [`Ema::update`] from parameters and states on a device, where the averages are kept from then on.
    #[cfg(feature = "cuda")]
    pub(crate) fn update_on_device(&mut self, on: super::OnDevice, states: crate::backend::cuda::Ptr) -> Result<()> {
        use super::device::{optim_ema, over_all, upload};
        use crate::backend::cuda::int;
        let take = self.next() as f32;
        let kept = self.device.or_make(|| Ok([upload(on.gpu, &self.values)?, upload(on.gpu, &self.states)?]))?;
        for (averages, (values, len)) in kept.iter().zip([(on.values, self.values.len()), (states, self.states.len())])
        {
            if len > 0 {
                optim_ema(on.gpu, over_all(len), averages.ptr(), values, int(len), take)?;
            }
        }
        Ok(())
    }

    /// Brings averages that a device keeps to the host: before any of them is read.
    ///
    /// # Errors
    /// What the device reports.
    pub fn fetch(&mut self) -> Result<()> {
        #[cfg(feature = "cuda")]
        if let Some([values, states]) = self.device.get() {
            super::device::download(values, &mut self.values)?;
            super::device::download(states, &mut self.states)?;
        }
        Ok(())
    }

    fn leave_device(&mut self) {
        #[cfg(feature = "cuda")]
        self.device.leave();
    }

    /// Exchanges the averages and what is in `params`: for an evaluation, and after it once more.
    ///
    /// # Errors
    /// As [`Ema::update`].
    pub fn swap(&mut self, params: &mut Params<E>) -> Result<()> {
        self.check(ErrorKind::Shape, params.values().len(), params.states().len())?;
        params.values_mut().swap_with_slice(&mut self.values);
        params.states_mut().swap_with_slice(&mut self.states);
        Ok(())
    }

    /// How many steps were taken in.
    pub fn steps(&self) -> u64 {
        self.steps
    }

    /// The averages of parameters and of state: what a checkpoint saves.
    pub fn averages(&self) -> (&[E], &[E]) {
        (&self.values, &self.states)
    }

    /// Takes back saved averages.
    ///
    /// # Errors
    /// `Format` if their lengths are not those of [`Ema::averages`].
    pub fn restore(&mut self, steps: u64, values: &[E], states: &[E]) -> Result<()> {
        self.check(ErrorKind::Format, values.len(), states.len())?;
        self.values.copy_from_slice(values);
        self.states.copy_from_slice(states);
        self.steps = steps;
        self.leave_device();
        Ok(())
    }

    fn check(&self, kind: ErrorKind, values: usize, states: usize) -> Result<()> {
        let own = (self.values.len(), self.states.len());
        if own == (values, states) {
            return Ok(());
        }
        let found = format!("{values} parameters and {states} numbers of state");
        Err(Error::new(kind, "averaged weights", found).expected(format!("{} and {}", own.0, own.1)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::{Graph, Shape};
    use crate::ops::{BatchNorm, Linear};
    use crate::rng::Key;

    fn params(seed: u64) -> Params<f64> {
        let mut g = Graph::new(Shape::new(1, 1, 3));
        let x = g.node("norm", BatchNorm::running(), &[g.images()]).unwrap();
        g.node("out", Linear::new(2), &[x]).unwrap();
        let mut params = Params::zeros(&g).unwrap();
        let mut noise = Key::new(seed).stream();
        params.values_mut().iter_mut().for_each(|v| *v = noise.normal());
        params.states_mut().iter_mut().for_each(|v| *v = noise.normal());
        params
    }

    #[test]
    fn the_average_follows_its_formula() {
        let mut ema = Ema::new(0.3, &params(0)).unwrap();
        let mut expected = params(0).values().to_vec();
        let mut states = params(0).states().to_vec();
        for t in 1..=20u32 {
            let now = params(t.into());
            ema.update(&now).unwrap();
            let d = f64::min(0.3, (1.0 + f64::from(t)) / (10.0 + f64::from(t)));
            expected.iter_mut().zip(now.values()).for_each(|(e, v)| *e = d * *e + (1.0 - d) * v);
            states.iter_mut().zip(now.states()).for_each(|(e, v)| *e = d * *e + (1.0 - d) * v);
        }
        let close = |a: &[f64], b: &[f64]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-14);
        assert!(close(ema.averages().0, &expected) && close(ema.averages().1, &states));
        assert_eq!(ema.steps(), 20);
    }

    #[test]
    fn two_swaps_change_nothing_and_a_restored_average_goes_on() {
        let (mut ema, mut live) = (Ema::new(0.9, &params(0)).unwrap(), params(1));
        ema.update(&live).unwrap();
        let averages = (ema.averages().0.to_vec(), ema.averages().1.to_vec());
        ema.swap(&mut live).unwrap();
        assert_eq!((live.values(), live.states()), (&averages.0[..], &averages.1[..]));
        ema.swap(&mut live).unwrap();
        assert_eq!((live.values(), live.states()), (params(1).values(), params(1).states()));
        let mut again = Ema::new(0.9, &params(7)).unwrap();
        again.restore(ema.steps(), &averages.0, &averages.1).unwrap();
        ema.update(&params(2)).unwrap();
        again.update(&params(2)).unwrap();
        assert_eq!(ema.averages(), again.averages());
        assert_eq!(again.restore(1, &averages.0, &[]).unwrap_err().kind(), ErrorKind::Format);
        assert_eq!(Ema::new(1.0, &params(0)).map(drop).unwrap_err().kind(), ErrorKind::Usage);
    }
}
