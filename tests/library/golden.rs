//! What PyTorch computes (tests/fixtures): logits, losses and gradients of whole models, and of single ops.

use handgrad::backend::{Cpu, Reference};
use handgrad::models::{self, BlockPool, ModelOptions, TwistVersion};
use handgrad::ops::GroupOrder;

pub use crate::pytorch::*;

macro_rules! runs {
    ($($test:ident: $run:literal,)*) => {
        /// Ten steps as PyTorch makes them: f64 to 1e-9, f32 to 1e-4.
        mod runs {
            $(#[test]
            fn $test() {
                super::train_as_pytorch::<super::Reference>($run, 1e-9);
                super::train_as_pytorch::<super::Cpu>($run, 1e-4);
            })*
        }

        #[test]
        fn every_run_of_the_fixtures_is_tested() {
            let mut tested = vec![$($run),*];
            tested.sort_unstable();
            let files = FILES.map(Fixtures::read);
            let mut runs: Vec<&str> = files.iter().flat_map(|file| file.golden["runs"].as_object().unwrap().keys()).map(String::as_str).collect();
            runs.sort_unstable();
            assert_eq!(tested, runs);
        }
    };
}

runs! {
    simplenet: "simplenet",
    convnet: "convnet",
    convnet2: "convnet2",
    convnet2_smooth: "convnet2-smooth",
    convbnnet: "convbnnet",
    convbnnet2: "convbnnet2",
    resnet: "resnet",
    resnet_fixed: "resnet-fixed",
    resnet2: "resnet2",
    flatten_probe: "flatten-probe",
    xresnet18: "xresnet18",
    xse_resnext18: "xse_resnext18",
    xse_resnet18: "xse_resnet18",
    xse_resnext18_deep: "xse_resnext18_deep",
    xresnet50: "xresnet50",
    xse_resnext50: "xse_resnext50",
    resnet18: "resnet18",
    twist_published: "twist-published",
    twist_3x3_published: "twist-3x3-published",
    twist_3x3_tied: "twist-3x3-tied",
    max_blur: "max-blur",
    mxresnet: "mxresnet",
    mxresnet_first: "mxresnet-first",
    mxresnet_first_tied: "mxresnet-first-tied",
    mxresnet_second: "mxresnet-second",
    mxresnet_groups: "mxresnet-groups",
    mxresnet_depthwise: "mxresnet-depthwise",
    bag_of_tricks: "bag-of-tricks",
    airbench94: "airbench94",
}

#[test]
fn the_hash_is_the_scripts() {
    assert_eq!(uniform("hash", 8, 1.0), Fixtures::read(FILES[0]).get("hash"));
}

/// The mxresnets at full width, as their recipes build them, against the same nets in PyTorch.
#[test]
fn mxresnets_have_the_sizes_of_pytorchs() {
    let base = ModelOptions { size: 128, sa: true, pool: BlockPool::MaxBlur, ..Default::default() };
    let groups = ModelOptions {
        layers: Some(vec![4, 6, 8, 10]),
        group_channels: Some(8),
        group_order: GroupOrder::CyclesOfFour,
        ..base.clone()
    };
    let cases = [
        ("mxresnet", base.clone()),
        ("mxresnet first", ModelOptions { twist: TwistVersion::First, ..base.clone() }),
        ("mxresnet second", ModelOptions { twist: TwistVersion::Second, ..base.clone() }),
        ("mxresnet groups [4, 6, 8, 10]", groups),
        ("mxresnet-depthwise x6", base.clone()),
        ("mxresnet-depthwise x4", ModelOptions { multiplier: 4, ..base }),
    ];
    let sizes = &Fixtures::with_run("mxresnet").golden["sizes"];
    assert_eq!(sizes.as_object().unwrap().len(), cases.len());
    for (case, options) in cases {
        let graph = models::build(case.split(' ').next().unwrap(), &options).unwrap();
        assert_eq!(Some(graph.summary().total_params as u64), sizes[case].as_u64(), "{case}");
    }
}
