use super::*;
use crate::optim::{GroupRule, Optimizer, ParamEntry};
use crate::rng::Key;

fn config(momentum: f64, nesterov: bool, decay: Decay) -> SgdConfig {
    SgdConfig { momentum, nesterov, decay }
}

fn one_parameter(len: usize) -> ParamTable {
    ParamTable::new([ParamEntry::vector("w", 0, len)], len, &[]).unwrap()
}

fn normals(seed: u64, n: usize) -> Vec<f64> {
    let mut s = Key::new(seed).stream();
    (0..n).map(|_| s.normal()).collect()
}

/// The textbook, one element at a time, decay kept apart as it is written in the formulas.
fn textbook(c: SgdConfig, mut p: f64, grads: &[f64], lrs: &[f64]) -> f64 {
    let mut a = None;
    for (&g, &lr) in grads.iter().zip(lrs) {
        let mut g = g;
        match c.decay {
            Decay::Coupled(wd) => g += wd * p,
            Decay::Decoupled(wd) => p *= 1.0 - lr * wd,
        }
        let moment = a.map_or(g, |a: f64| c.momentum * a + g);
        a = Some(moment);
        p -= lr * if c.nesterov { g + c.momentum * moment } else { moment };
    }
    p
}

#[test]
fn two_steps_by_hand() {
    // p = 1, λ = .1, μ = .5, lr = .1. Step 1: g = 2 + .1 = 2.1 = a, p = .79.
    // Step 2: g = −1 + .079 = −.921, a = 1.05 − .921 = .129, p = .79 − .0129 = .7771.
    let mut sgd = Sgd::<f64>::new(config(0.5, false, Decay::Coupled(0.1)), one_parameter(1)).unwrap();
    let mut p = [1.0];
    sgd.step(&mut p, &[2.0], Rates::of(0.1)).unwrap();
    assert!((p[0] - 0.79).abs() < 1e-15);
    sgd.step(&mut p, &[-1.0], Rates::of(0.1)).unwrap();
    assert!((p[0] - 0.7771).abs() < 1e-15);
    assert_eq!(sgd.steps(), 2);
    assert!((sgd.moments()[0].1[0] - 0.129).abs() < 1e-15);
}

#[test]
fn every_variant_follows_the_textbook() {
    let (n, steps) = (5, 20);
    for momentum in [0.0, 0.9] {
        for nesterov in [false, momentum > 0.0] {
            for decay in [Decay::Coupled(0.03), Decay::Decoupled(0.03), Decay::Coupled(0.0)] {
                let c = config(momentum, nesterov, decay);
                let start = normals(1, n);
                let grads = normals(2, n * steps);
                let lrs: Vec<f64> = (0..steps).map(|i| 0.1 / (1.0 + i as f64)).collect();
                let mut sgd = Sgd::<f64>::new(c, one_parameter(n)).unwrap();
                let mut values = start.clone();
                for (g, &lr) in grads.chunks(n).zip(&lrs) {
                    sgd.step(&mut values, g, Rates::of(lr)).unwrap();
                }
                for i in 0..n {
                    let own: Vec<f64> = grads.iter().skip(i).step_by(n).copied().collect();
                    assert!((values[i] - textbook(c, start[i], &own, &lrs)).abs() < 1e-14, "{c:?}");
                }
            }
        }
    }
}

/// A constant gradient drives the moment to g/(1 − μ): momentum and Nesterov end at the same speed.
#[test]
fn the_moment_converges_to_the_sum_of_its_series() {
    for nesterov in [false, true] {
        let mut sgd = Sgd::<f64>::new(config(0.8, nesterov, Decay::Coupled(0.0)), one_parameter(1)).unwrap();
        let mut p = [0.0];
        for _ in 0..200 {
            sgd.step(&mut p, &[3.0], Rates::of(0.01)).unwrap();
        }
        let before = p[0];
        sgd.step(&mut p, &[3.0], Rates::of(0.01)).unwrap();
        assert!((p[0] - before + 0.01 * 3.0 / (1.0 - 0.8)).abs() < 1e-12);
    }
}

