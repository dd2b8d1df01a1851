//! Measures whole programs that run for about one second each. The rows show the wall time and the peak
//! memory, divided by those of the untraced run.

use crate::bench::Bench;
use crate::contender::Contender;
use crate::measure::{self, Cost, HIDDEN, median};
use crate::table::{Row, number, times};
use crate::tools::{self, Run};
use anyhow::{Context, Result, bail};
use std::fmt::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// Number of rounds if the ratio to the untraced run is close to 1. To measure a ratio close to 1 needs many
/// rounds, because on a shared machine the time of a single run may vary by 10 %.
const CLOSE_ROUNDS: usize = 15;
const ROUNDS: usize = 5;
const PORT: &str = "17391";

/// One program and its workload.
struct Work {
    name: &'static str,
    program: PathBuf,
    arguments: Vec<String>,
    environment: &'static [(&'static str, &'static str)],
}

const PYTHON: &str = "
import json
class Node:
    def __init__(self, name, value): self.name, self.value, self.children = name, value, []
def build(depth, width):
    node = Node('n%d' % depth, {'depth': depth, 'text': 'x' * depth})
    if depth: node.children = [build(depth - 1, width) for _ in range(width)]
    return node
def flat(node): return {'name': node.name, 'value': node.value, 'children': [flat(c) for c in node.children]}
for _ in range(12):
    text = json.dumps(flat(build(5, 7)))
    print(len(json.loads(text)['children']), len(sorted(text.split(','))))
