//! Programs that were lifted ahead of time.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A folder with a program of C that was compiled and lifted.
struct Lifted {
    folder: PathBuf,
    program: PathBuf,
    file: PathBuf,
}

const SOURCE: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
static int one(int x) { return x + 1; }
static int two(int x) { return x * 2; }
static int (*const table[])(int) = { one, two };
static const char *name(int x) {
    switch (x) { case 0: return "nil"; case 1: return "a"; case 2: return "b"; case 3: return "c"; case 4: return "d";
                 case 5: return "e"; case 6: return "f"; default: return "?"; }
}
static int cmp(const void *a, const void *b) { return *(const int *)a - *(const int *)b; }
int main(int argc, char **argv) {
    int v[50]; unsigned x = argc;
    for (int i = 0; i < 50; i++) { x = x * 1103515245u + 12345; v[i] = x >> 16 & 0xff; }
    qsort(v, 50, sizeof *v, cmp);
    long sum = 0;
    for (int i = 0; i < 20000; i++) sum += table[i % 2](v[i % 50]);
    for (int i = 0; i < 8; i++) printf("%s ", name(i));
    printf("%d %ld %s\n", v[25], sum, argc > 1 ? argv[1] : "-");
    return 3;
}
"#;

fn evm(folder: &Path, args: &[&str]) -> Output {
    let mut c = Command::new(env!("CARGO_BIN_EXE_evm"));
    c.args(args).env("EVM_CACHE_DIR", folder.join("kept")).env_remove("EVM_CACHE").output().expect("evm")
}

impl Lifted {
    fn new(name: &str, flags: &[&str], options: &[&str]) -> Lifted {
        let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("lift-{name}"));
        let _ = std::fs::remove_dir_all(&folder);
        std::fs::create_dir_all(&folder).expect("folder");
        let (source, program, file) = (folder.join("p.c"), folder.join("p"), folder.join("p.evm"));
        std::fs::write(&source, SOURCE).expect("source");
        let gcc = Command::new("gcc").args(flags).arg("-O2").arg("-o").arg(&program).arg(&source).status();
        assert!(gcc.expect("gcc: apt-get install gcc libc6-dev").success());
        let l = Lifted { folder, program, file };
        let out = l.evm(&[&["lift", "--json", "-o", l.file()], options, &[l.program()]].concat());
        assert!(out.status.success(), "{}", String::from_utf8_lossy(&out.stderr));
        let report: serde_json::Value = serde_json::from_slice(&out.stdout).expect("JSON");
        let sum =
            |name| -> u64 { report["images"].as_array().into_iter().flatten().filter_map(|i| i[name].as_u64()).sum() };
        assert!(sum("found_bytes") * 10 > sum("code_bytes") * 7, "{report}");
        l
    }
    fn evm(&self, args: &[&str]) -> Output {
        evm(&self.folder, args)
    }
    fn file(&self) -> &str {
        self.file.to_str().expect("UTF-8")
    }
    fn program(&self) -> &str {
        self.program.to_str().expect("UTF-8")
    }
    /// Run the lifted program; gives the statistics, if there are any.
    fn check(&self, options: &[&str]) -> serde_json::Value {
        let want = Command::new(&self.program).arg("x y").output().expect("native");
        let out = self.evm(&[&["run", "--cache=off", "--stats=json"], options, &[self.file(), "x y"]].concat());
        let said = String::from_utf8_lossy(&out.stderr);
        assert_eq!((out.status.code(), &out.stdout), (want.status.code(), &want.stdout), "{said}");
        serde_json::from_str(said.trim()).unwrap_or_else(|e| panic!("{e}: {said}"))
    }
}

fn count(stats: &serde_json::Value, name: &str) -> u64 {
    stats["engine"][name].as_u64().unwrap_or_else(|| panic!("{name} in {stats}"))
}

#[test]
fn little_is_left_to_translate() {
    for (name, flags, options) in
        [("dynamic", &[][..], &[][..]), ("static", &["-static"], &[]), ("optimized", &["-static"], &["--opt"])]
    {
        let l = Lifted::new(name, flags, options);
        let stats = l.check(&[]);
        let (kept, left) = (count(&stats, "blocks_kept"), count(&stats, "blocks_quick"));
        assert!(kept > 20 * left && left < 150, "{name}: {left} blocks were left, {kept} were there");
        assert_eq!(count(&stats, "regions_kept") > 0, name == "optimized");
        // Engines that do not use it run the program all the same, and say so.
        l.check(&["--engine", "interp"]);
        let out = l.evm(&["run", "--cache=off", "--engine", "interp", l.file(), "x y"]);
        assert!(String::from_utf8_lossy(&out.stderr).contains("'evm lift' makes it anew"));
    }
}

#[test]
fn what_is_damaged_is_not_used() {
    let l = Lifted::new("damaged", &["-static"], &[]);
    let good = std::fs::read(&l.file).expect("file");
    let mut bytes = good.clone();
    let at = bytes.len() - 5000;
    bytes[at..at + 4000].fill(0);
    std::fs::write(&l.file, &bytes).expect("write");
    l.check(&[]);
    // The header of the first image.
    let mut bytes = good.clone();
    let first = bytes.windows(8).position(|w| w == b"EVMimage").expect("an image");
    bytes[first + 300] ^= 1;
    std::fs::write(&l.file, &bytes).expect("write");
    assert!(l.check(&[])["cache"].to_string().contains("checksum"));
    for n in [4, 20, good.len() / 2] {
        std::fs::write(&l.file, &good[..n]).expect("write");
        assert_eq!(l.evm(&["run", l.file()]).status.code(), Some(if n < 8 { 126 } else { 125 }), "{n}");
    }
    // Another program of the same name: what is other in it is translated.
    std::fs::write(&l.file, &good).expect("write");
    let source = l.folder.join("q.c");
    std::fs::write(&source, SOURCE.replace("x * 2", "x * 5")).expect("source");
    let gcc = Command::new("gcc").args(["-static", "-O2", "-o"]).arg(&l.program).arg(&source).status();
    assert!(gcc.expect("gcc").success());
    l.check(&[]);
}

#[test]
fn others_may_not_have_written_it() {
    let l = Lifted::new("open", &[], &[]);
    std::fs::set_permissions(&l.file, PermissionsExt::from_mode(0o666)).expect("chmod");
    let out = l.evm(&["run", l.file()]);
    assert!(out.status.code() == Some(125) && String::from_utf8_lossy(&out.stderr).contains("others may write"));
    std::fs::set_permissions(&l.file, PermissionsExt::from_mode(0o644)).expect("chmod");
    l.check(&[]);
    let given = format!("{}::/x", l.folder.display());
    let out = evm(Path::new("/nonexistent"), &["run", "--cache=off", "--dir", &given, l.file()]);
    assert!(out.status.code() == Some(125) && String::from_utf8_lossy(&out.stderr).contains("later runs"));
    l.check(&["--dir", &(given + ":ro")]);
}
