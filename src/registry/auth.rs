//! Turns a challenge into an authorization: basic authentication, or a token (the token
//! specification of CNCF distribution, and its OAuth 2 variant for refresh tokens).

use bytes::Bytes;
use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, StatusCode, Url};
use serde::Deserialize;
use tokio::sync::Mutex;

use super::challenge::{Challenge, challenge};
use super::failure::{Failure, Subject};
use super::http::{Authorization, Call, HttpClient, Payload};
use super::login::{Login, Logins};
use super::response::{denied, refused};
use crate::error::{ErrorKind, Step};

/// The largest answer of a token server that is read, in bytes. docker has the same limit.
const LARGEST_TOKEN: usize = 1 << 20;

/// The authorization for one registry and one set of scopes.
pub(super) struct Auth {
    host: String,
    repository: String,
    scopes: Vec<String>,
    logins: Logins,
    given: Option<Login>,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    login: Option<Login>,
    authorization: Option<Authorization>,
}

#[derive(Deserialize)]
struct Token {
    token: Option<String>,
    access_token: Option<String>,
}

impl Auth {
    /// Creates an authorization. `given` credentials take precedence over those of `logins`.
    pub(super) fn new(host: &str, repository: &str, scopes: Vec<String>, logins: Logins, given: Option<Login>) -> Self {
        let (host, repository) = (host.to_owned(), repository.to_owned());
        Auth { host, repository, scopes, logins, given, state: Mutex::default() }
    }

    /// Returns the reason that no credentials were sent, if this machine is at fault.
    pub(super) async fn fault(&self) -> Option<String> {
        self.state.lock().await.login.as_ref().and_then(Login::fault)
    }

    /// Returns the authorization that the registry last accepted, to send without a challenge.
    pub(super) async fn current(&self) -> Option<Authorization> {
        self.state.lock().await.authorization.clone()
    }

    /// Returns the authorization to send after a 401 answer to `shown`. If another request has
    /// renewed the authorization meanwhile, returns that one.
    pub(super) async fn renew(
        &self,
        http: &HttpClient,
        base: &Url,
        headers: &HeaderMap,
        shown: Option<&Authorization>,
    ) -> Result<Authorization, Failure> {
        let mut state = self.state.lock().await;
        if let Some(new) = state.authorization.as_ref().filter(|new| Some(*new) != shown) {
            return Ok(new.clone());
        }
        let login = match (&state.login, &self.given) {
            (Some(login), _) | (None, Some(login)) => login.clone(),
            (None, None) => self.logins.find(&self.host, &self.repository).await?,
        };
        state.login = Some(login.clone());
        let subject = Subject::new(Step::Authenticate, &self.host);
        let new = match challenge(headers) {
            Some(Challenge::Bearer { realm, service }) => {
                let call = token_call(http, &subject, base, &realm, service.as_deref(), &self.scopes, &login)?;
                token(http, &subject, &call, &login).await?
            }
            Some(Challenge::Basic) => match login {
                Login::Password { user, password } => Authorization::Basic { user, password },
                Login::Anonymous | Login::MissingHelper(_) => {
                    let fault = login.fault().map_or(String::new(), |fault| format!("; {fault}"));
                    return Err(denied(&subject, format!("it wants a user and a password{fault}")));
                }
                Login::Identity(_) => return Err(denied(&subject, "it wants a password, and the login has a token")),
            },
            None => return Err(subject.protocol("the registry asks for an authorization, but does not say which")),
        };
        // The registry would refuse the same authorization again.
        if Some(&new) == shown {
            return Err(denied(&subject, "the credentials are refused"));
        }
        state.authorization = Some(new.clone());
        Ok(new)
    }
}

/// Builds the request for a token. As in all clients, credentials go to the token server that the
/// registry names, but not without TLS if the registry itself uses TLS.
fn token_call(
    http: &HttpClient,
    subject: &Subject,
    base: &Url,
    realm: &str,
    service: Option<&str>,
    scopes: &[String],
    login: &Login,
) -> Result<Call, Failure> {
    if Url::parse(realm).is_err() {
        return Err(subject.protocol("the registry names a token server without an address"));
    }
    let mut url = http.plain().resolve_redirect(base, realm).map_err(|why| {
        subject
            .error(ErrorKind::Protocol, format!("the registry's token server is refused: {why}"))
            .hint("the registry is not configured correctly")
    })?;
    let service = service.into_iter().map(|service| ("service", service));
    let Login::Identity(refresh) = login else {
        let scopes = scopes.iter().map(|scope| ("scope", scope.as_str()));
        url.query_pairs_mut().extend_pairs(service.chain(scopes));
        return Ok(Call::new(Method::GET, url));
    };
    let scope = scopes.join(" ");
    let form = form_urlencoded::Serializer::new(String::new())
        .extend_pairs([("grant_type", "refresh_token"), ("refresh_token", refresh), ("client_id", "ringfence")])
        .extend_pairs([("scope", scope.as_str())])
        .extend_pairs(service)
        .finish();
    let mut call = Call::new(Method::POST, url);
    call.headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
    call.payload = Payload::Secret(Bytes::from(form));
    Ok(call)
}

async fn token(http: &HttpClient, subject: &Subject, call: &Call, login: &Login) -> Result<Authorization, Failure> {
    let basic = match login {
        Login::Password { user, password } => {
            Some(Authorization::Basic { user: user.clone(), password: password.clone() })
        }
        Login::Anonymous | Login::Identity(_) | Login::MissingHelper(_) => None,
    };
    let response = http.send(subject, call, basic.as_ref()).await?;
    let status = response.status();
    match status {
        StatusCode::OK => {}
        StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN | StatusCode::BAD_REQUEST => {
            let fault = login.fault().map_or(String::new(), |fault| format!("; {fault}"));
            return Err(denied(subject, format!("the token server refuses ({status}){fault}")));
        }
        _ => return Err(refused(subject, response.status(), response.headers(), "")),
    }
    let body = http.body(response).collect(subject, LARGEST_TOKEN).await?;
    let body = body.ok_or_else(|| subject.protocol("the token server's answer is too long"))?;
    let parsed: Token =
        serde_json::from_slice(&body).map_err(|_| subject.protocol("the token server's answer is not a token"))?;
    let token = parsed.token.filter(|token| !token.is_empty()).or(parsed.access_token).unwrap_or_default();
    // The token becomes part of a header, so it must be valid there.
    if token.is_empty() || !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(subject.protocol("the token server's token is not valid"));
    }
    Ok(Authorization::Bearer(token))
}
