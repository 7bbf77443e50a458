//! Passwords of accounts: made here or read once, and kept as hashes only.

use std::io::Read as _;

use anyhow::{Context as _, Result, bail};

/// Octets of a password that is read: a longer one would not fit into one field of a request.
const BYTES_MAX: u64 = 1_024;
/// Characters of a password that is made: 144 bits, more than anybody guesses.
const LEN: usize = 24;
/// 64 characters that stand in any shell, file and URL as they are.
const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_";

/// A password, and whether nobody knows it yet.
#[derive(Debug)]
pub(super) struct Password {
    pub(super) text: String,
    pub(super) is_made: bool,
}

impl Password {
    /// Makes one, or reads it from standard input.
    pub(super) fn new(from_stdin: bool) -> Result<Self> {
        if !from_stdin {
            return Ok(Self { text: make()?, is_made: true });
        }
        let mut text = String::new();
        let read = std::io::stdin().take(BYTES_MAX + 1).read_to_string(&mut text);
        read.context("standard input gives no password")?;
        let text = text.trim_end_matches(['\r', '\n']).to_owned();
        check(&text)?;
        Ok(Self { text, is_made: false })
    }

    /// What a database may keep.
    pub(super) fn hash(&self) -> Result<String> {
        let mut salt = [0; 16];
        getrandom::fill(&mut salt).context("the system gives no random numbers")?;
        Ok(castgate_planner::password_hash(&self.text, &salt))
    }
}

fn make() -> Result<String> {
    let mut dice = [0; LEN];
    getrandom::fill(&mut dice).context("the system gives no random numbers")?;
    // 256 is a multiple of 64: every character is as likely as any other.
    Ok(dice.iter().map(|octet| char::from(ALPHABET[usize::from(*octet) % ALPHABET.len()])).collect())
}

fn check(text: &str) -> Result<()> {
    if text.is_empty() {
        bail!("the password on standard input is empty");
    }
    if text.len() as u64 > BYTES_MAX {
        bail!("the password on standard input is longer than {BYTES_MAX} bytes");
    }
    // RFC 7617 §2: not in a password.
    if text.contains(char::is_control) {
        bail!("the password on standard input has control characters or more than one line");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_that_are_made_are_long_plain_and_never_the_same() {
        let made: std::collections::BTreeSet<_> = (0..100).map(|_| make().unwrap()).collect();
        assert_eq!(made.len(), 100);
        for password in made {
            assert_eq!(password.len(), LEN);
            assert!(password.bytes().all(|octet| ALPHABET.contains(&octet)), "{password}");
        }
    }

    #[test]
    fn a_password_that_cannot_be_one_is_refused() {
        for (text, words) in [
            (String::new(), "is empty"),
            ("x".repeat(1_025), "is longer than 1024"),
            ("a\nb".to_owned(), "control characters"),
        ] {
            assert!(check(&text).unwrap_err().to_string().contains(words));
        }
        assert!(check("corréct: horse").is_ok());
    }
}
