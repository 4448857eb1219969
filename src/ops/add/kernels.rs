use super::Add;
use crate::backend::{Cpu, Reference, parallel, simd_level};
use crate::ops::{Backward, Forward, Grad, Kernel};

impl Kernel<Reference> for Add {
    fn forward(&self, mut io: Forward<'_, f64>) {
        if !io.in_place {
            io.y.assign(&io.x[0]);
        }
        io.x[1..].iter().for_each(|x| io.y += x);
    }

    fn backward(&self, mut io: Backward<'_, f64>) {
        let (first, rest) = io.dx.split_first_mut().expect("two or more inputs");
        let dy = match first {
            Grad::InPlace(dx) => dx.view(),
            _ => io.dy.view(),
        };
        for dx in rest {
            match dx {
                Grad::Skip => {}
                Grad::InPlace(_) => unreachable!("only input 0 works in place"),
                Grad::Write(dx) => dx.assign(&dy),
                Grad::Add(dx) => *dx += &dy,
            }
        }
        match first {
            Grad::Skip | Grad::InPlace(_) => {}
            Grad::Write(dx) => dx.assign(&io.dy),
            Grad::Add(dx) => *dx += &io.dy,
        }
    }
}

impl Kernel<Cpu> for Add {
    fn forward(&self, mut io: Forward<'_, f32>) {
        let y = parallel::contiguous_mut(&mut io.y);
        let skip = if io.in_place {
            1
        } else {
            let (a, b) = (parallel::contiguous(&io.x[0]), parallel::contiguous(&io.x[1]));
            parallel::chunks_mut(y, |at, y| parallel::combine2(simd_level(), y, &a[at..], &b[at..], |_, a, b| a + b));
            2
        };
        for x in &io.x[skip..] {
            add(y, parallel::contiguous(x));
        }
    }

    fn backward(&self, mut io: Backward<'_, f32>) {
        let (first, rest) = io.dx.split_first_mut().expect("two or more inputs");
        let own = parallel::contiguous_mut(&mut io.dy);
        let dy: &[f32] = match first {
            Grad::InPlace(dx) => parallel::contiguous_mut(dx),
            _ => own,
        };
        for dx in rest {
            spread(dx, dy);
        }
        if !matches!(first, Grad::InPlace(_)) {
            spread(first, parallel::contiguous_mut(&mut io.dy));
        }
    }
}

/// `dx = dy` or `dx += dy`.
fn spread(dx: &mut Grad<'_, f32>, dy: &[f32]) {
    match dx {
        Grad::Skip => {}
        Grad::InPlace(_) => unreachable!("only input 0 works in place"),
        Grad::Write(dx) => {
            parallel::chunks_mut(parallel::contiguous_mut(dx), |at, dx| dx.copy_from_slice(&dy[at..at + dx.len()]));
        }
        Grad::Add(dx) => add(parallel::contiguous_mut(dx), dy),
    }
}

fn add(y: &mut [f32], x: &[f32]) {
    parallel::chunks_mut(y, |at, y| parallel::combine(simd_level(), y, &x[at..], |y, x| y + x));
}