/// On a quadratic both forms of momentum reach the minimum; coupled decay moves it to h·m/(h + λ).
#[test]
fn a_quadratic_is_minimised() {
    for (wd, nesterov) in [(0.0, false), (0.0, true), (0.25, false), (0.25, true)] {
        let mut sgd = Sgd::<f64>::new(config(0.9, nesterov, Decay::Coupled(wd)), one_parameter(2)).unwrap();
        let (h, m) = ([1.0, 4.0], [3.0, -2.0]);
        let mut p = [10.0, 10.0];
        for _ in 0..1000 {
            let g: Vec<f64> = (0..2).map(|i| h[i] * (p[i] - m[i])).collect();
            sgd.step(&mut p, &g, Rates::of(0.05)).unwrap();
        }
        for i in 0..2 {
            assert!((p[i] - h[i] * m[i] / (h[i] + wd)).abs() < 1e-9, "{p:?}");
        }
    }
}

/// In f32 a decay of lr·λ = 1e-8 is below the resolution of `1 − lr·λ`; together with the step it still counts.
#[test]
fn small_decoupled_decay_survives_f32() {
    let mut sgd = Sgd::<f32>::new(config(0.9, false, Decay::Decoupled(1e-4)), one_parameter(1)).unwrap();
    let mut p = [0.0_f32];
    let mut exact = 0.0_f64;
    let (mut a, lr) = (0.0, 1e-3);
    for _ in 0..300 {
        sgd.step(&mut p, &[-1.0], Rates::of(lr)).unwrap();
        a = 0.9 * a - 1.0;
        exact = exact * (1.0 - lr * 1e-4) - lr * a;
    }
    assert!((f64::from(p[0]) / exact - 1.0).abs() < 1e-6, "{} {exact}", p[0]);
}

#[test]
fn groups_and_unused_parameters() {
    let entry = |name, offset, len, used| ParamEntry { used, ..ParamEntry::vector(name, offset, len) };
    let entries = [entry("w", 0, 2, true), entry("dead", 2, 2, false), entry("head.bias", 5, 1, true)];
    let rules = [GroupRule { pattern: "*.bias".into(), lr_scale: 10.0, weight_decay: Some(0.0) }];
    for decay in [Decay::Coupled(0.5), Decay::Decoupled(0.5)] {
        for momentum in [0.0, 0.9] {
            let table = ParamTable::new(entries, 6, &rules).unwrap();
            let mut sgd = Sgd::<f64>::new(config(momentum, false, decay), table).unwrap();
            let mut p = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0];
            sgd.step(&mut p, &[1.0; 6], Rates::of(0.01)).unwrap();
            let expected = [1.0 - 0.01 * 1.5, 2.0 - 0.01 * 2.0, 3.0, 4.0, 5.0, 6.0 - 0.1];
            assert!(p.iter().zip(expected).all(|(a, b)| (a - b).abs() < 1e-15), "{p:?}");
        }
    }
}

/// Cutting and threads change nothing: each element is updated as if it were alone.
#[test]
fn bits_do_not_depend_on_threads_or_place() {
    let n = 150_000;
    let entries = [(0, 70_001, "a"), (70_001, 3, "b.bias"), (70_010, 70_000, "c")];
    let rules = [GroupRule { pattern: "*.bias".into(), lr_scale: 2.0, weight_decay: None }];
    let to_f32 = |v: Vec<f64>| v.into_iter().map(|x| x as f32).collect::<Vec<_>>();
    let (start, grads) = (to_f32(normals(3, n)), to_f32(normals(4, n)));
    let run = |threads| {
        let table = entries.map(|(offset, len, name)| ParamEntry::vector(name, offset, len));
        let table = ParamTable::new(table, n, &rules).unwrap();
        let mut sgd = Sgd::<f32>::new(config(0.9, true, Decay::Coupled(1e-3)), table).unwrap();
        let mut values = start.clone();
        let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
        pool.install(|| (0..3).for_each(|_| sgd.step(&mut values, &grads, Rates::of(0.1)).unwrap()));
        values
    };
    let values = run(1);
    assert!(run(2) == values && run(5) == values);
    for i in [0, 16_384, 69_999, 70_000, 70_010, 140_009] {
        let mut alone = [start[i]];
        let mut sgd = Sgd::<f32>::new(config(0.9, true, Decay::Coupled(1e-3)), one_parameter(1)).unwrap();
        (0..3).for_each(|_| sgd.step(&mut alone, &grads[i..=i], Rates::of(0.1)).unwrap());
        assert_eq!(alone[0].to_bits(), values[i].to_bits(), "element {i}");
    }
    assert_eq!(values[70_004..70_010], start[70_004..70_010]);
}

