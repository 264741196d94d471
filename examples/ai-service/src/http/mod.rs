//! What every route shares of HTTP: bodies, headers, problems, the log of requests, and how connections are served.

pub(crate) mod body;
pub(crate) mod header;
pub(crate) mod log;
pub(crate) mod path;
pub(crate) mod problem;
pub(crate) mod room;
pub(crate) mod serve;
