use super::*;

fn rates(schedule: Schedule, peak: f64, steps_per_epoch: u64, epochs: u64) -> Vec<f64> {
    let total_steps = steps_per_epoch * epochs;
    (0..total_steps).map(|step| schedule.rates(peak, Position { step, steps_per_epoch, total_steps }).lr).collect()
}

/// E1's scheduler told as what it is, a machine with a state: one answer before the first batch and one after
/// each batch; `i` counts batches of the whole fit.
fn published(peak: f64, batches: u64, cycle_len: u64, cycle_mult: u64, steps: u64) -> Vec<f64> {
    let (mut nb, mut c) = (batches * cycle_len, 0);
    let mut answers = Vec::new();
    for i in 0..steps {
        if (i as f64) < nb as f64 / 20.0 {
            c += 1;
            answers.push(peak / 100.0);
            continue;
        }
        answers.push(peak / 2.0 * (1.0 + (PI * c as f64 / nb as f64).cos()));
        c += 1;
        if c == nb {
            c = 0;
            nb *= cycle_mult;
        }
    }
    answers
}

#[test]
fn sgdr_equals_the_published_state_machine() {
    for (batches, cycle_len, cycle_mult, epochs) in
        [(196, 1, 1, 4), (196, 1, 2, 7), (196, 4, 1, 32), (20, 1, 1, 3), (21, 1, 3, 13), (2, 1, 2, 7), (7, 3, 2, 9)]
    {
        let schedule = Schedule::Sgdr { cycle_len: cycle_len as u32, cycle_mult: cycle_mult as u32, warm_start: true };
        let ours = rates(schedule, 0.3, batches, epochs);
        assert_eq!(ours, published(0.3, batches, cycle_len, cycle_mult, batches * epochs));
    }
}

#[test]
fn sgdr_by_hand() {
    let ours = rates(Schedule::Sgdr { cycle_len: 1, cycle_mult: 2, warm_start: true }, 1.0, 196, 3);
    assert!(ours[..10].iter().all(|&lr| lr == 0.01));
    assert!((ours[10] - 0.993_590_891_707).abs() < 1e-12, "{}", ours[10]); // (1 + cos(10π/196))/2
    assert!((ours[98] - 0.5).abs() < 1e-15);
    assert!(ours[195] > 0.0 && ours[195] < 1e-4);
    assert_eq!(ours[196], 1.0); // the second cycle has no warm start
    assert!((ours[392] - 0.5).abs() < 1e-15);
    let cold = rates(Schedule::Sgdr { cycle_len: 1, cycle_mult: 2, warm_start: false }, 1.0, 196, 3);
    assert_eq!(cold[0], 1.0);
    assert_eq!(cold[10..], ours[10..]);
}

#[test]
fn constant_and_step() {
    assert!(rates(Schedule::Constant, 0.1, 3, 2).iter().all(|&lr| lr == 0.1));
    let ours = rates(Schedule::Step { every_epochs: 2, gamma: 0.5 }, 1.0, 3, 5);
    assert_eq!(ours, [[1.0; 6].as_slice(), &[0.5; 6], &[0.25; 3]].concat());
}

#[test]
fn epochs_of_cycles() {
    for cycles in 0..6u32 {
        for mult in 1..4u32 {
            let expected: u32 = (0..cycles).map(|i| 5 * mult.pow(i)).sum();
            assert_eq!(sgdr_epochs(cycles, 5, mult), Some(expected));
        }
    }
    assert_eq!(sgdr_epochs(32, 1, 2), Some(u32::MAX));
    assert_eq!(sgdr_epochs(33, 1, 2), None);
    assert_eq!(sgdr_epochs(u32::MAX, 2, 1), None);
}

