//! Frames in a stream of bytes: found by their headers, without copying or keeping what is in them.

/// Types of frames, RFC 9113 section 6.
pub mod kind {
    /// Payload of a message.
    pub const DATA: u8 = 0;
    /// Start of a header block.
    pub const HEADERS: u8 = 1;
    /// A client's wish, deprecated.
    pub const PRIORITY: u8 = 2;
    /// End of a stream before its time.
    pub const RST_STREAM: u8 = 3;
    /// Parameters of the connection.
    pub const SETTINGS: u8 = 4;
    /// To be answered.
    pub const PING: u8 = 6;
    /// End of the connection.
    pub const GOAWAY: u8 = 7;
    /// More room for DATA.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a header block.
    pub const CONTINUATION: u8 = 9;
}

/// Flags of frames.
pub mod flag {
    /// The stream's last frame, on DATA and HEADERS.
    pub const END_STREAM: u8 = 0x1;
    /// The header block's last frame, on HEADERS and CONTINUATION.
    pub const END_HEADERS: u8 = 0x4;
    /// The payload begins with the length of its padding.
    pub const PADDED: u8 = 0x8;
}

/// What a client sends before its first frame.
pub const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of a frame's header.
const HEADER: usize = 9;
/// Bytes of a payload that are kept until its end: a GOAWAY's codes and the start of its text, and all of the smaller ones.
const KEPT: usize = 40;
/// One parameter of SETTINGS.
const SETTING: usize = 6;

/// A frame's header.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Head {
    /// Of the payload.
    pub length: u32,
    /// One of [`kind`], or unknown.
    pub kind: u8,
    /// Of [`flag`].
    pub flags: u8,
    /// 0 for the connection.
    pub stream: u32,
}

impl Head {
    /// Whether a flag is set.
    #[must_use]
    pub const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    const fn parse([l0, l1, l2, kind, flags, s0, s1, s2, s3]: [u8; HEADER]) -> Self {
        let length = u32::from_be_bytes([0, l0, l1, l2]);
        Self { length, kind, flags, stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]) }
    }
}

/// What was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Found<'a> {
    /// A frame begins.
    Begin(Head),
    /// A parameter within SETTINGS: its number and value.
    Setting(u16, u32),
    /// A frame has ended. With the first bytes of its payload, unless it is one of DATA, a header block or SETTINGS; of padded DATA the
    /// first byte.
    End(Head, &'a [u8]),
}

/// One direction of a connection.
#[derive(Debug)]
pub struct Frames {
    /// Bytes of the preface still to come.
    preface: usize,
    header: [u8; HEADER],
    filled: usize,
    head: Head,
    left: u32,
    kept: [u8; KEPT],
    kept_length: usize,
}

impl Frames {
    /// The direction from the client.
    #[must_use]
    pub const fn of_client() -> Self {
        Self {
            preface: PREFACE.len(),
            header: [0; HEADER],
            filled: 0,
            head: Head { length: 0, kind: 0, flags: 0, stream: 0 },
            left: 0,
            kept: [0; KEPT],
            kept_length: 0,
        }
    }

    /// The direction from the server.
    #[must_use]
    pub const fn of_server() -> Self {
        let mut frames = Self::of_client();
        frames.preface = 0;
        frames
    }

    /// Whether the bytes so far end where a frame does.
    #[must_use]
    pub const fn is_between(&self) -> bool {
        self.preface == 0 && self.filled == 0
    }

    /// Whether they end within a frame that is DATA.
    #[must_use]
    pub const fn is_in_data(&self) -> bool {
        self.filled == HEADER && self.head.kind == kind::DATA
    }

