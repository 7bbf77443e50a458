//! What accounts may claim, and how passwords are checked.

use super::*;
use argon2::password_hash::{PasswordHasher, SaltString};
use castgate_wire::registry::EntryType;

#[test]
fn the_right_password_is_checked_once_and_then_remembered() {
    let mut accounts = Accounts::new(vec![account("be", "s3cret")], [7; 16]);
    let Check::Run(check) = accounts.check("be", "s3cret") else { panic!("nothing is known yet") };
    assert!(accounts.note(&check, check.run(), NOW));
    assert!(matches!(accounts.check("be", "s3cret"), Check::Verified(Shown::Current)));
    assert!(matches!(accounts.check("be", "other"), Check::Run(_)), "only the right one is remembered");
}

#[test]
fn a_wrong_password_and_an_unknown_login_are_refused_and_not_remembered() {
    let mut accounts = Accounts::new(vec![account("be", "s3cret")], [7; 16]);
    for (login, password) in [("be", "s3creT"), ("fr", "s3cret"), ("", ""), ("be", "")] {
        for _ in 0..2 {
            let Check::Run(check) = accounts.check(login, password) else { panic!("{login}:{password} is wrong") };
            assert!(!accounts.note(&check, check.run(), NOW));
        }
    }
    let Check::Run(check) = accounts.check("fr", "x") else { panic!("there is no fr") };
    assert!(
        !accounts.note(&check, Some(Shown::Current), NOW),
        "an unknown login is never good, whatever the work says"
    );
}

#[test]
fn a_longer_password_with_the_right_beginning_is_wrong() {
    let right = "x".repeat(PASSWORD_BYTES_MAX);
    let mut accounts = Accounts::new(vec![account("be", &right)], [7; 16]);
    let Check::Run(check) = accounts.check("be", &right) else { panic!("nothing is known yet") };
    assert!(accounts.note(&check, check.run(), NOW));
    let Check::Run(check) = accounts.check("be", &(right + "y")) else { panic!("it is another password") };
    assert!(!accounts.note(&check, check.run(), NOW));
}

#[test]
fn a_changed_or_removed_account_forgets_its_password() {
    let mut accounts = Accounts::new(vec![account("be", "old")], [7; 16]);
    let Check::Run(check) = accounts.check("be", "old") else { panic!("nothing is known yet") };
    let right = check.run();
    accounts.set(vec![account("be", "new")]);
    assert!(!accounts.note(&check, right, NOW), "the password was changed while it was checked");
    accounts.set(vec![account("be", "old")]);
    assert!(accounts.note(&check, right, NOW));
    accounts.set(Vec::new());
    assert!(matches!(accounts.check("be", "old"), Check::Run(_)));
    assert!(accounts.is_empty());
}

#[test]
fn while_a_password_is_changed_both_are_good_and_afterwards_the_new_one_alone() {
    let prove = |accounts: &mut Accounts, password: &str| match accounts.check("be", password) {
        Check::Verified(_) => true,
        Check::Run(check) => accounts.note(&check, check.run(), NOW),
    };
    let mut accounts = Accounts::new(vec![account("be", "old")], [7; 16]);
    assert!(prove(&mut accounts, "old") && !prove(&mut accounts, "new"));
    accounts.set(vec![account("be", "new").with_previous(Some(hash("old"))).unwrap()]);
    for _ in 0..2 {
        assert!(prove(&mut accounts, "old") && prove(&mut accounts, "new") && !prove(&mut accounts, "other"));
    }
    accounts.set(vec![account("be", "new")]);
    assert!(prove(&mut accounts, "new") && !prove(&mut accounts, "old"), "the old one is not remembered either");
    assert!(account("be", "new").with_previous(Some("plain".to_owned())).is_err());
}

