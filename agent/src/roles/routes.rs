//! Route tables in files: how they are read, and how a change of one is seen.
//!
//! A table of the whole Internet takes seconds to read: whoever needs one reads it on a thread that may wait, and again only when
//! the file is another one.

use std::fs::File;
use std::io::{self, BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use castgate_control::{RouteTable, RouteTableError};
use flate2::bufread::MultiGzDecoder;

use crate::config::watch::Watch;

/// How often a file is read that changes while it is read.
const READS_MAX: u32 = 3;
/// What a file packed with gzip begins with (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// What tells one state of a file from another.
pub(super) type Stamp = (SystemTime, u64);

pub(super) fn stamp(path: &Path) -> io::Result<Stamp> {
    let about = std::fs::metadata(path)?;
    Ok((about.modified()?, about.len()))
}

/// Reads a route table from a file: `TABLE_DUMP_V2` of MRT, or lines of `prefix,asn`; packed with gzip or as it is.
///
/// # Errors
/// [`RouteTableError`], which names the line or the record.
pub fn read_routes(path: &Path) -> Result<RouteTable, RouteTableError> {
    let mut file = BufReader::new(File::open(path)?);
    if file.fill_buf()?.starts_with(&GZIP) {
        return RouteTable::read(BufReader::new(MultiGzDecoder::new(file)));
    }
    RouteTable::read(file)
}

/// The same of one state of the file, and which that was.
pub(super) fn read_stamped(path: &Path) -> Result<(Stamp, RouteTable), RouteTableError> {
    let mut before = stamp(path)?;
    for _ in 0..READS_MAX {
        let table = read_routes(path);
        let after = stamp(path)?;
        if before == after {
            return Ok((after, table?));
        }
        before = after;
    }
    Err(io::Error::other("it changes while it is read").into())
}

/// Watches the places of such files; `None`: there are none, or the kernel does not tell, which is said.
pub(super) fn watched(files: &[PathBuf]) -> Option<Watch> {
    let (first, others) = files.split_first()?;
    let watch = Watch::new(first).map(|mut watch| {
        watch.also(others.to_vec());
        watch
    });
    let unseen = |error: &io::Error| {
        tracing::warn!(file = %first.display(), %error, "changes of route tables are seen with the next snapshot only");
    };
    watch.inspect_err(unseen).ok()
}
