//! What was carried and what was not, and why.
//!
//! Each worker adds to cells of its own, relaxed; whoever reads adds them up. Numbers only grow.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Datagrams and the octets of their payloads, without trailers and headers; of AMT whole IP packets, with their headers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Datagrams.
    pub packets: u64,
    /// Octets of payload.
    pub bytes: u64,
}

/// The four ways a payload may go.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Flows {
    /// Taken in natively; once, however many workers share the channel.
    pub native_in: Traffic,
    /// Sent into tunnels, each copy counted.
    pub tunnels_out: Traffic,
    /// DATA that clients sent with the right cookie for a channel in which they may send, and what relays above sent.
    pub tunnels_in: Traffic,
    /// Multicast for clients and from relays above, each copy counted.
    pub native_out: Traffic,
}

/// Everything since the start.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counters {
    /// What was carried.
    pub flows: Flows,
    drops: [u64; DropReason::ALL.len()],
}

/// Why a datagram went no further.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DropReason {
    /// A datagram at a tunnel socket that is none of its protocol, or a packet that is none.
    Malformed,
    /// Native: our own multicast, heard again.
    Own,
    /// Native: it comes from the address of a tunnel that has the channel.
    Loop,
    /// Native: nobody has the channel any more.
    NoMember,
    /// Its TTL is used up.
    TimeToLive,
    /// Longer than is forwarded.
    TooLarge,
    /// AMT: longer than the tunnel takes in one piece, and not to be cut.
    TooLong,
    /// AMT: not to be forwarded: unicast, of the link alone, or about memberships.
    NotMulticast,
    /// AMT: data from somebody else than the relay.
    WrongRelay,
    /// AMT: the relay sends what nobody asked it for.
    NotWanted,
    /// AMT: it met congestion in the tunnel, and its transport could not be told otherwise (RFC 6040 §4.2).
    Congestion,
    /// AMT: a fragment, which a tunnel of UMTP cannot carry.
    Fragment,
    /// The queue of known tunnels to the control thread is full.
    KnownQueueFull,
    /// The queue of strangers to the control thread is full.
    StrangerQueueFull,
    /// The socket's receive buffer was full before we came to read.
    ReceiveBufferFull,
    /// Reading failed otherwise.
    ReceiveFailed,
    /// The send buffer stayed full.
    SendBufferFull,
    /// There is no way to the destination.
    Unreachable,
    /// A filter of this host forbids it.
    Forbidden,
    /// Sending failed otherwise.
    SendFailed,
}

impl DropReason {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 20] = [
        Self::Malformed,
        Self::Own,
        Self::Loop,
        Self::NoMember,
        Self::TimeToLive,
        Self::TooLarge,
        Self::TooLong,
        Self::NotMulticast,
        Self::WrongRelay,
        Self::NotWanted,
        Self::Congestion,
        Self::Fragment,
        Self::KnownQueueFull,
        Self::StrangerQueueFull,
        Self::ReceiveBufferFull,
        Self::ReceiveFailed,
        Self::SendBufferFull,
        Self::Unreachable,
        Self::Forbidden,
        Self::SendFailed,
    ];

    /// The reason as a metric label.
    #[must_use]
    pub const fn label(self) -> &'static str {
        match self {
            Self::Malformed => "malformed",
            Self::Own => "own",
            Self::Loop => "loop",
            Self::NoMember => "no_member",
            Self::TimeToLive => "ttl",
            Self::TooLarge => "too_large",
            Self::TooLong => "tunnel_mtu",
            Self::NotMulticast => "not_multicast",
            Self::WrongRelay => "wrong_relay",
            Self::NotWanted => "not_wanted",
            Self::Congestion => "congestion",
            Self::Fragment => "fragment",
            Self::KnownQueueFull => "known_queue_full",
            Self::StrangerQueueFull => "stranger_queue_full",
            Self::ReceiveBufferFull => "receive_buffer_full",
            Self::ReceiveFailed => "receive_failed",
            Self::SendBufferFull => "send_buffer_full",
            Self::Unreachable => "unreachable",
            Self::Forbidden => "forbidden",
            Self::SendFailed => "send_failed",
        }
    }

    /// The reason behind what the kernel said to a send.
    pub(crate) fn of_send(error: castgate_udp::Errno) -> Self {
        use castgate_udp::Errno;
        match error {
            Errno::AGAIN | Errno::NOBUFS => Self::SendBufferFull,
            Errno::NETUNREACH | Errno::HOSTUNREACH | Errno::CONNREFUSED | Errno::NETDOWN | Errno::ADDRNOTAVAIL => {
                Self::Unreachable
            }
            Errno::PERM | Errno::ACCESS => Self::Forbidden,
            Errno::MSGSIZE => Self::TooLarge,
            _ => Self::SendFailed,
        }
    }
}

