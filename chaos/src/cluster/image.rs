//! Images for the nodes, packed from programs of this machine: no registry, no daemon.
//!
//! This program itself is in one: it is what serves behind Services, what holds the namespaces of a pod, and, unless another
//! image is given, what is judged. Its shared libraries come with it.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tar::{Builder, Header};

use super::install::IMAGE;

/// What is brought to the nodes besides the image of this program.
#[derive(Clone, Debug, Default)]
pub(crate) struct Images<'a> {
    /// An archive with the image that the manifests name.
    pub(crate) garpike: Option<&'a Path>,
    /// Images of one static program each: their name, and the program, which lies at the root under the name of its file.
    pub(crate) programs: Vec<(String, PathBuf)>,
}

impl Images<'_> {
    /// Writes archives for `ctr images import`.
    pub(super) fn write(&self, directory: &Path) -> Result<()> {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
        let write = |name: &str, archive: Vec<u8>| {
            let path = directory.join(name);
            fs::write(&path, archive).with_context(|| format!("cannot write {}", path.display()))
        };
        let mut itself = vec![
            Named { name: PAUSE, entrypoint: vec!["/garpike", "chaos", "pause"], user: "" },
            Named { name: LAB, entrypoint: vec!["/garpike"], user: "" },
        ];
        match self.garpike {
            None => itself.push(Named { name: IMAGE, entrypoint: vec!["/garpike"], user: "65532:65532" }),
            Some(archive) => {
                let bytes = fs::read(archive).with_context(|| format!("cannot read {}", archive.display()))?;
                write("garpike.tar", bytes)?;
            }
        }
        write("lab.tar", archive(&layer(&this_program(directory)?)?, &itself)?)?;
        for (number, (name, program)) in self.programs.iter().enumerate() {
            let bytes = fs::read(program).with_context(|| format!("cannot read {}", program.display()))?;
            let file = program.file_name().context("a program has a name")?.to_string_lossy().into_owned();
            let entrypoint = format!("/{file}");
            let image = Named { name, entrypoint: vec![&entrypoint], user: "" };
            write(&format!("program-{number}.tar"), archive(&layer(&[(file, bytes)])?, &[image])?)?;
        }
        Ok(())
    }
}

/// An image of a layer.
struct Named<'a> {
    name: &'a str,
    entrypoint: Vec<&'a str>,
    user: &'a str,
}

/// This program without what only debuggers read, and the libraries that it has loaded, each at its own path.
fn this_program(scratch: &Path) -> Result<Vec<(String, Vec<u8>)>> {
    let stripped = scratch.join("stripped");
    // Not `self`, which would be strip.
    let program = PathBuf::from(format!("/proc/{}/exe", std::process::id()));
    let strip = Command::new("strip").arg("-o").arg(&stripped).arg(&program).status();
    let path = if strip.is_ok_and(|status| status.success()) { stripped.clone() } else { program };
    let mut files = vec![("garpike".to_owned(), fs::read(path).context("cannot read this program")?)];
    let _ = fs::remove_file(stripped);
    let maps = fs::read_to_string("/proc/self/maps").context("cannot read /proc/self/maps")?;
    let mut libraries: Vec<&str> = maps
        .lines()
        .filter_map(|line| line.find('/').and_then(|at| line.get(at..)))
        .filter(|path| path.contains(".so"))
        .collect();
    libraries.sort_unstable();
    libraries.dedup();
    for library in libraries {
        let content = fs::read(library).with_context(|| format!("cannot read {library}"))?;
        let name = library.rsplit('/').next().unwrap_or_default();
        if name.starts_with("ld-") {
            // Programs ask for their loader there, whatever it is a link to.
            files.push((format!("lib64/{name}"), content.clone()));
            files.push((format!("lib/{name}"), content.clone()));
        }
        files.push((library.trim_start_matches('/').to_owned(), content));
    }
    Ok(files)
}

fn layer(files: &[(String, Vec<u8>)]) -> Result<Vec<u8>> {
    let mut tar = Builder::new(Vec::new());
    for (path, content) in files {
        if path == "garpike" {
            tar.append_pax_extensions([("SCHILY.xattr.security.capability", &PERMITTED[..])])
                .context("cannot write to memory")?;
        }
        append(&mut tar, path, content, 0o755)?;
    }
    tar.into_inner().context("cannot write to memory")
}

