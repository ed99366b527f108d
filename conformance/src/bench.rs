//! Times of whole programs and of kernels: natively, under `evm`, under qemu-user, in turn in one run.
//!
//! Native runs use the guest root's own loader and libraries, without a namespace, so that nothing but the program is timed;
//! glibc may use all that the CPU has. qemu-user comes from Debian's package, unpacked below `target/`.
//!
//! Kernels are functions of `benches/kernels/kernels.c`, compiled by the guest root's gcc at -O2. What the program
//! takes without a kernel is subtracted, so that a kernel's figure is that of its code alone, its translation included.

use crate::apps::Place;
use crate::exec::{Native, Run, WorkDir};
use crate::{inputs, root};
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

struct Case {
    name: &'static str,
    /// Input files by generator, or with their text behind `=`.
    make: &'static [(&'static str, &'static str)],
    /// A line for the guest root's shell that prepares more of them.
    prepare: &'static str,
    program: &'static str,
    args: &'static [&'static str],
    stdin: Option<&'static str>,
}

impl Case {
    const fn of(name: &'static str, program: &'static str, args: &'static [&'static str]) -> Case {
        Case { name, make: &[], prepare: "", program, args, stdin: None }
    }
    const fn with(mut self, make: &'static [(&'static str, &'static str)], prepare: &'static str) -> Case {
        self.make = make;
        self.prepare = prepare;
        self
    }
    const fn reading(mut self, file: &'static str) -> Case {
        self.stdin = Some(file);
        self
    }
    /// Whether it is about start-up, so that it does not belong into the mean.
    fn is_start(&self) -> bool {
        self.name.ends_with("(start)")
    }
}

const CASES: &[Case] = &[
    Case::of("true (start)", "/bin/true", &[]),
    Case::of("python3 -c pass (start)", "/usr/bin/python3.11", &["-c", "pass"]),
    Case::of("hmmsearch", "/usr/bin/hmmsearch", &["--cpu", "0", "model.hmm", "proteins.fa"]).with(
        &[("family.sto", "family 20"), ("proteins.fa", "proteins 12000")],
        "hmmbuild model.hmm family.sto > /dev/null",
    ),
    Case::of("phmmer", "/usr/bin/phmmer", &["--cpu", "0", "query.fa", "proteins.fa"])
        .with(&[("query.fa", "query 4"), ("proteins.fa", "proteins 5000")], ""),
    Case::of("blastp", "/usr/bin/blastp", &["-query", "query.fa", "-db", "db", "-outfmt", "6"]).with(
        &[("query.fa", "query 6"), ("proteins.fa", "proteins 6000")],
        "makeblastdb -in proteins.fa -dbtype prot -out db > /dev/null",
    ),
    Case::of("blastn", "/usr/bin/blastn", &["-task", "blastn", "-query", "query.fa", "-db", "db", "-outfmt", "6"])
        .with(
            &[("query.fa", "dna-query 60"), ("genome.fa", "dna 3000")],
            "makeblastdb -in genome.fa -dbtype nucl -out db > /dev/null",
        ),
    Case::of("sqlite3", "/usr/bin/sqlite3", &[":memory:"]).with(&[("in.sql", "sql 250000")], "").reading("in.sql"),
    Case::of("python3", "/usr/bin/python3.11", &["work.py"]).with(&[("work.py", PYTHON)], ""),
    Case::of("perl", "/usr/bin/perl", &["work.pl"]).with(&[("work.pl", PERL), ("text", "text 4000000")], ""),
    Case::of("lua", "/usr/bin/lua5.4", &["work.lua"]).with(&[("work.lua", LUA)], ""),
    Case::of("bzip2", "/usr/bin/bzip2", &["-c", "text"]).with(&[("text", "text 12000000")], ""),
    Case::of("xz", "/usr/bin/xz", &["-3", "-T1", "-c", "text"]).with(&[("text", "text 8000000")], ""),
    Case::of("zstd", "/usr/bin/zstd", &["-9", "-q", "-c", "text"]).with(&[("text", "text 24000000")], ""),
    Case::of("cc1", "/usr/lib/gcc/x86_64-linux-gnu/12/cc1", &["-quiet", "-O2", "-fpreprocessed", "work.i", "-o", "-"])
        .with(&[("work.c", concat!("=", include_str!("../../benches/kernels/kernels.c")))], "gcc -E -o work.i work.c"),
    Case::of("sha256sum", "/usr/bin/sha256sum", &["bytes"]).with(&[("bytes", "bytes 300000000")], ""),
    Case::of("sort", "/usr/bin/sort", &["--parallel=1", "words"]).with(&[("words", "words 1000000")], ""),
    Case::of("gawk", "/usr/bin/gawk", &["-f", "work.awk", "text"])
        .with(&[("work.awk", AWK), ("text", "text 12000000")], ""),
    Case::of("go", "/work/work", &[]).with(
        &[("work.go", GO)],
        "CGO_ENABLED=0 GOCACHE=/tmp/go GOPATH=/tmp/gopath GO111MODULE=off go build -o work work.go",
    ),
    Case::of("node", "/usr/bin/node", &["work.js"]).with(&[("work.js", NODE)], ""),
];

