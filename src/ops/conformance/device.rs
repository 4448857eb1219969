//! A case on a CUDA device.

use super::{Delivery, Operands, Passes, Run, compare_runs, noise};
use crate::backend::Precision;
use crate::backend::cuda::{Backward, Buffer, Forward, Gpu, Grad, ParamGrad, Ptr};
use crate::ops::cases::Case;
use crate::rng::Key;
use crate::{Error, ErrorKind, Result};

/// Compares a device with the reference, as [`super::compare`] does a host backend.
///
/// # Errors
/// The first tensor that differs, or what the device reports, as text.
pub fn compare_on_device(case: &Case, tolerance: f64) -> Result<(), String> {
    compare_runs(case, tolerance, |operands, passes, delivery| {
        run_on_device(case, operands, passes, delivery, Precision::F32).map_err(|e| e.to_string())
    })
}

/// Runs a case on the device that is open, else the first one. Whatever a kernel has to write starts as NaN.
///
/// # Errors
/// What the device reports; kind [`ErrorKind::Unsupported`] for an op that it does not have.
pub fn run_on_device(
    case: &Case,
    operands: &Operands,
    run: Run,
    delivery: Delivery,
    precision: Precision,
) -> Result<Passes> {
    let gpu = Gpu::current()?;
    let saves = run != Run::Eval;
    let op = case.op.op();
    let kernel = op.cuda().ok_or_else(|| Error::new(ErrorKind::Unsupported, op.kind(), "no kernel"))?;
    let (n, output) = (case.batch, operands.output);
    let poison = |len: usize| Buffer::of(gpu, &vec![f32::NAN; len]);
    let upload = |values: &Vec<f64>| Buffer::of(gpu, &narrow(values));
    let x: Vec<Buffer> = operands.x.iter().map(upload).collect::<Result<_>>()?;
    let params: Vec<Buffer> = operands.params.iter().map(upload).collect::<Result<_>>()?;
    let states: Vec<Buffer> = operands.states.iter().map(upload).collect::<Result<_>>()?;
    let lens = op.saved(&case.inputs, output);
    let saved: Vec<Buffer> = lens.iter().map(|s| poison(s.per_image * n + s.fixed)).collect::<Result<_>>()?;
    // A kernel must not read working memory that it did not write: none of it is written here.
    let scratch = || Buffer::<f32>::new(gpu, kernel.scratch(&case.inputs, output, n, precision));
    let training = matches!(run, Run::Train | Run::TrainForward);
    let key = Key::new(7);

    let in_place = delivery == Delivery::InPlace && op.in_place().forward && !(saves && op.keeps().inputs);
    let fresh = poison(output.len() * n)?;
    let y = if in_place { &x[0] } else { &fresh };
    let working = scratch()?;
    kernel.forward(&Forward {
        gpu,
        precision,
        training,
        key,
        n,
        inputs: case.inputs.iter().copied().collect(),
        x: pointers(&x).collect(),
        output,
        y: y.ptr(),
        params: pointers(&params).collect(),
        states: pointers(&states).collect(),
        saved: pointers(if saves { &saved } else { &[] }).collect(),
        scratch: working.ptr(),
    })?;
    let mut passes = Passes {
        y: download(y, output.len() * n)?,
        states: all(&states, &lengths(&operands.states))?,
        ..Passes::default()
    };
    if !matches!(run, Run::Train | Run::EvalBackward) {
        return Ok(passes);
    }

    let add = delivery == Delivery::Add;
    let before = |len: usize, i: usize| -> Vec<f32> {
        if add { narrow(&noise(key.with(i as u64), len)) } else { vec![f32::NAN; len] }
    };
    let over_dy = delivery == Delivery::InPlace && op.in_place().backward;
    let dy = upload(&operands.dy)?;
    let (x_lens, param_lens) = (lengths(&operands.x), lengths(&operands.params));
    let starts = |lens: &[usize], first: usize| -> Result<Vec<Buffer>> {
        lens.iter().enumerate().map(|(i, &len)| Buffer::of(gpu, &before(len, first + i))).collect()
    };
    let (dx, dparams) = (starts(&x_lens, 0)?, starts(&param_lens, 100)?);
    let grads = dx.iter().enumerate().map(|(i, dx)| match i {
        0 if over_dy => Grad::InPlace(dy.ptr()),
        _ if add => Grad::Add(dx.ptr()),
        _ => Grad::Write(dx.ptr()),
    });
    let keeps = op.keeps();
    let working = scratch()?;
    kernel.backward(&Backward {
        gpu,
        precision,
        training,
        key,
        n,
        inputs: case.inputs.iter().copied().collect(),
        x: pointers(if keeps.inputs { &x } else { &[] }).collect(),
        output,
        y: if keeps.output { y.ptr() } else { Ptr::NULL },
        dy: dy.ptr(),
        dx: grads.collect(),
        params: pointers(&params).collect(),
        dparams: dparams.iter().map(|buffer| ParamGrad { at: buffer.ptr(), add, needed: true }).collect(),
        saved: pointers(&saved).collect(),
        scratch: working.ptr(),
    })?;
    let minus_before = |mut values: Vec<f64>, i: usize| {
        if add {
            let before = before(values.len(), i);
            values.iter_mut().zip(before).for_each(|(value, before)| *value -= f64::from(before));
        }
        values
    };
    for (i, (dx, &len)) in dx.iter().zip(&x_lens).enumerate() {
        let from = if i == 0 && over_dy { &dy } else { dx };
        passes.dx.push(minus_before(download(from, len)?, i));
    }
    for (i, (dparam, &len)) in dparams.iter().zip(&param_lens).enumerate() {
        passes.dparams.push(minus_before(download(dparam, len)?, 100 + i));
    }
    Ok(passes)
}

fn pointers(buffers: &[Buffer]) -> impl Iterator<Item = Ptr> {
    buffers.iter().map(Buffer::ptr)
}

fn lengths(values: &[Vec<f64>]) -> Vec<usize> {
    values.iter().map(Vec::len).collect()
}

fn narrow(values: &[f64]) -> Vec<f32> {
    values.iter().map(|&value| value as f32).collect()
}

fn download(buffer: &Buffer, len: usize) -> Result<Vec<f64>> {
    let mut values = vec![0.0; len];
    buffer.download(0, &mut values)?;
    Ok(values.into_iter().map(f64::from).collect())
}

fn all(buffers: &[Buffer], lens: &[usize]) -> Result<Vec<Vec<f64>>> {
    buffers.iter().zip(lens).map(|(buffer, &len)| download(buffer, len)).collect()
}
