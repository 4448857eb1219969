//! The part of an image of any size that a network sees, where chance does not choose it.

use serde::{Deserialize, Serialize};

use super::{Frame, MAX_SIDE, Rect};
use crate::{Error, ErrorKind, Result};

/// How an image of any size comes to the size that a network sees. Validation always goes by it, and so does training
/// where no random crop is asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Text", into = "Text")]
pub enum Framing {
    /// Images have the size; another one is an error.
    #[default]
    Exact,
    /// The largest centred part of the size's shape, resampled.
    Fill,
    /// The whole image squashed to a height and width, its shape lost, then the size cut from the middle.
    Squash {
        /// Height and width, each at least the size's. One number in text where they are equal.
        to: (usize, usize),
    },
    /// The shorter side brought to a length and the longer one in proportion, ⌊to·long/short⌋; then the size cut from
    /// the middle (torchvision's Resize and CenterCrop).
    Shorter {
        /// Pixels, at least the longer side of the size.
        to: usize,
    },
}

impl Framing {
    /// Whether a network of this size can be fed by it.
    ///
    /// # Errors
    /// Kind [`ErrorKind::Usage`] where `to` is smaller than the size or beyond [`MAX_SIDE`].
    pub fn check(&self, (height, width): (usize, usize)) -> Result<()> {
        let (to, least) = match *self {
            Framing::Exact | Framing::Fill => return Ok(()),
            Framing::Squash { to } => (to, (height, width)),
            Framing::Shorter { to } => ((to, to), (height.max(width), height.max(width))),
        };
        if (least.0..=MAX_SIDE).contains(&to.0) && (least.1..=MAX_SIDE).contains(&to.1) {
            return Ok(());
        }
        let e = Error::new(ErrorKind::Usage, "framing", format!("images brought to {}×{}", to.0, to.1));
        Err(e.expected(format!("at least {}×{}, what is cut from them, and at most {MAX_SIDE}", least.0, least.1)))
    }

    /// The frame of a `height`×`width` image for a network that sees `size`.
    ///
    /// # Errors
    /// Those of [`Framing::check`]; kind [`ErrorKind::Shape`] for an image or a size without pixels or with a side
    /// beyond [`MAX_SIDE`], and for an image of another size where it has to be exact.
    pub fn frame(&self, (height, width): (usize, usize), size: (usize, usize)) -> Result<Frame> {
        let sides = [height, width, size.0, size.1];
        if sides.iter().any(|side| !(1..=MAX_SIDE).contains(side)) {
            let e = Error::new(ErrorKind::Shape, "image", format!("{height}×{width} to {}×{}", size.0, size.1));
            return Err(e.expected(format!("sides of 1 to {MAX_SIDE}")));
        }
        self.check(size)?;
        if *self == Framing::Exact && (height, width) != size {
            let e = Error::new(ErrorKind::Shape, "image", format!("{height}×{width} pixels"));
            return Err(e.expected(format!("{}×{}", size.0, size.1)).hint("choose a framing other than exact"));
        }
        Ok(self.frame_of((height, width), size))
    }

    /// [`Framing::frame`] of sizes that are known to be right.
    pub(crate) fn frame_of(&self, (height, width): (usize, usize), size: (usize, usize)) -> Frame {
        let whole = Rect::whole((height, width));
        match *self {
            Framing::Exact => Frame::of(whole, size),
            Framing::Fill => Frame::of(largest_centred((height, width), size), size),
            Framing::Squash { to } => Frame { window: centred(to, size), ..Frame::of(whole, to) },
            Framing::Shorter { to } => {
                // Sides are below 2^16: products fit 64 bits.
                let long = |long: usize, short: usize| (to as u64 * long as u64 / short as u64) as usize;
                let to = if height < width { (to, long(width, height)) } else { (long(height, width), to) };
                Frame { window: centred(to, size), ..Frame::of(whole, to) }
            }
        }
    }
}

/// `size` from the middle of `of`, an odd pixel left over going to either side: half of it is rounded to even, as
/// torchvision does.
fn centred(of: (usize, usize), (height, width): (usize, usize)) -> Rect {
    let half = |left: usize| left / 2 + usize::from(left % 4 == 3);
    Rect { top: half(of.0 - height), left: half(of.1 - width), height, width }
}

/// The largest centred part of an `h`×`w` image that has the shape of `size`. Sides are below 2^16, products fit 64
/// bits.
fn largest_centred((h, w): (usize, usize), (height, width): (usize, usize)) -> Rect {
    let rounded = |a: usize, b: usize, by: usize| ((a as u64 * b as u64 + by as u64 / 2) / by as u64) as usize;
    let (cut_h, cut_w) = if w as u64 * height as u64 > h as u64 * width as u64 {
        (h, rounded(h, width, height).clamp(1, w))
    } else {
        (rounded(w, height, width).clamp(1, h), w)
    };
    Rect { top: (h - cut_h) / 2, left: (w - cut_w) / 2, height: cut_h, width: cut_w }
}

