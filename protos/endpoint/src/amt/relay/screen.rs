//! What of a report may reach the state of an endpoint: rules and limits, record by record.
//!
//! A record that takes something back always passes. One that asks for something passes as far as it is fit and permitted: of its
//! sources those that are, and with any source only where any source is.

use super::super::{Unfit, is_ssm};
use super::{Permissions, Reason};
use crate::membership::Filter;
use castgate_wire::membership::{Record, RecordType};
use std::net::IpAddr;

/// What passes of a record, and every reason why something did not.
pub(super) fn screen(record: Record, permissions: &Permissions, mut refuse: impl FnMut(Reason)) -> Option<Record> {
    let Record { kind, group, mut sources } = record;
    if let Err(unfit) = Unfit::check_group(group) {
        refuse(unfit.into());
        return None;
    }
    sources.retain(|source| Unfit::check_source(group, *source).map_err(|unfit| refuse(unfit.into())).is_ok());
    match kind {
        RecordType::ModeIsInclude | RecordType::ChangeToInclude | RecordType::AllowNewSources => {
            let wanted = sources.len();
            sources.retain(|source| permissions.allow(group, Some(*source)));
            if sources.len() < wanted {
                refuse(Reason::NotPermitted);
            }
            // An empty list of a change still says that everything else is wanted no more.
            if sources.is_empty() && wanted > 0 && kind == RecordType::AllowNewSources {
                return None;
            }
        }
        RecordType::ModeIsExclude | RecordType::ChangeToExclude => {
            any_source(group, permissions).map_err(refuse).ok()?;
        }
        RecordType::BlockOldSources => {}
        RecordType::Unknown(_) => return None,
    }
    Some(Record { kind, group, sources })
}

/// Whether the group may be had with any source, or why not.
pub(super) fn any_source(group: IpAddr, permissions: &Permissions) -> Result<(), Reason> {
    if is_ssm(group) {
        // RFC 4604 §3.1 and §3.5: no EXCLUDE and no report of an older version counts for these groups.
        return Err(Reason::SsmWithoutSource);
    }
    if !permissions.allow(group, None) {
        return Err(Reason::NotPermitted);
    }
    Ok(())
}

/// Whether a record may bring an endpoint a group that it does not have.
pub(super) fn is_join(record: &Record) -> bool {
    match record.kind {
        RecordType::ModeIsInclude | RecordType::ChangeToInclude | RecordType::AllowNewSources => {
            !record.sources.is_empty()
        }
        RecordType::ModeIsExclude | RecordType::ChangeToExclude => true,
        RecordType::BlockOldSources | RecordType::Unknown(_) => false,
    }
}

/// What the rules leave of a filter; `None` when it may stay as it is.
pub(super) fn cut(group: IpAddr, filter: &Filter, permissions: &Permissions) -> Option<Vec<IpAddr>> {
    match filter {
        Filter::Include(sources) => {
            let left = || sources.iter().copied().filter(|source| permissions.allow(group, Some(*source)));
            (left().count() < sources.len()).then(|| left().collect())
        }
        Filter::Exclude(_) => (!permissions.allow(group, None)).then(Vec::new),
    }
}

impl From<Unfit> for Reason {
    fn from(unfit: Unfit) -> Self {
        match unfit {
            Unfit::NotMulticast(_) | Unfit::LinkLocal(_) => Self::UnfitGroup,
            Unfit::SsmWithoutSource(_) => Self::SsmWithoutSource,
            Unfit::BadSource(_) => Self::UnfitSource,
        }
    }
}
