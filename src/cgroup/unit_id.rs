//! The unit of systemd that was made for one sandbox, as a later process finds it again.

use crate::text::{escape, unescape};

/// The longest name of a unit (`UNIT_NAME_MAX` of systemd, without the NUL).
pub(crate) const NAME_MAX: usize = 255;

/// A unit: its name, and the id of this one start of it, which no other unit has.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct UnitId {
    pub(crate) name: String,
    pub(crate) invocation: [u8; 16],
}

impl UnitId {
    /// Returns the unit as a word.
    pub(crate) fn to_text(&self) -> String {
        let digits: String = self.invocation.iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{digits}:{}", escape(self.name.as_bytes()))
    }

    /// Reads what [`to_text`](UnitId::to_text) has written.
    pub(crate) fn from_text(text: &str) -> Option<UnitId> {
        let (digits, name) = text.split_once(':')?;
        let plain = digits.len() == 32 && digits.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let number = u128::from_str_radix(digits, 16).ok().filter(|_| plain)?;
        let name = String::from_utf8(unescape(name)?).ok().filter(|name| is_scope(name))?;
        Some(UnitId { name, invocation: number.to_be_bytes() })
    }
}

/// Returns whether a text is the name of a scope, as systemd.unit(5) has it.
pub(crate) fn is_scope(name: &str) -> bool {
    name.len() <= NAME_MAX && name.strip_suffix(".scope").is_some_and(is_stem)
}

/// Returns whether a text can be the name of a unit before its suffix.
pub(crate) fn is_stem(stem: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_alphanumeric() || b":-_.\\".contains(&byte);
    !stem.is_empty() && !stem.starts_with('.') && stem.bytes().all(fits)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_is_read_as_it_was_written() {
        let text = "00112233445566778899aabbccddeeff:cri-containerd-a%3ab%5cx2d.scope";
        let id = UnitId::from_text(text).unwrap();
        assert_eq!((id.name.as_str(), id.invocation[15]), ("cri-containerd-a:b\\x2d.scope", 0xff));
        assert_eq!(id.to_text(), text);
    }

    #[test]
    fn what_names_no_scope_is_refused() {
        let digits = "00112233445566778899aabbccddeeff";
        let long = format!("{}.scope", "a".repeat(250));
        for name in ["", ".scope", "..scope", "a.slice", "a/b.scope", "a b.scope", "a%0a.scope", "a%2fb.scope", &long] {
            assert_eq!(UnitId::from_text(&format!("{digits}:{name}")), None, "{name}");
        }
        for text in ["", "a.scope", ":a.scope", "00:a.scope", &format!("{}:a.scope", "+".repeat(32))] {
            assert_eq!(UnitId::from_text(text), None, "{text}");
        }
        let upper = digits.to_uppercase();
        assert_eq!(UnitId::from_text(&format!("{upper}:a.scope")), None);
        crate::fuzz::texts(&[&format!("{digits}:a-b.scope")], |text| drop(UnitId::from_text(text)));
    }
}
