//! A policy by itself. Nothing serves it yet, so nothing of it is kept.

use castgate_crds::TunnelAssignmentPolicySpec;
use castgate_crds::tunnel_assignment_policy::{Match, Pool, Rule, ServerRef, Target, TimeWindow};

use super::fields;
use crate::problem::Reporter;

pub(crate) fn policy(spec: &TunnelAssignmentPolicySpec, reporter: &mut Reporter) {
    let TunnelAssignmentPolicySpec { database_refs, rules } = spec;
    for (index, database) in database_refs.iter().enumerate() {
        fields::label(&database.name, &format!("spec.databaseRefs[{index}].name"), reporter);
    }
    for (index, Rule { name, matches, assign, exclude }) in rules.iter().enumerate() {
        let path = format!("spec.rules[{index}]");
        fields::label(name, &format!("{path}.name"), reporter);
        check_match(matches, &format!("{path}.match"), reporter);
        let pools = assign.iter().flat_map(|assign| &assign.pools).enumerate();
        for (index, Pool { server_ref, selector, weight: _ }) in pools {
            check_target(server_ref.as_ref(), selector.as_ref(), &format!("{path}.assign.pools[{index}]"), reporter);
        }
        for (index, Target { server_ref, selector }) in exclude.iter().enumerate() {
            check_target(server_ref.as_ref(), selector.as_ref(), &format!("{path}.exclude[{index}]"), reporter);
        }
    }
}

fn check_match(matches: &Match, path: &str, reporter: &mut Reporter) {
    let Match { networks, countries, asns: _, time_window } = matches;
    fields::prefixes(networks, &format!("{path}.networks"), reporter);
    fields::countries(countries, &format!("{path}.countries"), reporter);
    let Some(TimeWindow { from, to, zone }) = time_window else { return };
    for (text, field) in [(from, "from"), (to, "to")] {
        if !is_time_of_day(text) {
            reporter
                .report(format!("{path}.timeWindow.{field}"), format_args!("\"{text}\" is not a time such as 18:00"));
        }
    }
    if !is_zone(zone) {
        let what = format!("\"{zone}\" is not a zone such as Europe/Brussels");
        reporter.report(format!("{path}.timeWindow.zone"), what);
    }
}

fn check_target(
    server: Option<&ServerRef>,
    selector: Option<&std::collections::BTreeMap<String, String>>,
    path: &str,
    reporter: &mut Reporter,
) {
    if let Some(server) = server {
        fields::label(&server.name, &format!("{path}.serverRef.name"), reporter);
    }
    if let Some(selector) = selector {
        fields::node_selector(selector, &format!("{path}.selector"), reporter);
    }
}

fn is_time_of_day(text: &str) -> bool {
    let digits = |part: &str, most: u8| part.len() == 2 && part.parse::<u8>().is_ok_and(|number| number <= most);
    let all_digits = text.bytes().all(|octet| octet.is_ascii_digit() || octet == b':');
    all_digits && text.split_once(':').is_some_and(|(hours, minutes)| digits(hours, 23) && digits(minutes, 59))
}

/// Whether a text has the form of a zone; which zones there are is known where the rule is applied.
fn is_zone(text: &str) -> bool {
    let part = |part: &str| {
        part.starts_with(|letter: char| letter.is_ascii_alphabetic())
            && part.bytes().all(|octet| octet.is_ascii_alphanumeric() || b"-+_".contains(&octet))
    };
    text.len() <= 64 && text.split('/').count() <= 3 && text.split('/').all(part)
}
