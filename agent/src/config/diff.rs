//! What has to happen so that an agent that runs one snapshot runs another: only what changed, so that no tunnel is dropped
//! for a change that does not concern it.

use castgate_control::{
    AdapterSnapshot, AgentSnapshot, AmtSnapshot, DatabaseSnapshot, FrontSnapshot, PatternSource, RegistrarSnapshot,
    ServerSnapshot,
};

/// What happens to one role.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    /// Nothing.
    Keep,
    /// It begins.
    Start,
    /// It ends.
    Stop,
    /// It goes on with other values; tunnels and entries stay.
    Reconfigure,
    /// It ends and begins anew: where it listens changed.
    Restart,
}

/// What happens to each role.
#[derive(Debug, PartialEq, Eq)]
pub struct Changes<'a> {
    /// The tunnel server.
    pub server: Change,
    /// The tunnel database.
    pub database: Change,
    /// The adapter.
    pub adapter: Change,
    /// The front.
    pub front: Change,
    /// The registrar.
    pub registrar: Change,
    /// Pattern sources that end.
    pub patterns_stopped: Vec<&'a PatternSource>,
    /// Pattern sources that begin. One that changed ends and begins.
    pub patterns_started: Vec<&'a PatternSource>,
}

/// Compares two snapshots.
#[must_use]
pub fn between<'a>(old: &'a AgentSnapshot, new: &'a AgentSnapshot) -> Changes<'a> {
    let missing_from = |those: &'a [PatternSource], these: &'a [PatternSource]| {
        these.iter().filter(|one| !those.contains(one)).collect::<Vec<_>>()
    };
    Changes {
        server: change(old.server.as_ref(), new.server.as_ref(), server_has_to_restart),
        database: change(old.database.as_ref(), new.database.as_ref(), database_has_to_restart),
        registrar: change(old.registrar.as_ref(), new.registrar.as_ref(), registrar_has_to_restart),
        adapter: change(old.adapter.as_ref(), new.adapter.as_ref(), adapter_has_to_restart),
        front: change(old.front.as_ref(), new.front.as_ref(), front_has_to_restart),
        patterns_stopped: missing_from(&new.patterns, &old.patterns),
        patterns_started: missing_from(&old.patterns, &new.patterns),
    }
}

fn change<T: PartialEq>(old: Option<&T>, new: Option<&T>, has_to_restart: impl Fn(&T, &T) -> bool) -> Change {
    match (old, new) {
        (None, None) => Change::Keep,
        (None, Some(_)) => Change::Start,
        (Some(_), None) => Change::Stop,
        (Some(old), Some(new)) if old == new => Change::Keep,
        (Some(old), Some(new)) if has_to_restart(old, new) => Change::Restart,
        (Some(_), Some(_)) => Change::Reconfigure,
    }
}

/// Whom the entries are announced to by themselves and whom by an adapter: one ends before the other begins.
fn registrar_has_to_restart(old: &RegistrarSnapshot, new: &RegistrarSnapshot) -> bool {
    old.adapter.is_some() != new.adapter.is_some()
}

fn adapter_has_to_restart(old: &AdapterSnapshot, new: &AdapterSnapshot) -> bool {
    old.listen != new.listen
}

fn front_has_to_restart(old: &FrontSnapshot, new: &FrontSnapshot) -> bool {
    old.listen != new.listen
}

/// Sockets and threads are made of the first two; the cookie epoch is part of every cookie that clients hold.
fn server_has_to_restart(old: &ServerSnapshot, new: &ServerSnapshot) -> bool {
    let ServerSnapshot { listen, workers, interfaces: _, loop_check: _, timers, limits: _, channels: _, amt, upstream } =
        old;
    (listen, workers, timers.cookie_epoch_ms) != (&new.listen, &new.workers, new.timers.cookie_epoch_ms)
        || upstream != &new.upstream
        || relay_has_to_restart(amt.as_ref(), new.amt.as_ref())
}

/// What its sockets and its secrets are made of; the rest it takes as it goes.
fn relay_has_to_restart(old: Option<&AmtSnapshot>, new: Option<&AmtSnapshot>) -> bool {
    match (old, new) {
        (None, None) => false,
        (Some(old), Some(new)) => {
            let AmtSnapshot { listen, advertise: _, anycast, teardown: _, mtu, zero_checksum, timers, limits: _ } = old;
            (listen, anycast, mtu, zero_checksum, timers.secret_lifetime_ms)
                != (&new.listen, &new.anycast, &new.mtu, &new.zero_checksum, new.timers.secret_lifetime_ms)
        }
        (None, Some(_)) | (Some(_), None) => true,
    }
}

