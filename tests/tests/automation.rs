//! Tests the files of samples/ that users copy: a systemd drop-in, a GitHub action, a GitLab job. A parser
//! reads each file, and the test runs the commands of the file as the service would run them.

use edleak_tests::programs::samples;
use edleak_tests::run::{Outcome, run};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::{repository, tools};
use serde_json::Value;
use std::path::Path;
use std::process::Command;

/// Reads a YAML file with PyYAML.
fn yaml(path: &str) -> Value {
    let script = "import json, sys, yaml; print(json.dumps(yaml.safe_load(open(sys.argv[1]))))";
    let read = run(Command::new("python3").args(["-c", script]).arg(repository().join(path)));
    assert_eq!(read.code, 0, "{path}: {}", read.stderr);
    serde_json::from_str(&read.stdout).expect("json.dumps writes JSON")
}

fn strings(list: &Value) -> Vec<String> {
    list.as_array().expect("a list").iter().map(|word| word.as_str().expect("a string").to_owned()).collect()
}

/// Runs a script in a shell as CI does: in its own directory, with the programs of edleak in PATH.
fn shell(dir: &Path, shell: &[&str], script: &str, variables: &[(&str, &str)]) -> Outcome {
    let bin = tools().record.parent().expect("a file has a directory");
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let mut command = Command::new(shell[0]);
    command.args(&shell[1..]).arg(script).current_dir(dir).env("PATH", path).envs(variables.iter().copied());
    run(&mut command)
}

