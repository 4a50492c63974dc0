//! How gossip is protected, and what becomes of its keys.

use anyhow::{Context as _, Result, bail};
use garpike_membership::io as membership_io;
use garpike_membership::{Sealing, SourcedKeys};
use tracing::warn;

use crate::args::Args;

/// How datagrams are protected, and the source of the keys if they are.
pub(super) fn sealing(args: &Args) -> Result<(Sealing, Option<membership_io::KeySource>)> {
    let Some(path) = &args.ml_secret_key_path else {
        if args.key_cache.is_some() {
            bail!("--key-cache: there is nothing to keep without --ml-secret-key-path");
        }
        warn!("--insecure-plaintext: whoever reaches the gossip port can move every address");
        return Ok((Sealing::InsecurePlaintext, None));
    };
    let cache = args.key_cache.as_deref();
    let (source, keyring) = membership_io::KeySource::start(path, &args.cluster_name, cache).map_err(|error| {
        let flag = match error {
            membership_io::KeySourceError::Cache { .. } => "--key-cache",
            membership_io::KeySourceError::Secret(_) | membership_io::KeySourceError::Thread(_) => {
                "--ml-secret-key-path"
            }
        };
        anyhow::Error::new(error).context(flag)
    })?;
    if args.insecure_plaintext {
        warn!(
            "--insecure-plaintext with --ml-secret-key-path: gossip in the clear is still accepted, and whoever reaches \
             the port can move every address; drop --insecure-plaintext as soon as every node has the secret"
        );
        return Ok((Sealing::RollOut(keyring), Some(source)));
    }
    Ok((Sealing::Sealed(keyring), Some(source)))
}

/// What the files of the keys hold when they have changed; never, without keys.
pub(super) async fn next(keys: Option<&mut membership_io::KeySource>) -> Result<SourcedKeys> {
    let Some(keys) = keys else { return std::future::pending().await };
    keys.keys.changed().await.context("the thread that reads the keys is gone")?;
    Ok(keys.keys.borrow_and_update().clone())
}
