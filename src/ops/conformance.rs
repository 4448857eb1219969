//! Proofs about one case: finite differences against the reference, a backend against the reference.

#[cfg(feature = "cuda")]
mod device;

use ndarray::{ArrayView4, ArrayViewMut4};

use super::cases::Case;
use super::{Backward, Forward, Grad, ParamGrad};
use crate::backend::{Host, Real, Reference};
use crate::graph::Shape;
use crate::rng::Key;

#[cfg(feature = "cuda")]
pub use device::{compare_on_device, run_on_device};

/// How gradients reach their memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// Written onto NaN.
    Write,
    /// Added to random values, which the result no longer contains.
    Add,
    /// Input 0's gradient over dy, the rest written; the output over input 0, where the op allows it.
    InPlace,
}

/// What one forward and backward pass gave, widened to f64.
#[derive(Clone, Debug, Default)]
pub struct Passes {
    /// Output.
    pub y: Vec<f64>,
    /// The output made again, where a training plan may have that done.
    pub again: Option<Vec<f64>>,
    /// State after a training pass.
    pub states: Vec<Vec<f64>>,
    /// Gradients of the inputs.
    pub dx: Vec<Vec<f64>>,
    /// Gradients of the parameters.
    pub dparams: Vec<Vec<f64>>,
}

/// Which passes to run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// Forward with evaluation statistics.
    Eval,
    /// The forward pass of training.
    TrainForward,
    /// Forward and backward.
    Train,
    /// Forward with evaluation statistics, and backward.
    EvalBackward,
}

/// Random operands of a case.
#[derive(Clone, Debug)]
pub struct Operands {
    x: Vec<Vec<f64>>,
    params: Vec<Vec<f64>>,
    states: Vec<Vec<f64>>,
    dy: Vec<f64>,
    output: Shape,
}

fn noise(key: Key, len: usize) -> Vec<f64> {
    let mut stream = key.stream();
    // Values that f32 holds exactly, so that backends start from the same numbers.
    (0..len).map(|_| f64::from((stream.normal() * 0.7) as f32)).collect()
}

fn output(case: &Case) -> Shape {
    case.op.op().output(&case.inputs).unwrap_or_else(|e| panic!("{}: {e:?}", case.name()))
}

impl Operands {
    /// Operands of one's own, in the engine's order: inputs `[n, h, w, c]`, parameters, states, upstream gradient.
    ///
    /// Panics where the op does not take inputs of the case's shapes.
    pub fn new(case: &Case, x: Vec<Vec<f64>>, params: Vec<Vec<f64>>, states: Vec<Vec<f64>>, dy: Vec<f64>) -> Self {
        Operands { x, params, states, dy, output: output(case) }
    }

    /// Draws inputs, parameters, state and the upstream gradient of a case.
    pub fn random(case: &Case, seed: u64) -> Self {
        let op = case.op.op();
        let key = Key::new(seed).with_name(&case.name());
        let output = output(case);
        let draw = |what: &str, lens: Vec<usize>| -> Vec<Vec<f64>> {
            lens.iter().enumerate().map(|(i, &len)| noise(key.with_name(what).with(i as u64), len)).collect()
        };
        // Variances are positive: states get their absolute value where they start at one.
        let mut states = draw("state", op.states(&case.inputs).iter().map(|s| s.layout.len()).collect());
        for (spec, values) in op.states(&case.inputs).iter().zip(&mut states) {
            if spec.init == super::Init::Constant(1.0) {
                values.iter_mut().for_each(|v| *v = v.abs() + 0.5);
            }
        }
        Operands {
            x: draw("x", case.inputs.iter().map(|s| s.len() * case.batch).collect()),
            params: draw("param", op.params(&case.inputs).iter().map(|s| s.layout.len()).collect()),
            states,
            dy: noise(key.with_name("dy"), output.len() * case.batch),
            output,
        }
    }
}

fn cast<E: Real>(values: &[Vec<f64>]) -> Vec<Vec<E>> {
    values.iter().map(|v| v.iter().map(|&v| E::of(v)).collect()).collect()
}

fn wide<E: Real>(values: &[E]) -> Vec<f64> {
    values.iter().map(|v| v.wide()).collect()
}

