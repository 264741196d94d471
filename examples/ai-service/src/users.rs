//! Who calls: bearer API keys from a file.

use std::collections::{HashMap, HashSet};

use axum::http::{HeaderMap, header};
use limiter::Key;
use serde::Deserialize;
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::http::header::only;
use crate::http::problem::Problem;

/// The users by the digest of their key, so that a lookup tells nothing by its time.
pub(crate) struct Users(HashMap<[u8; 32], User>);

/// A caller.
#[derive(Clone)]
pub(crate) struct User {
    pub(crate) id: String,
    pub(crate) tenant: String,
    pub(crate) admin: bool,
    /// The counter of an admin's calls, made of the key's digest (B2).
    pub(crate) admin_key: Key,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Line {
    key: String,
    user: String,
    tenant: String,
    #[serde(default)]
    admin: bool,
}

impl Users {
    /// Reads a JSON array of `key`, `user`, `tenant` and, if so, `admin`. Ids of users and tenants are
    /// plain, because keys of counters are made of them. An error says the line, and never a key.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        const FORM: &str = r#"give an array of {"key": "...", "user": "...", "tenant": "..."}"#;
        let entries: Vec<&RawValue> = serde_json::from_str(text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            format!("line {line}, column {column}: this is no JSON array; {FORM}")
        })?;
        if entries.is_empty() {
            return Err(format!("line 1: the list of users is empty; {FORM}"));
        }
        let mut ids = HashSet::new();
        let mut users = HashMap::new();
        for entry in entries {
            let line = line_of(text, entry.get());
            let wrong = |what: &str| format!("line {line}: {what}");
            let entry: Line = serde_json::from_str(entry.get()).map_err(|error| {
                // Serde's own words repeat what stands there, keys among it.
                let line = line + error.line() - 1;
                format!("line {line}: a member of a user is missing, unknown or of the wrong type; {FORM}")
            })?;
            if entry.key.trim().is_empty() || entry.key.trim() != entry.key {
                return Err(wrong(
                    "the key is empty, or has blanks around it, which no header can send",
                ));
            }
            for id in [&entry.user, &entry.tenant] {
                if !is_plain(id) {
                    return Err(wrong(
                        "the ids of users and tenants must be letters, digits, - and _, at least one",
                    ));
                }
            }
            if !ids.insert(entry.user.clone()) {
                return Err(wrong("this user id is there twice"));
            }
            let user = User {
                admin_key: Key::builder()
                    .segment("ratelimit")
                    .segment("admin")
                    .token(&entry.key)
                    .build(),
                id: entry.user,
                tenant: entry.tenant,
                admin: entry.admin,
            };
            if users.insert(digest(&entry.key), user).is_some() {
                return Err(wrong("this user has the key of another one"));
            }
        }
        Ok(Self(users))
    }

    /// The user of an id.
    pub(crate) fn by_id(&self, id: &str) -> Option<&User> {
        self.0.values().find(|user| user.id == id)
    }

    /// The user of a request's bearer key.
    pub(crate) fn authenticate(&self, headers: &HeaderMap) -> Result<&User, Problem> {
        let key = only(headers, &header::AUTHORIZATION)?
            .and_then(|value| value.split_once(' '))
            .filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"))
            .map(|(_, key)| key.trim())
            .ok_or_else(|| Problem::unauthorized("send an API key: Authorization: Bearer KEY"))?;
        self.0
            .get(&digest(key))
            .ok_or_else(|| Problem::unauthorized("this API key is not known"))
    }

    /// Whether somebody here has the key of somebody there.
    pub(crate) fn share_a_key_with(&self, other: &Self) -> bool {
        self.0.keys().any(|key| other.0.contains_key(key))
    }

    /// Everybody, by id.
    pub(crate) fn all(&self) -> Vec<&User> {
        let mut users: Vec<_> = self.0.values().collect();
        users.sort_by(|a, b| a.id.cmp(&b.id));
        users
    }
}

/// The line in a text at which a part of it begins.
fn line_of(text: &str, part: &str) -> usize {
    let at = (part.as_ptr() as usize).saturating_sub(text.as_ptr() as usize);
    let before = text.as_bytes().get(..at).unwrap_or_default();
    1 + before.iter().filter(|byte| **byte == b'\n').count()
}

/// Whether a name can be a part of a counter's key as it is: letters, digits, - and _, at least one.
pub(crate) fn is_plain(name: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_');
    !name.is_empty() && name.chars().all(plain)
}

fn digest(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_that_would_mix_users_up_are_refused() {
        let line = |key: &str, user: &str| {
            format!(r#"{{"key": "{key}", "user": "{user}", "tenant": "t"}}"#)
        };
        let file = |lines: [String; 2]| Users::from_json(&format!("[\n{}\n]", lines.join(",\n")));
        assert!(file([line("a", "alice"), line("b", "bob")]).is_ok());
        for (second, what) in [
            (line("a", "bob"), "the key of another one"),
            (line("b", "alice"), "is there twice"),
            (line("b", "al/ice"), "must be letters"),
            (line("b", ""), "must be letters"),
            (line("", "bob"), "the key is empty"),
            (line(" ", "bob"), "the key is empty"),
            (line("b ", "bob"), "blanks around it"),
            (r#"{"key": "b", "user": "bob"}"#.to_owned(), "missing"),
            (
                r#"{"key": "b", "user": 7, "tenant": "t"}"#.to_owned(),
                "wrong type",
            ),
        ] {
            let Err(error) = file([line("a", "alice"), second]) else {
                panic!("{what}");
            };
            assert!(
                error.starts_with("line 3: ") && error.contains(what),
                "{error}"
            );
        }
        for (text, what) in [
            ("[]", "the list of users is empty"),
            ("{}", "line 1, column 0: this is no JSON array"),
            ("[\n{,\n]", "line 2, column 2"),
        ] {
            let Err(error) = Users::from_json(text) else {
                panic!("{text}");
            };
            assert!(error.contains(what), "{error}");
        }
    }
}
