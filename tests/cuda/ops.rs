//! Every op, every case, on interpreted PTX.

use handgrad::backend::cuda::{Gpu, KernelInfo, ptx};
use handgrad::ops::cases::Case;
use handgrad::ops::conformance::compare_on_device;
use handgrad::ops::{OpSpec, all_cases, cuda_kernels};

use super::double::on_double;

#[test]
fn every_op_agrees_with_the_reference() {
    on_double("ops::every_op_agrees_with_the_reference", || {
        println!("{:?}", Gpu::current().unwrap().info());
        let op = std::env::var("HANDGRAD_CASES").unwrap_or_default();
        let cases: Vec<Case> = all_cases().into_iter().filter(|case| case.name().starts_with(&op)).collect();
        assert!(!cases.is_empty(), "no case is called {op:?}");
        // Layers that only infer, or that run two others as one, are those of plans for the CPU.
        let only_cpu = |case: &&Case| case.op.op().only_infers() || matches!(case.op, OpSpec::NormAct(_));
        let trains = cases.iter().filter(|case| !only_cpu(case));
        println!("{} cases", trains.clone().count());
        // One failure is enough for who breaks a kernel on purpose.
        let most = if std::env::var_os("HANDGRAD_FAIL_FAST").is_some() { 1 } else { usize::MAX };
        let failures = trains.filter_map(|case| compare_on_device(case, 2e-5).err());
        let failures: Vec<String> = failures.take(most).collect();
        assert!(failures.is_empty(), "{} of the cases fail:\n{}", failures.len(), failures.join("\n"));
    });
}

/// The parameters of a kernel as its PTX has them: bytes of each.
fn parameters(text: &str, kernel: &str) -> Option<Vec<usize>> {
    let start = text.find(&format!(".entry {kernel}("))?;
    let list = text[start..].split_once('(')?.1.split_once(')')?.0;
    let bytes = |line: &str| {
        let kind = line
            .split_whitespace()
            .find(|word| word.starts_with(".u") || word.starts_with(".f") || word.starts_with(".b"))?;
        let size: usize = kind[2..].parse().ok()?;
        let count = line.split_once('[').map_or(Some(1), |(_, rest)| rest.split_once(']')?.0.parse().ok())?;
        Some(size / 8 * count)
    };
    list.split(',').filter(|line| line.contains(".param")).map(bytes).collect()
}

#[test]
fn declarations_are_those_of_the_ptx() {
    let kernels = cuda_kernels();
    for KernelInfo { module, name, arguments, .. } in &kernels {
        let text = ptx(module).unwrap_or_else(|| panic!("no module {module}"));
        let declared: Vec<usize> = arguments.iter().map(|argument| argument.bytes).collect();
        assert_eq!(parameters(text, name), Some(declared), "{name} in {module}.ptx");
    }
    // And no kernel ships that nothing launches.
    let modules: std::collections::BTreeSet<&str> = kernels.iter().map(|kernel| kernel.module).collect();
    for module in modules {
        for entry in ptx(module).unwrap_or_default().split(".entry ").skip(1) {
            let name = entry.split('(').next().unwrap_or_default();
            assert!(kernels.iter().any(|kernel| kernel.name == name), "{module}.ptx: nothing launches {name}");
        }
    }
}
