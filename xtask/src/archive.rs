//! Container images without a container engine: one layer of static programs, written as an archive that every engine reads.
//!
//! ```text
//!   oci-layout  index.json                      read by `ctr images import`, skopeo, podman
//!   blobs/sha256/{configuration, layer, manifest}
//!   manifest.json                               read by `docker load`, `kind load image-archive`
//! ```
//! The same input gives the same octets: no time, no owner and no order of a folder comes in.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use tar::{Builder, EntryType, Header};

const EPOCH: &str = "1970-01-01T00:00:00Z";
/// What programs expect to find in a root; `tmp` alone may be written by everybody.
const FOLDERS: &[(&str, u32)] =
    &[("dev", 0o755), ("etc", 0o755), ("proc", 0o755), ("run", 0o755), ("sys", 0o755), ("tmp", 0o1777), ("var", 0o755)];
/// The user that images run as unless they need more.
pub const NONROOT: &str = "65532:65532";
const PASSWD: &str = "root:x:0:0:root:/:/sbin/nologin\nnonroot:x:65532:65532:nonroot:/:/sbin/nologin\n";
const GROUP: &str = "root:x:0:\nnonroot:x:65532:\n";

/// What an image holds and how it starts.
#[derive(Debug, Clone)]
pub struct Image {
    /// Such as `castgate.local/agent:dev`. The part before the first slash needs a dot, or engines take it for a folder of
    /// a public registry.
    pub reference: String,
    /// Programs: where each lies here, and its name in the root of the image.
    pub programs: Vec<(PathBuf, String)>,
    /// The first program, and arguments that always come with it.
    pub entrypoint: Vec<String>,
    /// `UID:GID`; none where the pod has to say it.
    pub user: Option<&'static str>,
}

/// Writes the archive.
pub fn write(image: &Image, output: &Path) -> Result<()> {
    let layer = layer(image)?;
    let configuration = configuration(image, &layer);
    let manifest = manifest(&configuration, &layer);
    let mut archive = Builder::new(Vec::new());
    let name = |blob: &[u8]| format!("blobs/sha256/{}", hex_sha256(blob));
    file(&mut archive, "oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#, 0o644)?;
    file(&mut archive, "index.json", &index(image, &manifest), 0o644)?;
    folder(&mut archive, "blobs", 0o755)?;
    folder(&mut archive, "blobs/sha256", 0o755)?;
    for blob in [&configuration, &layer, &manifest] {
        file(&mut archive, &name(blob), blob, 0o644)?;
    }
    let docker =
        json!([{"Config": name(&configuration), "RepoTags": [image.reference], "Layers": [name(&layer)]}]).to_string();
    file(&mut archive, "manifest.json", docker.as_bytes(), 0o644)?;
    let octets = archive.into_inner().context("the archive does not end")?;
    // Renamed into place: a reader never sees half of it.
    let unfinished = output.with_extension("tar.new");
    std::fs::write(&unfinished, octets).with_context(|| format!("{} cannot be written", unfinished.display()))?;
    std::fs::rename(&unfinished, output).with_context(|| format!("{} cannot be written", output.display()))
}

/// The one layer: folders, two accounts, the programs.
fn layer(image: &Image) -> Result<Vec<u8>> {
    let mut layer = Builder::new(Vec::new());
    for (name, mode) in FOLDERS {
        folder(&mut layer, name, *mode)?;
    }
    file(&mut layer, "etc/passwd", PASSWD.as_bytes(), 0o644)?;
    file(&mut layer, "etc/group", GROUP.as_bytes(), 0o644)?;
    let mut programs: Vec<&(PathBuf, String)> = image.programs.iter().collect();
    programs.sort_by(|one, other| one.1.cmp(&other.1));
    for (path, name) in programs {
        let octets = std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))?;
        file(&mut layer, name, &octets, 0o755)?;
    }
    layer.into_inner().context("the layer does not end")
}

fn configuration(image: &Image, layer: &[u8]) -> Vec<u8> {
    let mut config = json!({"Env": ["PATH=/"], "Entrypoint": image.entrypoint, "WorkingDir": "/"});
    if let Some(user) = image.user {
        config["User"] = Value::from(user);
    }
    let configuration = json!({
        "architecture": architecture(),
        "os": "linux",
        "created": EPOCH,
        "config": config,
        "rootfs": {"type": "layers", "diff_ids": [digest(layer)]},
        "history": [{"created": EPOCH, "created_by": "cargo xtask images"}],
    });
    configuration.to_string().into_bytes()
}

fn manifest(configuration: &[u8], layer: &[u8]) -> Vec<u8> {
    let blob = |kind: &str, octets: &[u8]| {
        let media_type = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": media_type, "digest": digest(octets), "size": octets.len()})
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": blob("config.v1+json", configuration),
        "layers": [blob("layer.v1.tar", layer)],
    });
    manifest.to_string().into_bytes()
}

