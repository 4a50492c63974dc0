//! `cargo xtask image`: the container image, made without a daemon, a registry or root.
//!
//! One static binary and one layer, written as an archive that `ctr images import`, `docker load`, `podman load` and `skopeo`
//! take. The same sources give the same bytes wherever they are built: no times, no paths of this machine, sorted entries.

mod archive;
mod crates;
mod layer;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::{cargo, root};

use archive::Image;
use crates::Crates;

/// What `cargo xtask image` takes.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// The processor that it is for
    #[arg(long, value_enum, default_value_t = Architecture::X86_64)]
    arch: Architecture,
    /// The archive that is written [default: target/image/garpike-VERSION-ARCH.tar]
    #[arg(short, long, value_name = "FILE")]
    output: Option<PathBuf>,
    /// Name and tag of the image
    #[arg(long, value_name = "NAME:TAG", default_value = crate::IMAGE)]
    image: String,
    /// Write its one layer as well, not compressed
    #[arg(long, value_name = "FILE")]
    layer: Option<PathBuf>,
    /// Pack this program, which must be static, and build none
    #[arg(long, value_name = "FILE")]
    binary: Option<PathBuf>,
}

/// A processor that there are images for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Architecture {
    #[value(name = "x86_64")]
    X86_64,
    #[value(name = "aarch64")]
    Aarch64,
}

impl Architecture {
    /// Rust's name of it, glibc linked in.
    fn target(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-unknown-linux-gnu",
            Self::Aarch64 => "aarch64-unknown-linux-gnu",
        }
    }

    /// The name that the image format has for it.
    fn oci(self) -> &'static str {
        match self {
            Self::X86_64 => "amd64",
            Self::Aarch64 => "arm64",
        }
    }

    /// Debian's cross compiler.
    fn compiler(self) -> &'static str {
        match self {
            Self::X86_64 => "x86_64-linux-gnu-gcc",
            Self::Aarch64 => "aarch64-linux-gnu-gcc",
        }
    }

    fn is_this_machine(self) -> bool {
        match self {
            Self::X86_64 => cfg!(target_arch = "x86_64"),
            Self::Aarch64 => cfg!(target_arch = "aarch64"),
        }
    }
}

/// Builds the program, packs it, and says how large the image has become.
#[expect(clippy::print_stderr, reason = "it is a command line program")]
pub(crate) fn run(args: &Args) -> Result<()> {
    let binary = match &args.binary {
        Some(binary) => binary.clone(),
        None => build(args.arch)?,
    };
    let program = fs::read(&binary).with_context(|| format!("cannot read {}", binary.display()))?;
    check_static(&program).with_context(|| format!("{} does not run in an empty image", binary.display()))?;

    let crates = Crates::linked(args.arch.target())?;
    let layer = layer::Layer::new()
        .directory("licenses")
        .file("garpike", &program, layer::Kind::Speaker)
        .file("licenses/LICENSE", &read("LICENSE")?, layer::Kind::Text)
        .file("licenses/third-party.txt", crates.licences()?.as_bytes(), layer::Kind::Text)
        .file("sbom.cdx.json", crates.sbom()?.as_bytes(), layer::Kind::Text)
        .tar()?;

    if let Some(path) = &args.layer {
        fs::write(path, &layer).with_context(|| format!("cannot write {}", path.display()))?;
    }
    let image = Image { name: &args.image, architecture: args.arch.oci(), revision: revision(), layer: &layer };
    let (archive, compressed) = image.archive()?;
    let default = || format!("target/image/garpike-{}-{}.tar", env!("CARGO_PKG_VERSION"), args.arch.oci());
    let output = args.output.clone().unwrap_or_else(|| root().join(default()));
    if let Some(directory) = output.parent() {
        fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    }
    fs::write(&output, archive).with_context(|| format!("cannot write {}", output.display()))?;
    eprintln!("xtask: {} is {} for linux/{}", output.display(), args.image, args.arch.oci());
    eprintln!(
        "xtask: program {:.2} MB, image {:.2} MB compressed (at most {:.0} MB)",
        megabytes(program.len()),
        megabytes(compressed),
        megabytes(COMPRESSED_MAX)
    );
    if compressed > COMPRESSED_MAX {
        bail!("the image has {compressed} bytes compressed; at most {COMPRESSED_MAX} are wanted");
    }
    Ok(())
}

