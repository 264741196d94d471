use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap, HashSet};

use limiter_core::ErrorKind;
use serde::Serialize;
use serde::ser::{SerializeMap, SerializeStruct, Serializer};
use serde_json::json;

use super::{refused, text};
use crate::canonical::refused::Refused;
use crate::canonical::{CanonicalJson, MAX_DEPTH, object};

#[test]
fn rfc_8785_section_3_2_2() {
    let value = json!({
        "numbers": [333_333_333.333_333_3, 4.50, 2e-3, 0.000_000_000_000_000_000_000_000_001],
        "string": "\u{20ac}$\u{f}\nA'B\"\\\\\"/",
        "literals": [null, true, false]
    });
    assert_eq!(
        text(&value),
        r#"{"literals":[null,true,false],"numbers":[333333333.3333333,4.5,0.002,1e-27],"string":"€$\u000f\nA'B\"\\\\\"/"}"#
    );
}

#[test]
fn rfc_8785_section_3_2_3() {
    let value = json!({
        "\u{20ac}": "Euro Sign",
        "\r": "Carriage Return",
        "\u{fb33}": "Hebrew Letter Dalet With Dagesh",
        "1": "One",
        "\u{1f600}": "Emoji: Grinning Face",
        "\u{80}": "Control",
        "\u{f6}": "Latin Small Letter O With Diaeresis"
    });
    let written = text(&value);
    let order: Vec<_> = written.split('"').skip(3).step_by(4).collect();
    assert_eq!(
        order,
        [
            "Carriage Return",
            "One",
            "Control",
            "Latin Small Letter O With Diaeresis",
            "Euro Sign",
            "Emoji: Grinning Face",
            "Hebrew Letter Dalet With Dagesh",
        ]
    );
}

#[test]
fn rfc_8785_appendix_b() {
    for (bits, expected) in [
        (0x0000_0000_0000_0000_u64, "0"),
        (0x8000_0000_0000_0000, "0"),
        (0x0000_0000_0000_0001, "5e-324"),
        (0x8000_0000_0000_0001, "-5e-324"),
        (0x3eb0_c6f7_a0b5_ed8c, "9.999999999999997e-7"),
        (0x3eb0_c6f7_a0b5_ed8d, "0.000001"),
        (0x41b3_de43_5555_5553, "333333333.3333332"),
        (0x41b3_de43_5555_5554, "333333333.33333325"),
        (0x41b3_de43_5555_5555, "333333333.3333333"),
        (0x41b3_de43_5555_5556, "333333333.3333334"),
        (0x41b3_de43_5555_5557, "333333333.33333343"),
        (0xbecb_f647_612f_3696, "-0.0000033333333333333333"),
        (0x4314_3ff3_c1cb_0959, "1424953923781206.2"),
    ] {
        assert_eq!(text(&f64::from_bits(bits)), expected);
    }
    for bits in [0x7fff_ffff_ffff_ffff_u64, 0x7ff0_0000_0000_0000] {
        assert_eq!(refused(&f64::from_bits(bits)), Refused::NonFinite);
    }
    // Where RFC 8785 prints the text of another whole number, or one of several that the double may stand for.
    for bits in [
        0x7fef_ffff_ffff_ffff_u64,
        0xffef_ffff_ffff_ffff,
        0x4340_0000_0000_0000,
        0xc340_0000_0000_0000,
        0x44b5_2d02_c7e1_4af6,
        0x444b_1ae4_d6e2_ef50,
        0x4430_0000_0000_0000,
        0x444b_1ae4_d6e2_ef4e,
    ] {
        assert_eq!(refused(&f64::from_bits(bits)), Refused::Number);
    }
}

/// I-K1: the text that RFC 8785 gives the double 2^60 is that of another integer.
#[test]
fn a_double_and_an_integer_share_a_text_only_if_equal() {
    assert_eq!(refused(&1_152_921_504_606_846_976.0_f64), Refused::Number);
    assert_eq!(text(&9_007_199_254_740_991.0_f64), "9007199254740991");
    assert_eq!(text(&[1.0, -0.0, 1e15]), "[1,0,1000000000000000]");
    assert_eq!(text(&0.5_f32), "0.5");
    assert_eq!(text(&[i128::MIN]), format!("[{}]", i128::MIN));
}

