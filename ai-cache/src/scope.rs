//! Who shares an answer, as types: a per-user cache cannot be asked without a user.

use std::fmt;
use std::sync::Arc;

/// One answer for everybody: it depends on nothing but the parameters.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shared;

/// An answer for each user. [`AiCache::user`](crate::AiCache::user) picks the user; without one
/// there is nothing to call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct PerUser;

/// The answers of one user. `Debug` masks the id.
#[derive(Clone, PartialEq, Eq)]
pub struct User(Arc<str>);

impl User {
    pub(crate) fn new(id: &str) -> Self {
        Self(id.into())
    }
}

impl fmt::Debug for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("User(masked)")
    }
}

/// Scopes in which parameters name one answer: [`Shared`] and [`User`]. Closed.
pub trait Addressed: sealed::Addressed {}
impl Addressed for Shared {}
impl Addressed for User {}

/// Scopes of a cache as a whole: [`Shared`] and [`PerUser`]. Closed.
pub trait Whole: sealed::Whole {}
impl Whole for Shared {}
impl Whole for PerUser {}

pub(crate) mod sealed {
    use super::{PerUser, Shared, User};

    pub trait Addressed {
        /// The scope's part of the key.
        fn id(&self) -> Option<&str>;
    }

    impl Addressed for Shared {
        fn id(&self) -> Option<&str> {
            None
        }
    }

    impl Addressed for User {
        fn id(&self) -> Option<&str> {
            Some(&self.0)
        }
    }

    pub trait Whole {}
    impl Whole for Shared {}
    impl Whole for PerUser {}
}
