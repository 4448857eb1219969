//! What a name or a number in an instruction stands for.

use std::collections::HashMap;

use super::{Lowerer, Res};
use crate::lanes::{Reg, Regs, lanes};
use crate::num::ones;
use crate::program::{ALWAYS, Class, Guard, LOCAL_WINDOW, Op, PARAM_WINDOW, Place, Pred, Special};
use crate::ptx::{Arg, Space, Ty};

#[derive(Debug, Clone, Copy)]
pub(super) enum Name {
    /// A register and its bits.
    Reg(Reg, u32),
    Pred(Pred),
    Shared(u64),
    Dynamic(Reg),
    Local(u64),
    /// A kernel's parameter.
    Param(u64),
    /// An argument or a result of a call, in the thread's memory.
    Slot(u64),
    Global(u64),
}

/// What is declared between two braces.
#[derive(Debug, Default)]
pub(super) struct Scope {
    pub names: HashMap<String, Name>,
    /// `%r<9>`: prefix, count, type. Registers come to be when they are named.
    pub prefixes: Vec<(String, u32, Ty)>,
    pub labels: HashMap<String, u32>,
    /// Branches: instruction, label, index within a table.
    pub patches: Vec<(usize, String, usize)>,
    pub targets: HashMap<String, Vec<String>>,
    /// A function's outermost scope: names of the caller end here.
    pub function: bool,
}

