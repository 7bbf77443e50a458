//! What a user reads: help, refusals, definitions.

mod common;

use common::{castgate, run, stderr, stdout};

#[test]
fn every_command_has_help_with_an_example() {
    for words in [
        &["up"][..],
        &["receive"],
        &["send"],
        &["locate"],
        &["tds"],
        &["tds", "query"],
        &["tds", "register"],
        &["tds", "bye"],
        &["tds", "transfer"],
        &["validate"],
        &["crds"],
        &["zone"],
        &["bench"],
        &["bench", "fanout"],
        &["bench", "joins"],
        &["bench", "lookup"],
    ] {
        let output = castgate(words).arg("--help").output().unwrap();
        let help = stdout(&output);
        assert!(output.status.success(), "{words:?}");
        assert!(
            help.contains("Example") && help.contains(&format!("castgate {}", words.join(" "))),
            "{words:?}:\n{help}"
        );
    }
}

#[test]
fn what_is_not_understood_is_one_sentence_and_status_2() {
    for (words, cause) in [
        (&["receive", "ham:ip:239.1.2.3:5004", "--via", "http"][..], "does not speak http yet"),
        (&["receive", "ham:ip:232.1.2.3@192.0.2.1:5004", "--relay", "192.0.2.1:0"], "192.0.2.1:0"),
        (
            &["receive", "ham:ip:232.1.2.3@192.0.2.1:5004", "--relay", "192.0.2.1", "--server", "192.0.2.1:1"],
            "--server",
        ),
        (&["receive", "ham:ip:232.1.2.3@192.0.2.1:5004", "--find", "luck"], "driad"),
        (&["receive", "ham:ip:232.1.2.3@192.0.2.1:5004", "--find", "dns-sd"], "dns-sd=DOMAIN"),
        (&["receive", "ham:ip:232.1.2.3@192.0.2.1:5004", "--resolver", "ns.example"], "neither ADDRESS"),
        (&["receive", "ham:ip:10.1.2.3:5004"], "10.1.2.3 is not a multicast address"),
        (&["receive", "ham:ip:239.1.2.3:5004", "--output", "rtmp://x"], "rtmp://x"),
        (&["receive", "ham:ip:239.1.2.3:5004", "--for", "soon"], "\"soon\" is not a span of time"),
        (&["receive", "ham:ip:239.1.2.3:5004", "--country", "Belgium"], "Belgium"),
        (&["receive", "ham:ip:239.1.2.3:5004", "--tds", "ftp://x"], "only http:// and https://"),
        (&["send", "ham:ip:239.1.2.3:5004", "--input", "pattern:fast"], "\"fast\" is not a rate"),
        (&["locate"], "--tds"),
        (&["recieve"], "recieve"),
    ] {
        let output = run(words);
        let sentence = stderr(&output);
        assert_eq!(output.status.code(), Some(2), "{words:?}: {sentence}");
        assert!(sentence.contains(cause) && sentence.trim_end().lines().count() == 1, "{words:?}: {sentence}");
    }
}

#[test]
fn the_definitions_are_those_of_every_kind_on_screen_and_in_files() {
    let output = run(&["crds"]);
    assert!(output.status.success());
    let yaml = stdout(&output);
    let kinds = [
        "ChannelBundle",
        "TunnelAccount",
        "TunnelAssignmentPolicy",
        "TunnelDatabase",
        "TunnelEndpoint",
        "TunnelRelay",
        "TunnelServer",
    ];
    for kind in kinds {
        assert!(yaml.contains(&format!("kind: {kind}\n")), "{kind} is missing");
    }
    assert_eq!(yaml.matches("kind: CustomResourceDefinition").count(), kinds.len());

    let folder = tempfile::tempdir().unwrap();
    let output = run(&["crds", "--output", folder.path().to_str().unwrap()]);
    assert!(output.status.success() && output.stdout.is_empty());
    assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), kinds.len());
}
