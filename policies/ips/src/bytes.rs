//! Which kinds of bytes a value holds: the cheap question that lets most values pass without a closer look.

/// A set of byte kinds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Classes(u16);

impl Classes {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// `'` and `"`.
    pub const QUOTE: Self = Self(1);
    /// `` ` ``
    pub const BACKTICK: Self = Self(1 << 1);
    /// `<` and `>`.
    pub const ANGLE: Self = Self(1 << 2);
    /// `$`
    pub const DOLLAR: Self = Self(1 << 3);
    /// `%`
    pub const PERCENT: Self = Self(1 << 4);
    /// `(` and `)`.
    pub const PAREN: Self = Self(1 << 5);
    /// `{`, `}`, `[` and `]`.
    pub const BRACE: Self = Self(1 << 6);
    /// `;`
    pub const SEMICOLON: Self = Self(1 << 7);
    /// `|`
    pub const PIPE: Self = Self(1 << 8);
    /// `&`
    pub const AMPERSAND: Self = Self(1 << 9);
    /// `/`
    pub const SLASH: Self = Self(1 << 10);
    /// `\`
    pub const BACKSLASH: Self = Self(1 << 11);
    /// White space, and `+` which forms read as such.
    pub const SPACE: Self = Self(1 << 12);
    /// Control bytes that are not white space.
    pub const CONTROL: Self = Self(1 << 13);
    /// 0x80 and above.
    pub const HIGH: Self = Self(1 << 14);
    /// `:`
    pub const COLON: Self = Self(1 << 15);
    /// Every kind.
    pub const ALL: Self = Self(u16::MAX);

    /// Both sets together.
    #[must_use]
    pub const fn union(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// The kinds of this set that the other does not hold.
    #[must_use]
    pub const fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }

    /// Whether the sets share a kind.
    #[must_use]
    pub const fn intersects(self, other: Self) -> bool {
        self.0 & other.0 != 0
    }

    const fn of_byte(byte: u8) -> Self {
        match byte {
            b'\'' | b'"' => Self::QUOTE,
            b'`' => Self::BACKTICK,
            b'<' | b'>' => Self::ANGLE,
            b'$' => Self::DOLLAR,
            b'%' => Self::PERCENT,
            b'(' | b')' => Self::PAREN,
            b'{' | b'}' | b'[' | b']' => Self::BRACE,
            b';' => Self::SEMICOLON,
            b'|' => Self::PIPE,
            b'&' => Self::AMPERSAND,
            b'/' => Self::SLASH,
            b'\\' => Self::BACKSLASH,
            b' ' | b'\t' | b'\n' | b'\r' | b'+' => Self::SPACE,
            0..=0x1f | 0x7f => Self::CONTROL,
            0x80.. => Self::HIGH,
            b':' => Self::COLON,
            _ => Self::NONE,
        }
    }
}

/// The kind of each byte, looked up once per byte of a request.
#[derive(Debug)]
pub struct ClassTable([u16; 256]);

impl ClassTable {
    /// Builds the table.
    #[must_use]
    pub fn new() -> Self {
        Self(std::array::from_fn(|byte| u8::try_from(byte).map_or(0, |byte| Classes::of_byte(byte).0)))
    }

    /// The kinds of all bytes of a value.
    #[must_use]
    pub fn of(&self, value: &[u8]) -> Classes {
        let of = |byte: u8| self.0.get(usize::from(byte)).copied().unwrap_or(0);
        // Eight at a time: a guest pays for every turn of a loop.
        let (eights, rest) = value.as_chunks::<8>();
        let all = eights
            .iter()
            .fold(0, |all, [a, b, c, d, e, f, g, h]| all | of(*a) | of(*b) | of(*c) | of(*d) | of(*e) | of(*f) | of(*g) | of(*h));
        Classes(rest.iter().fold(all, |all, byte| all | of(*byte)))
    }
}

impl Default for ClassTable {
    fn default() -> Self {
        Self::new()
    }
}

/// A letter or `_`: what a keyword may not touch on its left.
#[must_use]
pub const fn is_letter(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_'
}

/// A letter, digit or `_`: what a keyword may not touch on its right.
#[must_use]
pub const fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

/// Where `needle` starts in `text`, from `from` on.
#[must_use]
pub fn find(text: &[u8], needle: &[u8], from: usize) -> Option<usize> {
    let first = *needle.first()?;
    let mut at = from;
    while let Some(step) = text.get(at..)?.iter().position(|byte| *byte == first) {
        at += step;
        if text.get(at..)?.starts_with(needle) {
            return Some(at);
        }
        at += 1;
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_has_the_kinds_of_its_bytes() {
        let table = ClassTable::new();
        assert_eq!(table.of(b"plain-Value_1.2,3"), Classes::NONE);
        assert_eq!(table.of(b"it's"), Classes::QUOTE);
        assert!(table.of(b"a+b").intersects(Classes::SPACE));
        assert!(table.of(b"\x00").intersects(Classes::CONTROL));
        assert!(!table.of(b"\n").intersects(Classes::CONTROL));
    }

    #[test]
    fn find_looks_from_a_position_on() {
        assert_eq!(find(b"aab aab", b"ab", 0), Some(1));
        assert_eq!(find(b"aab aab", b"ab", 2), Some(5));
        assert_eq!(find(b"aab", b"x", 0), None);
        assert_eq!(find(b"aab", b"ab", 9), None);
    }
}
