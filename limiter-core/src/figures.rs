//! What a store tells of itself for metrics.

/// One number that a store tells of itself, without I/O.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub struct Figure {
    /// The metric's name, as `limiter_redis_connections`. One that ends in `_total` only grows.
    pub name: &'static str,
    /// What it is of, as `server` and its host.
    pub labels: Vec<(&'static str, String)>,
    /// The number; below 2^53.
    pub value: f64,
}

impl Figure {
    /// A number without labels.
    #[expect(
        clippy::cast_precision_loss,
        reason = "no count here comes near to 2^53"
    )]
    pub fn new(name: &'static str, value: u64) -> Self {
        Self {
            name,
            labels: Vec::new(),
            value: value as f64,
        }
    }

    /// The same with one more label.
    #[must_use]
    pub fn with(mut self, label: &'static str, of: impl Into<String>) -> Self {
        self.labels.push((label, of.into()));
        self
    }

    /// Whether it only grows.
    pub fn is_counter(&self) -> bool {
        self.name.ends_with("_total")
    }
}
