//! The value of a unit's property, and its text form.

use std::iter::Peekable;
use std::str::Chars;

use zbus::wire::{Array, ObjectPath, Signature, Variant};

/// The longest text of a value, in bytes.
const TEXT_MAX: usize = 4096;

/// A value of one of the basic types of D-Bus, or a list of such values.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Value {
    Bool(bool),
    U8(u8),
    I16(i16),
    U16(u16),
    I32(i32),
    U32(u32),
    I64(i64),
    U64(u64),
    F64(f64),
    Str(String),
    Path(String),
    /// The values, and the type of all.
    List(Kind, Vec<Value>),
}

/// A basic type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Bool,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F64,
    Str,
    Path,
}

impl Kind {
    /// The words and codes of GVariant.
    const ALL: [(&'static str, char, Kind); 11] = [
        ("boolean", 'b', Kind::Bool),
        ("byte", 'y', Kind::U8),
        ("int16", 'n', Kind::I16),
        ("uint16", 'q', Kind::U16),
        ("int32", 'i', Kind::I32),
        ("uint32", 'u', Kind::U32),
        ("int64", 'x', Kind::I64),
        ("uint64", 't', Kind::U64),
        ("double", 'd', Kind::F64),
        ("string", 's', Kind::Str),
        ("objectpath", 'o', Kind::Path),
    ];

    fn code(self) -> char {
        Kind::ALL.iter().find(|(_, _, kind)| *kind == self).map_or('s', |(_, code, _)| *code)
    }

    fn of_code(code: char) -> Option<Kind> {
        Kind::ALL.iter().find(|(_, other, _)| *other == code).map(|(_, _, kind)| *kind)
    }
}

impl Value {
    /// Reads the text form of GVariant, as gvariant-text(7) has it: `true`, `5`, `uint64 5`,
    /// `'text'`, `['a', 'b']`, `@as []`. A number without a type is an `int32`, or a `double` if it
    /// has a point. Says what is wrong with any other text.
    pub(crate) fn parse(text: &str) -> Result<Value, String> {
        if text.len() > TEXT_MAX {
            return Err(format!("it has more than {TEXT_MAX} bytes"));
        }
        let mut reader = Reader(text.chars().peekable());
        let value = reader.value()?;
        reader.skip_space();
        match reader.0.next() {
            None => Ok(value),
            Some(rest) => Err(format!("{rest:?} stands behind the value")),
        }
    }

    /// Returns a number of seconds as one of microseconds.
    pub(crate) fn seconds_as_micros(&self) -> Option<Value> {
        let whole = match *self {
            Value::U8(number) => u64::from(number),
            Value::U16(number) => number.into(),
            Value::U32(number) => number.into(),
            Value::U64(number) => number,
            Value::I16(number) => u64::try_from(number).ok()?,
            Value::I32(number) => u64::try_from(number).ok()?,
            Value::I64(number) => u64::try_from(number).ok()?,
            Value::F64(number) => {
                let micros = number * 1e6;
                // Below 2^53 every whole number is exact.
                return (0.0..9e15).contains(&micros).then_some(Value::U64(micros as u64));
            }
            _ => return None,
        };
        whole.checked_mul(1_000_000).map(Value::U64)
    }

    pub(super) fn to_variant(&self) -> Option<Variant<'_>> {
        Some(match self {
            Value::Bool(value) => Variant::from(*value),
            Value::U8(value) => Variant::from(*value),
            Value::I16(value) => Variant::from(*value),
            Value::U16(value) => Variant::from(*value),
            Value::I32(value) => Variant::from(*value),
            Value::U32(value) => Variant::from(*value),
            Value::I64(value) => Variant::from(*value),
            Value::U64(value) => Variant::from(*value),
            Value::F64(value) => Variant::from(*value),
            Value::Str(text) => Variant::from(text.as_str()),
            Value::Path(path) => Variant::from(ObjectPath::try_from(path.as_str()).ok()?),
            Value::List(kind, values) => {
                let element = Signature::try_from(kind.code().to_string().as_str()).ok()?;
                let mut array = Array::new(&element);
                for value in values {
                    array.append(value.to_variant()?).ok()?;
                }
                Variant::Array(array)
            }
        })
    }
}

struct Reader<'t>(Peekable<Chars<'t>>);

