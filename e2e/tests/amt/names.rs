//! BIND and dig with AMTRELAY records, and the server that says what BIND does not.

use anyhow::{Context, Result, ensure};
use castgate_e2e::lab::{Lab, Scenario};
use castgate_e2e::peers::bind::{Bind, Zone};
use castgate_e2e::peers::dig;
use castgate_e2e::peers::raw_dns::{self, AMTRELAY, CNAME, RawDns, Record, Reply};
use castgate_wire::amtrelay::{self, Relay, reverse_name};
use std::net::{IpAddr, SocketAddr};

const TOPOLOGY: &str = "internet: names 192.0.2.53/24, gateway 192.0.2.30/24";
const TOOLS: &[&str] = &["named", "dig"];

const SOURCES: Zone = Zone {
    origin: "1.10.in-addr.arpa",
    records: r"
10.0   IN AMTRELAY 10 0 1 192.0.2.2
10.0   IN AMTRELAY 10 0 2 2001:db8::2
10.0   IN AMTRELAY 20 1 3 relay.example.
11.0   IN AMTRELAY 128 1 0 .
12.0   IN TYPE260 \# 6 0a01c0000202
13.0   IN TYPE260 \# 5 0a04c00002
14.0   IN CNAME 10.0.1.10.in-addr.arpa.
1      IN DNAME 0.1.10.in-addr.arpa.
",
};
const SOURCES_V6: Zone = Zone {
    origin: "1.0.0.0.0.0.d.f.ip6.arpa",
    records: "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0 IN AMTRELAY 10 0 2 2001:db8::2",
};

fn server(lab: &Lab) -> SocketAddr {
    SocketAddr::from((lab.host("names").address("internet"), 53))
}

#[test]
fn bind_serves_amtrelay_records_of_every_type_and_dig_reads_them() {
    Scenario::new(TOPOLOGY).needs(TOOLS).run(|lab| {
        let bind = Bind::start(lab.host("names"), server(lab), &[SOURCES, SOURCES_V6])?;
        let gateway = lab.host("gateway");
        let data = |name: &str| -> Result<Vec<String>> {
            let answer = dig::ask(gateway, bind.address(), name, "AMTRELAY")?;
            ensure!(answer.status == "NOERROR", "{answer:?}");
            let records = answer.records.into_iter().filter(|record| record.kind == "AMTRELAY");
            let mut data: Vec<String> = records.map(|record| record.data).collect();
            data.sort_unstable();
            Ok(data)
        };
        let all = ["10 0 1 192.0.2.2", "10 0 2 2001:db8::2", "20 1 3 relay.example."];
        ensure!(data("10.0.1.10.in-addr.arpa")? == all, "{:?}", data("10.0.1.10.in-addr.arpa")?);
        ensure!(data("11.0.1.10.in-addr.arpa")? == ["128 1 0 ."]);
        // Written in octets, a known type is read like any other.
        ensure!(data("12.0.1.10.in-addr.arpa")? == ["10 0 1 192.0.2.2"], "{:?}", data("12.0.1.10.in-addr.arpa")?);
        // A name behind another: by itself, and as a whole branch.
        ensure!(data("14.0.1.10.in-addr.arpa")? == all && data("10.1.1.10.in-addr.arpa")? == all);
        let v6 = "0.1.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.0.1.0.0.0.0.0.d.f.ip6.arpa";
        ensure!(data(v6)? == ["10 0 2 2001:db8::2"]);
        let none = dig::ask(gateway, bind.address(), "99.0.1.10.in-addr.arpa", "AMTRELAY")?;
        ensure!(none.status == "NXDOMAIN" && none.records.is_empty(), "{none:?}");
        // A type of relay that nobody knows yet is served as it is.
        let octets = dig::ask_octets(gateway, bind.address(), "13.0.1.10.in-addr.arpa", AMTRELAY)?;
        ensure!(octets == [[10, 4, 192, 0, 2]], "{octets:?}");
        Ok(())
    });
}

