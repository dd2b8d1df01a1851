//! Runs programs of a Linux distribution twice: without edleak, and recorded by edleak. The recorded run must
//! have the same output, exit status and files as the run without edleak.
//!
//! By default the test runs only the commands marked `*`; with `EDLEAK_DISTRO=all` it runs all commands. The
//! test skips and counts a program that is not installed. (tests/setup.sh installs programs that Debian's
//! base system lacks.) The list has no programs that print their environment (`env`) or the present state
//! (`ps`, `df`), and no programs that edleak refuses to record.

use edleak_tests::record::Recorder;
use edleak_tests::run::{Outcome, run_with_input};
use edleak_tests::temp::TempDir;
use edleak_tests::tools::tools;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Mutex;

/// The commands of the test, one per line. A `*` before a command means that the test runs it by default.
/// `< FILE` names the file for standard input. Each command runs in a directory with the files of `fixture`.
const COMMANDS: &str = "
* sort -n words.txt
  sort --parallel=4 -S 1M -r words.txt
  sort -u -k2 words.txt
  uniq -c words.txt
* wc words.txt
  cut -d- -f2 words.txt
  tr a-z A-Z < words.txt
  od -c words.txt
  base64 words.txt
  base32 words.txt
* sha256sum words.txt data.json
  b2sum words.txt
  md5sum words.txt
  cksum words.txt
  sum words.txt
  tac words.txt
  rev words.txt
  nl words.txt
  fmt -w 40 words.txt
  fold -w 13 words.txt
  pr -t -3 words.txt
  paste words.txt words.txt
  join words.txt words.txt
  comm words.txt words.txt
  expand words.txt
  unexpand -a words.txt
  ptx words.txt
  tsort pairs.txt
  factor 1234567890 987654321987654321 18446744073709551557
  seq 1 3 20000
  shuf --random-source=data.json -n 100 words.txt
  split -n 7 words.txt part-
  csplit -s words.txt 100 200
  head -n 50 words.txt
  tail -n 50 words.txt
  dd if=words.txt of=copy bs=777 status=none
* cp -r tree copy
  mv tree moved
  ln -s words.txt link
  mkdir -p a/b/c/d
  rm -r tree
  touch -d 2020-02-02 stamped
  truncate -s 12345 words.txt
  install -m 600 words.txt installed
  chmod -R g-w tree
* ls -1RaS tree
  dir tree
  stat -c %n-%s-%a tree/one words.txt
  du -ab tree
  readlink -f tree/one
  realpath tree/deep/three
  date -u -d @1234567890 +%c
  expr 17 * 19
  numfmt --to=iec 123456 99999999
  printf %08.3f\\n 3.14159 2.71828
  test 3 -gt 2
  false
  id
  uname -m
  nproc
  logname
  tee copy < words.txt
  timeout 10 sort words.txt
  nice -n 5 sort words.txt
  stdbuf -oL uniq words.txt
* grep -n 7.*3 words.txt
  grep -E (12|45)+-x words.txt
  grep -P \\d(?=5) words.txt
  grep -rl word tree words.txt
  fgrep 99 words.txt
* find tree -type f -name t*
  xargs -n 5 echo < words.txt
* sed -e s/word/WORD/g;10,20d words.txt
  sed -n $=;$p words.txt
* mawk -f script.awk words.txt
  gawk -f script.awk words.txt
* diff -u words.txt data.json
  diff3 words.txt data.json words.txt
  cmp words.txt data.json
  sdiff words.txt words.txt
  patch -p0 -i change.patch
* tar --mtime=@0 --sort=name --owner=0 --group=0 -cf out.tar tree words.txt
  tar --mtime=@0 --sort=name --owner=0 --group=0 -czf out.tgz tree words.txt
  tar -tvf missing.tar
* gzip -9nk words.txt
  gzip -dc missing.gz
* bzip2 -k words.txt
* xz -k -T2 words.txt
  xz -k -9 words.txt
* zstd -q -k -T2 words.txt
  zstd -q -19 -k words.txt
  cpio --quiet -o --reproducible < pairs.txt
  ar t missing.a
  file words.txt data.json script.py missing /bin/sh
  bc -l calc.bc
  dc calc.dc
* m4 macros.m4
* make -s all
  make -n all
* perl script.pl
  perl -c script.pl
  perl -MData::Dumper -MPOSIX -MEncode -e print(Dumper([map{$_*2}1..9]))
  pod2text /usr/share/perl/5.36.0/pod/perlpod.pod
* python3 script.py
  python3 -m json.tool data.json
  python3 -c import(this)
  python3 -m compileall -q --invalidation-mode unchecked-hash script.py
  python3 -m zipfile -c out.zip tree
  python3 -X dev script.py
  lua5.4 script.lua
  lua script.lua
