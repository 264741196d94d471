//! The encoding of keys is injective: what went in can be read back.

use limiter_core::Key;

/// Segments end at `0xff`, which is in no text.
pub const SEEDS: &[&[u8]] = &[
    b"ratelimit\xffuser\xff42\xffcoverLetter",
    b"a:b\xff\xff%-\xff%3A\xff{tag}",
    b"\x00\x1f\x7f\xff\xc3\xbc\xff\xe2\x80\x8b",
    b"::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::::",
    &[b'x'; 201],
];

/// Encodes the segments and reads them back.
pub fn target(data: &[u8]) {
    let segments: Vec<_> = data
        .split(|byte| *byte == 0xff)
        .map(String::from_utf8_lossy)
        .collect();
    let key = Key::new(&segments);
    let encoded: Vec<_> = key.as_str().split(':').collect();
    assert_eq!(encoded.len(), segments.len(), "{key:?}");
    for (encoded, segment) in encoded.iter().zip(&segments) {
        assert_reads_back(encoded, segment);
    }

    // However a key is put together, it is the same key.
    let (last, first) = segments.split_last().expect("splitting gives one at least");
    assert_eq!(Key::new(first).join(last), key);

    // A tag is never empty, and nothing in it ends it.
    let tagged = Key::builder().segment(last).hash_tag(last).segment(last);
    let tagged = tagged.build();
    let form = encoded.last().expect("as many as segments");
    assert_eq!(tagged.as_str(), format!("{form}:{{{form}}}:{form}"));
}

fn assert_reads_back(encoded: &str, segment: &str) {
    let structural = |c: char| c.is_ascii_control() || matches!(c, ':' | '{' | '}');
    assert!(!encoded.contains(structural), "{encoded:?}");
    assert!((1..=200).contains(&encoded.len()), "{encoded:?}");
    if let Some(digest) = encoded.strip_prefix("%~") {
        let escaped = |c: &char| structural(*c) || *c == '%';
        assert!(segment.len() + 2 * segment.chars().filter(escaped).count() > 200);
        assert_eq!(digest, Key::builder().token(segment).build().as_str());
    } else {
        assert_eq!(decode(encoded), segment, "{encoded:?}");
    }
}

fn decode(encoded: &str) -> String {
    if encoded == "%-" {
        return String::new();
    }
    let mut pieces = encoded.split('%');
    let mut text = pieces.next().unwrap_or_default().to_owned();
    for piece in pieces {
        let code = u8::from_str_radix(&piece[..2], 16).expect("two hex digits");
        assert!(code.is_ascii(), "{encoded:?}");
        text.push(char::from(code));
        text.push_str(&piece[2..]);
    }
    text
}
