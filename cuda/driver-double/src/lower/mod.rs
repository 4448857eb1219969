//! The tree to a [`Program`]: names become registers and addresses, calls are inlined, labels become places.

mod cvt;
mod float;
mod instr;
mod int;
mod memory;
mod names;

use std::collections::HashMap;
use std::sync::Arc;

pub(crate) use int::{CarryFn, insert};
use names::{Name, Scope};

use crate::lanes::Reg;
use crate::program::{ALWAYS, Class, Guard, Inst, Op, Program, Special};
use crate::ptx::{Arg, Function, Instr, Ptx, PtxError, Space, Stmt, Var};

type Res<T> = Result<T, PtxError>;

/// Calls may lie this deep; recursion runs into it.
const DEEPEST_CALL: usize = 24;
/// Instructions of a kernel with everything inlined.
const LONGEST: usize = 4 << 20;

/// Decodes one kernel. `globals` says where the module's variables lie in device memory.
pub(crate) fn kernel(ptx: &Ptx, function: &Function, globals: &HashMap<String, u64>, text: &Arc<str>) -> Res<Program> {
    let mut lowerer = Lowerer {
        functions: ptx.functions.iter().filter(|f| f.body.is_some()).map(|f| (f.name.as_str(), f)).collect(),
        module_shared: ptx.vars.iter().filter(|v| v.space == Space::Shared).map(|v| (v.name.as_str(), v)).collect(),
        globals,
        code: Vec::new(),
        scopes: Vec::new(),
        constants: HashMap::from([(0, 0)]),
        specials: HashMap::new(),
        dynamic: None,
        next_reg: 1,
        next_pred: 1,
        shared: 0,
        dynamic_align: 16,
        local: 0,
        returns: Vec::new(),
        line: function.line,
    };
    let (mut params, mut param_bytes, mut scope) = (Vec::new(), 0, Scope::default());
    for param in &function.params {
        let size =
            param.size.ok_or_else(|| PtxError::new(function.line, format!("parameter {} has no size", param.name)))?;
        let at = up(param_bytes, param.align);
        scope.names.insert(param.name.clone(), Name::Param(at as u64));
        params.push((at, size));
        param_bytes = at + size;
    }
    lowerer.scopes.push(scope);
    lowerer.body(function)?;
    lowerer.emit(ALWAYS, Class::Branch, Op::Exit);
    lowerer.close()?;
    let dynamic_at = up(lowerer.shared, lowerer.dynamic_align);
    let mut constants: Vec<(Reg, u64)> = lowerer.constants.iter().map(|(value, reg)| (*reg, *value)).collect();
    constants.extend(lowerer.dynamic.map(|reg| (reg, dynamic_at as u64)));
    Ok(Program {
        name: function.name.clone(),
        code: lowerer.code,
        registers: lowerer.next_reg,
        predicates: lowerer.next_pred,
        constants,
        specials: lowerer.specials.iter().map(|(special, reg)| (*reg, *special)).collect(),
        params,
        param_bytes,
        static_shared: lowerer.shared,
        dynamic_at,
        local_bytes: lowerer.local,
        max_threads: function.max_threads.unwrap_or(1024),
        text: text.clone(),
    })
}

/// `at` moved up to a multiple of `align`.
pub(crate) fn up(at: usize, align: usize) -> usize {
    at.next_multiple_of(align.max(1))
}

struct Lowerer<'a> {
    functions: HashMap<&'a str, &'a Function>,
    module_shared: HashMap<&'a str, &'a Var>,
    globals: &'a HashMap<String, u64>,
    code: Vec<Inst>,
    scopes: Vec<Scope>,
    constants: HashMap<u64, Reg>,
    specials: HashMap<Special, Reg>,
    /// The register that holds where dynamic shared memory begins.
    dynamic: Option<Reg>,
    next_reg: usize,
    next_pred: usize,
    shared: usize,
    dynamic_align: usize,
    local: usize,
    /// Of each function being inlined: its `ret` instructions, which go to its end.
    returns: Vec<Vec<usize>>,
    line: u32,
}

