//! Parses the challenge of a registry: the `WWW-Authenticate` header of a 401 answer (RFC 9110, and
//! the token specification of CNCF distribution).

use http_auth::ChallengeParser;
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The longest header that is parsed, in bytes. No registry sends a longer one.
const LONGEST: usize = 8 << 10;

/// The authentication that a registry asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    Basic,
    /// A token from the server at `realm`.
    Bearer {
        realm: String,
        service: Option<String>,
    },
}

/// Returns the challenge to answer: Bearer before Basic, as docker and containerd choose.
pub(super) fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let texts = headers.get_all(WWW_AUTHENTICATE).iter().filter_map(|value| value.to_str().ok());
    let all: Vec<Challenge> = texts.filter(|text| text.len() <= LONGEST).flat_map(parse).collect();
    all.iter().find(|one| matches!(one, Challenge::Bearer { .. })).or(all.first()).cloned()
}

fn parse(text: &str) -> Vec<Challenge> {
    let one = |parsed: http_auth::ChallengeRef<'_>| {
        let param = |name: &str| {
            let found = parsed.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
            found.map(|(_, value)| value.to_unescaped())
        };
        if parsed.scheme.eq_ignore_ascii_case("basic") {
            return Some(Challenge::Basic);
        }
        if !parsed.scheme.eq_ignore_ascii_case("bearer") {
            return None;
        }
        Some(Challenge::Bearer { realm: param("realm")?, service: param("service") })
    };
    ChallengeParser::new(&single_spaced(text)).map_while(Result::ok).filter_map(one).collect()
}

/// Reduces the spaces after a scheme to one. RFC 9110 requires recipients to accept more, which the
/// parser does not.
fn single_spaced(text: &str) -> String {
    let (mut spaced, mut quoted, mut escaped) = (String::with_capacity(text.len()), false, false);
    for c in text.chars().map(|c| if c == '\t' { ' ' } else { c }) {
        if !quoted && c == ' ' && (spaced.is_empty() || spaced.ends_with(' ')) {
            continue;
        }
        let ends = c == '"' && !escaped;
        quoted ^= ends;
        escaped = quoted && c == '\\' && !escaped;
        spaced.push(c);
    }
    spaced
}

#[cfg(test)]
mod tests {
    use super::*;
    use reqwest::header::HeaderValue;

    fn of(texts: &[&str]) -> Option<Challenge> {
        let mut headers = HeaderMap::new();
        for text in texts {
            headers.append(WWW_AUTHENTICATE, HeaderValue::from_str(text).unwrap());
        }
        challenge(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Option<Challenge> {
        Some(Challenge::Bearer { realm: realm.into(), service: service.map(str::to_owned) })
    }

    #[test]
    fn bearer_comes_before_basic() {
        let hub = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io",scope="a:b:pull""#;
        assert_eq!(of(&[hub]), bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        assert_eq!(of(&["Basic realm=\"x\"", "bearer realm=\"https://t/\""]), bearer("https://t/", None));
        assert_eq!(of(&["Basic realm=\"x\", Bearer realm=\"https://t/\""]), bearer("https://t/", None));
        assert_eq!(of(&["Basic realm=\"x\""]), Some(Challenge::Basic));
    }

    #[test]
    fn more_space_than_needed_does_no_harm() {
        let expected = bearer("https://t/a  b", Some("s"));
        assert_eq!(of(&["Bearer  realm=\"https://t/a  b\",  service=\"s\""]), expected);
        assert_eq!(of(&["Bearer \trealm=\"https://t/a  b\" ,\tservice=s"]), expected);
        assert_eq!(of(&["  Bearer realm=\"https://t/\\\"  b\""]), bearer("https://t/\"  b", None));
    }

    #[test]
    fn quotes_and_escapes_are_undone() {
        assert_eq!(of(&[r#"Bearer realm="https://t/a,b\"c",service="x y""#]), bearer("https://t/a,b\"c", Some("x y")));
    }

    #[test]
    fn what_is_none_is_none() {
        for text in
            ["", "Bearer", "Bearer realm", "Negotiate abc", "Bearer service=\"x\"", "\"\"\"", "Bearer realm=\"x"]
        {
            assert_eq!(of(&[text]), None, "{text}");
        }
        assert_eq!(of(&[&format!("Bearer realm=\"{}\"", "x".repeat(LONGEST))]), None);
        assert_eq!(of(&[]), None);
    }

    #[test]
    fn any_text_is_parsed_without_a_panic() {
        let seeds = [r#"Bearer realm="https://a/t",service="s",scope="repository:x:pull", Basic realm="y""#];
        crate::fuzz::texts(&seeds, |text| drop(parse(text)));
    }
}
