//! The faults, and what is known of each before it is made.

use super::world::Place;
use crate::RedisServer;

/// A fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// The process is killed, and starts again empty.
    Killed,
    /// The process is stopped, and goes on.
    Stopped,
    /// Its connections are ended, again and again.
    ClientKill,
    /// It makes all of its clients wait.
    ClientPause,
    /// Its scripts are forgotten, again and again.
    ScriptFlush,
    /// A script of somebody else runs and does not end.
    Busy,
    /// It starts again and loads its keys slowly.
    Loading,
    /// It becomes a replica of a primary that is not there.
    ReadOnly,
    /// It refuses writes because it cannot save.
    Misconf,
    /// It is out of memory and evicts nothing.
    OutOfMemory,
    /// It is out of memory and evicts keys, whichever.
    AllkeysRandom,
    /// It is out of memory and evicts the keys that were used the longest ago.
    AllkeysLru,
    /// It is out of memory and evicts the keys that are used the least.
    AllkeysLfu,
    /// It is out of memory and evicts keys that have a time to live, as counters do; when there are none left, it refuses.
    VolatileRandom,
    /// The same, those that were used the longest ago.
    VolatileLru,
    /// The same, those that are used the least.
    VolatileLfu,
    /// The same, those that end the soonest.
    VolatileTtl,
    /// Our password is not right any more.
    WrongPassword,
    /// We may run no scripts any more.
    MissingRight,
    /// It answers everything with errors of all kinds, PING too.
    Refusals,
    /// It answers PING, and every script with errors of all kinds.
    ScriptsRefused,
    /// Each packet takes nearly the deadline, each way.
    Latency,
    /// Bytes come one by one.
    Drip,
    /// Single requests are held up.
    HeldPackets,
    /// Requests are lost.
    LostRequests,
    /// Requests arrive, and the replies are lost.
    LostReplies,
    /// Nothing passes.
    Frozen,
    /// All connections are reset, again and again.
    Resets,
    /// Each reply is cut after some bytes, with its connection.
    CutReplies,
    /// The network comes and goes.
    Flapping,
    /// A server that speaks TLS is killed, and starts again empty.
    TlsKilled,
    /// Nothing passes to a server that speaks TLS.
    TlsFrozen,
    /// A primary is killed, and its replica takes its place.
    PrimaryKilled,
    /// A primary is cut off from its replica, which takes its place while it goes on.
    Partition,
    /// A master of a cluster is killed, and its replica takes its place.
    MasterKilled,
    /// A slot of a cluster moves.
    SlotMoves,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 36] = [
        Self::Killed,
        Self::Stopped,
        Self::ClientKill,
        Self::ClientPause,
        Self::ScriptFlush,
        Self::Busy,
        Self::Loading,
        Self::ReadOnly,
        Self::Misconf,
        Self::OutOfMemory,
        Self::AllkeysRandom,
        Self::AllkeysLru,
        Self::AllkeysLfu,
        Self::VolatileRandom,
        Self::VolatileLru,
        Self::VolatileLfu,
        Self::VolatileTtl,
        Self::WrongPassword,
        Self::MissingRight,
        Self::Refusals,
        Self::ScriptsRefused,
        Self::Latency,
        Self::Drip,
        Self::HeldPackets,
        Self::LostRequests,
        Self::LostReplies,
        Self::Frozen,
        Self::Resets,
        Self::CutReplies,
        Self::Flapping,
        Self::TlsKilled,
        Self::TlsFrozen,
        Self::PrimaryKilled,
        Self::Partition,
        Self::MasterKilled,
        Self::SlotMoves,
    ];

    /// Its name on the command line.
    pub fn name(self) -> String {
        let camel = format!("{self:?}");
        let mut name = String::new();
        for letter in camel.chars() {
            if letter.is_uppercase() && !name.is_empty() {
                name.push('-');
            }
            name.push(letter.to_ascii_lowercase());
        }
        name
    }

    pub(super) fn place(self) -> Place {
        match self {
            Self::TlsKilled | Self::TlsFrozen => Place::Tls,
            Self::Refusals | Self::ScriptsRefused => Place::Refusing,
            Self::PrimaryKilled | Self::Partition => Place::Sentinels,
            Self::MasterKilled | Self::SlotMoves => Place::Cluster,
            _ => Place::Alone,
        }
    }

    /// The policy of a server that makes room.
    pub(super) fn eviction(self) -> Option<&'static str> {
        Some(match self {
            Self::AllkeysRandom => "allkeys-random",
            Self::AllkeysLru => "allkeys-lru",
            Self::AllkeysLfu => "allkeys-lfu",
            Self::VolatileRandom => "volatile-random",
            Self::VolatileLru => "volatile-lru",
            Self::VolatileLfu => "volatile-lfu",
            Self::VolatileTtl => "volatile-ttl",
            _ => return None,
        })
    }

    /// Whether it can be made with the server program that there is.
    pub fn is_possible(self) -> bool {
        self.place() != Place::Tls || RedisServer::has_tls()
    }

    /// Whether a quick run has another one of its kind.
    pub fn is_variant(self) -> bool {
        self.eviction().is_some() && self != Self::VolatileTtl
    }

    /// Whether it keeps the machine busy: then another one at the same time would slow it down.
    pub fn is_busy(self) -> bool {
        self == Self::OutOfMemory || self.eviction().is_some()
    }

    /// Whether some checks are not answered by the store while it lasts. (The others are borne.)
    pub(super) fn shows(self) -> bool {
        let is_borne = matches!(
            self,
            Self::ClientKill
                | Self::ScriptFlush
                | Self::HeldPackets
                | Self::Partition
                | Self::SlotMoves
        );
        let makes_room = |policy: &str| policy.starts_with("allkeys");
        !is_borne && !self.eviction().is_some_and(makes_room)
    }

    /// Whether, from its beginning to its end, no check is answered by the store.
    pub(super) fn is_silent(self) -> bool {
        matches!(
            self,
            Self::Killed
                | Self::Stopped
                | Self::ClientPause
                | Self::Busy
                | Self::ReadOnly
                | Self::WrongPassword
                | Self::MissingRight
                | Self::Refusals
                | Self::ScriptsRefused
                | Self::LostRequests
                | Self::LostReplies
                | Self::Frozen
                | Self::TlsKilled
                | Self::TlsFrozen
        )
    }
}