impl Lowerer<'_> {
    pub(super) fn fresh(&mut self) -> Res<Reg> {
        let Ok(reg) = Reg::try_from(self.next_reg) else { return self.error("more than 65536 registers") };
        self.next_reg += 1;
        Ok(reg)
    }

    pub(super) fn fresh_pred(&mut self) -> Res<Pred> {
        let Ok(pred) = Pred::try_from(self.next_pred) else { return self.error("more than 65536 predicates") };
        self.next_pred += 1;
        Ok(pred)
    }

    pub(super) fn declare(&mut self, name: &str, ty: Ty) -> Res<()> {
        let made = if ty == Ty::Pred { Name::Pred(self.fresh_pred()?) } else { Name::Reg(self.fresh()?, ty.bits()) };
        self.scope().names.insert(name.to_owned(), made);
        Ok(())
    }

    /// What a name stands for in the innermost scope that knows it.
    pub(super) fn find(&mut self, name: &str) -> Res<Option<Name>> {
        let digits = name.len() - name.trim_end_matches(|c: char| c.is_ascii_digit()).len();
        let (prefix, number) = name.split_at(name.len() - digits);
        let number: Option<u32> = number.parse().ok();
        for at in (0..self.scopes.len()).rev() {
            let scope = &self.scopes[at];
            if let Some(found) = scope.names.get(name) {
                return Ok(Some(*found));
            }
            let declared = scope
                .prefixes
                .iter()
                .find(|(p, count, _)| p == prefix && number.is_some_and(|n| n < *count))
                .map(|p| p.2);
            if let Some(ty) = declared {
                let made =
                    if ty == Ty::Pred { Name::Pred(self.fresh_pred()?) } else { Name::Reg(self.fresh()?, ty.bits()) };
                self.scopes[at].names.insert(name.to_owned(), made);
                return Ok(Some(made));
            }
            if scope.function {
                break;
            }
        }
        if let Some(address) = self.globals.get(name) {
            return Ok(Some(Name::Global(*address)));
        }
        let Some(var) = self.module_shared.get(name).copied() else { return Ok(None) };
        let made = match var.size {
            Some(size) => Name::Shared(self.place_shared(size, var.align)),
            None => Name::Dynamic(self.dynamic_base(var.align)?),
        };
        self.scopes[0].names.insert(name.to_owned(), made);
        // The outermost scope is hidden from an inlined function: the module's names are not.
        if let Some(inner) = self.scopes.iter_mut().rev().find(|s| s.function) {
            inner.names.insert(name.to_owned(), made);
        }
        Ok(Some(made))
    }

    pub(super) fn constant(&mut self, value: u64) -> Res<Reg> {
        if let Some(reg) = self.constants.get(&value) {
            return Ok(*reg);
        }
        let reg = self.fresh()?;
        self.constants.insert(value, reg);
        Ok(reg)
    }

    fn special(&mut self, name: &str) -> Res<Option<Reg>> {
        let axis = match name.rsplit('.').next() {
            Some("x") => 0,
            Some("y") => 1,
            Some("z") => 2,
            _ => 3,
        };
        let special = match name.split('.').next().unwrap_or_default() {
            "%tid" if axis < 3 => Special::Tid(axis),
            "%ntid" if axis < 3 => Special::Ntid(axis),
            "%ctaid" if axis < 3 => Special::Ctaid(axis),
            "%nctaid" if axis < 3 => Special::Nctaid(axis),
            "%laneid" => Special::Lane,
            "%warpid" => Special::Warp,
            "%nwarpid" => Special::Warps,
            "%lanemask_eq" => Special::MaskEq,
            "%lanemask_lt" => Special::MaskLt,
            "%lanemask_le" => Special::MaskLe,
            "%lanemask_gt" => Special::MaskGt,
            "%lanemask_ge" => Special::MaskGe,
            "%dynamic_smem_size" => Special::DynamicShared,
            "%total_smem_size" => Special::TotalShared,
            "%smid" | "%gridid" => Special::Zero,
            "WARP_SZ" => return self.constant(32).map(Some),
            _ => return Ok(None),
        };
        if let Some(reg) = self.specials.get(&special) {
            return Ok(Some(*reg));
        }
        let reg = self.fresh()?;
        self.specials.insert(special, reg);
        Ok(Some(reg))
    }

    /// The register that holds a source operand; numbers are cut to the type's width.
    pub(super) fn source(&mut self, arg: &Arg, ty: Ty) -> Res<Reg> {
        match arg {
            Arg::Int(v) if ty == Ty::F32 => self.constant((*v as i64 as f32).to_bits().into()),
            Arg::Int(v) if ty == Ty::F64 => self.constant((*v as i64 as f64).to_bits()),
            Arg::Int(v) => self.constant(v & ones(ty.bits())),
            Arg::F32(bits) if ty == Ty::F64 => self.constant(f64::from(f32::from_bits(*bits)).to_bits()),
            Arg::F32(bits) => self.constant((*bits).into()),
            Arg::F64(bits) if ty.bits() == 64 => self.constant(*bits),
            Arg::F64(bits) => self.constant((f64::from_bits(*bits) as f32).to_bits().into()),
            Arg::Name(name) => match self.find(name)? {
                Some(Name::Pred(_)) => self.error(format!("{name} is a predicate, expected a value")),
                Some(found) => self.value_of(found, 0),
                None => match self.special(name)? {
                    Some(reg) => Ok(reg),
                    None => {
                        self.error(format!("{name:?} is not declared, or a special register that is not supported"))
                    }
                },
            },
            Arg::Offset(name, offset) => match self.find(name)? {
                Some(Name::Reg(..) | Name::Pred(_)) | None => self.error(format!("{name:?} is no variable")),
                Some(found) => self.value_of(found, *offset),
            },
            other => self.error(format!("{other:?} where a value is expected")),
        }
    }

    fn value_of(&mut self, name: Name, offset: i64) -> Res<Reg> {
        let at = |v: u64| v.wrapping_add(offset as u64);
        match name {
            Name::Reg(reg, _) => Ok(reg),
            Name::Pred(_) => self.error("a predicate where a value is expected"),
            Name::Dynamic(reg) if offset == 0 => Ok(reg),
            Name::Dynamic(reg) => {
                let (d, b) = (self.fresh()?, self.constant(offset as u64)?);
                self.emit(
                    ALWAYS,
                    Class::Integer,
                    Op::Lanes(lanes(|a, b, _| a.wrapping_add(b)), Regs { d, a: reg, b, c: 0 }),
                );
                Ok(d)
            }
            Name::Shared(v) | Name::Local(v) | Name::Global(v) => self.constant(at(v)),
            // An address taken of a parameter says its window, so that ld.param can tell a call's from the kernel's.
            Name::Param(v) => self.constant(at(PARAM_WINDOW + v)),
            Name::Slot(v) => self.constant(at(LOCAL_WINDOW + v)),
        }
    }

    /// The register that an instruction writes, and its bits.
    pub(super) fn target(&mut self, arg: &Arg) -> Res<(Reg, u32)> {
        let Arg::Name(name) = arg else { return self.error(format!("{arg:?} where a register is expected")) };
        match self.find(name)? {
            Some(Name::Reg(reg, bits)) => Ok((reg, bits)),
            _ => self.error(format!("{name:?} is no register")),
        }
    }

    /// As [`target`](Self::target); nothing for `_`.
    pub(super) fn target_or_sink(&mut self, arg: &Arg) -> Res<Option<(Reg, u32)>> {
        if *arg == Arg::Sink { Ok(None) } else { self.target(arg).map(Some) }
    }

    pub(super) fn pred_named(&mut self, name: &str) -> Res<Option<Pred>> {
        if name == "_" {
            return Ok(None);
        }
        match self.find(name)? {
            Some(Name::Pred(pred)) => Ok(Some(pred)),
            _ => self.error(format!("{name:?} is no predicate")),
        }
    }

    pub(super) fn pred_target(&mut self, arg: &Arg) -> Res<Pred> {
        let name = if let Arg::Name(name) = arg { name.as_str() } else { "_" };
        match self.pred_named(name)? {
            Some(pred) => Ok(pred),
            None => self.error(format!("{arg:?} where a predicate is expected")),
        }
    }

    /// A predicate that is read, `p`, `!p`, or a constant.
    pub(super) fn pred_source(&mut self, arg: &Arg) -> Res<Guard> {
        match arg {
            Arg::Int(v) => Ok(Guard { pred: 0, flip: if *v == 0 { u32::MAX } else { 0 } }),
            Arg::Not(name) => Ok(Guard { pred: self.pred_target(&Arg::Name(name.clone()))?, flip: u32::MAX }),
            _ => Ok(Guard { pred: self.pred_target(arg)?, flip: 0 }),
        }
    }

    /// `[base+offset]` in a space.
    pub(super) fn place(&mut self, arg: &Arg, space: Space) -> Res<Place> {
        let Arg::Address(base, offset) = arg else {
            return self.error(format!("{arg:?} where an address is expected"));
        };
        let Some(name) = base else { return Ok(Place { space, base: 0, offset: *offset }) };
        let fixed = |space, v: u64| Place { space, base: 0, offset: (v as i64).wrapping_add(*offset) };
        Ok(match (self.find(name)?, space) {
            (Some(Name::Reg(base, _)), Space::Param) => Place { space: Space::Generic, base, offset: *offset },
            (Some(Name::Reg(base, _)), _) => Place { space, base, offset: *offset },
            (Some(Name::Dynamic(base)), Space::Shared) => Place { space, base, offset: *offset },
            (Some(Name::Shared(v)), Space::Shared) => fixed(space, v),
            (Some(Name::Local(v)), Space::Local) => fixed(space, v),
            (Some(Name::Param(v)), Space::Param) => fixed(space, v),
            (Some(Name::Slot(v)), Space::Param) => fixed(Space::Local, v),
            (Some(Name::Global(v)), Space::Global | Space::Const | Space::Generic) => fixed(space, v),
            (Some(_), _) => return self.error(format!("{name} does not lie in the space of this access ({space:?})")),
            (None, _) => return self.error(format!("{name:?} is not declared")),
        })
    }
}
