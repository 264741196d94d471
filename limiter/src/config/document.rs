//! A text in TOML, YAML or JSON as one tree, which knows where everything stands.

use saphyr::{LoadableYamlNode, MarkedYaml, Marker, Scalar, YamlData};
use saphyr_parser::{Event, Parser};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// Where something stands in a text, both from 1.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Place {
    pub(super) line: usize,
    pub(super) column: usize,
}

/// What is wrong, and where.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Problem {
    pub(super) at: Place,
    pub(super) what: String,
}

impl Problem {
    pub(super) fn new(at: Place, what: impl Into<String>) -> Self {
        let what = what.into();
        Self { at, what }
    }
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Node {
    pub(super) at: Place,
    pub(super) value: Value,
}

#[derive(Clone, Debug)]
pub(super) enum Value {
    Text(String),
    Number(u64),
    Bool(bool),
    Table(Vec<(Name, Node)>),
    /// What no setting is, by its name.
    Other(&'static str),
}

/// A member's name and where it stands.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) at: Place,
    pub(super) text: String,
}

impl Value {
    /// What it is, for whoever expected something else.
    pub(super) fn kind(&self) -> &'static str {
        match self {
            Self::Text(_) => "a text",
            Self::Number(_) => "a number",
            Self::Bool(_) => "true or false",
            Self::Table(_) => "a table",
            Self::Other(kind) => kind,
        }
    }
}

/// The language of a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Format {
    /// TOML 1.1.
    Toml,
    /// YAML 1.2, and with it JSON.
    Yaml,
    /// JSON: the flow style of YAML, so comments and a comma at an end are read, too.
    Json,
}

/// Reads a text; what is wrong with it, if it cannot be read.
pub(super) fn read(text: &str, format: Format) -> Result<Node, Vec<Problem>> {
    // Editors put it there; within a text it is none.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let lines = Lines::of(text);
    if let Some(at) = text.find('\u{feff}') {
        let what = "a byte order mark stands within the text; delete it";
        return Err(vec![Problem::new(lines.place(at), what)]);
    }
    if text.trim().is_empty() {
        return Err(vec![Problem::new(
            Place { line: 1, column: 1 },
            "the file is empty",
        )]);
    }
    match format {
        Format::Toml => read_toml(text, &lines),
        Format::Yaml | Format::Json => read_yaml(text, &lines),
    }
}

/// Where lines begin.
struct Lines<'a> {
    text: &'a str,
    begins: Vec<usize>,
    /// The last character that says something.
    end: Place,
}

impl<'a> Lines<'a> {
    fn of(text: &'a str) -> Self {
        let ends = text.match_indices('\n').map(|(at, _)| at + 1);
        let mut lines = Self {
            text,
            begins: std::iter::once(0).chain(ends).collect(),
            end: Place::default(),
        };
        lines.end = lines.place(text.trim_end().len());
        lines
    }

    /// The place of a byte.
    fn place(&self, at: usize) -> Place {
        let at = at.min(self.text.len());
        let line = self.begins.partition_point(|begin| *begin <= at);
        let begin = self.begins[line - 1];
        let before = self.text.get(begin..at).unwrap_or_default();
        Place {
            line,
            column: before.chars().count() + 1,
        }
    }

    /// YAML's own place; what it finds missing behind the end is missing at the end.
    fn of_marker(&self, marker: Marker) -> Place {
        let place = Place {
            line: marker.line().max(1),
            column: marker.col() + 1,
        };
        place.min(self.end)
    }
}

fn read_toml(text: &str, lines: &Lines<'_>) -> Result<Node, Vec<Problem>> {
    let (table, errors) = DeTable::parse_recoverable(text);
    if errors.is_empty() {
        let value = of_toml_table(table.get_ref(), lines);
        let at = Place { line: 1, column: 1 };
        return Ok(Node { at, value });
    }
    let problems = errors.iter().map(|error| {
        let at = error.span().map_or(0, |span| span.start);
        Problem::new(lines.place(at), error.message())
    });
    Err(problems.collect())
}

