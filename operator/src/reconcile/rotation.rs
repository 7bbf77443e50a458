//! Whether the password before of an account is still in use, from what its databases saw. Pure.
//!
//! ```text
//!   shown within the last two intervals ────────────────────────▶ True
//!   not shown, and watched for two intervals: all refreshed ────▶ False: it can go
//!   not shown, and not watched for so long ─────────────────────▶ Unknown: somebody may not have come by yet
//! ```

use std::time::Duration;

use castgate_crds::tunnel_endpoint::RotationStatus;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;

use super::conditions::Saying;

/// Type of the condition.
const IN_USE: &str = "PreviousPasswordInUse";

/// What there is to say of an account, and when its password before was shown last. `rows` are those of its login, one for each
/// replica of its database; `interval` is how often everybody refreshes there. Nothing without a password before.
#[must_use]
pub fn rotation(rows: &[&RotationStatus], interval: Duration, now: Timestamp) -> Option<(Saying, Option<Time>)> {
    // The replica that was watching for the shortest time knows least.
    let since = rows.iter().map(|row| row.since.0).max()?;
    let shown = rows.iter().filter_map(|row| row.previous_shown.as_ref()).map(|time| time.0).max();
    let patience = interval.saturating_mul(2);
    let has_passed = |from: Timestamp| now.duration_since(from).unsigned_abs() >= patience && now >= from;
    let at = |time: Timestamp| time.strftime("%FT%TZ");
    let saying = match shown {
        Some(shown) if !has_passed(shown) => {
            let message =
                format!("the password before was used at {}: somebody has not gone over to the new one", at(shown));
            Saying::new(IN_USE, true, "Used", message)
        }
        _ if has_passed(since) => {
            let quiet = shown.map_or(since, |shown| shown.max(since));
            let message =
                format!("nobody has used the password before since {}: it can be taken out of the Secret", at(quiet));
            Saying::new(IN_USE, false, "NotUsed", message)
        }
        _ => {
            let until = since.checked_add(patience).unwrap_or(since);
            let message = format!(
                "nobody has used the password before since {}; everybody will have refreshed by {}",
                at(since),
                at(until)
            );
            Saying { kind: IN_USE, holds: None, reason: "Watching", message }
        }
    };
    Some((saying, shown.map(Time)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_password_before_can_go_when_nobody_showed_it_for_two_intervals() {
        let row = |since, shown: Option<i64>| RotationStatus {
            login: "be".to_owned(),
            since: Time(second(since)),
            previous_shown: shown.map(|shown| Time(second(shown))),
        };
        let told = |rows: &[RotationStatus], now| {
            let rows: Vec<_> = rows.iter().collect();
            let (saying, shown) = rotation(&rows, Duration::from_mins(5), second(now))?;
            Some((saying.holds, saying.reason, shown.map(|time| time.0.as_second())))
        };
        assert_eq!(told(&[], 0), None, "there is one password");
        assert_eq!(told(&[row(1_000, None)], 1_599), Some((None, "Watching", None)));
        assert_eq!(told(&[row(1_000, None)], 1_600), Some((Some(false), "NotUsed", None)));
        assert_eq!(told(&[row(1_000, Some(1_500))], 2_099), Some((Some(true), "Used", Some(1_500))));
        assert_eq!(told(&[row(1_000, Some(1_500))], 2_100), Some((Some(false), "NotUsed", Some(1_500))));
        let replicas = [row(1_000, Some(1_500)), row(2_000, None)];
        assert_eq!(told(&replicas, 2_099), Some((Some(true), "Used", Some(1_500))));
        assert_eq!(told(&replicas, 2_500), Some((None, "Watching", Some(1_500))), "one of them began again");
        assert_eq!(told(&replicas, 2_600), Some((Some(false), "NotUsed", Some(1_500))));
        assert_eq!(told(&[row(5_000, None)], 1_000), Some((None, "Watching", None)), "clocks differ");
    }

    #[test]
    fn the_sentence_says_since_when() {
        let row = RotationStatus { login: "be".to_owned(), since: Time(second(0)), previous_shown: None };
        let message = |now| rotation(&[&row], Duration::from_mins(5), second(now)).unwrap().0.message;
        assert_eq!(
            message(60),
            "nobody has used the password before since 1970-01-01T00:00:00Z; everybody will have refreshed by \
             1970-01-01T00:10:00Z"
        );
        assert!(message(600).ends_with("since 1970-01-01T00:00:00Z: it can be taken out of the Secret"));
    }

    fn second(second: i64) -> Timestamp {
        Timestamp::from_second(second).unwrap()
    }
}
