//! Who calls: bearer API keys from a file.

use std::collections::{HashMap, HashSet};

use axum::http::{HeaderMap, StatusCode, header};
use limiter::Key;
use serde::Deserialize;
use sha2::{Digest, Sha256};

use crate::header::only;
use crate::problem::Problem;

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
    /// plain, because keys of counters are made of them.
    pub(crate) fn from_json(text: &str) -> Result<Self, String> {
        let lines: Vec<Line> = serde_json::from_str(text)
            // Serde's own words repeat what stands there, keys among it.
            .map_err(|error| {
                format!(
                    "the users cannot be read: something is no JSON, or missing, unknown or of the wrong type at line {}, column {}",
                    error.line(),
                    error.column()
                )
            })?;
        let mut ids = HashSet::new();
        let mut users = HashMap::new();
        for (number, line) in (1..).zip(lines) {
            for id in [&line.user, &line.tenant] {
                if !is_plain(id) {
                    return Err(format!(
                        "user {number} in the file: the ids of users and tenants must be letters, digits, - and _"
                    ));
                }
            }
            if !ids.insert(line.user.clone()) {
                return Err(format!("user {number} in the file stands there before"));
            }
            let user = User {
                admin_key: Key::builder()
                    .segment("ratelimit")
                    .segment("admin")
                    .token(&line.key)
                    .build(),
                id: line.user,
                tenant: line.tenant,
                admin: line.admin,
            };
            if users.insert(digest(&line.key), user).is_some() {
                return Err(format!(
                    "user {number} in the file has the key of another one"
                ));
            }
        }
        Ok(Self(users))
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

    /// As [`authenticate`](Self::authenticate), and the user must be an admin.
    pub(crate) fn authenticate_admin(&self, headers: &HeaderMap) -> Result<&User, Problem> {
        let user = self.authenticate(headers)?;
        if user.admin {
            return Ok(user);
        }
        Err(Problem::new(
            StatusCode::FORBIDDEN,
            "this API key is not an admin's",
        ))
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
        let file = |lines: [String; 2]| Users::from_json(&format!("[{}]", lines.join(",")));
        assert!(file([line("a", "alice"), line("b", "bob")]).is_ok());
        assert!(file([line("a", "alice"), line("a", "bob")]).is_err());
        assert!(file([line("a", "alice"), line("b", "alice")]).is_err());
        assert!(file([line("a", "alice"), line("b", "al/ice")]).is_err());
    }
}
