//! Attaches to real programs under load and detaches from them, many times. No program may crash, the output
//! of each program must not change, and a server must answer every request.
//!
//! Without EDLEAK_CYCLES, the tests attach to each program only a few times. A long run prints the median and
//! the greatest length of the stops of each program. This command starts a long run:
//! `EDLEAK_CYCLES=500 ./test.sh -p edleak-tests --test cycles -- --nocapture --test-threads 1`

use edleak_tests::cycles::{
    Attached, Load, attach_cycles, attach_cycles_with, cycles, short_recording, stops_in, tell_stops,
};
use edleak_tests::fed::Fed;
use edleak_tests::ledger_program::{LedgerProgram, cycles_under_load_are_exact, recorder};
use edleak_tests::programs::programs;
use edleak_tests::run::{copy_program, run, wait_for};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::io::{BufRead, BufReader};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

fn counts_are_exact(threads: u32, few: usize) {
    let cycles = cycles(few);
    let told = cycles_under_load_are_exact(LedgerProgram::start_plain(threads), cycles);
    let stops = told.iter().flat_map(|stderr| stops_in(stderr)).collect();
    tell_stops(&format!("ledger, {threads} threads"), cycles, stops);
}

#[test]
fn one_thread_that_allocates_is_counted_exactly() {
    counts_are_exact(1, 2);
}

#[test]
fn eight_threads_that_allocate_are_counted_exactly() {
    counts_are_exact(8, 8);
}

#[test]
fn sixty_four_threads_that_allocate_are_counted_exactly() {
    counts_are_exact(64, 2);
}

fn own_program_stays_sound(name: &str, program: &str, arguments: &[&str], few: usize) {
    let program = Fed::start(&programs().binary(program), arguments, "running");
    attach_cycles(name, program.pid(), cycles(few));
    assert_eq!(program.finish(), "sound\n");
}

#[test]
fn program_under_a_storm_of_signals_stays_sound() {
    own_program_stays_sound("timer signals", "attach_storm", &[], 8);
}

#[test]
fn program_that_forks_in_a_loop_stays_sound() {
    own_program_stays_sound("forks in a loop", "attach_storm", &["forks"], 8);
}

/// Starts the program anew for each attach, because the library must be loaded while threads end.
#[test]
fn program_whose_threads_end_all_the_time_stays_sound() {
    let (name, cycles) = ("threads that end", cycles(12));
    let mut attached = Attached::default();
    for _ in 0..cycles {
        let program = Fed::start(&programs().binary("attach_storm"), &["threads"], "running");
        attached.attach(name, &|trace| short_recording(program.pid(), trace));
        assert_eq!(program.finish(), "sound\n");
    }
    attached.tell(name);
}

/// A traced thread that has ended makes an execution wait until the tracer has waited for the thread. The
/// time limit of the attach is longer than that of the test, so the test fails if the program must wait for
/// the end of edleak-record.
#[test]
fn program_that_executes_itself_all_the_time_runs_on() {
    let dir = TempDir::new("cycles-execs");
    for _ in 0..cycles(12) {
        let program = Fed::start(&programs().binary("attach_execs"), &[], "running");
        let options = ["--duration", "60ms", "--attach-timeout", "600s"];
        let outcome = run(&mut recorder(program.pid(), &dir.join("trace.edl"), &options));
        let is_told = outcome.stderr.contains("it has executed another program (try again)");
        let is_empty = outcome.stderr.contains("nothing was recorded");
        assert!(outcome.code == 0 || is_told || is_empty, "{}", outcome.stderr);
        assert_eq!(program.finish(), "sound\n");
    }
}

#[test]
fn coroutines_with_stacks_of_their_own_stay_sound() {
    own_program_stays_sound("coroutines", "attach_coroutines", &[], 6);
}

/// A server that is stopped at the end of the test.
struct Server(Child);

impl Server {
    /// Starts a server that prints its port number.
    fn start_with_port(command: &mut Command) -> Server {
        Server::start(command.stdout(Stdio::piped()))
    }

    fn start(command: &mut Command) -> Server {
        let command = command.stdin(Stdio::null()).stderr(Stdio::null());
        Server(command.spawn().unwrap_or_else(|error| panic!("cannot start {command:?}: {error}")))
    }

    fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Reads a line of the server's output, which contains `port NUMBER`, and returns the number.
    fn port(&mut self) -> u16 {
        let mut line = String::new();
        let output = self.0.stdout.take().expect("piped, and read once");
        BufReader::new(output).read_line(&mut line).expect("text");
        let number = line.split("port ").nth(1).and_then(|rest| rest.split_whitespace().next());
        number.and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("no port in `{line}`"))
    }

    fn is_running(&mut self) -> bool {
        self.0.try_wait().expect("ours").is_none()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // SIGTERM makes a server end its worker processes, too. SAFETY: this process has not waited for the
        // child, so the ID still belongs to the child.
        unsafe { libc::kill(self.pid() as i32, libc::SIGTERM) };
        for _ in 0..400 {
            if self.0.try_wait().is_ok_and(|status| status.is_some()) {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn free_port() -> u16 {
    TcpListener::bind("127.0.0.1:0").expect("a free port").local_addr().expect("bound").port()
}

fn wait_for_port(port: u16) {
    wait_for("the server", || TcpStream::connect(("127.0.0.1", port)).is_ok());
}

/// The child processes of `pid` that have not ended.
fn children(pid: u32) -> Vec<u32> {
    let list = std::fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    list.split_whitespace().filter_map(|pid| pid.parse().ok()).collect()
}

fn web_server_answers(name: &str, mut server: Server, few: usize) {
    let load = Load::of_web_server(server.port());
    attach_cycles(name, server.pid(), cycles(few));
    load.finish();
    assert!(server.is_running());
}

#[test]
fn python_web_server_answers_every_request() {
    let dir = TempDir::new("cycles-python");
    std::fs::write(dir.join("page"), "hello").expect("writable");
    let mut command = Command::new("/usr/bin/python3");
    command.args(["-u", "-m", "http.server", "0", "--bind", "127.0.0.1"]).current_dir(dir.path());
    web_server_answers("python3", Server::start_with_port(&mut command), 8);
}

#[test]
fn node_web_server_answers_every_request() {
    const SCRIPT: &str = "
        const zlib = require('zlib');
        const server = require('http').createServer((request, answer) => {
            const packed = zlib.gzipSync(Buffer.alloc(20000, request.url));
            answer.end(zlib.gunzipSync(packed).length === 20000 ? 'hello' : 'wrong');
        });
        server.listen(0, '127.0.0.1', () => console.log('port', server.address().port));
    ";
    web_server_answers("node", Server::start_with_port(Command::new("node").args(["-e", SCRIPT])), 4);
}

#[test]
fn java_web_server_answers_every_request() {
    const SOURCE: &str = r#"
        import com.sun.net.httpserver.HttpServer;
        import java.net.InetSocketAddress;
        import java.util.concurrent.Executors;
        import java.util.zip.CRC32;
        import java.util.zip.Deflater;
        public class Web {
            public static void main(String[] arguments) throws Exception {
                HttpServer server = HttpServer.create(new InetSocketAddress("127.0.0.1", 0), 0);
                server.setExecutor(Executors.newFixedThreadPool(4));
                server.createContext("/page", exchange -> {
                    // A Java Deflater keeps its state outside the Java heap, in native memory.
                    Deflater deflater = new Deflater();
                    deflater.setInput(new byte[20000]);
                    deflater.finish();
                    boolean isRight = deflater.deflate(new byte[30000]) > 0;
                    deflater.end();
                    byte[] answer = (isRight ? "hello" : "wrong").getBytes();
                    exchange.sendResponseHeaders(200, answer.length);
                    exchange.getResponseBody().write(answer);
                    exchange.close();
                });
                server.start();
                System.out.println("port " + server.getAddress().getPort());
            }
        }
    "#;
    let dir = TempDir::new("cycles-java");
    let source = dir.join("Web.java");
    std::fs::write(&source, SOURCE).expect("writable");
    let mut command = Command::new("java");
    command.args(["-Xmx128m", "-XX:TieredStopAtLevel=1"]).arg(&source);
    web_server_answers("JVM", Server::start_with_port(&mut command), 3);
}

#[test]
fn nginx_answers_every_request() {
    let dir = TempDir::new("cycles-nginx");
    std::fs::write(dir.join("page"), "hello").expect("writable");
    let (port, path) = (free_port(), dir.path().display());
    // SAFETY: `geteuid` takes no arguments and cannot fail.
    let user = if unsafe { libc::geteuid() } == 0 { "user root;" } else { "" };
    let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
        .iter()
        .map(|name| format!("{name}_temp_path {path}/{name};"))
        .collect();
    let settings = format!(
        "{user} daemon off; worker_processes 1; pid {path}/pid; error_log {path}/errors;
         events {{ worker_connections 64; }}
         http {{ access_log off; {temporary} server {{ listen 127.0.0.1:{port}; root {path}; }} }}"
    );
    std::fs::write(dir.join("nginx.conf"), settings).expect("writable");
    let mut command = Command::new("/usr/sbin/nginx");
    command.arg("-p").arg(dir.path()).arg("-c").arg(dir.join("nginx.conf"));
    let mut server = Server::start(command.stdout(Stdio::null()));
    wait_for_port(port);
    wait_for("the worker", || children(server.pid()).len() == 1);
    let worker = children(server.pid());
    let load = Load::of_web_server(port);
    attach_cycles("nginx", worker[0], cycles(4));
    load.finish();
    // If a worker crashed, nginx would start another worker, which would have another process ID.
    assert_eq!(children(server.pid()), worker);
    assert!(server.is_running());
}

/// Attaches to redis, whose malloc is jemalloc in a shared library.
#[test]
fn redis_with_jemalloc_answers_a_benchmark() {
    let dir = TempDir::new("cycles-redis");
    let port = free_port();
    let mut command = Command::new("redis-server");
    command.args(["--port", &port.to_string(), "--save", "", "--bind", "127.0.0.1"]).current_dir(dir.path());
    let mut server = Server::start(command.stdout(Stdio::null()));
    wait_for_port(port);
    let load = Load::start(1, move || {
        let mut benchmark = Command::new("redis-benchmark");
        benchmark.args(["-p", &port.to_string(), "-n", "4000", "-c", "10", "-q", "-t", "set,get,lpush,hset"]);
        let outcome = run(&mut benchmark);
        assert!(outcome.code == 0 && !outcome.stdout.contains("rror"), "{outcome:?}");
    });
    attach_cycles("redis", server.pid(), cycles(6));
    load.finish();
    assert!(server.is_running());
}

/// Makes a command that runs a program of postgres as another user, because postgres refuses to run as root.
fn of_postgres(program: &Path) -> Command {
    // SAFETY: `geteuid` takes no arguments and cannot fail.
    if unsafe { libc::geteuid() } != 0 {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    command.args(["--reuid=postgres", "--regid=postgres", "--clear-groups", "--"]).arg(program);
    command
}

#[test]
fn postgres_backend_answers_pgbench() {
    let versions = std::fs::read_dir("/usr/lib/postgresql").expect("postgresql is installed");
    let bin: PathBuf = versions.flatten().next().expect("one version").path().join("bin");
    let dir = TempDir::new("cycles-postgres");
    let (data, port) = (dir.join("data"), free_port().to_string());
    // postgres may run as another user than this test, and postgres loads edleak's library. So the test
    // copies edleak-record and the library into a directory that every user may read.
    let own = dir.join("edleak");
    std::fs::create_dir(&own).expect("writable");
    for name in ["edleak-record", "libedleak_preload.so"] {
        copy_program(&tools().record.with_file_name(name), &own.join(name));
    }
    run(Command::new("chmod").args(["a+rwx"]).arg(dir.path()));
    let socket = dir.path().to_str().expect("text");
    let done = |command: &mut Command| {
        let outcome = run(command.current_dir(dir.path()));
        assert_eq!(outcome.code, 0, "{command:?}: {}", outcome.stderr);
    };
    done(of_postgres(&bin.join("initdb")).args(["--no-sync", "-A", "trust", "-U", "bench", "-D"]).arg(&data));
    let mut command = of_postgres(&bin.join("postgres"));
    command.arg("-D").arg(&data).args(["-h", "127.0.0.1", "-p", &port, "-k", socket, "-F"]);
    let mut server = Server::start(command.current_dir(dir.path()).stdout(Stdio::null()));
    let client = ["-h", "127.0.0.1", "-p", &port, "-U", "bench"];
    wait_for("postgres", || run(Command::new(bin.join("pg_isready")).args(client)).code == 0);
    done(Command::new(bin.join("pgbench")).args(client).args(["-i", "-q", "postgres"]));

    // pgbench runs until the test kills it, so that the backend lives longer than all recordings.
    let progress = dir.join("progress");
    let output = std::fs::File::create(&progress).expect("writable");
    let mut bench = Command::new(bin.join("pgbench"));
    bench.args(client).args(["-n", "-c", "2", "-T", "100000", "-P", "1", "postgres"]).stderr(output);
    let mut bench = Server(bench.stdout(Stdio::null()).spawn().expect("pgbench starts"));
    let backend = || {
        let title = |pid: &u32| std::fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        children(server.pid()).into_iter().find(|pid| title(pid).contains("bench postgres 127.0.0.1"))
    };
    // pgbench asks a first backend process of postgres only for the sizes of the tables. A later backend
    // process runs the transactions of pgbench.
    let text = || std::fs::read_to_string(&progress).expect("it is ours");
    wait_for("transactions", || text().contains(" tps"));
    let backend = backend().expect("it lives as long as pgbench");
    attach_cycles_with("postgres", cycles(4), &|trace| {
        let mut command = Command::new(own.join("edleak-record"));
        command.arg("-o").arg(trace).args(["--period", "20ms", "--duration", "60ms"]);
        command.args(["--attach-timeout", "60s", "--pid", &backend.to_string()]);
        command
    });
    let lines = text().lines().count();
    wait_for("pgbench after the recordings", || text().lines().count() > lines + 1);
    assert!(bench.is_running() && server.is_running(), "{}", text());
    assert!(!text().contains("abort") && !text().contains("rror"), "{}", text());
    let last = text().lines().last().unwrap_or_default().to_owned();
    assert!(last.contains(" tps") && !last.contains(" 0.0 tps") && last.contains(" 0 failed"), "{}", text());
}
