//! The rules of the drafts and of the castgate UMTP notes, as a stranger to this crate would check them.

mod amt_rules;
mod amt_vectors;
mod amtrelay_examples;
mod hex;
mod igmp;
mod mld;
mod registry_answers;
mod registry_requests;
mod umtp_last_octet;
mod umtp_options;
mod umtp_vectors;
