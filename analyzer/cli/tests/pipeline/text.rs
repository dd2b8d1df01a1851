//! Tests the text report.

use crate::programs::{command, finish, run};
use crate::traces::{Scratch, frame, leaker, leaking, watched};
use edleak_format::{Counters, Losses};

fn fits(text: &str) {
    text.lines().for_each(|line| assert!(line.chars().count() <= 80, "too wide: {line}"));
    text.lines().for_each(|line| assert_eq!(line, line.trim_end(), "trailing space"));
}

/// The report without the reasons of its verdicts. The tests compare the rest of the text with an expected
/// text; the wording of the reasons may change, so it is not compared.
fn without_reasons(text: &str) -> String {
    let mut in_reason = false;
    let mut kept = String::new();
    for line in text.lines() {
        in_reason = line.starts_with("   why: ") || (in_reason && line.starts_with("        "));
        if !in_reason {
            kept += line;
            kept.push('\n');
        }
    }
    kept
}

#[test]
fn a_leak_reads_like_this() {
    let scratch = Scratch::new();
    let trace = leaker().write(&scratch.path("t.edl"));
    let text = run([&trace]).out;
    fits(&text);
    let expected = "\
edleak: ./leaker --fast                                                 pid 4242
8 s in 80 slices, one every 100 ms; the program exited with status 0

";
    assert!(text.starts_with(expected), "{text}");
    let report = without_reasons(&text);
    let lines: Vec<&str> = report.lines().skip(3).collect();
    assert!(lines[0].ends_with("leaked       in 79 allocations"), "{text}");
    assert_eq!(lines[1], "   grow_list at /src/leaker.c:42");
    assert_eq!(lines[2], "   in /src/leaker, site 0");
    assert!(lines[3].starts_with("   ▁") && lines[3].ends_with("█  100 B to 7.8 KiB live"), "{text}");
    assert!(report.contains("seen:   4 sites; 14 KiB live in 111 allocations, of 91 KiB in 901\n"), "{text}");
    assert!(report.ends_with("missed: nothing\n"), "{text}");
}

/// The curve of a site must cover the whole record, even if the site made its first allocation in the middle.
#[test]
fn a_late_leak_has_its_beginning_in_the_middle_of_the_line() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites[0].counters = |slice| match slice {
        0..40 => Counters::ZERO,
        _ => leaking(slice - 40),
    };
    let text = run([draft.write(&scratch.path("t.edl"))]).out;
    let line = text.lines().find(|line| line.ends_with("█  0 B to 3.9 KiB live")).expect(&text);
    assert!(line.starts_with(&format!("   {}", "▁".repeat(20))), "{text}");
    assert!(line.contains("▁▂") && text.contains("why: began at 4 s"), "{text}");
}

#[test]
fn stacks_hang_from_their_caller() {
    let scratch = Scratch::new();
    let mut draft = watched();
    // Add 20 equal frames, as in a recursion. The report must show the 20 frames on one line, with the
    // number of repetitions.
    for _ in 0..20 {
        draft.sites[1].stack.insert(2, (0x1110, vec![frame("handle_request", "/src/leaker.c", 77)]));
    }
    let trace = draft.write(&scratch.path("t.edl"));
    let text = run([&trace]).out;
    fits(&text);
    let tree = "   stacks, by share of the leaked bytes:
   └─ 100 %  make at /src/leaker.c:42
             handle_request at /src/leaker.c:77 (21 times)
             main at /src/leaker.c:90
";
    assert!(text.contains(tree), "{text}");
    assert!(!text.contains("warm_up"), "a stack that does not leak is left out: {text}");
}

#[test]
fn long_names_are_cut_and_control_characters_are_gone() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    let name = format!("std_like::{}\u{1b}[31m", "very_long_name<".repeat(20));
    draft.sites[0].stack[0].1 = vec![frame(&name, &format!("/src/{}/file.c", "deep/".repeat(30)), 7)];
    let trace = draft.write(&scratch.path("t.edl"));
    let text = run([&trace]).out;
    fits(&text);
    assert!(text.contains("file.c:7") && !text.contains('\u{1b}'), "{text}");
}

