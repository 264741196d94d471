//! What is served, a file for each path.

pub(crate) mod admin;
pub(crate) mod agent;
pub(crate) mod console;
pub(crate) mod health;
pub(crate) mod me;
pub(crate) mod operations;
pub(crate) mod switch;
pub(crate) mod webhook;