#[test]
fn an_account_knows_when_the_password_before_was_shown_last() {
    let show = |accounts: &mut Accounts, password: &str, at| match accounts.check("be", password) {
        Check::Verified(shown) => accounts.note_use("be", shown, at),
        Check::Run(check) => assert!(accounts.note(&check, check.run(), at)),
    };
    let at = |second: u64| UnixMillis(second * 1_000);
    let rotating = |old: &str| account("be", "new").with_previous(Some(hash(old))).unwrap();
    let mut accounts = Accounts::new(vec![account("be", "old")], [7; 16]);
    show(&mut accounts, "old", at(1));
    assert_eq!((accounts.rotating().count(), accounts.previous_shown("be")), (0, None));
    accounts.set(vec![rotating("old")]);
    show(&mut accounts, "new", at(2));
    assert_eq!((accounts.rotating().count(), accounts.previous_shown("be")), (1, None));
    for second in [3, 4] {
        show(&mut accounts, "old", at(second));
        show(&mut accounts, "new", at(second + 10));
        assert_eq!(accounts.previous_shown("be"), Some(at(second)), "also when it is known already");
    }
    accounts.set(vec![rotating("old"), account("nl", "x")]);
    assert_eq!(accounts.previous_shown("be"), Some(at(4)), "an edit of others forgets nothing");
    accounts.set(vec![rotating("older")]);
    assert_eq!(accounts.previous_shown("be"), None, "another password before is another story");
}

#[test]
fn what_is_remembered_is_bounded() {
    let mut accounts = Accounts::new(vec![account("be", "s3cret")], [7; 16]);
    let Check::Run(mut check) = accounts.check("be", "s3cret") else { panic!("nothing is known yet") };
    for tag in 0..VERIFIED_MAX as u128 + 10 {
        check.tag = tag;
        assert!(accounts.note(&check, Some(Shown::Current), NOW));
    }
    assert_eq!(accounts.verified.len(), VERIFIED_MAX);
    assert_eq!(accounts.verified_order.len(), VERIFIED_MAX);
    assert!(!accounts.verified.contains_key(&9) && accounts.verified.contains_key(&10));
}

#[test]
fn hashes_of_other_functions_or_of_monstrous_cost_are_refused() {
    let phc = hash("x");
    let cases = [
        ("plain", "is not a PHC string"),
        (&phc.replace("argon2id", "argon2i"), "is of argon2i, only argon2id"),
        (&phc.replace("m=8", "m=4194304"), "costs more than"),
        (&phc.replace("t=1", "t=1000"), "costs more than"),
        ("$argon2id$v=19$m=8,t=1,p=1", "salt or hash is missing"),
        ("", "is not a PHC string"),
    ];
    for (text, part) in cases {
        let error = Account::new("be".to_owned(), text.to_owned(), Allow::default()).unwrap_err().to_string();
        assert!(error.starts_with("account `be`:") && error.contains(part), "{text}: {error}");
    }
}

#[test]
fn neither_password_nor_hash_is_shown() {
    let accounts = Accounts::new(vec![account("be", "s3cret")], [7; 16]);
    let shown = format!("{:?} {:?}", accounts.check("be", "s3cret"), accounts.account("be"));
    assert!(!shown.contains("s3cret") && !shown.contains("argon2"), "{shown}");
}

#[test]
fn what_of_an_account_changed_is_told_by_name() {
    let old = account("be", "s3cret");
    assert!(old.differences(&old.clone()).is_empty());
    let rotated = account("be", "other").with_previous(Some(hash("s3cret"))).unwrap();
    assert_eq!(old.differences(&rotated), ["password", "previous password"]);
    let allow = Allow { types: vec![EntryType::TunnelServer], ..Allow::default() };
    let wider = Account::new("be".to_owned(), old.password_hash().to_owned(), allow).unwrap();
    assert_eq!(old.differences(&wider), ["limits"]);
}

const NOW: UnixMillis = UnixMillis(1_000);

fn account(login: &str, password: &str) -> Account {
    Account::new(login.to_owned(), hash(password), Allow::default()).unwrap()
}

/// The cheapest hash there is: the tests are about us, not about argon2.
fn hash(password: &str) -> String {
    let salt = SaltString::encode_b64(b"a salt for tests").unwrap();
    let cheap = Argon2::new(Algorithm::Argon2id, argon2::Version::V0x13, Params::new(8, 1, 1, None).unwrap());
    cheap.hash_password(password.as_bytes(), &salt).unwrap().to_string()
}
