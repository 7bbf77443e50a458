//! The virtual machine whose kernel speaks AMT: Linux has had a driver since 5.16, and distributions do not build it. Kept in
//! the cache folder.
//!
//! ```text
//!   linux-image-…-cloud ──▶ vmlinuz, modules of network cards and bridges ─┐
//!   linux-source ──▶ drivers/net/amt.c ──▶ make, linux-headers ──▶ amt.ko ─┼─▶ cache/guest/{vmlinuz, initrd}
//!   busybox-static, this machine's `ip`, e2e/guest/init ───────────────────┘
//! ```
//! Packages of the kernel are unpacked, never installed: nothing of them lands in `/boot`. A stamp holds the hash of our own
//! part; whoever finds it right builds and downloads nothing.

use crate::initrd::Initrd;
use crate::{archive, shell, tools};
use anyhow::{Context, Result, bail, ensure};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Always depends on the newest kernel for virtual machines; its name holds the release.
const KERNEL: &str = "linux-image-cloud-amd64";
/// What the machine needs beyond what is built into its kernel. What these need themselves is found out.
const MODULES: &[&str] = &["virtio_pci", "virtio_net", "bridge"];
/// The one file of the kernel's source that makes the driver.
const DRIVER: &str = "drivers/net/amt.c";
/// What building takes, beside the headers of the kernel.
const BUILD_PACKAGES: &[&str] = &["busybox-static", "gcc", "make", "xz-utils"];

/// Makes sure that kernel and initrd are there; gives their folder.
pub fn ensure() -> Result<PathBuf> {
    let folder = tools::cache().join("guest");
    let stamp = stamp()?;
    let stamp_file = folder.join("stamp");
    if std::fs::read_to_string(&stamp_file).is_ok_and(|found| found == stamp) {
        return Ok(folder);
    }
    ensure!(std::env::consts::ARCH == "x86_64", "the machine is built of packages for x86_64");
    ensure!(shell::is_root() && shell::on_path("apt-get"), "its kernel comes from Debian packages: try again as root");
    println!("tools: building the machine whose kernel speaks AMT (190 MB of packages, half a minute, once)");
    let start = Instant::now();
    let work = folder.join("work");
    std::fs::remove_dir_all(&work).ok();
    std::fs::create_dir_all(&work).with_context(|| format!("{} cannot be made", work.display()))?;
    std::fs::remove_file(&stamp_file).ok();
    build(&folder, &work)?;
    std::fs::remove_dir_all(&work).ok();
    std::fs::write(&stamp_file, stamp).with_context(|| format!("{} cannot be written", stamp_file.display()))?;
    println!("tools: the machine took {} s", start.elapsed().as_secs());
    Ok(folder)
}

fn build(folder: &Path, work: &Path) -> Result<()> {
    tools::refresh_debian_lists()?;
    let release = release(&shell::stdout(&mut shell::command("apt-cache", &["depends", KERNEL]))?)?;
    let headers = format!("linux-headers-{release}");
    tools::install_debian_packages(&[BUILD_PACKAGES, &[&headers]].concat())?;
    let (image, source) = (format!("linux-image-{release}"), source_package(&release)?);
    tools::download_debian_packages(&[&image, &source], work)?;

    let unpacked = work.join("image");
    shell::run(shell::command("dpkg-deb", &["-x"]).arg(package(work, &image)?).arg(&unpacked))?;
    let driver = driver(work, &release, &source)?;
    let mut initrd = Initrd::default();
    for name in ["bin", "dev", "proc", "sys", "tmp"] {
        initrd.folder(name);
    }
    initrd.file("init", &read(&inputs().join("init"))?);
    initrd.file("bin/busybox", &read(&on_machine("busybox")?)?);
    program_with_libraries(&mut initrd, "ip")?;
    // Numbered: the shell of the machine sorts names.
    let modules = modules(&unpacked.join("lib/modules").join(&release).join("kernel"), &driver)?;
    for (number, module) in modules.iter().enumerate() {
        let name = module.file_name().and_then(|name| name.to_str()).context("a module without a name")?;
        initrd.file(&format!("modules/{number:02}-{name}"), &read(module)?);
    }
    write(&folder.join("initrd"), &initrd.finish())?;
    write(&folder.join("vmlinuz"), &read(&unpacked.join("boot").join(format!("vmlinuz-{release}")))?)
}

/// Builds the driver against the headers of the kernel.
fn driver(work: &Path, release: &str, source: &str) -> Result<PathBuf> {
    let folder = work.join("driver");
    std::fs::create_dir_all(&folder).with_context(|| format!("{} cannot be made", folder.display()))?;
    // The archive in the package is read only as far as the one file.
    let extract = r#"
        dpkg-deb --fsys-tarfile "$1" 2>/dev/null | tar -xOf - "./usr/src/$2.tar.xz" 2>/dev/null | xz -dc 2>/dev/null |
            tar -xf - -C "$3" --strip-components=3 --occurrence=1 "$2/$4""#;
    let mut sh = shell::command("sh", &["-c", extract, "extract"]);
    shell::run(sh.arg(package(work, source)?).arg(source).arg(&folder).arg(DRIVER))?;
    write(&folder.join("Kbuild"), b"obj-m := amt.o\n")?;
    let headers = format!("/usr/src/linux-headers-{release}");
    let mut make = shell::command("make", &["-s", "-C", &headers]);
    // What it says on the way (there is no BTF to generate) helps only when it fails.
    shell::stdout(make.arg(format!("M={}", folder.display())).arg("modules"))?;
    let module = folder.join("amt.ko");
    shell::run(shell::command("strip", &["--strip-debug"]).arg(&module))?;
    Ok(module)
}

