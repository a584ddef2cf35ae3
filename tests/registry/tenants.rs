//! A store that several use: nobody gets for a digest or a diff id what somebody else has pulled.

use std::fs;

use ringfence::ErrorKind;
use ringfence::image::{Descriptor, MediaType, Store};

use crate::fake::{Answer, Fake, Request, Site};
use crate::unpack::tar;
use crate::{blob_json, client, name, noise, store};

/// The private image of somebody, pulled and unpacked into a store.
fn private(store: &Store) -> Site {
    let layer = tar("secret", 100_000);
    let (site, own) = (Site::new(&[&layer]), Site::new(&[&layer]));
    let fake = Fake::start(move |request, answer| own.answer(request, answer));
    client(&fake.host).pull_and_unpack(store, &name(&format!("{}/private:1", fake.host))).unwrap();
    site
}

/// A registry that has this manifest, and says of blobs what `answer` says.
fn with_manifest(manifest: Vec<u8>, answer: impl Fn(&Request, &mut Answer<'_>) + Send + Sync + 'static) -> Fake {
    Fake::start(move |request, out| match request.path.contains("/manifests/") {
        true => out.send("200 OK", &format!("Content-Type: {}\r\n", MediaType::ImageManifest), &manifest),
        false => answer(request, out),
    })
}

#[test]
fn a_blob_of_another_is_had_for_its_bytes_alone() {
    let (_dir, store) = store();
    let site = private(&store);
    // One that has only the manifest, in four ways: no blobs at all, none for strangers, lies, and an answer to HEAD alone.
    type Lie = fn(&Request, &mut Answer<'_>);
    let lies: [(Lie, ErrorKind); 4] = [
        (|_, out| out.send("404 Not Found", "", b""), ErrorKind::NotFound),
        (|_, out| out.send("403 Forbidden", "", b""), ErrorKind::Denied),
        (|_, out| out.send("200 OK", "", &[0; 200_000]), ErrorKind::Corrupt),
        (
            |request, out| match request.method.as_str() {
                "HEAD" => out.send("200 OK", "", b""),
                _ => out.send("404 Not Found", "", b""),
            },
            ErrorKind::NotFound,
        ),
    ];
    for (lie, kind) in lies {
        let fake = with_manifest(site.manifest(), lie);
        let image = name(&format!("{}/stolen:1", fake.host));
        assert_eq!(client(&fake.host).pull(&store, &image).unwrap_err().kind(), kind);
        assert_eq!(client(&fake.host).pull_and_unpack(&store, &image).unwrap_err().kind(), kind);
        assert!(store.resolve(&image).is_err(), "it has no name");
        // Who shares all with all is not asked.
        client(&fake.host).pull_and_unpack(&store.clone().one_tenant(), &image).unwrap();
        store.remove(&image).unwrap();
    }
    // One that has it is believed, with ranges or without.
    let fake = Fake::start(move |request, answer| site.answer(request, answer));
    client(&fake.host).pull(&store, &name(&format!("{}/own:1", fake.host))).unwrap();
}

#[test]
fn a_manifest_of_another_is_had_for_its_bytes_alone() {
    let (_dir, store) = store();
    let site = private(&store);
    let fake = with_manifest(b"{}".to_vec(), |_, out| out.send("404 Not Found", "", b""));
    let image = name(&format!("{}/stolen", fake.host)).with_digest(site.top.digest());
    let error = client(&fake.host).pull(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
}

#[test]
fn a_part_that_another_has_left_is_no_way_to_the_rest() {
    let (dir, store) = store();
    let site = Site::new(&[&noise(200_000, 1)]);
    let layer = site.layers()[0].clone();
    let bytes = site.blob(layer.digest().as_ref()).unwrap();
    let part = dir.path().join("store/partial").join(layer.digest().to_string().replace(':', "-"));
    fs::write(part, &bytes).unwrap();
    let (config, manifest) = (site.blob(&config_of(&site)).unwrap(), site.manifest());
    let own = config_of(&site);
    let fake = with_manifest(manifest, move |request, out| match request.path.contains(&own) {
        true => out.send("200 OK", "", &config),
        false => out.send("404 Not Found", "", b""),
    });
    let error = client(&fake.host).pull(&store, &name(&format!("{}/stolen:1", fake.host))).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
}

fn config_of(site: &Site) -> String {
    let manifest: serde_json::Value = serde_json::from_slice(&site.manifest()).unwrap();
    manifest["config"]["digest"].as_str().unwrap().to_owned()
}

/// A registry with an image of this configuration and layer, whose blobs are those of the store in `dir`.
fn of_one_layer(config: &Descriptor, layer: &Descriptor, dir: &crate::common::TempDir) -> Fake {
    let text = format!(
        r#"{{"schemaVersion":2,"mediaType":"{}","config":{},"layers":[{}]}}"#,
        MediaType::ImageManifest,
        blob_json(config),
        blob_json(layer)
    );
    let blobs = dir.path().join("store/blobs/sha256");
    with_manifest(text.into_bytes(), move |request, out| {
        let digits = request.path.rsplit(':').next().unwrap().to_owned();
        out.send("200 OK", "", &fs::read(blobs.join(digits)).unwrap());
    })
}

#[test]
fn a_diff_id_is_no_proof() {
    let (dir, store) = store();
    let site = private(&store);
    // The configuration of the private image, with a layer of the thief's own.
    let config = site.blob(&config_of(&site)).unwrap();
    let (thief_dir, thief) = crate::store();
    let layer = thief.put_blob(MediaType::ImageLayer, &tar("own", 5)).unwrap();
    let config: Descriptor = thief.put_blob(MediaType::ImageConfig, &config).unwrap();
    let fake = of_one_layer(&config, &layer, &thief_dir);
    let image = name(&format!("{}/stolen:1", fake.host));
    let error = client(&fake.host).pull_and_unpack(&store, &image).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Corrupt, "{error}");
    let pulled = client(&fake.host).pull(&store, &image).unwrap();
    assert_eq!(pulled.unpack().unwrap_err().kind(), ErrorKind::Corrupt);
    // With the same contents in another compression it is the same layer, which is not unpacked once more.
    let zipped = crate::peer::run("sh", &["-c", &format!("gzip -nc {}", path_of(&dir, &site))]);
    let layer = thief.put_blob(MediaType::ImageLayerGzip, &zipped).unwrap();
    let fake = of_one_layer(&config, &layer, &thief_dir);
    let image = name(&format!("{}/same:1", fake.host));
    let (_, layers) = client(&fake.host).pull_and_unpack(&store, &image).unwrap();
    assert!(layers.dirs()[0].join("secret").exists());
    assert_eq!(fs::read_dir(dir.path().join("store/layers")).unwrap().count(), 1);
}

fn path_of(dir: &crate::common::TempDir, site: &Site) -> String {
    let digits = site.layers()[0].digest().digest().to_owned();
    dir.path().join("store/blobs/sha256").join(digits).display().to_string()
}
