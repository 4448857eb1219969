//! Before a plan is compiled: layers that can run as one become one, layers that do nothing go.
//!
//! In training, a batch-norm, the sum that alone reads it, if one does, and the activation that alone reads that
//! ([`NormAct`]).
//!
//! In inference, a convolution or linear layer takes with it what follows it alone, in this order, each as far as it is there:
//! batch-norm, activation, batch-norm, sum with another node, activation ([`ConvNormAct`]). It runs where the last of
//! them ran. A Flatten before a linear layer, dropout and stochastic depth vanish.
//!
//! Parameters and states stay those of the graph, so that its files and buffers fit.

#[cfg(test)]
mod tests;

use crate::Result;
use crate::graph::{Graph, NodeId, Source};
use crate::ops::{ConvNormAct, NormAct, OpSpec, Product, Residual};

/// The same layers as `graph`, those that train as one in the node of the last of them. Nodes keep their numbers, which name
/// the randomness of a step.
pub(super) fn fuse_training(graph: &Graph) -> Result<Graph> {
    let (nodes, alive) = (graph.nodes(), graph.alive());
    let mut readers = vec![0; nodes.len()];
    for node in nodes.iter().zip(&alive).filter(|(_, alive)| **alive).map(|(node, _)| node) {
        node.inputs.iter().for_each(|input| readers[input.0] += 1);
    }
    // Node `at`, where it is a batch-norm with a single reader.
    let norm = |at: NodeId| match nodes[at.0].source {
        Source::Op(OpSpec::BatchNorm(norm)) if readers[at.0] == 1 => Some((at.0, norm)),
        _ => None,
    };
    let mut fused = graph.clone();
    for (i, node) in nodes.iter().enumerate().filter(|&(i, _)| alive[i]) {
        let (Source::Op(OpSpec::Activation(act)), &[before]) = (&node.source, &node.inputs[..]) else { continue };
        // Behind a sum, the other summand comes second.
        let sum = match (&nodes[before.0].source, &nodes[before.0].inputs[..]) {
            (Source::Op(OpSpec::Add(_)), &[a, b]) if readers[before.0] == 1 => {
                norm(a).map(|first| (first, b)).or_else(|| norm(b).map(|first| (first, a)))
            }
            _ => None,
        };
        let (first, norm, r, parts) = match (norm(before), sum) {
            (Some((first, norm)), _) => (first, norm, None, vec![first, i]),
            (None, Some(((first, norm), r))) => (first, norm, Some(r), vec![first, before.0, i]),
            (None, None) => continue,
        };
        let (name, first) = (joint_name(graph, &parts), &nodes[first]);
        let inputs: Vec<NodeId> = first.inputs.iter().copied().chain(r).collect();
        let op = OpSpec::from(NormAct { norm, add: r.is_some(), act: *act });
        // An op takes no node twice.
        if r != Some(first.inputs[0]) {
            fused.replace(NodeId(i), &name, op, &inputs, first.params.clone(), first.states.clone())?;
        }
    }
    Ok(fused)
}

/// The same function as `graph` in evaluation, of fewer layers.
pub(super) fn fuse(graph: &Graph) -> Result<Graph> {
    let fuser = Fuser::new(graph);
    let mut chains: Vec<Option<Chain>> = vec![None; graph.nodes().len()];
    let mut taken = vec![false; graph.nodes().len()];
    for i in (0..graph.nodes().len()).filter(|&i| fuser.alive[i]) {
        if let Some(chain) = fuser.chain(i, &taken) {
            chain.nodes.iter().for_each(|&node| taken[node] = true);
            let last = chain.nodes[chain.nodes.len() - 1];
            chains[last] = Some(chain);
        }
    }
    let mut fused = graph.without_layers();
    let mut ids = vec![NodeId(0); graph.nodes().len()];
    for (i, node) in graph.nodes().iter().enumerate().skip(1).filter(|&(i, _)| fuser.alive[i]) {
        let new = |old: &NodeId| ids[old.0];
        if let Some(chain) = &chains[i] {
            let op = OpSpec::from(chain.op);
            let inputs: Vec<NodeId> = chain.residual.iter().chain([&chain.input]).map(new).collect();
            let parts = || chain.nodes.iter().map(|&i| &graph.nodes()[i]);
            let params = parts().flat_map(|node| node.params.clone()).collect();
            let states = parts().flat_map(|node| node.states.clone()).collect();
            ids[i] = fused.push(&joint_name(graph, &chain.nodes), op, &inputs, params, states)?;
        } else if let Source::Op(op) = &node.source
            && !taken[i]
        {
            let inputs: Vec<NodeId> = fuser.inputs[i].iter().map(new).collect();
            ids[i] = fused.push(&node.name, op.clone(), &inputs, node.params.clone(), node.states.clone())?;
        }
    }
    Ok(fused)
}

