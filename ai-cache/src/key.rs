//! What identifies an answer, and the key it is stored under.

use std::fmt;

use limiter_core::cache::CacheKey;
use limiter_core::{Error, ErrorKind, Key};
use serde::Serialize;

use crate::canonical::{CanonicalJson, write_string};

/// Everything that an answer depends on. Two requests have one key only if all of it is equal.
///
/// The key is `cache:<operation>:<hash>` (W4), where the hash is the SHA-256, in hexadecimal, of the
/// [canonical JSON](crate::canonical) of one object with exactly these members, absent ones `null`:
/// `model`, `operation`, `parameters`, `prompt_version`, `schema_version`, `scope`. A scope is a
/// member of its own, so no parameter can pass for it.
///
/// ```
/// use ai_cache::CacheRequest;
///
/// let params = serde_json::json!({ "company": "Acme" });
/// let key = CacheRequest::new("companyResearch", &params).key()?;
/// assert_eq!(
///     key.as_str(),
///     "cache:companyResearch:ff2536c042c977065eb706b3800e60e3ac7824441fee2aba4a8a7af8ed29db34"
/// );
/// assert_ne!(key, CacheRequest::new("companyResearch", &params).scope("42").key()?);
/// # Ok::<(), limiter_core::Error>(())
/// ```
#[must_use = "call `key`"]
pub struct CacheRequest<'a, P: ?Sized> {
    model: Option<&'a str>,
    operation: &'a str,
    parameters: &'a P,
    prompt_version: Option<&'a str>,
    schema_version: Option<&'a str>,
    scope: Option<&'a str>,
}

impl<'a, P: Serialize + ?Sized> CacheRequest<'a, P> {
    /// A request that anyone may share the answer to.
    pub fn new(operation: &'a str, parameters: &'a P) -> Self {
        Self {
            model: None,
            operation,
            parameters,
            prompt_version: None,
            schema_version: None,
            scope: None,
        }
    }

    /// Whose answer it is. Never empty: that would be everybody whose id is missing.
    pub fn scope(mut self, scope: impl Into<Option<&'a str>>) -> Self {
        self.scope = scope.into();
        self
    }

    /// The model that answers.
    pub fn model(mut self, model: impl Into<Option<&'a str>>) -> Self {
        self.model = model.into();
        self
    }

    /// The version of the prompt.
    pub fn prompt_version(mut self, version: impl Into<Option<&'a str>>) -> Self {
        self.prompt_version = version.into();
        self
    }

    /// The version of the answer's type.
    pub fn schema_version(mut self, version: impl Into<Option<&'a str>>) -> Self {
        self.schema_version = version.into();
        self
    }

    /// The key.
    ///
    /// # Errors
    /// `InvalidInput` for an empty scope, and for parameters without canonical JSON. Nothing is
    /// left out to make a key.
    pub fn key(&self) -> Result<CacheKey, Error> {
        self.key_in(&namespace(self.operation)).map(|(key, _)| key)
    }

    /// The key, and the parameters' text, for a caller that holds the operation's namespace.
    pub(crate) fn key_in(&self, namespace: &Key) -> Result<(CacheKey, CanonicalJson), Error> {
        if self.scope == Some("") {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "ai_cache.key",
                "the scope is empty; give the user's id",
            ));
        }
        let parameters = CanonicalJson::of(self.parameters)?;
        // A token's digest is the SHA-256 of its text, in hexadecimal.
        let digest = Key::builder().token(self.text(&parameters)).build();
        Ok((CacheKey::new(namespace, digest.as_str()), parameters))
    }

    /// The canonical JSON that is hashed: its members in the order of their names.
    fn text(&self, parameters: &CanonicalJson) -> String {
        let mut text = String::from("{\"model\":");
        let member = |text: &mut String, value: Option<&str>| match value {
            Some(value) => write_string(text, value),
            None => text.push_str("null"),
        };
        member(&mut text, self.model);
        text.push_str(",\"operation\":");
        member(&mut text, Some(self.operation));
        text.push_str(",\"parameters\":");
        text.push_str(parameters.as_str());
        text.push_str(",\"prompt_version\":");
        member(&mut text, self.prompt_version);
        text.push_str(",\"schema_version\":");
        member(&mut text, self.schema_version);
        text.push_str(",\"scope\":");
        member(&mut text, self.scope);
        text.push('}');
        text
    }
}

