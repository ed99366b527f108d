//! Each limit ends what it is to end, with the documented status, and with the host's own memory bounded.

use anyhow::{Context, Result, ensure};
use evm_conformance::apps::Place;
use evm_conformance::exec::{Evm, WorkDir, engines};
use evm_conformance::harness::{self, Trial};
use evm_conformance::host;
use std::process::{ExitCode, Stdio};
use std::time::Duration;

/// `evm` ends a job with this status at a limit.
const ENDED: i32 = 124;
/// `hog` exits with this when it is refused something.
const REFUSED: i32 = 9;

/// After this nothing has ended it. Far beyond every limit below, as the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(120);

struct Case {
    name: &'static str,
    args: &'static [&'static str],
    limit: &'static str,
    status: i32,
    /// What it prints.
    says: &'static str,
    /// MiB that the host process may have at most.
    resident: u64,
}

const CASES: &[Case] = &[
    Case { name: "fork-bomb", args: &["fork"], limit: "procs=40,wall=4s", status: ENDED, says: "", resident: 1500 },
    Case {
        name: "fork-until-refused",
        args: &["fork-once"],
        limit: "procs=40",
        status: REFUSED,
        says: "39 processes, then EAGAIN",
        resident: 1500,
    },
    Case {
        name: "thread-bomb",
        args: &["threads"],
        limit: "procs=40",
        status: REFUSED,
        says: "39 threads, then EAGAIN",
        resident: 1000,
    },
    Case {
        name: "memory-hog",
        args: &["memory"],
        limit: "memory=200MiB",
        status: REFUSED,
        says: "then ENOMEM",
        resident: 800,
    },
    Case {
        name: "memory-noreserve",
        args: &["noreserve"],
        limit: "memory=200MiB,wall=60s",
        status: -1,
        says: "",
        resident: 1200,
    },
    Case {
        name: "memory-inherited",
        args: &["inherit"],
        limit: "memory=200MiB,wall=60s",
        status: -1,
        says: "",
        resident: 1200,
    },
    Case {
        name: "memory-shared",
        args: &["shared"],
        limit: "memory=200MiB",
        status: REFUSED,
        says: "then ENOMEM",
        resident: 800,
    },
    Case {
        name: "memory-memfd",
        args: &["memfd"],
        limit: "memory=200MiB",
        status: REFUSED,
        says: "then E",
        resident: 800,
    },
    Case {
        name: "memory-pipes",
        args: &["pipes"],
        limit: "memory=200MiB,files=1000",
        status: REFUSED,
        says: "then E",
        resident: 1000,
    },
    Case {
        name: "memory-folders",
        args: &["folders"],
        limit: "memory=100MiB,wall=20s",
        status: -1,
        says: "",
        resident: 1000,
    },
    Case {
        name: "disk-filler",
        args: &["disk", "/work/big"],
        limit: "disk=30MiB",
        status: REFUSED,
        says: "KiB, then ENOSPC",
        resident: 500,
    },
    Case {
        name: "disk-filler-in-memory",
        args: &["tmp", "/tmp/big"],
        limit: "disk=10GiB,memory=100MiB",
        status: REFUSED,
        says: "then ENOSPC",
        resident: 700,
    },
    Case {
        name: "disk-truncate",
        args: &["truncate", "/work/big"],
        limit: "disk=30MiB",
        status: REFUSED,
        says: "refused: ",
        resident: 500,
    },
    Case {
        name: "mapping-bomb",
        args: &["mappings"],
        limit: "memory=200MiB",
        status: REFUSED,
        says: "mappings, then ENOMEM; fork ",
        resident: 800,
    },
    Case {
        name: "mapping-bomb-of-children",
        args: &["mapped-children"],
        limit: "memory=1GiB,procs=1000",
        status: REFUSED,
        says: "processes, then E",
        resident: 2500,
    },
    Case { name: "link-bomb", args: &["links"], limit: "memory=100MiB,wall=20s", status: -1, says: "", resident: 1000 },
    Case {
        name: "socket-filler",
        args: &["sockets"],
        limit: "memory=200MiB,files=400,wall=60s",
        status: -1,
        says: "",
        resident: 1200,
    },
    Case {
        name: "descriptors-in-flight",
        args: &["fds"],
        limit: "memory=200MiB,wall=60s",
        status: -1,
        says: "",
        resident: 1200,
    },
    Case {
        name: "host-files",
        args: &["host-files"],
        limit: "memory=300MiB,procs=60,files=100000,wall=60s",
        status: -1,
        says: "",
        resident: 1200,
    },
    Case {
        name: "signal-queue",
        args: &["signals"],
        limit: "wall=60s",
        status: REFUSED,
        says: "signals, then EAGAIN",
        resident: 500,
    },
    Case {
        name: "timer-bomb",
        args: &["timers"],
        limit: "wall=60s",
        status: REFUSED,
        says: "timers, then EAGAIN",
        resident: 500,
    },
    Case { name: "new-code", args: &["code"], limit: "memory=300MiB,wall=6s", status: ENDED, says: "", resident: 1400 },
    Case {
        name: "file-bomb",
        args: &["files"],
        limit: "files=64",
        status: REFUSED,
        says: "64 files, then EMFILE",
        resident: 500,
    },
    Case { name: "endless-output", args: &["output"], limit: "output=3MiB", status: ENDED, says: "", resident: 500 },
    Case {
        name: "endless-errors",
        args: &["output", "2"],
        limit: "output=3MiB",
        status: ENDED,
        says: "",
        resident: 500,
    },
    Case { name: "tight-loop-cpu", args: &["spin"], limit: "cpu=1s", status: ENDED, says: "", resident: 500 },
    Case { name: "loop-of-calls", args: &["spin-calls"], limit: "wall=1s", status: ENDED, says: "", resident: 500 },
    Case { name: "tight-loop-wall", args: &["spin"], limit: "wall=1s", status: ENDED, says: "", resident: 500 },
    Case {
        name: "loops-in-children",
        args: &["spin-children"],
        limit: "cpu=2s",
        status: ENDED,
        says: "",
        resident: 800,
    },
    Case {
        name: "loops-in-threads",
        args: &["spin-threads"],
        limit: "procs=12,wall=2s",
        status: ENDED,
        says: "",
        resident: 800,
    },
    Case { name: "sleeper", args: &["sleep"], limit: "wall=1s", status: ENDED, says: "", resident: 500 },
    Case { name: "stopped", args: &["stop"], limit: "wall=1s", status: ENDED, says: "", resident: 500 },
    Case { name: "blocked-read", args: &["read"], limit: "wall=1s", status: ENDED, says: "", resident: 500 },
    Case { name: "system-call-loop", args: &["syscalls"], limit: "wall=1s", status: ENDED, says: "", resident: 500 },
    Case {
        name: "long-instruction",
        args: &["rep"],
        limit: "wall=2s,memory=1GiB",
        status: ENDED,
        says: "",
        resident: 1200,
    },
    Case { name: "exec-loop", args: &["exec"], limit: "wall=2s", status: ENDED, says: "", resident: 800 },
    Case { name: "endless-recursion", args: &["recurse"], limit: "wall=30s", status: 139, says: "", resident: 800 },
];

