//! HTTP for registries: single exchanges with their deadlines and redirects, and the rules for
//! which server may receive which data.

use std::collections::BTreeSet;
use std::pin::pin;
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use reqwest::header::{HeaderMap, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Method, Response, StatusCode, Url};
use tokio::time::timeout;

use super::failure::{Failure, Subject};
use super::upload::Upload;
use crate::error::{Error, ErrorKind, Result, Step};

/// The largest number of redirects, as in containerd and skopeo.
const MOST_REDIRECTS: usize = 10;
/// The lowest speed in bytes a second. A slower peer counts as silent.
const SLOWEST: u64 = 1024;

/// A connection pool and the rules for its use.
pub(super) struct HttpClient {
    client: Client,
    /// The client for the registry itself, if it has certificates of its own.
    own: Option<(Url, Client)>,
    plain: PlainHosts,
    stall: Duration,
}

/// The hosts that may be contacted without TLS, each with its port.
#[derive(Debug, Clone, Default)]
pub(super) struct PlainHosts(BTreeSet<(String, u16)>);

/// One request.
#[derive(Clone)]
pub(super) struct Call {
    pub(super) method: Method,
    pub(super) url: Url,
    pub(super) headers: HeaderMap,
    pub(super) payload: Payload,
}

/// The body of a request.
#[derive(Clone)]
pub(super) enum Payload {
    Empty,
    Bytes(Bytes),
    /// Credentials. They never leave the origin of the request's URL.
    Secret(Bytes),
    Blob(Upload),
}

/// The value of an Authorization header.
#[derive(Clone, PartialEq)]
pub(super) enum Authorization {
    Basic { user: String, password: String },
    Bearer(String),
}

impl Call {
    pub(super) fn new(method: Method, url: Url) -> Self {
        Call { method, url, headers: HeaderMap::new(), payload: Payload::Empty }
    }
}

impl PlainHosts {
    pub(super) fn new(names: &[String]) -> Result<Self> {
        let parse = |name: &String| {
            address("http", name).as_ref().and_then(host_and_port).ok_or_else(|| {
                let error = Error::message(ErrorKind::Invalid, Step::Registry, "this is not a host");
                error.at(name).hint("plain_http takes HOST or HOST:PORT")
            })
        };
        names.iter().map(parse).collect::<Result<_>>().map(PlainHosts)
    }

    pub(super) fn has(&self, url: &Url) -> bool {
        host_and_port(url).is_some_and(|host| self.0.contains(&host))
    }

    /// Returns the URL of a registry, with TLS unless the host is in this list.
    pub(super) fn base(&self, host: &str) -> Result<Url> {
        match (address("http", host).filter(|url| self.has(url)), address("https", host)) {
            (Some(plain), _) => Ok(plain),
            (None, Some(secure)) => Ok(secure),
            (None, None) => Err(Error::message(ErrorKind::Invalid, Step::Registry, "this is not a host").at(host)),
        }
    }

    /// Resolves the URL `to` relative to `from`, if requests may go there: never from TLS to plain
    /// HTTP, and to plain HTTP only for hosts in this list.
    pub(super) fn resolve_redirect(&self, from: &Url, to: &str) -> Result<Url, String> {
        let mut to = from.join(to).map_err(|_| "the registry sent an invalid address".to_owned())?;
        // Credentials in a URL would become a header.
        let cleared = to.set_username("").and_then(|()| to.set_password(None));
        let host = to.host_str().unwrap_or_default().to_owned();
        match (from.scheme(), to.scheme()) {
            _ if cleared.is_err() || host.is_empty() => Err("the registry sent an address without a host".to_owned()),
            (_, "https") => Ok(to),
            ("http", "http") if self.has(&to) => Ok(to),
            ("http", "http") => Err(format!("it leads to {host} by plain HTTP, which was allowed for others only")),
            (_, "http") => Err(format!("it leads from TLS to plain HTTP, at {host}")),
            (_, scheme) => Err(format!("it leads to an address of the scheme {scheme}")),
        }
    }
}

/// Returns the URL of a host, if the text is a host and nothing more.
fn address(scheme: &str, host: &str) -> Option<Url> {
    let fine = |c: char| c.is_ascii_alphanumeric() || ".-_:[]".contains(c);
    Url::parse(&format!("{scheme}://{host}/")).ok().filter(|_| host.chars().all(fine))
}

fn host_and_port(url: &Url) -> Option<(String, u16)> {
    Some((url.host_str()?.to_owned(), url.port_or_known_default()?))
}

