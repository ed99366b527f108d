//! `evm run X.wasm`, by the command: output, folders, bounds.
#![cfg(feature = "wasm")]

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::OnceLock;

/// Prints its argument and what is in /data/in, writes /data/out; `loop` does not end, `hog` takes memory until there is none.
const PROGRAM: &str = r#"
static long call(long n, long a, long b, long c, long d, long e) {
    long r;
    register long r10 __asm__("r10") = d;
    register long r8 __asm__("r8") = e;
    register long r9 __asm__("r9") = 0;
    __asm__ volatile("syscall" : "=a"(r) : "0"(n), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9) : "rcx", "r11", "memory");
    return r;
}
static long length(const char *s) { long n = 0; while (s[n]) n++; return n; }
void run(long *sp) {
    const char *what = sp[0] > 1 ? (const char *)sp[2] : "none";
    if (what[0] == 'l') for (volatile long i = 0;; i++);
    if (what[0] == 'h') {
        long got = 0;
        for (;; got++) {
            char *p = (char *)call(9, 0, 1 << 20, 3, 0x22, -1);
            if ((unsigned long)p > -4096UL) break;
            for (int i = 0; i < 1 << 20; i += 4096) p[i] = 1;
        }
        call(231, got > 500 ? 1 : 7, 0, 0, 0, 0);
    }
    if (what[0] == 'r') {
        unsigned char b[8];
        char hex[17];
        call(318, (long)b, 8, 0, 0, 0);
        for (int i = 0; i < 16; i++) hex[i] = "0123456789abcdef"[b[i / 2] >> (i % 2 * 4) & 15];
        hex[16] = '\n';
        call(1, 1, (long)hex, 17, 0, 0);
        call(231, 0, 0, 0, 0, 0);
    }
    call(1, 1, (long)what, length(what), 0, 0);
    char buf[100];
    long in = call(2, (long)"/data/in", 0, 0, 0, 0);
    long n = call(0, in, (long)buf, 100, 0, 0);
    if (n > 0) call(1, 1, (long)buf, n, 0, 0);
    long out = call(2, (long)"/data/out", 01101, 0644, 0, 0);
    if (out < 0) call(231, 9, 0, 0, 0, 0);
    call(1, out, (long)"made\n", 5, 0, 0);
    call(231, 3, 0, 0, 0, 0);
}
__asm__(".globl _start\n_start: mov %rsp, %rdi\n and $-16, %rsp\n call run\n");
"#;

fn evm() -> Command {
    Command::new(env!("CARGO_BIN_EXE_evm"))
}

fn folder(name: &str) -> PathBuf {
    let f = Path::new(env!("CARGO_TARGET_TMPDIR")).join("module").join(name);
    let _ = std::fs::remove_dir_all(&f);
    std::fs::create_dir_all(&f).unwrap();
    f
}

/// The lifted program.
fn module() -> &'static Path {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let f = folder("made");
        std::fs::write(f.join("p.c"), PROGRAM).unwrap();
        let mut gcc = Command::new("gcc");
        gcc.args(["-O1", "-static", "-nostdlib", "-fno-stack-protector", "-o"]).args([f.join("p"), f.join("p.c")]);
        assert!(gcc.status().expect("apt-get install gcc").success());
        let out = evm().arg("lift").arg(f.join("p")).arg("-o").arg(f.join("p.wasm")).output().unwrap();
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        f.join("p.wasm")
    })
}

fn run(options: &[&str], args: &[&str]) -> Output {
    evm().arg("run").args(options).arg(module()).args(args).output().unwrap()
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[test]
fn output_status_and_folders() {
    let f = folder("data");
    std::fs::write(f.join("in"), " and in\n").unwrap();
    let dir = format!("{}::/data", f.display());
    let out = run(&["--dir", &dir], &["argument"]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(3), "argument and in\n".into()), "{}", text(&out.stderr));
    assert_eq!(std::fs::read(f.join("out")).unwrap(), b"made\n");
    let out = run(&["--dir", &format!("{dir}:ro")], &["argument"]);
    assert_eq!(out.status.code(), Some(9), "{}", text(&out.stderr));
    let out = run(&[], &["argument"]);
    assert_eq!((out.status.code(), text(&out.stdout)), (Some(9), "argument".into()));
}

#[test]
fn bounds() {
    for (limit, status) in [("wall=1s", 124), ("cpu=1s", 124), ("fuel=300000000", 124)] {
        let out = run(&["--limit", limit], &["loop"]);
        assert_eq!(out.status.code(), Some(status), "{limit}: {}", text(&out.stderr));
        let name = limit.split('=').next().unwrap();
        assert!(text(&out.stderr).contains(&format!("the limit {name:?} ended the job")), "{}", text(&out.stderr));
    }
    let out = run(&["--limit", "memory=512MiB"], &["hog"]);
    assert_eq!(out.status.code(), Some(7), "{}", text(&out.stderr));
}

#[test]
fn the_same_random_numbers() {
    let seeded = || text(&run(&["--seed", "5"], &["random"]).stdout);
    let first = seeded();
    assert_eq!((first.len(), &seeded()), (17, &first));
    assert_ne!(text(&run(&[], &["random"]).stdout), first);
}

#[test]
fn what_is_not_there_says_so() {
    for (option, word) in [("--trace", "--trace"), ("--limit=output=1MiB", "output"), ("--cpu=x86-64-v2", "--cpu")] {
        let out = run(&[option], &["x"]);
        assert_eq!(out.status.code(), Some(125));
        assert!(text(&out.stderr).contains(word), "{}", text(&out.stderr));
    }
    let f = folder("broken");
    let bytes = std::fs::read(module()).unwrap();
    std::fs::write(f.join("cut.wasm"), &bytes[..bytes.len() / 2]).unwrap();
    let out = evm().arg("run").arg(f.join("cut.wasm")).output().unwrap();
    assert_eq!(out.status.code(), Some(125));
    assert!(text(&out.stderr).contains("not a module that can be run"), "{}", text(&out.stderr));
}
