//! Lists and deletes what a repository contains: tags, referrers of a manifest, and manifests (OCI
//! distribution specification 1.1, "Listing Tags", "Listing Referrers", "Deleting").

use std::collections::BTreeSet;

use bytes::Bytes;
use oci_spec::image::{Descriptor, ImageIndex};
use reqwest::header::{ACCEPT, HeaderMap, HeaderValue, LINK};
use reqwest::{Method, Url};
use serde::Deserialize;

use super::Registry;
use super::failure::{Failure, Subject};
use super::http::Call;
use super::manifests::{ACCEPTED, media_type};
use super::repository::Repository;
use crate::error::{Error, ErrorKind, Result, Step};
use crate::image::{DOCUMENT_MAX, Reference, digest_of, is_of};

/// The largest number of pages that are read, as a registry might never end its list.
const PAGES_MAX: usize = 1000;
const ENTRIES_MAX: usize = 1 << 20;

#[derive(Deserialize)]
struct Tags {
    /// The CNCF registry sends null if there are no tags.
    tags: Option<Vec<String>>,
}

pub(super) async fn tags(registry: &Registry, name: &Reference) -> Result<Vec<String>> {
    let subject = Subject::new(Step::Registry, name.to_string());
    let repository = repository(registry, name, "pull")?;
    let mut all = Vec::new();
    let mut pages = Pages::new(&repository, repository.url("tags/list?n=1000")?);
    while let Some((_, body)) = pages.next(&subject, &[200]).await? {
        let page: Tags = serde_json::from_slice(&body)
            .map_err(|_| subject.protocol("the registry's list of tags is not valid").error)?;
        all.extend(page.tags.unwrap_or_default());
        if all.len() > ENTRIES_MAX {
            return Err(subject.error(ErrorKind::TooLarge, format!("it has more than {ENTRIES_MAX} tags")));
        }
    }
    Ok(all)
}

pub(super) async fn resolve(registry: &Registry, name: &Reference) -> Result<Descriptor> {
    let subject = &Subject::new(Step::PullManifest, name.to_string());
    let repository = &repository(registry, name, "pull")?;
    let digest = name.digest().map(ToString::to_string);
    let wanted = digest.as_deref().or(name.tag()).unwrap_or("latest");
    let mut call = Call::new(Method::GET, repository.url(&format!("manifests/{wanted}"))?);
    call.headers.insert(ACCEPT, HeaderValue::from_static(ACCEPTED));
    let call = &call;
    let get = || async move {
        let response = repository.call(subject, call, &[200]).await?;
        let headers = response.headers().clone();
        let body = repository.http.body(response).collect(subject, DOCUMENT_MAX as usize).await?;
        Ok::<_, Failure>((headers, body.ok_or_else(|| too_long(subject))?))
    };
    let (headers, body) = repository.persist(subject, get).await?;
    let digest = match name.digest() {
        Some(digest) if is_of(&body, digest)? => digest.clone(),
        Some(_) => return Err(subject.error(ErrorKind::Corrupt, "the bytes have another digest")),
        None => digest_of(&body)?,
    };
    Ok(Descriptor::new(media_type(&headers, &body), body.len() as u64, digest))
}

pub(super) async fn delete(registry: &Registry, name: &Reference) -> Result<()> {
    let subject = &Subject::new(Step::Registry, name.to_string());
    let repository = &repository(registry, name, "pull,delete")?;
    let digest = name.digest().map(ToString::to_string);
    let what = digest.as_deref().or(name.tag()).unwrap_or("latest");
    let call = &Call::new(Method::DELETE, repository.url(&format!("manifests/{what}"))?);
    let good = [200, 202, 204, 400, 405, 501];
    let response = repository.persist(subject, || repository.call(subject, call, &good)).await?;
    if response.status().is_success() {
        return Ok(());
    }
    let error = subject
        .error(ErrorKind::Unsupported, format!("the registry does not support this deletion ({})", response.status()));
    Err(error.hint(if digest.is_some() {
        "deletion may be disabled: docker-registry needs REGISTRY_STORAGE_DELETE_ENABLED=true"
    } else {
        "many registries delete manifests only by digest, with all their tags: use the digest that resolve() returns"
    }))
}