/// B4: "whatever their order" holds for a set too, whose order changes from one instance to the next.
#[test]
fn sets_are_ordered() {
    #[derive(Serialize)]
    struct Search<'a> {
        tags: &'a HashSet<String>,
        nested: Option<Cow<'a, HashSet<(u8, bool)>>>,
        list: Vec<u8>,
    }
    let tags = |count: u8| -> HashSet<String> { (0..count).map(|tag| tag.to_string()).collect() };
    let first = tags(9);
    let written = text(&Search {
        tags: &first,
        nested: Some(Cow::Owned([(2, true), (10, false)].into())),
        list: vec![2, 1],
    });
    assert_eq!(
        written,
        r#"{"list":[2,1],"nested":[[10,false],[2,true]],"tags":["0","1","2","3","4","5","6","7","8"]}"#
    );
    for _ in 0..20 {
        // Each set has hash keys of its own, and so an order of its own.
        assert_eq!(text(&tags(9)), text(&first));
    }
    assert_ne!(text(&tags(8)), text(&first));
}

#[test]
fn types_take_the_form_that_serde_json_gives_them() {
    #[derive(Serialize)]
    struct Unit;
    #[derive(Serialize)]
    struct Newtype(u8);
    #[derive(Serialize)]
    struct Pair(u8, char);
    #[derive(Serialize)]
    struct Fields {
        z: Option<u8>,
        a: (Unit, Newtype, Pair),
    }
    #[derive(Serialize)]
    enum Kind {
        Plain,
        New(u8),
        Tuple(u8, bool),
        Struct { y: u8, x: Vec<Kind> },
    }
    struct Bytes(&'static [u8]);
    impl Serialize for Bytes {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            serializer.serialize_bytes(self.0)
        }
    }
    let value = (
        Fields {
            z: None,
            a: (Unit, Newtype(1), Pair(2, 'é')),
        },
        [
            Kind::Plain,
            Kind::New(3),
            Kind::Tuple(4, true),
            Kind::Struct {
                y: 5,
                x: vec![Kind::Plain],
            },
        ],
        Bytes(b"\x00\xff"),
        (),
        Some("some"),
    );
    let expected = r#"[{"a":[null,1,[2,"é"]],"z":null},["Plain",{"New":3},{"Tuple":[4,true]},{"Struct":{"x":["Plain"],"y":5}}],[0,255],null,"some"]"#;
    assert_eq!(text(&value), expected);
    // `serde_json` sorts nothing, so compare what its text means.
    let theirs: serde_json::Value =
        serde_json::from_str(&serde_json::to_string(&value).unwrap()).unwrap();
    assert_eq!(text(&theirs), expected);
}

