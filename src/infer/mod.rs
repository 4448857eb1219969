//! Placeholder.
use ndarray::{Array3, ArrayView3};
/// x
pub fn resized(image: ArrayView3<'_, u8>) -> Array3<u8> {
    image.to_owned()
}
