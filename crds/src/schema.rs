//! Pieces of schema that several kinds share: integers with ranges, addresses, names, CEL rules.
//!
//! Schemas of Rust's own unsigned integers carry formats (`uint16`) that an API server does not know, and `IpAddr` one that it
//! warns about; these functions say the same with what it does know.

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::ValidationRule;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use schemars::JsonSchema as _;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_json::{Value, json};

use crate::units::TimeSpan;

/// Octets of an IPv4 address as a regular expression, anchored by the caller.
macro_rules! octet {
    () => {
        "(25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
    };
}
/// A group: 224.0.0.0/4 or `ff00::/8`. That those of a link are refused needs a look ahead and is a CEL rule.
const GROUP: &str = concat!(
    "^((22[4-9]|23[0-9])",
    "\\.",
    octet!(),
    "\\.",
    octet!(),
    "\\.",
    octet!(),
    "|[fF]{2}[0-9a-fA-F]{2}:[0-9a-fA-F:.]{1,40})$"
);
/// An address that no host has, as a regular expression of CEL: of version 4 one that means any or many, of version 6 one of a
/// group, of a link, or the one that means any.
const NOT_A_HOST: &str =
    "^(0|22[4-9]|23[0-9])[.]|^255[.]255[.]255[.]255$|^([fF]{2}[0-9a-fA-F]{2}|[fF][eE][89abAB][0-9a-fA-F]):|^[0:]+$";
/// A country after ISO 3166-1 alpha-2.
const COUNTRY: &str = "^[A-Z]{2}$";
/// Names of objects and channels: a DNS label.
const LABEL: &str = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$";

/// An integer between `first` and `last`; 32 bits wide where that is enough.
fn integer(first: i64, last: i64) -> Schema {
    let format = if last <= i64::from(i32::MAX) { "int32" } else { "int64" };
    json_schema!({ "type": "integer", "format": format, "minimum": first, "maximum": last })
}

pub(crate) fn port(_: &mut SchemaGenerator) -> Schema {
    integer(1, 65_535)
}

pub(crate) fn ttl(_: &mut SchemaGenerator) -> Schema {
    integer(1, 255)
}

/// Threads: more than one machine of today can use, and far below what would hurt it.
pub(crate) fn workers(_: &mut SchemaGenerator) -> Schema {
    integer(1, 128)
}

/// Upper bound of a table: a million rows are about a gigabyte.
pub(crate) fn table_size(_: &mut SchemaGenerator) -> Schema {
    integer(1, 1_000_000)
}

/// The address of a host.
pub(crate) fn ipv4(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "format": "ipv4", "maxLength": 15,
        "x-kubernetes-validations": [rule(
            "!self.matches('^(0|22[4-9]|23[0-9])[.]') && self != '255.255.255.255'",
            "this is not the address of a host",
        )],
    })
}

pub(crate) fn group(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": GROUP, "maxLength": 45,
        "x-kubernetes-validations": [
            rule(
                "!self.startsWith('224.0.0.') && !self.matches('^[fF]{2}[0-9a-fA-F][0-2]:')",
                "224.0.0.0/24 and ff02::/16 belong to routing protocols and are never tunnelled",
            ),
            rule("!self.contains(':') || isIP(self)", "this is not an address"),
        ],
    })
}

/// The address of a host, of either version.
pub(crate) fn host(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "maxLength": 45,
        "x-kubernetes-validations": [host_rule()],
    })
}

fn host_rule() -> Value {
    rule(&format!("isIP(self) && !self.matches('{NOT_A_HOST}')"), "this is not the address of a host")
}

/// The addresses of one machine.
pub(crate) fn own_addresses(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 2, "x-kubernetes-list-type": "set", "items": host(generator) })
}

/// Addresses that others can route to.
pub(crate) fn anycast_addresses(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 8, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "maxLength": 45,
            "x-kubernetes-validations": [
                host_rule(),
                rule("!isIP(self) || !ip(self).isLoopback()", "nobody can route to an address of the loopback interface"),
            ],
        },
    })
}

/// A routing table of the kernel that is none of its own.
pub(crate) fn routing_table(_: &mut SchemaGenerator) -> Schema {
    let mut schema = integer(1, 4_294_967_295);
    let own = rule(
        "self < 253 || self > 255",
        "253 to 255 are tables of the kernel: this one is for anycast addresses alone",
    );
    schema.insert("x-kubernetes-validations".to_owned(), json!([own]));
    schema
}

/// Octets of an IP packet in a tunnel: from what every host takes to what a datagram over IPv4 holds.
pub(crate) fn tunnel_mtu(_: &mut SchemaGenerator) -> Schema {
    integer(576, 65_505)
}