impl HttpClient {
    /// Creates a connection pool. `own` is the client configuration for one server, and is used for
    /// no other.
    pub(super) fn new(
        tls: rustls::ClientConfig,
        own: Option<(&Url, rustls::ClientConfig)>,
        plain: PlainHosts,
        stall: Duration,
    ) -> Result<Self> {
        let client = HttpClient::client(tls, stall)?;
        let own = own.map(|(url, tls)| Ok::<_, Error>((url.clone(), HttpClient::client(tls, stall)?))).transpose()?;
        Ok(HttpClient { client, own, plain, stall })
    }

    fn client(tls: rustls::ClientConfig, stall: Duration) -> Result<Client> {
        let client = Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(Policy::none())
            .connect_timeout(stall)
            .tcp_nodelay(true)
            .user_agent(concat!("ringfence/", env!("CARGO_PKG_VERSION")))
            .build();
        client.map_err(|error| Error::message(ErrorKind::Unsupported, Step::Registry, error.to_string()))
    }

    pub(super) fn plain(&self) -> &PlainHosts {
        &self.plain
    }

    /// Sends a request, and follows redirects. `authorization` goes only to the origin of the
    /// request's URL: a target with another scheme, host or port does not get it, nor does any
    /// later target, even if it is the origin again. A [secret](Payload::Secret) body is never
    /// redirected to another origin (307, 308).
    pub(super) async fn send(
        &self,
        subject: &Subject,
        call: &Call,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Failure> {
        let mut url = call.url.clone();
        let mut stays = true;
        for _ in 0..=MOST_REDIRECTS {
            stays &= url.origin() == call.url.origin();
            if !stays && matches!(call.payload, Payload::Secret(_)) {
                let host = url.host_str().unwrap_or_default();
                let detail = format!("the redirect is refused: it leads a secret to another server, {host}");
                return Err(subject
                    .error(ErrorKind::Protocol, detail)
                    .hint("the registry is not configured correctly")
                    .into());
            }
            let authorized = authorization.filter(|_| stays);
            let response = self.exchange(subject, call, url.clone(), authorized).await?;
            if !is_redirect(response.status(), &call.method) {
                return Ok(response);
            }
            let to = response.headers().get(LOCATION).and_then(|to| to.to_str().ok());
            let to = to.ok_or_else(|| subject.protocol("the redirect has no target"))?;
            url = self.plain.resolve_redirect(&url, to).map_err(|why| {
                let failure = subject.error(ErrorKind::Protocol, format!("the redirect is refused: {why}"));
                failure.hint("only a registry that stays with TLS, or a host given to plain_http, is followed")
            })?;
        }
        Err(subject.protocol(format!("the registry redirects more than {MOST_REDIRECTS} times")))
    }

    async fn exchange(
        &self,
        subject: &Subject,
        call: &Call,
        url: Url,
        authorization: Option<&Authorization>,
    ) -> Result<Response, Failure> {
        let own = self.own.as_ref().filter(|(own, _)| own.origin() == url.origin());
        let client = own.map_or(&self.client, |(_, client)| client);
        let mut request = client.request(call.method.clone(), url).headers(call.headers.clone());
        request = match authorization {
            Some(Authorization::Basic { user, password }) => request.basic_auth(user, Some(password)),
            Some(Authorization::Bearer(token)) => request.bearer_auth(token),
            None => request,
        };
        let answer = match &call.payload {
            Payload::Empty => timeout(self.stall, request.send()).await,
            Payload::Bytes(bytes) | Payload::Secret(bytes) => {
                timeout(self.stall, request.body(bytes.clone()).send()).await
            }
            Payload::Blob(upload) => {
                let mut answer = pin!(request.body(upload.body()).send());
                let mut stall_monitor = upload.stall_monitor(self.stall);
                loop {
                    match timeout(self.stall, answer.as_mut()).await {
                        Err(_) if stall_monitor.has_progress() => {}
                        answer => break answer,
                    }
                }
            }
        };
        match answer {
            Ok(answer) => answer.map_err(|error| subject.transport(&error)),
            Err(_) => Err(subject.stalled(self.stall)),
        }
    }

    /// Returns the body of a response as a stream.
    pub(super) fn body(&self, response: Response) -> BodyStream {
        BodyStream { response, stall: self.stall, waited: Duration::ZERO, arrived: 0 }
    }
}

/// Returns true for a redirect to follow. 301 to 303 turn a request into a GET, which is no longer
/// an upload.
fn is_redirect(status: StatusCode, method: &Method) -> bool {
    let reads = *method == Method::GET || *method == Method::HEAD;
    matches!(status.as_u16(), 307 | 308) || reads && matches!(status.as_u16(), 301..=303)
}

/// A body with a minimum speed: a peer that sends slower counts as silent.
pub(super) struct BodyStream {
    response: Response,
    stall: Duration,
    waited: Duration,
    arrived: u64,
}

impl BodyStream {
    pub(super) async fn next(&mut self, subject: &Subject) -> Result<Option<Bytes>, Failure> {
        let begun = Instant::now();
        let chunk = timeout(self.stall.saturating_sub(self.waited), self.response.chunk()).await;
        // Only the time spent waiting counts, as a slow disk is not the peer's fault.
        self.waited += begun.elapsed();
        let chunk = chunk.map_err(|_| subject.stalled(self.stall))?.map_err(|error| subject.transport(&error))?;
        self.arrived += chunk.as_ref().map_or(0, |chunk| chunk.len() as u64);
        if self.arrived >= SLOWEST.saturating_mul(self.stall.as_secs()).max(SLOWEST) {
            (self.arrived, self.waited) = (0, Duration::ZERO);
        }
        Ok(chunk)
    }