#[test]
fn names_come_from_plain_keys_only() {
    #[derive(Serialize, PartialEq, Eq, Hash)]
    enum Name {
        Plain,
        Data(u8),
    }
    #[derive(Serialize, PartialEq, Eq, Hash)]
    struct Wrapped(i64);
    assert_eq!(text(&HashMap::from([(Wrapped(-1), 0)])), r#"{"-1":0}"#);
    assert_eq!(
        text(&BTreeMap::from([(10, 0), (9, 1)])),
        r#"{"10":0,"9":1}"#
    );
    assert_eq!(text(&HashMap::from([(true, 0)])), r#"{"true":0}"#);
    assert_eq!(text(&HashMap::from([('"', 0)])), r#"{"\"":0}"#);
    assert_eq!(text(&HashMap::from([(Name::Plain, 0)])), r#"{"Plain":0}"#);
    assert_eq!(refused(&HashMap::from([(Name::Data(1), 0)])), Refused::Name);
    assert_eq!(refused(&HashMap::from([(Some(1), 0)])), Refused::Name);
    assert_eq!(refused(&HashMap::from([((1, 2), 0)])), Refused::Name);
    assert_eq!(refused(&HashMap::from([((), 0)])), Refused::Name);
}

#[test]
fn two_members_of_one_name_are_refused() {
    struct Twice;
    impl Serialize for Twice {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut map = serializer.serialize_map(None)?;
            for name in ["a", "b", "a"] {
                map.serialize_entry(name, &())?;
            }
            map.end()
        }
    }
    assert_eq!(refused(&Twice), Refused::Duplicate);
    #[derive(Serialize)]
    struct Flattened {
        a: u8,
        #[serde(flatten)]
        rest: BTreeMap<&'static str, u8>,
    }
    let clash = Flattened {
        a: 1,
        rest: BTreeMap::from([("a", 2)]),
    };
    assert_eq!(refused(&clash), Refused::Duplicate);
}

#[test]
fn depth_is_bounded() {
    #[derive(Serialize)]
    struct Chain(Option<Box<Chain>>);
    fn lists(levels: usize) -> serde_json::Value {
        (1..levels).fold(json!([]), |inner, _| json!([inner]))
    }
    assert_eq!(text(&lists(MAX_DEPTH)), "[".repeat(128) + &"]".repeat(128));
    assert_eq!(refused(&lists(MAX_DEPTH + 1)), Refused::Depth);
    // Wrappers without a trace in JSON use the stack too.
    let chain = (0..MAX_DEPTH).fold(Chain(None), |inner, _| Chain(Some(Box::new(inner))));
    assert_eq!(refused(&chain), Refused::Depth);
}

/// Serializes as `serde_json::Number` does under the feature `arbitrary_precision`.
struct Arbitrary(&'static str);

impl Serialize for Arbitrary {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut number = serializer.serialize_struct(object::NUMBER, 1)?;
        number.serialize_field(object::NUMBER, self.0)?;
        number.end()
    }
}

#[test]
fn arbitrary_precision_is_exact_or_refused() {
    for (given, expected) in [
        ("0", "0"),
        ("-0", "0"),
        ("+7", "7"),
        ("-0.0", "0"),
        ("1e3", "1000"),
        ("1.50", "1.5"),
        ("1E-7", "1e-7"),
        ("9007199254740993", "9007199254740993"),
        (
            "340282366920938463463374607431768211455",
            "340282366920938463463374607431768211455",
        ),
        (
            "-170141183460469231731687303715884105728",
            "-170141183460469231731687303715884105728",
        ),
    ] {
        assert_eq!(text(&[Arbitrary(given)]), format!("[{expected}]"));
    }
    for given in [
        "340282366920938463463374607431768211456",
        "NaN",
        "infinity",
        "",
        "1,0",
    ] {
        assert_eq!(refused(&Arbitrary(given)), Refused::Number, "{given}");
    }
    assert_eq!(refused(&Arbitrary("1e999")), Refused::Number);
}

#[test]
fn raw_text_is_refused() {
    struct Raw;
    impl Serialize for Raw {
        fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
            let mut raw = serializer.serialize_struct(object::RAW, 1)?;
            raw.serialize_field(object::RAW, "{ }")?;
            raw.end()
        }
    }
    assert_eq!(refused(&Raw), Refused::Raw);
}

/// Known fault: "prompts logged as cache keys".
#[test]
fn errors_name_the_type_and_not_the_content() {
    struct Quoting;
    impl Serialize for Quoting {
        fn serialize<S: Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
            Err(serde::ser::Error::custom("cannot write `my salary`"))
        }
    }
    let error = CanonicalJson::of(&Quoting).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("Quoting"), "{error}");
    assert!(!format!("{error} {error:?}").contains("salary"));
}

/// The order of a tuple or an array matters, also if it begins with a set.
#[test]
fn a_tuple_that_begins_with_a_set_keeps_its_order() {
    let tags = HashSet::from(["a"]);
    let there = text(&(&tags, "Paris", "London"));
    let back = text(&(&tags, "London", "Paris"));
    assert_eq!(there, r#"[["a"],"Paris","London"]"#);
    assert_ne!(there, back);
    let (one, two) = (HashSet::from([1]), HashSet::from([2]));
    assert_ne!(text(&[&one, &two]), text(&[&two, &one]));
    assert_ne!(text(&Some((one.clone(), 2, 1))), text(&Some((one, 1, 2))));
}