impl<P: ?Sized> fmt::Debug for CacheRequest<'_, P> {
    /// Without the parameters and the scope, which may be anybody's.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheRequest")
            .field("operation", &self.operation)
            .finish_non_exhaustive()
    }
}

/// Where the answers of an operation live.
pub(crate) fn namespace(operation: &str) -> Key {
    Key::new(["cache", operation])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use serde_json::json;

    fn key(request: &CacheRequest<'_, impl Serialize>) -> String {
        request.key().unwrap().as_str().to_owned()
    }

    /// W4, B4. The hash is that of
    /// `printf '{"model":"m","operation":"op","parameters":[1],"prompt_version":"2","schema_version":null,"scope":"u"}' | sha256sum`.
    #[test]
    fn the_key_is_exactly_the_digest_of_canonical_json() {
        let request = CacheRequest::new("op", &[1])
            .scope("u")
            .model("m")
            .prompt_version("2");
        assert_eq!(
            request.text(&CanonicalJson::of(request.parameters).unwrap()),
            r#"{"model":"m","operation":"op","parameters":[1],"prompt_version":"2","schema_version":null,"scope":"u"}"#
        );
        assert_eq!(
            key(&request),
            "cache:op:f8a9487a4004de8b9b905510a9c5db0298ba30f4f7404c5f1e3705c20efc305d"
        );
    }

    /// I-K1: each part counts, and none can pass for another.
    #[test]
    fn every_part_separates() {
        let params = json!({"scope": "42", "a": 1});
        let plain = || CacheRequest::new("op", &params);
        let without = json!({"a": 1});
        let mut keys = vec![
            key(&plain()),
            key(&CacheRequest::new("op2", &params)),
            key(&CacheRequest::new("op", &without)),
            key(&CacheRequest::new("op", &without).scope("42")),
            key(&plain().scope("42")),
            key(&plain().scope("43")),
            key(&plain().scope("null")),
            key(&plain().model("42")),
            key(&plain().prompt_version("42")),
            key(&plain().schema_version("42")),
        ];
        let all = keys.len();
        keys.sort();
        keys.dedup();
        assert_eq!(keys.len(), all);
    }

    proptest! {
        /// I-K1 over random parts, with few values so that equal ones meet.
        #[test]
        fn keys_are_equal_only_for_equal_requests(
            a in parts(), b in parts(),
        ) {
            let make = |parts: &Parts| {
                let (operation, parameters, [scope, model, prompt, schema]) = parts;
                key(&CacheRequest::new(operation, parameters)
                    .scope(scope.as_deref())
                    .model(model.as_deref())
                    .prompt_version(prompt.as_deref())
                    .schema_version(schema.as_deref()))
            };
            prop_assert_eq!(a == b, make(&a) == make(&b));
        }
    }

    type Parts = (String, Option<String>, [Option<String>; 4]);

    fn parts() -> impl Strategy<Value = Parts> {
        let part = || proptest::option::of("[ab:\"]");
        ("[ab:]", part(), [part(), part(), part(), part()])
    }

    #[test]
    fn nothing_is_left_out_to_make_a_key() {
        for request in [json!(null), json!({})] {
            let error = CacheRequest::new("op", &request).scope("").key();
            assert_eq!(error.unwrap_err().kind(), ErrorKind::InvalidInput);
        }
        let error = CacheRequest::new("op", &f64::NAN).key().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput);
    }
}