impl Reader<'_> {
    fn skip_space(&mut self) {
        while self.0.next_if(|c| c.is_ascii_whitespace()).is_some() {}
    }

    fn word(&mut self) -> String {
        let mut word = String::new();
        while let Some(c) = self.0.next_if(|c| c.is_ascii_alphanumeric() || "+-._".contains(*c)) {
            word.push(c);
        }
        word
    }

    fn value(&mut self) -> Result<Value, String> {
        self.skip_space();
        let mut list_of = None;
        if self.0.next_if_eq(&'@').is_some() {
            let code = self.word();
            self.skip_space();
            let kind = |text: &str| {
                let mut codes = text.chars();
                codes.next().and_then(Kind::of_code).filter(|_| codes.next().is_none())
            };
            match code.strip_prefix('a').map_or_else(|| (kind(&code), false), |rest| (kind(rest), true)) {
                (Some(kind), false) => return self.single(Some(kind)),
                (Some(kind), true) => list_of = Some(kind),
                (None, _) => {
                    return Err(format!("the type {code:?} is none of numbers and texts, or of lists of such"));
                }
            }
        }
        if self.0.next_if_eq(&'[').is_some() {
            return self.list(list_of);
        }
        match list_of {
            Some(_) => Err("the type is that of a list".to_owned()),
            None => self.single(None),
        }
    }

    /// Reads a list, behind its bracket.
    fn list(&mut self, mut kind: Option<Kind>) -> Result<Value, String> {
        let mut values = Vec::new();
        loop {
            self.skip_space();
            if values.is_empty() && self.0.next_if_eq(&']').is_some() {
                break;
            }
            let value = self.single(kind)?;
            kind = kind.or(Some(kind_of(&value)));
            values.push(value);
            self.skip_space();
            match self.0.next() {
                Some(',') => {}
                Some(']') => break,
                _ => return Err("the list has no end".to_owned()),
            }
        }
        match kind {
            Some(kind) => Ok(Value::List(kind, values)),
            None => Err("an empty list has no type: write it as in @as []".to_owned()),
        }
    }

    /// Reads one value of a basic type: of `kind`, if that is given.
    fn single(&mut self, kind: Option<Kind>) -> Result<Value, String> {
        self.skip_space();
        if let Some(quote) = self.0.next_if(|c| *c == '\'' || *c == '"') {
            let text = self.quoted(quote)?;
            return match kind {
                None | Some(Kind::Str) => Ok(Value::Str(text)),
                Some(Kind::Path) if ObjectPath::try_from(text.as_str()).is_ok() => Ok(Value::Path(text)),
                _ => Err(format!("{text:?} is not of the type that it should be")),
            };
        }
        let word = self.word();
        if let Some((_, _, named)) = Kind::ALL.iter().find(|(name, _, _)| *name == word) {
            return match kind {
                Some(kind) if kind != *named => Err("a list has values of one type".to_owned()),
                // Behind a type there is no second one.
                _ => self.of_kind(*named),
            };
        }
        plain(&word, kind)
    }

    fn of_kind(&mut self, kind: Kind) -> Result<Value, String> {
        self.skip_space();
        if matches!(self.0.peek(), Some('\'' | '"')) {
            return self.single(Some(kind));
        }
        let word = self.word();
        plain(&word, Some(kind))
    }

    /// Reads a text to its quote.
    fn quoted(&mut self, quote: char) -> Result<String, String> {
        let mut text = String::new();
        loop {
            match self.0.next() {
                None => return Err("the text has no end".to_owned()),
                Some('\0') => return Err("no text has a NUL".to_owned()),
                Some(c) if c == quote => return Ok(text),
                Some('\\') => text.push(self.escaped()?),
                Some(c) => text.push(c),
            }
        }
    }

    fn escaped(&mut self) -> Result<char, String> {
        let none = || "an escape is not whole".to_owned();
        let digits = match self.0.next().ok_or_else(none)? {
            'u' => 4,
            'U' => 8,
            'a' => return Ok('\x07'),
            'b' => return Ok('\x08'),
            'f' => return Ok('\x0c'),
            'n' => return Ok('\n'),
            'r' => return Ok('\r'),
            't' => return Ok('\t'),
            'v' => return Ok('\x0b'),
            c => return Ok(c),
        };
        let mut number = 0u32;
        for _ in 0..digits {
            let digit = self.0.next().and_then(|c| c.to_digit(16)).ok_or_else(none)?;
            number = (number << 4) | digit;
        }
        char::from_u32(number).filter(|c| *c != '\0').ok_or_else(none)
    }
}

fn kind_of(value: &Value) -> Kind {
    match value {
        Value::Bool(_) => Kind::Bool,
        Value::U8(_) => Kind::U8,
        Value::I16(_) => Kind::I16,
        Value::U16(_) => Kind::U16,
        Value::I32(_) => Kind::I32,
        Value::U32(_) => Kind::U32,
        Value::I64(_) => Kind::I64,
        Value::U64(_) => Kind::U64,
        Value::F64(_) => Kind::F64,
        Value::Str(_) => Kind::Str,
        Value::Path(_) => Kind::Path,
        Value::List(kind, _) => *kind,
    }
}

