//! The example that newcomers start: it loads, and its plan is the one committed here.

mod common;

use castgate_planner::{Machine, Plan, load, plan};

/// Refreshes the file when set: `CASTGATE_BLESS=1 cargo test -p castgate-planner`.
const BLESS: &str = "CASTGATE_BLESS";

fn one_machine() -> Plan {
    let objects = load(common::folder("../examples/one-machine")).unwrap_or_else(|problems| panic!("{problems}"));
    plan(&objects, &Machine::default()).unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn the_plan_of_the_example_is_the_committed_one() {
    let fresh = one_machine().agents.iter().fold(String::new(), |all, agent| all + "---\n" + &agent.to_yaml());
    let path = common::path("tests/one-machine.plan.yaml");
    if std::env::var_os(BLESS).is_some() {
        std::fs::write(&path, &fresh).unwrap();
    }
    let committed = std::fs::read_to_string(&path).unwrap_or_default();
    assert_eq!(committed, fresh, "the plan changed: look at it, then run this test with {BLESS}=1");
}

#[test]
fn a_client_is_told_where_to_ask_and_what_to_join() {
    let plan = one_machine();
    assert_eq!(plan.roots, ["127.0.4.1:5632"]);
    assert_eq!(plan.client.tds.as_deref(), Some("127.0.4.1:5632"));
    assert_eq!(plan.client.country.map(|country| country.to_string()).as_deref(), Some("BE"));
    assert_eq!(plan.client.server, Some("127.0.2.1:10100".parse().unwrap()));
    assert_eq!(plan.client.channel.map(|channel| channel.to_string()).as_deref(), Some("232.1.2.3@127.0.1.1:5004"));
    let channels: Vec<_> = plan.channels.iter().map(|row| (row.group_name(), row.pattern, row.send)).collect();
    let expected = [("ham:ip:232.1.2.3@127.0.1.1:5004", true, false), ("ham:ip:239.1.2.3:5004", false, true)];
    assert_eq!(channels, expected.map(|(name, pattern, send)| (name.to_owned(), pattern, send)));
}

#[test]
fn an_agent_takes_the_plan_as_it_is_written() {
    for agent in one_machine().agents {
        assert_eq!(castgate_control::AgentSnapshot::from_yaml(&agent.to_yaml()).unwrap(), agent);
    }
}
