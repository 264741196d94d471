//! The slot map: which master has which slot. A snapshot; a newer one replaces it.

use std::collections::HashMap;
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
    /// Masters that are used under their names, by the addresses that redirects have.
    named: HashMap<Address, Address>,
}

impl SlotMap {
    /// Reads the reply of `asked` to CLUSTER SLOTS; `None` if it is none, or names no master. With `prefers_names` a node that is
    /// announced by its address and has told its name is used under that: certificates name hosts.
    pub(crate) fn parse(reply: &Value, asked: &Address, prefers_names: bool) -> Option<Self> {
        let Value::Array(ranges) = reply else {
            return None;
        };
        let mut map = Self {
            masters: Vec::new(),
            owners: vec![NOBODY; usize::from(SLOTS)].into(),
            named: HashMap::new(),
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
            let [host, Value::Int(port), about @ ..] = master.as_slice() else {
                return None;
            };
            let mut address = Address::announced(text(host)?, *port, asked)?;
            if prefers_names && let Some(name) = name_of(about) {
                let named = Address {
                    host: name.to_owned(),
                    port: address.port,
                };
                map.named.insert(address, named.clone());
                address = named;
            }
            let (first, last) = (usize::try_from(*first).ok()?, usize::try_from(*last).ok()?);
            let index = map.index(address)?;
            map.owners.get_mut(first..=last)?.fill(index);
        }
        (!map.masters.is_empty()).then_some(map)
    }

    /// The address under which a node is used that a redirect names.
    pub(crate) fn known(&self, address: Address) -> Address {
        self.named.get(&address).cloned().unwrap_or(address)
    }

    /// Who has the slot, if anybody.
    pub(crate) fn owner(&self, slot: u16) -> Option<&Address> {
        self.masters.get(self.owner_index(slot)?)
    }

    /// Which of the masters that is.
    pub(crate) fn owner_index(&self, slot: u16) -> Option<usize> {
        let index = *self.owners.get(usize::from(slot))?;
        (index != NOBODY).then(|| index.into())
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

/// The host name that Redis 7 tells behind a node's id, as a list or a map of properties.
fn name_of(about: &[Value]) -> Option<&str> {
    let is_name = |name: &Value| text(name) == Some("hostname");
    let name = match about.get(1)? {
        Value::Array(properties) => {
            let at = properties.iter().position(is_name)?;
            properties.get(at + 1)?
        }
        Value::Map(properties) => &properties.iter().find(|(name, _)| is_name(name))?.1,
        _ => return None,
    };
    text(name).filter(|name| !name.is_empty())
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
        SlotMap::parse(&Value::Array(ranges), &asked(), false)
    }

    /// A cluster that announces addresses, while certificates name hosts.
    #[test]
    fn a_name_that_a_node_has_told_stands_for_its_address() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |about: Value| {
            let node = vec![bulk("10.0.0.1"), Value::Int(7), bulk("id"), about];
            let range = vec![Value::Int(0), Value::Int(16_383), Value::Array(node)];
            Value::Array(vec![Value::Array(range)])
        };
        let list = Value::Array(vec![bulk("ip"), bulk("x"), bulk("hostname"), bulk("one")]);
        let properties = Value::Map(vec![(bulk("hostname"), bulk("one"))]);
        let address = Address::parse("10.0.0.1:7", &asked()).unwrap();
        for about in [list, properties] {
            let reply = node(about);
            let map = SlotMap::parse(&reply, &asked(), true).unwrap();
            assert_eq!(map.owner(1).unwrap().to_string(), "one:7");
            assert_eq!(map.known(address.clone()).to_string(), "one:7");
            let map = SlotMap::parse(&reply, &asked(), false).unwrap();
            assert_eq!(map.owner(1), Some(&address));
            assert_eq!(map.known(address.clone()), address);
        }
        for nameless in [
            Value::Array(vec![]),
            Value::Array(vec![bulk("hostname"), bulk("")]),
        ] {
            let map = SlotMap::parse(&node(nameless), &asked(), true).unwrap();
            assert_eq!(map.owner(1), Some(&address));
        }
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
        assert!(SlotMap::parse(&Value::Okay, &asked(), false).is_none());
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
