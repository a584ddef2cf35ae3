//! Finds the credentials for a registry: given ones, or those of `docker login` and `podman login`.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError as Fault, DockerCredential, get_credential_from_reader};
use serde_json::Value;
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result, Step};

/// The largest login file that is read, in bytes.
const LARGEST_FILE: u64 = 4 << 20;
/// The time limit for a credential helper. Some helpers ask a person, or a slow service.
const HELPER_TAKES: Duration = Duration::from_secs(60);
/// The name of Docker Hub in docker's login file.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// The source of credentials.
#[derive(Clone, Default)]
pub(super) enum Logins {
    /// The files of docker and podman in their default places.
    #[default]
    Default,
    /// A given file.
    File(PathBuf),
    /// No credentials.
    Anonymous,
}

/// The credentials for one registry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of OAuth 2.
    Identity(String),
    /// No credentials, because the named credential helper is not installed.
    MissingHelper(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::Anonymous => "Anonymous",
            Login::Password { .. } => "Password",
            Login::Identity(_) => "Identity",
            Login::MissingHelper(_) => "MissingHelper",
        })
    }
}

impl Login {
    /// Returns the reason that there are no credentials, if this machine is at fault.
    pub(super) fn fault(&self) -> Option<String> {
        match self {
            Login::MissingHelper(helper) => {
                Some(format!("docker-credential-{helper}, which the login file names, is not in PATH"))
            }
            _ => None,
        }
    }
}

impl Logins {
    /// Returns the credentials for `repository` of the registry `host`. A credential helper that
    /// does not answer in time is an error, and keeps running.
    pub(super) async fn find(&self, host: &str, repository: &str) -> Result<Login> {
        let (files, must_exist) = match self {
            Logins::Anonymous => return Ok(Login::Anonymous),
            Logins::File(path) => (vec![path.clone()], true),
            Logins::Default => (default_files(|name| std::env::var_os(name)), false),
        };
        let (registry, repository) = (host.to_owned(), repository.to_owned());
        let search = tokio::task::spawn_blocking(move || {
            let mut found = Login::Anonymous;
            for file in &files {
                match read(file, &registry, &repository, must_exist)? {
                    Login::Anonymous => {}
                    missing @ Login::MissingHelper(_) => found = missing,
                    login => return Ok(login),
                }
            }
            Ok(found)
        });
        match timeout(HELPER_TAKES, search).await {
            Ok(Ok(found)) => found,
            Ok(Err(task_failed)) => Err(Error::message(ErrorKind::Setup, Step::Credentials, task_failed.to_string())),
            Err(_) => {
                Err(Error::message(ErrorKind::Timeout, Step::Credentials, "the credential helper does not answer")
                    .at(host)
                    .hint("set the credentials with credentials()"))
            }
        }
    }
}

/// Returns docker's file, then podman's file, each where its manual says.
fn default_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker")));
    let podman =
        path("REGISTRY_AUTH_FILE").or_else(|| path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
    docker.map(|dir| dir.join("config.json")).into_iter().chain(podman).collect()
}

fn read(path: &Path, host: &str, repository: &str, must_exist: bool) -> Result<Login> {
    let mut file = match File::open(path) {
        Ok(file) => file.take(LARGEST_FILE),
        Err(error) if !must_exist && matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => {
            return Ok(Login::Anonymous);
        }
        Err(error) => return Err(Error::io(Step::Credentials, &error).at(path)),
    };
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(|error| Error::io(Step::Credentials, &error).at(path))?;
    // An empty file was created without a login.
    if bytes.trim_ascii().is_empty() {
        return Ok(Login::Anonymous);
    }
    let mut server = if host == "docker.io" { DOCKER_HUB.to_owned() } else { host.to_owned() };
    let mut lacking = None;
    if let Ok(mut config) = serde_json::from_slice::<Value>(&bytes) {
        repair(&mut config);
        server = most_specific(&config, host, repository).unwrap_or(server);
        lacking = remove_missing_helper(&mut config, &server, std::env::var_os("PATH"));
        bytes = config.to_string().into_bytes();
    }
    let fault = match get_credential_from_reader(bytes.as_slice(), &server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => return Ok(Login::Password { user, password }),
        Ok(DockerCredential::IdentityToken(token)) => return Ok(Login::Identity(token)),
        Err(fault) => fault,
    };
    match fault {
        Fault::NoCredentialConfigured => Ok(lacking.map_or(Login::Anonymous, Login::MissingHelper)),
        // The messages of helpers that have no credentials, as docker's own library knows them.
        Fault::HelperFailure { stdout, .. } if stdout.contains("credentials not found") => Ok(Login::Anonymous),
        // The output of a helper may contain a secret.
        Fault::HelperFailure { helper, .. } => {
            Err(unreadable(path, format!("the credential helper {helper} failed"), HELPER))
        }
        Fault::HelperCommunicationError => Err(unreadable(path, "the credential helper cannot be run", HELPER)),
        Fault::MalformedHelperResponse => Err(unreadable(path, "the credential helper's answer is not valid", HELPER)),
        fault => Err(unreadable(path, fault.to_string(), "log in again, or call anonymous()")),
    }
}

