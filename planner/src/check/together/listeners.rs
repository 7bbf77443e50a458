//! Who listens where: two at one place are in each other's way.

use std::net::{Ipv6Addr, SocketAddr};

use crate::document::Kind;
use crate::objects::{Entry, Objects};
use crate::problem::{Problem, Reporter};

/// Something that wants an address and a port for itself.
#[derive(Debug)]
pub(crate) struct Listener<'a> {
    pub(crate) kind: Kind,
    pub(crate) title: String,
    pub(crate) file: &'a str,
    pub(crate) field: &'static str,
    pub(crate) transport: &'static str,
    pub(crate) address: SocketAddr,
}

/// Reports those of the `chosen` listeners that want the same place. `six` is the machine's address of version 6.
pub(crate) fn listeners(
    objects: &Objects,
    six: Option<Ipv6Addr>,
    problems: &mut Vec<Problem>,
    chosen: impl Fn(&Listener) -> bool,
) {
    let servers = objects.carriers().flat_map(|(kind, name, Entry { file, object, .. })| {
        let place = object.place(*object.listen.ip(), six.map(|_| Ipv6Addr::UNSPECIFIED));
        let sockets: Vec<_> = place.sockets().enumerate().collect();
        sockets.into_iter().map(move |(index, address)| Listener {
            kind,
            title: format!("{kind} {name}"),
            file,
            // The first is that of UMTP.
            field: if index == 0 { "spec.umtp" } else { "spec.amt" },
            transport: "UDP",
            address,
        })
    });
    let databases = objects.databases.iter().map(|(name, Entry { file, object, .. })| Listener {
        kind: Kind::TunnelDatabase,
        title: format!("{} {name}", Kind::TunnelDatabase),
        file,
        field: "spec.http",
        transport: "TCP",
        address: SocketAddr::V4(object.listen),
    });
    let all: Vec<_> = servers.chain(databases).filter(chosen).collect();
    for (index, listener) in all.iter().enumerate() {
        let clash = all[..index].iter().find(|other| {
            let same = other.address.ip() == listener.address.ip()
                || other.address.ip().is_unspecified()
                || listener.address.ip().is_unspecified();
            let versions = other.address.is_ipv4() == listener.address.is_ipv4();
            // Within one object its own rules speak.
            other.title != listener.title
                && other.transport == listener.transport
                && other.address.port() == listener.address.port()
                && versions
                && same
        });
        if let Some(other) = clash {
            let what = format!(
                "{} {} is taken: {} listens on {}",
                listener.transport, listener.address, other.title, other.address
            );
            Reporter::new(listener.file, &listener.title, problems).report(listener.field, what);
        }
    }
}
