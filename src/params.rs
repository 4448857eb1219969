//! Parameters, their gradients and state: one contiguous buffer each, and a table of names and offsets.

use std::ops::Range;

use crate::backend::Real;
use crate::graph::{Graph, Param};
use crate::ops::{Init, Layout};
use crate::plan::Arena;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// Offsets in a buffer are multiples of this many elements.
const ALIGN: usize = 16;

/// One parameter's or state's place in its buffer.
#[derive(Clone, Debug, PartialEq)]
pub struct ParamInfo {
    /// Its name, as in PyTorch's files.
    pub name: String,
    /// The first element.
    pub offset: usize,
    /// The number of elements.
    pub len: usize,
    /// Whether a layer on the way to the output uses it: others are never touched, by no optimizer.
    pub used: bool,
    /// Whether it is kept from being trained ([`Graph::freeze`]): no optimizer touches it either.
    pub frozen: bool,
    /// Whether it belongs to a normalisation or is a bias.
    pub norm_or_bias: bool,
    /// The order of its elements here and in files.
    pub layout: Layout,
}

impl ParamInfo {
    /// Its elements in the buffer.
    pub fn range(&self) -> Range<usize> {
        self.offset..self.offset + self.len
    }
}

/// A model's parameters, their gradients and its state.
///
/// Between parameters lie up to 15 elements of padding, which are zero and stay zero.
pub struct Params<E> {
    pub(crate) values: Arena<E>,
    pub(crate) grads: Arena<E>,
    pub(crate) states: Arena<E>,
    table: Vec<ParamInfo>,
    state_table: Vec<ParamInfo>,
}

impl<E: Real> Params<E> {
    /// The parameters of a graph with their first values, drawn from `key` by name.
    ///
    /// # Errors
    /// Where the machine has too little memory.
    pub fn new(graph: &Graph, key: Key) -> Result<Self> {
        let mut params = Params::zeros(graph)?;
        initialise(graph.params(), &params.table, params.values.all_mut(), key);
        initialise(graph.states(), &params.state_table, params.states.all_mut(), key);
        Ok(params)
    }

    /// The parameters of a graph, all zero: to be filled from a file.
    ///
    /// # Errors
    /// Where the machine has too little memory.
    pub fn zeros(graph: &Graph) -> Result<Self> {
        let mut params = Params::without_grads(graph)?;
        params.grads = Arena::new(params.values.len())?;
        Ok(params)
    }

    /// The same without memory for gradients, for a model that only predicts: [`Params::grads`] is empty.
    pub(crate) fn without_grads(graph: &Graph) -> Result<Self> {
        let (table, len) = table_of(graph);
        let (state_table, state_len) = tabulate(graph.states(), |_| (true, false));
        Ok(Params {
            values: Arena::new(len)?,
            grads: Arena::new(0)?,
            states: Arena::new(state_len)?,
            table,
            state_table,
        })
    }

    /// The elements of values (and so of gradients) and of state that a graph needs.
    pub(crate) fn lens(graph: &Graph) -> (usize, usize) {
        let len = |params| tabulate(params, |_| (true, false)).1;
        (len(graph.params()), len(graph.states()))
    }

    /// Whether these are the parameters and states that `graph` names.
    pub(crate) fn are_of(&self, graph: &Graph) -> bool {
        let same = |table: &[ParamInfo], params: &[Param]| {
            let of_graph = params.iter().map(|param| (&param.name, &param.spec.layout));
            table.iter().map(|info| (&info.name, &info.layout)).eq(of_graph)
        };
        same(&self.table, graph.params()) && same(&self.state_table, graph.states())
    }

    /// Marks the parameters that `which` names as frozen, and these alone.
    pub(crate) fn freeze(&mut self, which: impl Fn(&str) -> bool) {
        self.table.iter_mut().for_each(|info| info.frozen = which(&info.name));
    }

    /// Where each parameter lies.
    pub fn table(&self) -> &[ParamInfo] {
        &self.table
    }

    /// Where each state lies.
    pub fn state_table(&self) -> &[ParamInfo] {
        &self.state_table
    }

    /// All values, padding included.
    pub fn values(&self) -> &[E] {
        self.values.all()
    }

    /// All values, to change.
    pub fn values_mut(&mut self) -> &mut [E] {
        self.values.all_mut()
    }

    /// All gradients, in the values' order.
    pub fn grads(&self) -> &[E] {
        self.grads.all()
    }

    /// All gradients, to change.
    pub fn grads_mut(&mut self) -> &mut [E] {
        self.grads.all_mut()
    }

