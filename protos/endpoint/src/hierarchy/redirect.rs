//! Where a database sends us on: the `Location` of an answer with status 301, 302, 307 or 308 (RFC 9110 §15.4).
//!
//! The draft knows no redirects, but web servers in front of a database make them. Owns where one leads; whoever sends the
//! request counts them and decides what may go along. The rules, for client and registrar alike:
//! * at most [`REDIRECTS_MAX`], all in the time of one request;
//! * the same request is sent again, GET as GET and POST as POST: a database takes the same pairs either way (§6), and a REGISTER
//!   that lost its body would only be refused with words about something else;
//! * only to `http` and `https`, and never from `https` back to `http`: whoever asked for more than that did not ask for less;
//! * a request with credentials follows only within the same authority, that is scheme, host and port: to anybody else the password
//!   would be given away, and the request is worth nothing without.

use castgate_wire::registry::Scheme;

use super::address::{Place, is_url_octet};

/// How many redirects one request follows: one for the path, one for the host, one to spare. A loop ends here.
pub const REDIRECTS_MAX: usize = 3;

/// Where the same request goes next.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redirect {
    /// How that place is spoken to.
    pub scheme: Scheme,
    /// Another place to connect to; `None` for the same.
    pub place: Option<Place>,
    /// The `Host` field there.
    pub authority: String,
    /// The path there.
    pub path: String,
    /// The pairs, where the redirect names some.
    pub pairs: Option<String>,
}

/// Why a redirect is not followed. Reads on behind the name of the database.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum RedirectError {
    /// No `Location`, or one that is no text.
    #[error("redirects without saying where to")]
    Nowhere,
    /// A scheme other than http and https.
    #[error("redirects to `{0}`, and only http:// and https:// are spoken")]
    Scheme(String),
    /// From https to http.
    #[error("redirects to `{0}`, and https is not left for http")]
    Downgrade(String),
    /// What is neither a URL nor a path.
    #[error("redirects to `{0}`, which is no URL of a database")]
    Url(String),
    /// More than [`REDIRECTS_MAX`].
    #[error("redirects more than {REDIRECTS_MAX} times")]
    TooMany,
    /// A request with credentials, to somebody else.
    #[error("redirects to `{0}`, and login and password are not given to another host")]
    Credentials(String),
}

/// Whether this status sends on.
#[must_use]
pub const fn is_redirect(status: u16) -> bool {
    matches!(status, 301 | 302 | 307 | 308)
}

impl Redirect {
    /// Reads a `Location` in the answer of the host that is called `authority` and was asked over `scheme`. `is_private` says that
    /// the request carries credentials.
    ///
    /// # Errors
    /// [`RedirectError`] when it is not to be followed. Never panics, whatever the text.
    pub fn parse(
        (scheme, authority): (Scheme, &str),
        location: Option<&str>,
        is_private: bool,
    ) -> Result<Self, RedirectError> {
        let location = location.map(str::trim).filter(|text| !text.is_empty()).ok_or(RedirectError::Nowhere)?;
        let shown = || location.chars().take(SHOWN_MAX).collect::<String>();
        let wrong = || RedirectError::Url(shown());
        if !location.bytes().all(is_url_octet) {
            return Err(wrong());
        }
        let text = location.split('#').next().unwrap_or_default();
        let (new_scheme, host, rest) = match text.split_once("://") {
            Some((new, rest)) if new.bytes().all(|octet| octet.is_ascii_alphanumeric()) => {
                let new = Scheme::parse(new).ok_or_else(|| RedirectError::Scheme(shown()))?;
                let end = rest.find(['/', '?']).unwrap_or(rest.len());
                (new, Some(&rest[..end]), &rest[end..])
            }
            _ => match text.strip_prefix("//") {
                Some(rest) => {
                    let end = rest.find(['/', '?']).unwrap_or(rest.len());
                    (scheme, Some(&rest[..end]), &rest[end..])
                }
                None if text.starts_with('/') => (scheme, None, text),
                None => return Err(wrong()),
            },
        };
        let (path, pairs) = match rest.split_once('?') {
            Some((path, pairs)) => (path, Some(pairs.to_owned())),
            None => (rest, None),
        };
        let path = if path.is_empty() { "/" } else { path }.to_owned();
        let here =
            || Self { scheme, place: None, authority: authority.to_owned(), path: path.clone(), pairs: pairs.clone() };
        let Some(host) = host else { return Ok(here()) };
        // Unlike the address of a database that a person writes, a URL without a port means that of its scheme.
        let port = match new_scheme {
            Scheme::Http => HTTP_PORT,
            Scheme::Https => HTTPS_PORT,
        };
        let place = Place::of_url_host(host, port).ok_or_else(wrong)?;
        let there = match &place {
            Place::Socket(address) => address.to_string(),
            Place::Name { name, port } => format!("{name}:{port}"),
            Place::Service(name) => name.clone(),
        };
        if there.eq_ignore_ascii_case(authority) && new_scheme == scheme {
            return Ok(here());
        }
        if (scheme, new_scheme) == (Scheme::Https, Scheme::Http) {
            return Err(RedirectError::Downgrade(shown()));
        }
        if is_private {
            return Err(RedirectError::Credentials(shown()));
        }
        Ok(Self { scheme: new_scheme, place: Some(place), authority: there, path, pairs })
    }