fn slices<E>(values: &[Vec<E>]) -> Vec<&[E]> {
    values.iter().map(Vec::as_slice).collect()
}

fn dim(shape: Shape, n: usize) -> (usize, usize, usize, usize) {
    (n, shape.h, shape.w, shape.c)
}

/// Runs a case on a backend. Whatever a kernel has to write starts as NaN.
pub fn run<B: Host>(case: &Case, operands: &Operands, run: Run, delivery: Delivery) -> Passes {
    let training = matches!(run, Run::Train | Run::TrainForward);
    let saves = run != Run::Eval;
    let op = case.op.op();
    let kernel = B::kernel(op);
    let (n, output) = (case.batch, operands.output);
    let nan = B::Elem::of(f64::NAN);
    let poison = |len: usize| vec![nan; len];
    let x = cast::<B::Elem>(&operands.x);
    let params = cast::<B::Elem>(&operands.params);
    let mut states = cast::<B::Elem>(&operands.states);
    let lens = op.saved(&case.inputs, output);
    let mut saved: Vec<Vec<B::Elem>> = lens.iter().map(|s| poison(s.per_image * n + s.fixed)).collect();
    let mut scratch = poison(kernel.scratch(&case.inputs, output, n));
    let mut prepared = poison(kernel.prepared(&case.inputs, output));
    let (param_slices, state_slices) = (slices(&params), slices(&states));
    kernel.prepare(&case.inputs, output, &param_slices, &state_slices, &mut prepared);
    let key = Key::new(7);
    let view = |shape: Shape, values| ArrayView4::from_shape(dim(shape, n), values).expect("sizes fit");
    let empty = || ArrayView4::from_shape((0, 0, 0, 0), &[][..]).expect("empty");

    // An op may take the input's place unless it keeps the input for a backward pass.
    let in_place = delivery == Delivery::InPlace && op.in_place().forward && !(saves && op.keeps().inputs);
    let mut y = if in_place { x[0].clone() } else { poison(output.len() * n) };
    let mut forward = |y: &mut [B::Elem], in_place: bool, again: bool| {
        let views = x.iter().zip(&case.inputs).enumerate();
        scratch.fill(nan);
        kernel.forward(Forward {
            training,
            again,
            key,
            x: views.map(|(i, (x, &shape))| if in_place && i == 0 { empty() } else { view(shape, &x[..]) }).collect(),
            y: ArrayViewMut4::from_shape(dim(output, n), y).expect("sizes fit"),
            in_place,
            params: params.iter().map(Vec::as_slice).collect(),
            states: states.iter_mut().map(Vec::as_mut_slice).collect(),
            prepared: &prepared,
            saved: if saves { saved.iter_mut().map(Vec::as_mut_slice).collect() } else { Default::default() },
            scratch: &mut scratch,
        });
    };
    forward(&mut y, in_place, false);
    let again = (training && saves && op.recomputes()).then(|| {
        let mut y = poison(output.len() * n);
        forward(&mut y, false, true);
        wide(&y)
    });
    let mut passes =
        Passes { y: wide(&y), again, states: states.iter().map(|s| wide(s)).collect(), ..Passes::default() };
    if !matches!(run, Run::Train | Run::EvalBackward) {
        return passes;
    }

    scratch.fill(nan);
    let add = delivery == Delivery::Add;
    let before = |len: usize, i: usize| -> Vec<B::Elem> {
        if add { noise(key.with(i as u64), len).iter().map(|&v| B::Elem::of(v)).collect() } else { poison(len) }
    };
    let mut dx: Vec<Vec<B::Elem>> = x.iter().enumerate().map(|(i, x)| before(x.len(), i)).collect();
    let mut dparams: Vec<Vec<B::Elem>> = params.iter().enumerate().map(|(i, p)| before(p.len(), 100 + i)).collect();
    let mut dy: Vec<B::Elem> = operands.dy.iter().map(|&v| B::Elem::of(v)).collect();
    let over_dy = delivery == Delivery::InPlace && op.in_place().backward;
    if over_dy {
        dx[0] = std::mem::take(&mut dy);
    }
    let grads = dx.iter_mut().zip(&case.inputs).enumerate().map(|(i, (dx, &shape))| {
        let dx = ArrayViewMut4::from_shape(dim(shape, n), &mut dx[..]).expect("sizes fit");
        match i {
            0 if over_dy => Grad::InPlace(dx),
            _ if add => Grad::Add(dx),
            _ => Grad::Write(dx),
        }
    });
    let dy_dim = if over_dy { (0, 0, 0, 0) } else { dim(output, n) };
    let keeps = op.keeps();
    kernel.backward(Backward {
        training,
        key,
        x: if keeps.inputs {
            x.iter().zip(&case.inputs).map(|(x, &shape)| view(shape, &x[..])).collect()
        } else {
            Default::default()
        },
        y: if keeps.output { view(output, &y[..]) } else { empty() },
        dy: ArrayViewMut4::from_shape(dy_dim, &mut dy[..]).expect("sizes fit"),
        dx: grads.collect(),
        params: params.iter().map(Vec::as_slice).collect(),
        dparams: dparams.iter_mut().map(|values| ParamGrad { values, add, needed: true }).collect(),
        saved: saved.iter().map(Vec::as_slice).collect(),
        scratch: &mut scratch,
    });
    let minus_before = |values: &[B::Elem], i: usize| {
        let mut values = wide(values);
        if add {
            let before = before(values.len(), i);
            values.iter_mut().zip(before).for_each(|(v, b)| *v -= b.wide());
        }
        values
    };
    passes.dx = dx.iter().enumerate().map(|(i, dx)| minus_before(dx, i)).collect();
    passes.dparams = dparams.iter().enumerate().map(|(i, dp)| minus_before(dp, 100 + i)).collect();
    passes
}