/// No value of a field or of a position may panic or hang.
#[test]
fn extreme_values_answer() {
    for n in [0, 1, u32::MAX] {
        for step in [0, 1, u64::MAX] {
            let at = Position { step, steps_per_epoch: step, total_steps: 0 };
            let (cycle_momentum, momentum_high, momentum_low) = (true, 0.95, 0.85);
            let (share, size) = (f64::from(n) / f64::from(u32::MAX), f64::from(n));
            let (up, div, final_div) = (share, 1.0 + size, 1e12);
            for s in [
                Schedule::Sgdr { cycle_len: n, cycle_mult: n, warm_start: true },
                Schedule::Step { every_epochs: n, gamma: 0.5 },
                Schedule::MultiStep { milestones: vec![n, 0, n], gamma: 0.5 },
                Schedule::FlatCosine { start: share, end_factor: size },
                Schedule::OneCycle { up, div, final_div, cycle_momentum, momentum_high, momentum_low },
                Schedule::OneCycleTorch { up, div, final_div, cycle_momentum, momentum_high, momentum_low },
                Schedule::CosineUpDown { up, start_lr: size, end_lr: size },
                Schedule::Cosine { warmup_epochs: size, warmup_factor: share, end_factor: size },
                Schedule::Polynomial { power: 0.1 + size, end_factor: size },
                Schedule::Piecewise { at: vec![share], factors: vec![size] },
                Schedule::Piecewise { at: vec![], factors: vec![] },
            ] {
                let fine = |at| {
                    let Rates { lr, momentum, .. } = s.rates(1.0, at);
                    lr.is_finite() && lr >= 0.0 && momentum.is_none_or(|momentum| (0.8..1.0).contains(&momentum))
                };
                assert!(fine(at) && fine(Position { steps_per_epoch: 0, ..at }), "{s:?} {at:?}");
                assert!(fine(Position { total_steps: step, ..at }), "{s:?} {at:?}");
            }
        }
    }
}

