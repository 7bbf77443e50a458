//! Country codes.

use std::fmt;
use std::str::FromStr;

/// What a caller says who does not know where it is.
pub(super) const UNKNOWN: &str = "ZZ";

/// An ISO 3166-1 alpha-2 code in upper case. That it names a country is not checked: codes come and go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Country([u8; 2]);

/// Why a text is not a country.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CountryError {
    /// Something else than two letters.
    #[error("a country is two letters, as in BE")]
    NotTwoLetters,
    /// `ZZ`, which stands for no country.
    #[error("ZZ stands for an unknown country")]
    Unknown,
}

impl Country {
    /// The country of a code; `None` for nothing at all and for `ZZ`.
    ///
    /// # Errors
    /// [`CountryError::NotTwoLetters`].
    pub fn parse_optional(text: &str) -> Result<Option<Self>, CountryError> {
        if text.is_empty() {
            return Ok(None);
        }
        match text.parse() {
            Ok(country) => Ok(Some(country)),
            Err(CountryError::Unknown) => Ok(None),
            Err(error @ CountryError::NotTwoLetters) => Err(error),
        }
    }

    /// The two letters.
    #[must_use]
    #[expect(clippy::missing_panics_doc, reason = "there is no country of other letters")]
    pub fn as_str(&self) -> &str {
        std::str::from_utf8(&self.0).expect("only ASCII letters are put in")
    }
}

impl FromStr for Country {
    type Err = CountryError;

    /// castgate UMTP notes: letters of any case; `UK` is `GB` and `EL` is `GR`, as people write them.
    fn from_str(text: &str) -> Result<Self, CountryError> {
        let letters: [u8; 2] = text.as_bytes().try_into().map_err(|_| CountryError::NotTwoLetters)?;
        if !letters.iter().all(u8::is_ascii_alphabetic) {
            return Err(CountryError::NotTwoLetters);
        }
        match &letters.map(|letter| letter.to_ascii_uppercase()) {
            b"ZZ" => Err(CountryError::Unknown),
            b"UK" => Ok(Self(*b"GB")),
            b"EL" => Ok(Self(*b"GR")),
            code => Ok(Self(*code)),
        }
    }
}

impl fmt::Display for Country {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_pair_of_letters_is_a_country_in_upper_case_but_zz_and_the_two_aliases() {
        let letters = b'a'..=b'z';
        for pair in letters.clone().flat_map(|first| letters.clone().map(move |second| [first, second])) {
            let text = String::from_utf8(pair.to_vec()).unwrap();
            let expected = match text.as_str() {
                "zz" => Err(CountryError::Unknown),
                "uk" => Ok("GB".to_owned()),
                "el" => Ok("GR".to_owned()),
                _ => Ok(text.to_uppercase()),
            };
            assert_eq!(text.parse::<Country>().map(|country| country.to_string()), expected);
            assert_eq!(text.parse::<Country>(), text.to_uppercase().parse());
        }
    }

    #[test]
    fn nothing_and_zz_are_no_country_and_no_error() {
        assert_eq!(Country::parse_optional(""), Ok(None));
        assert_eq!(Country::parse_optional("zz"), Ok(None));
        assert_eq!(Country::parse_optional("be"), Ok(Some(Country(*b"BE"))));
    }

    #[test]
    fn what_is_not_two_letters_is_refused() {
        for text in ["B", "BEL", "B1", " BE", "é"] {
            assert_eq!(Country::parse_optional(text), Err(CountryError::NotTwoLetters), "{text}");
        }
    }
}