    /// The target of the request that follows one for `target`: a redirect that names no pairs keeps those of the one before.
    #[must_use]
    pub fn target(&self, target: &str) -> String {
        let pairs = self.pairs.as_deref().or_else(|| target.split_once('?').map(|(_, pairs)| pairs));
        pairs.map_or_else(|| self.path.clone(), |pairs| format!("{}?{pairs}", self.path))
    }
}

/// Ports of a URL without one (RFC 9110 §4.2.1, §4.2.2).
const HTTP_PORT: u16 = 80;
const HTTPS_PORT: u16 = 443;
/// Characters of a `Location` that a sentence repeats.
const SHOWN_MAX: usize = 120;

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: (Scheme, &str) = (Scheme::Http, "tds.example:5632");

    fn read(location: &str, is_private: bool) -> Result<(String, String, Option<String>, bool), RedirectError> {
        let Redirect { scheme: _, place, authority, path, pairs } = Redirect::parse(HERE, Some(location), is_private)?;
        Ok((authority, path, pairs, place.is_some()))
    }

    #[test]
    fn every_notation_of_a_location_is_read() {
        for (location, authority, path, pairs, elsewhere) in [
            ("/new/castgate.cgs", "tds.example:5632", "/new/castgate.cgs", None, false),
            ("/new/castgate.cgs?ACTION=QUERY#x", "tds.example:5632", "/new/castgate.cgs", Some("ACTION=QUERY"), false),
            ("http://TDS.example:5632/a", "tds.example:5632", "/a", None, false),
            ("http://tds.example/a", "tds.example:80", "/a", None, true),
            ("HTTP://192.0.2.1:5632/a?b", "192.0.2.1:5632", "/a", Some("b"), true),
            ("http://[2001:db8::1]/a", "[2001:db8::1]:80", "/a", None, true),
            ("//other.example:8080", "other.example:8080", "/", None, true),
            ("http://other.example?b=/", "other.example:80", "/", Some("b=/"), true),
            ("https://tds.example/a", "tds.example:443", "/a", None, true),
            ("https://tds.example:5632/a", "tds.example:5632", "/a", None, true),
        ] {
            let expected = (authority.to_owned(), path.to_owned(), pairs.map(str::to_owned), elsewhere);
            assert_eq!(read(location, false), Ok(expected), "{location}");
            assert_eq!(read(location, true).is_err(), elsewhere, "{location}");
        }
    }

    #[test]
    fn what_is_not_followed_says_why() {
        for (location, cause) in [
            ("ftp://tds.example/a", "only http:// and https:// are spoken"),
            ("castgate.cgs", "no URL of a database"),
            ("http://a b/", "no URL of a database"),
            ("http://user:secret@tds.example/", "no URL of a database"),
            ("http://tds.example:0/", "no URL of a database"),
            ("http:///a", "no URL of a database"),
            (" ", "without saying where to"),
        ] {
            let error = read(location, false).unwrap_err().to_string();
            assert!(error.contains(cause), "{location}: {error}");
        }
        let error = read("http://evil.example/a", true).unwrap_err();
        assert_eq!(error, RedirectError::Credentials("http://evil.example/a".to_owned()));
        assert_eq!(Redirect::parse((Scheme::Http, "a:80"), None, false), Err(RedirectError::Nowhere));
    }

    #[test]
    fn pairs_are_kept_unless_the_redirect_names_others() {
        let next = |location: &str, target: &str| {
            Redirect::parse((Scheme::Http, "a:80"), Some(location), false).unwrap().target(target)
        };
        assert_eq!(next("/new", "/old?ACTION=QUERY&TYPE=TS"), "/new?ACTION=QUERY&TYPE=TS");
        assert_eq!(next("/new?TYPE=TDS", "/old?TYPE=TS"), "/new?TYPE=TDS");
        assert_eq!(next("/new", "/old"), "/new", "a POST has its pairs elsewhere");
    }

    #[test]
    fn https_is_kept_and_never_left_for_http() {
        let from_https = |location, is_private| Redirect::parse((Scheme::Https, "a:5632"), Some(location), is_private);
        for (location, is_private) in
            [("/b", true), ("https://a:5632/b", true), ("//b:1/b", false), ("https://b", false)]
        {
            assert_eq!(from_https(location, is_private).unwrap().scheme, Scheme::Https, "{location}");
        }
        for (location, is_private) in [("http://a:5632/b", true), ("http://a:5632/b", false), ("http://b/", false)] {
            let error = from_https(location, is_private).unwrap_err();
            assert_eq!(error, RedirectError::Downgrade(location.to_owned()));
            assert!(error.to_string().ends_with("https is not left for http"), "{error}");
        }
        assert!(matches!(from_https("https://b/", true), Err(RedirectError::Credentials(_))));
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused_and_credentials_stay(location: String, is_private: bool) {
            if let Ok(redirect) = Redirect::parse(HERE, Some(&location), is_private) {
                prop_assert!(!is_private || redirect.place.is_none() && redirect.authority == HERE.1);
                prop_assert!(redirect.path.starts_with('/'));
            }
        }
    }
}
