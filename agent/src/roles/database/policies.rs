//! The policies of a snapshot, with the route tables that they name.
//!
//! A table of the whole Internet takes seconds to read: it is read again only when its file has changed.

use std::collections::HashMap;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use castgate_control::{Policy, PolicySnapshot, RouteTable, RouteTableError, SnapshotError};
use flate2::bufread::MultiGzDecoder;
use serde::Serialize;

/// What a file packed with gzip begins with (RFC 1952 §2.3.1).
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Why there are no such policies: one sentence that names the field or the file.
#[derive(Debug, thiserror::Error)]
pub enum PolicyError {
    /// A policy cannot be used.
    #[error("[{0}].{1}")]
    Policy(usize, SnapshotError),
    /// Its route table cannot be read.
    #[error("[{0}].routes.file: {1}: {2}")]
    Routes(usize, PathBuf, RouteTableError),
}

/// What one rule did since the database started.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct RuleReport {
    /// Name of its policy.
    pub policy: String,
    /// Its name.
    pub rule: String,
    /// About how many clients it moved.
    pub clients: u64,
    /// In how many answers.
    pub answers: u64,
}

/// Tables that are in memory.
#[derive(Debug, Default)]
pub(super) struct Tables(HashMap<PathBuf, (SystemTime, u64, Arc<RouteTable>)>);

impl Tables {
    /// Makes the policies of a snapshot ready, and forgets the tables that none of them names.
    pub(super) fn compile(&mut self, snapshots: &[PolicySnapshot]) -> Result<Vec<Policy>, PolicyError> {
        let mut named = HashMap::new();
        let compile = |(index, policy): (usize, &PolicySnapshot)| {
            let file = policy.routes.as_ref().and_then(|routes| routes.file.as_ref());
            let table = file.map(|file| {
                let kept = match named.get(file) {
                    Some(kept) => Clone::clone(kept),
                    None => self.table(file).map_err(|error| PolicyError::Routes(index, file.clone(), error))?,
                };
                let (_, _, table) = named.entry(file.clone()).or_insert(kept);
                Ok(table.clone())
            });
            policy.compile(table.transpose()?).map_err(|error| PolicyError::Policy(index, error))
        };
        let policies = snapshots.iter().enumerate().map(compile).collect::<Result<_, _>>()?;
        self.0 = named;
        Ok(policies)
    }

    fn table(&self, path: &Path) -> Result<(SystemTime, u64, Arc<RouteTable>), RouteTableError> {
        let about = std::fs::metadata(path)?;
        let (changed, length) = (about.modified()?, about.len());
        match self.0.get(path) {
            Some(kept) if (kept.0, kept.1) == (changed, length) => Ok(kept.clone()),
            _ => Ok((changed, length, Arc::new(read_routes(path)?))),
        }
    }
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

#[cfg(test)]
mod tests {
    use std::io::Write as _;

    use castgate_control::{MatchSnapshot, PoolSnapshot, RoutesSnapshot, RuleSnapshot};
    use flate2::Compression;
    use flate2::write::GzEncoder;

    use super::*;

    #[test]
    fn a_table_is_read_packed_or_not_and_again_only_when_it_changed() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("routes.csv.gz");
        let write = |text: &str| {
            let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
            packed.write_all(text.as_bytes()).unwrap();
            std::fs::write(&path, packed.finish().unwrap()).unwrap();
        };
        write("192.0.2.0/24,64500\n");
        let mut tables = Tables::default();
        let mut table = || tables.compile(&[policy(&path)]).map(|mut policies| policies.remove(0).routes.unwrap());
        let first = table().unwrap();
        assert_eq!(first.asn_of([192, 0, 2, 1].into()), Some(64_500));
        assert!(Arc::ptr_eq(&first, &table().unwrap()), "it is not read again");
        write("192.0.2.0/24,64501\n198.51.100.0/24,64501\n");
        assert_eq!(table().unwrap().asn_of([192, 0, 2, 1].into()), Some(64_501));
        write("192.0.2.0/24,x\n");
        let sentence = table().unwrap_err().to_string();
        let place = path.display();
        assert_eq!(
            sentence,
            format!("[0].routes.file: {place}: line 1: \"x\" is not the number of an Autonomous System")
        );
        std::fs::write(&path, [0x1f, 0x8b, 8, 0]).unwrap();
        assert!(table().unwrap_err().to_string().contains("cannot be read"));
        std::fs::remove_file(&path).unwrap();
        assert!(table().unwrap_err().to_string().contains("No such file"));
    }

    fn policy(path: &Path) -> PolicySnapshot {
        let matches = MatchSnapshot { asns: vec![64_500], ..MatchSnapshot::default() };
        let pool = PoolSnapshot { name: "p".to_owned(), weight: 1, load_percent_max: 100, servers: Vec::new() };
        let rule = RuleSnapshot { name: "r".to_owned(), matches, pools: vec![pool], exclude: Vec::new() };
        let routes = Some(RoutesSnapshot { file: Some(path.to_owned()), rows: Vec::new() });
        PolicySnapshot { name: "p".to_owned(), rules: vec![rule], routes }
    }
}
