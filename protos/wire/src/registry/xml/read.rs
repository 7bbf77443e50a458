//! Markup to fields: knows which element may stand where, and nothing about values.

use std::io::{BufRead, Read};

use super::{DEPTH_MAX, LEN_MAX, ParseError, TRANSFER_LEN_MAX, TRANSFER_SERVER_LEN_MAX, entry};
use quick_xml::Reader;
use quick_xml::events::Event;

/// What the children of one SERVER say, trimmed; empty ones say nothing.
#[derive(Debug, Default)]
pub(super) struct Fields {
    pub(super) address: Option<String>,
    pub(super) port: Option<String>,
    pub(super) entry_type: Option<String>,
    pub(super) protocol: Option<String>,
    pub(super) prefix_len: Option<String>,
    pub(super) fed_by: Option<String>,
    pub(super) scheme: Option<String>,
    pub(super) login: Option<String>,
    pub(super) password: Option<String>,
    pub(super) countries: Vec<String>,
    pub(super) networks: Vec<String>,
    pub(super) expires: Option<String>,
}

/// An element, by its name and by where it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Element {
    Servers,
    Server,
    Address,
    Port,
    Type,
    Protocol,
    PrefixLen,
    FedBy,
    Scheme,
    Login,
    Password,
    Countries,
    Country,
    Networks,
    Network,
    Expires,
    /// One that we do not know, or one that we know in another place; what is inside is skipped.
    Other,
}

impl Element {
    fn child(self, name: &str) -> Self {
        let children: &[(&str, Self)] = match self {
            Self::Servers => &[("SERVER", Self::Server)],
            Self::Server => &[
                ("ADDRESS", Self::Address),
                ("PORT", Self::Port),
                ("TYPE", Self::Type),
                ("PROTOCOL", Self::Protocol),
                ("PREFIXLEN", Self::PrefixLen),
                ("FEDBY", Self::FedBy),
                ("SCHEME", Self::Scheme),
                ("LOGIN", Self::Login),
                ("PASSWORD", Self::Password),
                ("COUNTRIES", Self::Countries),
                ("NETWORKS", Self::Networks),
                ("EXPIRES", Self::Expires),
            ],
            Self::Countries => &[("COUNTRY", Self::Country)],
            Self::Networks => &[("NETWORK", Self::Network)],
            _ => &[],
        };
        children.iter().find(|(known, _)| known.eq_ignore_ascii_case(name)).map_or(Self::Other, |(_, child)| *child)
    }
}

/// Reads the fields of every SERVER of a short document.
pub(super) fn servers(document: &[u8]) -> Result<Vec<Fields>, ParseError> {
    if document.len() > LEN_MAX {
        return Err(ParseError::TooLong(document.len()));
    }
    if std::str::from_utf8(document).is_err() {
        return Err(ParseError::NotUtf8);
    }
    let mut servers = Vec::new();
    walk(Bounded::new(document, LEN_MAX, LEN_MAX), |fields| servers.push(fields))?;
    Ok(servers)
}

/// Reads the fields of one SERVER after the other of a document that may be as long as a whole database, and holds one at a time.
pub(super) fn each_server(source: impl BufRead, each: impl FnMut(Fields)) -> Result<(), ParseError> {
    walk(Bounded::new(source, TRANSFER_LEN_MAX, TRANSFER_SERVER_LEN_MAX), each)
}

fn walk<R: BufRead>(source: Bounded<R>, mut each: impl FnMut(Fields)) -> Result<(), ParseError> {
    let mut reader = Reader::from_reader(source);
    // An empty element is one that starts and ends.
    reader.config_mut().expand_empty_elements = true;
    let mut walk = Walk::default();
    let mut buffer = Vec::new();
    loop {
        buffer.clear();
        let event = match reader.read_event_into(&mut buffer) {
            Ok(event) => event,
            Err(error) => {
                let bound = reader.get_ref().exceeded;
                return Err(bound.map_or_else(|| ParseError::IllFormed(error.to_string()), ParseError::TooLong));
            }
        };
        match event {
            Event::Start(tag) | Event::Empty(tag) => walk.start(tag.local_name().as_ref())?,
            Event::End(_) => {
                if let Some(fields) = walk.end() {
                    reader.get_mut().begin_server();
                    each(fields);
                }
            }
            Event::Text(text) => walk.literal(&text.xml10_content())?,
            Event::CData(text) => walk.literal(&text.xml10_content())?,
            Event::GeneralRef(reference) => {
                let character = match reference.resolve_char_ref() {
                    Ok(character) => character,
                    Err(error) => return Err(ParseError::IllFormed(error.to_string())),
                };
                let predefined = || quick_xml::escape::resolve_predefined_entity(&reference);
                match character {
                    Some(character) => walk.resolved(character.encode_utf8(&mut [0; 4]))?,
                    None => {
                        walk.resolved(predefined().ok_or_else(|| ParseError::Entity(entry::shown(&reference)))?)?;
                    }
                }
            }
            Event::DocType(_) => return Err(ParseError::Doctype),
            Event::Comment(_) | Event::Decl(_) | Event::PI(_) => {}
            Event::Eof => return walk.finish(),
        }
    }
}

/// Octets of a document and of one of its servers, counted: what the reader gathers in memory ends at these bounds.
struct Bounded<R> {
    source: R,
    left: usize,
    server_len_max: usize,
    server_left: usize,
    /// The bound that was exceeded.
    exceeded: Option<usize>,
}

impl<R> Bounded<R> {
    fn new(source: R, len_max: usize, server_len_max: usize) -> Self {
        Self { source, left: len_max, server_len_max, server_left: server_len_max, exceeded: None }
    }

