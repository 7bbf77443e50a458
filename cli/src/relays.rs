//! How AMT relays are found: options that several commands share.

use anyhow::Result;
use castgate_client::AmtSettings;
use castgate_client::amt::{Anycast, Place, parse_place};

use crate::args::TunnelArgs;

/// Which relays, and where they are looked for.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct RelayArgs {
    /// AMT relay to use; again for a second choice
    #[arg(long, value_name = "HOST[:PORT]", value_parser = parse_place, conflicts_with = "server")]
    relay: Vec<Place>,
    #[arg(
        long,
        value_name = "WAY",
        value_parser = way,
        help = "Look for AMT relays by dns-sd=DOMAIN, anycast[=HOST[:PORT]] or driad; again for several, in this order \
                [default: anycast and driad, without --relay and --tds]"
    )]
    find: Vec<Way>,
}

/// A way of finding relays.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Way {
    DnsSd(String),
    Anycast(Anycast),
    Driad,
}

impl RelayArgs {
    /// Whether anything is said about relays.
    pub(crate) fn are_named(&self) -> bool {
        !self.relay.is_empty() || !self.find.is_empty()
    }

    /// The settings of an AMT tunnel.
    pub(crate) fn settings(&self, tunnel: &TunnelArgs) -> Result<AmtSettings> {
        let default = AmtSettings::default();
        let mut settings = AmtSettings {
            relays: self.relay.clone(),
            locator: tunnel.locator()?,
            dns: tunnel.dns()?,
            local: tunnel.local,
            silence: tunnel.silence(default.silence.unwrap_or_default()),
            ..default
        };
        if self.are_named() || settings.locator.is_some() {
            (settings.anycast, settings.driad) = (Anycast::Off, false);
        }
        for way in &self.find {
            match way {
                Way::DnsSd(domain) => settings.domains.push(domain.clone()),
                Way::Anycast(anycast) => settings.anycast = anycast.clone(),
                Way::Driad => settings.driad = true,
            }
        }
        Ok(settings)
    }
}

fn way(text: &str) -> Result<Way, String> {
    let (word, place) = text.split_once('=').map_or((text, None), |(word, place)| (word, Some(place)));
    match (word, place) {
        ("driad", None) => Ok(Way::Driad),
        ("anycast", None) => Ok(Way::Anycast(Anycast::Assigned)),
        ("anycast", Some(place)) => match parse_place(place) {
            Ok(place) => Ok(Way::Anycast(Anycast::At(place))),
            Err(error) => Err(error.to_string()),
        },
        ("dns-sd", Some(domain)) if !domain.is_empty() => Ok(Way::DnsSd(domain.to_owned())),
        _ => Err("there are dns-sd=DOMAIN, anycast, anycast=HOST[:PORT] and driad".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser as _;

    #[derive(Debug, clap::Parser)]
    struct Line {
        #[command(flatten)]
        tunnel: TunnelArgs,
        #[command(flatten)]
        relays: RelayArgs,
    }

    fn settings(words: &[&str]) -> AmtSettings {
        let line = Line::parse_from(["receive"].iter().chain(words));
        line.relays.settings(&line.tunnel).unwrap()
    }

    #[test]
    fn without_a_word_anycast_and_driad_are_asked() {
        let plain = settings(&[]);
        assert!(plain.anycast == Anycast::Assigned && plain.driad && plain.locator.is_none());
    }

    #[test]
    fn what_is_named_is_used_alone() {
        for words in [&["--relay", "192.0.2.1"][..], &["--tds", "192.0.2.1"]] {
            let named = settings(words);
            assert!(named.anycast == Anycast::Off && !named.driad, "{words:?}");
            assert_ne!(named.relays.is_empty(), named.locator.is_none());
        }
        let driad = settings(&["--find", "driad", "--relay", "192.0.2.1"]);
        assert!(driad.anycast == Anycast::Off && driad.driad && driad.relays.len() == 1);
        let shared = settings(&["--find", "anycast=relays.example.net", "--find", "dns-sd=example.net"]);
        assert_eq!(shared.anycast, Anycast::At(Place::Name("relays.example.net".to_owned(), 2268)));
        assert!(shared.domains == ["example.net"] && !shared.driad);
    }

    #[test]
    fn a_way_that_is_none_is_answered_with_those_there_are() {
        for text in ["", "driad=x", "dns-sd", "dns-sd=", "luck"] {
            assert!(way(text).unwrap_err().contains("anycast=HOST[:PORT] and driad"), "{text}");
        }
    }
}
