//! Fields to markup, in the order of the draft, one element a line as in its examples.
//!
//! A database writes little else: what every server has is put together octet by octet, without the machinery of formatting.

use super::read::is_xml;
use crate::registry::{Server, TransferEntry, entry};
use std::fmt::{Display, Write};
use std::net::IpAddr;

const DECLARATION: &str = "<?xml version=\"1.0\"?>\n";

/// What stands before the entries of a TRANSFER that is written part by part.
pub const TRANSFER_BEGIN: &str = "<?xml version=\"1.0\"?>\n<SERVERS>\n";
/// What stands after them.
pub const TRANSFER_END: &str = "</SERVERS>\n";
/// Octets of a SERVER in the answer to a QUERY, about.
const SERVER_LEN: usize = 140;

/// Writes the answer to a QUERY.
#[must_use]
pub fn emit_servers(servers: &[Server]) -> String {
    document(servers, |xml, server| {
        head(xml, server);
        if let Some(len) = server.prefix_len {
            number(xml, "PREFIXLEN", len.into());
        }
        tail(xml, server);
    })
}

/// Writes a whole answer to a TRANSFER.
#[must_use]
pub fn emit_transfer(entries: &[TransferEntry]) -> String {
    document(entries, transfer_entry)
}

/// Writes some entries of an answer to a TRANSFER, to stand between [`TRANSFER_BEGIN`] and [`TRANSFER_END`].
pub fn emit_transfer_entries(xml: &mut String, entries: &[TransferEntry]) {
    for entry in entries {
        server(xml, entry, transfer_entry);
    }
}

fn transfer_entry(xml: &mut String, entry: &TransferEntry) {
    let TransferEntry { server, login, password, countries, networks, expires_in_seconds } = entry;
    head(xml, server);
    leaf(xml, "LOGIN", login);
    leaf(xml, "PASSWORD", password);
    list(xml, "COUNTRIES", "COUNTRY", countries);
    list(xml, "NETWORKS", "NETWORK", networks);
    if let Some(seconds) = expires_in_seconds {
        number(xml, "EXPIRES", *seconds);
    }
    tail(xml, server);
}

fn document<S>(servers: &[S], content: impl Fn(&mut String, &S)) -> String {
    let mut xml = String::with_capacity(DECLARATION.len() + 32 + servers.len() * SERVER_LEN);
    xml.push_str(DECLARATION);
    if servers.is_empty() {
        xml.push_str("<SERVERS/>\n");
        return xml;
    }
    xml.push_str("<SERVERS>\n");
    for one in servers {
        server(&mut xml, one, &content);
    }
    xml.push_str("</SERVERS>\n");
    xml
}

fn server<S>(xml: &mut String, server: &S, content: impl Fn(&mut String, &S)) {
    xml.push_str("<SERVER>\n");
    content(xml, server);
    xml.push_str("</SERVER>\n");
}

/// What both forms begin with. The draft has no server without a PROTOCOL: who said none gets an empty one.
fn head(xml: &mut String, server: &Server) {
    let Server { address, port, entry_type, protocol, prefix_len: _, fed_by: _, scheme: _ } = server;
    element(xml, "ADDRESS", |xml| push_address(xml, *address));
    number(xml, "PORT", (*port).into());
    element(xml, "TYPE", |xml| xml.push_str(entry_type.digit()));
    leaf(xml, "PROTOCOL", protocol.as_ref().map_or("", |protocol| protocol.word()));
}

/// What is ours stands behind what is the draft's.
fn tail(xml: &mut String, server: &Server) {
    if !server.fed_by.is_empty() {
        leaf(xml, "FEDBY", &entry::emit_fed_by(&server.fed_by));
    }
    if !server.scheme.is_http() {
        element(xml, "SCHEME", |xml| xml.push_str(server.scheme.word()));
    }
}

fn list<V: Display>(xml: &mut String, name: &str, item: &str, values: &[V]) {
    if values.is_empty() {
        return;
    }
    writeln!(xml, "<{name}>").expect(ENDLESS);
    for value in values {
        // Letters, digits and the like: nothing to escape.
        element(xml, item, |xml| write!(xml, "{value}").expect(ENDLESS));
    }
    writeln!(xml, "</{name}>").expect(ENDLESS);
}

const ENDLESS: &str = "a String takes everything";

fn element(xml: &mut String, name: &str, content: impl FnOnce(&mut String)) {
    xml.push('<');
    xml.push_str(name);
    xml.push('>');
    content(xml);
    xml.push_str("</");
    xml.push_str(name);
    xml.push_str(">\n");
}

fn number(xml: &mut String, name: &str, value: u32) {
    element(xml, name, |xml| push_number(xml, value));
}

fn push_address(xml: &mut String, address: IpAddr) {
    match address {
        IpAddr::V4(address) => {
            let [first, rest @ ..] = address.octets();
            push_number(xml, first.into());
            for octet in rest {
                xml.push('.');
                push_number(xml, octet.into());
            }
        }
        IpAddr::V6(address) => write!(xml, "{address}").expect(ENDLESS),
    }
}

fn push_number(xml: &mut String, value: u32) {
    let mut digits = [0; 10];
    let (mut at, mut rest) = (digits.len(), value);
    loop {
        at -= 1;
        digits[at] = b'0' + u8::try_from(rest % 10).expect("a digit");
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    xml.push_str(std::str::from_utf8(&digits[at..]).expect("digits"));
}

fn leaf(xml: &mut String, name: &str, value: &str) {
    element(xml, name, |xml| push_escaped(xml, value));
}

fn push_escaped(xml: &mut String, value: &str) {
    if value.bytes().all(|octet| octet.is_ascii_graphic() && !matches!(octet, b'&' | b'<' | b'>')) {
        xml.push_str(value);
        return;
    }
    let inner = value.trim();
    let before = value.len() - value.trim_start().len();
    for (at, character) in value.char_indices() {
        match character {
            '&' => xml.push_str("&amp;"),
            '<' => xml.push_str("&lt;"),
            '>' => xml.push_str("&gt;"),
            // XML has no way to write these; whoever lets them into a login loses them here.
            _ if !is_xml(character) => xml.push('\u{fffd}'),
            // Readers trim blanks at the ends and fold ends of lines.
            _ if character.is_control()
                || (character.is_whitespace() && !(before..before + inner.len()).contains(&at)) =>
            {
                write!(xml, "&#{};", u32::from(character)).expect(ENDLESS);
            }
            _ => xml.push(character),
        }
    }
}