fn database_has_to_restart(old: &DatabaseSnapshot, new: &DatabaseSnapshot) -> bool {
    (old.listen, &old.store) != (new.listen, &new.store)
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;

    use castgate_control::{AdapterRef, ChannelRule, EtcdSnapshot, StoreSnapshot, TlsIdentity};

    use super::*;

    #[test]
    fn an_equal_snapshot_changes_nothing() {
        let snapshot = full();
        let changes = between(&snapshot, &snapshot);
        assert_eq!((changes.server, changes.database, changes.registrar), (Change::Keep, Change::Keep, Change::Keep));
        assert!(changes.patterns_started.is_empty() && changes.patterns_stopped.is_empty());
    }

    #[test]
    fn another_generation_alone_changes_nothing() {
        let (old, new) = (full(), AgentSnapshot { generation: 9, ..full() });
        assert_eq!(between(&old, &new), between(&old, &old));
    }

    #[test]
    fn a_channel_more_reconfigures_the_server_and_nothing_else() {
        let (old, mut new) = (full(), full());
        new.server.as_mut().unwrap().channels.push(rule());
        let changes = between(&old, &new);
        assert_eq!((changes.server, changes.database), (Change::Reconfigure, Change::Keep));
    }

    #[test]
    fn a_relay_takes_other_limits_as_it_goes_and_restarts_for_another_address() {
        let (mut old, mut new) = (full(), full());
        old.server.as_mut().unwrap().amt = Some(AmtSnapshot::new(vec!["127.0.2.1:2268".parse().unwrap()]));
        assert_eq!(between(&new, &old).server, Change::Restart);
        new.server.as_mut().unwrap().amt = old.server.as_ref().unwrap().amt.clone();
        let amt = |snapshot: &mut AgentSnapshot, edit: fn(&mut AmtSnapshot)| {
            edit(snapshot.server.as_mut().unwrap().amt.as_mut().unwrap());
        };
        amt(&mut new, |amt| amt.limits.endpoints = 7.try_into().unwrap());
        assert_eq!(between(&old, &new).server, Change::Reconfigure);
        amt(&mut new, |amt| amt.listen[0].set_port(2269));
        assert_eq!(between(&old, &new).server, Change::Restart);
    }

    #[test]
    fn another_address_restarts_that_role_and_no_other() {
        let (old, mut new) = (full(), full());
        new.server.as_mut().unwrap().listen.set_port(1);
        let changes = between(&old, &new);
        assert_eq!((changes.server, changes.database), (Change::Restart, Change::Keep));

        let (old, mut new) = (full(), full());
        new.database.as_mut().unwrap().listen.set_port(1);
        let changes = between(&old, &new);
        assert_eq!((changes.server, changes.database), (Change::Keep, Change::Restart));
    }

    #[test]
    fn a_database_that_goes_over_to_etcd_begins_anew() {
        let (old, mut new) = (full(), full());
        let etcd = EtcdSnapshot::new(vec!["http://127.0.0.1:2379".to_owned()]);
        new.database.as_mut().unwrap().store = StoreSnapshot::Etcd(Box::new(etcd));
        let changes = between(&old, &new);
        assert_eq!((changes.server, changes.database), (Change::Keep, Change::Restart));
    }

    #[test]
    fn an_adapter_that_moves_begins_anew_and_one_with_other_clients_goes_on() {
        let (mut old, mut new) = (full(), full());
        let adapter = AdapterSnapshot {
            listen: "127.0.2.1:8444".parse().unwrap(),
            tls: TlsIdentity { certificate: String::new(), key: String::new() },
            clients: Vec::new(),
            grace_seconds: 15.try_into().unwrap(),
        };
        old.adapter = Some(adapter.clone());
        new.adapter = Some(AdapterSnapshot { grace_seconds: 16.try_into().unwrap(), ..adapter.clone() });
        assert_eq!(between(&old, &new).adapter, Change::Reconfigure);
        new.adapter = Some(AdapterSnapshot { listen: "127.0.2.1:8445".parse().unwrap(), ..adapter });
        assert_eq!(between(&old, &new).adapter, Change::Restart);
    }

    #[test]
    fn a_registrar_that_goes_over_to_an_adapter_says_goodbye_first() {
        let (old, mut new) = (full(), full());
        let adapter = AdapterRef { endpoint: "https://adapter:8444".to_owned(), key: "k".to_owned() };
        new.registrar.as_mut().unwrap().adapter = Some(adapter);
        assert_eq!(between(&old, &new).registrar, Change::Restart);
        assert_eq!(between(&new, &old).registrar, Change::Restart);
        let mut newer = new.clone();
        newer.registrar.as_mut().unwrap().adapter.as_mut().unwrap().key = "l".to_owned();
        assert_eq!(between(&new, &newer).registrar, Change::Reconfigure);
    }

    #[test]
    fn roles_that_come_and_go_start_and_stop() {
        let (old, new) = (full(), AgentSnapshot::default());
        let changes = between(&old, &new);
        assert_eq!((changes.server, changes.database, changes.registrar), (Change::Stop, Change::Stop, Change::Stop));
        assert_eq!(changes.patterns_stopped.len(), 1);
        let changes = between(&new, &old);
        assert_eq!(
            (changes.server, changes.database, changes.registrar),
            (Change::Start, Change::Start, Change::Start)
        );
        assert_eq!(changes.patterns_started.len(), 1);
    }

    #[test]
    fn a_pattern_of_another_rate_ends_and_begins() {
        let (old, mut new) = (full(), full());
        new.patterns[0].rate_bits_per_second = 5.try_into().unwrap();
        let changes = between(&old, &new);
        assert_eq!((changes.patterns_stopped.len(), changes.patterns_started.len()), (1, 1));
    }

    fn full() -> AgentSnapshot {
        AgentSnapshot {
            agent: "demo/all".to_owned(),
            server: Some(ServerSnapshot::new("127.0.2.1:10100".parse().unwrap(), vec!["lo".to_owned()])),
            database: Some(DatabaseSnapshot::new("127.0.4.1:5632".parse().unwrap())),
            registrar: Some(RegistrarSnapshot::new(Vec::new(), Vec::new())),
            patterns: vec![PatternSource::new(
                "239.1.2.3:5004".parse().unwrap(),
                1_000_000.try_into().unwrap(),
                "lo".to_owned(),
            )],
            ..AgentSnapshot::default()
        }
    }

    fn rule() -> ChannelRule {
        ChannelRule {
            name: "news".to_owned(),
            group: IpAddr::from([239, 1, 1, 1]),
            source: None,
            ports: "5004".parse().unwrap(),
            send: false,
            ttl: 63.try_into().unwrap(),
        }
    }
}
