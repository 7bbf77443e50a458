//! Bad manifests: each file of `tests/bad` and the sentences, all of them, that a person gets to see.

mod common;

use castgate_planner::{load, validate};

/// Refreshes the sentences when set: `CASTGATE_BLESS=1 cargo test -p castgate-planner`.
const BLESS: &str = "CASTGATE_BLESS";

#[test]
fn every_bad_manifest_gets_its_sentences() {
    let files = common::folder("tests/bad");
    assert!(files.len() > 30, "the table has shrunk to {}", files.len());
    let mut wrong = Vec::new();
    for (name, text) in files {
        let said = match load([(&name, &text)]) {
            Err(problems) => format!("{problems}\n"),
            Ok(_) => "nothing is wrong\n".to_owned(),
        };
        let path = common::path("tests/bad").join(&name).with_extension("txt");
        if std::env::var_os(BLESS).is_some() {
            std::fs::write(&path, &said).unwrap();
        }
        let expected = std::fs::read_to_string(&path).unwrap_or_default();
        if said != expected {
            wrong.push(format!("{name}\n  expected:\n{expected}\n  said:\n{said}"));
        }
    }
    assert!(wrong.is_empty(), "{}\nrun this test with {BLESS}=1 if that is better", wrong.join("\n"));
}

#[test]
fn every_problem_is_one_line_with_file_object_and_field() {
    for (name, text) in common::folder("tests/bad") {
        let problems = load([(&name, &text)]).expect_err(&name);
        for problem in problems {
            assert_eq!(problem.file, name);
            assert!(!problem.to_string().contains('\n'), "{problem}");
            assert!(!problem.message.ends_with('.'), "{problem}");
            let whole_document = problem.object.is_empty() || problem.object.starts_with("document ");
            assert!(whole_document || !problem.field.is_empty(), "{problem}");
        }
    }
}

#[test]
fn validate_counts_what_it_read_and_says_what_load_says() {
    let (name, text) = common::folder("tests/bad").into_iter().find(|(name, _)| name == "dangling.yaml").unwrap();
    let found = validate([(&name, &text)]);
    let counts: Vec<_> = found.counts.into_iter().collect();
    let expected =
        [("ChannelBundle", 1), ("Secret", 1), ("TunnelAccount", 1), ("TunnelDatabase", 1), ("TunnelServer", 1)];
    assert_eq!(counts, expected);
    assert_eq!(found.problems, load([(&name, &text)]).err());
}

#[test]
fn an_object_in_two_files_is_named_with_both() {
    let manifest = "{apiVersion: v1, kind: Secret, metadata: {name: a, namespace: castgate}}";
    let problems = load([("b.yaml", manifest), ("a.yaml", manifest)]).unwrap_err();
    assert_eq!(problems.to_string(), "b.yaml: Secret castgate/a: metadata.name: a.yaml holds it too");
}

#[test]
fn a_password_is_never_quoted() {
    let manifest =
        "{apiVersion: v1, kind: Secret, metadata: {name: a}, data: {password: \"hunter2!\"}, stringData: [hunter2]}";
    let problems = load([("a.yaml", manifest)]).unwrap_err();
    assert!(!problems.to_string().contains("hunter2"), "{problems}");
}
