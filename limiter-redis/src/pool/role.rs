//! Whether a server is one that may be written to.

use redis::{RedisError, Value};

use crate::error::breaks;

/// Refuses a replica, by its reply to ROLE: it answers reads and fails every charge.
pub(super) fn check_role(reply: &Value) -> Result<(), RedisError> {
    let role = match reply {
        Value::Array(parts) => parts.first(),
        // A hosted Redis may not offer ROLE. Then the first write tells.
        Value::ServerError(error) => {
            let error = RedisError::from(error.clone());
            return if breaks(&error) { Err(error) } else { Ok(()) };
        }
        _ => None,
    };
    match role {
        Some(Value::BulkString(role)) if role == b"slave" => {
            let kind = redis::ErrorKind::Server(redis::ServerErrorKind::ReadOnly);
            Err((kind, "the server is a replica").into())
        }
        _ => Ok(()),
    }
}
