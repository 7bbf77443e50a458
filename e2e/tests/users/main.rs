//! What users do, end to end: real agents and clients in a lab, real programs beside them.
//!
//! One program for all, so that those that mostly wait run beside each other.

mod channels;
mod faults;
mod film;
mod hierarchy;
mod hostile;
mod loss;
mod nat;
mod one_machine;
mod reload;
mod upstream;

use std::time::Duration;

/// For things that take a moment; a deadline that is reached means that they never happen.
const SOON: Duration = Duration::from_secs(10);
/// The product's promise for what is lost and found again.
const FIVE_SECONDS: Duration = Duration::from_secs(5);
/// A source-specific channel of the studio's source.
const SSM: &str = "ham:ip:232.1.2.3@10.1.0.10:5004";
/// The same as a rule of a server.
const SSM_RULE: &str = "group: 232.1.2.3, source: 10.1.0.10, ports: 5004";
/// An any-source channel.
const ASM: &str = "ham:ip:239.1.2.3:5004";
/// The same as a rule of a server.
const ASM_RULE: &str = "group: 239.1.2.3, ports: 5004";
/// A pattern channel of the studio's source.
const PATTERN: &str = "ham:ip:232.9.9.9@10.1.0.10:5004";
/// The same as a rule of a server.
const PATTERN_RULE: &str = "group: 232.9.9.9, source: 10.1.0.10, ports: 5004";

/// The name as agents spell channels.
fn channel(name: &str) -> &str {
    name.strip_prefix("ham:ip:").unwrap_or(name)
}
