//! Every op, every case: finite differences prove the reference, the reference proves the backends.

use handgrad::backend::{Backend, Cpu, Reference};
use handgrad::ops::all_cases;
use handgrad::ops::cases::Case;
use handgrad::ops::conformance::{check_gradients, compare};

/// All cases, or those of the op that HANDGRAD_CASES names: tests/mutants.sh breaks one op at a time.
fn check(test: impl Fn(&Case) -> Result<(), String>) {
    let op = std::env::var("HANDGRAD_CASES").unwrap_or_default();
    let cases: Vec<Case> = all_cases().into_iter().filter(|case| case.name().starts_with(&op)).collect();
    assert!(!cases.is_empty(), "no case is called {op:?}");
    let failures: Vec<String> = cases.iter().filter_map(|case| test(case).err()).collect();
    assert!(failures.is_empty(), "{} of the cases fail:\n{}", failures.len(), failures.join("\n"));
}

#[test]
fn finite_differences_prove_the_reference() {
    check(check_gradients);
}

#[test]
fn the_reference_keeps_its_contract() {
    check(|case| compare::<Reference>(case, 1e-12));
}

#[test]
fn cpu_agrees_with_the_reference() {
    Cpu::check().unwrap();
    check(|case| compare::<Cpu>(case, 2e-5));
}
