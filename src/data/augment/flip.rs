//! Mirroring left and right.

use serde::{Serialize, Serializer};

use crate::rng::Key;

/// Whether training images are mirrored left and right.
///
/// ```
/// use handgrad::data::{Augment, Flip};
/// let augment = Augment { translate: 2, flip: Flip::Alternating, ..Augment::NONE };
/// assert_eq!(Augment { flip: true.into(), ..augment }.flip, Flip::Random);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Flip {
    /// Never.
    #[default]
    Never,
    /// With probability ½ in every epoch: of two epochs, half of the images look alike in both.
    Random,
    /// With probability ½ in the first epoch, and from then on in every other one: two epochs that follow each other show
    /// an image both ways (Jordan 2024).
    Alternating,
}

impl Flip {
    /// Whether the sample is mirrored that `key` names in this epoch, and `sample` in all epochs.
    pub(super) fn draw(self, key: Key, sample: Key, epoch: u64) -> bool {
        let coin = |key: Key| key.with_name("flip").stream().chance(0.5);
        match self {
            Flip::Never => false,
            Flip::Random => coin(key),
            Flip::Alternating => coin(sample) ^ (epoch % 2 == 1),
        }
    }
}

impl From<bool> for Flip {
    fn from(flip: bool) -> Self {
        if flip { Flip::Random } else { Flip::Never }
    }
}

/// As recipes have it: `false`, `true`, `"alternating"`.
impl Serialize for Flip {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Flip::Never => serializer.serialize_bool(false),
            Flip::Random => serializer.serialize_bool(true),
            Flip::Alternating => serializer.serialize_str("alternating"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn successive_epochs_show_both_sides() {
        let (run, mut flips) = (Key::new(3), 0);
        for i in 0..2000 {
            let (sample, of) = (run.with_name("sample").with(i), |epoch: u64| run.with(epoch).with(i));
            let seen: Vec<bool> = (0..6).map(|epoch| Flip::Alternating.draw(of(epoch), sample, epoch)).collect();
            assert!(seen.windows(2).all(|pair| pair[0] != pair[1]), "{seen:?}");
            flips += usize::from(seen[0]);
        }
        assert!((900..1100).contains(&flips), "{flips}");
    }
}
