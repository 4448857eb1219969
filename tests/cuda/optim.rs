//! Optimizers on interpreted PTX: the same numbers as on the CPU, to the bit where sums have one order.

use handgrad::backend::cuda::{Buffer, Gpu};
use handgrad::backend::{Backend, Cpu, Cuda};
use handgrad::engine::Engine;
use handgrad::models::{self, ModelOptions};
use handgrad::optim::*;
use handgrad::rng::Key;
use ndarray::{Array2, Array4};

use super::double::on_double;

pub const LEN: usize = 9_216;

fn table() -> ParamTable {
    let entries = [
        ParamEntry::vector("a.weight", 0, 5_001),
        ParamEntry { norm_or_bias: true, ..ParamEntry::vector("a.bias", 5_008, 33) },
        ParamEntry { frozen: true, ..ParamEntry::vector("b.weight", 5_056, 100) },
        ParamEntry { used: false, ..ParamEntry::vector("c.weight", 5_168, 100) },
        ParamEntry::vector("d.weight", 5_280, 3_920),
    ];
    let rules = [GroupRule { pattern: "d.*".into(), lr_scale: 0.5, weight_decay: Some(0.3) }];
    ParamTable::new(entries, LEN, &rules).unwrap().decay_norm_and_bias(false)
}

/// Matrices of either shape beside what Adam steps: one spans several pieces, one is frozen.
fn matrices() -> ParamTable {
    let matrix = |name, offset, (inputs, outputs)| ParamEntry {
        matrix: Some((inputs, outputs)),
        ..ParamEntry::vector(name, offset, inputs * outputs)
    };
    let entries = [
        matrix("in.weight", 0, (10, 10)),
        matrix("wide.weight", 112, (20, 33)),
        ParamEntry { norm_or_bias: true, ..ParamEntry::vector("wide.bias", 784, 33) },
        matrix("tall.weight", 832, (90, 61)),
        ParamEntry { frozen: true, ..matrix("still.weight", 6_336, (10, 10)) },
        matrix("d.weight", 6_448, (32, 24)),
        matrix("out.weight", 7_472, (30, 20)),
    ];
    let rules = [GroupRule { pattern: "d.*".into(), lr_scale: 0.5, weight_decay: Some(0.3) }];
    ParamTable::new(entries, LEN, &rules).unwrap().decay_norm_and_bias(false)
}

pub fn noise(seed: u64) -> Vec<f32> {
    let mut stream = Key::new(seed).stream();
    (0..LEN).map(|_| stream.normal() as f32).collect()
}

fn close(what: &str, cpu: &[f32], gpu: &[f32], tolerance: f32) {
    assert_eq!(cpu.len(), gpu.len(), "{what}");
    for (i, (cpu, gpu)) in cpu.iter().zip(gpu).enumerate() {
        let fits = if tolerance == 0.0 {
            cpu.to_bits() == gpu.to_bits()
        } else {
            (cpu - gpu).abs() <= tolerance * cpu.abs().max(0.01)
        };
        assert!(fits, "{what}[{i}]: {cpu} on the CPU, {gpu} on the device");
    }
}

