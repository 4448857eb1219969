//! A warp: 32 lanes, their registers, and where each of them is.
//!
//! Lanes at the same instruction form a group, which runs together. Of several groups the one at the lowest instruction
//! runs, until it reaches another's place (they join) or passes it. Since the compiler puts the point where branches
//! join behind both of them, lanes come together as early as on a GPU.

use super::{Grid, Scene};
use crate::fault::{FaultKind, Trouble};
use crate::lanes::{ALL, Lanes, Reg};
use crate::num::ones;
use crate::program::{Guard, LOCAL_WINDOW, Logic, Op, PARAM_WINDOW, Pred, SHARED_WINDOW};
use crate::ptx::Space;

/// Instructions after which another warp of the block gets its turn.
const TURN: u64 = 1 << 20;

/// Why a warp stops running for now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stop {
    Done,
    /// It waits at a barrier.
    Wait,
    /// It has arrived at a barrier and goes on.
    Arrive(usize),
    Turn,
}

/// A warp at a barrier.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Waiting {
    pub id: usize,
    pub pc: usize,
    pub count: Option<usize>,
    pub aligned: bool,
    pub lanes: u32,
    /// Lanes whose predicate holds, of bar.red.
    pub holds: u32,
}

/// Lanes that are at the same instruction.
#[derive(Debug, Clone, Copy)]
pub(super) struct Group {
    pub pc: u32,
    pub lanes: u32,
    /// They wait for other lanes of the warp.
    pub blocked: bool,
}

/// Bytes that a cp.async will bring.
pub(super) struct Copy {
    pub lane: usize,
    pub group: u32,
    pub to: usize,
    pub bytes: [u8; 16],
    pub len: usize,
}

pub(crate) struct Warp {
    pub registers: Vec<Lanes>,
    pub(super) predicates: Vec<u32>,
    /// A bit per lane: the carry of add.cc and others.
    carry: u32,
    pub(super) groups: Vec<Group>,
    members: u32,
    pub(super) number: usize,
    pub(super) local: Vec<u8>,
    pub(super) local_written: Vec<bool>,
    pub(super) copies: Vec<Copy>,
    /// Groups of copies that each lane has committed.
    pub(super) committed: [u32; 32],
    pub waiting: Option<Waiting>,
    instructions: u64,
}

impl Warp {
    pub(super) fn new(grid: &Grid, number: u32, threads: u32) -> Self {
        let program = grid.program;
        // Registers that nothing has written hold a number that stands out.
        let mut registers = vec![Lanes([0x7fba_d0ba; 32]); program.registers];
        for (reg, value) in &program.constants {
            registers[*reg as usize] = Lanes([*value; 32]);
        }
        let mut predicates = vec![0; program.predicates];
        predicates[0] = ALL;
        Warp {
            registers,
            predicates,
            carry: 0,
            groups: Vec::new(),
            members: ones((threads - 32 * number).min(32)) as u32,
            number: number as usize,
            local: vec![0; 32 * program.local_bytes],
            local_written: vec![false; 32 * program.local_bytes],
            copies: Vec::new(),
            committed: [0; 32],
            waiting: None,
            instructions: 0,
        }
    }

    /// At the kernel's first instruction.
    pub(super) fn begin(&mut self) {
        self.groups.clear();
        self.groups.push(Group { pc: 0, lanes: self.members, blocked: false });
        self.local_written.fill(false);
        self.copies.clear();
        self.committed = [0; 32];
        self.waiting = None;
        self.instructions = 0;
    }

    pub(super) fn done(&self) -> bool {
        self.groups.is_empty()
    }

    pub(super) fn ready(&self) -> bool {
        self.waiting.is_none() && !self.groups.is_empty()
    }

    /// Lanes that have not ended.
    pub(super) fn live(&self) -> u32 {
        self.groups.iter().fold(0, |all, g| all | g.lanes)
    }

    /// The instruction at which it is, or at which it failed.
    pub(super) fn pc(&self) -> usize {
        self.waiting.map_or_else(|| self.groups.first().map_or(0, |g| g.pc as usize), |w| w.pc)
    }

    #[inline(always)]
    pub(super) fn holds(&self, guard: Guard) -> u32 {
        self.predicates[guard.pred as usize] ^ guard.flip
    }

    #[inline(always)]
    pub(super) fn lane(&self, reg: Reg, lane: usize) -> u64 {
        self.registers[reg as usize].0[lane]
    }

    #[inline(always)]
    pub(super) fn write(&mut self, d: Reg, lanes: u32, values: &[u64; 32]) {
        let d = &mut self.registers[d as usize].0;
        if lanes == ALL {
            *d = *values;
        } else {
            for l in 0..32 {
                if lanes >> l & 1 == 1 {
                    d[l] = values[l];
                }
            }
        }
    }

    #[inline(always)]
    pub(super) fn write_pred(&mut self, d: Pred, lanes: u32, value: u32) {
        let d = &mut self.predicates[d as usize];
        *d = *d & !lanes | value & lanes;
    }

