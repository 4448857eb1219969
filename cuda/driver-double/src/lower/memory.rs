//! Instructions that go to memory, and the tensor cores'.

use super::{Lowerer, Res};
use crate::lanes::Reg;
use crate::program::{Access, Atom, AtomKind, Class, Factor, Guard, Mma, Op};
use crate::ptx::{Arg, Instr, Space, Ty};

fn space_of(mods: &[&str]) -> Space {
    mods.iter()
        .find_map(|m| {
            Some(match *m {
                "global" => Space::Global,
                "const" => Space::Const,
                "shared" => Space::Shared,
                "local" => Space::Local,
                "param" => Space::Param,
                _ => return None,
            })
        })
        .unwrap_or(Space::Generic)
}

fn class_of(space: Space) -> Class {
    match space {
        Space::Global | Space::Const | Space::Generic => Class::Global,
        Space::Shared => Class::Shared,
        Space::Local => Class::Local,
        Space::Param => Class::Param,
    }
}

impl Lowerer<'_> {
    pub(super) fn memory(&mut self, instr: &Instr, name: &str, mods: &[&str], guard: Guard) -> Res<bool> {
        let space = space_of(mods);
        match name {
            "ld" | "ldu" => {
                let access = self.access(instr, mods, 1, 0)?;
                self.emit(guard, class_of(space), Op::Load(Box::new(access)));
            }
            "st" => {
                let access = self.access(instr, mods, 0, 1)?;
                self.emit(guard, class_of(space), Op::Store(Box::new(access)));
            }
            "atom" | "red" => {
                let atom = self.atom(instr, name == "red", mods)?;
                self.emit(guard, Class::Atomic, Op::Atom(Box::new(atom)));
            }
            "ldmatrix" => {
                if !mods.contains(&"m8n8") || !mods.contains(&"b16") {
                    return Ok(false);
                }
                let d = self.vector(self.arg(instr, 0)?)?;
                let place = self.place(self.arg(instr, 1)?, Space::Shared)?;
                self.emit(guard, Class::Shared, Op::LdMatrix { d, place, transposed: mods.contains(&"trans") });
            }
            "mma" => {
                let Some(mma) = self.mma(instr, mods)? else { return Ok(false) };
                self.emit(guard, Class::Tensor, Op::Mma(Box::new(mma)));
            }
            "cp" if mods.first() == Some(&"async") => return self.cp_async(instr, mods, guard),
            _ => return Ok(false),
        }
        Ok(true)
    }

    /// A load (`value` 0, `address` 1) or a store (the other way round).
    fn access(&mut self, instr: &Instr, mods: &[&str], address: usize, value: usize) -> Res<Access> {
        let Some(ty) = mods.last().and_then(|m| Ty::of(m)).filter(|t| *t != Ty::Pred) else {
            return self.error(format!("{}: this width is not supported", instr.op.join(".")));
        };
        let place = self.place(self.arg(instr, address)?, space_of(mods))?;
        let value = self.arg(instr, value)?;
        let list = match value {
            Arg::Vector(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        if list.is_empty() || list.len() > 4 || list.len() * ty.bytes() > 16 {
            return self.error(format!("{}: {} values of {} bytes", instr.op.join("."), list.len(), ty.bytes()));
        }
        let (mut regs, mut extend) = ([None; 4], None);
        for (slot, arg) in regs.iter_mut().zip(list) {
            if address == 0 {
                *slot = Some(self.source(arg, ty)?);
            } else if let Some((reg, bits)) = self.target_or_sink(arg)? {
                *slot = Some(reg);
                if ty.signed() && bits > ty.bits() {
                    extend = Some((ty.bits(), bits));
                }
            }
        }
        let volatile = mods.iter().any(|m| matches!(*m, "volatile" | "relaxed" | "acquire" | "release" | "mmio"));
        Ok(Access { place, regs, count: list.len(), width: ty.bytes(), extend, volatile })
    }

    fn atom(&mut self, instr: &Instr, red: bool, mods: &[&str]) -> Res<Atom> {
        let has = |m: &str| mods.contains(&m);
        let ty = mods
            .iter()
            .rev()
            .find_map(|m| Ty::of(m))
            .filter(|t| t.bits() >= 32 && !matches!(t, Ty::F16x2 | Ty::Bf16x2));
        let kinds = ["add", "min", "max", "and", "or", "xor", "exch", "cas", "inc", "dec"];
        let (Some(ty), Some(kind)) = (ty, kinds.iter().find(|k| has(k))) else {
            return self.error(format!("{}: this atomic operation is not supported", instr.op.join(".")));
        };
        let kind = match *kind {
            "add" if ty.float() => AtomKind::FloatAdd,
            "add" => AtomKind::Add,
            "min" => AtomKind::Min,
            "max" => AtomKind::Max,
            "and" => AtomKind::And,
            "or" => AtomKind::Or,
            "xor" => AtomKind::Xor,
            "exch" => AtomKind::Exch,
            "cas" => AtomKind::Cas,
            "inc" => AtomKind::Inc,
            _ => AtomKind::Dec,
        };
        if ty.float() && kind != AtomKind::FloatAdd && kind != AtomKind::Exch {
            return self.error(format!("{}: this atomic operation is not supported", instr.op.join(".")));
        }
        let first = usize::from(!red);
        let d = if red { None } else { self.target_or_sink(self.arg(instr, 0)?)?.map(|t| t.0) };
        let place = self.place(self.arg(instr, first)?, space_of(mods))?;
        let b = self.source(self.arg(instr, first + 1)?, ty)?;
        let c = if kind == AtomKind::Cas { self.source(self.arg(instr, first + 2)?, ty)? } else { 0 };
        Ok(Atom { kind, place, d, b, c, width: ty.bytes(), signed: ty.signed() })
    }

    fn vector(&mut self, arg: &Arg) -> Res<Vec<Reg>> {
        let list = match arg {
            Arg::Vector(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        };
        list.iter().map(|a| self.source(a, Ty::B32)).collect()
    }

    fn mma(&mut self, instr: &Instr, mods: &[&str]) -> Res<Option<Mma>> {
        let [_, _, shape, "row", "col", types @ ..] = mods else { return Ok(None) };
        let k = match *shape {
            "m16n8k4" => 4,
            "m16n8k8" => 8,
            "m16n8k16" => 16,
            _ => return Ok(None),
        };
        let &[d_ty, a_ty, b_ty, c_ty] = types else { return Ok(None) };
        let factor = match (a_ty, b_ty) {
            ("f16", "f16") => Factor::F16,
            ("bf16", "bf16") => Factor::Bf16,
            ("tf32", "tf32") => Factor::Tf32,
            _ => return Ok(None),
        };
        let tf32 = factor == Factor::Tf32;
        let halves = |ty: &str| match ty {
            "f32" => Some(false),
            "f16" if factor == Factor::F16 => Some(true),
            _ => None,
        };
        let (Some(half_d), Some(half_c)) = (halves(d_ty), halves(c_ty)) else { return Ok(None) };
        if (tf32 && k == 16) || (!tf32 && k == 4) {
            return Ok(None);
        }
        for arg in self.vector_args(instr, 0)? {
            self.target(arg)?;
        }
        let [d, a, b, c] = [0, 1, 2, 3].map(|i| self.arg(instr, i).and_then(|v| self.vector(v)));
        let mma = Mma { k, factor, half_c, half_d, d: d?, a: a?, b: b?, c: c? };
        // A holds 16 k values over 32 lanes, B half as many; a register holds one tf32 or two halves.
        let per = if tf32 { 1 } else { 2 };
        let sums = |half| if half { 2 } else { 4 };
        if mma.a.len() != k / 2 / per
            || mma.b.len() != k / 4 / per
            || mma.c.len() != sums(half_c)
            || mma.d.len() != sums(half_d)
        {
            return self.error("mma: wrong number of registers for this shape");
        }
        Ok(Some(mma))
    }

    fn vector_args<'a>(&self, instr: &'a Instr, i: usize) -> Res<&'a [Arg]> {
        Ok(match self.arg(instr, i)? {
            Arg::Vector(list) => list.as_slice(),
            one => std::slice::from_ref(one),
        })
    }

    fn cp_async(&mut self, instr: &Instr, mods: &[&str], guard: Guard) -> Res<bool> {
        match mods.get(1) {
            Some(&"commit_group") => self.emit(guard, Class::Other, Op::Commit),
            Some(&"wait_all") => self.emit(guard, Class::Other, Op::WaitGroup(u32::MAX)),
            Some(&"wait_group") => {
                let Arg::Int(n) = self.arg(instr, 0)? else {
                    return self.error("cp.async.wait_group: expected a number");
                };
                self.emit(guard, Class::Other, Op::WaitGroup((*n).min(1 << 20) as u32));
            }
            Some(&"ca" | &"cg") => {
                let to = self.place(self.arg(instr, 0)?, Space::Shared)?;
                let from = self.place(self.arg(instr, 1)?, Space::Global)?;
                let Arg::Int(bytes @ (4 | 8 | 16)) = self.arg(instr, 2)? else {
                    return self.error("cp.async: copies 4, 8 or 16 bytes");
                };
                if mods[1] == "cg" && *bytes != 16 {
                    return self.error("cp.async.cg copies 16 bytes");
                }
                let read = match instr.args.get(3) {
                    None => None,
                    Some(Arg::Name(_) | Arg::Int(_)) => Some(self.source(&instr.args[3], Ty::U32)?),
                    Some(_) => return self.error("cp.async: this form is not supported"),
                };
                self.emit(guard, Class::Global, Op::CpAsync { to, from, bytes: *bytes as usize, read });
            }
            _ => return Ok(false),
        }
        Ok(true)
    }
}
