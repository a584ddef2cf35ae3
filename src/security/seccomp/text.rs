//! A profile as a word for a later process, which installs the same filter.
//!
//! A preset stands by its name and the hash of its filter: another version of this library may have
//! another filter of that name, and must not take it for this one. Any other profile stands with
//! all of its rules.

use std::sync::Arc;

use super::compile::CallRules;
use super::rule::{Action, Compare, Rule};
use super::{Architecture, Profile, Seccomp};
use crate::text::{hex, number};

/// The first word of a profile that stands with its rules.
const RULES: &str = "rules";

/// Returns the presets by name.
fn presets() -> [(&'static str, Seccomp); 3] {
    [
        ("default", Seccomp::default()),
        ("namespaces", Seccomp::default_with_namespaces()),
        ("compute", Seccomp::compute()),
    ]
}

impl Seccomp {
    /// Returns the profile as a word of letters, digits and `.:;+-_`.
    pub(crate) fn to_text(&self) -> String {
        if let Some((name, _)) = presets().iter().find(|(_, preset)| Arc::ptr_eq(&preset.0, &self.0)) {
            return format!("{name}.{:016x}", self.hash());
        }
        let Profile { calls, log, speculation, new_privs, .. } = &*self.0;
        let CallRules { list: rules, default, foreign, architectures } = calls;
        let head = [RULES.to_owned(), action_text(*default), action_text(*foreign)];
        let flags = [*log, *speculation, *new_privs].map(|is_set| if is_set { "1" } else { "0" }).concat();
        let further = architectures.iter().map(|arch| arch.name()).collect::<Vec<_>>().join("+");
        head.into_iter().chain([flags, further]).chain(rules.iter().map(rule_text)).collect::<Vec<_>>().join(";")
    }

    /// Reads what [`to_text`](Seccomp::to_text) has written.
    pub(crate) fn from_text(text: &str) -> Option<Seccomp> {
        if let Some((name, hash)) = text.split_once('.').filter(|(name, _)| *name != RULES && !name.contains(';')) {
            let (_, preset) = presets().into_iter().find(|(known, _)| *known == name)?;
            return (hex(hash)? == preset.hash()).then_some(preset);
        }
        let mut words = text.split(';');
        if words.next() != Some(RULES) {
            return None;
        }
        let (default, foreign) = (action(words.next()?)?, action(words.next()?)?);
        let flag = |byte: &u8| (*byte == b'0' || *byte == b'1').then_some(*byte == b'1');
        let flags = words.next()?.as_bytes().iter().map(flag).collect::<Option<Vec<_>>>()?;
        let [log, speculation, new_privs] = flags[..] else { return None };
        let further = words.next()?.split('+').filter(|name| !name.is_empty());
        let further = further.map(Architecture::by_name).collect::<Option<Vec<_>>>()?;
        let rules = words.map(rule).collect::<Option<Vec<_>>>()?;
        let profile = Seccomp::with_default(default).foreign(foreign).log(log).allow_speculation(speculation);
        let profile = further.into_iter().fold(profile.allow_new_privs(new_privs), Seccomp::architecture);
        let profile = rules.into_iter().fold(profile, Seccomp::rule);
        profile.invalid().is_empty().then_some(profile)
    }

    /// Returns a number that changes with the filter: FNV-1a.
    fn hash(&self) -> u64 {
        let step = |hash: u64, byte: &u8| (hash ^ u64::from(*byte)).wrapping_mul(0x100_0000_01b3);
        self.compiled().program.iter().fold(0xcbf2_9ce4_8422_2325, step)
    }
}

fn action_text(action: Action) -> String {
    match action {
        Action::Allow => "allow".into(),
        Action::Log => "log".into(),
        Action::Errno(errno) => format!("errno.{errno}"),
        Action::Notify => "notify".into(),
        Action::Trace(number) => format!("trace.{number}"),
        Action::Trap => "trap".into(),
        Action::KillThread => "thread".into(),
        Action::KillProcess => "process".into(),
    }
}

fn action(text: &str) -> Option<Action> {
    Some(match text.split_once('.').unwrap_or((text, "")) {
        ("allow", "") => Action::Allow,
        ("log", "") => Action::Log,
        ("errno", errno) => Action::Errno(number(errno)?),
        ("notify", "") => Action::Notify,
        ("trace", value) => Action::Trace(number(value)?),
        ("trap", "") => Action::Trap,
        ("thread", "") => Action::KillThread,
        ("process", "") => Action::KillProcess,
        _ => return None,
    })
}

/// Writes `ACTION:NAME+NAME:INDEX.OPERATION.VALUE:…`.
fn rule_text(rule: &Rule) -> String {
    let head = format!("{}:{}", action_text(rule.action), rule.names.join("+"));
    rule.args.iter().fold(head, |text, (index, compare)| {
        let (operation, value, mask) = match *compare {
            Compare::Eq(value) => ("eq", value, None),
            Compare::Ne(value) => ("ne", value, None),
            Compare::Lt(value) => ("lt", value, None),
            Compare::Le(value) => ("le", value, None),
            Compare::Gt(value) => ("gt", value, None),
            Compare::Ge(value) => ("ge", value, None),
            Compare::MaskedEq { mask, value } => ("bits", value, Some(mask)),
        };
        let mask = mask.map(|mask| format!(".{mask:x}")).unwrap_or_default();
        format!("{text}:{index}.{operation}.{value:x}{mask}")
    })
}

fn rule(text: &str) -> Option<Rule> {
    let mut words = text.split(':');
    let action = action(words.next()?)?;
    let names = words.next()?.split('+').filter(|name| !name.is_empty()).map(str::to_owned);
    words.try_fold(Rule::new(names, action), |rule, word| {
        let words: Vec<&str> = word.split('.').collect();
        let (index, operation, value) = (number(words.first()?)?, *words.get(1)?, hex(words.get(2)?)?);
        let compare = match (operation, words.get(3)) {
            ("eq", None) => Compare::Eq(value),
            ("ne", None) => Compare::Ne(value),
            ("lt", None) => Compare::Lt(value),
            ("le", None) => Compare::Le(value),
            ("gt", None) => Compare::Gt(value),
            ("ge", None) => Compare::Ge(value),
            ("bits", Some(mask)) => Compare::MaskedEq { mask: hex(mask)?, value },
            _ => return None,
        };
        (words.len() <= 4).then(|| rule.arg(index, compare))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_profile_is_read_as_the_same_filter() {
        let custom = Seccomp::default()
            .rule(Rule::new(["socket", "connect"], Action::Trap).arg(0, Compare::int(40)).arg(1, Compare::Ge(7)))
            .rule(Rule::new(["read"], Action::Trace(9)).arg(2, Compare::Ne(u64::MAX)).arg(3, Compare::Lt(3)))
            .otherwise(Action::KillProcess)
            .foreign(Action::KillThread)
            .architecture(Architecture::X86)
            .architecture(Architecture::X32)
            .allow_new_privs(true)
            .log(true);
        let all = [Seccomp::default(), Seccomp::compute(), Seccomp::default_with_namespaces(), Seccomp::deny_list()];
        for profile in all.into_iter().chain([custom, Seccomp::allow_list().allow(["execve"])]) {
            let text = profile.to_text();
            let read = Seccomp::from_text(&text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!(read.compiled().program, profile.compiled().program, "{text}");
            assert_eq!((read.0.log, read.0.speculation), (profile.0.log, profile.0.speculation), "{text}");
            assert_eq!(read.allows_new_privs(), profile.allows_new_privs(), "{text}");
            assert_eq!(read.to_text(), text);
            assert!(!text.contains([',', '=', ' ']), "{text}");
        }
    }

    #[test]
    fn another_versions_preset_and_hostile_words_are_refused() {
        let own = Seccomp::default().to_text();
        assert!(own.len() < 30, "{own}");
        assert!(Seccomp::from_text("default.0000000000000000").is_none());
        assert!(Seccomp::from_text("strict.0000000000000000").is_none());
        let execless = Seccomp::allow_list().to_text();
        for text in [
            "",
            "rules",
            "rules;allow;allow;000;",
            "rules;allow;errno.38;020;",
            "rules;maybe;errno.38;000;",
            "rules;allow;errno.38;000;vax",
            &execless,
        ] {
            assert!(Seccomp::from_text(text).is_none(), "{text}");
        }
        let long = Seccomp::deny_list().rule(Rule::new(["read"], Action::Trap).arg(0, Compare::int(1))).to_text();
        crate::fuzz::texts(&[&own, &long], |text| drop(Seccomp::from_text(text)));
    }
}