/// The form in files: serde would let a name without `to` have one.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Text {
    by: By,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    to: Option<Sides>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    Exact,
    Fill,
    Squash,
    Shorter,
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum Sides {
    Equal(usize),
    Two((usize, usize)),
}

impl From<Framing> for Text {
    fn from(framing: Framing) -> Text {
        let (by, to) = match framing {
            Framing::Exact => (By::Exact, None),
            Framing::Fill => (By::Fill, None),
            Framing::Squash { to: (h, w) } if h == w => (By::Squash, Some(Sides::Equal(h))),
            Framing::Squash { to } => (By::Squash, Some(Sides::Two(to))),
            Framing::Shorter { to } => (By::Shorter, Some(Sides::Equal(to))),
        };
        Text { by, to }
    }
}

impl TryFrom<Text> for Framing {
    type Error = &'static str;

    fn try_from(text: Text) -> std::result::Result<Framing, &'static str> {
        Ok(match (text.by, text.to) {
            (By::Exact, None) => Framing::Exact,
            (By::Fill, None) => Framing::Fill,
            (By::Squash, Some(Sides::Equal(to))) => Framing::Squash { to: (to, to) },
            (By::Squash, Some(Sides::Two(to))) => Framing::Squash { to },
            (By::Shorter, Some(Sides::Equal(to))) => Framing::Shorter { to },
            (By::Exact | By::Fill, Some(_)) => return Err("`to` goes with squash and shorter"),
            (By::Squash | By::Shorter, _) => return Err("squash needs `to`: one or two numbers; shorter needs one"),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_odd_rest_is_halved_to_even() {
        let tops: Vec<usize> = (4..12).map(|h| centred((h, 4), (4, 4)).top).collect();
        // Python: round(0.5) = 0, round(1.5) = 2, round(2.5) = 2, round(3.5) = 4.
        assert_eq!(tops, [0, 0, 1, 2, 2, 2, 3, 4]);
    }

    #[test]
    fn each_framing_cuts_what_it_says() {
        let frame = |framing: Framing, image| framing.frame(image, (128, 128)).unwrap();
        let rect = |top, left, height, width| Rect { top, left, height, width };
        let squash = frame(Framing::Squash { to: (152, 152) }, (320, 500));
        assert_eq!((squash.crop, squash.to), (rect(0, 0, 320, 500), (152, 152)));
        assert_eq!(squash.window, rect(12, 12, 128, 128));
        let shorter = frame(Framing::Shorter { to: 160 }, (320, 501));
        assert_eq!((shorter.to, shorter.window), ((160, 250), rect(16, 61, 128, 128)));
        assert_eq!(frame(Framing::Shorter { to: 160 }, (501, 320)).to, (250, 160));
        let fill = frame(Framing::Fill, (320, 500));
        assert_eq!((fill.crop, fill.to, fill.window), (rect(0, 90, 320, 320), (128, 128), rect(0, 0, 128, 128)));
        assert_eq!(frame(Framing::Exact, (128, 128)), Frame::of(rect(0, 0, 128, 128), (128, 128)));
    }

    #[test]
    fn what_cannot_be_framed_is_an_error() {
        let kind = |framing: Framing, image, size| framing.frame(image, size).unwrap_err().kind();
        assert_eq!(kind(Framing::Exact, (8, 9), (8, 8)), ErrorKind::Shape);
        assert_eq!(kind(Framing::Fill, (0, 9), (8, 8)), ErrorKind::Shape);
        assert_eq!(kind(Framing::Fill, (9, 9), (8, 65_536)), ErrorKind::Shape);
        assert_eq!(kind(Framing::Squash { to: (8, 7) }, (9, 9), (8, 8)), ErrorKind::Usage);
        assert_eq!(kind(Framing::Shorter { to: 8 }, (9, 9), (8, 9)), ErrorKind::Usage);
        assert_eq!(kind(Framing::Shorter { to: usize::MAX }, (9, 9), (8, 9)), ErrorKind::Usage);
    }

    #[test]
    fn the_text_form_is_short_and_strict() {
        for (framing, text) in [
            (Framing::Exact, r#"{"by":"exact"}"#),
            (Framing::Squash { to: (152, 152) }, r#"{"by":"squash","to":152}"#),
            (Framing::Squash { to: (96, 152) }, r#"{"by":"squash","to":[96,152]}"#),
            (Framing::Shorter { to: 256 }, r#"{"by":"shorter","to":256}"#),
        ] {
            assert_eq!(serde_json::to_string(&framing).unwrap(), text);
            assert_eq!(serde_json::from_str::<Framing>(text).unwrap(), framing);
        }
        for wrong in [
            r#"{"by":"shorter"}"#,
            r#"{"by":"shorter","to":[3,4]}"#,
            r#"{"by":"fill","to":3}"#,
            r#"{"by":"fill","at":3}"#,
            r#"{"by":"stretch"}"#,
        ] {
            assert!(serde_json::from_str::<Framing>(wrong).is_err(), "{wrong}");
        }
    }
}