/// The environment variables of a step. In these values, the value of each input of the action replaces the
/// placeholder of the input.
fn environment(step: &Value, inputs: &[(&str, &str)]) -> Vec<(String, String)> {
    let Some(environment) = step["env"].as_object() else { return Vec::new() };
    let text = |value: &Value| {
        inputs.iter().fold(value.as_str().expect("a string").to_owned(), |text, (name, value)| {
            text.replace(&format!("${{{{ inputs.{name} }}}}"), value)
        })
    };
    environment.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

/// Runs the steps of the action up to the upload, as GitHub's runner does. Returns the outcome of the step
/// `record`, the outcome of the step `gate`, and the outputs that the gate wrote.
fn run_action(dir: &Path, program: &str, tests: &str) -> (Outcome, Outcome, String) {
    let action = yaml("samples/ci/github-action/action.yml");
    assert_eq!(action["runs"]["using"], "composite");
    let inputs = [("program", program), ("tests", tests), ("wait", "true"), ("gate", "--min-class linear")];
    for (name, _) in inputs {
        assert!(action["inputs"][name]["description"].is_string(), "{name} is no input");
    }
    let steps = action["runs"]["steps"].as_array().expect("a list");
    let upload = steps.last().expect("the last step");
    assert_eq!(upload["with"]["path"], "edleak-report");
    assert_eq!(upload["if"], "always()", "what was found is kept also when the gate fails");
    let output = dir.join("output");
    std::fs::write(&output, "").expect("writable");
    let step = |id: &str| {
        let step = steps.iter().find(|step| step["id"] == id).expect("a step");
        assert_eq!(step["shell"], "bash");
        let mut variables = environment(step, &inputs);
        variables.push(("GITHUB_OUTPUT".into(), output.display().to_string()));
        let variables: Vec<_> =
            variables.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert!(variables.iter().all(|(_, value)| !value.contains("${{")), "{variables:?}");
        // GitHub's runner uses this command line for a step whose shell is `bash`.
        let bash = ["bash", "--noprofile", "--norc", "-eo", "pipefail", "-c"];
        shell(dir, &bash, step["run"].as_str().expect("a script"), &variables)
    };
    let (recorded, gated) = (step("record"), step("gate"));
    (recorded, gated, std::fs::read_to_string(&output).expect("written by the gate"))
}

#[test]
fn action_fails_on_a_leak_and_keeps_its_reports() {
    let dir = TempDir::new("action-leak");
    let leaker = samples().binary("leaker");
    let program = format!("{} --seconds 60", leaker.display());
    let (recorded, gated, output) = run_action(dir.path(), &program, "sleep 3");
    assert_eq!(recorded.code, 0, "{recorded:?}");
    assert_eq!((gated.code, output.as_str()), (1, "verdict=leaks\n"), "{gated:?}");
    assert!(gated.stdout.contains("::error"), "annotations are printed: {}", gated.stdout);
    for report in ["trace.edl", "leaks.txt", "leaks.html", "leaks.sarif"] {
        let bytes = std::fs::metadata(dir.join("edleak-report").join(report)).map_or(0, |file| file.len());
        assert!(bytes > 100, "{report} has {bytes} bytes");
    }
}

#[test]
fn action_fails_when_the_tests_fail() {
    let dir = TempDir::new("action-tests");
    let leaker = samples().binary("leaker");
    let (recorded, ..) =
        run_action(dir.path(), &format!("{} --seconds 60", leaker.display()), "sleep 0.5; exit 7");
    assert_eq!(recorded.code, 7, "{recorded:?}");
}

#[test]
fn gitlab_job_fails_on_a_leak_and_keeps_its_reports() {
    let file = yaml("samples/ci/gitlab/edleak.gitlab-ci.yml");
    let job = &file[".edleak"];
    assert_eq!(job["artifacts"]["when"], "always");
    let dir = TempDir::new("gitlab");
    let program = format!("{} --seconds 60", samples().binary("leaker").display());
    let variables = [
        ("EDLEAK_PROGRAM", program.as_str()),
        ("EDLEAK_TESTS", "sleep 3"),
        ("EDLEAK_WAIT", "true"),
        ("EDLEAK_GATE", "--min-class linear"),
    ];
    for (name, _) in variables {
        assert!(job["variables"][name].is_string(), "{name} is no variable of the job");
    }
    // GitLab's runner puts the lines of a job's `script` into one script, and runs it in a shell that stops
    // at the first failure.
    let script = format!("set -eo pipefail\n{}\n", strings(&job["script"]).join("\n"));
    let ended = shell(dir.path(), &["bash", "-c"], &script, &variables);
    assert_eq!(ended.code, 1, "{ended:?}");
    for path in strings(&job["artifacts"]["paths"]) {
        assert!(dir.join(&path).is_dir(), "{path} is kept");
    }
    let junit = job["artifacts"]["reports"]["junit"].as_str().expect("a path");
    assert!(dir.join(junit).is_file() && dir.join("edleak-report/leaks.html").is_file());
}

/// systemd must read the drop-in without a warning. A shell with the variables of the drop-in must record
/// only the service.
#[test]
fn systemd_drop_in_is_read_and_records_the_service() {
    let dir = TempDir::new("systemd");
    let drop_in =
        std::fs::read_to_string(repository().join("samples/systemd/edleak.conf")).expect("a sample");
    let units = dir.join("units/server.service.d");
    std::fs::create_dir_all(&units).expect("writable");
    std::fs::write(units.join("edleak.conf"), &drop_in).expect("writable");
    let unit = dir.join("units/server.service");
    std::fs::write(&unit, "[Service]\nExecStart=/bin/true\n").expect("writable");
    let path = format!("{}:", dir.join("units").display());
    let verified = run(Command::new("systemd-analyze")
        .args(["verify", "--man=no"])
        .arg(&unit)
        .env("SYSTEMD_UNIT_PATH", path));
    let complaints: Vec<_> = verified.stderr.lines().filter(|line| line.contains("edleak")).collect();
    assert!(verified.code == 0 && complaints.is_empty(), "{verified:?}");

    let server = dir.join("server");
    std::fs::copy(samples().binary("c_leaker"), &server).expect("writable");
    let mut command = Command::new("sh");
    command.arg("-c").arg(format!("mkdir -p {0}/made; {0}/server >/dev/null", dir.path().display()));
    for line in drop_in.lines().filter_map(|line| line.strip_prefix("Environment=")) {
        let (name, value) = line.split_once('=').expect("an assignment");
        let value = value
            .replace("%p", "server")
            .replace("/var/log/edleak", &dir.path().display().to_string())
            .replace("/usr/lib/edleak/libedleak_preload.so", &tools().preload.display().to_string());
        command.env(name, value);
    }
    let started = run(&mut command);
    assert_eq!(started.code, 0, "{started:?}");
    let trace = dir.join("server.edl");
    edleak_tests::run::wait_for("the trace of the service", || {
        trace.is_file() && run(Command::new(&tools().analyze).arg("verify").arg(&trace)).code == 0
    });
}
