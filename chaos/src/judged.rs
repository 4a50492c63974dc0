//! The program that is judged: this one, or the one that `GARPIKE_PROGRAM` names, such as that of the image.
//!
//! What judges is always this program. A speaker that is built as the image is weighs less: the pages of a program that are used are
//! resident memory too.

use std::env;
use std::path::PathBuf;

/// Where it is.
pub(crate) fn program() -> PathBuf {
    env::var_os("GARPIKE_PROGRAM")
        .filter(|path| !path.is_empty())
        .map_or_else(|| "/proc/self/exe".into(), PathBuf::from)
}
