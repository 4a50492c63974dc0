//! Objects from YAML and JSON files, as people have them.
//!
//! Every document is read on its own: one that is broken is a [`Problem`] and changes nothing for the others.
//! What the values mean is not judged here, see [`crate::validate`].

mod kind;
mod reader;

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::objects::Objects;
use crate::problem::Problem;
use reader::Reader;

/// The file that `garpike allocate` writes: the addresses of the Services.
pub const STATUS_FILE: &str = "garpike-status.yaml";

/// The file that holds what operators asked for by `garpike drain` and `garpike move`.
pub const OVERRIDES_FILE: &str = "garpike-overrides.yaml";

/// The namespace whose pools and advertisements count.
pub const SYSTEM_NAMESPACE: &str = "metallb-system";

/// Reads all manifests of a directory, in the order of their names.
///
/// # Errors
///
/// When the directory cannot be listed. A file that cannot be read is a problem, not an error.
pub fn read_dir(dir: &Path) -> Result<(Objects, Vec<Problem>), ReadDirError> {
    let mut objects = Objects::default();
    let mut problems = Vec::new();
    for path in files(dir)? {
        let (found, complaints) = read_file(&path);
        problems.extend(complaints);
        problems.extend(objects.merge(found));
    }
    Ok((objects, problems))
}

/// The manifests of a directory, in the order of their names.
///
/// # Errors
///
/// When the directory cannot be listed.
pub fn files(dir: &Path) -> Result<Vec<PathBuf>, ReadDirError> {
    let error = |source| ReadDirError { dir: dir.to_owned(), source };
    let mut paths = Vec::new();
    for entry in std::fs::read_dir(dir).map_err(error)? {
        let path = entry.map_err(error)?.path();
        if is_manifest(&path) {
            paths.push(path);
        }
    }
    paths.sort_unstable();
    Ok(paths)
}

/// Reads the objects of one file. A file that cannot be read gives none, and a problem.
pub fn read_file(path: &Path) -> (Objects, Vec<Problem>) {
    match read_text(path) {
        Ok(text) => parse_documents(&path.file_name().unwrap_or_default().to_string_lossy(), &text),
        Err(problem) => (Objects::default(), vec![*problem]),
    }
}

/// Reads the text of one file.
///
/// # Errors
///
/// The problem with the file, when it cannot be read.
pub fn read_text(path: &Path) -> Result<String, Box<Problem>> {
    let name = || path.file_name().unwrap_or_default().to_string_lossy();
    try_read_text(path).map_err(|error| Box::new(Problem::error(error.to_string()).in_file(name().as_ref().into())))
}

/// A directory that cannot be listed.
#[derive(Debug, Error)]
#[error("cannot list the manifests in {}", dir.display())]
pub struct ReadDirError {
    /// The directory.
    pub dir: PathBuf,
    /// Why not.
    pub source: io::Error,
}

/// Reads the objects of one file. Any text gives a result.
pub fn parse_documents(file_name: &str, text: &str) -> (Objects, Vec<Problem>) {
    let mut reader = Reader::new(file_name);
    if text.len() > MAX_FILE_BYTES {
        let problem = Problem::error(format!("has {} bytes, at most {MAX_FILE_BYTES} are read", text.len()));
        reader.problems.push(problem.in_file(reader.file.clone()).mend("split the file"));
        return (reader.objects, reader.problems);
    }
    let mut documents = split(text.strip_prefix('\u{feff}').unwrap_or(text));
    for (lines_before, document) in documents.by_ref().take(MAX_DOCUMENTS) {
        reader.document(document, lines_before);
    }
    if let Some((lines_before, _)) = documents.next() {
        let problem = Problem::error(format!("only {MAX_DOCUMENTS} documents of one file are read"));
        let problem = Problem { line: Some(lines_before.saturating_add(1)), ..problem };
        reader.problems.push(problem.in_file(reader.file.clone()).mend("split the file"));
    }
    (reader.objects, reader.problems)
}

fn is_manifest(path: &Path) -> bool {
    let hidden = path.file_name().is_none_or(|name| name.as_encoded_bytes().starts_with(b"."));
    let extension = path.extension().and_then(OsStr::to_str).unwrap_or_default();
    !hidden && ["yaml", "yml", "json"].contains(&extension) && path.is_file()
}

fn try_read_text(path: &Path) -> Result<String, ReadFileError> {
    let mut bytes = Vec::new();
    // One byte more than is allowed is enough to see that the file is too long.
    File::open(path)?.take(MAX_FILE_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MAX_FILE_BYTES {
        return Err(ReadFileError::TooLong);
    }
    Ok(String::from_utf8(bytes)?)
}

/// Why a file is not read.
#[derive(Debug, Error)]
enum ReadFileError {
    #[error("cannot be read: {0}")]
    Io(#[from] io::Error),
    #[error("is longer than {MAX_FILE_BYTES} bytes; split the file")]
    TooLong,
    #[error("is not UTF-8 text: {0}")]
    NotUtf8(#[from] std::string::FromUtf8Error),
}

/// The documents of a stream, each with the number of lines before it; those without content left out.
///
/// No quoting or indentation hides a line that begins with `---` or `...` (YAML 1.2.2, rule `c-forbidden`), so lines
/// are enough to find the ends, and a broken document cannot swallow the next.
fn split(text: &str) -> impl Iterator<Item = (u32, &str)> {
    let mut rest = text;
    let mut next_line = 0_u32;
    let documents = std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let mut len = 0;
        let mut lines = 0_u32;
        for (at, line) in rest.split_inclusive('\n').enumerate() {
            if at > 0 && is_marker(line, "---") {
                break;
            }
            len += line.len();
            lines = lines.saturating_add(1);
            if is_marker(line, "...") {
                break;
            }
        }
        let (document, after) = rest.split_at(len);
        let start = next_line;
        rest = after;
        next_line = next_line.saturating_add(lines);
        Some((start, document))
    });
    documents.filter(|(_, document)| !is_blank(document))
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether a document is nothing but comments, directives and its markers.
fn is_blank(document: &str) -> bool {
    document.lines().all(|line| {
        let content = ["---", "..."]
            .iter()
            .find(|marker| is_marker(line, marker))
            .map_or(line, |marker| line.strip_prefix(marker).unwrap_or(line));
        let content = content.trim();
        content.is_empty() || content.starts_with('#') || line.starts_with('%')
    })
}

/// The longest file that is read. Chosen: ten thousand Services as `kubectl get -o yaml` prints them.
const MAX_FILE_BYTES: usize = 8 << 20;

/// How many documents of one file are read. Chosen: a status file of that many Services has the greatest length.
const MAX_DOCUMENTS: usize = 60_000;

#[cfg(test)]
mod tests;
