//! Whole models on interpreted PTX, against PyTorch.

use handgrad::backend::Cuda;

use super::double::on_double;
use super::pytorch::train_as_pytorch;

macro_rules! runs {
    ($($test:ident: $run:literal,)*) => {$(
        #[test]
        fn $test() {
            on_double(concat!("models::", stringify!($test)), || train_as_pytorch::<Cuda>($run, 1e-4));
        }
    )*};
}

runs! {
    simplenet: "simplenet",
    convnet: "convnet",
    convnet2_smooth: "convnet2-smooth",
    convbnnet: "convbnnet",
    convbnnet2: "convbnnet2",
    resnet: "resnet",
    resnet2: "resnet2",
    flatten_probe: "flatten-probe",
    xresnet18: "xresnet18",
    xse_resnet18: "xse_resnet18",
    twist_3x3_tied: "twist-3x3-tied",
    max_blur: "max-blur",
    bag_of_tricks: "bag-of-tricks",
    mxresnet: "mxresnet",
    mxresnet_first: "mxresnet-first",
    mxresnet_second: "mxresnet-second",
    mxresnet_groups: "mxresnet-groups",
    mxresnet_depthwise: "mxresnet-depthwise",
    airbench94: "airbench94",
}
