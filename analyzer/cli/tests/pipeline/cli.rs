//! Tests edleak-analyze with wrong arguments and bad input: it must print one clear line, exit with the right
//! code, and never panic.

use crate::programs::{command, finish, run, run_with_input};
use crate::traces::{Scratch, leaker, leaking};
use edleak_format::{SliceHeader, TraceWriter};
use std::path::Path;

#[test]
fn unreadable_input_gets_one_line_with_a_remedy() {
    let scratch = Scratch::new();
    let mut cases = vec![scratch.path("missing.edl"), "/".into(), "/dev/null".into()];
    let texts: [&[u8]; 5] = [b"", b"hello", b"{}", b"{\"live_bytes\":3}", b"\x7fELF"];
    cases.extend(texts.iter().enumerate().map(|(i, text)| scratch.file(&format!("bad{i}"), text)));
    for path in cases {
        let ran = run([&path]);
        assert_eq!((ran.code, ran.out.as_str()), (3, ""), "{}", path.display());
        assert_eq!(ran.err.lines().count(), 1, "{}", ran.err);
        assert!(ran.err.starts_with("edleak-analyze: ") && ran.err.trim_end().ends_with(')'), "{}", ran.err);
        assert!(ran.err.contains(&*path.to_string_lossy()), "{}", ran.err);
    }
}

#[test]
fn wrong_use_exits_3_and_help_exits_0() {
    for arguments in
        [&["--no-such-option", "x"][..], &[], &["--budget", "fast", "x"], &["--min-class", "huge", "x"]]
    {
        assert_eq!(run(arguments).code, 3, "{arguments:?}");
    }
    let help = run(["--help"]);
    assert!(help.code == 0 && help.out.contains("Exit codes: 0 no leak") && help.err.is_empty());
    assert!(help.out.lines().all(|line| line.chars().count() <= 80), "{}", help.out);
}

#[test]
fn misleading_options_are_refused() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let path = trace.to_str().unwrap();
    let out = scratch.path("out.edl");
    let anonymous = ["anonymize", path, "-o", out.to_str().unwrap(), "--key", ""];
    for arguments in
        [&anonymous[..], &["--strict", "--model", "edleak", path], &["-", "-"], &["score", "/dev/null"]]
    {
        let ran = run(arguments);
        assert_eq!(
            (ran.code, ran.out.as_str(), ran.err.lines().count()),
            (3, "", 1),
            "{arguments:?}: {}",
            ran.err
        );
        assert!(ran.err.trim_end().ends_with(')'), "{arguments:?}: {}", ran.err);
    }
    assert!(!out.exists());
}

#[test]
fn unreadable_trace_does_not_hide_the_others() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let missing = scratch.path("missing.edl");
    for arguments in [&[missing.as_path(), &trace][..], &[Path::new("verify"), &missing, &trace]] {
        let ran = run(arguments);
        assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{}", ran.err);
        assert!(ran.out.contains("t.edl") || ran.out.contains("grow_list"), "{}", ran.out);
    }
    // If the baseline is too short for a verdict, edleak-analyze must tell the user.
    let mut short = leaker();
    short.slices = 5;
    let short = short.write(&scratch.path("short.edl"));
    let ran = run([Path::new("--baseline"), &short, &trace]);
    assert!(
        ran.code == 1 && ran.err.contains("short.edl` is undecided: 5 slices are too few"),
        "{}",
        ran.err
    );
}

/// A damaged trace has lost the record with the length of a tick. edleak must then compute the length of a
/// tick from the times of the slices. If edleak took 0 as the length, every rate would be 0, and every budget
/// would tolerate the leaks.
#[test]
fn without_its_first_record_a_trace_has_its_rates() {
    let scratch = Scratch::new();
    let path = scratch.path("t.edl");
    let mut writer = TraceWriter::create(&path, 16 << 20).unwrap();
    for tick in 1..=80 {
        let header = SliceHeader { tick, time_ns: tick * 100_000_000, ..SliceHeader::default() };
        writer.slice(&header, &[leaking(tick)]).unwrap();
    }
    writer.finish().unwrap();
    let report = run([path.as_os_str(), "--format=json".as_ref()]).json();
    let rate = report["sites"][0]["rate_bytes_per_s"].as_f64().unwrap();
    assert!((950.0..1050.0).contains(&rate), "{rate}");
    assert_eq!(run([path.as_os_str(), "--budget=1KB/h".as_ref()]).code, 1);
}

#[test]
fn a_trace_comes_from_stdin_too() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let ran = run_with_input(&["-"], &std::fs::read(trace).unwrap());
    assert_eq!(ran.code, 1, "{}", ran.err);
    assert!(ran.out.contains("grow_list"), "{}", ran.out);
}

#[test]
fn damage_is_reported_and_invents_no_growth() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites.remove(0);
    let trace = draft.write(&scratch.path("t.edl"));
    let whole = std::fs::read(&trace).unwrap();
    for step in 1..40 {
        let cut = scratch.file("cut.edl", &whole[..whole.len() * step / 40]);
        let mut flipped = whole.clone();
        flipped[(whole.len() - 1) * step / 40] ^= 0x10;
        let flipped = scratch.file("flipped.edl", flipped);
        for path in [cut, flipped] {
            let ran = run([&path]);
            assert!(matches!(ran.code, 0 | 2 | 3), "{step}: {} {}{}", ran.code, ran.out, ran.err);
            assert!(!ran.err.contains("panicked"), "{}", ran.err);
        }
    }
}

