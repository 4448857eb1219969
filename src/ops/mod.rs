//! One op, one room: each folder holds an op's mathematics, its memory contract, its implementations and its cases.
//!
//! A new op is a folder and one line in the list below.

#[cfg(feature = "conformance")]
pub mod cases;
#[cfg(feature = "conformance")]
pub mod conformance;
mod contract;
mod window;

use serde::{Deserialize, Serialize};

pub use contract::*;
pub use window::Window;

macro_rules! register {
    ($($(#[$doc:meta])* $room:ident::$op:ident,)*) => {
        $(mod $room;)*
        $(pub use $room::$op;)*

        /// Any op, as data.
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum OpSpec {
            $($(#[$doc])* $op($op),)*
        }

        impl OpSpec {
            /// The op behind the data.
            pub fn op(&self) -> &dyn Op {
                match self {
                    $(OpSpec::$op(op) => op,)*
                }
            }
        }

        $(impl From<$op> for OpSpec {
            fn from(op: $op) -> Self {
                OpSpec::$op(op)
            }
        })*

        /// The cases of every op, in the order of registration.
        #[cfg(feature = "conformance")]
        pub fn all_cases() -> Vec<cases::Case> {
            let mut all = Vec::new();
            $(all.extend($room::cases::cases());)*
            all
        }
    };
}

register! {
    /// An element-wise activation.
    activation::Activation,
    /// A fully connected layer.
    linear::Linear,
    /// A 2-d convolution.
    conv2d::Conv2d,
    /// A convolution or linear layer with the layers behind it, in inference.
    conv_norm_act::ConvNormAct,
    /// Maximum over a sliding window.
    max_pool::MaxPool,
    /// Mean over a sliding window.
    avg_pool::AvgPool,
    /// Maximum or mean over a fixed number of cells.
    adaptive_pool::AdaptivePool,
    /// Normalisation by batch statistics.
    batch_norm::BatchNorm,
    /// Normalisation by batch statistics and the activation behind it.
    norm_act::NormAct,
    /// Sum of inputs.
    add::Add,
    /// Product with a constant.
    scale::Scale,
    /// Product of a map with a factor per channel.
    channel_scale::ChannelScale,
    /// Self-attention without softmax.
    self_attention::SelfAttention,
    /// A convolution whose kernel turns with the place.
    twist::Twist,
    /// A grouped convolution with permuted groups and a twist.
    conv_twist::ConvTwist,
    /// Blurs a map and halves its size.
    blur::Blur,
    /// Channels of several maps side by side.
    concat::Concat,
    /// Channels dealt out anew.
    channel_shuffle::ChannelShuffle,
    /// A map as a vector.
    flatten::Flatten,
    /// Random zeros in training.
    dropout::Dropout,
    /// Whole images become zero in training.
    drop_path::DropPath,
    /// Softmax and cross-entropy on dense targets.
    cross_entropy::SoftmaxCrossEntropy,
}

/// Every kernel that an op, an optimizer or a batch launches on a GPU: with the PTX of its module, all that a launch depends on.
#[cfg(feature = "cuda")]
pub fn cuda_kernels() -> Vec<crate::backend::cuda::KernelInfo> {
    let rooms = [
        activation::cuda::KERNELS,
        adaptive_pool::cuda::KERNELS,
        add::cuda::KERNELS,
        avg_pool::cuda::KERNELS,
        batch_norm::cuda::KERNELS,
        blur::cuda::KERNELS,
        channel_scale::cuda::KERNELS,
        channel_shuffle::cuda::KERNELS,
        concat::cuda::KERNELS,
        conv_twist::cuda::KERNELS,
        cross_entropy::cuda::KERNELS,
        drop_path::cuda::KERNELS,
        dropout::cuda::KERNELS,
        flatten::cuda::KERNELS,
        max_pool::cuda::KERNELS,
        scale::cuda::KERNELS,
        self_attention::cuda::KERNELS,
        twist::cuda::KERNELS,
        crate::backend::cuda::INPUT_KERNELS,
        crate::optim::device::KERNELS,
    ];
    [rooms.concat(), conv2d::cuda::KERNELS.concat()].concat()
}

#[cfg(feature = "cuda")]
pub(crate) use linear::cuda::Products;

/// y = x for `n` elements on a GPU.
#[cfg(feature = "cuda")]
pub(crate) fn copy_on_device(
    gpu: &crate::backend::cuda::Gpu,
    x: crate::backend::cuda::Ptr,
    y: crate::backend::cuda::Ptr,
    n: usize,
) -> crate::Result<()> {
    flatten::cuda::copy(gpu, x, y, n, false)
}

pub use adaptive_pool::Reduce;
pub use batch_norm::Statistics;
pub use conv_norm_act::{Product, Residual};
pub use conv_twist::{GroupOrder, Twisting};
pub use twist::{Coordinates, Disc, TwistGradient};