/// Builds the program of the image: without the lab, with the C library inside.
fn build(arch: Architecture) -> Result<PathBuf> {
    let target = arch.target();
    let home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let home = home.or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cargo")));
    let home = home.context("neither CARGO_HOME nor HOME is set")?;
    // As configuration, because RUSTFLAGS would replace the flags of .cargo/config.toml. Cargo leaves remapped paths out of
    // what it hashes, so that two checkouts give the same bytes.
    let flags = format!(
        "target.{target}.rustflags=['-Ctarget-feature=+crt-static','--remap-path-prefix={}=/garpike','--remap-path-prefix={}=/cargo']",
        root().display(),
        home.display()
    );
    let linker = format!("target.{target}.linker='{}'", arch.compiler());
    let mut arguments = vec!["build", "--locked", "--profile", "dist", "--no-default-features", "--bin", "garpike"];
    arguments.extend(["--target", target, "--config", &flags]);
    if !arch.is_this_machine() {
        arguments.extend(["--config", &linker]);
    }
    cargo(&arguments).with_context(|| {
        format!(
            "a build for another processor needs `rustup target add {target}` and its C compiler {}",
            arch.compiler()
        )
    })?;
    let directory = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from);
    Ok(directory.join(target).join("dist/garpike"))
}

/// Refuses a program that asks for a loader, which an empty image does not have.
fn check_static(program: &[u8]) -> Result<()> {
    let number = |at: usize, len: usize| {
        let bytes = program.get(at..at.checked_add(len)?)?;
        Some(bytes.iter().rev().fold(0_usize, |number, byte| number << 8 | usize::from(*byte)))
    };
    // ELF, 64 bit, little endian; the table of program headers. Offsets: System V ABI, "ELF Header".
    if program.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("it is no program for 64-bit Linux, little endian");
    }
    let table = number(32, 8).zip(number(54, 2)).zip(number(56, 2)).context("its header is cut off")?;
    let ((start, size), count) = table;
    for index in 0..count {
        let at = index.checked_mul(size).and_then(|offset| offset.checked_add(start));
        let kind = at.and_then(|at| number(at, 4)).context("its program headers are cut off")?;
        if kind == PT_INTERP {
            bail!("it is linked dynamically; build it with -C target-feature=+crt-static");
        }
    }
    Ok(())
}

/// The commit that is built, or nothing where the sources are no git checkout.
fn revision() -> Option<String> {
    let output = Command::new("git").args(["rev-parse", "HEAD"]).current_dir(root()).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}

fn read(path: &str) -> Result<Vec<u8>> {
    fs::read(root().join(Path::new(path))).with_context(|| format!("cannot read {path}"))
}

fn megabytes(bytes: usize) -> f64 {
    u32::try_from(bytes).map_or(f64::INFINITY, |bytes| f64::from(bytes) / 1e6)
}

/// Chosen: a node on a slow line has it within seconds.
const COMPRESSED_MAX: usize = 8_000_000;

/// The path of a loader (System V ABI, "Program Header").
const PT_INTERP: usize = 3;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_needs_a_loader_is_refused() {
        let refusal = check_static(&elf(&[1, 3])).unwrap_err().to_string();

        assert!(refusal.contains("crt-static"), "{refusal}");
        check_static(&elf(&[1, 2, 6])).unwrap();
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(check_static(b"#!/bin/sh\n").is_err());
        let mut cut = elf(&[1, 1]);
        cut.truncate(70);
        assert!(check_static(&cut).is_err());
    }

    /// A 64-bit header with program headers of these kinds.
    fn elf(kinds: &[u8]) -> Vec<u8> {
        let mut bytes = vec![0; 64];
        bytes[..6].copy_from_slice(b"\x7fELF\x02\x01");
        bytes[32] = 64;
        bytes[54] = 56;
        bytes[56] = u8::try_from(kinds.len()).unwrap();
        for kind in kinds {
            let mut header = [0; 56];
            header[0] = *kind;
            bytes.extend(header);
        }
        bytes
    }
}