struct Fuser<'g> {
    graph: &'g Graph,
    /// The inputs of each node, past layers that do nothing.
    inputs: Vec<Vec<NodeId>>,
    /// Nodes that still lead to the output.
    alive: Vec<bool>,
    /// The readers of each node that are alive.
    readers: Vec<Vec<usize>>,
}

/// Nodes that run as one.
#[derive(Clone)]
struct Chain {
    /// In the order in which they ran.
    nodes: Vec<usize>,
    op: ConvNormAct,
    input: NodeId,
    residual: Option<NodeId>,
}

/// The names of nodes that run as one: that of the last alone, where a layer is called like all of them.
fn joint_name(graph: &Graph, nodes: &[usize]) -> String {
    let names: Vec<&str> = nodes.iter().map(|&i| graph.nodes()[i].name.as_str()).collect();
    let all = names.join(" + ");
    if graph.find(&all).is_ok() { names[names.len() - 1].to_owned() } else { all }
}

impl<'g> Fuser<'g> {
    fn new(graph: &'g Graph) -> Self {
        let nodes = graph.nodes();
        // Where a node's value can be found already.
        let mut from: Vec<NodeId> = (0..nodes.len()).map(NodeId).collect();
        let mut inputs = Vec::new();
        for (i, node) in nodes.iter().enumerate() {
            let mut own: Vec<NodeId> = node.inputs.iter().map(|input| from[input.0]).collect();
            // An op takes no node twice: then the layer that does nothing stays.
            if (1..own.len()).any(|k| own[..k].contains(&own[k])) {
                own.clone_from(&node.inputs);
            }
            if let Source::Op(OpSpec::Dropout(_) | OpSpec::DropPath(_)) = node.source
                && NodeId(i) != graph.output()
            {
                from[i] = own[0];
            }
            inputs.push(own);
        }
        let mut alive = vec![false; nodes.len()];
        alive[graph.output().0] = true;
        for i in (0..nodes.len()).rev().filter(|&i| i > 0) {
            if alive[i] {
                inputs[i].iter().for_each(|input| alive[input.0] = true);
            }
        }
        let mut readers = vec![Vec::new(); nodes.len()];
        for i in (0..nodes.len()).filter(|&i| alive[i]) {
            inputs[i].iter().for_each(|input| readers[input.0].push(i));
        }
        Fuser { graph, inputs, alive, readers }
    }

    fn op(&self, i: usize) -> Option<&OpSpec> {
        match &self.graph.nodes()[i].source {
            Source::Op(op) => Some(op),
            _ => None,
        }
    }

    /// The only reader of a node that nothing else needs.
    fn only_reader(&self, i: usize) -> Option<usize> {
        match self.readers[i][..] {
            [reader] if NodeId(i) != self.graph.output() => Some(reader),
            _ => None,
        }
    }

    /// What runs as one from node `i` on, if that is a convolution or linear layer.
    fn chain(&self, i: usize, taken: &[bool]) -> Option<Chain> {
        let mut nodes = vec![i];
        let mut input = *self.inputs[i].first()?;
        let product = match self.op(i)? {
            OpSpec::Conv2d(conv) => Product::Conv2d(*conv),
            OpSpec::Linear(linear) => {
                if let Some(OpSpec::Flatten(_)) = self.op(input.0)
                    && self.only_reader(input.0).is_some()
                {
                    nodes.insert(0, input.0);
                    input = self.inputs[input.0][0];
                }
                Product::Linear(*linear)
            }
            _ => return None,
        };
        let mut chain = Chain { nodes, op: ConvNormAct::new(product), input, residual: None };
        let mut last = i;
        while let Some(next) = self.only_reader(last).filter(|&next| !taken[next]) {
            if !self.join(&mut chain, last, next) {
                break;
            }
            chain.nodes.push(next);
            last = next;
        }
        Some(chain)
    }

    /// Takes `next`, which follows `last` alone, into the chain, if it fits there.
    fn join(&self, chain: &mut Chain, last: usize, next: usize) -> bool {
        let op = &mut chain.op;
        match self.op(next) {
            Some(OpSpec::BatchNorm(norm)) if op.add.is_none() && op.last.is_none() && op.norm_behind.is_none() => {
                match op.act {
                    None if op.norm.is_none() => op.norm = Some(*norm),
                    None => return false,
                    Some(_) => op.norm_behind = Some(*norm),
                }
            }
            Some(OpSpec::Activation(act)) if op.last.is_none() => match op.act {
                None if op.add.is_none() => op.act = Some(*act),
                _ => op.last = Some(*act),
            },
            Some(OpSpec::Add(_)) if op.add.is_none() && op.last.is_none() => {
                let [a, b] = self.inputs[next][..] else { return false };
                let other = if a.0 == last { b } else { a };
                if other == chain.input {
                    op.add = Some(Residual::Input);
                } else {
                    op.add = Some(Residual::Other);
                    chain.residual = Some(other);
                }
            }
            _ => return false,
        }
        true
    }
}