    /// Runs until it waits, ends or has had its turn. After a fault the first group is the one to blame.
    pub(super) fn run(&mut self, scene: &mut Scene) -> Result<Stop, Trouble> {
        let turn = self.instructions + TURN;
        loop {
            let Some(limit) = self.choose()? else { return Ok(Stop::Done) };
            if self.instructions >= scene.grid.budget {
                return Err(Trouble {
                    lane: Some(self.groups[0].lanes.trailing_zeros() as usize),
                    kind: FaultKind::Budget { instructions: self.instructions },
                });
            }
            if self.instructions >= turn {
                return Ok(Stop::Turn);
            }
            if let Some(stop) = self.straight(scene, limit)? {
                return Ok(stop);
            }
        }
    }

    /// Joins groups at the same place, puts the one to run first, and says where the next one waits. None: all have ended.
    fn choose(&mut self) -> Result<Option<u32>, Trouble> {
        if self.groups.len() <= 1 {
            return Ok(self.groups.first().map(|_| u32::MAX));
        }
        self.groups.sort_unstable_by_key(|g| g.pc);
        self.groups.dedup_by(|next, first| {
            let same = next.pc == first.pc;
            if same {
                first.lanes |= next.lanes;
                first.blocked = false;
            }
            same
        });
        let Some(runs) = self.groups.iter().position(|g| !g.blocked) else {
            let what = format!("lanes {:#010x} wait for lanes that wait elsewhere", self.groups[0].lanes);
            return Err(Trouble {
                lane: Some(self.groups[0].lanes.trailing_zeros() as usize),
                kind: FaultKind::Deadlock { what },
            });
        };
        let limit = self.groups.iter().map(|g| g.pc).filter(|pc| *pc > self.groups[runs].pc).min();
        self.groups.swap(0, runs);
        Ok(Some(limit.unwrap_or(u32::MAX)))
    }

    /// Runs the first group up to `limit`, a fork, or a stop.
    fn straight(&mut self, scene: &mut Scene, limit: u32) -> Result<Option<Stop>, Trouble> {
        let code = &scene.grid.program.code;
        let alone = self.groups.len() == 1;
        let lanes = self.groups[0].lanes;
        let mut pc = self.groups[0].pc;
        let start = self.instructions;
        // A turn's worth at most, so that endless loops come to the budget's check.
        while pc < limit && self.instructions - start < TURN {
            let inst = &code[pc as usize];
            let active = lanes & self.holds(inst.guard);
            self.instructions += 1;
            scene.counters.warp_instructions[inst.class as usize] += 1;
            scene.counters.thread_instructions[inst.class as usize] += u64::from(active.count_ones());
            match &inst.op {
                Op::Lanes(f, regs) => f(&mut self.registers, *regs, active),
                Op::Branch(to) => {
                    if active == lanes {
                        let back = *to <= pc;
                        pc = *to;
                        if back && !alone {
                            // Blocked lanes may wait here.
                            break;
                        }
                        continue;
                    }
                    if active != 0 {
                        scene.counters.divergences += 1;
                        self.groups[0] = Group { pc: pc + 1, lanes: lanes & !active, blocked: false };
                        self.groups.push(Group { pc: *to, lanes: active, blocked: false });
                        return Ok(None);
                    }
                }
                Op::Test { f, a, b, d, other, combine, with } => {
                    let found = f(&self.registers[*a as usize], &self.registers[*b as usize]);
                    let with = self.holds(*with);
                    let join = |v: u32| match combine {
                        Logic::Copy => v,
                        Logic::And => v & with,
                        Logic::Or => v | with,
                        Logic::Xor => v ^ with,
                    };
                    self.write_pred(*d, active, join(found));
                    if let Some(q) = other {
                        self.write_pred(*q, active, join(!found));
                    }
                }
                op => {
                    self.groups[0].pc = pc;
                    if active != 0
                        && let Some(flow) = self.rare(op, scene, active, pc)?
                    {
                        return Ok(flow.stop());
                    }
                }
            }
            pc += 1;
        }
        self.groups[0].pc = pc;
        Ok(None)
    }

