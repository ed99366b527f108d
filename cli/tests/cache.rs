//! Translations that are kept between runs, by the command.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

struct Folder(PathBuf);

impl Folder {
    fn new(name: &str) -> Folder {
        let path = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("kept-{name}"));
        let _ = std::fs::remove_dir_all(&path);
        Folder(path)
    }
    fn evm(&self, args: &[&str]) -> Output {
        let mut c = Command::new(env!("CARGO_BIN_EXE_evm"));
        c.args(args).env("EVM_CACHE_DIR", &self.0).env_remove("EVM_CACHE").output().expect("evm")
    }
    /// Run, and wait for the translator; gives standard output and the statistics.
    fn run(&self, options: &[&str], program: &[&str]) -> (String, serde_json::Value) {
        let out = self.evm(&[&["run", "--stats=json", "--dir", "/usr/bin::/bin:ro"], options, program].concat());
        let text = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "{program:?}: {text}");
        let stats = serde_json::from_str(text.trim()).unwrap_or_else(|e| panic!("{e}: {text}"));
        assert!(self.evm(&["cache", "wait"]).status.success());
        (String::from_utf8_lossy(&out.stdout).into_owned(), stats)
    }
    fn images(&self) -> Vec<PathBuf> {
        let all = std::fs::read_dir(&self.0).expect("folder").map(|e| e.expect("entry").path());
        all.filter(|p| p.extension().is_some_and(|e| e == "img")).collect()
    }
    fn show(&self, action: &str) -> (bool, serde_json::Value) {
        let out = self.evm(&["cache", action, "--json"]);
        (out.status.success(), serde_json::from_slice(&out.stdout).expect("JSON"))
    }
}

fn count(stats: &serde_json::Value, name: &str) -> u64 {
    stats["engine"][name].as_u64().unwrap_or_else(|| panic!("{name} in {stats}"))
}

const SCRIPT: [&str; 3] = ["/bin/sh", "-c", "for i in 1 2 3; do /bin/echo $i $(/bin/expr $i + 40); done"];
const SAID: &str = "1 41\n2 42\n3 43\n";

#[test]
fn a_second_run_translates_next_to_nothing() {
    let f = Folder::new("twice");
    let (said, first) = f.run(&[], &SCRIPT);
    assert_eq!(said, SAID);
    assert_eq!(count(&first, "blocks_kept"), 0);
    assert!(count(&first, "blocks_quick") > 1000);
    for p in f.images() {
        assert_eq!(std::fs::metadata(&p).expect("file").permissions().mode() & 0o777, 0o600);
    }
    let (said, second) = f.run(&[], &SCRIPT);
    assert_eq!(said, SAID);
    assert!(count(&second, "blocks_kept") > 1000);
    let left = count(&second, "blocks_quick");
    assert!(left * 8 < count(&first, "blocks_quick"), "{left} blocks were translated again");
    // Of all programs of the job, and where units are entered is known by now.
    let (said, third) = f.run(&[], &SCRIPT);
    assert_eq!(said, SAID);
    let left = count(&third, "blocks_quick");
    assert!(left * 50 < count(&first, "blocks_quick"), "{left} blocks were translated once more");
    let (good, shown) = f.show("verify");
    assert!(good && shown["images"].as_array().expect("images").len() >= 3, "{shown}");
    // Other settings have files of their own.
    assert_eq!(count(&f.run(&["--engine", "quick"], &SCRIPT).1, "blocks_kept"), 0);
    assert!(f.evm(&["cache", "clear"]).status.success());
    assert!(f.images().is_empty());
}

/// Of copied code too, blocks and regions, also for processes that are copies of others.
#[test]
fn copied_code_is_kept() {
    if !evm_runtime::copies() {
        eprintln!("skipped: this host is none for copied code");
        return;
    }
    const LOOP: &str =
        "i=0; while [ $i -lt 5000 ]; do i=$((i+1)); done; /bin/echo $i; (exit 3); echo $? $(/bin/expr $i + 1)";
    let f = Folder::new("copied");
    let run = || f.run(&["--engine", "direct"], &["/bin/sh", "-c", LOOP]);
    let (said, first) = run();
    assert_eq!((said.as_str(), count(&first, "blocks_kept")), ("5000\n3 5001\n", 0));
    assert!(count(&first, "blocks_quick") > 1000 && count(&first, "regions_copied") > 0);
    for _ in 0..2 {
        let (said, next) = run();
        assert_eq!(said, "5000\n3 5001\n");
        assert!(count(&next, "blocks_kept") > 1000 && count(&next, "regions_kept") > 0, "{next}");
        let left = count(&next, "blocks_quick");
        assert!(left * 10 < count(&first, "blocks_quick"), "{left} blocks were copied again");
    }
    assert!(f.show("verify").0);
}