pub(super) async fn referrers(registry: &Registry, name: &Reference, kind: Option<&str>) -> Result<Vec<Descriptor>> {
    let subject = Subject::new(Step::Registry, name.to_string());
    let Some(digest) = name.digest() else {
        let error = subject.error(ErrorKind::Invalid, "referrers of a manifest can be listed only by its digest");
        return Err(error.hint("use REPOSITORY@DIGEST, with the digest that resolve() returns"));
    };
    let repository = repository(registry, name, "pull")?;
    let mut url = repository.url(&format!("referrers/{digest}"))?;
    if let Some(kind) = kind {
        url.query_pairs_mut().append_pair("artifactType", kind);
    }
    let mut all = Vec::new();
    let mut pages = Pages::new(&repository, url);
    let mut is_known = true;
    while let Some((status, body)) = pages.next(&subject, &[200, 404]).await? {
        is_known = status == 200;
        if is_known {
            all.extend(index(&subject, &body)?);
        }
        if all.len() > ENTRIES_MAX {
            return Err(subject.error(ErrorKind::TooLarge, format!("more than {ENTRIES_MAX} manifests refer to it")));
        }
    }
    if !is_known {
        // Before version 1.1, registries list referrers under a tag.
        let tag = digest.to_string().replacen(':', "-", 1);
        let mut pages = Pages::new(&repository, repository.url(&format!("manifests/{tag}"))?);
        if let Some((200, body)) = pages.next(&subject, &[200, 404]).await? {
            all = index(&subject, &body)?;
        }
    }
    // Not every registry filters by type.
    let fits =
        |one: &Descriptor| kind.is_none_or(|kind| one.artifact_type().as_ref().is_some_and(|t| t.as_ref() == kind));
    Ok(all.into_iter().filter(fits).collect())
}

fn index(subject: &Subject, body: &[u8]) -> Result<Vec<Descriptor>> {
    let index: ImageIndex = serde_json::from_slice(body)
        .map_err(|_| subject.protocol("the registry's list of referrers is not an index").error)?;
    Ok(index.manifests().clone())
}

fn repository(registry: &Registry, name: &Reference, rights: &str) -> Result<Repository> {
    registry.repository(name, vec![format!("repository:{}:{rights}", name.repository())])
}

/// A list in pages, each with the address of the next page (RFC 8288).
struct Pages<'r> {
    repository: &'r Repository,
    next: Option<Url>,
    seen: BTreeSet<String>,
}

impl<'r> Pages<'r> {
    fn new(repository: &'r Repository, first: Url) -> Self {
        Pages { repository, next: Some(first), seen: BTreeSet::new() }
    }

    /// Returns the status and the body of the next page.
    async fn next(&mut self, subject: &Subject, good: &[u16]) -> Result<Option<(u16, Bytes)>> {
        let Some(url) = self.next.take() else { return Ok(None) };
        if self.seen.len() >= PAGES_MAX || !self.seen.insert(url.to_string()) {
            return Err(subject.error(ErrorKind::TooLarge, "the registry's list does not end"));
        }
        let mut call = Call::new(Method::GET, url.clone());
        call.headers
            .insert(ACCEPT, HeaderValue::from_static("application/json, application/vnd.oci.image.index.v1+json"));
        let call = &call;
        let repository = self.repository;
        let page = || async move {
            let response = repository.call(subject, call, good).await?;
            let (status, headers) = (response.status().as_u16(), response.headers().clone());
            let body = repository.http.body(response).collect(subject, DOCUMENT_MAX as usize).await?;
            Ok::<_, Failure>((status, headers, body.ok_or_else(|| too_long(subject))?))
        };
        let (status, headers, body) = self.repository.persist(subject, page).await?;
        if status == 200
            && let Some(to) = following(&headers)
        {
            let to =
                self.repository.http.plain().resolve_redirect(&url, &to).ok().filter(|to| to.origin() == url.origin());
            self.next =
                Some(to.ok_or_else(|| subject.protocol("the next page of the list is on another server").error)?);
        }
        Ok(Some((status, body)))
    }
}

fn too_long(subject: &Subject) -> Error {
    subject.error(ErrorKind::TooLarge, format!("it has more than {DOCUMENT_MAX} bytes"))
}

/// Returns the address in `Link: <…>; rel="next"`.
fn following(headers: &HeaderMap) -> Option<String> {
    let links = headers.get_all(LINK).iter().filter_map(|link| link.to_str().ok());
    links.flat_map(|links| links.split(", <")).find_map(|link| {
        let (to, rest) = link.trim().trim_start_matches('<').split_once('>')?;
        let is_next = rest.split(';').any(|param| matches!(param.trim(), "rel=\"next\"" | "rel=next"));
        is_next.then(|| to.to_owned())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_link_says_where_the_next_page_is() {
        let of = |text: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(LINK, HeaderValue::from_str(text).unwrap());
            following(&headers)
        };
        assert_eq!(of("</v2/a/tags/list?n=2&last=b>; rel=\"next\""), Some("/v2/a/tags/list?n=2&last=b".to_owned()));
        assert_eq!(of("</x>; rel=\"prev\", </y>; rel=next"), Some("/y".to_owned()));
        for text in ["", "</x>", "x; rel=next", "</x>; rel=\"prev\""] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
