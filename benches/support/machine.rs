//! What this machine can do at most, and the share of it that a pass reaches.
//!
//! A pass cannot be faster than its FLOPs at the rate of multiply-adds in registers, nor than its operands once through
//! memory; the larger of the two is its floor. More than 100 % of a memory floor means that operands stayed in a cache; of a
//! compute floor, that products were skipped: with padding, or by minimal filtering.

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::Bencher;
use criterion::measurement::Measurement;
use handgrad::backend::cpu::simd::Level;
use rayon::prelude::*;

/// Rates on all threads of the pool in which they are measured.
pub struct Machine {
    /// Per second, 2 per multiply-add.
    flops: f64,
    /// Per second, read and written.
    bytes: f64,
}

/// The least seconds that a pass takes, and what sets them.
pub type Floor = (f64, &'static str);

/// Multiply-adds on sums in registers, and how many floats these are.
const PASSES: usize = 200_000;
const SUMS: usize = 12 * 16;

handgrad::multiversion! {
    fn fused(factor: f32, term: f32) -> f32 {
        let mut sums = [1.0f32; SUMS];
        for _ in 0..PASSES {
            sums.iter_mut().for_each(|sum| *sum = sum.mul_add(factor, term));
        }
        sums.iter().sum()
    }
}

handgrad::multiversion! {
    fn unfused(factor: f32, term: f32) -> f32 {
        let mut sums = [1.0f32; SUMS];
        for _ in 0..PASSES {
            sums.iter_mut().for_each(|sum| *sum = *sum * factor + term);
        }
        sums.iter().sum()
    }
}

/// The shortest of several calls, in seconds.
fn shortest(mut call: impl FnMut()) -> f64 {
    let seconds = (0..7).map(|_| {
        let start = Instant::now();
        call();
        start.elapsed().as_secs_f64()
    });
    seconds.fold(f64::INFINITY, f64::min)
}

impl Machine {
    /// Measures both rates, and prints them.
    pub fn measure() -> Self {
        let level = Level::current().expect("HANDGRAD_SIMD names a level of this machine");
        let threads = rayon::current_num_threads();
        let ceiling = if level == Level::Portable { unfused } else { fused };
        let compute = shortest(|| {
            rayon::broadcast(|_| black_box(ceiling(level, black_box(0.999), black_box(0.001))));
        });
        let (from, mut to) = (vec![1.0f32; 32 << 20], vec![0.0f32; 32 << 20]);
        let memory = shortest(|| {
            let chunk = from.len() / threads / 4;
            to.par_chunks_mut(chunk).zip(from.par_chunks(chunk)).for_each(|(to, from)| to.copy_from_slice(from));
            black_box(&to);
        });
        let machine = Machine {
            flops: (2 * PASSES * SUMS * threads) as f64 / compute,
            bytes: (2 * 4 * from.len()) as f64 / memory,
        };
        println!(
            "this machine, {threads} threads, {}: {:.0} GFLOP/s in registers, {:.1} GB/s copying\n",
            level.name(),
            machine.flops / 1e9,
            machine.bytes / 1e9
        );
        machine
    }

    /// The floor of a pass of so many FLOPs that reads and writes so many bytes at least.
    pub fn floor(&self, flops: f64, bytes: f64) -> Floor {
        let (compute, memory) = (flops / self.flops, bytes / self.bytes);
        if compute > memory { (compute, "compute") } else { (memory, "memory") }
    }
}

/// The times of a pass, to hold against its floor.
#[derive(Default)]
pub struct Samples {
    seconds: Vec<f64>,
}

impl Samples {
    /// Runs the pass as often as criterion asks for.
    pub fn take<M: Measurement<Value = Duration>>(
        &mut self,
        b: &mut Bencher<'_, M>,
        clock: &M,
        mut pass: impl FnMut(),
    ) {
        b.iter_custom(|iterations| {
            let started = clock.start();
            (0..iterations).for_each(|_| pass());
            let elapsed = clock.end(started);
            self.seconds.push(elapsed.as_secs_f64() / iterations as f64);
            elapsed
        });
    }

    /// Prints which share of the floor the median reached; nothing where a filter left the pass out.
    pub fn print_share(mut self, (floor, what): Floor) {
        self.seconds.sort_by(f64::total_cmp);
        if let Some(median) = self.seconds.get(self.seconds.len() / 2) {
            let share = 100.0 * floor / median;
            println!("{:24}{what} floor {:.3} ms, {share:.0} % of it reached\n", "", floor * 1e3);
        }
    }
}