#[test]
fn bind_serves_what_we_write_into_a_zone_and_we_read_what_it_serves() {
    Scenario::new(TOPOLOGY).needs(TOOLS).run(|lab| {
        let relays = [
            Relay::None,
            Relay::V4("192.0.2.2".parse()?),
            Relay::V6("2001:db8::2".parse()?),
            Relay::Name("relay.example".parse()?),
            Relay::Unknown(5, vec![1, 2, 3]),
        ];
        let sources: [IpAddr; 2] = ["10.1.0.10".parse()?, "fd00:1::10".parse()?];
        let record = |(precedence, relay)| {
            let discovery_optional = precedence % 2 == 0;
            amtrelay::Record { precedence, discovery_optional, relay }
        };
        let records: Vec<amtrelay::Record> = (10..).zip(relays).map(record).collect();
        // Each in the presentation of its type where it has one, and once more in octets: BIND takes both for the same record.
        let zone = |source: IpAddr| -> String {
            let owner = reverse_name(source);
            let line = |text: String| format!("{} IN {text}\n", absolute(&owner));
            let known = records.iter().filter(|record| !matches!(record.relay, Relay::Unknown(..)));
            let presented = known.map(|record| line(format!("AMTRELAY {record}")));
            let generic = records.iter().map(|record| line(format!("TYPE{AMTRELAY} {}", record.to_generic())));
            presented.chain(generic).collect()
        };
        let [v4, v6] = sources.map(zone);
        let zones =
            [Zone { origin: "10.in-addr.arpa", records: &v4 }, Zone { origin: "0.0.d.f.ip6.arpa", records: &v6 }];
        let bind = Bind::start(lab.host("names"), server(lab), &zones)?;
        for source in sources {
            let name = reverse_name(source).to_string();
            let served = dig::ask_octets(lab.host("gateway"), bind.address(), &name, AMTRELAY)?;
            let mut read: Vec<amtrelay::Record> =
                served.iter().map(|octets| amtrelay::Record::parse(octets)).collect::<Result<_, _>>()?;
            read.sort_by_key(|record| record.precedence);
            ensure!(read == records, "{read:?}");
            // What dig presents is what we present.
            let answer = dig::ask(lab.host("gateway"), bind.address(), &name, "AMTRELAY")?;
            let mut shown: Vec<String> = answer.records.into_iter().map(|record| record.data).collect();
            shown.sort_unstable();
            let mut ours: Vec<String> = records.iter().map(ToString::to_string).collect();
            ours.sort_unstable();
            ensure!(shown[..4] == ours[..4], "dig shows {shown:?}, we write {ours:?}");
        }
        Ok(())
    });
}

/// A name with its last dot, whether it is shown with it or not.
fn absolute(name: &impl ToString) -> String {
    format!("{}.", name.to_string().trim_end_matches('.'))
}

#[test]
fn bind_refuses_records_that_are_too_short_and_the_raw_server_gives_them_away() {
    Scenario::new(TOPOLOGY).needs(TOOLS).run(|lab| {
        let names = lab.host("names");
        for wrong in [r"10.0 IN TYPE260 \# 5 0a01c00002", "10.0 IN AMTRELAY 10 0 1 2001:db8::2"] {
            let zone = Zone { origin: SOURCES.origin, records: wrong };
            let refusal = Bind::start(names, server(lab), &[zone]).err().context("BIND takes it")?;
            ensure!(format!("{refusal:#}").contains("0.zone"), "{refusal:#}");
        }
        let raw = RawDns::start(names, server(lab), |question| match question.name.as_str() {
            "10.0.1.10.in-addr.arpa" => Reply::Records(vec![
                Record::pointing(&question.name, CNAME, "short.example"),
                Record::amtrelay("short.example", &[10, 1, 192, 0, 2]),
                Record::amtrelay("short.example", &[10]),
            ]),
            "11.0.1.10.in-addr.arpa" => Reply::Status(raw_dns::SERVFAIL),
            "12.0.1.10.in-addr.arpa" => Reply::Silence,
            _ => Reply::Status(raw_dns::NXDOMAIN),
        })?;
        let gateway = lab.host("gateway");
        let ask = |name: &str| dig::ask(gateway, server(lab), name, "TYPE65280");
        ensure!(ask("11.0.1.10.in-addr.arpa")?.status == "SERVFAIL");
        ensure!(ask("13.0.1.10.in-addr.arpa")?.status == "NXDOMAIN");
        ensure!(ask("12.0.1.10.in-addr.arpa").is_err(), "silence was answered");
        // dig is as strict as BIND: the octets are there, and it names them malformed.
        let short = dig::ask(gateway, server(lab), "10.0.1.10.in-addr.arpa", "AMTRELAY");
        ensure!(short.is_err(), "{short:?}");
        let asked = raw.asked();
        ensure!(asked.iter().any(|question| question.kind == AMTRELAY), "{asked:?}");
        ensure!(asked.iter().filter(|question| question.name.starts_with("12.")).count() == 2, "{asked:?}");
        Ok(())
    });
}
