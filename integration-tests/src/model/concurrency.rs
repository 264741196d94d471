//! Concurrency: the leases.

use limiter_core::limit::algorithm::Concurrency;

use super::Definition;

#[derive(Clone, Debug)]
pub(super) struct Leases {
    limit: u64,
    leases: Vec<Lease>,
}

#[derive(Clone, Debug)]
pub(super) struct Lease {
    pub(super) id: String,
    pub(super) cost: u64,
    pub(super) until: u64,
}

impl Leases {
    pub(super) fn new(quota: &Concurrency) -> Self {
        Self {
            limit: quota.limit(),
            leases: Vec::new(),
        }
    }

    pub(super) fn find(&self, now: u64, id: &str) -> Option<&Lease> {
        let mut leases = self.leases.iter();
        leases.find(|lease| lease.id == id && now < lease.until)
    }

    pub(super) fn acquire(&mut self, now: u64, lease: Lease) {
        self.forget(now);
        self.leases.push(lease);
    }

    /// A renewal never shortens a lease.
    pub(super) fn renew(&mut self, now: u64, id: &str, until: u64) {
        self.forget(now);
        for lease in self.leases.iter_mut().filter(|lease| lease.id == id) {
            lease.until = lease.until.max(until);
        }
    }

    pub(super) fn release(&mut self, now: u64, id: &str) {
        if self.used(now) == 0 {
            return;
        }
        self.forget(now);
        self.leases.retain(|lease| lease.id != id);
    }

    /// What has run out when the leases change is gone, whatever the clock does next.
    fn forget(&mut self, now: u64) {
        self.leases.retain(|lease| now < lease.until);
    }
}

impl Definition for Leases {
    fn boxed(&self) -> Box<dyn Definition> {
        Box::new(self.clone())
    }

    fn capacity(&self) -> u64 {
        self.limit
    }

    fn used(&self, at: u64) -> u64 {
        let held = self.leases.iter().filter(|lease| at < lease.until);
        held.map(|lease| lease.cost).sum()
    }

    fn look(&mut self, _now: u64) {}

    /// What has run out is forgotten if leases cost different amounts.
    fn denied(&mut self, now: u64) {
        if self.used(now) > 0 && self.leases.iter().any(|lease| lease.cost > 1) {
            self.forget(now);
        }
    }

    fn leases(&mut self) -> Option<&mut Leases> {
        Some(self)
    }
}