/// Reads a value without quotes.
fn plain(word: &str, kind: Option<Kind>) -> Result<Value, String> {
    let wrong = || match word {
        "" => "a value is missing, or is of a sort that no property here takes".to_owned(),
        _ => format!("{word:?} is no value of its type: texts stand in quotes"),
    };
    let is_number = word.starts_with(|c: char| c.is_ascii_digit() || "+-.".contains(c));
    let guessed = match word {
        "true" | "false" => Kind::Bool,
        _ if is_number && word.contains(['.', 'e', 'E']) && !word.starts_with("0x") => Kind::F64,
        _ => Kind::I32,
    };
    macro_rules! number {
        ($type:ty) => {{
            let digits = word.strip_prefix("0x").map(|digits| <$type>::from_str_radix(digits, 16));
            digits.unwrap_or_else(|| word.parse()).map_err(|_| wrong())?
        }};
    }
    Ok(match kind.unwrap_or(guessed) {
        Kind::Bool if word == "true" || word == "false" => Value::Bool(word == "true"),
        Kind::U8 => Value::U8(number!(u8)),
        Kind::I16 => Value::I16(number!(i16)),
        Kind::U16 => Value::U16(number!(u16)),
        Kind::I32 => Value::I32(number!(i32)),
        Kind::U32 => Value::U32(number!(u32)),
        Kind::I64 => Value::I64(number!(i64)),
        Kind::U64 => Value::U64(number!(u64)),
        Kind::F64 if is_number => Value::F64(word.parse().ok().filter(|n: &f64| n.is_finite()).ok_or_else(wrong)?),
        Kind::Bool | Kind::F64 | Kind::Str | Kind::Path => return Err(wrong()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_read_as_gvariant_writes_them() {
        let text = |text: &str| Value::Str(text.to_owned());
        for (written, value) in [
            ("true", Value::Bool(true)),
            (" false ", Value::Bool(false)),
            ("5", Value::I32(5)),
            ("-5", Value::I32(-5)),
            ("0x1F", Value::I32(31)),
            ("uint64 18446744073709551615", Value::U64(u64::MAX)),
            ("@t 7", Value::U64(7)),
            ("byte 0xff", Value::U8(255)),
            ("1.5", Value::F64(1.5)),
            ("double 2", Value::F64(2.0)),
            ("'inactive-or-failed'", text("inactive-or-failed")),
            (r#""it's\n\u00e4\\""#, text("it's\nä\\")),
            ("string 'a'", text("a")),
            ("objectpath '/a/b'", Value::Path("/a/b".into())),
            ("['a', \"b\"]", Value::List(Kind::Str, vec![text("a"), text("b")])),
            ("[uint32 1, 2]", Value::List(Kind::U32, vec![Value::U32(1), Value::U32(2)])),
            ("@ay [1,2]", Value::List(Kind::U8, vec![Value::U8(1), Value::U8(2)])),
            ("@as []", Value::List(Kind::Str, vec![])),
        ] {
            let read = Value::parse(written);
            assert_eq!(read, Ok(value), "{written}");
            assert!(read.unwrap().to_variant().is_some(), "{written}");
        }
    }

    #[test]
    fn other_texts_are_refused_with_a_reason() {
        for text in [
            "",
            " ",
            "inactive",
            "'a",
            "\"a'",
            "'a' 'b'",
            "[]",
            "['a'",
            "['a' 'b']",
            "['a', 1]",
            "[1, 'a']",
            "@",
            "@a []",
            "@as 'a'",
            "@s ['a']",
            "@(ss) ('a','b')",
            "('a',)",
            "{'a': 1}",
            "b'a'",
            "byte 256",
            "uint64 -1",
            "int16 99999",
            "nan",
            "inf",
            "double nan",
            "1e400",
            "5 6",
            "uint32 uint64 5",
            "objectpath 'a'",
            "'\\u12'",
            "'\\u0000'",
            "'\\ud800'",
            "'a\0'",
            "<'a'>",
            "just 5",
            "2147483648",
        ] {
            assert!(Value::parse(text).is_err_and(|reason| !reason.is_empty()), "{text:?}: {:?}", Value::parse(text));
        }
        assert!(Value::parse(&format!("'{}'", "a".repeat(TEXT_MAX))).is_err());
        let deep = "[".repeat(4000);
        assert!(Value::parse(&deep).is_err());
        crate::fuzz::texts(&["['a', \"b\\u00e4\"]", "@at [uint64 1, 2]", "-1.5e3"], |text| drop(Value::parse(text)));
    }

    #[test]
    fn seconds_become_microseconds_or_nothing() {
        let micros = |text| Value::parse(text).unwrap().seconds_as_micros();
        assert_eq!(micros("5"), Some(Value::U64(5_000_000)));
        assert_eq!(micros("0.5"), Some(Value::U64(500_000)));
        for text in ["-1", "-0.5", "uint64 18446744073709551615", "1e300", "'5'", "true"] {
            assert_eq!(micros(text), None, "{text}");
        }
    }
}
