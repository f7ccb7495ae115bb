//! Reading a text piece by piece, for the rules that are functions.

use std::ops::Range;

use crate::bytes::{find, is_letter, is_word};

/// A place in a text. Nothing is ever read beyond its end.
#[derive(Clone, Copy, Debug)]
pub(super) struct Reader<'a> {
    pub(super) text: &'a [u8],
    pub(super) at: usize,
}

const SKIP_MAX: usize = 24;

impl<'a> Reader<'a> {
    pub(super) const fn new(text: &'a [u8], at: usize) -> Self {
        Self { text, at }
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.text.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    pub(super) fn is_end(&self) -> bool {
        self.at >= self.text.len()
    }

    /// Goes beyond the bytes of `set`, a few dozen at most so that no text is read over and over; whether there was one.
    pub(super) fn skip(&mut self, set: &[u8]) -> bool {
        let length = self.rest().iter().take(SKIP_MAX).take_while(|byte| set.contains(byte)).count();
        self.at += length;
        length > 0
    }

    pub(super) fn skip_space(&mut self) -> bool {
        self.skip(b" \n")
    }

    /// Goes beyond `text` if it stands here.
    pub(super) fn eat(&mut self, text: &[u8]) -> bool {
        let here = self.rest().starts_with(text);
        if here {
            self.at += text.len();
        }
        here
    }

    /// Goes beyond a run of letters, digits and `_`.
    pub(super) fn word(&mut self) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().take_while(|byte| is_word(**byte)).count();
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    /// Goes beyond `word` if it stands here as a whole word.
    pub(super) fn eat_word(&mut self, word: &[u8]) -> bool {
        let mut ahead = *self;
        let same = ahead.word() == word;
        if same {
            *self = ahead;
        }
        same
    }
}

/// The places of any byte of `set`.
pub(super) fn places<'a>(text: &'a [u8], set: &'a [u8]) -> impl Iterator<Item = usize> + 'a {
    text.iter().enumerate().filter(|(_, byte)| set.contains(byte)).map(|(at, _)| at)
}

/// The places of quotes that end a value: of several in a row the last.
pub(super) fn closing_quotes(text: &[u8]) -> impl Iterator<Item = usize> {
    const QUOTES: &[u8] = b"'\"`";
    places(text, QUOTES).filter(|at| !text.get(at + 1).is_some_and(|next| QUOTES.contains(next)))
}

/// The places behind each whole word that is one of `words`, with the place where it starts.
pub(super) fn words<'a>(text: &'a [u8], words: &'a [&'a [u8]]) -> impl Iterator<Item = Range<usize>> + 'a {
    let starts = text.iter().enumerate().filter(|(at, byte)| {
        is_letter(**byte) && !at.checked_sub(1).and_then(|before| text.get(before)).copied().is_some_and(is_letter)
    });
    starts.filter_map(|(start, _)| {
        let mut reader = Reader::new(text, start);
        words.contains(&reader.word()).then_some(start..reader.at)
    })
}

/// A place with at most `reach` bytes before and behind it.
pub(super) fn near<'a>(text: &'a [u8], place: &Range<usize>, reach: usize) -> &'a [u8] {
    let end = (place.end + reach).min(text.len());
    text.get(place.start.saturating_sub(reach)..end).unwrap_or_default()
}

/// Whether `text` holds `needle`.
pub(super) fn holds(text: &[u8], needle: &[u8]) -> bool {
    find(text, needle, 0).is_some()
}
