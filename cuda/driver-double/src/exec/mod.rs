//! Runs a decoded kernel: blocks on threads, the warps of a block in turn, each until it waits or ends.

mod access;
mod shared;
mod sync;
mod tensor;
mod warp;

use std::collections::HashSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::counters::Counters;
use crate::fault::{Fault, FaultKind, Trouble};
use crate::lanes::Lanes;
use crate::memory::Memory;
use crate::program::{Op, Program, Reduce, Special};
use shared::Shared;
use warp::{Stop, Waiting, Warp};

/// What a launch is made of, checked.
pub(crate) struct Grid<'a> {
    pub program: &'a Program,
    pub memory: &'a Memory,
    pub grid: [u32; 3],
    pub block: [u32; 3],
    pub dynamic_shared: usize,
    pub params: Vec<u8>,
    pub threads: usize,
    pub budget: u64,
    /// Whether to count the sectors that the launch touches.
    pub distinct: bool,
}

/// Runs all blocks. The first block (by its number) that fails gives the fault.
pub(crate) fn run(grid: &Grid) -> Result<Counters, Box<Fault>> {
    let blocks = grid.grid.iter().map(|n| u64::from(*n)).product::<u64>();
    let next = AtomicU64::new(0);
    let first_bad = AtomicU64::new(u64::MAX);
    let (total, worst) = (Mutex::new(Counters::default()), Mutex::new(None));
    let touched = Mutex::new(Touched::default());
    let work = || {
        let mut block = Block::new(grid);
        loop {
            let number = next.fetch_add(1, Relaxed);
            if number >= blocks || number > first_bad.load(Relaxed) {
                break;
            }
            if let Err(fault) = block.run(number) {
                first_bad.fetch_min(number, Relaxed);
                let mut worst = worst.lock().unwrap_or_else(|e| e.into_inner());
                if worst.as_ref().is_none_or(|(first, _)| number < *first) {
                    *worst = Some((number, fault));
                }
            }
        }
        total.lock().unwrap_or_else(|e| e.into_inner()).add(&block.counters);
        touched.lock().unwrap_or_else(|e| e.into_inner()).add(block.touched);
    };
    let threads = u64::min(grid.threads.max(1) as u64, blocks);
    if threads <= 1 {
        work();
    } else {
        std::thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(work);
            }
        });
    }
    match worst.into_inner().unwrap_or_else(|e| e.into_inner()) {
        Some((_, fault)) => Err(fault),
        None => {
            let mut total = total.into_inner().unwrap_or_else(|e| e.into_inner());
            let touched = touched.into_inner().unwrap_or_else(|e| e.into_inner());
            total.global_loads.distinct = touched.loads.len() as u64;
            total.global_stores.distinct = touched.stores.len() as u64;
            Ok(total)
        }
    }
}

/// The sectors of global memory that a launch touches.
#[derive(Default)]
pub(super) struct Touched {
    pub loads: HashSet<u64>,
    pub stores: HashSet<u64>,
}

impl Touched {
    fn add(&mut self, other: Touched) {
        self.loads.extend(other.loads);
        self.stores.extend(other.stores);
    }
}

/// One block's state, used for one block after the other.
struct Block<'a> {
    grid: &'a Grid<'a>,
    warps: Vec<Warp>,
    shared: Shared,
    counters: Counters,
    touched: Touched,
    index: [u32; 3],
}

/// What a warp sees of its surroundings.
pub(super) struct Scene<'a> {
    pub grid: &'a Grid<'a>,
    pub shared: &'a mut Shared,
    pub counters: &'a mut Counters,
    pub touched: &'a mut Touched,
}

impl<'a> Block<'a> {
    fn new(grid: &'a Grid<'a>) -> Self {
        let threads = grid.block.iter().product::<u32>();
        let warps = (0..threads.div_ceil(32)).map(|w| Warp::new(grid, w, threads)).collect();
        let Program { static_shared, dynamic_at, .. } = *grid.program;
        let shared =
            Shared::new(if grid.dynamic_shared == 0 { static_shared } else { dynamic_at + grid.dynamic_shared });
        Block { grid, warps, shared, counters: Counters::default(), touched: Touched::default(), index: [0; 3] }
    }