#[test]
fn verify_says_what_is_sound() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let ran = run(["verify".as_ref(), trace.as_os_str()]);
    assert_eq!(ran.code, 0, "{}", ran.out);
    assert!(ran.out.contains("sound and complete") && ran.out.contains("80 slices"), "{}", ran.out);
    let whole = std::fs::read(&trace).unwrap();
    let mut damaged = whole.clone();
    let at = whole.len() * 9 / 10;
    damaged[at] ^= 1;
    let damaged = scratch.file("d.edl", damaged);
    let ran = run(["verify".as_ref(), damaged.as_os_str()]);
    assert_eq!(ran.code, 1, "{}{}", ran.out, ran.err);
    assert!(ran.out.contains("damaged; what is sound was read"), "{}", ran.out);
    let both = run(["verify".as_ref(), damaged.as_os_str(), trace.as_os_str()]);
    assert!(both.code == 1 && both.out.contains("damaged; ") && both.out.contains("sound and complete"));
}

#[test]
fn anonymize_takes_out_every_name_and_keeps_the_verdict() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let hidden = scratch.path("a.edl");
    let ran = run(["anonymize".as_ref(), trace.as_os_str(), "-o".as_ref(), hidden.as_os_str()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    let ran = run([hidden.as_os_str(), "--format=json".as_ref(), "--all".as_ref()]);
    assert_eq!(ran.code, 1);
    let report = ran.out.replace(&*hidden.to_string_lossy(), "");
    for name in ["leaker", "grow_list", "/src", "fast", "abcd1234"] {
        assert!(!report.contains(name), "{name} is in {report}");
    }
    assert_eq!(ran.json()["sites"][0]["live_bytes"], 8000);
    assert!(!run([&hidden]).out.contains("was not found"));
}

#[test]
fn nothing_overwrites_the_trace_it_reads() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let before = std::fs::read(&trace).unwrap();
    for command in [&["anonymize"][..], &[], &["--format=json"]] {
        let ran = finish(self::command().args(command).arg("-o").arg(&trace).arg(&trace));
        assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{}{}", ran.out, ran.err);
        assert!(ran.err.contains("would be overwritten"), "{}", ran.err);
        assert_eq!(std::fs::read(&trace).unwrap(), before);
    }
    let ran = run(["embed", "-"]);
    assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{}", ran.err);
}

#[test]
fn a_saved_report_is_not_taken_for_a_recording() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let report = scratch.file("r.json", run([trace.as_os_str(), "--format=json".as_ref()]).out);
    let ran = run([&report]);
    assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{}", ran.err);
    assert!(ran.err.contains("saved report") && ran.err.contains("--baseline"), "{}", ran.err);
}

#[test]
fn embed_keeps_what_is_embedded_already() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let ran = run(["embed".as_ref(), trace.as_os_str()]);
    assert_eq!((ran.code, ran.err.as_str()), (0, ""));
    assert!(ran.out.starts_with("embedded the symbols of 4 addresses, 0 unresolved"), "{}", ran.out);
    assert!(run([&trace]).out.contains("grow_list at /src/leaker.c:42"));
}

/// A gate often looks like `edleak-analyze trace.edl | head`, with the shell's option `pipefail`. So a pipe
/// that nobody reads any more must not change the exit code.
#[test]
fn closed_pipe_keeps_the_exit_code() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    // Give each site another address, because the analyzer merges sites with equal addresses.
    let with_offset = |i: usize| {
        let mut site = draft.sites[i % 4].clone();
        site.stack[0].0 += 16 * i as u64;
        site
    };
    draft.sites = (0..2000).map(with_offset).collect();
    let trace = draft.write(&scratch.path("t.edl"));
    let damaged = scratch.path("damaged.edl");
    let mut bytes = std::fs::read(&trace).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    std::fs::write(&damaged, bytes).unwrap();
    let report = |format: &'static str| vec!["--all", "--format", format, trace.to_str().unwrap()];
    let mut cases: Vec<Vec<&str>> = ["text", "json", "html", "series", "sarif", "junit"].map(report).into();
    cases.push(vec!["verify", damaged.to_str().unwrap()]);
    for arguments in cases {
        let (reader, writer) = std::io::pipe().expect("pipes can be made");
        drop(reader);
        let mut command = command();
        let output = command.args(&arguments).stdout(writer).output().expect("it was built with this test");
        let code = output.status.code();
        assert_eq!((code, output.stderr.as_slice()), (Some(1), &b""[..]), "{arguments:?}");
    }
}

/// A file size limit stands for a full disk.
#[test]
fn a_report_that_cannot_be_written_leaves_the_old_one() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let report = scratch.file("report.html", "the old report");
    let mut limited = std::process::Command::new("sh");
    limited.args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"]).arg(command().get_program());
    let ran = finish(limited.args(["--format", "html", "-o"]).args([&report, &trace]));
    assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{}", ran.err);
    assert!(ran.err.trim_end().ends_with("(give another file with -o)"), "{}", ran.err);
    assert_eq!(std::fs::read_to_string(&report).unwrap(), "the old report");
    assert_eq!(std::fs::read_dir(report.parent().unwrap()).unwrap().count(), 2, "nothing else is left");
}

#[test]
fn a_report_goes_into_a_file() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let report = scratch.path("report.json");
    let ran = run([trace.as_os_str(), "--format=json".as_ref(), "-o".as_ref(), report.as_os_str()]);
    assert_eq!((ran.code, ran.out.as_str()), (1, ""));
    assert!(std::fs::read_to_string(&report).unwrap().starts_with("{\"format_version\":1,"));
    let ran = finish(command().arg(&trace).args(["-o", "/nonexistent/report"]));
    assert_eq!((ran.code, ran.err.lines().count()), (3, 1), "{}", ran.err);
}
