//! The fields of a head, in order, as one piece of text.
//!
//! A gateway looks at few fields and passes on all of them. A map would hash and copy each name, check each value and count references
//! to it; here a field is a place in the text it came in, and what the gateway adds is written behind it. Every field stands in the text
//! as HTTP/1 writes it (`name: value`, CR, LF, the name in lower case), so that neighbours are written out together. The few names that
//! the gateway knows are compared by number.
//!
//! Values are taken as they are: whoever adds one has made sure that it is a value.

mod known;

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue};

use self::known::lower;
pub use self::known::{Known, KnownSet};

/// A name to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Name<'a> {
    /// By its number.
    Known(Known),
    /// None of the known ones, in any case.
    Other(&'a [u8]),
}

impl From<Known> for Name<'_> {
    fn from(known: Known) -> Self {
        Self::Known(known)
    }
}

impl<'a> From<&'a [u8]> for Name<'a> {
    fn from(name: &'a [u8]) -> Self {
        Known::of(name).map_or(Self::Other(name), Self::Known)
    }
}

impl<'a> From<&'a str> for Name<'a> {
    fn from(name: &'a str) -> Self {
        name.as_bytes().into()
    }
}

impl<'a> From<&'a HeaderName> for Name<'a> {
    fn from(name: &'a HeaderName) -> Self {
        name.as_str().into()
    }
}

impl Name<'_> {
    /// Its text: of a known name in lower case.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Known(known) => known.as_str().as_bytes(),
            Self::Other(name) => name,
        }
    }
}

/// A part of a head: where it begins, and where it has ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Span {
    /// The first byte.
    pub start: usize,
    /// The byte behind it.
    pub end: usize,
}

impl Span {
    /// Its bytes.
    #[must_use]
    pub fn of(self, head: &[u8]) -> &[u8] {
        head.get(self.start..self.end).unwrap_or_default()
    }
}

/// Where a reader has found a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// Its number, if it has one.
    pub known: Option<Known>,
    /// The name.
    pub name: Span,
    /// The value, without the white space around it.
    pub value: Span,
}

/// A line of the text.
#[derive(Clone, Copy, Debug)]
struct Field {
    known: Option<Known>,
    start: u32,
    /// Where the name ends; a colon, a space and the value follow.
    colon: u32,
    /// Where the value ends; CR and LF follow.
    end: u32,
}

/// Between a name and its value.
const BEFORE: &[u8] = b": ";
/// Behind a value.
const BEHIND: &[u8] = b"\r\n";
/// Text that no field stands in any more is let be up to this size.
const UNUSED: usize = 16 * 1024;

/// The fields of a head, in order. Several may have the same name.
#[derive(Clone, Debug, Default)]
pub struct Fields {
    text: Vec<u8>,
    list: Vec<Field>,
    known: KnownSet,
}

impl Fields {
    /// No fields.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// The fields at these places of a head, with room for `more` fields of `bytes` bytes. Names become lower case.
    #[must_use]
    pub fn read(head: &[u8], places: impl ExactSizeIterator<Item = Place>, more: usize, bytes: usize) -> Self {
        let list = Vec::with_capacity(places.len() + more);
        let mut fields = Self { text: Vec::new(), list, known: KnownSet::default() };
        let mut start = 0;
        for place in places {
            let Place { known, name, value } = place;
            if fields.text.is_empty() {
                // All lines at once; most stand there as they are written.
                start = name.start;
                let lines = head.get(start..).unwrap_or_default();
                fields.text = Vec::with_capacity(lines.len() + bytes);
                fields.text.extend_from_slice(lines);
            }
            let is_plain = head.get(name.end..value.start) == Some(BEFORE)
                && head.get(value.end..).is_some_and(|behind| behind.starts_with(BEHIND));
            if is_plain && let Some(own) = fields.text.get_mut(name.start.wrapping_sub(start)..name.end.wrapping_sub(start)) {
                lower(own);
                let at = |place: usize| place.wrapping_sub(start);
                fields.note(known, at(name.start), at(name.end), at(value.end));
            } else {
                fields.push(known, name.of(head), value.of(head));
            }
        }
        fields
    }