    /// Returns the whole body, or `None` if it has more than `most` bytes, without reading much
    /// more.
    pub(super) async fn collect(mut self, subject: &Subject, most: usize) -> Result<Option<Bytes>, Failure> {
        let told = self.response.content_length().unwrap_or(0);
        if told > most as u64 {
            return Ok(None);
        }
        let mut all = BytesMut::new();
        while let Some(chunk) = self.next(subject).await? {
            if all.len() + chunk.len() > most {
                return Ok(None);
            }
            all.extend_from_slice(&chunk);
        }
        Ok(Some(all.freeze()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(names: &[&str]) -> PlainHosts {
        PlainHosts::new(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>()).unwrap()
    }

    #[test]
    fn addresses_are_by_tls_unless_it_is_said() {
        let hosts = plain(&["127.0.0.1:5000", "Registry.local", "[::1]:5000"]);
        let base = |host| hosts.base(host).map(|url| url.to_string()).unwrap_or_default();
        assert_eq!(base("127.0.0.1:5000"), "http://127.0.0.1:5000/");
        assert_eq!(base("127.0.0.1:5001"), "https://127.0.0.1:5001/");
        assert_eq!(base("127.0.0.1"), "https://127.0.0.1/");
        assert_eq!(base("registry.local"), "http://registry.local/");
        assert_eq!(base("registry.local:80"), "http://registry.local/");
        assert_eq!(base("registry.local:443"), "https://registry.local/");
        assert_eq!(base("[::1]:5000"), "http://[::1]:5000/");
        assert_eq!(base("a/b"), "");
        for name in ["", "a b", "a/b", "http://a", "a:99999", "a?b"] {
            assert!(PlainHosts::new(&[name.to_owned()]).is_err(), "{name}");
        }
    }

    #[test]
    fn what_leads_away_is_judged() {
        let hosts = plain(&["a:5000", "b"]);
        let resolve_redirect = |from: &str, to: &str| {
            hosts.resolve_redirect(&Url::parse(from).unwrap(), to).map(|url| url.to_string()).ok()
        };
        let fine =
            |from, to, then: &str| assert_eq!(resolve_redirect(from, to), Some(then.to_owned()), "{from} to {to}");
        fine("http://a:5000/v2/x", "/v2/y?z=1", "http://a:5000/v2/y?z=1");
        fine("http://a:5000/", "http://b/y", "http://b/y");
        fine("http://a:5000/", "https://c/y", "https://c/y");
        fine("https://c/", "https://user:pass@d/y", "https://d/y");
        fine("https://c/v2/x", "y", "https://c/v2/y");
        for (from, to) in [
            ("https://c/", "http://c/"),
            ("https://c/", "http://b/"),
            ("http://a:5000/", "http://a/"),
            ("http://a:5000/", "http://c/"),
            ("http://a:5000/", "//c/"),
            ("https://c/", "ftp://c/"),
            ("https://c/", "file:///etc/passwd"),
            ("https://c/", "data:,x"),
            ("https://c/", "https://"),
        ] {
            assert_eq!(resolve_redirect(from, to), None, "{from} to {to}");
        }
    }

    #[test]
    fn an_answer_and_an_upload_are_redirected_differently() {
        let put = |status: u16| is_redirect(StatusCode::from_u16(status).unwrap(), &Method::PUT);
        let get = |status: u16| is_redirect(StatusCode::from_u16(status).unwrap(), &Method::GET);
        assert!([301, 302, 303, 307, 308].into_iter().all(get) && ![200, 300, 304, 401].into_iter().any(get));
        assert!([307, 308].into_iter().all(put) && ![301, 302, 303, 200].into_iter().any(put));
    }
}
