//! Clipping by the norm of the whole gradient.

use super::ParamTable;
use crate::backend::Real;
use crate::{Error, ErrorKind, Result};

/// Scales the gradients of the used parameters so that their Euclidean norm together is at most `max_norm`; returns
/// the norm before. The factor is `max_norm / (norm + 1e-6)` where that is below 1, as in PyTorch.
///
/// Squares are summed in f64 over a fixed tree, so the result does not depend on the threads. A norm that is not
/// finite is returned and leaves the gradients as they are, for the caller to report.
///
/// # Errors
/// `Usage` unless `max_norm` is a finite number above 0; `Shape` if the buffer does not have the table's length.
///
/// ```
/// use handgrad::optim::{ParamEntry, ParamTable, clip_grad_norm};
/// let table = ParamTable::new([ParamEntry::vector("w", 0, 2)], 2, &[])?;
/// let mut grads = [3.0_f32, -4.0];
/// assert_eq!(clip_grad_norm(&mut grads, &table, 1.0)?, 5.0);
/// assert!((grads[0] - 0.6).abs() < 1e-6 && (grads[1] + 0.8).abs() < 1e-6);
/// # Ok::<(), handgrad::Error>(())
/// ```
pub fn clip_grad_norm<E: Real>(grads: &mut [E], table: &ParamTable, max_norm: f64) -> Result<f64> {
    if !(max_norm.is_finite() && max_norm > 0.0) {
        return Err(Error::new(ErrorKind::Usage, "clip_norm", max_norm).expected("a finite number above 0"));
    }
    table.check_len("gradients", grads.len())?;
    let norm = sum_of_squares(grads, table).sqrt();
    let factor = max_norm / (norm + 1e-6);
    if norm.is_finite() && factor < 1.0 {
        scale(grads, table, E::of(factor));
    }
    Ok(norm)
}

fn sum_of_squares<E: Real>(grads: &[E], table: &ParamTable) -> f64 {
    table.reduce(grads, |g, _| squares_of_piece(g), |a, b| a + b).unwrap_or(0.0)
}

/// Eight running sums: one would make every addition wait for the one before.
#[inline(always)]
fn squares_of_piece<E: Real>(grads: &[E]) -> f64 {
    let square = |g: E| g.wide() * g.wide();
    let (blocks, rest) = grads.as_chunks::<8>();
    let mut sums = [0.0_f64; 8];
    for block in blocks {
        for (sum, &g) in sums.iter_mut().zip(block) {
            *sum += square(g);
        }
    }
    sums.iter().sum::<f64>() + rest.iter().map(|&g| square(g)).sum::<f64>()
}

fn scale<E: Real>(grads: &mut [E], table: &ParamTable, factor: E) {
    table.each(grads, |g: &mut [E], _| g.iter_mut().for_each(|g| *g *= factor));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::optim::ParamEntry;
    use crate::rng::Key;

    fn table(len: usize, unused: usize) -> ParamTable {
        let used = ParamEntry::vector("a", 0, len - unused);
        let rest = ParamEntry { used: false, ..ParamEntry::vector("b", len - unused, unused) };
        ParamTable::new([used, rest], len, &[]).unwrap()
    }

    fn normals(n: usize) -> Vec<f32> {
        let mut s = Key::new(5).stream();
        (0..n).map(|_| s.normal() as f32).collect()
    }

    #[test]
    fn clips_to_the_norm_and_spares_unused_parameters() {
        let n = 200_003;
        let (table, before) = (table(n, 3), normals(n));
        let exact: f64 = before[..n - 3].iter().map(|&g| f64::from(g).powi(2)).sum::<f64>().sqrt();
        let mut grads = before.clone();
        let norm = clip_grad_norm(&mut grads, &table, 2.5).unwrap();
        assert!((norm / exact - 1.0).abs() < 1e-12);
        assert_eq!(grads[n - 3..], before[n - 3..]);
        let factor = (2.5 / (norm + 1e-6)) as f32;
        assert!(grads[..n - 3].iter().zip(&before).all(|(&g, &b)| g == b * factor));
    }

    #[test]
    fn a_small_or_broken_gradient_stays() {
        let table = table(3, 0);
        let mut grads = [0.3_f64, 0.0, -0.4];
        assert_eq!(clip_grad_norm(&mut grads, &table, 0.6).unwrap(), 0.5);
        assert_eq!(grads, [0.3, 0.0, -0.4]);
        let mut broken = [1.0, f64::INFINITY, 1.0];
        assert_eq!(clip_grad_norm(&mut broken, &table, 1.0).unwrap(), f64::INFINITY);
        assert_eq!(broken, [1.0, f64::INFINITY, 1.0]);
    }

    #[test]
    fn the_norm_does_not_depend_on_threads() {
        let n = 300_001;
        let (table, grads) = (table(n, 0), normals(n));
        let on = |threads| {
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| clip_grad_norm(&mut grads.clone(), &table, 1.0).unwrap())
        };
        assert_eq!(on(1).to_bits(), on(2).to_bits());
        assert_eq!(on(1).to_bits(), on(7).to_bits());
    }

    #[test]
    fn wrong_arguments_are_errors() {
        let table = table(3, 0);
        for max_norm in [0.0, -1.0, f64::NAN, f64::INFINITY] {
            assert_eq!(clip_grad_norm(&mut [0.0_f32; 3], &table, max_norm).unwrap_err().kind(), ErrorKind::Usage);
        }
        assert_eq!(clip_grad_norm(&mut [0.0_f32; 4], &table, 1.0).unwrap_err().kind(), ErrorKind::Shape);
    }
}
