//! Instructions by which lanes and warps meet: barriers, shuffles, votes, matches.

use super::Scene;
use super::warp::{Flow, Stop, Waiting, Warp};
use crate::fault::{FaultKind, Trouble};
use crate::lanes::{Reg, each};
use crate::num::signed;
use crate::program::{ALWAYS, AtomKind, Op, Pred, ShflMode, VoteMode};

impl Warp {
    /// Instructions that several lanes execute together.
    pub(super) fn together(
        &mut self,
        op: &Op,
        scene: &mut Scene,
        active: u32,
        pc: u32,
    ) -> Result<Option<Flow>, Trouble> {
        let mask = match op {
            Op::Barrier { id, count, arrive, aligned, reduce } => {
                let at = self.barrier(*id, *count, *aligned, active, pc)?;
                let Some(mut at) = at else { return Ok(Some(Flow::Again)) };
                self.groups[0].pc = pc + 1;
                if *arrive {
                    return Ok(Some(Flow::Stop(Stop::Arrive(at.id))));
                }
                at.holds = at.lanes & self.holds(reduce.as_ref().map_or(ALWAYS, |r| r.1));
                self.waiting = Some(at);
                return Ok(Some(Flow::Stop(Stop::Wait)));
            }
            Op::Active(d) => {
                self.write(*d, active, &[active.into(); 32]);
                return Ok(None);
            }
            Op::WarpSync { mask }
            | Op::Shfl { mask, .. }
            | Op::Vote { mask, .. }
            | Op::Match { mask, .. }
            | Op::Redux { mask, .. } => *mask,
            _ => return Ok(None),
        };
        if !self.gather(mask, active)? {
            return Ok(Some(Flow::Again));
        }
        match op {
            Op::Shfl { mode, d, p, a, b, c, .. } => self.shuffle(*mode, *d, *p, [*a, *b, *c], active)?,
            Op::Vote { mode, d, p, a, .. } => {
                let holds = self.holds(*a) & active;
                match mode {
                    VoteMode::Ballot => self.write(d.unwrap_or(0), active, &[holds.into(); 32]),
                    _ => {
                        let found = match mode {
                            VoteMode::All => holds == active,
                            VoteMode::Any => holds != 0,
                            _ => holds == active || holds == 0,
                        };
                        self.write_pred(p.unwrap_or(0), active, if found { u32::MAX } else { 0 });
                    }
                }
            }
            Op::Match { all, d, p, a, .. } => {
                let value = self.registers[*a as usize].0;
                let same = |l: usize| each(active).filter(|o| value[*o] == value[l]).fold(0u32, |m, o| m | 1 << o);
                let values = std::array::from_fn(|l| u64::from(same(l)));
                let everyone = each(active).all(|l| values[l] == u64::from(active));
                self.write(*d, active, &if *all && !everyone { [0; 32] } else { values });
                if let Some(p) = p {
                    self.write_pred(*p, active, if everyone { u32::MAX } else { 0 });
                }
            }
            Op::Redux { kind, signed: sign, d, a, .. } => {
                let value = self.registers[*a as usize].0;
                let order = |v: u64| if *sign { signed(v, 32) } else { v as i64 };
                let result = each(active).map(|l| value[l]).reduce(|x, y| match kind {
                    AtomKind::Add => (x + y) & 0xffff_ffff,
                    AtomKind::And => x & y,
                    AtomKind::Or => x | y,
                    AtomKind::Xor => x ^ y,
                    AtomKind::Min => {
                        if order(x) <= order(y) {
                            x
                        } else {
                            y
                        }
                    }
                    _ => {
                        if order(x) >= order(y) {
                            x
                        } else {
                            y
                        }
                    }
                });
                self.write(*d, active, &[result.unwrap_or(0); 32]);
            }
            _ => {}
        }
        let _ = scene;
        Ok(None)
    }

    /// Whether all lanes of the member mask are here. If not, the group waits for them.
    fn gather(&mut self, mask: Reg, active: u32) -> Result<bool, Trouble> {
        for lane in each(active) {
            let mask = self.lane(mask, lane) as u32;
            let bad = |what| Err(Trouble::at(lane, FaultKind::BadMask { mask, active, what }));
            if mask >> lane & 1 == 0 {
                return bad("a lane executes this that the mask leaves out");
            }
            let missing = mask & !active;
            if missing & !self.live() != 0 {
                return bad("the mask names a lane that has ended or was never there");
            }
            if missing & self.groups[0].lanes != 0 {
                return bad("the mask names a lane that a guard leaves out here");
            }
            if missing != 0 {
                self.groups[0].blocked = true;
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn shuffle(
        &mut self,
        mode: ShflMode,
        d: Reg,
        p: Option<Pred>,
        [a, b, c]: [Reg; 3],
        active: u32,
    ) -> Result<(), Trouble> {
        let (mut values, mut inside) = ([0; 32], 0u32);
        for lane in each(active) {
            let (by, bounds) = ((self.lane(b, lane) & 31) as i32, self.lane(c, lane) as i32);
            let (clamp, segment, me) = (bounds & 31, bounds >> 8 & 31, lane as i32);
            let low = me & segment;
            let high = low | clamp & !segment;
            let (from, ok) = match mode {
                ShflMode::Up => (me - by, me - by >= high),
                ShflMode::Down => (me + by, me + by <= high),
                ShflMode::Bfly => (me ^ by, me ^ by <= high),
                ShflMode::Idx => (low | by & !segment, low | by & !segment <= high),
            };
            let from = if ok { from as usize } else { lane };
            if active >> from & 1 == 0 {
                return Err(Trouble::at(
                    lane,
                    FaultKind::BadMask { mask: active, active, what: "reads from a lane that does not take part" },
                ));
            }
            values[lane] = self.lane(a, from);
            inside |= u32::from(ok) << lane;
        }
        self.write(d, active, &values);
        if let Some(p) = p {
            self.write_pred(p, active, inside);
        }
        Ok(())
    }

    /// Where and how the warp waits; none if other lanes must come first.
    fn barrier(
        &mut self,
        id: Reg,
        count: Option<Reg>,
        aligned: bool,
        active: u32,
        pc: u32,
    ) -> Result<Option<Waiting>, Trouble> {
        let live = self.live();
        let lane = active.trailing_zeros() as usize;
        if active != live {
            if aligned || active != self.groups[0].lanes {
                return Err(Trouble::at(lane, FaultKind::BarrierDivergence { here: active, live, other_line: None }));
            }
            self.groups[0].blocked = true;
            return Ok(None);
        }
        let id = self.lane(id, lane) as usize;
        if id > 15 {
            return Err(Trouble::at(lane, FaultKind::Deadlock { what: format!("barrier {id}: a block has 16") }));
        }
        let count = count.map(|c| self.lane(c, lane) as usize);
        Ok(Some(Waiting { id, pc: pc as usize, count, aligned, lanes: active, holds: 0 }))
    }

    /// Gives the result of a barrier with a reduction.
    pub(super) fn finish_reduce(&mut self, at: Waiting, d: Option<Reg>, p: Option<Pred>, count: u64, holds: bool) {
        if let Some(d) = d {
            self.write(d, at.lanes, &[count; 32]);
        }
        if let Some(p) = p {
            self.write_pred(p, at.lanes, if holds { u32::MAX } else { 0 });
        }
    }
}
