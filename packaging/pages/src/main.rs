//! Generates manual pages and completions from the command lines of the programs, and writes them into
//! DIR/{man1,bash,zsh,fish}: `edleak-pages DIR DATE`.

use clap::{Command, ValueHint};
use clap_complete::Shell;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let [directory, date] = arguments.as_slice() else {
        eprintln!("edleak-pages: it takes two arguments (edleak-pages DIR YEAR-MONTH-DAY)");
        return ExitCode::FAILURE;
    };
    match write(Path::new(directory), date) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("edleak-pages: {error} (check the directory)");
            ExitCode::FAILURE
        }
    }
}

/// The directory for the manual pages, and the date that they show.
struct Pages {
    manuals: PathBuf,
    date: String,
}

fn write(directory: &Path, date: &str) -> io::Result<()> {
    let analyze = edleak_analyze::command();
    let record = edleak_record::commands();
    let pages = Pages { manuals: directory.join("man1"), date: date.to_owned() };
    fs::create_dir_all(&pages.manuals)?;
    for command in record.iter().chain([&analyze]) {
        write_manuals(command, &pages)?;
    }
    for (mut command, name) in [(with_commands(record), "edleak-record"), (analyze, "edleak-analyze")] {
        for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
            let to = directory.join(shell.to_string());
            fs::create_dir_all(&to)?;
            clap_complete::generate_to(shell, &mut command, name, &to)?;
        }
    }
    Ok(())
}

/// Writes one page for the command and one page for each of its subcommands. For example, `edleak-analyze
/// diff` is described in `edleak-analyze-diff(1)`.
fn write_manuals(command: &Command, pages: &Pages) -> io::Result<()> {
    // The help command needs no page, because each other command has its own page.
    let mut command = command.clone().disable_help_subcommand(true);
    let name = command.get_name().replace(' ', "-");
    command.build();
    for below in command.get_subcommands().filter(|below| !below.is_hide_set()) {
        let called = format!("{name}-{}", below.get_name());
        let page = below.clone().name(kept(&called)).bin_name(called.replacen(
            "edleak-analyze-",
            "edleak-analyze ",
            1,
        ));
        write_manual(page, &called, pages)?;
    }
    write_manual(command, &name, pages)
}

fn write_manual(command: Command, name: &str, pages: &Pages) -> io::Result<()> {
    let help = command.get_after_help().map(ToString::to_string).unwrap_or_default();
    let page = clap_mangen::Man::new(command.name(kept(name)))
        .date(&pages.date)
        .manual("edleak")
        .source(concat!("edleak ", env!("CARGO_PKG_VERSION")));
    let mut text = Vec::new();
    page.render_title(&mut text)?;
    page.render_name_section(&mut text)?;
    page.render_synopsis_section(&mut text)?;
    page.render_description_section(&mut text)?;
    page.render_options_section(&mut text)?;
    let mut text = without_idle_breaks(&String::from_utf8_lossy(&text));
    text.push_str(&sections(&help));
    fs::write(pages.manuals.join(format!("{name}.1")), text)
}

/// Replaces a blank line between two line breaks by the roff request for vertical space. Line breaks beside a
/// blank line have no effect, and mandoc warns about them.
fn without_idle_breaks(text: &str) -> String {
    text.replace(".br\n\n.br\n", ".sp\n")
}

/// The sections of a manual page after the options: the examples, the exit codes, and all other notes.
fn sections(help: &str) -> String {
    let mut text = String::new();
    for part in help.split("\n\n").filter(|part| !part.trim().is_empty()) {
        let escaped: String = part.lines().map(escaped).collect();
        match part.strip_prefix("Examples:\n") {
            Some(examples) => {
                let lines: String = examples.lines().map(self::escaped).collect();
                text.push_str(&format!(".SH EXAMPLES\n.nf\n{lines}.fi\n"));
            }
            None if part.starts_with("Exit code") => text.push_str(&format!(".SH EXIT STATUS\n{escaped}")),
            None => text.push_str(&format!(".SH NOTES\n{escaped}")),
        }
    }
    text
}

/// Escapes a line, so that roff prints it unchanged, even if it begins with a control character of roff.
fn escaped(line: &str) -> String {
    let text = line.replace('\\', "\\e").replace('-', "\\-");
    let guard = if text.starts_with(['.', '\'']) { "\\&" } else { "" };
    format!("{guard}{text}\n")
}

/// A copy of `name` that is never freed, because clap needs names that live as long as the program.
/// edleak-pages ends soon, so the memory that is never freed does not matter.
fn kept(name: &str) -> &'static str {
    name.to_owned().leak()
}

/// edleak-record accepts either a program or a command as its first argument. A shell should complete both
/// the names of programs and the commands of edleak-record. So `with_commands` adds the commands as
/// subcommands of edleak-record, and lets the shell complete file names for the program and its arguments.
fn with_commands(commands: Vec<Command>) -> Command {
    let mut commands = commands.into_iter();
    let record = commands.next().expect("the first is the program itself");
    let record = record
        .args_conflicts_with_subcommands(true)
        .subcommand_negates_reqs(true)
        .mut_arg("program", |argument| argument.value_hint(ValueHint::FilePath));
    let mut below: Vec<Command> = commands
        .map(|command| {
            let name = command.get_name().rsplit(' ').next().unwrap_or_default().to_owned();
            let about = command.get_about().cloned().unwrap_or_default();
            command.name(kept(&name)).about(about)
        })
        .collect();
    let unwatch = below.iter().find(|command| command.get_name() == "watch").cloned();
    below.extend(unwatch.map(|command| command.name("unwatch")));
    record.subcommands(below).disable_help_subcommand(true)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commands_of_the_recorder_are_completed_beside_a_program() {
        let command = with_commands(edleak_record::commands());
        let names: Vec<_> = command.get_subcommands().map(Command::get_name).collect();
        for name in ["sessions", "watch", "unwatch", "mark", "unpack", "doctor"] {
            assert!(names.contains(&name), "{names:?}");
        }
        command.debug_assert();
    }

    #[test]
    fn examples_and_exit_codes_become_sections() {
        let text = sections("Examples:\n  a -b \\\n.c\n\nExit code: 0");
        assert_eq!(text, ".SH EXAMPLES\n.nf\n  a \\-b \\e\n\\&.c\n.fi\n.SH EXIT STATUS\nExit code: 0\n");
    }

    #[test]
    fn line_break_beside_space_is_dropped() {
        assert_eq!(without_idle_breaks("a\n.br\n\n.br\nb\n.br\nc\n"), "a\n.sp\nb\n.br\nc\n");
    }
}
