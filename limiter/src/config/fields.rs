//! What a policy has in a file: the names, the kinds and the meanings, once, for reading and for the JSON Schema.

use serde_json::{Map, Value as Json, json};

use super::document::{Name, Node, Place, Problem, Value};

/// One member of a policy.
pub(super) struct Field {
    pub(super) name: &'static str,
    kind: Kind,
    meaning: &'static str,
}

enum Kind {
    /// As this pattern says.
    Text(&'static str),
    /// A whole number, 1 to this.
    Number(u64),
    Bool,
    OneOf(&'static [&'static str]),
    /// `deny`, `allow` or a table with a share.
    Outage,
}

/// Where numbers of limits end: 2^51, without it.
const MOST: u64 = (1 << 51) - 1;

const QUOTA: &str = "^\\s*0*[1-9][0-9_]*\\s*(/| per )\\s*(0*[1-9][0-9_]*\\s*)?(s|sec|seconds?|min|minutes?|h|hours?|d|days?|weeks?|months?)\\s*$";
const UNIT: &str = "^[a-z0-9-]{1,15}$";
const SCOPE: &str = "^[A-Za-z0-9_.-]{1,64}$";

/// Members of which a policy has one.
pub(super) const EXCLUSIVE: [(&str, &str); 6] = [
    ("quota", "limit"),
    ("quota", "per"),
    ("quota", "per_seconds"),
    ("quota", "refill"),
    ("per", "per_seconds"),
    ("limit", "burst"),
];

pub(super) const ALGORITHMS: [&str; 6] = [
    "fixed_window",
    "calendar_window",
    "sliding_window",
    "sliding_log",
    "token_bucket",
    "concurrency",
];

pub(super) const FIELDS: [Field; 12] = [
    field(
        "quota",
        Kind::Text(QUOTA),
        "How much in which time: 20/hour, 5 per second, 1_000 per 15 minutes. In place of limit and per.",
    ),
    field(
        "algorithm",
        Kind::OneOf(&ALGORITHMS),
        "How it is counted; fixed_window unless this says otherwise.",
    ),
    field(
        "burst",
        Kind::Number(MOST),
        "With quota: the size of a token bucket, if it is not the quota's number.",
    ),
    field(
        "limit",
        Kind::Number(MOST),
        "The window's limit, the bucket's size, or what may be held at once.",
    ),
    field(
        "refill",
        Kind::Number(MOST),
        "How much a token bucket gains in its period; the limit unless this says otherwise.",
    ),
    field(
        "per",
        Kind::OneOf(&["second", "minute", "hour", "day", "month"]),
        "The period; a month is 30 days, but for a calendar_window.",
    ),
    field(
        "per_seconds",
        Kind::Number(MOST),
        "The period in seconds, in place of per.",
    ),
    field(
        "scope",
        Kind::Text(SCOPE),
        "What metrics group by, such as api, admin or webhook: 1 to 64 letters, digits, _ - and full stops.",
    ),
    field(
        "outage",
        Kind::Outage,
        "What is answered while Redis is away: deny (the default), allow, or a share of the limit that each instance counts for itself.",
    ),
    field(
        "shadow",
        Kind::Bool,
        "Whether the policy only watches; false unless this says otherwise.",
    ),
    field(
        "version",
        Kind::Number(u32::MAX as u64),
        "To be raised when the algorithm changes; 1 unless this says otherwise.",
    ),
    field(
        "unit",
        Kind::Text(UNIT),
        "What is counted: requests (the default), tokens of an AI model, or a name of 1 to 15 of a-z 0-9 -.",
    ),
];

const fn field(name: &'static str, kind: Kind, meaning: &'static str) -> Field {
    Field {
        name,
        kind,
        meaning,
    }
}

impl Field {
    /// What is wrong with a value of this field.
    fn check(&self, node: &Node) -> Option<Problem> {
        let name = self.name;
        let expected = match (&self.kind, &node.value) {
            (Kind::Text(_), Value::Text(_)) | (Kind::Bool, Value::Bool(_)) => return None,
            (Kind::Number(most), Value::Number(number)) if (1..=*most).contains(number) => {
                return None;
            }
            (Kind::OneOf(words), Value::Text(word)) if words.contains(&&**word) => return None,
            (Kind::Outage, Value::Text(word)) if word == "deny" || word == "allow" => return None,
            (Kind::Outage, Value::Table(members)) => match &members[..] {
                [(only, share)]
                    if only.text == "local" && matches!(share.value, Value::Text(_)) =>
                {
                    return None;
                }
                _ => "deny, allow, or a table with a share, as { local = \"1/3\" }".to_owned(),
            },
            (Kind::Text(_), _) => "a text".to_owned(),
            (Kind::Number(most), _) => format!("a whole number, 1 to {most}"),
            (Kind::Bool, _) => "true or false".to_owned(),
            (Kind::OneOf(words), _) => format!("one of {}", words.join(", ")),
            (Kind::Outage, _) => {
                "deny, allow, or a table with a share, as { local = \"1/3\" }".to_owned()
            }
        };
        let found = match &node.value {
            Value::Text(text) => format!("{text:?}"),
            Value::Number(number) => number.to_string(),
            other => other.kind().to_owned(),
        };
        Some(Problem::new(
            node.at,
            format!("{name} is {found}; it is {expected}"),
        ))
    }

