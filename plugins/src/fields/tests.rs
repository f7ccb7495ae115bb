//! Fields as text, in order, and what edits make of them.

use super::*;

fn written(fields: &Fields) -> String {
    let mut out = Vec::new();
    fields.write(&mut out, KnownSet::default());
    String::from_utf8(out).unwrap().replace("\r\n", "|")
}

fn of(list: &[(&str, &str)]) -> Fields {
    list.iter().copied().collect()
}

/// Places of the fields of a head without a first line.
fn places(text: &str) -> Vec<Place> {
    let (mut at, mut places) = (0, Vec::new());
    for line in text.split_inclusive("\r\n") {
        let (name, rest) = line.split_once(':').unwrap();
        let value = rest.trim();
        let start = at + name.len() + 1 + (rest.len() - rest.trim_start().len()).min(rest.len() - 2);
        places.push(Place {
            known: Known::of(name.as_bytes()),
            name: Span { start: at, end: at + name.len() },
            value: Span { start, end: start + value.len() },
        });
        at += line.len();
    }
    places
}

#[test]
fn every_known_name_is_found_by_its_text_alone() {
    for known in Known::ALL {
        assert_eq!(Known::of(known.as_str().as_bytes()), Some(*known));
        assert_eq!(Known::of(known.as_str().to_ascii_uppercase().as_bytes()), Some(*known));
        assert_eq!(Known::of(format!("{}x", known.as_str()).as_bytes()), None);
        assert_eq!(
            Known::of(known.as_str().replace('-', "_").as_bytes()),
            Some(*known).filter(|_| !known.as_str().contains('-'))
        );
        assert!((*known as u64) < 64);
    }
    assert_eq!(Known::of(b""), None);
}

#[test]
fn what_was_read_is_written_in_one_form() {
    for (text, want) in [
        ("Host: a\r\nX-One: 1\r\n", "host: a|x-one: 1|"),
        ("HOST:a\r\nX_One^Q:\t1 \r\nx-Empty:\r\nLast:  2\r\n", "host: a|x_one^q: 1|x-empty: |last: 2|"),
        ("Accept: a:b\r\nX: \u{e9}\r\nCookie: c \r\n", "accept: a:b|x: \u{e9}|cookie: c|"),
        ("", ""),
    ] {
        let fields = Fields::read(text.as_bytes(), places(text).into_iter(), 2, 64);
        assert_eq!(written(&fields), want);
        assert_eq!(fields.len(), want.matches('|').count());
        let mut behind = b"GET / HTTP/1.1\r\n".to_vec();
        let by = behind.len();
        let moved = |span: Span| Span { start: span.start + by, end: span.end + by };
        let moved = places(text).into_iter().map(|place| Place {
            known: place.known,
            name: moved(place.name),
            value: moved(place.value),
        });
        let moved: Vec<Place> = moved.collect();
        behind.extend_from_slice(text.as_bytes());
        assert_eq!(Fields::read(&behind, moved.into_iter(), 0, 0), fields);
    }
}

#[test]
fn names_are_compared_in_any_case() {
    let fields = of(&[("Host", "a"), ("X-One", "1"), ("x-two", "2"), ("X-ONE", "3")]);
    assert_eq!(fields.get(Known::Host), Some(&b"a"[..]));
    assert_eq!(fields.get("HOST"), Some(&b"a"[..]));
    assert_eq!(fields.get_all("x-One").collect::<Vec<_>>(), [b"1", b"3"]);
    assert_eq!((fields.get("x-three"), fields.contains("host"), fields.contains(Known::Date)), (None, true, false));
    assert_eq!(fields.iter().next(), Some((&b"host"[..], &b"a"[..])));
    assert_eq!(of(&[("x", "\u{e9}")]).text("x"), None);
    assert_eq!(fields.text("x-two"), Some("2"));
}

#[test]
fn edits_keep_the_order() {
    let mut fields = of(&[("host", "a"), ("x-one", "1"), ("date", "d"), ("x-one", "2"), ("te", "t")]);
    fields.insert("X-One", b"3");
    assert_eq!(written(&fields), "host: a|x-one: 3|date: d|te: t|");
    fields.insert(Known::XRequestId, b"id");
    fields.append("X-One", b"4");
    assert_eq!(written(&fields), "host: a|x-one: 3|date: d|te: t|x-request-id: id|x-one: 4|");
    fields.remove("x-one");
    fields.remove(Known::Te);
    assert_eq!((fields.contains(Known::Te), fields.known().has(Known::Date)), (false, true));
    fields.remove_known(KnownSet::of(&[Known::Date, Known::Cookie]));
    assert_eq!((written(&fields).as_str(), fields.len()), ("host: a|x-request-id: id|", 2));
    assert_eq!(fields.known(), KnownSet::of(&[Known::Host, Known::XRequestId]));
    fields.retain(|name| name == Name::Known(Known::Host));
    assert_eq!((written(&fields).as_str(), fields.any(|name| matches!(name, Name::Other(_)))), ("host: a|", false));
}

#[test]
fn some_fields_are_left_out_where_they_stand() {
    let fields = of(&[("host", "a"), ("x", "1"), ("date", "d"), ("y", "2")]);
    for (without, want) in [
        (&[][..], "host: a|x: 1|date: d|y: 2|"),
        (&[Known::Host], "x: 1|date: d|y: 2|"),
        (&[Known::Date, Known::Te], "host: a|x: 1|y: 2|"),
    ] {
        let mut out = Vec::new();
        fields.write(&mut out, KnownSet::of(without));
        assert_eq!(String::from_utf8(out).unwrap().replace("\r\n", "|"), want);
    }
}

#[test]
fn a_value_that_is_set_over_and_over_takes_no_more_room() {
    let mut fields = of(&[("host", "a"), ("x-big", "0")]);
    for round in 0..1_000_u32 {
        fields.insert("x-big", &vec![b'0' + (round % 10) as u8; 1024]);
    }
    assert!(fields.text.len() <= 2 * UNUSED, "{}", fields.text.len());
    assert_eq!((fields.get("x-big").map(<[u8]>::len), fields.get("host")), (Some(1024), Some(&b"a"[..])));
}

#[test]
fn maps_of_the_http_crate_and_back() {
    let fields = of(&[("host", "a"), ("x-one", "1"), ("x-one", "2"), ("x-obs", "\u{e9}")]);
    assert_eq!(Fields::from(&HeaderMap::from(&fields)), fields);
}

#[test]
fn letters_become_small_and_nothing_else_changes() {
    for byte in 0..=255_u8 {
        let mut bytes = [b'-'; 19];
        bytes[3] = byte;
        bytes[17] = byte;
        let want = bytes.to_ascii_lowercase();
        lower(&mut bytes);
        assert_eq!(bytes.as_slice(), want);
    }
}