fn of_toml_table(table: &DeTable<'_>, lines: &Lines<'_>) -> Value {
    let member = |(name, value): (&Spanned<_>, &Spanned<DeValue<'_>>)| {
        let at = lines.place(name.span().start);
        let text = AsRef::<str>::as_ref(name.get_ref()).to_owned();
        (Name { at, text }, of_toml(value, lines))
    };
    let mut members: Vec<_> = table.iter().map(member).collect();
    members.sort_by_key(|(name, _)| name.at);
    Value::Table(members)
}

fn of_toml(node: &Spanned<DeValue<'_>>, lines: &Lines<'_>) -> Node {
    let value = match node.get_ref() {
        DeValue::String(text) => Value::Text(text.clone().into_owned()),
        DeValue::Integer(number) => {
            let digits = number.as_str();
            match u64::from_str_radix(digits, number.radix()) {
                Ok(number) => Value::Number(number),
                Err(_) if digits.starts_with('-') => Value::Other("a negative number"),
                Err(_) => Value::Other("a number that is too large"),
            }
        }
        DeValue::Boolean(it) => Value::Bool(*it),
        DeValue::Array(_) => Value::Other("a list"),
        DeValue::Table(table) => of_toml_table(table, lines),
        DeValue::Float(_) => Value::Other("a fraction"),
        DeValue::Datetime(_) => Value::Other("a date"),
    };
    Node {
        at: lines.place(node.span().start),
        value,
    }
}

/// How deep tables may stand in each other: nothing here needs more, and whoever reads them calls itself for each.
const DEEPEST: usize = 32;

/// What a document must not have, found without calling itself: too much depth, tags, and names that are no texts.
fn check_yaml(text: &str, lines: &Lines<'_>) -> Result<(), Vec<Problem>> {
    let mut depth = 0;
    for event in Parser::new_from_str(text) {
        // What is wrong with the text itself is told by whoever reads it.
        let Ok((event, span)) = event else { break };
        let refused = |what: &str| Err(vec![Problem::new(lines.of_marker(span.start), what)]);
        match event {
            Event::SequenceStart(_, tag) | Event::MappingStart(_, tag) => {
                depth += 1;
                if depth > DEEPEST {
                    return refused("it stands too deep in others");
                }
                if tag.is_some() {
                    return refused("it has a tag; write the value alone");
                }
            }
            Event::SequenceEnd | Event::MappingEnd => depth -= 1,
            Event::Scalar(_, _, _, Some(_)) => {
                return refused("it has a tag; write the value alone");
            }
            _ => {}
        }
    }
    Ok(())
}

fn read_yaml(text: &str, lines: &Lines<'_>) -> Result<Node, Vec<Problem>> {
    check_yaml(text, lines)?;
    let documents = MarkedYaml::load_from_str(text).map_err(|error| {
        let at = lines.of_marker(*error.marker());
        vec![Problem::new(at, error.info())]
    })?;
    match &documents[..] {
        [only] => {
            let mut problems = Vec::new();
            let node = of_yaml(only, lines, &mut problems);
            if problems.is_empty() {
                Ok(node)
            } else {
                Err(problems)
            }
        }
        [] => Err(vec![Problem::new(
            Place { line: 1, column: 1 },
            "the file is empty",
        )]),
        [_, second, ..] => {
            let at = lines.of_marker(second.span.start);
            Err(vec![Problem::new(at, "a second document begins; give one")])
        }
    }
}