/// Compares the reference's gradients with central differences of Σ y·dy, at 6 to 60 elements of each operand (the
/// more, the smaller the case). Elements at a kink (where left and right difference disagree) are skipped, at most a third of them.
///
/// Likewise with evaluation statistics, where those make another output; else the gradients are the same. Ops that only
/// infer have no gradients.
///
/// # Errors
/// The first element that differs, as text.
pub fn check_gradients(case: &Case) -> Result<(), String> {
    if case.op.op().only_infers() {
        return Ok(());
    }
    let mut operands = Operands::random(case, 1);
    let trained = run::<Reference>(case, &operands, Run::Train, Delivery::Write);
    let evaluated = run::<Reference>(case, &operands, Run::EvalBackward, Delivery::Write);
    if trained.y != evaluated.y {
        check_passes(case, &operands, &evaluated, Run::Eval).map_err(|e| format!("evaluation: {e}"))?;
    } else if trained.dx != evaluated.dx || trained.dparams != evaluated.dparams {
        return Err(format!("{}: evaluation has the output of training, and other gradients", case.name()));
    }
    let pass = if case.constant_state {
        operands.states = trained.states.clone();
        Run::Eval
    } else {
        Run::TrainForward
    };
    check_passes(case, &operands, &trained, pass)
}

