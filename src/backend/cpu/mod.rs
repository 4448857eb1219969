//! The fast backend: f32, NHWC, AVX-512 / AVX2 / portable kernels chosen at run time, rayon for threads.
//!
//! Everything here works on plain slices and allocates nothing; the caller owns the scratch memory. Work is split by
//! shapes alone, so that results have the same bits for any number of threads at one SIMD [level](simd::Level).

pub mod conv;
pub mod gemm;
pub mod math;
pub mod simd;
mod threads;
mod tile;

pub(crate) use threads::alone;
