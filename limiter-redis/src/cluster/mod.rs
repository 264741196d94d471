//! Limits over a Redis Cluster: our own slot map and a pool for each node.
//!
//! - `slot`: the slot of a key. `map`: which master has which slot. `url`: the URL.
//! - `nodes`: the map as it is now, and the pools. `refresh`: how a newer map is asked for.
//! - `redirect`: one call, sent to where its slot is.
//! - `store`: the limit store. `parts`: groups over several slots. `health`: how the masters are.

mod health;
mod map;
mod nodes;
mod parts;
mod redirect;
mod refresh;
mod slot;
mod store;
mod url;

pub use slot::slot_of;
pub use store::ClusterStore;

pub(crate) use map::Address;
pub(crate) use url::ClusterUrl;

/// What becomes of a group whose keys stand in several slots of a cluster.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum CrossSlot {
    /// It is refused as `Unsupported` before anything is sent. Keys with one hash tag share a slot.
    #[default]
    Refuse,
    /// It is charged slot by slot, and given back if it is denied: all or nothing in the end, but not at
    /// once. See [`ClusterStore`] for the order and the bound.
    Compensate,
}
