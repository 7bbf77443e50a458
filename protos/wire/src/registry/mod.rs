//! The registry: how servers are registered and found over HTTP (draft-liefooghe-castgate-02 §6).
//!
//! Owns the pairs of a request and the XML of an answer. HTTP itself, accounts and matching are other people's.
//!
//! ```text
//!   GET /script/castgate.cgs?ACTION=QUERY&TYPE=TS&COUNTRY=BE     ──▶ Request::parse ──▶ Request
//!   Vec<Server> ──▶ xml::emit_servers ──▶ <SERVERS><SERVER>…     ──▶ xml::parse_servers ──▶ Vec<Server>
//! ```

mod country;
mod emit;
mod entry;
mod pairs;
mod request;
pub mod xml;

pub use country::{Country, CountryError};
pub use entry::{EntryType, FED_BY_MAX, Prefix, Protocol, ProtocolFilter, Scheme, Server, TransferEntry};
pub use request::{Bye, Login, ParseError, Query, Register, Request, Transfer};

/// The path that every database serves.
pub const PATH: &str = "/script/castgate.cgs";

/// Whether a request for `path` (without query) is one of ours: any path that ends in `castgate.cgs`, in any case.
#[must_use]
pub fn path_is_ours(path: &str) -> bool {
    const FILE: &str = "castgate.cgs";
    let Some((folder, file)) = path.len().checked_sub(FILE.len()).and_then(|at| path.split_at_checked(at)) else {
        return false;
    };
    file.eq_ignore_ascii_case(FILE) && (folder.is_empty() || folder.ends_with('/'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_path_that_ends_in_our_file_is_ours() {
        for ours in [PATH, "/castgate.cgs", "castgate.cgs", "/cgi/Script/CastGate.CGS"] {
            assert!(path_is_ours(ours), "{ours}");
        }
        for foreign in ["", "/", "cgs", "/script/castgate.cgs/", "/notcastgate.cgs", "/script/castgate.cgi", "/ä.cgs"]
        {
            assert!(!path_is_ours(foreign), "{foreign}");
        }
    }
}