#[test]
fn a_restored_optimizer_goes_on_bit_for_bit() {
    let c = config(0.9, false, Decay::Coupled(1e-2));
    let mut sgd = Sgd::<f64>::new(c, one_parameter(4)).unwrap();
    let mut values = normals(5, 4);
    sgd.step(&mut values, &normals(6, 4), Rates::of(0.1)).unwrap();
    let saved: Vec<(String, Vec<f64>)> =
        sgd.moments().into_iter().map(|(name, m)| (name.to_string(), m.to_vec())).collect();
    let mut again = Sgd::<f64>::new(c, one_parameter(4)).unwrap();
    let views: Vec<(&str, &[f64])> = saved.iter().map(|(name, m)| (name.as_str(), m.as_slice())).collect();
    again.restore(sgd.steps(), &views).unwrap();
    let mut copy = values.clone();
    sgd.step(&mut values, &normals(7, 4), Rates::of(0.1)).unwrap();
    again.step(&mut copy, &normals(7, 4), Rates::of(0.1)).unwrap();
    assert_eq!(values, copy);
    assert_eq!(again.steps(), 2);
}

#[test]
fn a_foreign_state_is_refused_and_changes_nothing() {
    let mut sgd = Sgd::<f32>::new(config(0.9, false, Decay::Coupled(0.0)), one_parameter(2)).unwrap();
    sgd.step(&mut [0.0, 0.0], &[1.0, 2.0], Rates::of(0.1)).unwrap();
    let (short, good) = ([0.0_f32; 1], [0.0_f32; 2]);
    for moments in [vec![], vec![("momentum", &short[..])], vec![("variance", &good[..])]] {
        assert_eq!(sgd.restore(9, &moments).unwrap_err().kind(), ErrorKind::Format);
    }
    assert_eq!((sgd.steps(), sgd.moments()[0].1), (1, &[1.0, 2.0][..]));
    let mut plain = Sgd::<f32>::new(config(0.0, false, Decay::Coupled(0.0)), one_parameter(2)).unwrap();
    assert!(plain.restore(1, &[("momentum", &good)]).is_err());
    plain.restore(3, &[]).unwrap();
    assert_eq!(plain.steps(), 3);
}

#[test]
fn wrong_arguments_are_errors() {
    for c in [
        config(1.0, false, Decay::Coupled(0.0)),
        config(-0.1, false, Decay::Coupled(0.0)),
        config(f64::NAN, false, Decay::Coupled(0.0)),
        config(0.0, true, Decay::Coupled(0.0)),
        config(0.9, false, Decay::Decoupled(-1.0)),
        config(0.9, false, Decay::Coupled(f64::INFINITY)),
    ] {
        assert_eq!(Sgd::<f32>::new(c, one_parameter(1)).unwrap_err().kind(), ErrorKind::Usage, "{c:?}");
    }
    let mut sgd = Sgd::<f32>::new(config(0.9, false, Decay::Coupled(0.0)), one_parameter(2)).unwrap();
    let mut p = [1.0, 2.0];
    assert_eq!(sgd.step(&mut p[..1], &[1.0; 2], Rates::of(0.1)).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(sgd.step(&mut p, &[1.0; 3], Rates::of(0.1)).unwrap_err().kind(), ErrorKind::Shape);
    assert_eq!(sgd.step(&mut p, &[1.0; 2], Rates::of(f64::NAN)).unwrap_err().kind(), ErrorKind::Usage);
    assert_eq!((p, sgd.steps()), ([1.0, 2.0], 0));
}
