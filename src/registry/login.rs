//! Whose credentials go to which registry: given ones, or those of `docker login` and `podman login`.

use std::ffi::OsString;
use std::fmt;
use std::fs::File;
use std::io::{BufReader, ErrorKind as IoKind, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use docker_credential::{CredentialRetrievalError as Fault, DockerCredential, get_credential_from_reader};
use tokio::time::timeout;

use crate::error::{Error, ErrorKind, Result, Step};

/// Longer login files are none.
const LARGEST_FILE: u64 = 4 << 20;
/// Some helpers ask a person, or a slow service.
const HELPER_TAKES: Duration = Duration::from_secs(60);
/// The name by which docker files the login for its own registry.
const DOCKER_HUB: &str = "https://index.docker.io/v1/";

/// Where credentials come from.
#[derive(Clone, Default)]
pub(super) enum Logins {
    /// The files of docker and podman, where they are by default.
    #[default]
    Default,
    /// This file.
    File(PathBuf),
    /// Nowhere.
    Anonymous,
}

/// What is shown to one registry.
#[derive(Clone, PartialEq, Eq)]
pub(super) enum Login {
    Anonymous,
    Password {
        user: String,
        password: String,
    },
    /// A refresh token of OAuth 2.
    Identity(String),
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Login::Anonymous => "Anonymous",
            Login::Password { .. } => "Password",
            Login::Identity(_) => "Identity",
        })
    }
}

impl Logins {
    /// The login for the registry `host`. A helper that does not answer in time is an error; it is left alone then.
    pub(super) async fn find(&self, host: &str) -> Result<Login> {
        let (files, must_exist) = match self {
            Logins::Anonymous => return Ok(Login::Anonymous),
            Logins::File(path) => (vec![path.clone()], true),
            Logins::Default => (default_files(|name| std::env::var_os(name)), false),
        };
        let server = if host == "docker.io" { DOCKER_HUB.to_owned() } else { host.to_owned() };
        let search = tokio::task::spawn_blocking(move || {
            for file in &files {
                match read(file, &server, must_exist)? {
                    Login::Anonymous => {}
                    login => return Ok(login),
                }
            }
            Ok(Login::Anonymous)
        });
        match timeout(HELPER_TAKES, search).await {
            Ok(Ok(found)) => found,
            Ok(Err(died)) => Err(Error::message(ErrorKind::Setup, Step::Credentials, died.to_string())),
            Err(_) => {
                Err(Error::message(ErrorKind::Timeout, Step::Credentials, "the credential helper does not answer")
                    .at(host)
                    .hint("give the credentials yourself, with credentials"))
            }
        }
    }
}

/// docker's file, then podman's, each where its manual looks.
fn default_files(variable: impl Fn(&str) -> Option<OsString>) -> Vec<PathBuf> {
    let path = |name: &str| variable(name).filter(|value| !value.is_empty()).map(PathBuf::from);
    let docker = path("DOCKER_CONFIG").or_else(|| path("HOME").map(|home| home.join(".docker")));
    let podman =
        path("REGISTRY_AUTH_FILE").or_else(|| path("XDG_RUNTIME_DIR").map(|dir| dir.join("containers/auth.json")));
    docker.map(|dir| dir.join("config.json")).into_iter().chain(podman).collect()
}

fn read(path: &Path, server: &str, must_exist: bool) -> Result<Login> {
    let file = match File::open(path) {
        Ok(file) => file.take(LARGEST_FILE),
        Err(error) if !must_exist && matches!(error.kind(), IoKind::NotFound | IoKind::NotADirectory) => {
            return Ok(Login::Anonymous);
        }
        Err(error) => return Err(Error::io(Step::Credentials, &error).at(path)),
    };
    let fault = match get_credential_from_reader(BufReader::new(file), server) {
        Ok(DockerCredential::UsernamePassword(user, password)) => return Ok(Login::Password { user, password }),
        Ok(DockerCredential::IdentityToken(token)) => return Ok(Login::Identity(token)),
        Err(fault) => fault,
    };
    match fault {
        Fault::NoCredentialConfigured => Ok(Login::Anonymous),
        // The words that helpers have for it, as docker's own library knows them.
        Fault::HelperFailure { stdout, .. } if stdout.contains("credentials not found") => Ok(Login::Anonymous),
        // What a helper writes may hold a secret.
        Fault::HelperFailure { helper, .. } => {
            Err(unreadable(path, format!("the credential helper {helper} failed"), HELPER))
        }
        Fault::HelperCommunicationError => Err(unreadable(path, "the credential helper cannot be run", HELPER)),
        Fault::MalformedHelperResponse => Err(unreadable(path, "the credential helper makes no sense", HELPER)),
        fault => Err(unreadable(path, fault.to_string(), "log in again, or say anonymous()")),
    }
}

const HELPER: &str = "the file names it in credHelpers or credsStore; it has to be in PATH, and to know the registry";

fn unreadable(path: &Path, detail: impl Into<String>, hint: &str) -> Error {
    Error::message(ErrorKind::Setup, Step::Credentials, detail).at(path).hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

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