    fn begin_server(&mut self) {
        self.server_left = self.server_len_max;
    }
}

impl<R: BufRead> Read for Bounded<R> {
    fn read(&mut self, into: &mut [u8]) -> std::io::Result<usize> {
        let len = self.fill_buf()?.len().min(into.len());
        let from = self.source.fill_buf()?;
        into[..len].copy_from_slice(&from[..len]);
        self.consume(len);
        Ok(len)
    }
}

impl<R: BufRead> BufRead for Bounded<R> {
    fn fill_buf(&mut self) -> std::io::Result<&[u8]> {
        let room = self.left.min(self.server_left);
        let buffer = self.source.fill_buf()?;
        if room == 0 && !buffer.is_empty() {
            self.exceeded = Some(if self.left == 0 { TRANSFER_LEN_MAX } else { self.server_len_max });
            return Err(std::io::Error::other("too long"));
        }
        Ok(&buffer[..buffer.len().min(room)])
    }

    fn consume(&mut self, len: usize) {
        self.left = self.left.saturating_sub(len);
        self.server_left = self.server_left.saturating_sub(len);
        self.source.consume(len);
    }
}

/// Where we are, and what was found so far.
#[derive(Debug, Default)]
struct Walk {
    open: Vec<Element>,
    closed_root: bool,
    value: Value,
    /// Of the server that we are in.
    fields: Fields,
}

impl Walk {
    fn start(&mut self, name: &str) -> Result<(), ParseError> {
        let element = match self.open.last() {
            Some(parent) => parent.child(name),
            None if self.closed_root => return Err(ParseError::IllFormed("a second root element".into())),
            None if name.eq_ignore_ascii_case("SERVERS") => Element::Servers,
            None => return Err(ParseError::NotServers(entry::shown(name))),
        };
        if self.open.len() == DEPTH_MAX {
            return Err(ParseError::TooDeep);
        }
        match element {
            Element::Server => self.fields = Fields::default(),
            // What is skipped may stand in the middle of a value.
            Element::Other => {}
            _ => self.value = Value::default(),
        }
        self.open.push(element);
        Ok(())
    }

    /// The reader has checked that this end belongs to the last start. Returns a server that is complete.
    fn end(&mut self) -> Option<Fields> {
        let element = self.open.pop()?;
        self.closed_root = self.open.is_empty();
        let fields = &mut self.fields;
        let slot = match element {
            Element::Address => &mut fields.address,
            Element::Port => &mut fields.port,
            Element::Type => &mut fields.entry_type,
            Element::Protocol => &mut fields.protocol,
            Element::PrefixLen => &mut fields.prefix_len,
            Element::FedBy => &mut fields.fed_by,
            Element::Scheme => &mut fields.scheme,
            Element::Login => &mut fields.login,
            Element::Password => &mut fields.password,
            Element::Expires => &mut fields.expires,
            Element::Country => {
                fields.countries.extend(self.value.take());
                return None;
            }
            Element::Network => {
                fields.networks.extend(self.value.take());
                return None;
            }
            Element::Server => return Some(std::mem::take(fields)),
            Element::Servers | Element::Countries | Element::Networks | Element::Other => return None,
        };
        // The first that is not empty counts.
        if slot.is_none() {
            *slot = self.value.take();
        }
        None
    }

    fn literal(&mut self, text: &str) -> Result<(), ParseError> {
        check_characters(text)?;
        match self.open.last() {
            None if !text.trim().is_empty() => Err(ParseError::IllFormed("text outside of the root element".into())),
            None | Some(Element::Other) => Ok(()),
            Some(_) => {
                self.value.push_literal(text);
                Ok(())
            }
        }
    }

    fn resolved(&mut self, text: &str) -> Result<(), ParseError> {
        check_characters(text)?;
        match self.open.last() {
            None => Err(ParseError::IllFormed("text outside of the root element".into())),
            Some(Element::Other) => Ok(()),
            Some(_) => {
                self.value.push_resolved(text);
                Ok(())
            }
        }
    }

    fn finish(&self) -> Result<(), ParseError> {
        match (self.open.is_empty(), self.closed_root) {
            (true, true) => Ok(()),
            (true, false) => Err(ParseError::IllFormed("no root element".into())),
            (false, _) => Err(ParseError::IllFormed("an element without an end".into())),
        }
    }
}

/// Whether XML 1.0 §2.2 has this character. The reader does not ask.
pub(super) const fn is_xml(character: char) -> bool {
    !matches!(character, '\0'..='\x08' | '\x0b' | '\x0c' | '\x0e'..='\x1f' | '\u{fffe}' | '\u{ffff}')
}

fn check_characters(text: &str) -> Result<(), ParseError> {
    match text.chars().find(|character| !is_xml(*character)) {
        Some(character) => Err(ParseError::IllFormed(format!("the character {character:?}"))),
        None => Ok(()),
    }
}

/// The text of an element, trimmed as it grows. A blank that was written as `&#32;` is meant, and stays.
#[derive(Debug, Default)]
struct Value {
    text: String,
    /// What lies behind is blanks that go unless more follows.
    kept: usize,
}

impl Value {
    fn push_literal(&mut self, text: &str) {
        let text = if self.text.is_empty() { text.trim_start() } else { text };
        let meant = text.trim_end().len();
        if meant > 0 {
            self.kept = self.text.len() + meant;
        }
        self.text.push_str(text);
    }

    fn push_resolved(&mut self, text: &str) {
        self.text.push_str(text);
        self.kept = self.text.len();
    }

    fn take(&mut self) -> Option<String> {
        let Self { mut text, kept } = std::mem::take(self);
        text.truncate(kept);
        (!text.is_empty()).then_some(text)
    }
}