const LUA: &str = "=local function fib(n) if n < 2 then return n end return fib(n-1) + fib(n-2) end print(fib(33))
local t = {} for i = 1, 400000 do t[i] = (i * 7919) % 1000003 end table.sort(t) print(t[1000])
local words = {} for w in string.gmatch(string.rep('the quick brown fox jumps over the lazy dog ', 40000), '%a+') do
  words[w] = (words[w] or 0) + 1 end
local s = {} for k, v in pairs(words) do s[#s + 1] = k .. '=' .. v end table.sort(s) print(table.concat(s, ' '))
local x = 0.0 for i = 1, 8000000 do x = x + 1.0 / i end print(x)
";
const PYTHON: &str = "=import json, re
def fib(n): return n if n < 2 else fib(n - 1) + fib(n - 2)
print(fib(27))
class Node:
    def __init__(self, key): self.key, self.left, self.right = key, None, None
def insert(root, key):
    while True:
        if key < root.key:
            if root.left is None: root.left = Node(key); return
            root = root.left
        else:
            if root.right is None: root.right = Node(key); return
            root = root.right
root, x = Node(500), 1
for i in range(30000):
    x = x * 1103515245 + 12345 & 0x7fffffff
    insert(root, x % 100003)
def walk(n): return 0 if n is None else 1 + max(walk(n.left), walk(n.right))
print(walk(root))
words = {}
for w in re.findall(r'[a-z]+', 'the quick brown fox jumps over the lazy dog ' * 20000): words[w] = words.get(w, 0) + 1
print(sorted(words.items()))
data = [{'id': i, 'name': 'n%d' % i, 'v': i / 7} for i in range(30000)]
text = json.dumps(data)
print(len(text), sum(d['id'] for d in json.loads(text)))
print(sum(i * i % 7 for i in range(2000000)))
";
const PERL: &str = "=open F, 'text'; my (%n, $l);
while (<F>) { for (split) { $n{$_}++ } $l += length; s/([aeiou])/uc $1/ge; $v += tr/A-Z// }
print \"$l $v\\n\"; print \"$_ $n{$_}\\n\" for sort keys %n;
sub fib { my $n = shift; $n < 2 ? $n : fib($n - 1) + fib($n - 2) } print fib(23), \"\\n\";
my $x = 0; for my $i (1 .. 3000000) { $x += $i % 7 } print \"$x\\n\";
";
const AWK: &str = "={ for (i = 1; i <= NF; i++) n[$i]++; l += length($0); if (/stone.*river/) r++ }
END { print l, r; for (k in n) if (n[k] % 2) s += n[k]; print s }
";
const NODE: &str = "=function fib(n) { return n < 2 ? n : fib(n - 1) + fib(n - 2) }
console.log(fib(35));
const m = new Map(); let x = 1;
for (let i = 0; i < 2000000; i++) { x = (Math.imul(x, 1103515245) + 12345) & 0x7fffffff; m.set(x % 5003, (m.get(x % 5003) || 0) + 1) }
console.log(m.size);
const a = Float64Array.from({length: 500000}, (_, i) => (i * 7919) % 1000003).sort(); console.log(a[1000]);
const s = JSON.stringify(Array.from({length: 100000}, (_, i) => ({id: i, name: 'n' + i}))); console.log(s.length, JSON.parse(s).length);
";
const GO: &str = "=package main
import (\"fmt\"; \"sort\"; \"strings\")
func fib(n int) int { if n < 2 { return n }; return fib(n-1) + fib(n-2) }
func main() {
	fmt.Println(fib(38))
	m := map[string]int{}
	for i := 0; i < 3000000; i++ { m[fmt.Sprintf(\"k%d\", i%5000)]++ }
	keys := []string{}
	for k := range m { keys = append(keys, k) }
	sort.Strings(keys)
	fmt.Println(len(strings.Join(keys, \",\")))
	v := make([]int, 2000000)
	for i := range v { v[i] = i * 7919 % 1000003 }
	sort.Ints(v)
	fmt.Println(v[1000])
}
";

/// Seconds and bytes of one way to run a case.
#[derive(Clone, Copy, Debug, serde::Serialize, serde::Deserialize)]
pub struct Figures {
    /// Wall time.
    pub wall: f64,
    /// CPU time, user and system, of all processes and threads.
    pub cpu: f64,
    /// The most memory resident, in MiB.
    pub peak: f64,
}

/// What one case took: the fastest run of each way.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Times {
    /// The case.
    pub name: String,
    /// Whether it is about start-up: not in the mean.
    pub start: bool,
    /// Native.
    pub native: Figures,
    /// Under `evm run`.
    pub evm: Option<Figures>,
    /// Under qemu-user.
    pub qemu: Option<Figures>,
    /// What went wrong.
    pub errors: Vec<String>,
}

/// A whole bench, as kept in JSON.
#[derive(Clone, Debug, serde::Serialize, serde::Deserialize)]
pub struct Report {
    /// The machine.
    pub machine: String,
    /// Runs of each.
    pub rounds: u32,
    /// The cases.
    pub cases: Vec<Times>,
    /// Why others could not be timed.
    pub left_out: Vec<String>,
}

/// What to time and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// Runs of each.
    pub rounds: u32,
    /// Under qemu-user too.
    pub qemu: bool,
    /// Cases whose names begin so; all if none.
    pub names: Vec<String>,
    /// Further options of `evm run`.
    pub evm: Vec<String>,
}

impl Options {
    fn wants(&self, name: &str) -> bool {
        self.names.is_empty() || self.names.iter().any(|n| name.starts_with(n.as_str()))
    }
}

/// qemu-user as a static program, unpacked from Debian's package.
fn qemu() -> Result<PathBuf> {
    let folder = crate::target().join("peers");
    let file = folder.join("usr/bin/qemu-x86_64-static");
    if !file.exists() {
        fs::create_dir_all(&folder)?;
        root::fetch_into("qemu-user-static", &folder)?;
    }
    Ok(file)
}

/// The ways to run a program of the guest root in a folder.
struct Ways<'a> {
    place: &'a Place,
    qemu: Option<PathBuf>,
    libraries: String,
    options: &'a [String],
}

impl<'a> Ways<'a> {
    fn new(place: &'a Place, options: &'a Options) -> Result<Ways<'a>> {
        let root = &place.guest.root;
        let libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib", "usr/lib/ncbi-blast+"]
            .map(|d| root.join(d).display().to_string())
            .join(":");
        Ok(Ways { place, qemu: options.qemu.then(qemu).transpose()?, libraries, options: &options.evm })
    }
    /// The program's file on the host: of the folder if it is below /work, else of the root.
    fn file(&self, program: &str, work: &Path) -> PathBuf {
        match program.strip_prefix("/work/") {
            Some(p) => work.join(p),
            None => {
                let p = self.place.guest.root.join(&program[1..]);
                fs::canonicalize(&p).unwrap_or(p)
            }
        }
    }
    fn finish(&self, mut c: Command, args: &[&str], work: &Path, stdin: Option<&str>) -> Run {
        c.args(args).current_dir(work).env_clear().env("PATH", "/usr/bin:/bin").env("LANG", "C.UTF-8");
        c.env("PYTHONHOME", self.place.guest.root.join("usr")).env("EVM_CACHE_DIR", crate::translations());
        Run::new(c).stdin(stdin.map(|s| work.join(s)))
    }
    fn native(&self, program: &str, work: &Path) -> Command {
        let file = self.file(program, work);
        // A static program has no loader.
        if fs::read(&file).is_ok_and(|b| !b.windows(11).take(4096).any(|w| w == b"/lib64/ld-l")) {
            return Command::new(file);
        }
        let mut c = Command::new(self.place.guest.root.join("lib64/ld-linux-x86-64.so.2"));
        c.args(["--library-path", &self.libraries]).arg(file);
        c
    }
    fn evm(&self, program: &str, work: &Path) -> Command {
        let mut c = Command::new(&self.place.evm);
        c.arg("run").args(self.options).arg("--cpus").arg("2").arg("--sysroot").arg(&self.place.guest.root);
        c.arg("--dir").arg(format!("{}::/work", work.display())).arg(program);
        c
    }
    fn qemu(&self, program: &str, work: &Path) -> Option<Command> {
        let mut c = Command::new(self.qemu.as_ref()?);
        c.arg("-L").arg(&self.place.guest.root).arg(self.file(program, work));
        Some(c)
    }

    fn time(&self, case: &Case, work: &Path, rounds: u32) -> Result<Times> {
        let limit = Duration::from_secs(600);
        let lines =
            |b: &[u8]| b.split(|c| *c == b'\n').filter(|l| !l.starts_with(b"#")).collect::<Vec<_>>().join(&b'\n');
        let mut native = None;
        let (mut evm, mut qemu) = (None, None);
        let mut errors = Vec::new();
        let mut want: Option<Vec<u8>> = None;
        for _ in 0..rounds {
            let out = self.finish(self.native(case.program, work), case.args, work, case.stdin).run(limit)?;
            ensure!(out.status == 0, "{} natively: {}", case.name, out.describe());
            keep(&mut native, &out);
            let want = want.get_or_insert_with(|| lines(&out.stdout));
            let peers = [
                ("evm", Some(self.evm(case.program, work)), &mut evm),
                ("qemu", self.qemu(case.program, work), &mut qemu),
            ];
            for (who, command, best) in peers {
                let Some(command) = command else { continue };
                let out = self.finish(command, case.args, work, case.stdin).run(limit)?;
                if out.status != 0 {
                    errors.push(format!("{who}: {}", out.describe()));
                } else if lines(&out.stdout) != *want {
                    errors.push(format!("{who}: another output"));
                } else {
                    keep(best, &out);
                }
            }
        }
        errors.dedup();
        let native = native.context("no rounds")?;
        Ok(Times { name: case.name.into(), start: case.is_start(), native, evm, qemu, errors })
    }
}

fn keep(best: &mut Option<Figures>, out: &crate::exec::Outcome) {
    let new =
        Figures { wall: out.wall.as_secs_f64(), cpu: out.cpu.as_secs_f64(), peak: out.resident as f64 / 1048576.0 };
    *best = Some(match best {
        None => new,
        Some(b) => Figures { wall: b.wall.min(new.wall), cpu: b.cpu.min(new.cpu), peak: b.peak.max(new.peak) },
    });
}

fn make_inputs(place: &Place, case: &Case, work: &WorkDir) -> Result<()> {
    for (file, line) in case.make {
        let bytes = match line.strip_prefix('=') {
            Some(text) => text.as_bytes().to_vec(),
            None => inputs::generate(line)?,
        };
        fs::write(work.path.join(file), bytes)?;
    }
    work.give_to_guest()?;
    if !case.prepare.is_empty() {
        let out = Native { work: Some(&work.path), ..Native::new(&place.guest) }
            .command(&["/bin/sh", "-c", case.prepare])
            .run(Duration::from_secs(300))?;
        ensure!(out.status == 0, "{}: {}", case.name, out.describe());
    }
    Ok(())
}

/// Time the applications; `each` is shown every case as it is done.
pub fn applications(place: &Place, options: &Options, each: &mut dyn FnMut(&Times)) -> Result<Report> {
    let ways = Ways::new(place, options)?;
    let (mut cases, mut left_out) = (Vec::new(), Vec::new());
    for case in CASES.iter().filter(|c| options.wants(c.name)) {
        let work = WorkDir::new("bench")?;
        make_inputs(place, case, &work)?;
        match ways.time(case, &work.path, options.rounds) {
            Ok(t) => {
                each(&t);
                cases.push(t);
            }
            // What this machine does not run natively cannot be compared; the others can.
            Err(e) => left_out.push(format!("{e:#}")),
        }
    }
    ensure!(!cases.is_empty(), "nothing could be timed: {}", left_out.join("; "));
    Ok(Report { machine: machine(), rounds: options.rounds, cases, left_out })
}

/// Time the kernels.
pub fn kernels(place: &Place, options: &Options, each: &mut dyn FnMut(&Times)) -> Result<Report> {
    let text = include_str!("../../benches/kernels/kernels.c");
    root::compile(&place.guest, "kernels", "kernels.c", "-O2", text)?;
    let ways = Ways::new(place, options)?;
    let work = WorkDir::new("kernels")?;
    fs::copy(place.guest.programs.join("kernels"), work.path.join("kernels"))?;
    let names = Command::new(work.path.join("kernels")).output().context("the list of kernels")?;
    let names = String::from_utf8(names.stdout)?;
    let run = |name: &str, rounds: u32| -> Result<Times> {
        // The tables of cases are made of constants; these few strings live as long as the program.
        let arg: &'static str = Box::leak(name.to_owned().into_boxed_str());
        let case = Case::of(arg, "/work/kernels", Box::leak(Box::new([arg])));
        ways.time(&case, &work.path, rounds)
    };
    let start = run("empty", options.rounds.max(3))?;
    let mut cases = Vec::new();
    for name in names.lines().filter(|n| *n != "empty" && options.wants(n)) {
        let mut t = run(name, options.rounds)?;
        let minus = |f: &mut Figures, s: &Figures| {
            f.wall = (f.wall - s.wall).max(1e-4);
            f.cpu = (f.cpu - s.cpu).max(1e-4);
        };
        minus(&mut t.native, &start.native);
        for (f, s) in [(&mut t.evm, &start.evm), (&mut t.qemu, &start.qemu)] {
            if let (Some(f), Some(s)) = (f, s) {
                minus(f, s);
            }
        }
        each(&t);
        cases.push(t);
    }
    Ok(Report { machine: machine(), rounds: options.rounds, cases, left_out: vec![] })
}

fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu
        .lines()
        .find_map(|l| l.strip_prefix("model name")?.split_once(": ").map(|x| x.1))
        .unwrap_or("an unknown CPU");
    format!("{model}, {} CPUs", std::thread::available_parallelism().map_or(1, usize::from))
}
