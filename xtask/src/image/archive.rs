//! The archive of an image: an OCI image layout (<https://github.com/opencontainers/image-spec>, `image-layout.md`) that also has the
//! `manifest.json` of `docker save`, so that every tool that loads images loads it.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

/// An image of one layer.
pub(super) struct Image<'a> {
    /// Name and tag.
    pub(super) name: &'a str,
    pub(super) architecture: &'a str,
    /// The commit that it was built from.
    pub(super) revision: Option<String>,
    /// Uncompressed.
    pub(super) layer: &'a [u8],
}

impl Image<'_> {
    /// The archive, and how many bytes of it are the compressed layer and its description: what a node downloads.
    pub(super) fn archive(&self) -> Result<(Vec<u8>, usize)> {
        let layer = zstd::encode_all(self.layer, LEVEL).context("cannot compress")?;
        let config = self.config().to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar+zstd", &layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let tag = self.name.rsplit_once(':').map_or("latest", |(_, tag)| tag);
        let index = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "manifests": [{
                "mediaType": MANIFEST,
                "digest": digest(&manifest),
                "size": manifest.len(),
                "platform": { "os": "linux", "architecture": self.architecture },
                "annotations": { "io.containerd.image.name": self.name, "org.opencontainers.image.ref.name": tag },
            }],
        });
        let docker = json!([{ "Config": blob(&config), "RepoTags": [self.name], "Layers": [blob(&layer)] }]);

        let downloaded = layer.len() + config.len() + manifest.len();
        let mut files = vec![
            (blob(&config), config),
            (blob(&layer), layer),
            (blob(&manifest), manifest),
            ("index.json".to_owned(), index.to_string().into_bytes()),
            ("manifest.json".to_owned(), docker.to_string().into_bytes()),
            ("oci-layout".to_owned(), br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        ];
        files.sort();
        Ok((pack(files)?, downloaded))
    }

    fn config(&self) -> Value {
        let labels = [
            ("title", "garpike"),
            ("description", "Load balancer for bare-metal Kubernetes: controller and speaker"),
            ("version", env!("CARGO_PKG_VERSION")),
            ("licenses", env!("CARGO_PKG_LICENSE")),
            ("source", env!("CARGO_PKG_REPOSITORY")),
        ];
        let revision = self.revision.as_deref().map(|revision| ("revision", revision));
        let labels: BTreeMap<String, &str> = labels
            .into_iter()
            .chain(revision)
            .map(|(name, value)| (format!("org.opencontainers.image.{name}"), value))
            .collect();
        json!({
            "created": "1970-01-01T00:00:00Z",
            "architecture": self.architecture,
            "os": "linux",
            "config": { "User": USER, "Entrypoint": ["/garpike"], "WorkingDir": "/", "Labels": labels },
            "rootfs": { "type": "layers", "diff_ids": [digest(self.layer)] },
        })
    }
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    format!("sha256:{}", hex(content))
}

/// Where a blob lies in the layout.
fn blob(content: &[u8]) -> String {
    format!("blobs/sha256/{}", hex(content))
}

fn hex(content: &[u8]) -> String {
    Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect()
}

fn pack(files: Vec<(String, Vec<u8>)>) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, content) in files {
        let mut header = Header::new_ustar();
        header.set_mtime(0);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mode(0o644);
        header.set_size(u64::try_from(content.len())?);
        tar.append_data(&mut header, &path, &content[..]).with_context(|| format!("cannot pack {path}"))?;
    }
    tar.into_inner().context("cannot write to memory")
}

/// The highest level that needs no more than the usual 8 MiB of memory to unpack (zstd(1)).
const LEVEL: i32 = 19;
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// A user that is nobody else's; the manifests say it again, because a kubelet checks `runAsNonRoot` by number.
const USER: &str = "65532:65532";

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn every_digest_is_that_of_the_blob_it_names() {
        let files = unpack(&sample());

        let blobs: Vec<_> =
            files.iter().filter_map(|(path, bytes)| Some((path.strip_prefix("blobs/sha256/")?, bytes))).collect();
        assert_eq!(blobs.len(), 3);
        for (name, bytes) in blobs {
            assert_eq!(name, hex(bytes));
        }
        let manifest = &json(&files, "index.json")["manifests"][0];
        let manifest = json(&files, &path(&manifest["digest"]));
        let layer = &files[&path(&manifest["layers"][0]["digest"])];
        assert_eq!(manifest["layers"][0]["size"], layer.len());
        let config = json(&files, &path(&manifest["config"]["digest"]));
        let unpacked = zstd::decode_all(&layer[..]).unwrap();
        assert_eq!(config["rootfs"]["diff_ids"][0], digest(&unpacked));
    }

    #[test]
    fn docker_finds_the_same_layer() {
        let files = unpack(&sample());

        let docker = &json(&files, "manifest.json")[0];

        assert_eq!(docker["RepoTags"][0], "example.org/garpike:v1");
        assert!(files.contains_key(docker["Config"].as_str().unwrap()));
        assert!(files.contains_key(docker["Layers"][0].as_str().unwrap()));
    }

    #[test]
    fn the_same_layer_gives_the_same_bytes() {
        assert_eq!(sample(), sample());
    }

    fn sample() -> Vec<u8> {
        let image = Image {
            name: "example.org/garpike:v1",
            architecture: "amd64",
            revision: Some("abc".to_owned()),
            layer: b"not even a tar archive",
        };
        image.archive().unwrap().0
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(archive).entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, content);
        }
        files
    }

    fn json(files: &BTreeMap<String, Vec<u8>>, path: &str) -> Value {
        serde_json::from_slice(&files[path]).unwrap()
    }

    fn path(digest: &Value) -> String {
        digest.as_str().unwrap().replace("sha256:", "blobs/sha256/")
    }
}