    /// The first value of this name.
    #[must_use]
    #[inline]
    pub fn get<'n>(&self, name: impl Into<Name<'n>>) -> Option<&[u8]> {
        let name = name.into();
        if !self.may_have(name) {
            return None;
        }
        self.list.iter().find(|field| self.is(field, name)).map(|field| self.value(field))
    }

    /// The first value of this name, when it is visible ASCII, spaces and tabs.
    #[must_use]
    pub fn text<'n>(&self, name: impl Into<Name<'n>>) -> Option<&str> {
        let value = self.get(name)?;
        let is_visible = value.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\t'));
        if is_visible { std::str::from_utf8(value).ok() } else { None }
    }

    /// All values of this name, in order.
    #[inline]
    pub fn get_all<'a, 'n: 'a>(&'a self, name: impl Into<Name<'n>>) -> impl DoubleEndedIterator<Item = &'a [u8]> + 'a {
        let name = name.into();
        let list = if self.may_have(name) { self.list.as_slice() } else { &[] };
        list.iter().filter(move |field| self.is(field, name)).map(|field| self.value(field))
    }

    /// Whether there is a field of this name.
    #[must_use]
    #[inline]
    pub fn contains<'n>(&self, name: impl Into<Name<'n>>) -> bool {
        self.get(name).is_some()
    }

    /// The known names that fields have.
    #[must_use]
    #[inline]
    pub const fn known(&self) -> KnownSet {
        self.known
    }

    /// The number of fields.
    #[must_use]
    #[inline]
    pub const fn len(&self) -> usize {
        self.list.len()
    }

    /// At least as many bytes as [`Fields::write`] writes.
    #[must_use]
    #[inline]
    pub const fn text_len(&self) -> usize {
        self.text.len()
    }

    /// Whether there are none.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.list.is_empty()
    }

    /// Names, in lower case, and values, in order.
    pub fn iter(&self) -> impl Iterator<Item = (&[u8], &[u8])> {
        self.list.iter().map(|field| (self.name(field), self.value(field)))
    }

    /// Adds a field behind the others.
    #[inline]
    pub fn append<'n>(&mut self, name: impl Into<Name<'n>>, value: &[u8]) {
        let name = name.into();
        let known = if let Name::Known(known) = name { Some(known) } else { None };
        self.push(known, name.as_bytes(), value);
    }

    /// Makes this the only value of this name, in the place of the first one there was.
    pub fn insert<'n>(&mut self, name: impl Into<Name<'n>>, value: &[u8]) {
        let name = name.into();
        let place = if self.may_have(name) { self.list.iter().position(|field| self.is(field, name)) } else { None };
        self.append(name, value);
        let Some(place) = place else { return };
        let Some(new) = self.list.pop() else { return };
        if let Some(first) = self.list.get_mut(place) {
            *first = new;
        }
        let mut index = 0;
        self.keep(|fields, field| {
            index += 1;
            index <= place + 1 || !fields.is(field, name)
        });
        self.tidy();
    }

    /// Removes all fields of this name.
    pub fn remove<'n>(&mut self, name: impl Into<Name<'n>>) {
        let name = name.into();
        if self.may_have(name) {
            self.keep(|fields, field| !fields.is(field, name));
        }
    }

    /// Removes all fields of these names.
    #[inline]
    pub fn remove_known(&mut self, names: KnownSet) {
        if self.known.meets(names) {
            self.list.retain(|field| !is_in(names, field));
            self.known.0 &= !names.0;
        }
    }

    /// Keeps the fields whose name, in lower case, is wanted.
    pub fn retain(&mut self, mut wanted: impl FnMut(Name<'_>) -> bool) {
        self.keep(|fields, field| wanted(fields.key(field)));
    }

    /// Whether some name, in lower case, is like this.
    #[inline]
    pub fn any(&self, mut like: impl FnMut(Name<'_>) -> bool) -> bool {
        self.list.iter().any(|field| like(self.key(field)))
    }

    /// Writes all fields but those of these names, each as a line of HTTP/1.
    pub fn write(&self, out: &mut Vec<u8>, without: KnownSet) {
        let mut run = 0..0;
        let mut copy = |run: &Range<u32>| out.extend_from_slice(self.part(run.start, run.end));
        for field in self.list.iter().filter(|field| !is_in(without, field)) {
            if field.start != run.end {
                copy(&run);
                run.start = field.start;
            }
            run.end = field.end.saturating_add(LINE_END);
        }
        copy(&run);
    }

    #[inline]
    fn may_have(&self, name: Name<'_>) -> bool {
        if let Name::Known(known) = name { self.known.has(known) } else { true }
    }

    #[inline]
    fn is(&self, field: &Field, name: Name<'_>) -> bool {
        match name {
            Name::Known(known) => field.known == Some(known),
            Name::Other(name) => field.known.is_none() && self.name(field).eq_ignore_ascii_case(name),
        }
    }

    #[inline]
    fn key(&self, field: &Field) -> Name<'_> {
        field.known.map_or_else(|| Name::Other(self.name(field)), Name::Known)
    }

    #[inline]
    fn name(&self, field: &Field) -> &[u8] {
        self.part(field.start, field.colon)
    }

    #[inline]
    fn value(&self, field: &Field) -> &[u8] {
        self.part(field.colon.saturating_add(VALUE_AFTER), field.end)
    }

    #[inline]
    fn part(&self, start: u32, end: u32) -> &[u8] {
        self.text.get(start as usize..end as usize).unwrap_or_default()
    }

    fn push(&mut self, known: Option<Known>, name: &[u8], value: &[u8]) {
        let start = self.text.len();
        let colon = start + name.len();
        self.text.reserve(name.len() + value.len() + BEFORE.len() + BEHIND.len());
        if let Some(known) = known {
            self.text.extend_from_slice(known.line());
        } else {
            self.text.extend_from_slice(name);
            lower(self.text.get_mut(start..).unwrap_or_default());
            self.text.extend_from_slice(BEFORE);
        }
        self.text.extend_from_slice(value);
        let end = self.text.len();
        self.text.extend_from_slice(BEHIND);
        self.note(known, start, colon, end);
    }

    #[inline]
    fn note(&mut self, known: Option<Known>, start: usize, colon: usize, end: usize) {
        // A head of 4 GiB is beyond every limit of its readers; nothing stands behind it.
        let place = |at: usize| u32::try_from(at).unwrap_or(u32::MAX);
        if let Some(known) = known {
            self.known.0 |= 1 << known as u64;
        }
        self.list.push(Field { known, start: place(start), colon: place(colon), end: place(end) });
    }

    fn keep(&mut self, mut wanted: impl FnMut(&Self, &Field) -> bool) {
        let mut list = std::mem::take(&mut self.list);
        list.retain(|field| wanted(self, field));
        self.known = KnownSet(list.iter().filter_map(|field| field.known).fold(0, |bits, known| bits | 1 << known as u64));
        self.list = list;
    }

    /// A policy may set a value any number of times: what was there before does not add up.
    fn tidy(&mut self) {
        if self.text.len() < UNUSED {
            return;
        }
        let used: usize = self.list.iter().map(|field| (field.end.saturating_sub(field.start) + LINE_END) as usize).sum();
        if self.text.len() / 2 < used.max(UNUSED / 2) {
            return;
        }
        let old = std::mem::take(self);
        self.text.reserve(used);
        for field in &old.list {
            self.push(field.known, old.name(field), old.value(field));
        }
    }
}