* luajit jit.lua
* tclsh script.tcl
* node script.js
  node --version
  node -p process.versions.modules
* java -Xshare:off -version
  java -Xint -version
  java -XX:+UseSerialGC -Xmx64m -version
  javac Hello.java
* bash script.sh
  bash --posix script.sh
  dash script.sh
  sh -n script.sh
* sqlite3 out.db < schema.sql
  sqlite3 -json :memory: < schema.sql
* jq -S . data.json
  jq -r .[].name data.json
* openssl dgst -sha512 words.txt
  openssl prime 18446744073709551557
  openssl enc -aes-128-cbc -K 00112233445566778899aabbccddeeff \
    -iv 00000000000000000000000000000000 -in words.txt
  openssl list -digest-algorithms
* git hash-object words.txt data.json
  git init -q repo
  git diff --no-index words.txt data.json
* redis-server --version
  redis-cli --version
  redis-benchmark --version
  psql --version
  /usr/lib/postgresql/15/bin/postgres --describe-config
  /usr/lib/postgresql/15/bin/postgres -C max_connections
  /usr/lib/postgresql/15/bin/pg_config
  /usr/sbin/nginx -v
* gcc -O2 -S -o out.s program.c
  gcc -E program.c
  gcc -c -g -O3 -o out.o program.c
  gcc -o program program.c
* g++ -std=c++17 -O2 -S -o out.s program.cpp
  g++ -c -g -o out.o program.cpp
  clang -O2 -S -o out.s program.c
  clang++ -std=c++17 -fsyntax-only program.cpp
  cpp -P program.c
  as --version
* objdump -d /bin/true
  readelf -aW /bin/true
  nm -D /bin/bash
  strings -n 8 /bin/bash
  size /bin/bash /bin/true
  strip -o stripped /bin/true
  objcopy --only-keep-debug /bin/true debug
  c++filt _ZNSt6vectorIiSaIiEE9push_backERKi
  ld --version
  addr2line -e /bin/true 0x1000
  gdb -nx -batch -ex p(1+1) -ex info(functions)
  locale -a
  locale
  iconv -f utf-8 -t utf-16 words.txt
  getent passwd
  getent services http
  getconf ARG_MAX
  localedef --help
  dpkg-query -W bash coreutils
  dpkg -L bash
  dpkg-deb --version
  apt-cache policy bash
  apt-config dump
  debconf-show bash
  ssh -V
  ssh-keygen -l -f missing.pub
  curl --version
  curl -s file:///etc/hostname
  wget --version
  rsync -a --version
  gpg --version
  less -F words.txt
  more words.txt
  column -t words.txt
  hexdump -C data.json
  xxd data.json
  look word words.txt
  cal 2 2020
  getopt -o ab: -- -a -b x
  flock lock true
  setsid -w true
  mountpoint /
  lscpu --version
  hostname
  infocmp xterm
  tput -T xterm cols
  tic -V
  pgrep -V
  pkg-config --list-all
  msgfmt --version
  xmllint --version
  xsltproc --version
  cmake --version
  ninja --version
  tmux -V
  vim --version
  nano --version
  man --version
  groff -Tascii -ms words.txt
  troff --version
  tbl words.txt
  svn --version
  hg --version
  php -r print(1);
  ruby -e p(1)
  ocaml -version
  ghc --version
  R --version
  strace -V
  tcc -v
  valac --version
  mariadb --version
  memcached -V
";