/// Repairs what other tools tolerate: empty tokens, and white space in base64.
fn repair(config: &mut Value) {
    let auths = config.get_mut("auths").and_then(Value::as_object_mut);
    for auth in auths.into_iter().flat_map(|auths| auths.values_mut()).filter_map(Value::as_object_mut) {
        for key in ["identitytoken", "auth", "username", "password"] {
            if auth.get(key).is_some_and(|value| value.is_null() || value.as_str().is_some_and(str::is_empty)) {
                auth.remove(key);
            }
        }
        if let Some(Value::String(encoded)) = auth.get_mut("auth") {
            encoded.retain(|c| !c.is_ascii_whitespace());
        }
    }
}

/// Returns the most specific key in the login file that contains the repository and is more
/// specific than the registry: containers-auth.json(5).
fn most_specific(config: &Value, host: &str, repository: &str) -> Option<String> {
    let auths = config.get("auths")?.as_object()?;
    let whole = format!("{host}/{repository}");
    let parts = std::iter::successors(Some(whole.as_str()), |part| Some(part.rsplit_once('/')?.0));
    parts.take_while(|part| *part != host).find(|part| auths.contains_key(*part)).map(str::to_owned)
}

/// Removes the credential helper for `server` from the configuration if its program is not
/// installed, and returns its name.
fn remove_missing_helper(config: &mut Value, server: &str, path: Option<OsString>) -> Option<String> {
    let is_there = |helper: &str| {
        let name = format!("docker-credential-{helper}");
        path.as_ref().is_some_and(|path| std::env::split_paths(path).any(|dir| dir.join(&name).is_file()))
    };
    let mut lacking = None;
    for (section, key) in [(Some("credHelpers"), server), (None, "credsStore")] {
        let within = match section {
            Some(section) => config.get_mut(section),
            None => Some(&mut *config),
        };
        let Some(within) = within.and_then(Value::as_object_mut) else { continue };
        let Some(helper) = within.get(key).and_then(Value::as_str).map(str::to_owned) else { continue };
        if helper.is_empty() || !is_there(&helper) {
            within.remove(key);
            lacking = lacking.or(Some(helper).filter(|helper| !helper.is_empty()));
        }
    }
    lacking
}

const HELPER: &str = "the file names it in credHelpers or credsStore; it has to be in PATH, and to know the registry";

fn unreadable(path: &Path, detail: impl Into<String>, hint: &str) -> Error {
    Error::message(ErrorKind::Setup, Step::Credentials, detail).at(path).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn login(config: &str, repository: &str) -> Login {
        let dir = std::env::temp_dir().join(format!("ringfence-login-{}-{repository}", std::process::id()));
        std::fs::write(&dir, config).unwrap();
        let found = read(&dir, "h:1", &repository.replace('-', "/"), true);
        std::fs::remove_file(&dir).unwrap();
        found.unwrap()
    }

    #[test]
    fn what_other_tools_read_is_read() {
        let password = |user: &str| Login::Password { user: user.into(), password: "b".into() };
        assert_eq!(login("", "empty"), Login::Anonymous);
        assert_eq!(login(" \n", "blank"), Login::Anonymous);
        // a:b
        let broken = r#"{"auths":{"h:1":{"auth":"YT\npi\n","identitytoken":"","username":null}}}"#;
        assert_eq!(login(broken, "broken"), password("a"));
        let token = r#"{"auths":{"h:1":{"auth":"YTpi","identitytoken":"t"}}}"#;
        assert_eq!(login(token, "token"), Login::Identity("t".into()));
        let missing = r#"{"credsStore":"ringfence-none","credHelpers":{"h:1":"ringfence-gone"}}"#;
        assert_eq!(login(missing, "missing"), Login::MissingHelper("ringfence-gone".into()));
        let beside = r#"{"credsStore":"ringfence-none","auths":{"h:1":{"auth":"YTpi"}}}"#;
        assert_eq!(login(beside, "beside"), password("a"));
        assert_eq!(login(r#"{"credsStore":""}"#, "none"), Login::Anonymous);
    }

    #[test]
    fn the_narrowest_login_is_taken() {
        // d:b, c:b, a:b
        let config = r#"{"auths":{"h:1":{"auth":"ZDpi"},"h:1/x":{"auth":"Yzpi"},"h:1/x/y":{"auth":"YTpi"}}}"#;
        let user = |repository: &str| match login(config, repository) {
            Login::Password { user, .. } => user,
            other => format!("{other:?}"),
        };
        assert_eq!(["x-y-z", "x-y", "x-yz", "x", "xy", "z"].map(user), ["a", "a", "c", "c", "d", "d"]);
    }

    #[test]
    fn the_files_are_where_docker_and_podman_put_them() {
        let of = |set: &[(&str, &str)]| {
            let get = |name: &str| set.iter().find(|(key, _)| *key == name).map(|(_, value)| OsString::from(value));
            default_files(get).iter().map(|path| path.to_str().unwrap().to_owned()).collect::<Vec<_>>()
        };
        assert_eq!(of(&[("HOME", "/h")]), ["/h/.docker/config.json"]);
        assert_eq!(of(&[("HOME", "/h"), ("DOCKER_CONFIG", "/d")]), ["/d/config.json"]);
        assert_eq!(of(&[("XDG_RUNTIME_DIR", "/r")]), ["/r/containers/auth.json"]);
        assert_eq!(of(&[("XDG_RUNTIME_DIR", "/r"), ("REGISTRY_AUTH_FILE", "/a")]), ["/a"]);
        assert_eq!(of(&[("HOME", "")]), [""; 0]);
    }
}