/// Seven steps on both, and one more of each after they exchanged their moments.
fn compare(&Stepped { what, ref make, clip, tolerance }: &Stepped) {
    let gpu = Gpu::current().unwrap();
    let (mut cpu, mut device) = (make(), make());
    let (mut values, mut states) = (noise(0), noise(1)[..40].to_vec());
    let (mut values_there, mut states_there) = (Buffer::of(gpu, &values).unwrap(), Buffer::of(gpu, &states).unwrap());
    for step in 0..8 {
        if step == 7 {
            device.fetch().unwrap();
            let (steps, moments) =
                (device.steps(), device.moments().into_iter().map(|(name, m)| (name, m.to_vec())).collect::<Vec<_>>());
            let moments: Vec<(&str, &[f32])> = moments.iter().map(|(name, m)| (*name, &m[..])).collect();
            device = make();
            device.restore(steps, &moments).unwrap();
        }
        let mut grads = noise(10 + step);
        let rates = Rates { momentum: None, ..Rates::of(0.02 * (1.0 + step as f64)) };
        let there = Buffer::of(gpu, &grads).unwrap();
        let on = OnDevice { gpu, values: values_there.ptr(), grads: there.ptr() };
        if let Some(max_norm) = clip {
            clip_grad_norm(&mut grads, cpu.table(), max_norm).unwrap();
            assert!(device.clip_on_device(on, max_norm).unwrap());
        }
        cpu.step(&mut values, &grads, rates).unwrap();
        cpu.average_states(&mut states).unwrap();
        assert!(device.step_on_device(on, rates).unwrap(), "{what} has no kernel");
        device.average_states_on_device(gpu, states_there.ptr(), states.len()).unwrap();
        states.iter_mut().for_each(|state| *state += 0.25);
        let mut moved = vec![0.0; states.len()];
        states_there.download(0, &mut moved).unwrap();
        moved.iter_mut().for_each(|state| *state += 0.25);
        states_there.upload(0, &moved).unwrap();
    }
    let mut downloaded = vec![0.0; LEN];
    values_there.download(0, &mut downloaded).unwrap();
    assert_ne!(values, noise(0), "{what} moves nothing");
    close(what, &values, &downloaded, tolerance);
    let mut downloaded = vec![0.0; states.len()];
    states_there.download(0, &mut downloaded).unwrap();
    close(&format!("{what}: states"), &states, &downloaded, tolerance);
    device.fetch().unwrap();
    assert_eq!(cpu.steps(), device.steps());
    for ((name, cpu), (_, device)) in cpu.moments().into_iter().zip(device.moments()) {
        close(&format!("{what}: {name}"), cpu, device, tolerance);
    }
    // A step of the host goes on with the device's moments.
    let mut values = noise(0);
    device.step(&mut values, &noise(30), Rates::of(0.1)).unwrap();
    values_there.upload(0, &noise(0)).unwrap();
    let there = Buffer::of(gpu, &noise(30)).unwrap();
    let mut cpu_values = noise(0);
    cpu.step(&mut cpu_values, &noise(30), Rates::of(0.1)).unwrap();
    close(&format!("{what}: back on the host"), &cpu_values, &values, tolerance);
    drop(there);
}

/// An optimizer, the norm that its gradients are clipped to, and how near it has to come to the CPU: 0 for the same bits.
pub struct Stepped {
    pub what: &'static str,
    pub make: Box<dyn Fn() -> Box<dyn Optimizer<f32>>>,
    pub clip: Option<f64>,
    tolerance: f32,
}

fn stepped(
    what: &'static str,
    clip: Option<f64>,
    tolerance: f32,
    make: impl Fn() -> Box<dyn Optimizer<f32>> + 'static,
) -> Stepped {
    Stepped { what, make: Box::new(make), clip, tolerance }
}

/// Every kernel of optimizers in use.
pub fn optimizers() -> Vec<Stepped> {
    let sgd = |momentum, nesterov, decay| {
        move || Box::new(Sgd::new(SgdConfig { momentum, nesterov, decay }, table()).unwrap()) as Box<dyn Optimizer<f32>>
    };
    let adam = |config: AdamConfig| move || Box::new(Adam::new(config, table()).unwrap()) as Box<dyn Optimizer<f32>>;
    let rmsprop = |momentum, divide_first| {
        move || {
            let config =
                RmsPropConfig { momentum, divide_first, decay: Decay::Decoupled(0.1), ..RmsPropConfig::DEFAULT };
            Box::new(RmsProp::new(config, table()).unwrap()) as Box<dyn Optimizer<f32>>
        }
    };
    let lamb = || Box::new(Lamb::new(AdamConfig::fastai(0.1), table()).unwrap()) as Box<dyn Optimizer<f32>>;
    let muon = |config: MuonConfig| move || Box::new(Muon::new(config, matrices()).unwrap()) as Box<dyn Optimizer<f32>>;
    let ranger = || {
        let fast = Box::new(Adam::new(AdamConfig::ranger(0.1), table()).unwrap());
        Box::new(Lookahead::new(fast, 3, 0.5).unwrap().with_states(40)) as Box<dyn Optimizer<f32>>
    };
    vec![
        stepped("sgd", None, 0.0, sgd(0.0, false, Decay::Coupled(0.1))),
        stepped("sgd with momentum", None, 0.0, sgd(0.9, false, Decay::Decoupled(0.1))),
        stepped("nesterov", None, 0.0, sgd(0.9, true, Decay::Coupled(0.1))),
        stepped("nesterov, clipped", Some(3.0), 1e-5, sgd(0.9, true, Decay::Coupled(0.1))),
        stepped("adam", None, 0.0, adam(AdamConfig { decay: Decay::Coupled(0.1), ..AdamConfig::fastai(0.0) })),
        stepped("adamw", None, 0.0, adam(AdamConfig::adamw(0.1))),
        stepped("radam", None, 0.0, adam(AdamConfig { eps_before_debias: true, ..AdamConfig::radam(0.1) })),
        stepped("sadam", None, 1e-5, adam(AdamConfig { beta: 50.0, ..AdamConfig::radam(0.1) })),
        stepped("rmsprop", None, 0.0, rmsprop(0.0, false)),
        stepped("rmsprop with momentum", None, 0.0, rmsprop(0.9, false)),
        stepped("rmsprop, divided first", None, 0.0, rmsprop(0.9, true)),
        stepped("lamb", None, 1e-5, lamb),
        stepped("muon", None, 1e-5, muon(MuonConfig::DEFAULT)),
        stepped(
            "muon, of Adam's size, clipped",
            Some(3.0),
            1e-5,
            muon(MuonConfig { nesterov: false, match_rms: true, ns_steps: 3, ..MuonConfig::DEFAULT }),
        ),
        stepped("ranger", None, 0.0, ranger),
        stepped("ranger, clipped", Some(3.0), 1e-5, ranger),
    ]
}

