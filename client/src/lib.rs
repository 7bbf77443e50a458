//! The Common Multicast API as a library (RFC 7046): name a channel, and receive it or send into it, whatever the network
//! between here and there can do.
//!
//! ```text
//!   GroupName ──▶ Receiver ──┬─ native: kernel join on an interface
//!                            ├─ umtp:   Locator (DNS, HTTP, disk cache) ──▶ tunnel to one server at a time
//!                            └─ amt:    relays given, by the hierarchy, DNS-SD, anycast, DRIAD ──▶ tunnel to one at a time
//!                    │
//!                    ├──▶ Statistics ──▶ Report
//!                    └──▶ Output: file, pipe, local multicast, players over HTTP
//! ```
//! Owns sockets, clocks and files; every protocol decision is made in `castgate-endpoint`. Runs on Tokio. Called by the
//! `castgate` command and by whoever builds a player of his own:
//!
//! ```no_run
//! use castgate_client::{Receiver, ReceiverSettings, Servers, TunnelSettings, Via};
//!
//! # async fn example() -> Result<(), Box<dyn std::error::Error>> {
//! let servers = Servers::Fixed(vec!["127.0.2.1:10100".parse()?]);
//! let mut receiver = Receiver::open(ReceiverSettings {
//!     name: "ham:ip:232.1.2.3@127.0.1.1:5004".parse()?,
//!     via: Via::Umtp,
//!     interface: None,
//!     tunnel: Some(TunnelSettings { servers, local: None, silence: None }),
//!     amt: None,
//! })
//! .await?;
//! loop {
//!     let event = receiver.receive(|datagram| println!("{} octets", datagram.payload.len())).await?;
//!     if let Some(event) = event {
//!         println!("{event}");
//!     }
//! }
//! # }
//! ```

pub mod amt;
pub mod cache;
pub mod country;
pub mod dns;
mod event;
pub mod http;
mod interface;
pub mod locate;
mod name;
mod native;
pub mod output;
mod probe;
mod receiver;
mod sender;
mod socket;
pub mod statistics;
pub mod tls;
mod transfer;
mod tunnel;

pub use amt::AmtSettings;
pub use cache::CacheFolder;
pub use dns::Dns;
pub use event::{Datagram, Event, Path};
pub use interface::find_interface;
pub use locate::{LocateError, Locator};
pub use name::{GroupName, NameError};
pub use output::{Output, OutputError, OutputSpec};
pub use probe::{ProbeError, probe};
pub use receiver::{ReceiveError, Receiver, ReceiverSettings, Via};
pub use sender::{SendError, SendTo, Sender, SenderSettings};
pub use statistics::{Report, Statistics};
pub use tls::Trust;
pub use transfer::{TransferError, transfer};
pub use tunnel::{Received, Servers, Tunnel, TunnelError, TunnelSettings};

/// What a client asks the hierarchy for, in the hierarchy's own words.
pub use castgate_endpoint::hierarchy::address::{AddressError, DatabaseAddress};