fn is_in(names: KnownSet, field: &Field) -> bool {
    field.known.is_some_and(|known| names.has(known))
}

/// [`BEFORE`] and [`BEHIND`] have this length.
const VALUE_AFTER: u32 = 2;
const LINE_END: u32 = 2;

impl PartialEq for Fields {
    fn eq(&self, other: &Self) -> bool {
        self.iter().eq(other.iter())
    }
}

impl Eq for Fields {}

impl From<&HeaderMap> for Fields {
    fn from(headers: &HeaderMap) -> Self {
        let bytes = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum::<usize>();
        let (text, list) = (Vec::with_capacity(bytes + 256), Vec::with_capacity(headers.len() + 8));
        let mut fields = Self { text, list, known: KnownSet::default() };
        for (name, value) in headers {
            fields.append(name, value.as_bytes());
        }
        fields
    }
}

impl From<&Fields> for HeaderMap {
    fn from(fields: &Fields) -> Self {
        let mut headers = Self::with_capacity(fields.len());
        for (name, value) in fields.iter() {
            // Both were checked when they were read; whatever is none after all goes no further.
            if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(name), HeaderValue::from_bytes(value)) {
                headers.append(name, value);
            }
        }
        headers
    }
}

impl<'a, N: Into<Name<'a>>, V: AsRef<[u8]>> FromIterator<(N, V)> for Fields {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(list: I) -> Self {
        let mut fields = Self::new();
        for (name, value) in list {
            fields.append(name, value.as_ref());
        }
        fields
    }
}

#[cfg(test)]
mod tests;