    /// Everything but plain arithmetic, comparisons and branches. Some: the group is no longer just one instruction on.
    fn rare(&mut self, op: &Op, scene: &mut Scene, active: u32, pc: u32) -> Result<Option<Flow>, Trouble> {
        match op {
            Op::Load(access) => self.load(access, scene, active)?,
            Op::Store(access) => self.store(access, scene, active)?,
            Op::Atom(atom) => self.atomic(atom, scene, active)?,
            Op::Logic { kind, d, a, b } => {
                let (a, b) = (self.holds(*a), self.holds(*b));
                let value = match kind {
                    Logic::Copy => a,
                    Logic::And => a & b,
                    Logic::Or => a | b,
                    Logic::Xor => a ^ b,
                };
                self.write_pred(*d, active, value);
            }
            Op::Select { d, a, b, p } => {
                let p = self.holds(*p);
                let (a, b) = (&self.registers[*a as usize].0, &self.registers[*b as usize].0);
                let values = std::array::from_fn(|l| if p >> l & 1 == 1 { a[l] } else { b[l] });
                self.write(*d, active, &values);
            }
            Op::Carry { f, regs, reads, writes } => {
                let (mut values, mut carry) = ([0; 32], 0);
                for (l, value) in values.iter_mut().enumerate() {
                    let cin = if *reads { u64::from(self.carry >> l & 1) } else { 0 };
                    let (v, c) = f(self.lane(regs.a, l), self.lane(regs.b, l), self.lane(regs.c, l), cin);
                    *value = v;
                    carry |= u32::from(c) << l;
                }
                self.write(regs.d, active, &values);
                if *writes {
                    self.carry = self.carry & !active | carry & active;
                }
            }
            Op::Insert { d, a, b, pos, len, bits } => {
                let values = std::array::from_fn(|l| {
                    crate::lower::insert(
                        self.lane(*a, l),
                        self.lane(*b, l),
                        self.lane(*pos, l),
                        self.lane(*len, l),
                        *bits,
                    )
                });
                self.write(*d, active, &values);
            }
            Op::Pack { d, parts, bits } => {
                let mut values = [0; 32];
                for (i, part) in parts.iter().enumerate() {
                    let part = &self.registers[*part as usize].0;
                    for l in 0..32 {
                        values[l] |= (part[l] & ones(*bits)) << (i as u32 * bits);
                    }
                }
                self.write(*d, active, &values);
            }
            Op::Unpack { parts, a, bits } => {
                let whole = self.registers[*a as usize].0;
                for (i, part) in parts.iter().enumerate() {
                    if let Some(part) = part {
                        self.write(*part, active, &whole.map(|v| v >> (i as u32 * bits) & ones(*bits)));
                    }
                }
            }
            Op::Table { index, targets } => return self.table(*index, targets, active, pc, scene).map(Some),
            Op::Exit => {
                let left = self.groups[0].lanes & !active;
                if left != 0 {
                    self.groups[0].lanes = left;
                    self.groups[0].pc = pc + 1;
                } else {
                    self.groups.swap_remove(0);
                    if self.groups.is_empty() {
                        self.copies.clear();
                        return Ok(Some(Flow::Stop(Stop::Done)));
                    }
                }
                // Lanes may have waited for those that end here.
                self.groups.iter_mut().for_each(|g| g.blocked = false);
                return Ok(Some(Flow::Again));
            }
            Op::Trap => return Err(Trouble::at(active.trailing_zeros() as usize, FaultKind::Trap)),
            Op::IsSpace { d, a, space } => {
                let mut value = 0;
                for l in 0..32 {
                    let v = self.lane(*a, l);
                    let found = match v {
                        PARAM_WINDOW.. => Space::Param,
                        LOCAL_WINDOW.. => Space::Local,
                        SHARED_WINDOW.. => Space::Shared,
                        _ => Space::Global,
                    };
                    value |= u32::from(found == *space) << l;
                }
                self.write_pred(*d, active, value);
            }
            Op::Clock { d, bits } => self.write(*d, active, &[self.instructions & ones(*bits); 32]),
            Op::LdMatrix { d, place, transposed } => self.load_matrix(d, *place, *transposed, scene, active)?,
            Op::Mma(mma) => self.mma(mma, scene, active)?,
            Op::CpAsync { to, from, bytes, read } => self.copy_async(*to, *from, *bytes, *read, scene, active)?,
            Op::Commit => {
                for l in crate::lanes::each(active) {
                    self.committed[l] += 1;
                }
            }
            Op::WaitGroup(n) => self.wait_group(*n, scene, active),
            Op::Nop => {}
            _ => return self.together(op, scene, active, pc),
        }
        Ok(None)
    }

    fn table(&mut self, index: Reg, targets: &[u32], active: u32, pc: u32, scene: &mut Scene) -> Result<Flow, Trouble> {
        let old = self.groups.swap_remove(0);
        let (first, count) = (self.groups.len(), old.lanes & !active);
        if count != 0 {
            self.groups.push(Group { pc: pc + 1, lanes: count, blocked: false });
        }
        for lane in crate::lanes::each(active) {
            let at = self.lane(index, lane);
            let Some(to) = targets.get(at as usize).copied() else {
                self.groups.insert(0, old);
                return Err(Trouble::at(lane, FaultKind::BadTarget { index: at }));
            };
            match self.groups[first..].iter_mut().find(|g| g.pc == to) {
                Some(group) => group.lanes |= 1 << lane,
                None => self.groups.push(Group { pc: to, lanes: 1 << lane, blocked: false }),
            }
        }
        scene.counters.divergences += u64::from(self.groups.len() > first + 1);
        Ok(Flow::Again)
    }
}

/// How a group goes on after an instruction that is more than one step.
pub(super) enum Flow {
    /// Choose again which group runs.
    Again,
    Stop(Stop),
}

impl Flow {
    fn stop(self) -> Option<Stop> {
        match self {
            Flow::Again => None,
            Flow::Stop(stop) => Some(stop),
        }
    }
}