    fn schema(&self) -> Json {
        let mut schema = match self.kind {
            Kind::Text(pattern) => json!({ "type": "string", "pattern": pattern }),
            Kind::Number(most) => json!({ "type": "integer", "minimum": 1, "maximum": most }),
            Kind::Bool => json!({ "type": "boolean" }),
            Kind::OneOf(words) => json!({ "enum": words }),
            Kind::Outage => json!({ "oneOf": [
                { "enum": ["deny", "allow"] },
                {
                    "type": "object",
                    "properties": { "local": { "type": "string", "pattern": "^[0-9]+/[0-9]+$" } },
                    "required": ["local"],
                    "additionalProperties": false,
                },
            ] }),
        };
        schema["description"] = self.meaning.into();
        schema
    }
}

/// A policy's members by their names, each of the right kind.
pub(super) struct Members<'a> {
    pub(super) at: Place,
    members: &'a [(Name, Node)],
}

impl<'a> Members<'a> {
    /// Reads a table, and says all that is wrong with it.
    pub(super) fn read(
        at: Place,
        members: &'a [(Name, Node)],
        problems: &mut Vec<Problem>,
    ) -> Self {
        for (name, node) in members {
            match FIELDS.iter().find(|field| field.name == name.text) {
                Some(field) => problems.extend(field.check(node)),
                None => {
                    let known: Vec<_> = FIELDS.iter().map(|field| field.name).collect();
                    let what = format!(
                        "a policy has no {:?}; it has {}",
                        name.text,
                        known.join(", ")
                    );
                    problems.push(Problem::new(name.at, what));
                }
            }
        }
        Self { at, members }
    }

    pub(super) fn node(&self, name: &str) -> Option<&'a Node> {
        let named = self.members.iter().find(|(it, _)| it.text == name);
        named.map(|(_, node)| node)
    }

    pub(super) fn text(&self, name: &str) -> Option<&'a str> {
        match &self.node(name)?.value {
            Value::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn number(&self, name: &str) -> Option<u64> {
        match self.node(name)?.value {
            Value::Number(number) => Some(number),
            _ => None,
        }
    }

    pub(super) fn is_true(&self, name: &str) -> bool {
        let node = self.node(name);
        node.is_some_and(|node| matches!(node.value, Value::Bool(true)))
    }

    /// Where a member stands, or else the whole policy.
    pub(super) fn place(&self, names: &[&str]) -> Place {
        let named = names.iter().find_map(|name| self.node(name));
        named.map_or(self.at, |node| node.at)
    }
}

/// The JSON Schema of a file of policies.
pub(super) fn schema() -> Json {
    let fields = FIELDS.iter();
    let properties: Map<_, _> = fields
        .map(|field| (field.name.to_owned(), field.schema()))
        .collect();
    let has = |name: &str| json!({ "required": [name] });
    let counts_by = |algorithm: &str| json!({ "properties": { "algorithm": { "const": algorithm } }, "required": ["algorithm"] });
    let has_period = json!({ "anyOf": [has("quota"), has("per"), has("per_seconds")] });
    let mut rules: Vec<Json> = EXCLUSIVE
        .iter()
        .map(|(one, other)| json!({ "not": { "required": [one, other] } }))
        .collect();
    rules.extend([
        json!({
            "if": { "anyOf": [has("burst"), has("refill")] },
            "then": counts_by("token_bucket"),
        }),
        json!({
            "if": counts_by("concurrency"),
            "then": { "not": has_period },
            "else": has_period,
        }),
    ]);
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Policies of limiter",
        "description": "Rate limits by their names, as TOML, YAML or JSON.",
        "type": "object",
        "properties": {
            "$schema": { "type": "string", "description": "This schema, for editors." },
            "policies": {
                "type": "object",
                "description": "Each policy under its name: 1 to 64 letters, digits, _ - and full stops.",
                "propertyNames": { "pattern": "^[A-Za-z0-9_.-]{1,64}$" },
                "additionalProperties": {
                    "type": "object",
                    "properties": properties,
                    "additionalProperties": false,
                    "oneOf": [has("quota"), has("limit")],
                    "allOf": rules,
                },
            },
        },
        "required": ["policies"],
        "additionalProperties": false,
    })
}
