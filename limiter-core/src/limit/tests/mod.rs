//! Tests of this module's types and of `apply_group`. Expected values are written out, or follow from the
//! definitions of docs/algorithms.md, never from the code's own formulas.

mod actions;
mod decisions;
mod groups;
mod quotas;
