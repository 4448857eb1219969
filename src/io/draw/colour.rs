//! Numbers as colours, between anchors whose lightness moves evenly (L* of 5, 24, 43, 63, 80, 96 for heat).

use image::Rgb;

/// From nothing to most.
const HEAT: [[f32; 3]; 6] = [
    [16.0, 12.0, 48.0],
    [92.0, 28.0, 108.0],
    [178.0, 58.0, 86.0],
    [238.0, 120.0, 44.0],
    [250.0, 190.0, 60.0],
    [252.0, 246.0, 170.0],
];
/// From −1 over 0 to 1.
const SIGNED: [[f32; 3]; 5] =
    [[10.0, 60.0, 122.0], [96.0, 156.0, 206.0], [247.0, 247.0, 247.0], [236.0, 146.0, 104.0], [158.0, 24.0, 44.0]];

/// 0 is near black, 1 pale yellow, over violet, red and orange: each lighter than the one before.
pub fn heat(value: f32) -> Rgb<u8> {
    between(&HEAT, value)
}

/// −1 is dark blue, 0 white, 1 dark red.
pub fn signed(value: f32) -> Rgb<u8> {
    between(&SIGNED, 0.5 * (value + 1.0))
}

/// The colour at `value`, from 0 to 1, on the way through the anchors; what is no number is where 0 is.
fn between(anchors: &[[f32; 3]], value: f32) -> Rgb<u8> {
    let last = anchors.len() - 1;
    let at = if value.is_nan() { 0.0 } else { value.clamp(0.0, 1.0) * last as f32 };
    let (low, high) = (anchors[at as usize], anchors[(at as usize + 1).min(last)]);
    Rgb(std::array::from_fn(|c| (low[c] + at.fract() * (high[c] - low[c])).round() as u8))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_heat_is_lighter() {
        let lightness = |value: f32| {
            let [r, g, b] = heat(value).0.map(f32::from);
            0.2126 * r + 0.7152 * g + 0.0722 * b
        };
        let steps: Vec<f32> = (0..=50).map(|i| lightness(i as f32 / 50.0)).collect();
        assert!(steps.is_sorted_by(|a, b| a < b), "{steps:?}");
    }

    #[test]
    fn ends_are_anchors_and_anything_is_a_colour() {
        assert_eq!(heat(0.0), Rgb([16, 12, 48]));
        assert_eq!(heat(7.0), Rgb([252, 246, 170]));
        assert_eq!(signed(0.0), Rgb([247; 3]));
        assert_eq!(signed(-1.0), Rgb([10, 60, 122]));
        assert_eq!(heat(f32::NAN), heat(0.0));
    }
}