#[test]
fn reads_and_writes_text() {
    let sgdr = Schedule::Sgdr { cycle_len: 1, cycle_mult: 2, warm_start: true };
    let text = serde_json::to_string(&sgdr).unwrap();
    assert_eq!(text, r#"{"schedule":"sgdr","cycle_len":1,"cycle_mult":2,"warm_start":true}"#);
    assert_eq!(serde_json::from_str::<Schedule>(&text).unwrap(), sgdr);
    assert!(serde_json::from_str::<Schedule>(&text.replace("mult", "muls")).is_err());
}

fn every_rate(schedule: &Schedule, lr: f64, steps_per_epoch: u64, epochs: u64) -> Vec<Rates> {
    let total_steps = steps_per_epoch * epochs;
    (0..total_steps).map(|step| schedule.rates(lr, Position { step, steps_per_epoch, total_steps })).collect()
}

/// Equal but for `digits` in the last place that is given.
fn near(found: f64, expected: f64, half_a_digit: f64) {
    assert!((found - expected).abs() <= half_a_digit, "{found} instead of {expected}");
}

/// E2's five epochs of 141 batches.
#[test]
fn flat_cosine_falls_from_step_529_on() {
    let schedule = Schedule::FlatCosine { start: 0.75, end_factor: 1e-5 };
    let lr = rates(schedule, 3e-3, 141, 5);
    assert!(lr[..529].iter().all(|&lr| lr == 3e-3));
    assert!(lr[529] < 3e-3 && lr[528..].is_sorted_by(|a, b| a > b));
    near(lr[704], 2.6828e-7, 5e-12);
    let e3 = rates(Schedule::FlatCosine { start: 0.72, end_factor: 0.0 }, 4e-3, 141, 80);
    let first = e3.iter().position(|&lr| lr < 4e-3).unwrap();
    assert_eq!(first, 8122); // 11280 · .72 = 8121.6
    near(e3[9700], 2e-3, 2e-6); // halfway: 8121.6 + 1579.2
    assert!(e3[11279] > 0.0 && e3[11279] < 4e-3 * 1e-6);
    assert!(rates(Schedule::FlatCosine { start: 1.0, end_factor: 0.0 }, 1.0, 7, 1).iter().all(|&lr| lr == 1.0));
    near(rates(Schedule::FlatCosine { start: 0.0, end_factor: 0.0 }, 1.0, 4, 1)[2], 0.5, 1e-15);
}

/// E5: rate .02, 40 epochs of 71 steps.
#[test]
fn one_cycle_of_pytorch() {
    let schedule = Schedule::OneCycleTorch {
        up: 0.3,
        div: 25.0,
        final_div: 1e4,
        cycle_momentum: true,
        momentum_high: 0.95,
        momentum_low: 0.85,
    };
    assert!(schedule.moves_momentum());
    let all = every_rate(&schedule, 0.02, 71, 40);
    assert_eq!(all.len(), 2840);
    near(all[0].lr, 8e-4, 1e-18);
    near(all[425].lr, 0.0103823, 5e-8);
    near(all[851].lr, 0.02, 1e-18);
    near(all[1800].lr, 0.0107106, 5e-8);
    near(all[2839].lr, 8e-8, 1e-18);
    let momentum: Vec<f64> = all.iter().map(|rates| rates.momentum.unwrap()).collect();
    near(momentum[0], 0.95, 1e-15);
    near(momentum[851], 0.85, 1e-15);
    near(momentum[2839], 0.95, 1e-15);
    assert!(momentum[..=851].is_sorted_by(|a, b| a > b) && momentum[851..].is_sorted_by(|a, b| a < b));
}

#[test]
fn one_cycle_of_fastai() {
    let schedule = |cycle_momentum| Schedule::OneCycle {
        up: 0.25,
        div: 25.0,
        final_div: 1e5,
        cycle_momentum,
        momentum_high: 0.95,
        momentum_low: 0.85,
    };
    let all = every_rate(&schedule(true), 0.1, 10, 4);
    let at = |i: usize| (all[i].lr, all[i].momentum.unwrap());
    near(at(0).0, 0.004, 1e-17);
    near(at(5).0, (0.1 + 0.004) / 2.0, 1e-15); // half of the way up
    near(at(5).1, 0.9, 1e-15);
    assert_eq!(at(10), (0.1, 0.85));
    near(at(25).0, (0.1 + 1e-6) / 2.0, 1e-15);
    near(at(25).1, 0.9, 1e-15);
    // fastai sets the rates before each batch: the last step has not quite arrived.
    let last = (1.0 + (PI / 30.0).cos()) / 2.0;
    near(at(39).0, 0.1 - last * (0.1 - 1e-6), 1e-15);
    assert!(every_rate(&schedule(false), 0.1, 10, 4).iter().all(|rates| rates.momentum.is_none()));
    assert!(!schedule(false).moves_momentum());
}

/// E4: .1 → .3 over 30 %, .3 → .05.
#[test]
fn cosine_up_and_down() {
    let schedule = Schedule::CosineUpDown { up: 0.3, start_lr: 0.1, end_lr: 0.05 };
    let lr = rates(schedule, 0.3, 20, 5);
    near(lr[0], 0.1, 1e-16);
    near(lr[15], 0.2, 1e-15);
    near(lr[30], 0.3, 1e-15);
    near(lr[65], 0.175, 1e-15);
    assert!(lr[99] > 0.05 && lr[99] < 0.0502);
}

#[test]
fn cosine_with_a_warm_up() {
    let schedule = Schedule::Cosine { warmup_epochs: 0.5, warmup_factor: 0.2, end_factor: 0.1 };
    let lr = rates(schedule, 2.0, 8, 3);
    for (step, expected) in [(0, 0.4), (1, 0.8), (2, 1.2), (3, 1.6), (4, 2.0), (14, 1.1)] {
        near(lr[step], expected, 1e-15);
    }
    assert!(lr[23] > 0.2 && lr[23] < 0.22);
    near(rates(Schedule::Cosine { warmup_epochs: 0.0, warmup_factor: 0.2, end_factor: 0.0 }, 2.0, 4, 1)[0], 2.0, 0.0);
    // A warm-up as long as the phase, or longer, just ends there.
    let long = rates(Schedule::Cosine { warmup_epochs: 9.0, warmup_factor: 0.0, end_factor: 0.0 }, 9.0, 4, 2);
    near(long[7], 1.75, 1e-15);
}

#[test]
fn polynomials_steps_and_lines() {
    let square = rates(Schedule::Polynomial { power: 2.0, end_factor: 0.2 }, 1.0, 2, 2);
    assert_eq!(square, [1.0, 0.2 + 0.8 * 0.5625, 0.4, 0.2 + 0.8 * 0.0625]);
    let steps = rates(Schedule::MultiStep { milestones: vec![3, 1], gamma: 0.5 }, 1.0, 2, 4);
    assert_eq!(steps, [1.0, 1.0, 0.5, 0.5, 0.5, 0.5, 0.25, 0.25]);
    let lines = Schedule::Piecewise { at: vec![0.25, 0.5, 0.75], factors: vec![0.0, 1.0, 0.5] };
    assert_eq!(rates(lines, 2.0, 8, 1), [0.0, 0.0, 0.0, 1.0, 2.0, 1.5, 1.0, 1.0]);
    let one = Schedule::Piecewise { at: vec![0.5], factors: vec![3.0] };
    assert_eq!(rates(one, 2.0, 3, 1), [6.0; 3]);
}
