//! Arrays and objects.

use serde::Serialize;
use serde::ser::{
    SerializeMap, SerializeSeq, SerializeStruct, SerializeStructVariant, SerializeTuple,
    SerializeTupleStruct, SerializeTupleVariant,
};

use super::name::NameWriter;
use super::refused::Refused;
use super::value::ValueWriter;
use super::{number, write_string};

/// The name of `serde_json`'s number struct, and of its one field, under `arbitrary_precision`.
pub(super) const NUMBER: &str = "$serde_json::private::Number";
/// The name of `serde_json`'s `RawValue` struct.
pub(super) const RAW: &str = "$serde_json::private::RawValue";

/// Writes the elements of an array in their order, or in that of their texts.
pub(super) struct ArrayWriter<'a> {
    inside: ValueWriter<'a>,
    first: bool,
    close: &'static str,
    /// The elements' texts, if they are to be sorted.
    sorted: Option<Vec<String>>,
}

impl<'a> ArrayWriter<'a> {
    /// Opens an array whose elements `inside` writes; `close` ends it, and what it stands in.
    pub(super) fn open(inside: ValueWriter<'a>, close: &'static str, sorted: bool) -> Self {
        inside.out.push('[');
        Self {
            inside,
            first: true,
            close,
            sorted: sorted.then(Vec::new),
        }
    }

    pub(super) fn element<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        if let Some(texts) = &mut self.sorted {
            let mut text = String::new();
            self.inside.elsewhere(&mut text).write(value)?;
            texts.push(text);
            return Ok(());
        }
        if !std::mem::take(&mut self.first) {
            self.inside.out.push(',');
        }
        self.inside.again().write(value)
    }

    pub(super) fn close(mut self) {
        if let Some(texts) = &mut self.sorted {
            texts.sort_unstable();
            self.inside.out.push_str(&texts.join(","));
        }
        self.inside.out.push_str(self.close);
    }
}

/// Collects the members of an object, to write them in the order of their names.
pub(super) struct ObjectWriter<'a> {
    inside: ValueWriter<'a>,
    members: Vec<(String, String)>,
    /// A map's key whose value comes next.
    name: Option<String>,
    close: &'static str,
}

impl<'a> ObjectWriter<'a> {
    /// Opens an object whose members are on the level of `inside`; `close` ends it, and what it
    /// stands in.
    pub(super) fn open(inside: ValueWriter<'a>, close: &'static str) -> Self {
        Self {
            inside,
            members: Vec::new(),
            name: None,
            close,
        }
    }

    fn member<T: Serialize + ?Sized>(&mut self, name: String, value: &T) -> Result<(), Refused> {
        let mut text = String::new();
        self.inside.elsewhere(&mut text).write(value)?;
        self.members.push((name, text));
        Ok(())
    }

    fn close(mut self) -> Result<(), Refused> {
        self.members
            .sort_by(|(a, _), (b, _)| a.encode_utf16().cmp(b.encode_utf16()));
        if self.members.windows(2).any(|pair| pair[0].0 == pair[1].0) {
            return Err(Refused::Duplicate);
        }
        let out = self.inside.out;
        out.push('{');
        for (at, (name, value)) in self.members.iter().enumerate() {
            if at > 0 {
                out.push(',');
            }
            write_string(out, name);
            out.push(':');
            out.push_str(value);
        }
        out.push_str(self.close);
        Ok(())
    }
}

/// A struct is an object, or one of `serde_json`'s numbers in disguise.
pub(super) enum StructWriter<'a> {
    Object(ObjectWriter<'a>),
    Number(ValueWriter<'a>),
}

macro_rules! array {
    ($($trait:ident::$method:ident),* $(,)?) => {$(
        impl $trait for ArrayWriter<'_> {
            type Ok = ();
            type Error = Refused;

            fn $method<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
                self.element(value)
            }

            fn end(self) -> Result<(), Refused> {
                self.close();
                Ok(())
            }
        }
    )*};
}

array! {
    SerializeSeq::serialize_element,
    SerializeTuple::serialize_element,
    SerializeTupleStruct::serialize_field,
    SerializeTupleVariant::serialize_field,
}

impl SerializeMap for ObjectWriter<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_key<T: Serialize + ?Sized>(&mut self, key: &T) -> Result<(), Refused> {
        self.name = Some(key.serialize(NameWriter)?);
        Ok(())
    }

    fn serialize_value<T: Serialize + ?Sized>(&mut self, value: &T) -> Result<(), Refused> {
        // A value without a key is a fault of the value's own `Serialize`.
        let name = self.name.take().ok_or(Refused::Custom)?;
        self.member(name, value)
    }

    fn end(self) -> Result<(), Refused> {
        self.close()
    }
}

impl SerializeStructVariant for ObjectWriter<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.member(name.to_owned(), value)
    }

    fn end(self) -> Result<(), Refused> {
        self.close()
    }
}

impl SerializeStruct for StructWriter<'_> {
    type Ok = ();
    type Error = Refused;

    fn serialize_field<T: Serialize + ?Sized>(
        &mut self,
        name: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        match self {
            Self::Object(object) => object.member(name.to_owned(), value),
            Self::Number(number) => number::write_text(number.out, &value.serialize(NameWriter)?),
        }
    }

    fn end(self) -> Result<(), Refused> {
        match self {
            Self::Object(object) => object.close(),
            Self::Number(_) => Ok(()),
        }
    }
}
