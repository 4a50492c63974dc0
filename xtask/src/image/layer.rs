//! The one layer of the image: files in an uncompressed tar archive, always the same bytes for the same files.

use anyhow::{Context as _, Result};
use tar::{Builder, EntryType, Header};

/// What a file is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    /// To be read.
    Text,
    /// The program, which may be given CAP_NET_RAW and CAP_SYS_NICE.
    Speaker,
}

/// Files to pack.
#[derive(Default)]
pub(super) struct Layer<'a> {
    entries: Vec<Entry<'a>>,
}

struct Entry<'a> {
    path: &'a str,
    /// `None` for a directory.
    file: Option<(Vec<u8>, Kind)>,
}

impl<'a> Layer<'a> {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// A directory, which must come before its files.
    pub(super) fn directory(mut self, path: &'a str) -> Self {
        self.entries.push(Entry { path, file: None });
        self
    }

    pub(super) fn file(mut self, path: &'a str, content: &[u8], kind: Kind) -> Self {
        self.entries.push(Entry { path, file: Some((content.to_vec(), kind)) });
        self
    }

    /// All of them, sorted, owned by root, from 1970.
    pub(super) fn tar(mut self) -> Result<Vec<u8>> {
        self.entries.sort_by_key(|entry| entry.path);
        let mut tar = Builder::new(Vec::new());
        for Entry { path, file } in self.entries {
            let mut header = Header::new_ustar();
            header.set_mtime(0);
            header.set_uid(0);
            header.set_gid(0);
            let content = match file {
                None => {
                    header.set_entry_type(EntryType::Directory);
                    header.set_mode(0o755);
                    Vec::new()
                }
                Some((content, Kind::Text)) => {
                    header.set_mode(0o644);
                    content
                }
                Some((content, Kind::Speaker)) => {
                    let capability = ("SCHILY.xattr.security.capability", &PERMITTED[..]);
                    tar.append_pax_extensions([capability]).context("cannot write to memory")?;
                    header.set_mode(0o755);
                    content
                }
            };
            header.set_size(u64::try_from(content.len())?);
            tar.append_data(&mut header, path, &content[..]).with_context(|| format!("cannot pack {path}"))?;
        }
        tar.into_inner().context("cannot write to memory")
    }
}

/// CAP_NET_RAW and CAP_SYS_NICE permitted, not effective: `struct vfs_cap_data` of linux/capability.h in its second revision.
///
/// With the effective flag the kernel refuses to start the file where a capability is out of reach ("operation not
/// permitted"), such as in the pod of the controller. So the file is permitted them, and the speaker raises those that its
/// pod adds.
const PERMITTED: [u8; 20] = {
    let mut bytes = [0; 20];
    bytes[3] = 0x02; // VFS_CAP_REVISION_2, little endian, without VFS_CAP_FLAGS_EFFECTIVE
    bytes[5] = 0x20; // bit 13 of the permitted set, CAP_NET_RAW
    bytes[6] = 0x80; // bit 23, CAP_SYS_NICE
    bytes
};

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    #[test]
    fn the_program_is_permitted_two_capabilities_and_text_none() {
        let layer = sample().tar().unwrap();

        let mut archive = tar::Archive::new(&layer[..]);
        let mut capabilities = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let path = entry.path().unwrap().display().to_string();
            let extensions = entry.pax_extensions().unwrap().into_iter().flatten();
            let values: Vec<Vec<u8>> = extensions.map(|value| value.unwrap().value_bytes().to_vec()).collect();
            let mut content = Vec::new();
            entry.read_to_end(&mut content).unwrap();
            capabilities.push((path, values, content.len()));
        }

        let cap = vec![vec![0, 0, 0, 2, 0, 0x20, 0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]];
        let expected = [("garpike", cap, 7), ("licenses", vec![], 0), ("licenses/LICENSE", vec![], 4)];
        assert_eq!(capabilities, expected.map(|(path, values, len)| (path.to_owned(), values, len)));
    }

    #[test]
    fn the_order_of_the_files_does_not_matter() {
        let other = Layer::new()
            .file("garpike", b"program", Kind::Speaker)
            .file("licenses/LICENSE", b"text", Kind::Text)
            .directory("licenses");

        assert_eq!(sample().tar().unwrap(), other.tar().unwrap());
    }

    fn sample() -> Layer<'static> {
        Layer::new().directory("licenses").file("licenses/LICENSE", b"text", Kind::Text).file(
            "garpike",
            b"program",
            Kind::Speaker,
        )
    }
}
