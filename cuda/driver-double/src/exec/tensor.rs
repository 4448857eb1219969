//! ldmatrix and mma.sync: a warp's lanes hold the parts of a matrix as the PTX ISA lays them out.
//!
//! With `g = lane / 4` and `t = lane % 4`, an m16n8kK product of halves has
//! A: row `g` or `g + 8`, columns `2t`, `2t + 1` (and `+ 8` for K = 16); B: rows `2t`, `2t + 1` (and `+ 8`), column `g`;
//! C and D: rows `g` and `g + 8`, columns `2t`, `2t + 1`. With tf32, A has column `t` (and `t + 4`), B row `t` (and `t + 4`).

use super::Scene;
use super::shared::{Kind, passes};
use super::warp::Warp;
use crate::fault::{FaultKind, Trouble};
use crate::lanes::{ALL, Reg};
use crate::num::{F16, Round, from_bf16, from_f16, narrow};
use crate::program::{Factor, Mma, Place};

impl Warp {
    /// All 32 lanes must execute such an instruction.
    fn whole(&self, active: u32, what: &'static str) -> Result<(), Trouble> {
        if active == ALL {
            Ok(())
        } else {
            Err(Trouble { lane: None, kind: FaultKind::BadMask { mask: ALL, active, what } })
        }
    }

    /// Lane 8 m + r names row r of matrix m; lane l gets elements 2 (l % 4) and the next of row l / 4, or of the transpose.
    pub(super) fn load_matrix(
        &mut self,
        d: &[Reg],
        place: Place,
        transposed: bool,
        scene: &mut Scene,
        active: u32,
    ) -> Result<(), Trouble> {
        self.whole(active, "ldmatrix needs the whole warp")?;
        let addresses = self.addresses(place);
        let traffic = &mut scene.counters.shared_loads;
        traffic.requests += 1;
        traffic.bytes += 128 * d.len() as u64;
        traffic.ideal += d.len() as u64;
        for (m, d) in d.iter().enumerate() {
            traffic.transactions += passes(&addresses, 0xff << (8 * m), 16);
            let mut rows = [[0u64; 8]; 8];
            for (r, row) in rows.iter_mut().enumerate() {
                let lane = 8 * m + r;
                let at = scene.shared.check(lane, self.number, addresses[lane], 16, Kind::Read)?;
                for (c, value) in row.iter_mut().enumerate() {
                    *value = scene.shared.load(at + 2 * c, 2);
                }
            }
            let values = std::array::from_fn(|l| {
                let (r, c) = (l / 4, l % 4 * 2);
                if transposed { rows[c][r] | rows[c + 1][r] << 16 } else { rows[r][c] | rows[r][c + 1] << 16 }
            });
            self.write(*d, active, &values);
        }
        Ok(())
    }

    /// d = a b + c for a 16 x K and K x 8. Products and sums in f64, rounded once: a tensor core keeps fewer bits.
    pub(super) fn mma(&mut self, mma: &Mma, scene: &mut Scene, active: u32) -> Result<(), Trouble> {
        self.whole(active, "mma.sync needs the whole warp")?;
        scene.counters.mma_flops += 2 * 16 * 8 * mma.k as u64;
        let mut a = [[0f64; 16]; 16];
        let mut b = [[0f64; 8]; 16];
        let mut sums = [[0f64; 8]; 16];
        let tf32 = mma.factor == Factor::Tf32;
        for lane in 0..32 {
            let (g, t) = (lane / 4, lane % 4);
            for (i, reg) in mma.a.iter().enumerate() {
                let (row, v) = (g + i % 2 * 8, self.lane(*reg, lane));
                if tf32 {
                    a[row][t + i / 2 * 4] = single(v);
                } else {
                    let column = 2 * t + i / 2 * 8;
                    [a[row][column], a[row][column + 1]] = pair(v, mma.factor);
                }
            }
            for (i, reg) in mma.b.iter().enumerate() {
                let v = self.lane(*reg, lane);
                if tf32 {
                    b[t + i * 4][g] = single(v);
                } else {
                    let row = 2 * t + i * 8;
                    [b[row][g], b[row + 1][g]] = pair(v, mma.factor);
                }
            }
            for i in 0..4 {
                sums[g + i / 2 * 8][2 * t + i % 2] = if mma.half_c {
                    from_f16(self.lane(mma.c[i / 2], lane) >> (16 * (i % 2)) & 0xffff).into()
                } else {
                    f32::from_bits(self.lane(mma.c[i], lane) as u32).into()
                };
            }
        }
        for (sums, a) in sums.iter_mut().zip(&a) {
            for (a, b) in a.iter().zip(&b).take(mma.k) {
                for (sum, b) in sums.iter_mut().zip(b) {
                    *sum += a * b;
                }
            }
        }
        for (i, d) in mma.d.iter().enumerate() {
            let values = std::array::from_fn(|lane| {
                let (g, t) = (lane / 4, lane % 4);
                if mma.half_d {
                    let half = |j: usize| narrow(sums[g + i * 8][2 * t + j], F16, Round::Near);
                    half(0) | half(1) << 16
                } else {
                    u64::from((sums[g + i / 2 * 8][2 * t + i % 2] as f32).to_bits())
                }
            });
            self.write(*d, active, &values);
        }
        Ok(())
    }
}

/// tf32: a tensor core does not see the low 13 bits.
fn single(v: u64) -> f64 {
    f32::from_bits(v as u32 & !0x1fff).into()
}

/// Two halves of either kind.
fn pair(v: u64, factor: Factor) -> [f64; 2] {
    let halves = [v & 0xffff, v >> 16 & 0xffff];
    halves.map(|h| if factor == Factor::F16 { from_f16(h) } else { from_bf16(h) }.into())
}
