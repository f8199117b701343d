//! Container images without an engine or a registry: buildah copies one static binary into an empty image, and the
//! result is an OCI archive, kept by the hash of what it is made of.

use super::binaries::{Module, hex};
use super::{containerd, dns, state, tool};
use anyhow::{Context, Result, bail};
use sha2::{Digest, Sha256};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Bytes that an image of ours may have: it is pulled to every machine that may run a pod.
const LARGEST: u64 = 40_000_000;
/// Hex digits of a hash that name an archive.
const NAME_DIGITS: usize = 16;
/// Where buildah leaves something, whatever folders it is told to use.
const TRACES: [&str; 4] = ["/etc/cni", "/etc/containers/networks", "/run/containers", "/var/lib/containers"];
/// What Mizuya itself consists of: a folder with a Containerfile, and the binary that goes into its image.
const OURS: [(&str, &str); 2] = [("node", "mizuya-node"), ("operator", "mizuya-operator")];

/// The archive of the image of a cluster's own module.
pub fn of_module(module: Module) -> Result<PathBuf> {
    let (program, reference) = match module.name() {
        "pause" => ("pause", containerd::PAUSE_IMAGE),
        "coredns" => ("coredns", dns::IMAGE),
        other => bail!("{other} is not run in a container"),
    };
    let binary = module.build()?.join(program);
    build(&module.sources().join("Containerfile"), &binary, reference)
}

/// The archives of the node's and the operator's images: `localhost/mizuya/node:<tag>` and
/// `localhost/mizuya/operator:<tag>`, from the binaries that cargo built with profile `ci`.
pub fn ours(tag: &str) -> Result<Vec<PathBuf>> {
    let workspace = Path::new(env!("CARGO_MANIFEST_DIR")).parent().context("the package is in a workspace")?;
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| workspace.join("target"), PathBuf::from);
    let built = target.join("x86_64-unknown-linux-gnu/ci");
    let archive = |(folder, program): (&str, &str)| {
        let binary = built.join(program);
        if !binary.exists() {
            bail!("{} is missing: `cargo build --profile ci --workspace --bins` makes it", binary.display());
        }
        let reference = format!("localhost/mizuya/{folder}:{tag}");
        let archive = build(&workspace.join(folder).join("Containerfile"), &binary, &reference)?;
        let bytes = archive.metadata()?.len();
        println!("{reference}: {:.1} MB", bytes as f64 / 1e6);
        if bytes > LARGEST {
            bail!("{reference} has {bytes} bytes, more than the {LARGEST} that are allowed");
        }
        Ok(archive)
    };
    OURS.into_iter().map(archive).collect()
}

/// An archive with an image made by `containerfile`, whose context has `binary` at its root and nothing else.
pub fn build(containerfile: &Path, binary: &Path, reference: &str) -> Result<PathBuf> {
    let recipe = fs::read(containerfile).with_context(|| format!("can't read {}", containerfile.display()))?;
    let content = fs::read(binary).with_context(|| format!("can't read {}", binary.display()))?;
    let mut hash = Sha256::new();
    for part in [recipe.as_slice(), reference.as_bytes(), content.as_slice()] {
        hash.update((part.len() as u64).to_be_bytes());
        hash.update(part);
    }
    let folder = state::cache()?.join("images");
    fs::create_dir_all(&folder).with_context(|| format!("can't make {}", folder.display()))?;
    let name = reference.rsplit('/').next().unwrap_or(reference).replace(':', "-");
    let archive = folder.join(format!("{name}-{}.tar", &hex(&hash.finalize())[..NAME_DIGITS]));
    if !archive.exists() {
        let unfinished = tempfile::Builder::new().prefix(".building-").tempdir_in(&folder)?;
        let traces: Vec<_> = TRACES.iter().filter(|place| !Path::new(place).exists()).collect();
        let made = make(unfinished.path(), containerfile, binary, reference);
        for trace in traces {
            // There is none when buildah failed early.
            let _ = fs::remove_dir_all(trace);
        }
        let made = made?;
        remove_older(&folder, &name)?;
        fs::rename(made, &archive)?;
    }
    Ok(archive)
}

fn make(scratch: &Path, containerfile: &Path, binary: &Path, reference: &str) -> Result<PathBuf> {
    let context = scratch.join("context");
    fs::create_dir(&context)?;
    fs::copy(binary, context.join(binary.file_name().context("a binary has a name")?))?;
    let archive = scratch.join("image.tar");
    let mut build = buildah(scratch);
    build.args(["build", "--isolation=chroot", "--format=oci", "--timestamp=0", "--quiet", "--tag", reference]);
    tool::run(build.arg("--file").arg(containerfile).arg(&context))?;
    let destination = format!("oci-archive:{}:{reference}", archive.display());
    tool::run(buildah(scratch).args(["push", "--quiet", reference, &destination]))?;
    Ok(archive)
}

/// Keeps its storage where it goes away with the rest, and makes no mounts.
fn buildah(scratch: &Path) -> Command {
    let mut buildah = Command::new("buildah");
    buildah.arg("--root").arg(scratch.join("storage")).arg("--runroot").arg(scratch.join("run"));
    buildah.arg("--storage-driver=vfs");
    buildah
}

/// Removes archives of the same image with other content: they would only fill the disk.
fn remove_older(folder: &Path, name: &str) -> Result<()> {
    for entry in fs::read_dir(folder)?.flatten() {
        let file = entry.file_name();
        let hash = file.to_str().and_then(|file| file.strip_prefix(name)?.strip_prefix('-')?.strip_suffix(".tar"));
        if hash.is_some_and(|hash| hash.len() == NAME_DIGITS && hash.bytes().all(|digit| digit.is_ascii_hexdigit())) {
            fs::remove_file(entry.path())?;
        }
    }
    Ok(())
}
