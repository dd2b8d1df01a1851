//! Starts a program that runs until its standard input ends.

use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

/// A program that prints a line when it is ready. The program ends when its standard input ends.
#[derive(Debug)]
pub struct Fed {
    child: Child,
    input: Option<ChildStdin>,
    output: BufReader<ChildStdout>,
}

impl Fed {
    /// Starts the program, and waits until the program prints the line `ready`.
    pub fn start(program: &Path, arguments: &[&str], ready: &str) -> Fed {
        let mut command = Command::new(program);
        let mut child =
            command.args(arguments).stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it starts");
        let input = child.stdin.take();
        let mut output = BufReader::new(child.stdout.take().expect("piped"));
        let mut line = String::new();
        output.read_line(&mut line).expect("it tells that it is ready");
        assert_eq!(line.trim(), ready);
        Fed { child, input, output }
    }

    /// The process ID of the program.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// The standard input of the program.
    pub fn input(&mut self) -> &mut ChildStdin {
        self.input.as_mut().expect("open until the end")
    }

    /// Sends a line to the program, and returns the next line of the program's output.
    pub fn ask(&mut self, line: &str) -> String {
        writeln!(self.input(), "{line}").expect("it reads");
        let mut answer = String::new();
        self.output.read_line(&mut answer).expect("text");
        answer.trim_end().to_owned()
    }

    /// Closes the program's standard input, and returns the rest of the program's output.
    pub fn finish(mut self) -> String {
        drop(self.input.take());
        let mut rest = String::new();
        self.output.read_to_string(&mut rest).expect("text");
        let status = self.child.wait().expect("ours");
        assert!(status.success(), "{status}: {rest}");
        rest
    }
}

impl Drop for Fed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
