//! Trace lines, in the manner of strace.

use super::Syscall;
use crate::errno::Result;
use crate::kernel::Flow;
use crate::task::Task;
use std::fmt::Write;

/// Name of a signal (`SIGTERM`, `SIGRT_3`).
pub fn signal_name(sig: i32) -> String {
    const NAMES: [&str; 31] = [
        "HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
        "TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
        "WINCH", "IO", "PWR", "SYS",
    ];
    match usize::try_from(sig - 1).ok().and_then(|i| NAMES.get(i)) {
        Some(n) => format!("SIG{n}"),
        None if (32..=64).contains(&sig) => format!("SIGRT_{}", sig - 32),
        None => sig.to_string(),
    }
}

fn quoted(bytes: &[u8], cut: bool) -> String {
    let mut s = String::from("\"");
    for b in bytes {
        let _ = match b {
            b'\n' => write!(s, "\\n"),
            b'\t' => write!(s, "\\t"),
            b'\r' => write!(s, "\\r"),
            b'"' | b'\\' => write!(s, "\\{}", *b as char),
            0x20..=0x7e => write!(s, "{}", *b as char),
            b => write!(s, "\\x{b:02x}"),
        };
    }
    s.push('"');
    if cut {
        s.push_str("...");
    }
    s
}

/// Most bytes of a string shown.
const SHOWN: usize = 48;

fn argument(t: &Task, letter: u8, v: u64, next: Option<u64>) -> String {
    match letter {
        b'd' | b'f' if v as i32 == libc::AT_FDCWD && letter == b'f' => "AT_FDCWD".into(),
        b'd' | b'f' => (v as i32).to_string(),
        b'l' => (v as i64).to_string(),
        b'u' | b'U' => v.to_string(),
        b'o' => format!("0{:o}", v as u32),
        b'S' => signal_name(v as i32),
        b's' if v != 0 => match t.mem().read_cstr(v, 4096) {
            Ok(Some(s)) => quoted(&s[..s.len().min(256)], s.len() > 256),
            _ => format!("{v:#x}"),
        },
        b'b' if v != 0 => {
            let n = next.unwrap_or(0).min(SHOWN as u64) as usize;
            let mut buf = [0u8; SHOWN];
            match t.mem().copy_out(v, &mut buf[..n]) {
                Ok(()) => quoted(&buf[..n], next.unwrap_or(0) > SHOWN as u64),
                Err(_) => format!("{v:#x}"),
            }
        }
        b'p' | b's' | b'b' if v == 0 => "NULL".into(),
        _ => format!("{v:#x}"),
    }
}

/// A call before it is made: what it has as input.
pub(crate) fn call(t: &Task, s: Option<&Syscall>, nr: u32, args: &[u64; 6]) -> String {
    let Some(s) = s else {
        return format!(
            "{}({:#x}, {:#x}, {:#x})",
            super::names::name(nr).unwrap_or("syscall_?"),
            args[0],
            args[1],
            args[2]
        );
    };
    let reads = matches!(s.nr, 0 | 17 | 45 | 318 | 89 | 79 | 217 | 267); // the buffer is output
    let mut line = format!("{}(", s.name);
    for (i, l) in s.args.bytes().enumerate() {
        if i > 0 {
            line.push_str(", ");
        }
        let l = if l == b'b' && reads { b'p' } else { l };
        line.push_str(&argument(t, l, args[i], args.get(i + 1).copied()));
    }
    line.push(')');
    line
}

/// The whole line.
pub(crate) fn result(t: &Task, call: &str, r: Result<u64>, flow: Flow) -> String {
    let tid = t.tid();
    match (flow, r) {
        (Flow::Exit, _) => format!("[{tid}] {call} = ?"),
        (_, Err(e)) => format!("[{tid}] {call} = -1 {e}"),
        (_, Ok(v)) if v < 1 << 20 => format!("[{tid}] {call} = {v}"),
        (_, Ok(v)) => format!("[{tid}] {call} = {v:#x}"),
    }
}
