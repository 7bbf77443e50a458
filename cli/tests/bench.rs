//! The benches at a small size: that they measure what they say, not how fast this machine is.

mod common;

use common::{run, stderr, stdout};
use serde_json::Value;

#[test]
fn the_lookup_bench_registers_asks_and_restarts_and_tells_each() {
    let folder = tempfile::tempdir().unwrap();
    let state = folder.path().to_str().unwrap();
    let output = run(&[
        &["bench", "lookup", "--networks", "600", "--servers", "60", "--connections", "4"][..],
        &["--rounds", "1", "--round-ms", "100", "--state", state, "--json"],
    ]
    .concat());
    assert!(output.status.success(), "{}", stderr(&output));
    let rows: Vec<Value> = stdout(&output).lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let case = |row: &Value| row["case"].as_str().unwrap().to_owned();
    let cases: Vec<String> = rows.iter().map(case).collect();
    let size = "600 networks of 60 servers";
    let expected = [
        "REGISTER of new entries".to_owned(),
        "REGISTER that refreshes".to_owned(),
        "memory after REGISTER".to_owned(),
        "restart to the first answer".to_owned(),
        "memory after a restart".to_owned(),
        format!("QUERY, {size}"),
        format!("p99 of QUERY, {size}"),
        format!("processor time of QUERY, {size}"),
    ];
    assert_eq!(cases, expected);
    for row in &rows {
        let ours = row["ours"].as_f64().unwrap();
        // So few networks may find room in what the process has anyway.
        let is_memory = row["unit"] == "bytes/network";
        assert!(row["bench"] == "lookup" && (ours > 0.0 || is_memory), "{row}");
        assert_eq!(row["ceiling"].is_f64(), row["case"].as_str().unwrap().contains("QUERY"), "{row}");
        assert_eq!(row["ceiling"].is_f64(), row["ratio"].is_f64(), "{row}");
    }
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 0, "nothing is left behind");
}

#[test]
fn a_lookup_bench_that_cannot_be_says_which_option() {
    for (words, named) in [
        (&["--networks", "10", "--servers", "3"][..], "--servers 3"),
        (&["--state", "/nonexistent/folder"], "--state: /nonexistent/folder"),
    ] {
        let output = run(&[&["bench", "lookup"][..], words].concat());
        assert_eq!(output.status.code(), Some(1));
        assert!(stderr(&output).contains(named), "{}", stderr(&output));
    }
}