fn check(place: &Place, case: &Case, engine: &str) -> Result<()> {
    let work = WorkDir::new(case.name)?;
    work.give_to_guest()?;
    let options = ["--limit".to_string(), case.limit.to_string()];
    let mut args = vec!["/programs/hog"];
    args.extend(case.args);
    let out = Evm { work: Some(&work.path), options: &options, ..Evm::new(&place.evm, &place.guest, engine) }
        .command(&args)
        .run(PATIENCE)?;
    ensure!(!out.timed_out, "nothing ended it: {}", out.describe());
    if case.status >= 0 {
        ensure!(out.status == case.status, "status {} expected: {}", case.status, out.describe());
    } else {
        ensure!(out.status != 0 && out.status != 125, "{}", out.describe());
    }
    let text = String::from_utf8_lossy(&out.stdout);
    ensure!(text.contains(case.says), "'{}' expected: {}", case.says, out.describe());
    if out.status == ENDED {
        let left = String::from_utf8_lossy(&out.stderr).contains("did not stop");
        ensure!(!left, "a thread was left running: {}", out.describe());
        let name = case.limit.split(['=', ',']).find(|w| String::from_utf8_lossy(&out.stderr).contains(w));
        ensure!(name.is_some(), "the message names no limit: {}", String::from_utf8_lossy(&out.stderr));
    }
    if case.name == "disk-filler" {
        // The whole limit, less what the folders of the virtual system take.
        let size = std::fs::metadata(work.path.join("big"))?.len();
        ensure!((29 << 20..=30 << 20).contains(&size), "{size} bytes on disk");
    }
    if case.name.starts_with("endless-") && case.status == ENDED {
        let n = out.stdout.len() + out.stderr.len();
        ensure!((2 << 20..4 << 20).contains(&n), "{n} bytes of output");
    }
    ensure!(out.resident < case.resident << 20, "the host process had {} MiB", out.resident >> 20);
    Ok(())
}

/// ^C and SIGTERM end a whole job at once, whatever it does.
fn interrupted(place: &Place, mode: &str, signal: &str, engine: &str) -> Result<()> {
    let mut c = Evm::new(&place.evm, &place.guest, engine).command(&["/programs/hog", mode]).into_command();
    let mut child = c.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn()?;
    std::thread::sleep(Duration::from_millis(700));
    ensure!(child.try_wait()?.is_none(), "it ended by itself");
    host::signal(&child, signal);
    let end = host::ends_within(&mut child, PATIENCE);
    let left = host::descendants(child.id());
    let _ = child.kill();
    let _ = child.wait();
    let status = end.with_context(|| format!("SIG{signal} did not end it"))?;
    ensure!(!status.success(), "status 0");
    ensure!(left.is_empty(), "processes are left: {left:?}");
    Ok(())
}

fn main() -> ExitCode {
    let mut trials = Vec::new();
    for engine in engines() {
        for case in CASES {
            trials.push(Trial::new(format!("{engine}::{}", case.name), move || check(&Place::ready()?, case, engine)));
        }
        for (mode, signal) in
            [("spin", "TERM"), ("sleep", "INT"), ("spin-children", "INT"), ("fork", "TERM"), ("spin-threads", "TERM")]
        {
            let name = format!("{engine}::interrupt-{mode}-{signal}");
            trials.push(Trial::new(name, move || interrupted(&Place::ready()?, mode, signal, engine)));
        }
    }
    harness::main(trials)
}
