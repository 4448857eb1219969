//! Text to tokens.

use super::PtxError;

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Token {
    /// Names and directives: `%r1`, `$L__BB0_2`, `.reg`, `add.s32` comes as `add`, `.s32`.
    Word(String),
    Int(u64),
    F32(u32),
    F64(u64),
    Mark(char),
    Text,
}

pub(super) struct Spanned {
    pub token: Token,
    pub line: u32,
}

fn in_word(c: u8) -> bool {
    c.is_ascii_alphanumeric() || matches!(c, b'_' | b'$' | b'%')
}

/// Every token with its line. Comments are left out.
pub(super) fn tokens(text: &str) -> Result<Vec<Spanned>, PtxError> {
    let bytes = text.as_bytes();
    let mut found = Vec::with_capacity(text.len() / 4);
    let (mut at, mut line) = (0, 1u32);
    while at < bytes.len() {
        let c = bytes[at];
        if c == b'\n' {
            line += 1;
            at += 1;
        } else if c.is_ascii_whitespace() {
            at += 1;
        } else if bytes[at..].starts_with(b"//") {
            while at < bytes.len() && bytes[at] != b'\n' {
                at += 1;
            }
        } else if bytes[at..].starts_with(b"/*") {
            let start = line;
            while !bytes[at..].starts_with(b"*/") {
                if at >= bytes.len() {
                    return Err(PtxError::new(start, "a comment begins here and has no end"));
                }
                line += u32::from(bytes[at] == b'\n');
                at += 1;
            }
            at += 2;
        } else if c.is_ascii_digit() && bytes[..at].ends_with(b"::") {
            // A hint such as `.L2::128B`.
            let end = at + bytes[at..].iter().take_while(|c| in_word(**c)).count();
            found.push(Spanned { token: Token::Word(text[at..end].to_owned()), line });
            at = end;
        } else if c.is_ascii_digit() {
            let end = at + bytes[at..].iter().take_while(|c| in_word(**c)).count();
            let (token, end) =
                number(text, at, end).ok_or_else(|| PtxError::new(line, format!("no number: {:?}", &text[at..end])))?;
            found.push(Spanned { token, line });
            at = end;
        } else if in_word(c) || (c == b'.' && bytes.get(at + 1).is_some_and(|c| in_word(*c))) {
            let end = at + 1 + bytes[at + 1..].iter().take_while(|c| in_word(**c)).count();
            found.push(Spanned { token: Token::Word(text[at..end].to_owned()), line });
            at = end;
        } else if c == b'"' {
            let end = bytes[at + 1..]
                .iter()
                .position(|c| *c == b'"')
                .ok_or_else(|| PtxError::new(line, "a text without its closing quote"))?;
            found.push(Spanned { token: Token::Text, line });
            at += end + 2;
        } else if c.is_ascii() {
            found.push(Spanned { token: Token::Mark(c as char), line });
            at += 1;
        } else {
            return Err(PtxError::new(line, "a character outside of ASCII"));
        }
    }
    Ok(found)
}

/// `12`, `0x1F`, `0b11`, `017`, `12U`, `0f3F800000`, `0d3FF0000000000000`, `1.5`.
fn number(text: &str, at: usize, end: usize) -> Option<(Token, usize)> {
    let word = &text[at..end];
    if let Some(hex) = word.strip_prefix("0f").or(word.strip_prefix("0F")) {
        return Some((Token::F32(u32::from_str_radix(hex, 16).ok()?), end));
    }
    if let Some(hex) = word.strip_prefix("0d").or(word.strip_prefix("0D")) {
        return Some((Token::F64(u64::from_str_radix(hex, 16).ok()?), end));
    }
    if text[end..].starts_with('.') && text.as_bytes().get(end + 1).is_some_and(u8::is_ascii_digit) {
        let more = end + 1 + text.as_bytes()[end + 1..].iter().take_while(|c| c.is_ascii_alphanumeric()).count();
        return Some((Token::F64(text[at..more].parse::<f64>().ok()?.to_bits()), more));
    }
    let digits = word.trim_end_matches('U');
    let value = if let Some(hex) = digits.strip_prefix("0x").or(digits.strip_prefix("0X")) {
        u64::from_str_radix(hex, 16)
    } else if let Some(bin) = digits.strip_prefix("0b").or(digits.strip_prefix("0B")) {
        u64::from_str_radix(bin, 2)
    } else if digits.len() > 1 && digits.starts_with('0') {
        u64::from_str_radix(digits, 8)
    } else {
        digits.parse()
    };
    Some((Token::Int(value.ok()?), end))
}
