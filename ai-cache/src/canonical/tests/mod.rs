mod pairs;
mod properties;
mod rules;

use serde::Serialize;

use super::refused::Refused;
use super::write;

fn text<T: Serialize + ?Sized>(value: &T) -> String {
    write(value).unwrap()
}

fn refused<T: Serialize + ?Sized>(value: &T) -> Refused {
    write(value).unwrap_err()
}