impl Counters {
    /// Datagrams dropped for this reason.
    #[must_use]
    pub fn dropped(&self, reason: DropReason) -> u64 {
        self.drops[reason as usize]
    }

    /// Every reason with its count, zeros included.
    pub fn drops(&self) -> impl Iterator<Item = (DropReason, u64)> + '_ {
        DropReason::ALL.into_iter().map(|reason| (reason, self.dropped(reason)))
    }
}

/// A [`Traffic`] that is counted in.
#[derive(Debug, Default)]
pub(crate) struct TrafficCell {
    packets: AtomicU64,
    bytes: AtomicU64,
}

/// [`Flows`] that are counted in.
#[derive(Debug, Default)]
pub(crate) struct FlowCells {
    pub(crate) native_in: TrafficCell,
    pub(crate) tunnels_out: TrafficCell,
    pub(crate) tunnels_in: TrafficCell,
    pub(crate) native_out: TrafficCell,
}

/// The cells of one worker, apart from everybody else's cache lines.
#[derive(Debug, Default)]
#[repr(align(128))]
pub(crate) struct WorkerCells {
    pub(crate) flows: FlowCells,
    drops: [AtomicU64; DropReason::ALL.len()],
}

impl TrafficCell {
    pub(crate) fn add(&self, traffic: Traffic) {
        if traffic.packets > 0 {
            self.packets.fetch_add(traffic.packets, Relaxed);
            self.bytes.fetch_add(traffic.bytes, Relaxed);
        }
    }

    pub(crate) fn read(&self) -> Traffic {
        Traffic { packets: self.packets.load(Relaxed), bytes: self.bytes.load(Relaxed) }
    }
}

impl FlowCells {
    pub(crate) fn read(&self) -> Flows {
        Flows {
            native_in: self.native_in.read(),
            tunnels_out: self.tunnels_out.read(),
            tunnels_in: self.tunnels_in.read(),
            native_out: self.native_out.read(),
        }
    }
}

impl WorkerCells {
    pub(crate) fn drop_packets(&self, reason: DropReason, packets: u64) {
        if packets > 0 {
            self.drops[reason as usize].fetch_add(packets, Relaxed);
        }
    }

    pub(crate) fn add_to(&self, sum: &mut Counters) {
        sum.flows += self.flows.read();
        for (sum, cell) in sum.drops.iter_mut().zip(&self.drops) {
            *sum += cell.load(Relaxed);
        }
    }
}

impl Traffic {
    /// Counts one more datagram.
    pub(crate) fn count(&mut self, bytes: usize) {
        *self += Self { packets: 1, bytes: bytes as u64 };
    }
}

impl std::ops::AddAssign for Traffic {
    fn add_assign(&mut self, other: Self) {
        self.packets += other.packets;
        self.bytes += other.bytes;
    }
}

impl std::ops::AddAssign for Flows {
    fn add_assign(&mut self, other: Self) {
        let Self { native_in, tunnels_out, tunnels_in, native_out } = other;
        self.native_in += native_in;
        self.tunnels_out += tunnels_out;
        self.tunnels_in += tunnels_in;
        self.native_out += native_out;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_reason_has_a_place_and_a_label_of_its_own() {
        for (place, reason) in DropReason::ALL.into_iter().enumerate() {
            assert_eq!(reason as usize, place);
        }
        assert_eq!(
            DropReason::ALL.map(DropReason::label).into_iter().collect::<HashSet<_>>().len(),
            DropReason::ALL.len()
        );
    }

    #[test]
    fn the_cells_of_all_workers_add_up() {
        let workers = [WorkerCells::default(), WorkerCells::default()];
        for worker in &workers {
            worker.flows.tunnels_out.add(Traffic { packets: 2, bytes: 100 });
            worker.drop_packets(DropReason::Loop, 3);
        }
        let mut sum = Counters::default();
        for worker in &workers {
            worker.add_to(&mut sum);
        }
        assert_eq!(sum.flows.tunnels_out, Traffic { packets: 4, bytes: 200 });
        assert_eq!(sum.dropped(DropReason::Loop), 6);
        assert_eq!(sum.drops().map(|(_, count)| count).sum::<u64>(), 6);
    }
}