/// The field of a query has three bits.
pub(crate) fn robustness(_: &mut SchemaGenerator) -> Schema {
    integer(1, 7)
}

/// Name servers: an address, perhaps a port.
pub(crate) fn resolvers(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 8, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "maxLength": 53,
            "pattern": "^([0-9.]{7,15}(:[0-9]{1,5})?|\\[[0-9a-fA-F:.]{2,45}\\](:[0-9]{1,5})?|[0-9a-fA-F:.]{2,45})$",
            "x-kubernetes-validations": [port_of_place()],
        },
    })
}

/// A prefix without host bits.
pub(crate) fn prefix(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "format": "cidr", "maxLength": 43,
        "x-kubernetes-validations": [rule(
            "!isCIDR(self) || cidr(self) == cidr(self).masked()",
            "a prefix has no host bits: write 192.0.2.0/24, not 192.0.2.1/24",
        )],
    })
}

/// Domains.
pub(crate) fn domains(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 8, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "pattern": "^[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?$", "minLength": 1, "maxLength": 253,
            "x-kubernetes-validations": [rule("!isIP(self)", "this is an address, not a domain")],
        },
    })
}

pub(crate) fn country(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": COUNTRY, "maxLength": 2 })
}

/// Prefixes such as `192.0.2.0/24` or `2001:db8::/32`, without host bits.
pub(crate) fn prefixes(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "array", "maxItems": 256, "x-kubernetes-list-type": "set", "items": prefix(generator) })
}

pub(crate) fn countries(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 256, "x-kubernetes-list-type": "set", "items": country(generator),
    })
}

/// Countries by the name of their region.
pub(crate) fn regions(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 64, "additionalProperties": countries(generator) })
}

/// The name of another object or of a row in a list.
pub(crate) fn name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": LABEL, "minLength": 1, "maxLength": 63 })
}

/// A name that may hold dots, such as that of a node or a storage class.
pub(crate) fn object_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$", "minLength": 1, "maxLength": 253 })
}

/// The key of a label or a taint.
pub(crate) fn label_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": "^([a-z0-9]([-.a-z0-9]*[a-z0-9])?/)?[A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?$",
        "minLength": 1, "maxLength": 317,
    })
}

/// The value of a label or a taint.
pub(crate) fn label_value(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([A-Za-z0-9]([-._A-Za-z0-9]*[A-Za-z0-9])?)?$", "maxLength": 63 })
}

/// Numbers of Autonomous Systems.
pub(crate) fn asns(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 256, "x-kubernetes-list-type": "set", "items": integer(1, 4_294_967_295),
    })
}

/// A share among others.
pub(crate) fn weight(_: &mut SchemaGenerator) -> Schema {
    integer(0, 1_000)
}

/// A part of something that is not nothing.
pub(crate) fn percent(_: &mut SchemaGenerator) -> Schema {
    integer(1, 100)
}

/// A file by its whole path.
pub(crate) fn file(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^/[^\\x00-\\x1f]+$", "minLength": 2, "maxLength": 1024 })
}

/// A time of day.
pub(crate) fn time_of_day(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^([01][0-9]|2[0-3]):[0-5][0-9]$", "maxLength": 5 })
}

/// A zone of the tz database.
pub(crate) fn time_zone(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": "^[A-Za-z][-+_A-Za-z0-9]*(/[A-Za-z][-+_A-Za-z0-9]*){0,2}$", "maxLength": 64,
    })
}

/// Databases to ask: a name or an address, perhaps a port.
pub(crate) fn database_places(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 16, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "pattern": "^(https?://)?[A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?$", "minLength": 1,
            "maxLength": 267, "x-kubernetes-validations": [port_of_place()],
        },
    })
}

/// Servers or relays that are named: a name or an address, perhaps a port.
pub(crate) fn server_places(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 16, "x-kubernetes-list-type": "set",
        "items": {
            "type": "string", "minLength": 1, "maxLength": 259,
            "pattern": "^([A-Za-z0-9]([-.A-Za-z0-9]*[A-Za-z0-9])?(:[0-9]{1,5})?|\\[[0-9a-fA-F:.]+\\](:[0-9]{1,5})?|\
                        [0-9a-fA-F]*:[0-9a-fA-F:.]+)$",
            "x-kubernetes-validations": [port_of_place()],
        },
    })
}

/// The same where there is one at least.
pub(crate) fn relays_of_row(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = server_places(generator);
    schema.insert("minItems".to_owned(), json!(1));
    schema
}

