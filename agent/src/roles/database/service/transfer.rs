//! TRANSFER: all entries for a peer, which proves itself with the login that peers have in common.

use std::net::IpAddr;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

use castgate_wire::registry::{Login, Transfer, xml};
use hyper::StatusCode;
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;

use super::{NOT_SYNCHRONISED, Service};
use crate::http::content::{Content, Part};
use crate::http::server::Answer;
use crate::http::words::{Failure, XML, with};
use crate::roles::database::audit::Act;

/// Parts of an answer to a peer that wait to be sent; then its maker waits.
const PARTS_MAX: usize = 4;

/// The login that peers have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(in super::super) struct PeerLogin {
    proof: [u8; 32],
    /// Whether they get anything.
    serve: bool,
}

impl PeerLogin {
    pub(in super::super) fn new(login: &str, password: &str, serve: bool) -> Self {
        Self { proof: proof(login, password), serve }
    }
}

/// Equal for equal pairs; how long it takes to compare says nothing about either.
fn proof(login: &str, password: &str) -> [u8; 32] {
    // No login has a colon.
    Sha256::digest(format!("{login}:{password}")).into()
}

impl Service {
    /// All entries to a peer, part by part: other callers are answered between two parts.
    pub(super) fn transfer(
        self: &Arc<Self>,
        source: IpAddr,
        login: Option<Login>,
        transfer: Transfer,
    ) -> Result<Answer, Failure> {
        let Login { login, password } = login.ok_or_else(Failure::unauthorized)?;
        let now = Instant::now();
        self.passwords.look(source, now).map_err(Failure::too_many)?;
        let peers = self.peer_login.read().unwrap_or_else(PoisonError::into_inner).clone();
        let act = Act { action: "transfer", login: Some(&login), source: Some(source) };
        let Some(peers) = peers.filter(|peers| peers.proof == proof(&login, &password)) else {
            self.passwords.wrong(source, now);
            self.audit.write(act, "refused", "not the login of a peer");
            return Err(Failure::unauthorized());
        };
        if !peers.serve {
            return Err(Failure::new(StatusCode::FORBIDDEN, "this database gives its entries to nobody"));
        }
        if !self.database().answers() {
            return Err(Failure::busy(NOT_SYNCHRONISED));
        }
        self.audit.write(act, "done", "all entries");
        let (parts, receiver) = mpsc::channel(PARTS_MAX);
        let service = self.clone();
        let is_last = self.takers.borrow().is_some();
        tokio::task::spawn_blocking(move || {
            if service.send_parts(&transfer, &parts) && is_last {
                service.takers.send_modify(|takers| takers.iter_mut().for_each(|takers| _ = takers.insert(source)));
            }
        });
        let mut answer = with(StatusCode::OK, &XML, String::new());
        *answer.body_mut() = Content::Parts(receiver, None);
        Ok(answer)
    }

    /// Blocks while the peer is slower than we are; ends when it is gone. Whether it got everything.
    fn send_parts(&self, transfer: &Transfer, parts: &mpsc::Sender<Part>) -> bool {
        let mut from = Some(0);
        let mut xml = xml::TRANSFER_BEGIN.to_owned();
        while let Some(at) = from {
            let part = self.database().transfer_part(Instant::now(), transfer, at);
            xml::emit_transfer_entries(&mut xml, &part.entries);
            from = part.next;
            if from.is_none() {
                xml.push_str(xml::TRANSFER_END);
            }
            if !xml.is_empty() && parts.blocking_send(Part::Data(std::mem::take(&mut xml))).is_err() {
                return false;
            }
        }
        // Nobody listens when the connection is gone.
        parts.blocking_send(Part::End).is_ok()
    }
}
