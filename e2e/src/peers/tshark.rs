//! tshark's reading of a capture: every layer of every packet, and everything it complains about.

use anyhow::{Context, Result, ensure};
use serde_json::{Map, Value};
use std::path::Path;
use std::process::Command;

/// Severities of what tshark notes, as numbers: a comment, a chat and a note are no complaints.
const SEVERITY_WARNING: u64 = 0x0060_0000;

/// A capture as tshark read it.
#[derive(Debug, Clone)]
pub struct Dissection {
    packets: Vec<Map<String, Value>>,
}

impl Dissection {
    /// Reads the packets of a capture file that a display filter likes, such as `amt`. Checksums are looked at.
    ///
    /// # Errors
    /// When tshark fails or prints something other than JSON.
    pub fn read(file: &Path, filter: &str) -> Result<Self> {
        let output = Command::new("tshark")
            .args(["-n", "-r"])
            .arg(file)
            .args(["-Y", filter, "-T", "json", "--no-duplicate-keys"])
            .args(["ip", "udp", "tcp"].map(|protocol| format!("-o{protocol}.check_checksum:TRUE")))
            .output()
            .context("tshark does not start")?;
        ensure!(output.status.success(), "tshark: {}", String::from_utf8_lossy(&output.stderr));
        let packets: Vec<Value> = serde_json::from_slice(&output.stdout).context("tshark printed no JSON")?;
        let layers = packets.into_iter().map(|mut packet| match packet["_source"]["layers"].take() {
            Value::Object(layers) => Ok(layers),
            other => anyhow::bail!("a packet without layers: {other}"),
        });
        Ok(Self { packets: layers.collect::<Result<_>>()? })
    }

    /// The layers of every packet, by the name of their protocol; a protocol that is there twice has an array.
    #[must_use]
    pub fn packets(&self) -> &[Map<String, Value>] {
        &self.packets
    }

    /// Everything that tshark complains about: the number of the packet in the file, and what it says.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let mut complaints = Vec::new();
        for packet in &self.packets {
            let number = packet.get("frame").and_then(|frame| frame["frame.number"].as_str()).unwrap_or("?");
            for (name, layer) in packet {
                if name.contains("malformed") {
                    complaints.push(format!("packet {number}: {name}"));
                }
                collect(layer, &mut |complaint| complaints.push(format!("packet {number}, {name}: {complaint}")));
            }
        }
        complaints
    }

    /// Fails with every complaint.
    ///
    /// # Errors
    /// When there is one, or no packet at all.
    pub fn ensure_clean(&self) -> Result<()> {
        let complaints = self.complaints();
        ensure!(!self.packets.is_empty(), "there is nothing to complain about: no packet");
        ensure!(complaints.is_empty(), "tshark complains:\n{}", complaints.join("\n"));
        Ok(())
    }
}

/// The value of a field anywhere below a layer: tshark nests fields in groups whose names change with what is in them.
#[must_use]
pub fn field<'a>(layer: &'a Value, name: &str) -> Option<&'a str> {
    match layer {
        Value::Object(fields) => match fields.get(name) {
            Some(Value::String(text)) => Some(text),
            _ => fields.values().find_map(|value| field(value, name)),
        },
        Value::Array(values) => values.iter().find_map(|value| field(value, name)),
        _ => None,
    }
}

/// Every value of a field anywhere below a layer, in order.
#[must_use]
pub fn fields<'a>(layer: &'a Value, name: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    collect_fields(layer, name, &mut found);
    found
}

fn collect_fields<'a>(layer: &'a Value, name: &str, found: &mut Vec<&'a str>) {
    match layer {
        Value::Object(fields) => {
            for (field, value) in fields {
                if field == name {
                    each(value, &mut |value| found.extend(value.as_str()));
                } else {
                    collect_fields(value, name, found);
                }
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect_fields(value, name, found)),
        _ => {}
    }
}

/// Looks through a layer for what the dissector noted.
fn collect(value: &Value, found: &mut impl FnMut(String)) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                if name == "_ws.expert" {
                    each(value, &mut |note| complain(note, found));
                } else if name.contains("malformed") {
                    found(name.clone());
                }
                collect(value, found);
            }
        }
        Value::Array(values) => values.iter().for_each(|value| collect(value, found)),
        _ => {}
    }
}

/// A value, or each of several.
fn each<'a>(value: &'a Value, visit: &mut impl FnMut(&'a Value)) {
    match value {
        Value::Array(values) => values.iter().for_each(visit),
        one => visit(one),
    }
}

fn complain(note: &Value, found: &mut impl FnMut(String)) {
    let severity = field(note, "_ws.expert.severity").and_then(|text| text.parse::<u64>().ok());
    if severity.is_none_or(|severity| severity >= SEVERITY_WARNING) {
        found(field(note, "_ws.expert.message").unwrap_or("an unnamed complaint").to_owned());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn packet(layer: &Value) -> Dissection {
        let layers = json!({"frame": {"frame.number": "7"}, "udp": layer});
        Dissection { packets: vec![layers.as_object().unwrap().clone()] }
    }

    #[test]
    fn warnings_and_malformed_packets_are_complaints_and_notes_are_not() {
        let noted = |severity: u64| {
            json!({"udp.checksum_tree": {"_ws.expert": {
                "_ws.expert.message": "Bad checksum", "_ws.expert.severity": severity.to_string()
            }}})
        };
        assert_eq!(packet(&noted(SEVERITY_WARNING)).complaints(), ["packet 7, udp: Bad checksum"]);
        assert!(packet(&noted(0x0040_0000)).ensure_clean().is_ok());
        assert_eq!(packet(&json!({"_ws.malformed": "x"})).complaints(), ["packet 7, udp: _ws.malformed"]);
        assert!(Dissection { packets: Vec::new() }.ensure_clean().is_err());
    }

    #[test]
    fn a_field_is_found_however_deep() {
        let layer = json!({"amt.type": "4", "group": [{"other": "x"}, {"deep": {"amt.nonce": "9"}}]});
        assert_eq!((field(&layer, "amt.type"), field(&layer, "amt.nonce")), (Some("4"), Some("9")));
        assert_eq!(field(&layer, "amt.mac"), None);
        let layer = json!({"first": {"a": ["1", "2"]}, "second": [{"a": "3"}]});
        assert_eq!(fields(&layer, "a"), ["1", "2", "3"]);
    }
}