fn of_yaml(node: &MarkedYaml<'_>, lines: &Lines<'_>, problems: &mut Vec<Problem>) -> Node {
    let value = match &node.data {
        YamlData::Value(scalar) => match scalar {
            Scalar::String(text) => Value::Text(text.clone().into_owned()),
            Scalar::Integer(number) => match u64::try_from(*number) {
                Ok(number) => Value::Number(number),
                Err(_) => Value::Other("a negative number"),
            },
            Scalar::Boolean(it) => Value::Bool(*it),
            // 2^63 and more is none of its integers.
            Scalar::FloatingPoint(number) if number.abs() >= 9.2e18 => {
                Value::Other("a number that is too large")
            }
            Scalar::FloatingPoint(_) => Value::Other("a fraction"),
            Scalar::Null => Value::Other("nothing"),
        },
        YamlData::Sequence(_) => Value::Other("a list"),
        YamlData::Mapping(table) => {
            let mut members: Vec<(Name, Node)> = Vec::new();
            for (name, node) in table {
                let at = lines.of_marker(name.span.start);
                let YamlData::Value(Scalar::String(text)) = &name.data else {
                    problems.push(Problem::new(at, "a name is a text; write it in quotes"));
                    continue;
                };
                let text = text.clone().into_owned();
                members.push((Name { at, text }, of_yaml(node, lines, problems)));
            }
            Value::Table(members)
        }
        _ => Value::Other("a tag or an alias"),
    };
    Node {
        at: lines.of_marker(node.span.start),
        value,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(text: &str, format: Format) -> Vec<(usize, usize)> {
        let problems = read(text, format).unwrap_err();
        problems
            .iter()
            .map(|problem| (problem.at.line, problem.at.column))
            .collect()
    }

    #[test]
    fn what_cannot_be_read_is_where_it_stands() {
        assert_eq!(refused("", Format::Json), [(1, 1)]);
        assert_eq!(refused(" \n\t\n", Format::Toml), [(1, 1)]);
        assert_eq!(refused("a = 1\na = 2\n", Format::Toml), [(2, 1)]);
        assert_eq!(refused("a: 1\na: 2\n", Format::Yaml), [(2, 1)]);
        assert_eq!(refused("a = 1\nb = \u{feff}2\n", Format::Toml), [(2, 5)]);
        // Half written.
        assert_eq!(refused("{\"a\": [1,\n  2", Format::Json), [(2, 4)]);
        assert_eq!(refused("a = 1\nb = [1,\n", Format::Toml).len(), 1);
        assert_eq!(refused("--- 1\n--- 2", Format::Yaml), [(2, 5)]);
        assert_eq!(refused("a: !x 1", Format::Yaml), [(1, 4)]);
        assert_eq!(
            refused("a: 1\n7: 2\ntrue: 3", Format::Yaml),
            [(2, 1), (3, 1)]
        );
        let deep = format!("{}x", "- ".repeat(100_000));
        assert_eq!(refused(&deep, Format::Yaml), [(1, 65)]);
        let deep = format!("{}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert_eq!(refused(&deep, Format::Json).len(), 1);
        let deep = format!("a = {}{}", "[".repeat(10_000), "]".repeat(10_000));
        assert!(!refused(&deep, Format::Toml).is_empty());
        // Each of them.
        assert_eq!(refused("a = \n[b\nc = 1\n", Format::Toml).len(), 2);
    }

    #[test]
    fn three_languages_are_one_tree() {
        for (text, format) in [
            (
                "\u{feff}[p.'ä']\nn = 0x10\nt = 'x'\nb = true\n",
                Format::Toml,
            ),
            (
                "p:\n  ä:\n    n: 0x10\n    t: x\n    b: true\n",
                Format::Yaml,
            ),
            (
                "{\"p\": {\n\t\"ä\": {\"n\": 16, \"t\": \"x\",\n\t\t\"b\": true}}}",
                Format::Json,
            ),
        ] {
            let node = read(text, format).unwrap();
            let told = format!("{node:?}").replace("at: Place", "");
            for part in ["Number(16)", "Text(\"x\")", "Bool(true)", "text: \"ä\""] {
                assert!(told.contains(part), "{part} in {told}");
            }
        }
        for (text, kind) in [
            ("a: 1.5", "a fraction"),
            ("a: -1", "a negative number"),
            ("a: 18446744073709551616", "a number that is too large"),
            ("a: ~", "nothing"),
        ] {
            let Value::Table(members) = read(text, Format::Yaml).unwrap().value else {
                panic!("a table")
            };
            assert_eq!(members[0].1.value.kind(), kind);
        }
    }
}
