//! What holds for every optimizer, and Ranger's published trajectory.

use super::*;
use crate::ErrorKind;
use crate::rng::Key;

fn one_parameter(len: usize) -> ParamTable {
    ParamTable::new([ParamEntry::vector("w", 0, len)], len, &[]).unwrap()
}

fn normals(seed: u64, n: usize) -> Vec<f64> {
    let mut s = Key::new(seed).stream();
    (0..n).map(|_| s.normal()).collect()
}

/// Makes an optimizer for a table.
type Make<E> = fn(ParamTable) -> Box<dyn Optimizer<E>>;

/// Every optimizer, in a form in which all its terms count.
fn all<E: Real>() -> Vec<(&'static str, Make<E>)> {
    vec![
        ("sgd", |table| {
            let config = SgdConfig { momentum: 0.9, nesterov: true, decay: Decay::Coupled(0.1) };
            Box::new(Sgd::new(config, table).unwrap())
        }),
        ("adam", |table| Box::new(Adam::new(AdamConfig::fastai(0.1), table).unwrap())),
        ("adam, coupled", |table| {
            let config = AdamConfig { decay: Decay::Coupled(0.1), ..AdamConfig::adamw(0.0) };
            Box::new(Adam::new(config, table).unwrap())
        }),
        ("sadam", |table| Box::new(Adam::new(AdamConfig { beta: 50.0, ..AdamConfig::radam(0.1) }, table).unwrap())),
        ("rmsprop", |table| {
            let config = RmsPropConfig { momentum: 0.9, decay: Decay::Decoupled(0.1), ..RmsPropConfig::DEFAULT };
            Box::new(RmsProp::new(config, table).unwrap())
        }),
        ("lamb", |table| Box::new(Lamb::new(AdamConfig::fastai(0.1), table).unwrap())),
        ("muon", |table| Box::new(Muon::new(MuonConfig::DEFAULT, table).unwrap())),
        ("ranger", |table| {
            let radam = Adam::new(AdamConfig::ranger(0.1), table).unwrap();
            Box::new(Lookahead::new(Box::new(radam), 6, 0.5).unwrap())
        }),
    ]
}

/// p0 = [1, −2, .5], g_t = [.1t, −.05, sin t], lr 3e-3.
#[test]
fn ranger_follows_the_golden_trajectory() {
    let run = |weight_decay, steps: u32| {
        let radam = Adam::<f64>::new(AdamConfig::ranger(weight_decay), one_parameter(3)).unwrap();
        let mut ranger = Lookahead::new(Box::new(radam), 6, 0.5).unwrap();
        let mut p = [1.0, -2.0, 0.5];
        for t in (1..=steps).map(f64::from) {
            ranger.step(&mut p, &[0.1 * t, -0.05, t.sin()], Rates::of(3e-3)).unwrap();
        }
        p
    };
    for (weight_decay, steps, golden) in [
        (0.0, 6, [0.998353930612, -1.999502483657, 0.496163820473]),
        (0.0, 14, [0.995961861967, -1.996986666242, 0.495963746610]),
        (0.01, 14, [0.995722427811, -1.996507023223, 0.495844814088]),
    ] {
        let p = run(weight_decay, steps);
        // The digits end at 1e-12.
        assert!(p.iter().zip(golden).all(|(a, b)| (a - b).abs() < 6e-13), "{weight_decay} {steps}: {p:?} {golden:?}");
    }
}

/// RAdam's first adaptive step is the sixth: r = 5.94138, v = .0816792.
#[test]
fn radam_rectifies_from_the_sixth_step_on() {
    let config = AdamConfig { momentum: 0.0, eps: 0.0, ..AdamConfig::radam(0.0) };
    let mut radam = Adam::<f64>::new(config, one_parameter(1)).unwrap();
    let mut moved = Vec::new();
    for _ in 0..6 {
        let mut p = [0.0];
        radam.step(&mut p, &[3.0], Rates::of(1.0)).unwrap();
        moved.push(-p[0]);
    }
    assert!(moved[..5].iter().all(|step| (step - 3.0).abs() < 1e-14), "{moved:?}");
    assert!((moved[5] - 0.0816792).abs() < 5e-8, "{moved:?}");
}