    /// Reads on.
    pub fn feed(&mut self, bytes: &[u8], mut each: impl FnMut(Found<'_>)) {
        let mut bytes = bytes;
        if self.preface > 0 {
            let here = self.preface.min(bytes.len());
            self.preface -= here;
            bytes = bytes.get(here..).unwrap_or_default();
        }
        while !bytes.is_empty() {
            bytes = if self.filled < HEADER { self.header(bytes, &mut each) } else { self.payload(bytes, &mut each) };
        }
    }

    fn header<'b>(&mut self, bytes: &'b [u8], each: &mut impl FnMut(Found<'_>)) -> &'b [u8] {
        let (here, rest) = bytes.split_at_checked(HEADER - self.filled).unwrap_or((bytes, &[]));
        for (to, from) in self.header.iter_mut().skip(self.filled).zip(here) {
            *to = *from;
        }
        self.filled += here.len();
        if self.filled == HEADER {
            self.head = Head::parse(self.header);
            self.left = self.head.length;
            self.kept_length = 0;
            each(Found::Begin(self.head));
            self.end_if_whole(each);
        }
        rest
    }

    fn payload<'b>(&mut self, bytes: &'b [u8], each: &mut impl FnMut(Found<'_>)) -> &'b [u8] {
        let here = usize::try_from(self.left).unwrap_or(usize::MAX);
        let (here, rest) = bytes.split_at_checked(here).unwrap_or((bytes, &[]));
        self.left = self.left.saturating_sub(u32::try_from(here.len()).unwrap_or(u32::MAX));
        match self.head.kind {
            kind::HEADERS | kind::CONTINUATION => {}
            kind::DATA if !self.head.has(flag::PADDED) => {}
            kind::SETTINGS => {
                for byte in here {
                    self.keep(std::slice::from_ref(byte));
                    if let Some([i0, i1, v0, v1, v2, v3]) = self.kept.get(..self.kept_length) {
                        each(Found::Setting(u16::from_be_bytes([*i0, *i1]), u32::from_be_bytes([*v0, *v1, *v2, *v3])));
                        self.kept_length = 0;
                    }
                }
            }
            _ => self.keep(here),
        }
        self.end_if_whole(each);
        rest
    }

    fn keep(&mut self, bytes: &[u8]) {
        let most = match self.head.kind {
            kind::DATA => 1,
            kind::SETTINGS => SETTING,
            _ => KEPT,
        };
        for (to, from) in self.kept.iter_mut().take(most).skip(self.kept_length).zip(bytes) {
            *to = *from;
            self.kept_length += 1;
        }
    }

    fn end_if_whole(&mut self, each: &mut impl FnMut(Found<'_>)) {
        if self.left == 0 {
            self.filled = 0;
            each(Found::End(self.head, self.kept.get(..self.kept_length).unwrap_or_default()));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
        let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
    }

    fn found(frames: &mut Frames, bytes: &[u8]) -> Vec<String> {
        let mut all = Vec::new();
        frames.feed(bytes, |found| {
            all.push(match found {
                Found::Begin(head) => format!("begin {} {} {} {}", head.kind, head.length, head.flags, head.stream),
                Found::Setting(number, value) => format!("setting {number} {value}"),
                Found::End(head, kept) => format!("end {} {kept:?}", head.kind),
            });
        });
        all
    }

    #[test]
    fn frames_are_found_however_the_bytes_come() {
        let bytes = [
            PREFACE.to_vec(),
            frame(kind::SETTINGS, 0, 0, &[0, 4, 0, 0, 0, 1, 0, 3, 0, 0, 0, 100]),
            frame(kind::HEADERS, flag::END_HEADERS, 1, &[0x82; 300]),
            frame(kind::DATA, flag::PADDED, 1, &[3, b'a', 0, 0, 0]),
            frame(kind::DATA, flag::END_STREAM, 1, &[]),
            frame(kind::WINDOW_UPDATE, 0, 0x8000_0001, &[0, 0, 0, 9]),
            frame(kind::GOAWAY, 0, 0, &[b'x'; 60]),
        ]
        .concat();
        let want = [
            "begin 4 12 0 0".to_owned(),
            "setting 4 1".to_owned(),
            "setting 3 100".to_owned(),
            "end 4 []".to_owned(),
            "begin 1 300 4 1".to_owned(),
            "end 1 []".to_owned(),
            "begin 0 5 8 1".to_owned(),
            "end 0 [3]".to_owned(),
            "begin 0 0 1 1".to_owned(),
            "end 0 []".to_owned(),
            "begin 8 4 0 1".to_owned(),
            "end 8 [0, 0, 0, 9]".to_owned(),
            "begin 7 60 0 0".to_owned(),
            format!("end 7 {:?}", [b'x'; KEPT]),
        ];
        for piece in [1, 2, 3, 7, 10, 33, bytes.len()] {
            let mut frames = Frames::of_client();
            let got: Vec<_> = bytes.chunks(piece).flat_map(|bytes| found(&mut frames, bytes)).collect();
            assert_eq!(got, want, "in pieces of {piece}");
            assert!(frames.is_between());
        }
    }

    #[test]
    fn it_is_known_where_the_bytes_stop() {
        let mut frames = Frames::of_client();
        assert!(!frames.is_between(), "the preface is missing");
        found(&mut frames, PREFACE);
        assert!(frames.is_between());
        found(&mut frames, &frame(kind::DATA, 0, 1, b"abc")[..10]);
        assert!(frames.is_in_data() && !frames.is_between());
        found(&mut frames, b"bc");
        assert!(frames.is_between());
        found(&mut frames, &frame(kind::HEADERS, 0, 1, b"abc")[..10]);
        assert!(!frames.is_in_data() && !frames.is_between());
        assert!(Frames::of_server().is_between());
    }
}
