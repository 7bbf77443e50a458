//! Cases of registration that need the whole hierarchy: castgate UMTP notes, draft-liefooghe-castgate-02 §4.1.3.

use std::time::Duration;

use crate::net::Net;
use crate::picture::Party;

const INTERVAL: Duration = Duration::from_mins(5);

#[test]
fn a_public_server_with_a_country_registers_at_the_country_and_serves_it_and_its_neighbours() {
    let mut net = Net::started(INTERVAL, 3);
    let national = net.node("national");
    net.launch(national);
    net.pass(INTERVAL);
    assert_eq!(holders(&net, "national"), ["be1", "be2"]);
    for (country, tier, is_found) in [("BE", "country", true), ("DE", "region", true), ("JP", "public", false)] {
        let mut found = false;
        // The neighbours of two countries are sent to either.
        for _ in 0..20 {
            let got = net.locate("192.0.2.1".parse().expect("an address"), Some(country));
            assert_eq!(got.tier.as_deref(), Some(tier), "{country}: {}", got.hops);
            found |= got.servers.contains(&Party::of("national").socket());
        }
        assert_eq!(found, is_found, "{country}");
    }
}

#[test]
fn a_wider_database_that_comes_later_gets_what_lies_in_it_at_the_next_discovery_and_smaller_ones_keep_theirs() {
    let mut net = Net::started(INTERVAL, 4);
    let (shop, wide) = (net.node("shop"), net.node("wide"));
    net.launch(shop);
    net.pass(INTERVAL);
    assert_eq!(holders(&net, "shop"), ["be1", "be2"], "nobody else has its network");
    net.launch(wide);
    // Discovery is repeated at every fourth update; who is named no more is left three updates later.
    net.pass(INTERVAL * 14);
    assert_eq!(holders(&net, "wide"), ["be1", "be2"]);
    assert_eq!(holders(&net, "shop"), ["wide"]);
    assert_eq!(holders(&net, "isp1"), ["be1", "be2"], "the longest match is its own network");
    for (place, server) in [("134.7.1.1", "shop"), ("134.184.7.7", "campus"), ("134.184.50.7", "corpserver")] {
        for _ in 0..8 {
            let got = net.locate(place.parse().expect("an address"), Some("BE"));
            assert_eq!(got.servers, [Party::of(server).socket()], "{place}: {}", got.hops);
        }
    }
}

#[test]
fn databases_of_one_isp_that_start_before_their_country_move_below_it_when_it_is_there() {
    let mut net = Net::new(INTERVAL, 5);
    let roots = ["root1", "root2"];
    for party in roots.into_iter().chain(["isp1", "isp2"]) {
        let node = net.node(party);
        net.launch(node);
        net.pass(INTERVAL);
    }
    assert_eq!(
        (holders(&net, "isp1"), holders(&net, "isp2")),
        (roots.to_vec(), roots.to_vec()),
        "nobody else is there"
    );
    for country in ["be1", "be2"] {
        let country = net.node(country);
        net.launch(country);
    }
    // Discovery is repeated at every fourth update; who is named no more is left three updates later.
    net.pass(INTERVAL * 14);
    for isp in ["isp1", "isp2"] {
        assert_eq!(holders(&net, isp), ["be1", "be2"]);
    }
    let ispserver = net.node("ispserver");
    net.launch(ispserver);
    net.pass(INTERVAL);
    assert_eq!(holders(&net, "ispserver"), ["isp1", "isp2"]);
    for _ in 0..8 {
        let got = net.locate("135.0.7.7".parse().expect("an address"), Some("BE"));
        assert_eq!(got.servers, [Party::of("ispserver").socket()], "{}", got.hops);
    }
}

/// The databases that hold a party.
fn holders(net: &Net, party: &str) -> Vec<&'static str> {
    let entry = Party::of(party).socket();
    let holders = net.nodes.iter().enumerate().filter(|(node, _)| net.held(*node).contains(&entry));
    holders.map(|(_, node)| node.party.name).collect()
}