#[test]
fn every_optimizer_steps_as_on_the_cpu() {
    on_double("optim::every_optimizer_steps_as_on_the_cpu", || optimizers().iter().for_each(compare));
}

/// Steps of a net; parameters, states and averages at the end.
pub fn train<B: Backend<Elem = f32>>(keep: bool) -> Vec<Vec<f32>> {
    let graph = models::build(
        "convbnnet",
        &ModelOptions { size: 8, published: false, norm_eps: Some(1e-3), ..Default::default() },
    )
    .unwrap();
    let mut engine = Engine::<B>::new(&graph, 4, 1).unwrap();
    engine.keep_on_device(keep);
    let table = ParamTable::of(engine.params(), &[]).unwrap();
    let mut optimizer: Box<dyn Optimizer<f32>> = Box::new(Adam::new(AdamConfig::ranger(0.01), table).unwrap());
    optimizer = Box::new(Lookahead::new(optimizer, 2, 0.5).unwrap());
    let mut ema = Ema::new(0.9, engine.params()).unwrap();
    let mut stream = Key::new(3).stream();
    for step in 0..4 {
        let images = Array4::from_shape_simple_fn((4, 8, 8, 3), || stream.normal() as f32);
        let targets = Array2::from_shape_fn((4, 10), |(i, j)| f32::from((i + step) % 10 == j));
        engine.train_step(images.view(), targets.view()).unwrap();
        let update = Update {
            optimizer: &mut *optimizer,
            rates: Rates::of(0.01),
            clip_norm: Some(1.0),
            ema: Some(&mut ema),
            last: step == 3,
        };
        engine.update(update).unwrap();
    }
    engine.fetch().unwrap();
    optimizer.fetch().unwrap();
    ema.fetch().unwrap();
    let mut seen = vec![engine.params().values().to_vec(), engine.params().states().to_vec()];
    seen.extend(optimizer.moments().into_iter().map(|(_, moment)| moment.to_vec()));
    seen.extend([ema.averages().0.to_vec(), ema.averages().1.to_vec()]);
    // Averaged weights evaluate as those that the engine trains.
    ema.swap(engine.params_mut()).unwrap();
    let images = Array4::from_elem((4, 8, 8, 3), 0.5);
    let targets = Array2::from_elem((4, 10), 0.1);
    engine.evaluate(images.view(), targets.view()).unwrap();
    seen.push(engine.eval_scores(4).iter().copied().collect());
    seen
}

#[test]
fn a_net_whose_parameters_stay_on_the_device_trains_as_on_the_cpu() {
    on_double("optim::a_net_whose_parameters_stay_on_the_device_trains_as_on_the_cpu", || {
        let (cpu, kept, copied) = (train::<Cpu>(false), train::<Cuda>(true), train::<Cuda>(false));
        assert_eq!(kept, copied, "what stays on the device is what comes back");
        for (i, (cpu, kept)) in cpu.iter().zip(&kept).enumerate() {
            let scale = cpu.iter().fold(0.0f32, |most, v| most.max(v.abs()));
            for (cpu, kept) in cpu.iter().zip(kept) {
                assert!((cpu - kept).abs() <= 2e-3 * scale, "{i}: {cpu} on the CPU, {kept} on the device, of {scale}");
            }
        }
    });
}