    fn run(&mut self, number: u64) -> Result<(), Box<Fault>> {
        let [x, y, _] = self.grid.grid.map(u64::from);
        self.index = [(number % x) as u32, (number / x % y) as u32, (number / x / y) as u32];
        self.shared.reset();
        self.counters.blocks += 1;
        for w in 0..self.warps.len() {
            self.warps[w].begin();
            self.specials(w);
        }
        let mut arrived = [0usize; 16];
        loop {
            let mut moved = false;
            for w in 0..self.warps.len() {
                if !self.warps[w].ready() {
                    continue;
                }
                moved = true;
                let mut scene = Scene {
                    grid: self.grid,
                    shared: &mut self.shared,
                    counters: &mut self.counters,
                    touched: &mut self.touched,
                };
                match self.warps[w].run(&mut scene) {
                    Ok(Stop::Arrive(id)) => arrived[id] += 1,
                    Ok(_) => {}
                    Err(trouble) => return Err(self.fault(w, trouble)),
                }
            }
            if self.warps.iter().all(|w| w.done()) {
                return Ok(());
            }
            let released = self.release(&mut arrived)?;
            if !moved && !released {
                let w = self.warps.iter().position(|w| w.waiting.is_some()).unwrap_or(0);
                let what = format!(
                    "{} warps wait at barriers that the others do not reach",
                    self.warps.iter().filter(|w| w.waiting.is_some()).count()
                );
                return Err(self.fault(w, Trouble { lane: None, kind: FaultKind::Deadlock { what } }));
            }
        }
    }

    /// Lets warps go whose barrier is complete.
    fn release(&mut self, arrived: &mut [usize; 16]) -> Result<bool, Box<Fault>> {
        let mut any = false;
        for (id, arrived) in arrived.iter_mut().enumerate() {
            let here: Vec<(usize, Waiting)> = self
                .warps
                .iter()
                .enumerate()
                .filter_map(|(w, warp)| Some((w, warp.waiting?)))
                .filter(|(_, at)| at.id == id)
                .collect();
            let Some((_, first)) = here.first().copied() else { continue };
            if first.count.is_none()
                && first.aligned
                && let Some((w, _)) = here.iter().find(|(_, at)| at.pc != first.pc)
            {
                let other_line = Some(self.grid.program.code[first.pc].line);
                let live = self.warps[*w].live();
                return Err(self.fault(
                    *w,
                    Trouble { lane: None, kind: FaultKind::BarrierDivergence { here: live, live, other_line } },
                ));
            }
            let expected = match first.count {
                Some(count) => count.div_ceil(32),
                None => self.warps.iter().filter(|w| !w.done()).count(),
            };
            if here.len() + *arrived < expected {
                continue;
            }
            any = true;
            *arrived = 0;
            self.shared.barrier();
            self.counters.barriers += 1;
            self.reduce(&here);
            for (w, _) in &here {
                self.warps[*w].waiting = None;
            }
        }
        Ok(any)
    }

    /// What bar.red gives to all who waited.
    fn reduce(&mut self, here: &[(usize, Waiting)]) {
        let program = self.grid.program;
        let (mut count, mut total) = (0, 0);
        for (_, at) in here {
            count += at.holds.count_ones();
            total += at.lanes.count_ones();
        }
        for (w, at) in here {
            let Op::Barrier { reduce: Some((kind, _, d, p)), .. } = &program.code[at.pc].op else { continue };
            let holds = if *kind == Reduce::And { count == total } else { count > 0 };
            self.warps[*w].finish_reduce(*at, *d, *p, u64::from(count), holds);
        }
    }

    fn specials(&mut self, w: usize) {
        let Grid { grid, block, dynamic_shared, program, .. } = self.grid;
        let warp = &mut self.warps[w];
        for (reg, special) in &program.specials {
            let lanes: [u64; 32] = std::array::from_fn(|l| {
                let thread = (w * 32 + l) as u32;
                let lane = l as u32;
                let at = [thread % block[0], thread / block[0] % block[1], thread / block[0] / block[1]];
                u64::from(match special {
                    Special::Tid(axis) => at[*axis],
                    Special::Ntid(axis) => block[*axis],
                    Special::Ctaid(axis) => self.index[*axis],
                    Special::Nctaid(axis) => grid[*axis],
                    Special::Lane => lane,
                    Special::Warp => w as u32,
                    Special::Warps => block.iter().product::<u32>().div_ceil(32),
                    Special::MaskEq => 1 << lane,
                    Special::MaskLt => (1 << lane) - 1,
                    Special::MaskLe => u32::MAX >> (31 - lane),
                    Special::MaskGt => !(u32::MAX >> (31 - lane)),
                    Special::MaskGe => u32::MAX << lane,
                    Special::DynamicShared => *dynamic_shared as u32,
                    Special::TotalShared => (program.dynamic_at + dynamic_shared) as u32,
                    Special::Zero => 0,
                })
            });
            warp.registers[*reg as usize] = Lanes(lanes);
        }
    }

    fn fault(&self, warp: usize, trouble: Trouble) -> Box<Fault> {
        let Grid { program, block, .. } = self.grid;
        let pc = self.warps[warp].pc();
        let line = program.code[pc.min(program.code.len() - 1)].line;
        let thread = trouble.lane.map(|lane| {
            let t = (warp * 32 + lane) as u32;
            [t % block[0], t / block[0] % block[1], t / block[0] / block[1]]
        });
        let text = program.text.lines().nth(line.saturating_sub(1) as usize).unwrap_or_default().trim().to_owned();
        Box::new(Fault { kernel: program.name.clone(), block: self.index, thread, line, text, kind: trouble.kind })
    }
}
