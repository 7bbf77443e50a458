//! Where the programs under test lie.

use anyhow::{Context, Result, ensure};
use std::path::PathBuf;

/// Names the folder with the programs, for whoever built them elsewhere.
const FOLDER_VARIABLE: &str = "CASTGATE_BIN_DIR";

/// The path of one of our programs, such as `castgate-agent`.
///
/// # Errors
/// When it has not been built.
pub fn program(name: &str) -> Result<PathBuf> {
    let folder = match std::env::var_os(FOLDER_VARIABLE) {
        Some(folder) => PathBuf::from(folder),
        None => profile_directory()?,
    };
    let path = folder.join(name);
    ensure!(path.is_file(), "{} is not there: build it, or name its folder in {FOLDER_VARIABLE}", path.display());
    Ok(path)
}

/// The folder of everything that cargo builds.
///
/// # Errors
/// When this program does not lie where cargo puts tests.
pub fn target_directory() -> Result<PathBuf> {
    Ok(profile_directory()?.parent().context("a profile has no folder above")?.to_path_buf())
}

/// `target/debug` or its like: a test lies in `deps` below it.
fn profile_directory() -> Result<PathBuf> {
    let me = std::env::current_exe().context("this program does not know where it lies")?;
    let deps = me.parent().context("this program lies nowhere")?;
    let profile = if deps.ends_with("deps") { deps.parent() } else { Some(deps) };
    Ok(profile.context("`deps` lies nowhere")?.to_path_buf())
}
