//! Where limits are counted, as a text says.

use std::str::FromStr;

use limiter_core::Error;
use limiter_core::limit::wrap::Routing;
use serde_json::json;

use super::document::{self, Format, Node, Problem, Value};
use super::{config_error, listed};

/// What a text says of where limits are counted, with these members, each a text:
///
/// | Member | Meaning |
/// |---|---|
/// | `limits` | `store`, `local` (in each process) or `off`; needed |
/// | `keys` | for which portion of the keys, as `25%`; `100%` unless this says otherwise |
/// | `instances` | on which portion of the instances, as `25%`; `100%` unless this says otherwise |
/// | `rest` | where the rest goes: `local` unless this says otherwise |
/// | `share` | which share of each limit a process counts that counts for itself, as `1/3`; all of it unless this says otherwise |
///
/// ```
/// use limiter::config::{Format, parse_routing};
///
/// let routing = parse_routing(Format::Toml, "limits = 'store'\nkeys = '25%'\nshare = '1/2'\n")?;
/// assert_eq!(routing.to_string(), "store for 25% of the keys, the rest local with 1/2 of each limit");
/// let error = parse_routing(Format::Toml, "limits = 'on'\nkeys = '25'\n").unwrap_err();
/// assert!(error.message().contains("line 1, column 10: limits cannot be \"on\""), "{error}");
/// assert!(error.message().contains("line 2, column 8: \"25\" is no portion"), "{error}");
/// # Ok::<(), limiter::Error>(())
/// ```
///
/// # Errors
/// `Config`, with all that is wrong and where.
pub fn parse_routing(format: Format, text: &str) -> Result<Routing, Error> {
    read(format, text).map_err(|problems| config_error(listed(&problems)))
}

/// What [`parse_routing`] reads, as JSON.
pub fn write_routing(routing: &Routing) -> String {
    json!({
        "limits": routing.route().as_str(),
        "keys": routing.keys().to_string(),
        "instances": routing.instances().to_string(),
        "rest": routing.rest().as_str(),
        "share": routing.share().to_string(),
    })
    .to_string()
}

pub(super) fn read(format: Format, text: &str) -> Result<Routing, Vec<Problem>> {
    let document = document::read(text, format)?;
    let Value::Table(members) = &document.value else {
        let what = format!(
            "it is {}; give limits = \"store\", \"local\" or \"off\"",
            document.value.kind()
        );
        return Err(vec![Problem::new(document.at, what)]);
    };
    let mut problems = Vec::new();
    let mut routing = Routing::default();
    let mut route = None;
    for (name, node) in members {
        match &*name.text {
            "limits" => route = value(node, &mut problems),
            "keys" => {
                routing = value(node, &mut problems).map_or(routing, |it| routing.with_keys(it))
            }
            "instances" => {
                routing =
                    value(node, &mut problems).map_or(routing, |it| routing.with_instances(it));
            }
            "rest" => {
                routing = value(node, &mut problems).map_or(routing, |it| routing.with_rest(it))
            }
            "share" => {
                routing = value(node, &mut problems).map_or(routing, |it| routing.with_share(it))
            }
            other => problems.push(Problem::new(
                name.at,
                format!("{other:?} is unknown; there are limits, keys, instances, rest and share"),
            )),
        }
    }
    if !members.iter().any(|(name, _)| name.text == "limits") {
        let what = "limits is missing; give store, local or off";
        problems.push(Problem::new(document.at, what));
    }
    match route {
        Some(route) if problems.is_empty() => Ok(routing.with_route(route)),
        _ => Err(problems),
    }
}

fn value<T: FromStr<Err = Error>>(node: &Node, problems: &mut Vec<Problem>) -> Option<T> {
    let read = match &node.value {
        Value::Text(text) => text
            .parse()
            .map_err(|error: Error| error.message().to_owned()),
        other => Err(format!(
            "it is {}; write it as a text, in quotes",
            other.kind()
        )),
    };
    read.map_err(|what| problems.push(Problem::new(node.at, what)))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use limiter_core::limit::Share;
    use limiter_core::limit::wrap::{Portion, Route};

    #[test]
    fn what_is_written_is_read() {
        for routing in [
            Routing::default(),
            Routing::to(Route::Off),
            Routing::to(Route::Local)
                .with_keys(Portion::percent(7).unwrap())
                .with_instances("0.25%".parse().unwrap())
                .with_rest(Route::Off)
                .with_share(Share::new(1, 3).unwrap()),
        ] {
            let read = parse_routing(Format::Json, &write_routing(&routing));
            assert_eq!(read.unwrap(), routing);
        }
        for (text, hint) in [
            ("keys = '1%'", "limits is missing"),
            ("keys = '1'", "limits is missing"),
            ("limits = true", "write it as a text"),
            (
                "limits = 'off'\nkey = '1%'",
                "line 2, column 1: \"key\" is unknown",
            ),
            ("limits = 'off'\nshare = '3/2'", "line 2, column 9"),
        ] {
            let error = parse_routing(Format::Toml, text).unwrap_err();
            assert!(error.message().contains(hint), "{error}");
        }
        assert!(parse_routing(Format::Yaml, "off").is_err());
    }
}