/// The textbook, one element at a time.
fn adam_textbook(c: AdamConfig, mut p: f64, grads: &[f64], rates: &[Rates]) -> f64 {
    let (mut m, mut v) = (0.0, 0.0);
    for (t, (&g, rates)) in (1..).zip(grads.iter().zip(rates)) {
        let (lr, beta1) = (rates.lr, rates.momentum.unwrap_or(c.momentum));
        let mut g = g;
        match c.decay {
            Decay::Coupled(wd) => g += wd * p,
            Decay::Decoupled(wd) => p *= 1.0 - lr * wd,
        }
        m = beta1 * m + (1.0 - beta1) * g;
        v = c.sqr_momentum * v + (1.0 - c.sqr_momentum) * g * g;
        let (debias1, debias2) = (1.0 - beta1.powi(t), 1.0 - c.sqr_momentum.powi(t));
        let mut d = match c.eps_before_debias {
            true => (v.sqrt() + c.eps) / debias2.sqrt(),
            false => (v / debias2).sqrt() + c.eps,
        };
        if c.beta > 0.0 && c.beta * d <= 20.0 {
            d = (1.0 + (c.beta * d).exp()).ln() / c.beta;
        }
        let end = 2.0 / (1.0 - c.sqr_momentum) - 1.0;
        let r = end - 2.0 * f64::from(t) * c.sqr_momentum.powi(t) / debias2;
        p -= lr / debias1
            * m
            * match c.rectified {
                false => 1.0 / d,
                true if r > 5.0 => ((r - 4.0) * (r - 2.0) * end / ((end - 4.0) * (end - 2.0) * r)).sqrt() / d,
                true => 1.0,
            };
    }
    p
}

#[test]
fn every_adam_follows_the_textbook() {
    let (n, steps) = (5, 20);
    for base in [AdamConfig::fastai(0.03), AdamConfig::adamw(0.03), AdamConfig::radam(0.03), AdamConfig::ranger(0.0)] {
        for eps_before_debias in [false, true] {
            for beta in [0.0, 3.0] {
                for decay in [base.decay, Decay::Coupled(0.03)] {
                    let c = AdamConfig { eps: 0.1, eps_before_debias, beta, decay, ..base };
                    let start = normals(1, n);
                    let grads = normals(2, n * steps);
                    let momentum = |i: usize| (i > 10).then_some(0.8);
                    let rates: Vec<Rates> = (0..steps)
                        .map(|i| Rates { momentum: momentum(i), ..Rates::of(0.1 / (1.0 + i as f64)) })
                        .collect();
                    let mut adam = Adam::<f64>::new(c, one_parameter(n)).unwrap();
                    let mut values = start.clone();
                    for (g, &rates) in grads.chunks(n).zip(&rates) {
                        adam.step(&mut values, g, rates).unwrap();
                    }
                    for i in 0..n {
                        let own: Vec<f64> = grads.iter().skip(i).step_by(n).copied().collect();
                        assert!((values[i] - adam_textbook(c, start[i], &own, &rates)).abs() < 1e-13, "{c:?}");
                    }
                }
            }
        }
    }
}

/// Cutting and threads change nothing, unused parameters stay, and groups have their own rates.
#[test]
fn bits_do_not_depend_on_threads() {
    let n = 150_000;
    let entries = [(0, 70_001, "a"), (70_001, 3, "b.bias"), (70_010, 70_000, "c")];
    let rules = [
        GroupRule { pattern: "*.bias".into(), lr_scale: 2.0, weight_decay: Some(0.5) },
        GroupRule { pattern: "frozen".into(), lr_scale: 0.0, weight_decay: None },
    ];
    let to_f32 = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let (start, grads) = (to_f32(normals(3, n)), to_f32(normals(4, n)));
    for (name, make) in all::<f32>() {
        let run = |threads| {
            let table = entries.map(|(offset, len, name)| ParamEntry::vector(name, offset, len));
            let frozen = [ParamEntry { matrix: Some((25, 40)), ..ParamEntry::vector("frozen", 145_000, 1000) }];
            let table = ParamTable::new(table.into_iter().chain(frozen), n, &rules).unwrap();
            let mut optimizer = make(table);
            let mut values = start.clone();
            let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
            pool.install(|| (0..7).for_each(|_| optimizer.step(&mut values, &grads, Rates::of(0.01)).unwrap()));
            values
        };
        let values = run(1);
        assert!(run(2) == values && run(5) == values, "{name}");
        assert_eq!(values[70_004..70_010], start[70_004..70_010], "{name}: between parameters");
        assert_eq!(values[140_010..], start[140_010..], "{name}: frozen");
        assert!(values[..70_004].iter().zip(&start).filter(|(a, b)| a == b).count() < 100, "{name}");
    }
}