fn index(image: &Image, manifest: &[u8]) -> Vec<u8> {
    let tag = image.reference.rsplit_once(':').map_or("latest", |(_, tag)| tag);
    let index = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "digest": digest(manifest),
            "size": manifest.len(),
            "platform": {"architecture": architecture(), "os": "linux"},
            // containerd takes the whole name from the first, others the tag from the second.
            "annotations": {"io.containerd.image.name": image.reference, "org.opencontainers.image.ref.name": tag},
        }],
    });
    index.to_string().into_bytes()
}

/// The name that images have for this machine's processor.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

fn file(archive: &mut Builder<Vec<u8>>, name: &str, octets: &[u8], mode: u32) -> Result<()> {
    entry(archive, name, EntryType::Regular, octets, mode)
}

fn folder(archive: &mut Builder<Vec<u8>>, name: &str, mode: u32) -> Result<()> {
    entry(archive, name, EntryType::Directory, &[], mode)
}

fn entry(archive: &mut Builder<Vec<u8>>, name: &str, kind: EntryType, octets: &[u8], mode: u32) -> Result<()> {
    let mut header = Header::new_ustar();
    header.set_entry_type(kind);
    header.set_size(octets.len() as u64);
    header.set_mode(mode);
    header.set_mtime(0);
    header.set_uid(0);
    header.set_gid(0);
    archive.append_data(&mut header, name, octets).with_context(|| format!("`{name}` does not fit into an archive"))
}

fn digest(octets: &[u8]) -> String {
    format!("sha256:{}", hex_sha256(octets))
}

/// The SHA-256 of some octets, in hexadecimal digits.
pub fn hex_sha256(octets: &[u8]) -> String {
    Sha256::digest(octets).iter().fold(String::with_capacity(64), |mut hex, octet| {
        write!(hex, "{octet:02x}").expect("a string takes everything");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::io::Read;

    #[test]
    fn every_digest_in_an_archive_is_that_of_its_blob() {
        let files = unpack(&archive_of(&image(b"a program")));
        let json = |name: &str| serde_json::from_slice::<Value>(&files[name]).unwrap();
        let blob = |reference: &Value| {
            let digest = reference["digest"].as_str().unwrap();
            let octets = &files[&format!("blobs/sha256/{}", digest.strip_prefix("sha256:").unwrap())];
            assert_eq!(super::digest(octets), digest);
            assert_eq!(reference["size"], octets.len());
            octets.clone()
        };
        let manifest: Value = serde_json::from_slice(&blob(&json("index.json")["manifests"][0])).unwrap();
        let configuration: Value = serde_json::from_slice(&blob(&manifest["config"])).unwrap();
        let layer = blob(&manifest["layers"][0]);
        assert_eq!(configuration["rootfs"]["diff_ids"][0], super::digest(&layer));
        assert_eq!(configuration["config"]["User"], NONROOT);
        // The second reading of the same archive leads to the same blobs.
        let docker = &json("manifest.json")[0];
        assert_eq!(docker["RepoTags"][0], "castgate.local/agent:dev");
        assert_eq!(files[docker["Layers"][0].as_str().unwrap()], layer);
        assert_eq!(unpack(&layer)["castgate-agent"], b"a program");
    }

    #[test]
    fn the_same_programs_give_the_same_archive_and_others_do_not() {
        let first = archive_of(&image(b"a program"));
        assert!(first == archive_of(&image(b"a program")));
        assert!(first != archive_of(&image(b"b program")));
    }

    fn image(program: &[u8]) -> Image {
        let folder = folder_of_test();
        let path = folder.join("program");
        std::fs::write(&path, program).unwrap();
        Image {
            reference: "castgate.local/agent:dev".to_owned(),
            programs: vec![(path, "castgate-agent".to_owned())],
            entrypoint: vec!["/castgate-agent".to_owned()],
            user: Some(NONROOT),
        }
    }

    fn archive_of(image: &Image) -> Vec<u8> {
        let output = folder_of_test().join("image.tar");
        write(image, &output).unwrap();
        std::fs::read(output).unwrap()
    }

    fn folder_of_test() -> PathBuf {
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("test").replace(':', "-");
        let folder = std::env::temp_dir().join(format!("castgate-xtask-{}-{name}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        folder
    }

    fn unpack(archive: &[u8]) -> BTreeMap<String, Vec<u8>> {
        let mut archive = tar::Archive::new(archive);
        let files = archive.entries().unwrap().map(|entry| {
            let mut entry = entry.unwrap();
            let mut octets = Vec::new();
            entry.read_to_end(&mut octets).unwrap();
            (entry.path().unwrap().display().to_string(), octets)
        });
        files.collect()
    }
}