#[test]
fn a_name_of_templates_keeps_its_last_component() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    let string = "std::__cxx11::basic_string<char, std::char_traits<char>, std::allocator<char> >";
    let name = format!("Registry<{string}, std::pair<int, unsigned long> >::add_item({string} const&, int)");
    for site in &mut draft.sites {
        site.stack[0].1 = vec![frame(&name, "/src/leaker.cpp", 13)];
    }
    let trace = draft.write(&scratch.path("t.edl"));
    let ran = run([trace.as_os_str(), "--all".as_ref()]);
    fits(&ran.out);
    let named = ran.out.lines().filter(|line| line.contains("::add_item")).count();
    assert_eq!(named, 4, "{}", ran.out);
    assert!(
        ran.out.contains("   Registry<std::string, std::pair<int, unsigned long>>::add_item("),
        "{}",
        ran.out
    );
    // The table of the sites that do not leak must also show the ids of the sites.
    assert!(ran.out.contains(" id  site") && ran.out.contains("    2  Reg"), "{}", ran.out);
}

#[test]
fn losses_are_reported() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.losses = Losses { unknown_frees: 12, missed_slices: 3, other_site_allocs: 1, ..Losses::default() };
    draft.end = None;
    let trace = draft.write(&scratch.path("t.edl"));
    let text = run([&trace]).out;
    fits(&text);
    assert!(
        text.contains("missed: 12 unknown frees, 3 lost slices, 1 allocation beyond the site table"),
        "{text}"
    );
    assert!(text.contains("the recording was cut short, or still runs"), "{text}");
}

#[test]
fn a_long_gap_makes_figures_doubtful_and_a_clean_verdict_undecided() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    (draft.missing, draft.losses.missed_slices) = (30..50, 20);
    let trace = draft.write(&scratch.path("t.edl"));
    let ran = run([&trace]);
    fits(&ran.out);
    assert!(ran.out.contains("missed: 20 lost slices, 25 % of the record"), "{}", ran.out);
    assert!(ran.out.contains("note:   slices are missing for 25 % of the record"), "{}", ran.out);
    draft.sites.remove(0);
    let ran = run([draft.write(&scratch.path("t.edl"))]);
    fits(&ran.out);
    assert!(ran.code == 2 && ran.out.contains("undecided: no slice was taken for 25 %"), "{}", ran.out);
    // If only 2 of 80 slices are missing, the verdict must be "no leak", and the report must not mention the
    // missing slices.
    draft.missing = 30..32;
    let ran = run([draft.write(&scratch.path("t.edl"))]);
    assert!(ran.code == 0 && !ran.out.contains("of the record"), "{}", ran.out);
}

#[test]
fn late_leak_is_reported_with_its_start() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites[0].counters = |slice| leaking(slice.max(39) - 39);
    let text = run([draft.write(&scratch.path("t.edl"))]).out;
    fits(&text);
    assert!(text.contains("why: began at 3."), "{text}");
}

#[test]
fn kind_of_growth_is_reported() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.resident = |slice| (4 << 20) + slice * (1 << 20);
    let text = run([draft.write(&scratch.path("t.edl"))]).out;
    fits(&text);
    assert!(text.contains("growth: memory grows outside malloc"), "{text}");
}

#[test]
fn without_utf8_the_report_is_ascii() {
    let scratch = Scratch::new();
    let trace = watched().write(&scratch.path("t.edl"));
    let text = finish(command().env("LANG", "C").arg(&trace)).out;
    assert!(text.is_ascii(), "{text}");
    assert!(text.contains("`-"), "{text}");
}

#[test]
fn clean_recording_reports_no_leak() {
    let scratch = Scratch::new();
    let mut draft = leaker();
    draft.sites.remove(0);
    let text = run([draft.write(&scratch.path("t.edl"))]).out;
    assert!(text.contains("edleak: no leak in 80 slices over 8 s\n"), "{text}");
}
