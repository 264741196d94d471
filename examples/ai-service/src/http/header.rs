//! Request headers that must be unambiguous.

use axum::http::{HeaderMap, HeaderName};

use crate::http::problem::Problem;

/// The text of a header; `None` if it is absent or no text.
///
/// One that is sent twice is refused: what stands in front may have looked at the other one.
pub(crate) fn only<'a>(
    headers: &'a HeaderMap,
    name: &HeaderName,
) -> Result<Option<&'a str>, Problem> {
    let mut values = headers.get_all(name).iter();
    let first = values.next();
    if values.next().is_some() {
        return Err(Problem::bad_request(format!("send the header {name} once")));
    }
    Ok(first.and_then(|value| value.to_str().ok()))
}