#[test]
fn off_and_read_write_nothing() {
    let f = Folder::new("off");
    f.run(&["--cache", "off"], &SCRIPT);
    assert!(f.images().is_empty());
    f.run(&["--cache", "read"], &SCRIPT);
    assert!(f.images().is_empty());
    f.run(&[], &SCRIPT);
    let n = f.images().len();
    assert!(n > 0);
    let (said, stats) = f.run(&["--cache", "read"], &SCRIPT);
    assert_eq!(said, SAID);
    assert!(count(&stats, "blocks_kept") > 1000);
    assert_eq!(count(&f.run(&["--cache", "off"], &SCRIPT).1, "blocks_kept"), 0);
}

/// Whatever happens to the files, the job is the same; what is wrong is said and made anew.
#[test]
fn damaged_files_are_refused() {
    let f = Folder::new("damaged");
    f.run(&[], &SCRIPT);
    type Damage = fn(&mut Vec<u8>);
    let damages: [(Damage, &str); 5] = [
        (|b| b.truncate(b.len() / 2), "truncated"),
        (|b| b.truncate(10), "truncated"),
        (|b| b[8] = 99, "version"),
        (|b| b[30] ^= 1, "another"),
        (|b| b[500] ^= 1, "checksum"),
    ];
    for (damage, says) in damages {
        for p in f.images() {
            let mut bytes = std::fs::read(&p).expect("file");
            damage(&mut bytes);
            std::fs::write(&p, bytes).expect("write");
        }
        assert!(!f.show("verify").0);
        let (said, stats) = f.run(&[], &SCRIPT);
        assert_eq!(said, SAID, "{says}");
        assert_eq!(count(&stats, "blocks_kept"), 0, "{says}");
        assert!(stats["cache"].to_string().contains(says), "{says}: {stats}");
        assert!(f.show("verify").0);
    }
    // Code that was altered: the pages it belongs to are left out.
    for p in f.images() {
        let mut bytes = std::fs::read(&p).expect("file");
        let n = bytes.len();
        bytes[n - 2000..].fill(0xcc);
        std::fs::write(&p, bytes).expect("write");
    }
    assert!(!f.show("verify").0);
    let (said, stats) = f.run(&[], &SCRIPT);
    assert_eq!(said, SAID);
    assert!(count(&stats, "blocks_kept") > 0);
}

#[test]
fn a_folder_that_others_can_reach_is_refused() {
    let f = Folder::new("open");
    f.run(&[], &SCRIPT);
    std::fs::set_permissions(&f.0, PermissionsExt::from_mode(0o755)).expect("chmod");
    let out = f.evm(&["run", "--stats=json", "/bin/true"]);
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success() && said.contains("others have access"), "{said}");
    std::fs::set_permissions(&f.0, PermissionsExt::from_mode(0o700)).expect("chmod");
    for p in f.images() {
        std::fs::set_permissions(&p, PermissionsExt::from_mode(0o666)).expect("chmod");
    }
    let (_, stats) = f.run(&["--cache", "read"], &SCRIPT);
    assert_eq!(count(&stats, "blocks_kept"), 0);
    assert!(stats["cache"].to_string().contains("others have access"), "{stats}");
}

/// A program that could write the folder could have its code executed by later runs.
#[test]
fn no_program_gets_the_folder() {
    let f = Folder::new("inside");
    f.run(&[], &SCRIPT);
    let up = f.0.parent().expect("parent").to_str().expect("UTF-8");
    for cache in ["on", "off"] {
        let out = f.evm(&["run", "--cache", cache, "--dir", &format!("{up}::/x"), "/bin/true"]);
        let said = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.code() == Some(125) && said.contains("translations"), "{said}");
    }
    assert!(f.evm(&["run", "--dir", &format!("{up}::/x:ro"), "/bin/true"]).status.success());
}
