//! `--country`: said, found out, asked for, or left out.

use std::io::{self, BufRead, IsTerminal as _, Write};
use std::str::FromStr;

use castgate_client::country::Surroundings;
use castgate_wire::registry::Country;

use crate::args;

/// Answers that are no country before the question is given up: somebody who does not know it is not kept from his channel.
const TRIES_MAX: usize = 3;

/// What `--country` says.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Choice {
    /// Nothing: find out, and ask whoever sits there when that fails.
    #[default]
    FindOut,
    /// Ask, whatever could be found out.
    Ask,
    /// Leave it out.
    LeaveOut,
    /// This one.
    Is(Country),
}

impl FromStr for Choice {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "ask" => Ok(Self::Ask),
            "none" => Ok(Self::LeaveOut),
            other => args::country(other).map(Self::Is).map_err(|error| format!("{error}; or take none or ask")),
        }
    }
}

/// A country with the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Settled {
    /// The country; `None` when it is left out.
    pub(crate) country: Option<Country>,
    /// Why, as the second half of a line.
    pub(crate) why: String,
}

impl Settled {
    /// The line that tells it.
    pub(crate) fn in_words(&self) -> String {
        let country = self.country.map_or_else(|| "none".to_owned(), |country| country.to_string());
        format!("country: {country}, {}", self.why)
    }
}

impl Choice {
    /// The country to use. May wait for a person, where one sits at the terminal.
    pub(crate) fn settle(self) -> Settled {
        let (input, output) = (io::stdin(), io::stderr());
        let is_manned = input.is_terminal() && output.is_terminal();
        self.settle_with(&Surroundings::read(), is_manned.then(|| (input.lock(), output.lock())))
    }

    fn settle_with(self, surroundings: &Surroundings, person: Option<(impl BufRead, impl Write)>) -> Settled {
        let unknown = |why: &str| Settled { country: None, why: why.to_owned() };
        match self {
            Self::Is(country) => return Settled { country: Some(country), why: "as --country says".to_owned() },
            Self::LeaveOut => return unknown("as --country says"),
            Self::FindOut => {
                if let Some(detected) = surroundings.country() {
                    return Settled { country: Some(detected.country), why: detected.by.to_string() };
                }
            }
            Self::Ask => {}
        }
        match person.map(|(input, output)| ask(input, output)) {
            Some(Some(country)) => Settled { country: Some(country), why: "as you said".to_owned() },
            Some(None) => unknown("you named none"),
            None => unknown("neither locale, time zone nor host name tells one"),
        }
    }
}

/// Asks until a country or an empty line comes. A broken terminal is as good as an empty line.
fn ask(mut input: impl BufRead, mut output: impl Write) -> Option<Country> {
    for _ in 0..TRIES_MAX {
        write!(output, "In which country is this computer? Two letters, as in BE; Enter leaves it out: ").ok()?;
        output.flush().ok()?;
        let mut line = String::new();
        input.read_line(&mut line).ok()?;
        let line = line.trim();
        if line.is_empty() {
            return None;
        }
        match args::country(line) {
            Ok(country) => return Some(country),
            Err(error) => writeln!(output, "{line:?}: {error}").ok()?,
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settle(choice: &str, zone: &str, typed: Option<&str>) -> (String, String) {
        let surroundings = Surroundings { zone: Some(zone.to_owned()), ..Surroundings::default() };
        let mut shown = Vec::new();
        let choice = if choice.is_empty() { Choice::default() } else { choice.parse().unwrap() };
        let settled = choice.settle_with(&surroundings, typed.map(|typed| (typed.as_bytes(), &mut shown)));
        (settled.in_words(), String::from_utf8(shown).unwrap())
    }

    #[test]
    fn what_is_said_goes_before_what_is_found_out_and_that_before_a_question() {
        let none = String::new();
        assert_eq!(
            settle("be", "Europe/Paris", Some("NL\n")),
            ("country: BE, as --country says".to_owned(), none.clone())
        );
        assert_eq!(
            settle("none", "Europe/Paris", Some("NL\n")),
            ("country: none, as --country says".to_owned(), none.clone())
        );
        let found = "country: FR, the time zone is Europe/Paris".to_owned();
        assert_eq!(settle("", "Europe/Paris", Some("NL\n")), (found, none));
        let (asked, shown) = settle("", "UTC", Some("NL\n"));
        assert_eq!(asked, "country: NL, as you said");
        assert!(shown.starts_with("In which country"), "{shown}");
        assert_eq!(settle("ask", "Europe/Paris", Some("uk\n")).0, "country: GB, as you said");
        assert_eq!(
            settle("ask", "Europe/Paris", None).0,
            "country: none, neither locale, time zone nor host name tells one"
        );
    }

    #[test]
    fn an_answer_that_is_none_is_asked_for_again_and_not_for_ever() {
        let (settled, shown) = settle("", "UTC", Some("Belgium\nBE\n"));
        assert_eq!(settled, "country: BE, as you said");
        assert!(shown.contains("\"Belgium\": a country is two letters"), "{shown}");
        for typed in ["\n", "", "Belgium\nFrance\nSpain\nES\n"] {
            assert_eq!(settle("", "UTC", Some(typed)).0, "country: none, you named none", "{typed:?}");
        }
    }

    #[test]
    fn a_choice_that_is_none_says_which_there_are() {
        assert!("Belgium".parse::<Choice>().unwrap_err().ends_with("or take none or ask"));
    }
}