#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    for (name, make) in all::<f64>() {
        // Between two of Lookahead's syncs, and right after one.
        for before in [1, 6, 8] {
            let mut optimizer = make(one_parameter(4));
            let mut values = normals(5, 4);
            for i in 0..before {
                optimizer.step(&mut values, &normals(6 + i, 4), Rates::of(0.1)).unwrap();
            }
            // A file hands the moments out in an order of its own.
            let saved: Vec<(String, Vec<f64>)> =
                optimizer.moments().into_iter().rev().map(|(name, m)| (name.to_string(), m.to_vec())).collect();
            let mut again = make(one_parameter(4));
            let views: Vec<(&str, &[f64])> = saved.iter().map(|(name, m)| (name.as_str(), m.as_slice())).collect();
            again.restore(optimizer.steps(), &views).unwrap();
            let mut copy = values.clone();
            for i in 0..8 {
                optimizer.step(&mut values, &normals(30 + i, 4), Rates::of(0.1)).unwrap();
                again.step(&mut copy, &normals(30 + i, 4), Rates::of(0.1)).unwrap();
            }
            assert_eq!(values, copy, "{name}");
            assert_eq!(again.steps(), before + 8);
        }
    }
}

#[test]
fn a_foreign_state_and_wrong_arguments_change_nothing() {
    for (name, make) in all::<f32>() {
        let mut optimizer = make(one_parameter(2));
        let mut values = [1.0, 2.0];
        optimizer.step(&mut values, &[1.0, 2.0], Rates::of(0.1)).unwrap();
        let saved = |optimizer: &dyn Optimizer<f32>| -> Vec<Vec<f32>> {
            optimizer.moments().iter().map(|(_, m)| m.to_vec()).collect()
        };
        let (before, at) = (saved(&*optimizer), values);
        let short = [0.0_f32; 1];
        assert_eq!(optimizer.restore(9, &[]).unwrap_err().kind(), ErrorKind::Format, "{name}");
        assert_eq!(optimizer.restore(9, &[("momentum", &short)]).unwrap_err().kind(), ErrorKind::Format, "{name}");
        let mut kind =
            |values: &mut [f32], grads: &[f32], rates| optimizer.step(values, grads, rates).unwrap_err().kind();
        assert_eq!(kind(&mut values[..1], &[1.0; 2], Rates::of(0.1)), ErrorKind::Shape, "{name}");
        assert_eq!(kind(&mut values, &[1.0; 3], Rates::of(0.1)), ErrorKind::Shape, "{name}");
        for rates in [
            Rates::of(f64::NAN),
            Rates::of(-1.0),
            Rates { momentum: Some(1.0), ..Rates::of(0.1) },
            Rates { momentum: Some(f64::NAN), ..Rates::of(0.1) },
        ] {
            assert_eq!(kind(&mut values, &[1.0; 2], rates), ErrorKind::Usage, "{name}");
        }
        assert_eq!((values, saved(&*optimizer), optimizer.steps()), (at, before, 1), "{name}");
    }
}

#[test]
fn wrong_settings_are_errors() {
    let good = AdamConfig::fastai(0.0);
    for config in [
        AdamConfig { momentum: 1.0, ..good },
        AdamConfig { sqr_momentum: f64::NAN, ..good },
        AdamConfig { eps: -1e-8, ..good },
        AdamConfig { beta: f64::INFINITY, ..good },
        AdamConfig { decay: Decay::Coupled(-1.0), ..good },
    ] {
        assert_eq!(Adam::<f32>::new(config, one_parameter(1)).unwrap_err().kind(), ErrorKind::Usage, "{config:?}");
    }
    for (k, alpha) in [(0, 0.5), (6, 0.0), (6, 1.5), (6, f64::NAN)] {
        let adam = Box::new(Adam::<f32>::new(good, one_parameter(1)).unwrap());
        assert!(Lookahead::new(adam, k, alpha).is_err_and(|e| e.kind() == ErrorKind::Usage));
    }
}
