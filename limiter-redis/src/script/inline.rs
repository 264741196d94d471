//! Writes the constants of a Lua script in place, and leaves its comments out.
//!
//! A script's functions are made anew by each call, and each local that one of them uses costs time then. A constant's value in
//! its place costs nothing.

use std::collections::HashMap;

/// The script with the value of each constant where it is named. A constant is declared by
/// `local NAME[, NAME..] = VALUE[, VALUE..]` with names in capitals and values that are plain numbers or texts, once in the
/// whole script.
pub(crate) fn inline(script: &str) -> String {
    let mut constants = HashMap::new();
    let mut code = String::with_capacity(script.len());
    for line in script.lines() {
        match declared(line) {
            Some(declared) => constants.extend(declared),
            None => {
                code.push_str(line);
                code.push('\n');
            }
        }
    }
    let mut inlined = String::with_capacity(code.len());
    let mut rest = code.as_str();
    while !rest.is_empty() {
        let (token, after) = rest.split_at(token(rest));
        if !token.starts_with("--") {
            inlined.push_str(constants.get(token).copied().unwrap_or(token));
        }
        rest = after;
    }
    let lines = inlined.lines().filter(|line| !line.trim().is_empty());
    lines.collect::<Vec<_>>().join("\n")
}

/// The names and values that a line declares, if it declares constants.
pub(crate) fn declared(line: &str) -> Option<Vec<(&str, &str)>> {
    let line = line.split(" --").next()?.trim();
    let (names, values) = line.strip_prefix("local ")?.split_once(" = ")?;
    let names: Vec<&str> = names.split(", ").collect();
    let values: Vec<&str> = values.split(", ").collect();
    let is_name = |name: &&str| {
        let mut bytes = name.bytes();
        bytes.next().is_some_and(|first| first.is_ascii_uppercase())
            && bytes.all(|byte| byte.is_ascii_uppercase() || byte.is_ascii_digit() || byte == b'_')
    };
    let is_value = |value: &&str| {
        let text = value
            .strip_prefix('\'')
            .and_then(|text| text.strip_suffix('\''));
        text.is_some_and(|text| !text.contains('\''))
            || value.bytes().all(|byte| byte.is_ascii_digit())
    };
    let are_constants =
        names.len() == values.len() && names.iter().all(is_name) && values.iter().all(is_value);
    are_constants.then(|| names.into_iter().zip(values).collect())
}

/// The length of the token that a script begins with: a word, a quoted text, a comment, or a character.
fn token(script: &str) -> usize {
    let is_word = |char: char| char.is_ascii_alphanumeric() || char == '_';
    let mut chars = script.char_indices();
    let first = chars.next().map_or(' ', |(_, first)| first);
    if script.starts_with("--") {
        return script.find('\n').unwrap_or(script.len());
    }
    if is_word(first) {
        return script.find(|char| !is_word(char)).unwrap_or(script.len());
    }
    if first != '\'' && first != '"' {
        return first.len_utf8();
    }
    let mut is_escaped = false;
    for (at, char) in chars {
        if char == first && !is_escaped {
            return at + 1;
        }
        is_escaped = char == '\\' && !is_escaped;
    }
    script.len()
}

#[cfg(test)]
mod tests {
    use super::inline;

    #[test]
    fn constants_stand_where_they_are_named() {
        let script = "-- A and B\nlocal A, B = 1, 'x' -- two\n  local C1 = '>I7' \nlocal one = A\n\nlocal D = { A }\n\
            call('A', \"B\", B, C1, AB, D) -- not A\nreturn 'it\\'s A' .. A";
        assert_eq!(
            inline(script),
            "local one = 1\nlocal D = { 1 }\ncall('A', \"B\", 'x', '>I7', AB, D) \nreturn 'it\\'s A' .. 1"
        );
    }
}
