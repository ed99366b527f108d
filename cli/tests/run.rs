//! Programs of this machine under `evm run`, each on every engine, against the machine itself: standard output and exit
//! status must be equal.

use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const ENGINES: [&str; 3] = ["interp", "cranelift", "jit"];

/// Run to the end, or kill it after two minutes.
fn run(mut c: Command) -> Output {
    let mut child = c
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap_or_else(|e| panic!("{c:?}: {e}"));
    let deadline = Instant::now() + Duration::from_secs(120);
    while child.try_wait().expect("wait").is_none() {
        if Instant::now() > deadline {
            child.kill().expect("kill");
            panic!("{c:?} did not end");
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    child.wait_with_output().expect("output")
}

fn evm(engine: &str, options: &[&str], program: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_evm"));
    c.args(["run", "--engine", engine]).args(options).args(program);
    // Translations of tests are kept apart; that most runs of them use some is a test of these.
    c.env("EVM_CACHE_DIR", Path::new(env!("CARGO_TARGET_TMPDIR")).join("translations"));
    run(c)
}

fn same_as_native(program: &[&str]) {
    let mut native = Command::new(program[0]);
    native.args(&program[1..]).env_clear().env("LANG", "C.UTF-8").env("PATH", "/usr/bin:/bin");
    let want = run(native);
    for engine in ENGINES {
        let got = evm(engine, &[], program);
        assert_eq!(
            (got.status.code(), String::from_utf8_lossy(&got.stdout)),
            (want.status.code(), String::from_utf8_lossy(&want.stdout)),
            "{program:?} on {engine}; stderr: {}",
            String::from_utf8_lossy(&got.stderr)
        );
    }
}

/// Compile C with gcc; needs `apt-get install gcc libc6-dev`.
fn compile(name: &str, source: &str, flags: &[&str]) -> String {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (src, exe) = (dir.join(format!("{name}.c")), dir.join(name));
    std::fs::write(&src, source).expect("write source");
    let out = Command::new("gcc")
        .args(flags)
        .args(["-O2", "-o"])
        .arg(&exe)
        .arg(&src)
        .arg("-lm")
        .output()
        .expect("gcc: apt-get install gcc libc6-dev");
    assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
    exe.to_string_lossy().into_owned()
}

const ARITHMETIC: &str = r#"
#include <stdio.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
static int cmp(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(int argc, char **argv) {
    int v[1000]; unsigned x = 12345;
    for (int i = 0; i < 1000; i++) { x = x * 1103515245u + 12345; v[i] = x >> 8 & 0xffff; }
    qsort(v, 1000, sizeof *v, cmp);
    double s = 0; long double l = 1;
    for (int i = 1; i < 1000; i++) { s += sin(i) * sqrt(v[i]) / exp(i % 7); l = l * 1.0001L + 1 / (long double)i; }
    printf("%d %d %.17g %.20Lg %s\n", v[0], v[999], s, l, strrchr("a/b/c", '/'));
    return argc + 40;
}
"#;

#[test]
fn compiled_programs() {
    for (name, flags) in [("static", &["-static"][..]), ("dynamic", &[]), ("static-pie", &["-static-pie"])] {
        let exe = compile(&format!("arithmetic-{name}"), ARITHMETIC, flags);
        same_as_native(&[&exe, "one", "two"]);
    }
}

#[test]
fn programs_of_the_machine() {
    for program in [
        &["/bin/true"][..],
        &["/bin/false"],
        &["/bin/echo", "a", "b  c"],
        &["/usr/bin/printf", "%s-%05d\\n", "x", "42"],
        &["/usr/bin/seq", "1", "3", "3000"],
        &["/usr/bin/basename", "/a/b/c.txt", ".txt"],
        &["/usr/bin/expr", "12345", "*", "6789"],
    ] {
        same_as_native(program);
    }
}

#[test]
fn a_folder_to_read_and_write() {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("folder");
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).expect("folder");
    std::fs::write(dir.join("in"), "banana\napple\ncherry\n").expect("in");
    let mount = format!("{}::/data", dir.display());
    for engine in ENGINES {
        let got = evm(engine, &["--dir", &mount, "--cwd", "/data"], &["/usr/bin/sort", "-o", "out", "in"]);
        assert_eq!(got.status.code(), Some(0), "{engine}: {}", String::from_utf8_lossy(&got.stderr));
        assert_eq!(std::fs::read_to_string(dir.join("out")).expect("out"), "apple\nbanana\ncherry\n");
        std::fs::remove_file(dir.join("out")).expect("remove");
    }
}

#[test]
fn nothing_of_the_host_without_asking() {
    for engine in ENGINES {
        for path in ["/etc/shadow", "/root/.profile", "/proc/1/environ", env!("CARGO_MANIFEST_DIR")] {
            let got = evm(engine, &[], &["/bin/cat", path]);
            assert_ne!(got.status.code(), Some(0), "{engine} {path}");
            assert!(got.stdout.is_empty(), "{engine} {path}");
        }
        let got = evm(engine, &[], &["/bin/uname", "-n"]);
        assert_eq!(String::from_utf8_lossy(&got.stdout), "evm\n");
        let got = evm(engine, &[], &["/usr/bin/env"]);
        assert!(!String::from_utf8_lossy(&got.stdout).contains("CARGO"), "the environment leaks");
    }
}

#[test]
fn own_failures_have_their_own_status() {
    let text = Path::new(env!("CARGO_TARGET_TMPDIR")).join("text");
    std::fs::write(&text, "no program\n").expect("write");
    std::fs::set_permissions(&text, std::os::unix::fs::PermissionsExt::from_mode(0o755)).expect("chmod");
    for (program, status) in [("/no/such/program", 127), (&*text.to_string_lossy(), 126)] {
        let got = evm("jit", &[], &[program]);
        assert_eq!(got.status.code(), Some(status), "{program}");
        assert!(!got.stderr.is_empty());
    }
}

#[test]
fn limits_end_a_job() {
    let spin = compile(
        "spin",
        "#include <signal.h>\nint main(){sigset_t s;sigfillset(&s);sigprocmask(0,&s,0);for(;;);}",
        &["-static"],
    );
    for engine in ENGINES {
        let started = Instant::now();
        let got = evm(engine, &["--limit", "wall=1s"], &[&spin]);
        assert_eq!(got.status.code(), Some(124), "{engine}: {}", String::from_utf8_lossy(&got.stderr));
        assert!(started.elapsed() < Duration::from_secs(60), "{engine}");
    }
}

/// Copied code is interrupted by a signal, which may come to guest threads whatever was blocked before.
#[test]
fn limits_end_a_job_where_all_signals_are_blocked() {
    let spin = compile("spin-blocked", "int main(){for(;;);}", &["-static"]);
    let mut c = Command::new("env");
    c.args(["--block-signal", env!("CARGO_BIN_EXE_evm"), "run", "--limit", "wall=1s", &spin]);
    let got = run(c);
    let says = String::from_utf8_lossy(&got.stderr);
    assert_eq!(got.status.code(), Some(124), "{says}");
    // It was not ended by force, which says so.
    assert!(says.contains("\"wall\"") && says.lines().count() == 1, "{says}");
}

/// Two functions of which one takes nine tenths of the time.
const BUSY: &str = r#"
__attribute__((noinline)) unsigned little(unsigned x) { for (int i = 0; i < 1000; i++) x = x * 1103515245u + 12345; return x; }
__attribute__((noinline)) unsigned much(unsigned x) { for (int i = 0; i < 9000; i++) x = x * 1103515245u + 12345; return x; }
int main(void) { unsigned x = 1; for (int i = 0; i < 40000; i++) x = little(much(x)); return x == 7; }
"#;

#[test]
fn a_profile_tells_where_time_goes() {
    let exe = compile("busy", BUSY, &["-static"]);
    let graph = format!("{exe}.svg");
    for engine in ["auto", "jit", "quick"] {
        let out = evm(engine, &["--profile", &graph], &[&exe]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!(out.status.code(), Some(0), "{said}");
        let share = |name: &str| -> f64 {
            let line =
                said.lines().find(|l| l.ends_with(name)).unwrap_or_else(|| panic!("{engine}: no {name}: {said}"));
            line.trim().split('%').next().and_then(|n| n.parse().ok()).unwrap_or_else(|| panic!("{line}"))
        };
        // A region of Cranelift's is all of this program.
        let known = engine != "jit";
        assert!(!known || share("  much (busy)") > 4.0 * share("  little (busy)"), "{engine}: {said}");
        let svg = std::fs::read_to_string(&graph).expect("graph");
        assert!(svg.starts_with("<svg ") && svg.ends_with("</svg>\n") && svg.contains("(busy)"), "{engine}: {svg}");
    }
}