/// The modules, each after those that it needs; the driver last.
fn modules(kernel: &Path, driver: &Path) -> Result<Vec<PathBuf>> {
    let mut known = Vec::new();
    collect_modules(kernel, &mut known)?;
    let mut ordered = Vec::new();
    let mut pending: Vec<String> = MODULES.iter().map(|name| (*name).to_owned()).collect();
    pending.extend(depends(&read(driver)?));
    for name in &pending {
        add_module(name, &known, &mut ordered)?;
    }
    ordered.push(driver.to_path_buf());
    Ok(ordered)
}

fn add_module(name: &str, known: &[PathBuf], ordered: &mut Vec<PathBuf>) -> Result<()> {
    let is_it = |path: &&PathBuf| module_name(path).is_some_and(|found| found == name.replace('-', "_"));
    let Some(path) = known.iter().find(is_it) else { bail!("the kernel has no module `{name}`") };
    if ordered.contains(path) {
        return Ok(());
    }
    for needed in depends(&read(path)?) {
        add_module(&needed, known, ordered)?;
    }
    ordered.push(path.clone());
    Ok(())
}

fn collect_modules(folder: &Path, modules: &mut Vec<PathBuf>) -> Result<()> {
    for entry in std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))? {
        let path = entry.context("a folder of modules")?.path();
        if path.is_dir() {
            collect_modules(&path, modules)?;
        } else if module_name(&path).is_some() {
            modules.push(path);
        }
    }
    Ok(())
}

/// The name as the kernel spells it; `None` when this is no module.
fn module_name(path: &Path) -> Option<String> {
    Some(path.file_name()?.to_str()?.strip_suffix(".ko")?.replace('-', "_"))
}

/// What a module says that it needs: `depends=…` among the lines of its `.modinfo`, which end in zero.
fn depends(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else { return Vec::new() };
    let names = module[at + KEY.len()..].split(|octet| *octet == 0).next().unwrap_or_default();
    let names = String::from_utf8_lossy(names).into_owned();
    names.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect()
}

/// A program of this machine with every library that it loads, where it looks for them.
fn program_with_libraries(initrd: &mut Initrd, name: &str) -> Result<()> {
    let program = on_machine(name)?;
    let listing = shell::stdout(shell::command("ldd", &[]).arg(&program))?;
    for library in listing.split_whitespace().filter(|word| word.starts_with('/')) {
        initrd.file(library, &read(Path::new(library))?);
    }
    initrd.file(&format!("sbin/{name}"), &read(&program)?);
    Ok(())
}

fn on_machine(program: &str) -> Result<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut folders = std::env::split_paths(&path).chain(["/usr/sbin".into(), "/sbin".into()]);
    let found = folders.find_map(|folder| Some(folder.join(program)).filter(|program| program.is_file()));
    found.with_context(|| format!("`{program}` is not on this machine"))
}

/// `linux-image-6.1.0-56-cloud-amd64` out of what the package depends on is the release `6.1.0-56-cloud-amd64`.
fn release(depends: &str) -> Result<String> {
    let names = depends.lines().filter_map(|line| line.trim().strip_prefix("Depends: linux-image-"));
    let release = names.map(str::trim).find(|name| name.starts_with(|first: char| first.is_ascii_digit()));
    release.map(str::to_owned).with_context(|| format!("{KERNEL} depends on no kernel"))
}

/// The source of `6.1.0-56-cloud-amd64` is in `linux-source-6.1`.
fn source_package(release: &str) -> Result<String> {
    let mut numbers = release.split('.');
    match (numbers.next(), numbers.next()) {
        (Some(major), Some(minor)) => Ok(format!("linux-source-{major}.{minor}")),
        _ => bail!("`{release}` is no release of Linux"),
    }
}

/// The file of a package that was downloaded.
fn package(folder: &Path, name: &str) -> Result<PathBuf> {
    let entries = std::fs::read_dir(folder).with_context(|| format!("{} cannot be read", folder.display()))?;
    let mut files = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let start = format!("{name}_");
    let found =
        files.find(|path| path.file_name().and_then(|name| name.to_str()).is_some_and(|n| n.starts_with(&start)));
    found.with_context(|| format!("{name} was downloaded and is not there"))
}

/// The hash of everything of ours that decides what comes out.
fn stamp() -> Result<String> {
    let mut all = format!("1 {KERNEL} {} {DRIVER}\n", MODULES.join(" ")).into_bytes();
    all.extend_from_slice(&read(&inputs().join("init"))?);
    Ok(archive::hex_sha256(&all))
}

fn inputs() -> PathBuf {
    shell::root().join("e2e/guest")
}

fn read(path: &Path) -> Result<Vec<u8>> {
    std::fs::read(path).with_context(|| format!("{} cannot be read", path.display()))
}

fn write(path: &Path, octets: &[u8]) -> Result<()> {
    std::fs::write(path, octets).with_context(|| format!("{} cannot be written", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernel_that_a_package_depends_on_tells_release_and_source() {
        let depends = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-56-cloud-amd64\n";
        assert_eq!(release(depends).unwrap(), "6.1.0-56-cloud-amd64");
        assert_eq!(source_package("6.12.9-1-cloud-amd64").unwrap(), "linux-source-6.12");
        assert!(release("linux-image-cloud-amd64\n").is_err());
    }

    #[test]
    fn a_module_tells_what_it_needs() {
        assert_eq!(depends(b"license=GPL\0depends=llc,stp\0retpoline=Y\0"), ["llc", "stp"]);
        assert!(depends(b"license=GPL\0depends=\0").is_empty() && depends(b"no module").is_empty());
        assert_eq!(module_name(Path::new("x/virtio-rng.ko")).as_deref(), Some("virtio_rng"));
        assert_eq!(module_name(Path::new("x/modules.order")), None);
    }
}