/// The names and contents of the files that the commands read. Names and contents are the same in every run.
fn fixture() -> BTreeMap<&'static str, String> {
    let words: String = (0..3000).map(|i| format!("word-{}-x {}\n", i * 7919 % 3001, i % 17)).collect();
    let objects: Vec<_> = (0..300)
        .map(|i| format!("{{\"id\":{i},\"name\":\"n{}\",\"tags\":[{},{}]}}", i * 31 % 97, i % 3, i % 5))
        .collect();
    let pairs: String = (1..200).map(|i| format!("n{i} n{}\n", i + 1)).collect();
    BTreeMap::from([
        ("words.txt", words),
        ("data.json", format!("[{}]\n", objects.join(",\n"))),
        ("pairs.txt", pairs),
        ("tree/one", "1\n".repeat(100)),
        ("tree/two", "word\n".repeat(10)),
        ("tree/deep/three", "3".to_owned()),
        ("change.patch", "--- words.txt\n+++ words.txt\n@@ -1,1 +1,1 @@\n-word-0-x 0\n+changed\n".to_owned()),
        (
            "script.awk",
            "{ n[$2]++; s = s $1 } END { for (i = 0; i < 17; i++) print i, n[i]; \
             print length(s) }\n"
                .to_owned(),
        ),
        (
            "script.sh",
            "i=0; while [ $i -lt 300 ]; do i=$((i+1)); x=\"$x$i,\"; done; echo ${#x}; \
             (echo a; echo b) | sort -r; exit 3\n"
                .to_owned(),
        ),
        (
            "script.pl",
            "use strict; my %h; open(my $f, '<', 'words.txt') or die; \
             while (<$f>) { push @{$h{$1}}, $. if /(\\d)-x/ } \
             print map { \"$_: @{$h{$_}}[0..5]\\n\" } sort keys %h; my $p = fork // die; \
             if (!$p) { exit 2 } waitpid $p, 0; print $? >> 8, \"\\n\";\n"
                .to_owned(),
        ),
        (
            "script.py",
            "import collections, json, re, threading, zlib, hashlib, decimal\n\
             words = open('words.txt').read()\n\
             print(collections.Counter(re.findall(r'\\d', words)).most_common())\n\
             print(len(json.dumps(json.load(open('data.json')))), \
             zlib.crc32(zlib.compress(words.encode())))\nr = []\n\
             t = [threading.Thread(target=lambda i=i: r.append(\
             hashlib.sha256(words.encode() * i).hexdigest())) for i in range(8)]\n\
             [x.start() for x in t]; [x.join() for x in t]\n\
             print(sorted(r), decimal.Decimal(2).sqrt())\ntry:\n    'x' * (1 << 62)\n\
             except MemoryError:\n    print('no memory')\n"
                .to_owned(),
        ),
        (
            "jit.lua",
            "local t = {} for i = 1, 300000 do t[i % 5000 + 1] = {i, ('x'):rep(i % 50)} end \
             print(#t, t[17][1])\n"
                .to_owned(),
        ),
        (
            "script.lua",
            "local t = {} for i = 1, 5000 do t[#t + 1] = ('x'):rep(i % 50) end \
             print(#table.concat(t)) print(pcall(string.rep, 'x', 1 << 62))\n"
                .to_owned(),
        ),
        (
            "script.tcl",
            "set l {}; for {set i 0} {$i < 3000} {incr i} {lappend l [expr {$i * $i % 97}]}; \
             puts [lsort -integer -unique $l]; puts [string length [join $l ,]]\n"
                .to_owned(),
        ),
        (
            "script.js",
            "const m = new Map(); for (let i = 0; i < 20000; i++) \
             m.set('k' + i % 700, Buffer.alloc(i % 300)); \
             console.log(m.size, [...m.values()].reduce((a, b) => a + b.length, 0)); \
             require('zlib').gzip('x'.repeat(1e5), (e, b) => console.log(b.length)); \
             process.exitCode = 4;\n"
                .to_owned(),
        ),
        ("calc.bc", "scale=50; 4*a(1); 2^300; quit\n".to_owned()),
        ("calc.dc", "40k 2v p 2 200^ p\n".to_owned()),
        ("macros.m4", "define(`loop', `ifelse($1, 0, , `x$1 loop(decr($1))')')loop(200)\n".to_owned()),
        ("Makefile", "all: a b c\n%: \n\t@echo making $@; echo $@ > out.$@\n".to_owned()),
        (
            "schema.sql",
            "create table t(a integer primary key, b text); \
             with recursive n(i) as (select 1 union all select i+1 from n where i<3000) \
             insert into t select i, printf('%x', i*i) from n; create index x on t(b); \
             select b, count(*) from t group by substr(b,1,1); \
             select max(a), sum(length(b)) from t; drop table missing;\n"
                .to_owned(),
        ),
        (
            "program.c",
            "#include <stdio.h>\n#include <stdlib.h>\n#include <string.h>\n\
             struct n { struct n *l, *r; int v; };\n\
             int sum(struct n *t) { return t ? t->v + sum(t->l) + sum(t->r) : 0; }\n\
             int main(int c, char **v) { char b[100]; snprintf(b, sizeof b, \"%d %s\", c, v[0]); \
             puts(b); return sum(0); }\n"
                .to_owned(),
        ),
        (
            "program.cpp",
            "#include <map>\n#include <string>\n#include <vector>\n#include <algorithm>\n\
             int main(int c, char **v) { std::map<std::string, std::vector<int>> m; \
             for (int i = 0; i < c; i++) m[v[i]].push_back(i); \
             for (auto &e : m) std::sort(e.second.begin(), e.second.end()); \
             return m.size(); }\n"
                .to_owned(),
        ),
        (
            "Hello.java",
            "public class Hello { public static void main(String[] a) { \
             System.out.println(\"hello\"); } }\n"
                .to_owned(),
        ),
    ])
}

fn fill(dir: &Path) {
    for (name, content) in fixture() {
        let path = dir.join(name);
        std::fs::create_dir_all(path.parent().expect("a file has a directory")).expect("writable");
        std::fs::write(&path, content).expect("writable");
        let file = std::fs::File::options().append(true).open(&path).expect("just written");
        // Some programs print the times of files. So the test gives all files the same time in every run.
        let time = std::time::UNIX_EPOCH + std::time::Duration::from_secs(1_234_567_890);
        file.set_modified(time).expect("it is ours");
    }
}

