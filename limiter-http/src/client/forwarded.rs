//! Lists of addresses in request headers, read from the right: the end that proxies append to.

use std::borrow::Cow;
use std::net::{IpAddr, SocketAddr};

use http::header::{HeaderMap, HeaderName};

/// The most entries that are read: a longer chain of trusted proxies is no real one, and a client must not choose how much
/// work its request makes.
pub(super) const MAX_ENTRIES: usize = 32;

/// The elements of a list header from right to left, without empty ones (RFC 9110, section 5.6.1.2). Several lines of one
/// name are one list (section 5.3).
pub(super) fn from_the_right<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> impl Iterator<Item = &'a [u8]> {
    let lines = headers.get_all(name).iter().rev();
    lines
        .flat_map(|line| elements_from_the_right(line.as_bytes()))
        .filter(|element| !element.is_empty())
        .take(MAX_ENTRIES)
}

/// Elements without the blanks around them. A comma in a quoted string separates nothing. It is read backwards, so that a
/// quote that a client left open reaches no element that a proxy put behind it.
fn elements_from_the_right(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let line = rest?;
        let mut quoted = false;
        let comma = (0..line.len()).rev().find(|at| match line[*at] {
            b'"' if !is_escaped(line, *at) => {
                quoted = !quoted;
                false
            }
            b',' => !quoted,
            _ => false,
        });
        let element = match comma {
            Some(at) => {
                rest = Some(&line[..at]);
                &line[at + 1..]
            }
            None => {
                rest = None;
                line
            }
        };
        Some(element.trim_ascii())
    })
}

/// Whether an odd number of backslashes stands in front.
fn is_escaped(line: &[u8], at: usize) -> bool {
    let backslashes = line[..at].iter().rev().take_while(|byte| **byte == b'\\');
    backslashes.count() % 2 == 1
}

/// `1.2.3.4`, `1.2.3.4:80`, `2001:db8::1`, `[2001:db8::1]`, `[2001:db8::1]:443`; canonical.
pub(super) fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?.trim();
    let in_brackets = text
        .strip_prefix('[')
        .and_then(|text| text.strip_suffix(']'));
    let address = match in_brackets {
        Some(text) => IpAddr::V6(text.parse().ok()?),
        None => text
            .parse()
            .or_else(|_| text.parse().map(|with_port: SocketAddr| with_port.ip()))
            .ok()?,
    };
    Some(address.to_canonical())
}

/// The address of an element's `for`: `for=192.0.2.60;proto=http`, `For="[2001:db8::1]:4711"` (RFC 7239, section 4). `None`
/// for `unknown`, for `_hidden`, and for an element that has no `for` or two.
pub(super) fn forwarded_for(element: &[u8]) -> Option<IpAddr> {
    let element = std::str::from_utf8(element).ok()?;
    let mut found = None;
    for pair in pairs(element).filter(|pair| !pair.trim().is_empty()) {
        let (name, value) = pair.split_once('=')?;
        if name.trim().eq_ignore_ascii_case("for") && found.replace(value.trim()).is_some() {
            return None;
        }
    }
    let node = unquoted(found?)?;
    // A port may be hidden, too: 192.0.2.60:_p.
    let node = node.split_once(":_").map_or(&*node, |(node, _)| node);
    address(node.as_bytes())
}

/// What stands between semicolons outside of quoted strings.
fn pairs(element: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    element.split(move |c| {
        let separates = c == ';' && !quoted;
        if c == '"' && !escaped {
            quoted = !quoted;
        }
        escaped = quoted && c == '\\' && !escaped;
        separates
    })
}

/// A token as it is, a quoted string without quotes and backslashes.
fn unquoted(value: &str) -> Option<Cow<'_, str>> {
    let Some(inner) = value.strip_prefix('"') else {
        return Some(Cow::Borrowed(value));
    };
    let inner = inner.strip_suffix('"')?;
    if !inner.contains(['\\', '"']) {
        return Some(Cow::Borrowed(inner));
    }
    let mut text = String::with_capacity(inner.len());
    let mut chars = inner.chars();
    while let Some(c) = chars.next() {
        match c {
            '\\' => text.push(chars.next()?),
            '"' => return None,
            c => text.push(c),
        }
    }
    Some(Cow::Owned(text))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn elements(line: &str) -> Vec<&str> {
        elements_from_the_right(line.as_bytes())
            .map(|element| std::str::from_utf8(element).unwrap())
            .collect()
    }

    #[test]
    fn lists_are_read_backwards_and_quotes_hold_commas() {
        for (line, expected) in [
            ("a, b ,c", &["c", "b", "a"][..]),
            ("a", &["a"]),
            ("", &[""]),
            ("a,,b", &["b", "", "a"]),
            (r#"a, "b,c", d"#, &["d", "\"b,c\"", "a"]),
            (r#""b\",c", d"#, &["d", r#""b\",c""#]),
            // A client's open quote swallows its own elements, not the proxy's.
            (r#"evil", more, b, c"#, &["c", "b", "more", "evil\""]),
            (r#""evil, more" , c"#, &["c", "\"evil, more\""]),
        ] {
            assert_eq!(elements(line), expected, "{line}");
        }
    }

    #[test]
    fn the_for_of_a_forwarded_element() {
        for (element, expected) in [
            ("for=192.0.2.60", Some("192.0.2.60")),
            (
                "for=192.0.2.60;proto=http;by=203.0.113.43",
                Some("192.0.2.60"),
            ),
            ("by=203.0.113.43; FOR = 192.0.2.60", Some("192.0.2.60")),
            (
                r#"for="[2001:db8:cafe::17]:4711""#,
                Some("2001:db8:cafe::17"),
            ),
            (r#"for="192.0.2.60:80""#, Some("192.0.2.60")),
            (r#"for="19\2.0.2.60""#, Some("192.0.2.60")),
            (r#"by="a;for=1.1.1.1";for=192.0.2.60"#, Some("192.0.2.60")),
            (";for=192.0.2.60;", Some("192.0.2.60")),
            ("for=192.0.2.60; ;proto=http", Some("192.0.2.60")),
            (r#"for="192.0.2.60:_p""#, Some("192.0.2.60")),
            (r#"for="[2001:db8::1]:_p""#, Some("2001:db8::1")),
            ("for=unknown", None),
            ("for=_hidden", None),
            ("proto=https", None),
            ("for=1.1.1.1;for=2.2.2.2", None),
            ("for=", None),
            ("for", None),
            (r#"for="1.1.1.1"#, None),
            (r#"for="1.1.1.1"x"#, None),
        ] {
            let address = forwarded_for(element.as_bytes()).map(|address| address.to_string());
            assert_eq!(address.as_deref(), expected, "{element}");
        }
    }
}
