//! Instructions that compute, compare and branch; what goes to memory is in `memory.rs`.

use super::{Lowerer, Res, cvt, float, int};
use crate::lanes::{LaneFn, Regs, lanes};
use crate::num::{ones, signed};
use crate::program::{
    ALWAYS, AtomKind, Class, Guard, LOCAL_WINDOW, Logic, Op, Reduce, SHARED_WINDOW, ShflMode, VoteMode,
};
use crate::ptx::{Arg, Instr, Space, Ty};

impl Lowerer<'_> {
    pub(super) fn instruction(&mut self, instr: &Instr) -> Res<()> {
        let guard = match &instr.guard {
            Some((name, negated)) => {
                Guard { pred: self.pred_target(&Arg::Name(name.clone()))?, flip: if *negated { u32::MAX } else { 0 } }
            }
            None => ALWAYS,
        };
        let mods: Vec<&str> = instr.op[1..].iter().map(String::as_str).collect();
        let name = instr.op[0].as_str();
        let known = self.flow(instr, name, &mods, guard)?
            || self.memory(instr, name, &mods, guard)?
            || self.warp_wide(instr, name, &mods, guard)?
            || self.predicates(instr, name, &mods, guard)?
            || self.moves(instr, name, &mods, guard)?
            || self.arithmetic(instr, name, &mods, guard)?;
        if known { Ok(()) } else { self.error(format!("{}: this instruction is not supported", instr.op.join("."))) }
    }

    pub(super) fn arg<'a>(&self, instr: &'a Instr, i: usize) -> Res<&'a Arg> {
        match instr.args.get(i) {
            Some(arg) => Ok(arg),
            None => self.error(format!("{}: operand {} is missing", instr.op.join("."), i + 1)),
        }
    }

    fn label(&mut self, arg: &Arg, slot: usize) -> Res<()> {
        let Arg::Name(name) = arg else { return self.error(format!("{arg:?} where a label is expected")) };
        let at = self.code.len() - 1;
        self.scope().patches.push((at, name.clone(), slot));
        Ok(())
    }

    fn flow(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<bool> {
        match name {
            "bra" => {
                self.emit(guard, Class::Branch, Op::Branch(0));
                self.label(self.arg(instr, 0)?, 0)?;
            }
            "brx" => {
                let index = self.source(self.arg(instr, 0)?, Ty::U32)?;
                let Arg::Name(list) = self.arg(instr, 1)? else { return self.error("brx.idx: no list of targets") };
                let Some(labels) = self.scopes.iter().rev().find_map(|s| s.targets.get(list)).cloned() else {
                    return self.error(format!("brx.idx: no list of targets {list}"));
                };
                self.emit(guard, Class::Branch, Op::Table { index, targets: vec![0; labels.len()] });
                for (slot, label) in labels.into_iter().enumerate() {
                    self.label(&Arg::Name(label), slot)?;
                }
            }
            "call" => self.call(instr, guard)?,
            "ret" => self.ret(guard),
            "exit" => self.emit(guard, Class::Branch, Op::Exit),
            "trap" | "brkpt" => self.emit(guard, Class::Other, Op::Trap),
            "bar" if mods.first() == Some(&"warp") => {
                let mask = self.source(self.arg(instr, 0)?, Ty::B32)?;
                self.emit(guard, Class::Barrier, Op::WarpSync { mask });
            }
            "bar" | "barrier" => self.barrier(instr, name, mods, guard)?,
            // Memory is coherent here, and hints have no effect.
            "membar" | "fence" | "griddepcontrol" | "nanosleep" | "prefetch" | "prefetchu" | "pmevent"
            | "setmaxnreg" => self.emit(guard, Class::Other, Op::Nop),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn barrier(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<()> {
        let has = |m: &str| mods.contains(&m);
        let aligned = name == "bar" || has("aligned");
        let red = has("red");
        let (mut args, mut reduce) = (instr.args.as_slice(), None);
        if red {
            let kind = if has("popc") {
                Reduce::Popc
            } else if has("and") {
                Reduce::And
            } else {
                Reduce::Or
            };
            let source = self.pred_source(self.arg(instr, args.len() - 1)?)?;
            let first = self.arg(instr, 0)?;
            reduce = Some(if kind == Reduce::Popc {
                (kind, source, Some(self.target(first)?.0), None)
            } else {
                (kind, source, None, Some(self.pred_target(first)?))
            });
            args = &args[1..args.len() - 1];
        }
        let Some(id) = args.first() else { return self.error("bar: no number of a barrier") };
        let id = self.source(id, Ty::U32)?;
        let count = args.get(1).map(|a| self.source(a, Ty::U32)).transpose()?;
        self.emit(guard, Class::Barrier, Op::Barrier { id, count, arrive: has("arrive"), aligned, reduce });
        Ok(())
    }

    fn warp_wide(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<bool> {
        let has = |m: &str| mods.contains(&m);
        if matches!(name, "shfl" | "vote") && !has("sync") {
            return self.error(format!("{name} without .sync is not supported"));
        }
        match name {
            "shfl" => {
                let mode = match mods.get(1) {
                    Some(&"up") => ShflMode::Up,
                    Some(&"down") => ShflMode::Down,
                    Some(&"bfly") => ShflMode::Bfly,
                    Some(&"idx") => ShflMode::Idx,
                    _ => return Ok(false),
                };
                let (d, p) = match self.arg(instr, 0)? {
                    Arg::Pair(d, p) => (Arg::Name(d.clone()), self.pred_named(p)?),
                    d => (d.clone(), None),
                };
                let d = self.target(&d)?.0;
                let regs = [1, 2, 3, 4].map(|i| self.arg(instr, i).and_then(|a| self.source(a, Ty::B32)));
                let [a, b, c, mask] = regs;
                self.emit(guard, Class::Warp, Op::Shfl { mode, d, p, a: a?, b: b?, c: c?, mask: mask? });
            }
            "vote" => {
                let mode = match mods.get(1) {
                    Some(&"all") => VoteMode::All,
                    Some(&"any") => VoteMode::Any,
                    Some(&"uni") => VoteMode::Uniform,
                    Some(&"ballot") => VoteMode::Ballot,
                    _ => return Ok(false),
                };
                let first = self.arg(instr, 0)?;
                let (d, p) = if mode == VoteMode::Ballot {
                    (Some(self.target(first)?.0), None)
                } else {
                    (None, Some(self.pred_target(first)?))
                };
                let a = self.pred_source(self.arg(instr, 1)?)?;
                let mask = self.source(self.arg(instr, 2)?, Ty::B32)?;
                self.emit(guard, Class::Warp, Op::Vote { mode, d, p, a, mask });
            }
            "match" => {
                let (d, p) = match self.arg(instr, 0)? {
                    Arg::Pair(d, p) => (Arg::Name(d.clone()), self.pred_named(p)?),
                    d => (d.clone(), None),
                };
                let ty = mods.iter().find_map(|m| Ty::of(m)).unwrap_or(Ty::B32);
                let d = self.target(&d)?.0;
                let a = self.source(self.arg(instr, 1)?, ty)?;
                let mask = self.source(self.arg(instr, 2)?, Ty::B32)?;
                self.emit(guard, Class::Warp, Op::Match { all: has("all"), d, p, a, mask });
            }
            "redux" => {
                let kind = match mods.get(1) {
                    Some(&"add") => AtomKind::Add,
                    Some(&"min") => AtomKind::Min,
                    Some(&"max") => AtomKind::Max,
                    Some(&"and") => AtomKind::And,
                    Some(&"or") => AtomKind::Or,
                    Some(&"xor") => AtomKind::Xor,
                    _ => return Ok(false),
                };
                if has("f32") {
                    return Ok(false);
                }
                let d = self.target(self.arg(instr, 0)?)?.0;
                let a = self.source(self.arg(instr, 1)?, Ty::B32)?;
                let mask = self.source(self.arg(instr, 2)?, Ty::B32)?;
                self.emit(guard, Class::Warp, Op::Redux { kind, signed: has("s32"), d, a, mask });
            }
            "activemask" => {
                let d = self.target(self.arg(instr, 0)?)?.0;
                self.emit(guard, Class::Warp, Op::Active(d));
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// setp, set, testp, logic on predicates, selp, isspacep.
    fn predicates(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<bool> {
        let has = |m: &str| mods.contains(&m);
        let ty = mods.last().and_then(|m| Ty::of(m));
        match (name, ty) {
            ("setp" | "set", Some(ty)) => {
                let combine = if has("and") {
                    Logic::And
                } else if has("or") {
                    Logic::Or
                } else if has("xor") {
                    Logic::Xor
                } else {
                    Logic::Copy
                };
                let Some(f) = mods.first().and_then(|m| float::compare(m, ty, has("ftz"))) else { return Ok(false) };
                let (d, other) = match (name, self.arg(instr, 0)?) {
                    ("set", _) => (self.fresh_pred()?, None),
                    (_, Arg::Pair(d, q)) if d == "_" => (self.fresh_pred()?, self.pred_named(q)?),
                    (_, Arg::Pair(d, q)) => (self.pred_target(&Arg::Name(d.clone()))?, self.pred_named(q)?),
                    (_, d) => (self.pred_target(d)?, None),
                };
                let (a, b) = (self.source(self.arg(instr, 1)?, ty)?, self.source(self.arg(instr, 2)?, ty)?);
                let with = if combine == Logic::Copy { ALWAYS } else { self.pred_source(self.arg(instr, 3)?)? };
                self.emit(guard, Class::Compare, Op::Test { f, a, b, d, other, combine, with });
                if name == "set" {
                    let float = mods.iter().find_map(|m| Ty::of(m)) == Some(Ty::F32);
                    let a = self.constant(if float { 0x3f80_0000 } else { 0xffff_ffff })?;
                    let to = self.target(self.arg(instr, 0)?)?.0;
                    self.emit(guard, Class::Compare, Op::Select { d: to, a, b: 0, p: Guard { pred: d, flip: 0 } });
                }
            }
            ("testp", Some(ty)) => {
                let Some(f) = mods.first().and_then(|m| float::property(m, ty)) else { return Ok(false) };
                let d = self.pred_target(self.arg(instr, 0)?)?;
                let a = self.source(self.arg(instr, 1)?, ty)?;
                self.emit(
                    guard,
                    Class::Compare,
                    Op::Test { f, a, b: a, d, other: None, combine: Logic::Copy, with: ALWAYS },
                );
            }
            ("mov" | "and" | "or" | "xor" | "not", Some(Ty::Pred)) => {
                let kind = match name {
                    "and" => Logic::And,
                    "or" => Logic::Or,
                    "xor" => Logic::Xor,
                    _ => Logic::Copy,
                };
                let d = self.pred_target(self.arg(instr, 0)?)?;
                let mut a = self.pred_source(self.arg(instr, 1)?)?;
                if name == "not" {
                    a.flip = !a.flip;
                }
                let b = if kind == Logic::Copy { ALWAYS } else { self.pred_source(self.arg(instr, 2)?)? };
                self.emit(guard, Class::Compare, Op::Logic { kind, d, a, b });
            }
            ("selp", Some(ty)) => {
                let d = self.target(self.arg(instr, 0)?)?.0;
                let (a, b) = (self.source(self.arg(instr, 1)?, ty)?, self.source(self.arg(instr, 2)?, ty)?);
                let p = self.pred_source(self.arg(instr, 3)?)?;
                self.emit(guard, Class::Move, Op::Select { d, a, b, p });
            }
            ("isspacep", _) => {
                let space = match mods.first() {
                    Some(&"global" | &"const") => Space::Global,
                    Some(&"shared") => Space::Shared,
                    Some(&"local") => Space::Local,
                    Some(&"param") => Space::Param,
                    _ => return Ok(false),
                };
                let d = self.pred_target(self.arg(instr, 0)?)?;
                let a = self.source(self.arg(instr, 1)?, Ty::U64)?;
                self.emit(guard, Class::Compare, Op::IsSpace { d, a, space });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn moves(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<bool> {
        let Some(ty) = mods.last().and_then(|m| Ty::of(m)) else { return Ok(false) };
        match name {
            "mov" => match (self.arg(instr, 0)?, self.arg(instr, 1)?) {
                (Arg::Vector(parts), from) => {
                    let a = self.source(from, ty)?;
                    let bits = ty.bits() / parts.len().max(1) as u32;
                    let parts =
                        parts.iter().map(|p| Ok(self.target_or_sink(p)?.map(|t| t.0))).collect::<Res<Vec<_>>>()?;
                    self.emit(guard, Class::Move, Op::Unpack { parts, a, bits });
                }
                (to, Arg::Vector(parts)) => {
                    let bits = ty.bits() / parts.len().max(1) as u32;
                    let part = match bits {
                        8 => Ty::B8,
                        16 => Ty::B16,
                        _ => Ty::B32,
                    };
                    let d = self.target(to)?.0;
                    let parts = parts.iter().map(|p| self.source(p, part)).collect::<Res<Vec<_>>>()?;
                    self.emit(guard, Class::Move, Op::Pack { d, parts, bits });
                }
                (to, Arg::Name(clock))
                    if matches!(
                        clock.as_str(),
                        "%clock" | "%clock64" | "%globaltimer" | "%clock_hi" | "%globaltimer_lo"
                    ) =>
                {
                    let d = self.target(to)?.0;
                    self.emit(guard, Class::Move, Op::Clock { d, bits: ty.bits() });
                }
                (to, from) => {
                    let (d, a) = (self.target(to)?.0, self.source(from, ty)?);
                    self.emit(guard, Class::Move, Op::Lanes(lanes(|a, _, _| a), Regs { d, a, b: 0, c: 0 }));
                }
            },
            "cvta" => {
                let (d, a) = (self.target(self.arg(instr, 0)?)?.0, self.source(self.arg(instr, 1)?, ty)?);
                let window = if mods.contains(&"shared") {
                    SHARED_WINDOW
                } else if mods.contains(&"local") {
                    LOCAL_WINDOW
                } else {
                    0
                };
                let (to, mask) = (mods[0] == "to", ones(ty.bits()));
                let f = lanes(move |a, _, _| if to { a.wrapping_sub(window) & mask } else { a.wrapping_add(window) });
                self.emit(guard, Class::Integer, Op::Lanes(f, Regs { d, a, b: 0, c: 0 }));
            }
            "cvt" => self.convert(instr, mods, guard)?,
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn convert(&mut self, instr: &Instr, mods: &[&str], guard: Guard) -> Res<()> {
        let types: Vec<Ty> = mods.iter().filter_map(|m| Ty::of(m)).collect();
        let (&[to, from], (d, bits)) = (types.as_slice(), self.target(self.arg(instr, 0)?)?) else {
            return self.error(format!("{}: this conversion is not supported", instr.op.join(".")));
        };
        let Some(f) = cvt::convert(mods, to, from) else {
            return self.error(format!("{}: this conversion is not supported", instr.op.join(".")));
        };
        let a = self.source(self.arg(instr, 1)?, from)?;
        let b = if instr.args.len() > 2 { self.source(&instr.args[2], from)? } else { 0 };
        self.emit(guard, Class::Convert, Op::Lanes(f, Regs { d, a, b, c: 0 }));
        if to.signed() && bits > to.bits() {
            // A wider register holds the number with its sign.
            let (narrow, mask) = (to.bits(), ones(bits));
            self.emit(
                guard,
                Class::Convert,
                Op::Lanes(lanes(move |a, _, _| signed(a, narrow) as u64 & mask), Regs { d, a: d, b: 0, c: 0 }),
            );
        }
        Ok(())
    }

    fn arithmetic(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<bool> {
        let types: Vec<Ty> = mods.iter().filter_map(|m| Ty::of(m)).collect();
        let Some(&ty) = types.last() else { return Ok(false) };
        let has = |m: &str| mods.contains(&m);
        if has("cc") || matches!(name, "addc" | "subc" | "madc") {
            let Some(f) = int::carry(name, mods, ty) else { return Ok(false) };
            let regs = self.regs(instr, &[ty; 3])?;
            self.emit(guard, Class::Integer, Op::Carry { f, regs, reads: name.ends_with('c'), writes: has("cc") });
            return Ok(true);
        }
        if name == "bfi" {
            let d = self.target(self.arg(instr, 0)?)?.0;
            let (a, b) = (self.source(self.arg(instr, 1)?, ty)?, self.source(self.arg(instr, 2)?, ty)?);
            let (pos, len) = (self.source(self.arg(instr, 3)?, Ty::U32)?, self.source(self.arg(instr, 4)?, Ty::U32)?);
            self.emit(guard, Class::Integer, Op::Insert { d, a, b, pos, len, bits: ty.bits() });
            return Ok(true);
        }
        let (f, sources, class): (Option<LaneFn>, [Ty; 3], Class) = match name {
            "lop3" => {
                let Some(Arg::Int(table)) = instr.args.get(4) else { return Ok(false) };
                (Some(int::lop3(*table)), [ty; 3], Class::Integer)
            }
            "dp4a" | "dp2a" => {
                let &[a, b] = types.as_slice() else { return Ok(false) };
                (Some(int::dot(name, a.signed(), b.signed(), has("hi"))), [Ty::B32; 3], Class::Integer)
            }
            "slct" => {
                let float = ty == Ty::F32;
                let ftz = has("ftz");
                let f = lanes(move |a, b, c| {
                    let chosen = if float { float::read(c, Ty::F32, ftz) >= 0.0 } else { signed(c, 32) >= 0 };
                    if chosen { a } else { b }
                });
                (Some(f), [types[0], types[0], ty], Class::Move)
            }
            _ if ty.float() || matches!(ty, Ty::F16x2 | Ty::Bf16x2) => {
                let special = matches!(name, "ex2" | "lg2" | "sin" | "cos" | "tanh" | "rcp" | "rsqrt" | "sqrt" | "div");
                let class = if special {
                    Class::Special
                } else if ty == Ty::F64 {
                    Class::Double
                } else {
                    Class::Float
                };
                (float::float(name, mods, ty), [ty; 3], class)
            }
            _ => {
                let third = if has("wide") { if ty.bits() == 16 { Ty::B32 } else { Ty::B64 } } else { ty };
                let sources = match name {
                    "shl" | "shr" => [ty, Ty::U32, ty],
                    "bfe" => [ty, Ty::U32, Ty::U32],
                    _ => [ty, ty, third],
                };
                (int::integer(name, mods, ty), sources, Class::Integer)
            }
        };
        let Some(f) = f else { return Ok(false) };
        let regs = self.regs(instr, &sources)?;
        self.emit(guard, class, Op::Lanes(f, regs));
        Ok(true)
    }

    /// Destination and up to three sources.
    fn regs(&mut self, instr: &Instr, types: &[Ty; 3]) -> Res<Regs> {
        let d = self.target(self.arg(instr, 0)?)?.0;
        let mut sources = [0; 3];
        for (i, ty) in types.iter().enumerate() {
            if let Some(arg) = instr.args.get(i + 1) {
                sources[i] = self.source(arg, *ty)?;
            }
        }
        Ok(Regs { d, a: sources[0], b: sources[1], c: sources[2] })
    }
}
