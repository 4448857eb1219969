//! The recipes that the program carries, from the folder recipes/.

macro_rules! recipes {
    ($($name:literal),* $(,)?) => {
        &[$(($name, include_str!(concat!("../../recipes/", $name, ".toml")))),*]
    };
}

/// Name and text, in the order in which they are listed.
pub(super) static ALL: &[(&str, &str)] = recipes![
    "quickstart",
    "synth-linear",
    "synth-simplenet",
    "cifar10-simplenet",
    "cifar10-convnet",
    "cifar10-convnet2",
    "cifar10-convbnnet",
    "cifar10-convbnnet-fixed",
    "cifar10-convbnnet2",
    "cifar10-convbnnet2-fixed",
    "cifar10-resnet",
    "cifar10-resnet-fixed",
    "cifar10-resnet-7ep",
    "cifar10-resnet-32ep",
    "cifar10-resnet2",
    "cifar10-resnet2-fixed",
    "cifar10-resnet2-7ep",
    "cifar10-resnet2-32ep",
    "cifar10-fast",
    "woof-xse_resnext18",
    "woof-xse_resnext18-twist-published",
    "woof-xse_resnext18-twist-3x3",
    "woof-xse_resnext18-deep",
    "woof-xse_resnext18-deep-twist-published",
    "woof-xse_resnext18-deep-twist-3x3",
    "woof-xresnet50",
    "woof-xresnet50-twist-published",
    "woof-xresnet50-twist-3x3",
    "woof-xse_resnext50",
    "woof-xse_resnext50-twist-published",
    "woof-xse_resnext50-twist-3x3",
    "woof-xse_resnext50-max-blur",
    "woof-convtwist-80",
    "woof-convtwist-second-80",
    "woof-convtwist-second-192-5ep",
    "woof-permuted-groups-80",
    "woof-permuted-groups-192-5ep",
    "woof-depthwise",
    "woof-128-5ep-best",
    "woof-resnet18-sgd-step",
    "woof-resnet18-lr-found",
    "woof-resnet18-onecycle",
    "woof-resnet18-adamw",
    "nette-bag-of-tricks",
    "nette-bag-of-tricks-lsuv-fresh",
];
