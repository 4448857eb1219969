//! Every op, every case: finite differences prove the reference, the reference proves the backends.

use handgrad::backend::{Cpu, Reference};
use handgrad::ops::all_cases;
use handgrad::ops::conformance::{check_gradients, compare};

fn report(failures: Vec<String>) {
    assert!(failures.is_empty(), "{} of the cases fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn finite_differences_prove_the_reference() {
    report(all_cases().iter().filter_map(|case| check_gradients(case).err()).collect());
}

#[test]
fn the_reference_keeps_its_contract() {
    report(all_cases().iter().filter_map(|case| compare::<Reference>(case, 1e-12).err()).collect());
}

#[test]
fn cpu_agrees_with_the_reference() {
    report(all_cases().iter().filter_map(|case| compare::<Cpu>(case, 2e-5).err()).collect());
}