/// Every file below `dir`, with its content.
fn files_in(dir: &Path) -> BTreeMap<PathBuf, Vec<u8>> {
    let mut files = BTreeMap::new();
    let mut directories = vec![dir.to_path_buf()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(&directory).expect("it is ours") {
            let entry = entry.expect("it is ours");
            let path = entry.path();
            let relative = path.strip_prefix(dir).expect("it lies below").to_path_buf();
            if entry.file_type().expect("it is ours").is_dir() {
                directories.push(path);
                files.insert(relative, Vec::new());
            } else {
                files.insert(relative, std::fs::read(&path).unwrap_or_default());
            }
        }
    }
    files
}

fn is_installed(program: &str) -> bool {
    if program.contains('/') {
        return Path::new(program).is_file();
    }
    let path = std::env::var("PATH").expect("tests run with a PATH");
    std::env::split_paths(&path).any(|dir| dir.join(program).is_file())
}

/// The effects of one run that a user sees: the exit status, the output, and the files in the working
/// directory after the run.
type Effects = (Outcome, BTreeMap<PathBuf, Vec<u8>>);

fn effects(work: &Path, input: Option<&str>, command: &mut Command) -> Effects {
    // The working directory has the same path in every run, because some programs print this path or write it
    // into files.
    let _ = std::fs::remove_dir_all(work);
    fill(work);
    let input =
        input.map(|name| std::fs::read(work.join(name)).expect("a file of the fixture")).unwrap_or_default();
    command.current_dir(work).env("TZ", "UTC").env("LC_ALL", "C").env("HOME", work).env_remove("LD_PRELOAD");
    let mut outcome = run_with_input(command, &input);
    outcome.stderr = outcome.stderr_of_target();
    (outcome, files_in(work))
}

/// Runs one command twice without edleak and once recorded. Returns `Ok(false)` if the two runs without
/// edleak already differ.
fn compare(line: &str) -> Result<bool, String> {
    let (command, input) = match line.split_once(" < ") {
        Some((command, input)) => (command, Some(input.trim())),
        None => (line, None),
    };
    let mut words = command.split_whitespace().map(|word| word.replace("\\\\", "\\"));
    let program = words.next().expect("a line names a program");
    let arguments: Vec<_> = words.collect();
    let dir = TempDir::new("distro");
    let work = dir.join("work");
    let plain = || effects(&work, input, Command::new(&program).args(&arguments));
    let first = plain();
    if plain() != first {
        return Ok(false);
    }
    let mut command = Recorder::new("distro").command(&dir.join("trace.edl"), &program, &arguments);
    let recorded = effects(&work, input, &mut command);
    if recorded != first {
        let differing: Vec<_> = first
            .1
            .keys()
            .chain(recorded.1.keys())
            .filter(|k| first.1.get(*k) != recorded.1.get(*k))
            .collect();
        return Err(format!(
            "{line}\n  plain: {:?}\n  recorded: {:?}\n  files that differ: {differing:?}",
            first.0, recorded.0
        ));
    }
    Ok(true)
}

#[test]
fn programs_do_the_same_recorded() {
    let all = std::env::var("EDLEAK_DISTRO").is_ok_and(|value| value == "all");
    tools();
    let selected: Vec<_> = COMMANDS
        .lines()
        .filter(|line| !line.trim().is_empty())
        .filter(|line| all || line.starts_with('*'))
        .map(|line| line.trim_start_matches('*').trim())
        .collect();
    let (installed, missing): (Vec<&str>, Vec<&str>) = selected
        .into_iter()
        .partition(|line| is_installed(line.split_whitespace().next().expect("a line names a program")));
    let todo = Mutex::new(installed.iter());
    let results = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(2, usize::from) {
            scope.spawn(|| {
                loop {
                    let Some(&line) = todo.lock().expect("no thread panics with it").next() else { break };
                    let result = compare(line);
                    results.lock().expect("no thread panics with it").push((line, result));
                }
            });
        }
    });
    let results = results.into_inner().expect("no thread panics with it");
    let equal = results.iter().filter(|(_, result)| *result == Ok(true)).count();
    let unsteady: Vec<_> = results.iter().filter(|(_, r)| *r == Ok(false)).map(|(line, _)| line).collect();
    let failures: Vec<_> = results.iter().filter_map(|(_, result)| result.as_ref().err().cloned()).collect();
    eprintln!(
        "{equal} commands the same plain and recorded, {} different, \
         {} differ from run to run {unsteady:?}, {} not installed",
        failures.len(),
        unsteady.len(),
        missing.len()
    );
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    assert!(equal >= 20, "only {equal} commands could be compared");
}