/// An address of version 6 without brackets has no port.
fn port_of_place() -> Value {
    let port = "int(self.substring(self.lastIndexOf(':') + 1))";
    rule(
        &format!("!self.matches('^([^:]*|.*[]]):[0-9]{{1,5}}$') || ({port} >= 1 && {port} <= 65535)"),
        "a port is in 1..65535",
    )
}

/// How often something is refreshed: registrations count in whole seconds.
pub(crate) fn interval(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = TimeSpan::json_schema(generator);
    if let Some(Value::Array(rules)) = schema.get_mut("x-kubernetes-validations") {
        rules.push(rule("!self.endsWith('ms') || self.endsWith('000ms')", "this is a whole number of seconds"));
    }
    schema
}

/// Labels that a node must have, all of them.
pub(crate) fn labels(generator: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "object", "maxProperties": 32, "additionalProperties": label_value(generator) })
}

/// Nodes of a pool.
pub(crate) fn replicas(_: &mut SchemaGenerator) -> Schema {
    integer(0, 10_000)
}

/// Copies of a database: each takes what the others have, so that many of them help nobody.
pub(crate) fn database_replicas(_: &mut SchemaGenerator) -> Schema {
    integer(1, 9)
}

/// Databases that hold the same entries: URLs, or hosts with or without a port.
pub(crate) fn peers(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = roots(generator);
    // As many as a database asks one after the other in a bearable time.
    schema.insert("maxItems".to_owned(), json!(8));
    schema
}

/// Members of an etcd; nobody runs more than nine.
pub(crate) fn etcd_endpoints(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "maxItems": 9, "x-kubernetes-list-type": "set",
        "items": { "type": "string", "pattern": "^https?://[^/@?#\\s]+/?$", "maxLength": 300 },
    })
}

/// The beginning of keys of an etcd.
pub(crate) fn etcd_prefix(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^/[!-~]*/$", "minLength": 2, "maxLength": 256 })
}

/// A size such as 1Gi.
pub(crate) fn quantity(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[1-9][0-9]{0,8}(Ki|Mi|Gi|Ti|k|M|G|T)?$", "minLength": 1, "maxLength": 16 })
}

/// A network interface as the kernel names it: at most 15 octets, no slash, no blank.
pub(crate) fn interface_name(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "string", "pattern": "^[^/:\\s]+$", "minLength": 1, "maxLength": 15,
        "x-kubernetes-validations": [rule("self != '.' && self != '..'", "this cannot be the name of an interface")],
    })
}

/// A login: HTTP Basic separates it from the password by a colon.
pub(crate) fn login(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[!-9;-~]+$", "minLength": 1, "maxLength": 64 })
}

/// A key of a Secret.
pub(crate) fn secret_key(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^[-._a-zA-Z0-9]+$", "minLength": 1, "maxLength": 253 })
}

pub(crate) fn url(_: &mut SchemaGenerator) -> Schema {
    json_schema!({ "type": "string", "pattern": "^https?://[^/@?#\\s]+(/script/castgate\\.cgs)?/?$", "maxLength": 300 })
}

/// Roots of the hierarchy: URLs, or hosts with or without a port.
pub(crate) fn roots(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "array", "minItems": 1, "maxItems": 16, "x-kubernetes-list-type": "set",
        "items": { "type": "string", "pattern": "^(https?://)?[^/@?#\\s]+(/script/castgate\\.cgs)?/?$", "maxLength": 300 },
    })
}

/// What a list of conditions is, so that two who write different ones do not disturb each other.
pub(crate) fn conditions(generator: &mut SchemaGenerator) -> Schema {
    let mut schema = generator.subschema_for::<Vec<Condition>>();
    schema.insert("x-kubernetes-list-type".to_owned(), json!("map"));
    schema.insert("x-kubernetes-list-map-keys".to_owned(), json!(["type"]));
    schema
}

/// The rule for names of objects that become parts of other names. `length_max` leaves room for the other parts.
pub(crate) fn name_rule(length_max: usize) -> ValidationRule {
    ValidationRule {
        rule: format!(
            "self.metadata.name.size() <= {length_max} && \
             self.metadata.name.matches('^[a-z0-9]([-a-z0-9]*[a-z0-9])?$')"
        ),
        message: Some(format!("metadata.name is at most {length_max} small letters, digits and inner hyphens")),
        ..ValidationRule::default()
    }
}

/// One rule in CEL with the sentence that a person sees when it does not hold.
pub(crate) fn rule(rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message })
}

/// The same for a rule that blames one field of several.
pub(crate) fn rule_at(field: &str, rule: &str, message: &str) -> Value {
    json!({ "rule": rule, "message": message, "fieldPath": field })
}
