//! Text in pictures made of pixels: one small alphabet, five pixels wide and eight high, in `letters.txt`.

use image::{Rgb, RgbImage};

/// Lines of nine: the characters, then the eight rows of their glyphs.
const LETTERS: &str = include_str!("letters.txt");
/// Pixels from one character to the next.
const PITCH: u32 = 6;
/// Columns of the file from one glyph to the next.
const FILE_PITCH: usize = 7;
/// The height of a line of text, at scale 1.
pub const HEIGHT: u32 = 8;

/// The width of a text whose pixels are `scale` across.
pub fn width_of(text: &str, scale: u32) -> u32 {
    text.chars().count() as u32 * PITCH * scale
}

/// As much of a text as fits `width`, two dots in place of what does not.
pub fn fitted(text: &str, scale: u32, width: u32) -> String {
    let room = (width / (PITCH * scale)) as usize;
    if text.chars().count() <= room {
        return text.to_string();
    }
    text.chars().take(room.saturating_sub(2)).chain("..".chars().take(room)).collect()
}

/// Draws a text with its upper left corner at `(x, y)`, each of its pixels `scale` across; what is outside the picture is
/// left out, and a character that the alphabet lacks is a question mark.
pub fn draw(picture: &mut RgbImage, (x, y): (u32, u32), text: &str, scale: u32, colour: Rgb<u8>) {
    for (i, letter) in text.chars().enumerate() {
        for (row, line) in glyph(letter).enumerate() {
            for column in line.bytes().enumerate().filter(|(_, dot)| *dot == b'#').map(|(column, _)| column) {
                let left = x + (i as u32 * PITCH + column as u32) * scale;
                fill(picture, (left, y + row as u32 * scale), scale, colour);
            }
        }
    }
}

fn fill(picture: &mut RgbImage, (x, y): (u32, u32), side: u32, colour: Rgb<u8>) {
    for (dx, dy) in (0..side * side).map(|i| (i % side, i / side)) {
        if let Some(pixel) = picture.get_pixel_mut_checked(x + dx, y + dy) {
            *pixel = colour;
        }
    }
}

/// The rows of a character; none for a space.
fn glyph(letter: char) -> impl Iterator<Item = &'static str> {
    let letter = if letter.is_ascii_graphic() || letter == ' ' { letter } else { '?' };
    let lines: Vec<&'static str> = LETTERS.lines().collect();
    let place = lines.iter().enumerate().step_by(1 + HEIGHT as usize).find_map(|(line, names)| {
        // Glyphs of five columns have their name above the middle one.
        let at = names.char_indices().skip(2).step_by(FILE_PITCH).find(|(_, name)| *name == letter && letter != ' ');
        at.map(|(column, _)| (line, column - 2))
    });
    let rows = place.map(|(line, column)| {
        lines[line + 1..].iter().take(HEIGHT as usize).map(move |row| &row[column..column + 5]).collect::<Vec<_>>()
    });
    rows.unwrap_or_default().into_iter()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_printable_character_has_a_glyph_of_its_own() {
        let glyphs: Vec<String> = ('!'..='~').map(|c| glyph(c).collect::<Vec<_>>().join("/")).collect();
        for (i, one) in glyphs.iter().enumerate() {
            assert_eq!(one.len(), 47, "{i}");
            assert!(one.chars().all(|c| "#./".contains(c)) && one.contains('#'), "{one}");
            assert!(!glyphs[..i].contains(one), "{one}");
        }
        assert_eq!(glyph(' ').count(), 0);
        assert!(glyph('ß').eq(glyph('?')));
        assert_eq!(glyph('L').collect::<Vec<_>>().join("/"), "#..../#..../#..../#..../#..../#..../#####/.....");
    }

    #[test]
    fn texts_are_as_wide_as_they_say_and_end_at_the_edge() {
        let ink = Rgb([0; 3]);
        let mut picture = RgbImage::from_pixel(40, 20, Rgb([255; 3]));
        draw(&mut picture, (2, 3), "LL", 2, ink);
        let dark: Vec<(u32, u32)> = picture.enumerate_pixels().filter(|p| *p.2 == ink).map(|p| (p.0, p.1)).collect();
        assert_eq!(dark.len(), 2 * 11 * 4);
        assert_eq!(dark.iter().map(|p| p.0).min(), Some(2));
        assert_eq!(dark.iter().map(|p| p.0).max(), Some(2 + width_of("LL", 2) - 3));
        draw(&mut picture, (38, 18), "WWW", 3, ink);
        assert_eq!(fitted("Samoyed", 1, 42), "Samoyed");
        assert_eq!(fitted("Samoyed", 1, 41), "Samo..");
        assert_eq!(fitted("Samoyed", 2, 12), ".");
    }
}
