//! Whether passwords before are still in use, as the agent of the database saw it.

use std::path::Path;

use anyhow::{Context as _, Result, bail};
use jiff::Timestamp;
use serde_json::{Value, json};

/// What an agent says of the accounts with two passwords.
pub(super) struct Rotations(Vec<Value>);

/// What it says of one of them: for a program, and for a person.
pub(super) struct Told {
    pub(super) row: Value,
    pub(super) words: String,
}

impl Rotations {
    /// Asks the agent behind a socket.
    pub(super) async fn ask(socket: &Path) -> Result<Self> {
        let (status, text) = castgate_agent::admin::ask::ask(socket, "report").await.map_err(anyhow::Error::msg)?;
        if status != 200 {
            bail!("{}: {}", socket.display(), text.trim());
        }
        let report: Value = serde_json::from_str(&text).with_context(|| format!("{}: no report", socket.display()))?;
        let Some(rotations) = report["database"]["rotations"].as_array() else {
            bail!("{}: this agent is no database", socket.display());
        };
        Ok(Self(rotations.clone()))
    }

    /// How far the owner of a login has come.
    pub(super) fn of(&self, login: &str) -> Told {
        let time = |value: &Value| Timestamp::from_second(value.as_i64()?).ok().map(|time| time.to_string());
        let Some(found) = self.0.iter().find(|row| row["login"] == login) else {
            return Told { row: Value::Null, words: "the agent has not taken them yet".to_owned() };
        };
        let (since, shown) = (time(&found["since"]), time(&found["previous_shown"]));
        let words = match (&shown, &since) {
            (Some(shown), _) => format!("the one before was used last at {shown}"),
            (None, Some(since)) => {
                format!("the one before was not used since {since}; after two update intervals: settle")
            }
            (None, None) => "the agent's clock is wrong".to_owned(),
        };
        Told { row: json!({ "since": since, "used": shown }), words }
    }
}