/// Compares the gradients of `passes` with differences of the forward pass `pass`.
fn check_passes(case: &Case, operands: &Operands, passes: &Passes, pass: Run) -> Result<(), String> {
    let loss = |operands: &Operands| -> f64 {
        let y = run::<Reference>(case, operands, pass, Delivery::Write).y;
        y.iter().zip(&operands.dy).map(|(y, dy)| y * dy).sum()
    };
    let middle = loss(operands);
    let before: f64 = passes.y.iter().zip(&operands.dy).map(|(y, dy)| y * dy).sum();
    if (before - middle).abs() > 1e-9 * passes.y.iter().fold(1.0, |m: f64, y| m.max(y.abs())) {
        return Err(format!("{}: Σ y·dy is {before} in the passes, {middle} in that to differentiate", case.name()));
    }
    let (mut checked, mut skipped) = (0, 0);
    let cost = case.batch as u64 * case.op.op().flops(&case.inputs, operands.output) + operands.dy.len() as u64;
    let most = (8_000_000 / cost).clamp(6, 60) as usize;
    let mut check = |what: &str, which: usize, gradient: &[f64], get: &dyn Fn(&mut Operands) -> &mut Vec<f64>| {
        let scale = gradient.iter().fold(1e-3, |m: f64, g| m.max(g.abs()));
        let picks = gradient.len().min(most);
        for pick in 0..picks {
            let i = if picks == gradient.len() {
                pick
            } else {
                (Key::new(pick as u64).at(which as u64) % gradient.len() as u64) as usize
            };
            let h = 1e-5;
            let mut moved = operands.clone();
            let here = get(&mut moved)[i];
            get(&mut moved)[i] = here + h;
            let up = loss(&moved);
            get(&mut moved)[i] = here - h;
            let down = loss(&moved);
            checked += 1;
            if ((up - middle) - (middle - down)).abs() / h > 1e-3 * scale {
                skipped += 1;
                continue;
            }
            let numeric = (up - down) / (2.0 * h);
            if (numeric - gradient[i]).abs() > 1e-6 * scale + 1e-9 {
                return Err(format!("{}: d{what}[{i}] is {} but {numeric} by differences", case.name(), gradient[i]));
            }
        }
        Ok(())
    };
    for (i, dx) in passes.dx.iter().enumerate() {
        check(&format!("x{i}"), i, dx, &|o| &mut o.x[i])?;
    }
    let params = case.op.op().params(&case.inputs);
    let derivatives = |i: &usize| !case.not_derivatives.contains(&params[*i].name);
    for (i, dp) in passes.dparams.iter().enumerate().filter(|(i, _)| derivatives(i)) {
        check(&format!("param{i}"), 10 + i, dp, &|o| &mut o.params[i])?;
    }
    if skipped * 3 > checked {
        return Err(format!("{}: {skipped} of {checked} elements lie at kinks", case.name()));
    }
    Ok(())
}

/// Compares a backend with the reference in training and evaluation, for every delivery of gradients.
///
/// `tolerance` bounds the largest difference relative to the largest value of a tensor.
///
/// # Errors
/// The first tensor that differs, as text.
pub fn compare<B: Host>(case: &Case, tolerance: f64) -> Result<(), String> {
    compare_runs(case, tolerance, |operands, passes, delivery| Ok(run::<B>(case, operands, passes, delivery)))
}

/// The same for what `run` makes of operands.
fn compare_runs(
    case: &Case,
    tolerance: f64,
    run_ours: impl Fn(&Operands, Run, Delivery) -> Result<Passes, String>,
) -> Result<(), String> {
    let operands = Operands::random(case, 2);
    let passes: &[Run] =
        if case.op.op().only_infers() { &[Run::Eval] } else { &[Run::Train, Run::Eval, Run::EvalBackward] };
    for &passes in passes {
        let truth = run::<Reference>(case, &operands, passes, Delivery::Write);
        for delivery in [Delivery::Write, Delivery::Add, Delivery::InPlace] {
            let ours = run_ours(&operands, passes, delivery).map_err(|e| format!("{}: {e}", case.name()))?;
            let how = format!("{} ({delivery:?}, {passes:?})", case.name());
            close(&format!("{how}: y"), &truth.y, &ours.y, tolerance)?;
            if [&truth, &ours].iter().any(|passes| passes.again.as_ref().is_some_and(|again| *again != passes.y)) {
                return Err(format!("{how}: y made again is another"));
            }
            for (name, truth, ours) in [
                ("state", &truth.states, &ours.states),
                ("dx", &truth.dx, &ours.dx),
                ("dparam", &truth.dparams, &ours.dparams),
            ] {
                for (i, (truth, ours)) in truth.iter().zip(ours).enumerate() {
                    close(&format!("{how}: {name}{i}"), truth, ours, tolerance)?;
                }
            }
        }
    }
    Ok(())
}

fn close(what: &str, truth: &[f64], ours: &[f64], tolerance: f64) -> Result<(), String> {
    // The floor is for tensors of zeros, such as the loss of a single class.
    let scale = truth.iter().fold(0.1, |m: f64, v| m.max(v.abs()));
    if truth.len() != ours.len() {
        return Err(format!("{what}: {} values instead of {}", ours.len(), truth.len()));
    }
    for (i, (t, o)) in truth.iter().zip(ours).enumerate() {
        let close = (t - o).abs() <= tolerance * scale; // false for a NaN
        if !close {
            return Err(format!("{what}[{i}] is {o}, the reference has {t}"));
        }
    }
    Ok(())
}
