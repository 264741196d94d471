//! Values: what a type's `Serialize` calls, in the JSON form that `serde_json` gives it.

use serde::Serialize;
use serde::ser::Serializer;

use super::object::{ArrayWriter, NUMBER, ObjectWriter, RAW, StructWriter};
use super::refused::Refused;
use super::set::is_unordered;
use super::{MAX_DEPTH, number, write_string};

/// Writes one value to the end of `out`.
pub(super) struct ValueWriter<'a> {
    pub(super) out: &'a mut String,
    depth: usize,
    /// Whether the value is a set, whose elements are sorted.
    unordered: bool,
}

impl<'a> ValueWriter<'a> {
    pub(super) fn new(out: &'a mut String) -> Self {
        Self {
            out,
            depth: 0,
            unordered: false,
        }
    }

    /// Writes a value.
    pub(super) fn write<T: Serialize + ?Sized>(mut self, value: &T) -> Result<(), Refused> {
        // A wrapper's own name says nothing of what it holds, so what was found outside stays.
        self.unordered |= is_unordered::<T>();
        value.serialize(self)
    }

    /// A writer for the next value on this level.
    pub(super) fn again(&mut self) -> ValueWriter<'_> {
        ValueWriter {
            out: self.out,
            depth: self.depth,
            unordered: false,
        }
    }

    /// A writer on this level to another text.
    pub(super) fn elsewhere<'b>(&self, out: &'b mut String) -> ValueWriter<'b> {
        ValueWriter {
            out,
            depth: self.depth,
            unordered: false,
        }
    }

    /// A writer one level deeper.
    fn deeper(self) -> Result<Self, Refused> {
        if self.depth == MAX_DEPTH {
            return Err(Refused::Depth);
        }
        Ok(Self {
            out: self.out,
            depth: self.depth + 1,
            unordered: self.unordered,
        })
    }

    /// Opens the object that stands for an enum's variant with data: `{"Variant":`.
    fn variant(self, variant: &str) -> Result<Self, Refused> {
        self.out.push('{');
        write_string(self.out, variant);
        self.out.push(':');
        self.deeper()
    }
}

macro_rules! integers {
    ($($method:ident: $type:ty),* $(,)?) => {$(
        fn $method(self, value: $type) -> Result<(), Refused> {
            number::write_integer(self.out, value);
            Ok(())
        }
    )*};
}

impl<'a> Serializer for ValueWriter<'a> {
    type Ok = ();
    type Error = Refused;
    type SerializeSeq = ArrayWriter<'a>;
    type SerializeTuple = ArrayWriter<'a>;
    type SerializeTupleStruct = ArrayWriter<'a>;
    type SerializeTupleVariant = ArrayWriter<'a>;
    type SerializeMap = ObjectWriter<'a>;
    type SerializeStruct = StructWriter<'a>;
    type SerializeStructVariant = ObjectWriter<'a>;

    integers! {
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
    }

    fn serialize_bool(self, value: bool) -> Result<(), Refused> {
        self.out.push_str(if value { "true" } else { "false" });
        Ok(())
    }

    fn serialize_f32(self, value: f32) -> Result<(), Refused> {
        self.serialize_f64(value.into())
    }

    fn serialize_f64(self, value: f64) -> Result<(), Refused> {
        number::write_float(self.out, value)
    }

    fn serialize_char(self, value: char) -> Result<(), Refused> {
        self.serialize_str(value.encode_utf8(&mut [0; 4]))
    }

    fn serialize_str(self, value: &str) -> Result<(), Refused> {
        write_string(self.out, value);
        Ok(())
    }

    fn serialize_bytes(self, value: &[u8]) -> Result<(), Refused> {
        self.collect_seq(value)
    }

    fn serialize_none(self) -> Result<(), Refused> {
        self.serialize_unit()
    }

    fn serialize_some<T: Serialize + ?Sized>(self, value: &T) -> Result<(), Refused> {
        self.deeper()?.write(value)
    }

    fn serialize_unit(self) -> Result<(), Refused> {
        self.out.push_str("null");
        Ok(())
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<(), Refused> {
        self.serialize_unit()
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
    ) -> Result<(), Refused> {
        self.serialize_str(variant)
    }

    fn serialize_newtype_struct<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        self.deeper()?.write(value)
    }

    fn serialize_newtype_variant<T: Serialize + ?Sized>(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        value: &T,
    ) -> Result<(), Refused> {
        let mut inside = self.variant(variant)?;
        inside.again().write(value)?;
        inside.out.push('}');
        Ok(())
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<ArrayWriter<'a>, Refused> {
        let sorted = self.unordered;
        Ok(ArrayWriter::open(self.deeper()?, "]", sorted))
    }

    fn serialize_tuple(self, _: usize) -> Result<ArrayWriter<'a>, Refused> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<ArrayWriter<'a>, Refused> {
        self.serialize_seq(None)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<ArrayWriter<'a>, Refused> {
        Ok(ArrayWriter::open(
            self.variant(variant)?.deeper()?,
            "]}",
            false,
        ))
    }

    fn serialize_map(self, _: Option<usize>) -> Result<ObjectWriter<'a>, Refused> {
        Ok(ObjectWriter::open(self.deeper()?, "}"))
    }

    fn serialize_struct(self, name: &'static str, _: usize) -> Result<StructWriter<'a>, Refused> {
        match name {
            NUMBER => Ok(StructWriter::Number(self)),
            RAW => Err(Refused::Raw),
            _ => Ok(StructWriter::Object(self.serialize_map(None)?)),
        }
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        variant: &'static str,
        _: usize,
    ) -> Result<ObjectWriter<'a>, Refused> {
        Ok(ObjectWriter::open(self.variant(variant)?.deeper()?, "}}"))
    }
}