";
const PERL: &str = "
my %h; for my $r (1..4) { for my $i (1..250000) { push @{$h{'key' . $i % 20000}}, join('-', $i, $r); }
my @s = sort { $a cmp $b } map { scalar(@$_) . ':' . $_->[0] } values %h; print scalar(@s), \"\\n\"; \
%h = (); }
";
const SQL: &str = "
create table t(id integer primary key, name text, n int);
with recursive c(i) as (select 1 union all select i + 1 from c where i < 300000)
insert into t select i, 'name-' || (i * 7919 % 1000), i % 100 from c;
create index by_name on t(name);
select name, count(*), group_concat(n) from t group by name order by 2 desc limit 5;
select count(*) from t a join t b on a.name = b.name and a.n = b.n where a.id < 30000;
";
const JQ: &str =
    "[.[] | {id, tags: [.tags[] | ascii_upcase], sum: (.n * 2 + .id)}] | group_by(.sum % 10) | map(length)";

fn works(bench: &Bench) -> Result<Vec<Work>> {
    let mut works = Vec::new();
    let mut add = |name, program: Option<PathBuf>, arguments: Vec<String>, environment| {
        works.extend(program.map(|program| Work { name, program, arguments, environment }));
    };
    let input = bench.dir.join("input.json");
    let mut json = String::from("[");
    for i in 0..60_000 {
        let comma = if i == 0 { "" } else { "," };
        let _ = write!(
            json,
            "{comma}{{\"id\":{i},\"n\":{},\"tags\":[\"a{i}\",\"b\",\"tag-{}\"]}}",
            i * 3,
            i % 97
        );
    }
    std::fs::write(&input, json + "]")?;
    let words = |words: &[&str]| words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>();
    add("jq", tools::installed("jq"), words(&["-c", JQ, &input.to_string_lossy()]), &[]);
    // The program in PATH may be a script that starts the real program.
    let python = Command::new("python3").args(["-c", "import sys; print(sys.executable)"]).read().ok();
    let python = python.map(|path| PathBuf::from(path.trim()));
    add("python3 (PYTHONMALLOC=malloc)", python, words(&["-c", PYTHON]), &[("PYTHONMALLOC", "malloc")]);
    add("perl", tools::installed("perl"), words(&["-e", PERL]), &[]);
    add("sqlite3", tools::installed("sqlite3"), words(&[":memory:", SQL]), &[]);
    // The program `c++` only starts the real compiler, so this code finds the real compiler.
    let compiler = Command::new("c++").arg("-print-prog-name=cc1plus").read().ok();
    let compiler = compiler.map(|path| PathBuf::from(path.trim())).filter(|path| path.is_file());
    let source = tools::source("templates.cpp").to_string_lossy().into_owned();
    let assembly = bench.dir.join("templates.s").to_string_lossy().into_owned();
    add(
        "C++ compile (cc1plus)",
        compiler,
        words(&[
            "-quiet",
            "-imultiarch",
            "x86_64-linux-gnu",
            "-D_GNU_SOURCE",
            "-std=c++17",
            &source,
            "-o",
            &assembly,
        ]),
        &[],
    );
    let rust = bench.dir.join("words");
    let has_rust = tools::compile(&tools::source("words.rs"), &rust, &["-O"]).is_ok();
    add("a Rust program", has_rust.then_some(rust), Vec::new(), &[]);
    Ok(works)
}

/// The results for one program: the time and the peak memory of contenders, divided by those of the
/// untraced run.
struct Ratios {
    name: &'static str,
    untraced_s: f64,
    wall: Vec<(Contender, f64)>,
    peak: f64,
}

/// Measures one program with each contender. `has_memray`: memray can run the program.
fn ratios(
    bench: &Bench,
    name: &'static str,
    has_memray: bool,
    one: impl Fn(Contender) -> Result<Cost>,
) -> Result<Ratios> {
    let mut peaks: Vec<(Contender, f64)> = Vec::new();
    let mut measured = |contender| {
        let cost = one(contender).with_context(|| format!("{name} under {}", contender.name()))?;
        let peak = cost.peak_bytes.with_context(|| format!("{name}: {HIDDEN}"))?;
        peaks.push((contender, peak as f64));
        Ok(cost.wall.as_secs_f64())
    };
    let close = measure::rounds(CLOSE_ROUNDS, &[Contender::Untraced, Contender::Edleak], &mut measured)?;
    let untraced_s = median(&close[0]);
    let mut wall =
        vec![(Contender::Untraced, 1.0), (Contender::Edleak, measure::ratio(&close[1], &close[0]))];
    let mut peers = vec![Contender::Untraced, Contender::Forward];
    if bench.starter.has(Contender::JemallocProfiling) {
        peers.extend([Contender::Jemalloc, Contender::JemallocProfiling]);
    }
    let figures = measure::rounds(ROUNDS, &peers, &mut measured)?;
    let of = |contender: Contender| peers.iter().position(|&peer| peer == contender).map(|at| &figures[at]);
    for &peer in &peers[1..] {
        let (own, baseline) = (of(peer).context("measured")?, of(peer.baseline()).context("measured")?);
        wall.push((peer, measure::ratio(own, baseline)));
    }
    let mut slow = vec![Contender::EdleakWatchAll];
    slow.extend([Contender::Heaptrack].iter().filter(|&&peer| bench.starter.has(peer)));
    slow.extend(has_memray.then_some(Contender::Memray));
    for contender in slow {
        match measured(contender) {
            Ok(seconds) => wall.push((contender, seconds / untraced_s)),
            // If another tool fails on this program, continue, because the figures of the remaining tools
            // are still useful.
            Err(error) if contender != Contender::EdleakWatchAll => eprintln!("{error:#}"),
            Err(error) => return Err(error),
        }
    }
    let peak = |contender: Contender| {
        let values: Vec<f64> =
            peaks.iter().filter(|(who, _)| *who == contender).map(|(_, bytes)| *bytes).collect();
        median(&values)
    };
    Ok(Ratios { name, untraced_s, wall, peak: peak(Contender::Edleak) / peak(Contender::Untraced) })
}

/// Whether the program is a Python interpreter for which memray is installed.
fn has_memray(program: &Path) -> bool {
    let is_python = program.file_name().is_some_and(|name| name.to_string_lossy().starts_with("python"));
    is_python && Command::new(program).args(["-c", "import memray"]).read().is_ok()
}

/// Measures whole programs, and adds the rows to the table.
pub(crate) fn rows(bench: &mut Bench) -> Result<()> {
    let mut all = Vec::new();
    for work in works(bench)? {
        all.push(ratios(bench, work.name, has_memray(&work.program), |contender| {
            let mut command = bench.starter.command(contender, &work.program).context("installed")?;
            measure::cost(command.args(&work.arguments).envs(work.environment.iter().copied()))
        })?);
        report(bench, all.last().context("just added")?);
    }
    if tools::installed("redis-server").is_some() && tools::installed("redis-benchmark").is_some() {
        let measured =
            ratios(bench, "redis-server under redis-benchmark", false, |contender| redis(bench, contender))?;
        report(bench, &measured);
        all.push(measured);
    }
    let of = |contender: Contender| -> Vec<f64> {
        all.iter()
            .flat_map(|ratios| ratios.wall.iter())
            .filter(|(who, _)| *who == contender)
            .map(|(_, ratio)| *ratio)
            .collect()
    };
    let worst = |values: &[f64]| values.iter().copied().fold(0.0, f64::max);
    let wall = of(Contender::Edleak);
    let peaks: Vec<f64> = all.iter().map(|ratios| ratios.peak).collect();
    for (measure, most, value) in [
        ("wall time of whole programs, × untraced: median", 1.05, median(&wall)),
        ("wall time of whole programs, × untraced: worst", 1.10, worst(&wall)),
        ("peak memory of whole programs, × untraced: worst", 1.20, worst(&peaks)),
    ] {
        bench.add(Row::at_most(measure, most, value, ""));
    }
    let stacks = of(Contender::EdleakWatchAll);
    let mut row =
        Row::plain("wall time with every stack recorded, × untraced: median", times(median(&stacks)));
    let theirs = of(Contender::Heaptrack);
    if !theirs.is_empty() {
        row.is_kept = Some(median(&stacks) <= median(&theirs));
        row.promise = "heaptrack's".to_owned();
        row = row.beside("heaptrack", times(median(&theirs)));
    }
    bench.add(row);
    Ok(())
}

fn report(bench: &mut Bench, ratios: &Ratios) {
    let mut row = Row::plain(ratios.name, String::new());
    for (contender, ratio) in &ratios.wall {
        match contender {
            Contender::Edleak => row.edleak = format!("{}, RSS {}", times(*ratio), times(ratios.peak)),
            Contender::Untraced => row = row.beside("untraced", format!("{} s", number(ratios.untraced_s))),
            Contender::Jemalloc => {}
            other => row = row.beside(other.name(), times(*ratio)),
        }
    }
    bench.add(row);
}

/// Ends a server after the measurement, even if the measurement failed.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        // If the server has already ended, `kill` returns an error, which does not matter.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The time that redis-benchmark needs to send its requests to a server, and the peak memory of the server.
fn redis(bench: &Bench, contender: Contender) -> Result<Cost> {
    let client = |arguments: &[&str]| Command::new("redis-cli").args(["-p", PORT]).args(arguments).read();
    let server = bench
        .starter
        .command(contender, "redis-server")
        .context("installed")?
        .args(["--port", PORT, "--save", "", "--appendonly", "no"])
        .current_dir(bench.dir.path())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context("cannot start redis-server")?;
    let mut server = Server(server);
    let deadline = Instant::now() + Duration::from_secs(20);
    while client(&["ping"]).is_err() {
        if Instant::now() > deadline {
            bail!("redis-server does not answer");
        }
        std::thread::sleep(Duration::from_millis(20));
    }
    let start = Instant::now();
    Command::new("redis-benchmark")
        .args(["-p", PORT, "-n", "120000", "-r", "50000", "-P", "16", "-q", "-t", "set,lpush,hset,sadd,zadd"])
        .run()?;
    let wall = start.elapsed();
    let info = client(&["info", "server"])?;
    let pid = info.lines().find_map(|line| line.strip_prefix("process_id:")).context("no process_id")?;
    let peak_bytes = peak_of(Path::new("/proc").join(pid.trim()).join("status"))?;
    // redis does not answer the command `shutdown`; it only closes the connection.
    let _ = client(&["shutdown", "nosave"]);
    server.0.wait()?;
    Ok(Cost { wall, peak_bytes: Some(peak_bytes) })
}

fn peak_of(status: PathBuf) -> Result<u64> {
    let text = std::fs::read_to_string(status)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).context("no VmHWM")?;
    Ok(line.trim().trim_end_matches(" kB").parse::<u64>()? * 1024)
}
