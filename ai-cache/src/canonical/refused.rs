//! Why a value has no canonical form.

use std::fmt;

use serde::ser;

use super::MAX_DEPTH;

/// The rule that a value breaks. It holds no part of the value, because errors are logged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    NonFinite,
    Number,
    Name,
    Duplicate,
    Depth,
    Raw,
    /// The value's own `Serialize` failed. Its message is dropped: it may quote the content.
    Custom,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let rule = match self {
            Self::NonFinite => "it holds NaN or an infinity; leave the number out",
            Self::Number => {
                "it holds a number that is not exact as a double, nor a whole number of 128 bits; give it as a string"
            }
            Self::Name => {
                "a map's keys must be strings, booleans, integers, characters or variants without data"
            }
            Self::Duplicate => "an object names one member twice",
            Self::Depth => {
                return write!(f, "it is nested deeper than {MAX_DEPTH} levels; flatten it");
            }
            Self::Raw => "it holds a RawValue, whose text is not canonical; parse it first",
            Self::Custom => "its Serialize implementation failed",
        };
        f.write_str(rule)
    }
}

impl std::error::Error for Refused {}

impl ser::Error for Refused {
    fn custom<M: fmt::Display>(_: M) -> Self {
        Self::Custom
    }
}