impl Lowerer<'_> {
    fn error<T>(&self, what: impl Into<String>) -> Res<T> {
        Err(PtxError::new(self.line, what))
    }

    fn emit(&mut self, guard: Guard, class: Class, op: Op) {
        self.code.push(Inst { op, guard, class, line: self.line });
    }

    fn body(&mut self, function: &Function) -> Res<()> {
        for stmt in function.body.iter().flatten() {
            self.statement(stmt)?;
            if self.code.len() > LONGEST {
                return self.error(format!("{}: more than {LONGEST} instructions", function.name));
            }
        }
        Ok(())
    }

    fn statement(&mut self, stmt: &Stmt) -> Res<()> {
        match stmt {
            Stmt::Open => self.scopes.push(Scope::default()),
            Stmt::Close => self.close()?,
            Stmt::Label(name) => {
                let at = self.code.len() as u32;
                self.scope().labels.insert(name.clone(), at);
            }
            Stmt::Targets(name, labels) => {
                self.scope().targets.insert(name.clone(), labels.clone());
            }
            Stmt::Reg { ty, name, count: Some(count) } => self.scope().prefixes.push((name.clone(), *count, *ty)),
            Stmt::Reg { ty, name, count: None } => self.declare(name, *ty)?,
            Stmt::Var(var) => self.variable(var)?,
            Stmt::Instr(instr) => {
                self.line = instr.line;
                self.instruction(instr)?;
            }
        }
        Ok(())
    }

    fn scope(&mut self) -> &mut Scope {
        if self.scopes.is_empty() {
            self.scopes.push(Scope::default());
        }
        self.scopes.last_mut().expect("just made sure")
    }

    /// Ends a scope: branches to its labels get their places, others wait for the scope around it.
    fn close(&mut self) -> Res<()> {
        let Some(scope) = self.scopes.pop() else { return self.error("a closing brace too many") };
        for (at, name, slot) in scope.patches {
            let Some(target) = scope.labels.get(&name).copied() else {
                match self.scopes.last_mut().filter(|_| !scope.function) {
                    Some(outer) => outer.patches.push((at, name, slot)),
                    None => return Err(PtxError::new(self.code[at].line, format!("no label {name} here"))),
                }
                continue;
            };
            match &mut self.code[at].op {
                Op::Branch(to) => *to = target,
                Op::Table { targets, .. } => targets[slot] = target,
                _ => return self.error("a label belongs to a branch"),
            }
        }
        Ok(())
    }

    /// A variable within a function.
    fn variable(&mut self, var: &Var) -> Res<()> {
        let name = match (var.space, var.size) {
            (Space::Shared, None) => Name::Dynamic(self.dynamic_base(var.align)?),
            (Space::Shared, Some(size)) => Name::Shared(self.place_shared(size, var.align)),
            (Space::Local, Some(size)) => Name::Local(self.place_local(size, var.align)),
            // Arguments and results of a call are memory of the thread.
            (Space::Param, Some(size)) => Name::Slot(self.place_local(size, var.align)),
            _ => return self.error(format!("variable {}: not supported within a function", var.name)),
        };
        self.scope().names.insert(var.name.clone(), name);
        Ok(())
    }

    fn place_shared(&mut self, size: usize, align: usize) -> u64 {
        let at = up(self.shared, align);
        self.shared = at + size;
        at as u64
    }

    fn place_local(&mut self, size: usize, align: usize) -> u64 {
        let at = up(self.local, align.max(8));
        self.local = at + size;
        at as u64
    }

    fn dynamic_base(&mut self, align: usize) -> Res<Reg> {
        self.dynamic_align = self.dynamic_align.max(align);
        if self.dynamic.is_none() {
            self.dynamic = Some(self.fresh()?);
        }
        self.dynamic.map_or_else(|| self.error("no register"), Ok)
    }

    /// The function's body in the place of its call.
    fn call(&mut self, instr: &Instr, guard: Guard) -> Res<()> {
        let (mut lists, mut callee) = (Vec::new(), None);
        for arg in &instr.args {
            match arg {
                Arg::List(list) => lists.push((callee.is_some(), list)),
                Arg::Name(name) if callee.is_none() => callee = Some(name.as_str()),
                _ => return self.error("call: a call through a register is not supported"),
            }
        }
        let Some(name) = callee else { return self.error("call: no function named") };
        let Some(function) = self.functions.get(name).copied() else {
            return self.error(format!("call: function {name} is not in this module (or it is a register: calls through pointers are not supported)"));
        };
        if self.returns.len() >= DEEPEST_CALL {
            return self
                .error(format!("call of {name}: more than {DEEPEST_CALL} calls deep; recursion is not supported"));
        }
        let mut scope = Scope { function: true, ..Scope::default() };
        for (after, list) in lists {
            let formal = if after { &function.params } else { &function.results };
            if formal.len() != list.len() {
                return self.error(format!("call of {name}: {} values, it has {}", list.len(), formal.len()));
            }
            for (var, arg) in formal.iter().zip(list) {
                let Arg::Name(actual) = arg else {
                    return self.error(format!("call of {name}: arguments must be .param variables"));
                };
                let Some(Name::Slot(at)) = self.find(actual)? else {
                    return self.error(format!("call of {name}: {actual} is no .param variable"));
                };
                scope.names.insert(var.name.clone(), Name::Slot(at));
            }
        }
        let around = (guard.pred != 0).then(|| {
            self.emit(Guard { flip: !guard.flip, ..guard }, Class::Branch, Op::Branch(0));
            self.code.len() - 1
        });
        self.scopes.push(scope);
        self.returns.push(Vec::new());
        self.body(function)?;
        self.close()?;
        let end = self.code.len() as u32;
        for at in self.returns.pop().into_iter().flatten().chain(around) {
            self.code[at].op = Op::Branch(end);
        }
        Ok(())
    }

    /// `ret`: the end of an inlined function, or of the thread.
    fn ret(&mut self, guard: Guard) {
        let at = self.code.len();
        let inlined = self.returns.last_mut().map(|list| list.push(at)).is_some();
        self.emit(guard, Class::Branch, if inlined { Op::Branch(0) } else { Op::Exit });
    }
}