    /// What an optimizer needs at once: values, gradients, the table.
    pub fn split_mut(&mut self) -> (&mut [E], &mut [E], &[ParamInfo]) {
        (self.values.all_mut(), self.grads.all_mut(), &self.table)
    }

    /// All state.
    pub fn states(&self) -> &[E] {
        self.states.all()
    }

    /// All state, to change.
    pub fn states_mut(&mut self) -> &mut [E] {
        self.states.all_mut()
    }

    /// The place of a parameter or state by name: its buffer's name, its entry.
    fn find(&self, name: &str) -> Option<(bool, &ParamInfo)> {
        let by_name = |table: &'_ [ParamInfo]| table.iter().position(|info| info.name == name);
        match (by_name(&self.table), by_name(&self.state_table)) {
            (Some(i), _) => Some((true, &self.table[i])),
            (None, Some(i)) => Some((false, &self.state_table[i])),
            (None, None) => None,
        }
    }

    /// A parameter or state by name, in the order of PyTorch's files.
    pub fn to_torch(&self, name: &str) -> Option<Vec<E>> {
        let (is_param, info) = self.find(name)?;
        Some(to_torch(info, if is_param { self.values() } else { self.states() }))
    }

    /// The gradient of a parameter by name, in the order of PyTorch's files.
    pub fn grad_to_torch(&self, name: &str) -> Option<Vec<E>> {
        let (is_param, info) = self.find(name)?;
        is_param.then(|| to_torch(info, self.grads()))
    }

    /// Sets a parameter or state by name from values in the order of PyTorch's files.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Shape`] for an unknown name or another number of values.
    pub fn set_from_torch(&mut self, name: &str, values: &[E]) -> Result<()> {
        let Some((is_param, info)) = self.find(name) else {
            return Err(Error::new(ErrorKind::Shape, name, "the model has no such parameter"));
        };
        if values.len() != info.len {
            let expected = format!("{} values of shape {:?}", info.len, info.layout.torch_shape());
            return Err(Error::new(ErrorKind::Shape, name, format!("{} values", values.len())).expected(expected));
        }
        let info = info.clone();
        let buffer = if is_param { self.values.all_mut() } else { self.states.all_mut() };
        info.layout.for_each_pair(|ours, torch| buffer[info.offset + ours] = values[torch]);
        Ok(())
    }

    /// Values and state, to change.
    pub fn values_and_states_mut(&mut self) -> (&mut [E], &mut [E]) {
        (self.values.all_mut(), self.states.all_mut())
    }

    pub(crate) fn range(&self, param: usize) -> Range<usize> {
        self.table[param].range()
    }

    pub(crate) fn state_range(&self, state: usize) -> Range<usize> {
        self.state_table[state].range()
    }
}

/// Where each parameter of a graph would lie, and the elements of all.
pub(crate) fn table_of(graph: &Graph) -> (Vec<ParamInfo>, usize) {
    let (used, norm_or_bias) = (graph.used_params(), graph.norm_and_bias_params());
    tabulate(graph.params(), |i| (used[i], norm_or_bias[i]))
}

fn to_torch<E: Real>(info: &ParamInfo, buffer: &[E]) -> Vec<E> {
    let mut values = vec![E::zero(); info.len];
    info.layout.for_each_pair(|ours, torch| values[torch] = buffer[info.offset + ours]);
    values
}

/// The table of parameters or states, whose `used` and `norm_or_bias` come from `marks`, and the buffer's length.
fn tabulate(params: &[Param], marks: impl Fn(usize) -> (bool, bool)) -> (Vec<ParamInfo>, usize) {
    let mut table = Vec::new();
    let mut offset: usize = 0;
    for (i, Param { name, spec, frozen }) in params.iter().enumerate() {
        let len = spec.layout.len();
        let (used, norm_or_bias) = marks(i);
        let (name, frozen, layout) = (name.clone(), *frozen, spec.layout.clone());
        table.push(ParamInfo { name, offset, len, used, frozen, norm_or_bias, layout });
        offset = offset.saturating_add(len).next_multiple_of(ALIGN);
    }
    (table, offset)
}

/// Draws first values in the order of PyTorch's files, so that they do not depend on the engine's layout.
fn initialise<E: Real>(params: &[Param], table: &[ParamInfo], values: &mut [E], key: Key) {
    for (param, info) in params.iter().zip(table) {
        let key = match param.spec.init {
            Init::Turned { of, .. } => {
                let layer = param.name.strip_suffix(param.spec.name).unwrap_or_default();
                key.with_name(&format!("{layer}{of}"))
            }
            _ => key.with_name(&param.name),
        };
        let value = param.spec.init.values(key, info.len);
        info.layout.for_each_pair(|ours, torch| values[info.offset + ours] = E::of(value(torch)));
    }
}
