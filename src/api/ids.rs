//! Numbers of 64 bits as JSON has them: strings of digits, since a JavaScript number holds 53 bits.
//!
//! What always holds: a number is written in one way, without a sign or leading zeroes, and read in no other.

use std::fmt;

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// A user, a group, a message or a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Id(pub(crate) u64);

/// `"0"` to `"18446744073709551615"`.
pub(super) fn parse(text: &str) -> Option<u64> {
    let number: u64 = text.parse().ok()?;
    let plain = text.len() == 1 || !text.starts_with(['0', '+']);
    (plain && text.bytes().all(|byte| byte.is_ascii_digit())).then_some(number)
}

impl Serialize for Id {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(itoa::Buffer::new().format(self.0))
    }
}

impl<'de> Deserialize<'de> for Id {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Id, D::Error> {
        struct Digits;
        impl de::Visitor<'_> for Digits {
            type Value = Id;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number of up to 64 bits, as a string of digits")
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Id, E> {
                parse(text).map(Id).ok_or_else(|| E::invalid_value(de::Unexpected::Str(text), &self))
            }
        }
        deserializer.deserialize_str(Digits)
    }
}