/// An OCI image layout of images that share one layer, which is not compressed.
fn archive(layer: &[u8], images: &[Named<'_>]) -> Result<Vec<u8>> {
    let mut blobs = BTreeMap::from([(digest(layer), layer.to_vec())]);
    let mut manifests = Vec::new();
    for Named { name, entrypoint, user } in images {
        let config = json!({
            "created": "1970-01-01T00:00:00Z", "architecture": architecture()?, "os": "linux",
            "config": {"Entrypoint": entrypoint, "User": user, "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        });
        let config = config.to_string().into_bytes();
        let manifest = json!({
            "schemaVersion": 2, "mediaType": MANIFEST,
            "config": descriptor("application/vnd.oci.image.config.v1+json", &config),
            "layers": [descriptor("application/vnd.oci.image.layer.v1.tar", layer)],
        });
        let manifest = manifest.to_string().into_bytes();
        let mut entry = descriptor(MANIFEST, &manifest);
        if let Some(entry) = entry.as_object_mut() {
            entry.insert("annotations".to_owned(), json!({"io.containerd.image.name": name}));
        }
        manifests.push(entry);
        blobs.extend([config, manifest].map(|blob| (digest(&blob), blob)));
    }
    let index = json!({"schemaVersion": 2, "manifests": manifests}).to_string();
    let mut tar = Builder::new(Vec::new());
    append(&mut tar, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    append(&mut tar, "index.json", index.as_bytes(), 0o644)?;
    for (digest, blob) in blobs {
        append(&mut tar, &format!("blobs/{}", digest.replace(':', "/")), &blob, 0o644)?;
    }
    tar.into_inner().context("cannot write to memory")
}

fn append(tar: &mut Builder<Vec<u8>>, path: &str, content: &[u8], mode: u32) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mode(mode);
    header.set_size(u64::try_from(content.len())?);
    tar.append_data(&mut header, path, content).with_context(|| format!("cannot pack {path}"))
}

fn descriptor(media_type: &str, content: &[u8]) -> Value {
    json!({ "mediaType": media_type, "digest": digest(content), "size": content.len() })
}

fn digest(content: &[u8]) -> String {
    let hex: String = Sha256::digest(content).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

fn architecture() -> Result<&'static str> {
    match std::env::consts::ARCH {
        "x86_64" => Ok("amd64"),
        "aarch64" => Ok("arm64"),
        other => bail!("there are no images for {other}"),
    }
}

/// What holds the namespaces of a pod.
pub(super) const PAUSE: &str = "garpike.test/pause:1";
/// What serves behind Services.
pub(super) const LAB: &str = "garpike.test/lab:1";
/// The image that is judged, under another name: what a roll-out rolls out.
pub(super) const NEXT: &str = "garpike.test/garpike:next";
const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
/// CAP_NET_RAW and CAP_SYS_NICE permitted, not effective: `struct vfs_cap_data` of linux/capability.h, second revision. As
/// `cargo xtask image` gives it to the program.
const PERMITTED: [u8; 20] = [0, 0, 0, 2, 0, 0x20, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn images_that_share_a_layer_name_blobs_that_are_there() {
        let images = [
            Named { name: "a:1", entrypoint: vec!["/garpike"], user: "" },
            Named { name: "b:1", entrypoint: vec!["/garpike", "x"], user: "1:1" },
        ];
        let bytes = archive(&layer(&[("garpike".to_owned(), b"program".to_vec())]).unwrap(), &images).unwrap();

        let mut files = BTreeMap::new();
        for entry in tar::Archive::new(&bytes[..]).entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut content = Vec::new();
            let path = entry.path().unwrap().display().to_string();
            entry.read_to_end(&mut content).unwrap();
            files.insert(path, content);
        }
        let blob = |digest: &Value| {
            let path = format!("blobs/{}", digest.as_str().unwrap().replace(':', "/"));
            files.get(&path).unwrap_or_else(|| panic!("no {path}"))
        };
        let index: Value = serde_json::from_slice(&files["index.json"]).unwrap();
        let manifests = index["manifests"].as_array().unwrap();
        assert_eq!(manifests.len(), 2);
        for entry in manifests {
            let manifest: Value = serde_json::from_slice(blob(&entry["digest"])).unwrap();
            blob(&manifest["config"]["digest"]);
            assert_eq!(manifest["layers"][0]["size"], blob(&manifest["layers"][0]["digest"]).len());
        }
    }

    #[test]
    fn this_program_is_packed_with_its_loader() {
        let scratch = tempfile::tempdir().unwrap();

        let files = this_program(scratch.path()).unwrap();

        let packed = |start: &str| files.iter().any(|(path, content)| path.starts_with(start) && !content.is_empty());
        assert!(packed("garpike"));
        // A test is linked dynamically unless it was asked not to be.
        assert!(cfg!(target_feature = "crt-static") || packed("lib64/ld-") || packed("lib/ld-"));
    }
}
