//! The slot map: which master has which slot. A snapshot; a newer one replaces it.

use std::fmt;

use redis::Value;

use super::slot::{SLOTS, slot_of};

const NOBODY: u16 = u16::MAX;

/// A node, as the URL or the cluster names it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Address {
    pub(crate) host: String,
    pub(crate) port: u16,
}

impl Address {
    /// Reads `host:port`, as redirects have it. An empty host is that of the node that was asked.
    pub(crate) fn parse(text: &str, asked: &Self) -> Option<Self> {
        let (host, port) = text.rsplit_once(':')?;
        Self::announced(host, i64::from(port.parse::<u16>().ok()?), asked)
    }

    fn announced(host: &str, port: i64, asked: &Self) -> Option<Self> {
        // Redis 7 says "?" where a node has not been told its own host name.
        let host = if matches!(host, "" | "?") {
            &asked.host
        } else {
            host
        };
        Some(Self {
            host: host.to_owned(),
            port: u16::try_from(port).ok().filter(|port| *port != 0)?,
        })
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

/// Which master has which slot.
pub(crate) struct SlotMap {
    masters: Vec<Address>,
    /// For each slot the index of its master.
    owners: Box<[u16]>,
}

impl SlotMap {
    /// Reads the reply of `asked` to CLUSTER SLOTS; `None` if it is none, or names no master.
    pub(crate) fn parse(reply: &Value, asked: &Address) -> Option<Self> {
        let Value::Array(ranges) = reply else {
            return None;
        };
        let mut map = Self {
            masters: Vec::new(),
            owners: vec![NOBODY; usize::from(SLOTS)].into(),
        };
        for range in ranges {
            let Value::Array(parts) = range else {
                return None;
            };
            let [
                Value::Int(first),
                Value::Int(last),
                Value::Array(master),
                ..,
            ] = parts.as_slice()
            else {
                return None;
            };
            let [host, Value::Int(port), ..] = master.as_slice() else {
                return None;
            };
            let address = Address::announced(text(host)?, *port, asked)?;
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let index = map.index(address)?;
            map.owners.get_mut(first..=last)?.fill(index);
        }
        (!map.masters.is_empty()).then_some(map)
    }

    /// Who has the slot, if anybody.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Address> {
        self.masters
            .get(usize::from(*self.owners.get(usize::from(slot))?))
    }

    pub(crate) fn masters(&self) -> &[Address] {
        &self.masters
    }

    /// How many slots nobody has.
    pub(crate) fn unowned(&self) -> usize {
        self.owners.iter().filter(|owner| **owner == NOBODY).count()
    }

    /// A key that stands in one of this node's slots: `NAME{NUMBER}`. `None` if the node has none, or so
    /// few that none is found.
    pub(crate) fn key_at(&self, address: &Address, name: &str) -> Option<String> {
        if !self.masters.contains(address) {
            return None;
        }
        (0..4 * u32::from(SLOTS))
            .map(|number| format!("{name}{{{number}}}"))
            .find(|key| self.owner(slot_of(key)) == Some(address))
    }

    fn index(&mut self, address: Address) -> Option<u16> {
        let known = self.masters.iter().position(|known| *known == address);
        let index = known.unwrap_or_else(|| {
            self.masters.push(address);
            self.masters.len() - 1
        });
        u16::try_from(index).ok().filter(|index| *index < SLOTS)
    }
}

impl fmt::Debug for SlotMap {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SlotMap")
            .field("masters", &self.masters)
            .field("unowned", &self.unowned())
            .finish()
    }
}

fn text(value: &Value) -> Option<&str> {
    match value {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok(),
        Value::SimpleString(text) => Some(text),
        Value::Nil => Some(""),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asked() -> Address {
        Address {
            host: "asked".to_owned(),
            port: 7_000,
        }
    }

    fn range(first: i64, last: i64, host: Value, port: i64) -> Value {
        let id = Value::BulkString(b"id".to_vec());
        let master = Value::Array(vec![host, Value::Int(port), id.clone()]);
        let replica = Value::BulkString(b"replica".to_vec());
        let replica = Value::Array(vec![replica, Value::Int(1), id]);
        Value::Array(vec![Value::Int(first), Value::Int(last), master, replica])
    }

    fn host(name: &str) -> Value {
        Value::BulkString(name.as_bytes().to_vec())
    }

    fn parse(ranges: Vec<Value>) -> Option<SlotMap> {
        SlotMap::parse(&Value::Array(ranges), &asked())
    }

    #[test]
    fn slots_have_their_masters_and_an_empty_host_is_the_one_that_was_asked() {
        let map = parse(vec![
            range(0, 99, host("a"), 1),
            range(100, 100, host(""), 2),
            range(200, 16_383, host("::1"), 3),
            range(102, 102, Value::Nil, 2),
            range(103, 103, host("a"), 1),
        ])
        .unwrap();
        let owner = |slot| map.owner(slot).map(ToString::to_string);
        assert_eq!(owner(0).as_deref(), Some("a:1"));
        assert_eq!(owner(99).as_deref(), Some("a:1"));
        assert_eq!(owner(100).as_deref(), Some("asked:2"));
        assert_eq!(owner(101), None);
        assert_eq!(owner(102).as_deref(), Some("asked:2"));
        assert_eq!(owner(16_383).as_deref(), Some("[::1]:3"));
        assert_eq!(map.masters().len(), 3);
        assert_eq!(map.unowned(), 97);
        for master in map.masters() {
            let key = map.key_at(master, "probe");
            if master.port == 3 {
                assert_eq!(map.owner(slot_of(&key.unwrap())), Some(master));
            }
        }
        assert_eq!(map.key_at(&asked(), "probe"), None);
    }

    #[test]
    fn what_is_no_map_is_refused() {
        assert!(SlotMap::parse(&Value::Okay, &asked()).is_none());
        assert!(parse(Vec::new()).is_none());
        assert!(parse(vec![Value::Int(1)]).is_none());
        assert!(parse(vec![range(0, 16_384, host("a"), 1)]).is_none());
        assert!(parse(vec![range(5, 3, host("a"), 1)]).is_none());
        assert!(parse(vec![range(-1, 3, host("a"), 1)]).is_none());
        assert!(parse(vec![range(0, 3, host("a"), 65_536)]).is_none());
        assert!(parse(vec![range(0, 3, host("a"), 0)]).is_none());
        assert!(parse(vec![range(0, 3, Value::Int(1), 1)]).is_none());
    }

    #[test]
    fn redirects_name_a_node() {
        let parse = |text| Address::parse(text, &asked()).map(|address| address.to_string());
        assert_eq!(parse("10.0.0.1:7001").as_deref(), Some("10.0.0.1:7001"));
        assert_eq!(parse("::1:7001").as_deref(), Some("[::1]:7001"));
        assert_eq!(parse(":7001").as_deref(), Some("asked:7001"));
        assert_eq!(parse("?:7001").as_deref(), Some("asked:7001"));
        for bad in ["", "host", "host:", "host:0", "host:65536", "host:x"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
