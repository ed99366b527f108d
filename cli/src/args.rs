//! Options and their texts.

use crate::units::{self, Bundle, Clock, LimitArg, Mount, Seed, Stats, Sysroot};
use clap::{Args, Parser, Subcommand, ValueEnum};
use std::ffi::OsString;
use std::path::PathBuf;

/// Run x86-64 Linux programs in a sandbox.
#[derive(Debug, Parser)]
#[command(name = "evm", version, about, long_about = None, max_term_width = 100)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run a program in a virtual Linux
    Run(Box<Run>),
    /// Say what a program file is and what it needs
    Inspect(Inspect),
    /// Translate a program and its libraries ahead of time, or make a WebAssembly module of them
    Lift(Box<Lift>),
    /// Show, check or clear the translations that are kept between runs
    Cache(Cache),
    /// Print a completion script for a shell
    Completions(Completions),
}

const RUN_EXAMPLES: &str = "\
Examples:
  evm run /bin/echo hello
      A program of this machine; it sees none of this machine's files.
  evm run --dir . hmmsearch model.hmm proteins.fasta
      The current folder is /work, where the program starts.
  evm run --dir data::/data:ro --dir out::/out python3 /data/job.py
      One folder to read, one to write.
  evm run --sysroot target/guest-root /usr/bin/perl -e 'print 6*7, \"\\n\"'
      A program and its libraries from an unpacked Debian.
  evm run --limit memory=1GiB,cpu=90s,procs=8 --dir . ./simulate
      Bounds on what the program may use.
  evm run --clock 2024-01-01 --seed 7 ./simulate
      The same time and the same random numbers in each run.

Exit status: that of the program, 128+N if signal N ended it; 124 if a limit ended the job;
125 if evm itself failed; 126 if PROGRAM cannot be run; 127 if it was not found.";

/// Options of `evm run`.
#[derive(Debug, Args)]
#[command(
    override_usage = "evm run [OPTIONS] PROGRAM [ARGS]...",
    after_long_help = RUN_EXAMPLES,
    after_help = "See 'evm run --help' for the full text and examples."
)]
pub struct Run {
    /// The program and its arguments
    ///
    /// PROGRAM is a file of this machine, looked for in PATH if it has no slash. With --sysroot DIR it is a path in the
    /// guest. Options of evm stand before PROGRAM; everything after it belongs to the program. A module that 'evm lift' made
    /// (X.wasm) runs in wasmtime, if that is built in.
    #[arg(required = true, trailing_var_arg = true, value_names = ["PROGRAM", "ARGS"], num_args = 1.., hide_default_value = true)]
    pub command: Vec<OsString>,

    /// Give the program a folder or file: `HOST[::GUEST][:ro]` (may be repeated)
    ///
    /// Without GUEST, `--dir .` is /work, a relative HOST is below /work, and an absolute HOST has the same path in the
    /// guest. `:ro` refuses writing. Nothing outside HOST can be reached through it. `FOLDER::/` is the guest's root;
    /// `--dir /::/` is all of the host, and the program starts in the current folder.
    #[arg(long = "dir", value_name = "HOST[::GUEST][:ro]", value_parser = units::os(Mount::parse), help_heading = "Files")]
    pub dirs: Vec<Mount>,

    /// Where the libraries of a dynamic program come from: host, none or a folder
    ///
    /// `host`: the libraries of this machine and their data, to read, nothing else. `none`: no files but those of --dir.
    /// A folder: it is the guest's root, to read; what the program writes outside the folders of --dir stays in memory and is
    /// gone at the end.
    #[arg(long, value_name = "host|DIR|none", default_value = "host", value_parser = units::os(Sysroot::parse), help_heading = "Files")]
    pub sysroot: Sysroot,

    /// Where the program starts, a path in the guest [default: /work]
    #[arg(long, value_name = "PATH", help_heading = "Files")]
    pub cwd: Option<PathBuf>,

    /// Set a variable of the program's environment, or pass it on if there is no VALUE (may be repeated)
    ///
    /// Nothing is inherited. The program starts with PATH, HOME=/home/user, USER=user, LOGNAME=user, SHELL=/bin/sh,
    /// LANG=C.UTF-8, and TERM if it has a terminal.
    #[arg(long = "env", short = 'e', value_name = "NAME[=VALUE]", value_parser = units::os(units::env_var), help_heading = "Virtual machine")]
    pub env: Vec<units::EnvVar>,

    /// The time the program sees: host, or a start time of a virtual clock
    ///
    /// A start time is seconds since 1970 or a date as in 2024-01-31 or 2024-01-31T12:00:00Z; the virtual clock then advances
    /// with the program's own clock readings and sleeps.
    #[arg(long, value_name = "host|TIME", default_value = "host", value_parser = units::str(Clock::parse), help_heading = "Virtual machine")]
    pub clock: Clock,

    /// Seed of all randomness the program sees: a number, or random
    #[arg(long, value_name = "N|random", default_value = "random", value_parser = units::str(Seed::parse), help_heading = "Virtual machine")]
    pub seed: Seed,

    /// The CPU that the program sees
    ///
    /// It decides which instructions there are, what CPUID, /proc/cpuinfo and the auxiliary vector say, and so which of
    /// its own code paths a program takes (libm computes some last bits differently with FMA). It never depends on the
    /// host: one that cannot run the model refuses the job. x86-64-v3 needs AVX2, FMA and F16C of the host.
    #[arg(long, value_name = "MODEL", default_value = "x86-64-v3", help_heading = "Virtual machine")]
    pub cpu: CpuModel,

    /// Number of CPUs that the program sees
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=256), help_heading = "Virtual machine")]
    pub cpus: u32,

    /// Bound what the job may use: memory, cpu, wall, procs, files, disk, output, fuel
    ///
    /// Several with commas, or the option repeated; `none` lifts one. Sizes as 512MiB or 2GiB, times as 90s, 5m or 1h.
    ///   memory  bytes, /tmp and the like too; ENOMEM     [default: 4GiB]
    ///   cpu     CPU time of the job; ends the job        [default: none]
    ///   wall    time since its start; ends the job       [default: none]
    ///   procs   processes and threads; EAGAIN            [default: 256]
    ///   files   open files of one process; EMFILE        [default: 1024]
    ///   disk    bytes in files that it wrote; ENOSPC     [default: 16GiB]
    ///   output  bytes of stdout and stderr; ends the job [default: 1GiB]
    ///   fuel    operations of an X.wasm; ends the job    [default: none]
    /// An X.wasm has memory, cpu, wall and fuel of these.
    #[arg(long = "limit", value_name = "NAME=VALUE,..", value_delimiter = ',', value_parser = units::str(LimitArg::parse), verbatim_doc_comment, help_heading = "Bounds")]
    pub limits: Vec<LimitArg>,

    /// How guest code is run
    #[arg(long, value_name = "ENGINE", default_value = "auto", help_heading = "Engine")]
    pub engine: EngineKind,

    /// Keep translations between runs: on, read (use those there are) or off [default: $EVM_CACHE, or on]
    ///
    /// They are in $EVM_CACHE_DIR, or in /var/tmp/evm-UID. `evm cache` shows and clears them.
    #[arg(long, value_name = "on|read|off", help_heading = "Engine")]
    pub cache: Option<CacheMode>,

    /// Leave the host process what the job does not need: to debug evm itself
    ///
    /// Otherwise the process gives up, where the host offers it (Landlock, seccomp), all files but those of the job, the
    /// network, other processes and starting any.
    #[arg(long, help_heading = "Engine")]
    pub no_confine: bool,

    /// Say at the end what the run did: on stderr, as text or JSON
    #[arg(long, value_name = "json", num_args = 0..=1, require_equals = true, default_missing_value = "text", help_heading = "Engine")]
    pub stats: Option<Stats>,

    /// Sample where the program's CPU time goes: a flame graph (SVG) to FILE, and a table on stderr
    ///
    /// Of calls those of copied code are known (--engine direct). Symbols are those of the files, if they have any.
    #[arg(long, value_name = "FILE", help_heading = "Engine")]
    pub profile: Option<PathBuf>,

    /// Write what compiled regions look like to a folder: to debug evm itself (implies --no-confine)
    #[arg(long, value_name = "DIR", help_heading = "Engine", hide_short_help = true)]
    pub dump: Option<PathBuf>,

    /// Show each system call, as strace does: on stderr or in FILE
    #[arg(long, value_name = "FILE", num_args = 0..=1, require_equals = true, default_missing_value = "-", help_heading = "Engine")]
    pub trace: Option<PathBuf>,
}

/// CPU models.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CpuModel {
    /// x86-64-v2: SSE to SSE4.2, SSSE3, POPCNT, CMPXCHG16B
    #[value(name = "x86-64-v2")]
    X86_64V2,
    /// x86-64-v3: also AVX, AVX2, FMA, F16C, BMI1, BMI2, LZCNT, MOVBE
    #[value(name = "x86-64-v3")]
    X86_64V3,
}

/// Whether translations are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheMode {
    /// Use those there are, and add to them
    On,
    /// Use those there are
    Read,
    /// Neither
    Off,
}

/// Engines.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum EngineKind {
    /// direct where this machine can, else jit
    Auto,
    /// Run copies of the program's own instructions, with checks; the rest as jit
    Direct,
    /// Compile quickly what runs, and well what is hot
    Jit,
    /// Interpret everything
    Interp,
    /// Compile quickly what runs, nothing more
    Quick,
    /// Compile everything well before it runs: slow to start
    Cranelift,
    /// Compile everything to WebAssembly, run by wasmtime (if built in)
    Wasm,
}

const LIFT_EXAMPLES: &str = "\
Examples:
  evm lift lua5.4 -o lua.wasm && wasmtime lua.wasm -e 'print(6*7)'
      A program of this machine with its libraries, in a stock WebAssembly engine.
  evm lift --sysroot target/guest-root --bundle target/guest-root/usr/lib/python3.11 /usr/bin/python3 -o python.wasm
      A program of an unpacked Debian and a folder that it needs.";

/// Options of `evm inspect`.
#[derive(Debug, Args)]
pub struct Inspect {
    /// The file
    pub file: PathBuf,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Say how much of its code can be found without running it, as 'evm lift' does
    #[arg(long)]
    pub coverage: bool,
}

/// Options of `evm lift`.
#[derive(Debug, Args)]
#[command(
    after_long_help = LIFT_EXAMPLES,
    after_help = "Then 'evm run [OPTIONS] FILE.evm [ARGS]...' runs it: the program's own files are needed there too. A .wasm file has them in it and runs in any WASI engine."
)]
pub struct Lift {
    /// The program: a file of this machine, or with --sysroot DIR a path in the guest
    pub program: OsString,
    /// Where to write the translations (FILE.evm) or the module (FILE.wasm)
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Where the libraries come from, as for 'evm run': host, none or a folder
    #[arg(long, value_name = "host|DIR|none", default_value = "host", value_parser = units::os(Sysroot::parse))]
    pub sysroot: Sysroot,
    /// The CPU that the program will see [default: x86-64-v3, and x86-64-v2 in a FILE.wasm]
    #[arg(long, value_name = "MODEL")]
    pub cpu: Option<CpuModel>,
    /// Make a region of every function, not only of what earlier runs have shown to be hot. Rarely worth it where
    /// code is copied (the default engine); else functions are compiled with Cranelift, which takes minutes
    #[arg(long)]
    pub opt: bool,
    /// Threads [default: all]
    #[arg(long, value_name = "N")]
    pub threads: Option<usize>,
    /// Print the report as JSON
    #[arg(long)]
    pub json: bool,

    /// Add a file or folder to the module: `HOST[::GUEST]` (may be repeated)
    ///
    /// The program, its loader and the libraries that these name are added without being asked for. Without GUEST, a path below
    /// the sysroot is the same path in the guest.
    #[arg(long, value_name = "HOST[::GUEST]", value_parser = units::os(Bundle::parse), help_heading = "FILE.wasm")]
    pub bundle: Vec<Bundle>,
    /// Set a variable of the program's environment, or pass it on if there is no VALUE (may be repeated)
    #[arg(long = "env", short = 'e', value_name = "NAME[=VALUE]", value_parser = units::os(units::env_var), help_heading = "FILE.wasm")]
    pub env: Vec<units::EnvVar>,
    /// Size of the program's address space [default: 1GiB]
    #[arg(long, value_name = "SIZE", value_parser = units::str(units::size), help_heading = "FILE.wasm")]
    pub memory: Option<u64>,
}

/// Options of `evm cache`.
#[derive(Debug, Args)]
pub struct Cache {
    /// What to do [default: show]
    pub action: Option<CacheAction>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What `evm cache` does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CacheAction {
    /// List the images of which translations are kept, those used last first
    Show,
    /// The same, with all checksums; exit status 1 if one is wrong
    Verify,
    /// Remove all
    Clear,
    /// Wait until what runs that have ended left to translate is translated
    Wait,
}

/// Options of `evm completions`.
#[derive(Debug, Args)]
pub struct Completions {
    /// bash, zsh, fish, elvish or powershell
    pub shell: clap_complete::Shell,
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn consistent() {
        Cli::command().debug_assert();
    }

    fn run(line: &str) -> Result<Run, String> {
        let words = std::iter::once("evm").chain(line.split_whitespace());
        match Cli::try_parse_from(words).map_err(|e| e.to_string())?.command {
            Command::Run(r) => Ok(*r),
            other => Err(format!("{other:?}")),
        }
    }

    #[test]
    fn options_end_at_the_program() {
        let r = run("run --seed 7 --stats --dir . prog --stats=json -e X -- y").unwrap();
        assert_eq!(r.command, ["prog", "--stats=json", "-e", "X", "--", "y"]);
        assert_eq!(r.stats, Some(Stats::Text));
        assert_eq!(r.dirs.len(), 1);
        assert_eq!(run("run -- -odd a").unwrap().command, ["-odd", "a"]);
    }

    #[test]
    fn wrong_lines() {
        for (line, say) in [
            ("run", "required"),
            ("run --nope /bin/true", "--nope"),
            ("run --limit memory=2XB a", "2XB"),
            ("run --limit colour=3 a", "memory, cpu, wall"),
            ("run --clock yesterday a", "yesterday"),
            ("run --engine fast a", "interp"),
            ("run --dir ::/x a", "::/x"),
            ("run --dir x::y a", "absolute"),
        ] {
            let e = run(line).unwrap_err();
            assert!(e.contains(say), "{line}: {e}");
        }
    }

    #[test]
    fn limits_in_one_or_several() {
        let r = run("run --limit memory=1GiB,cpu=90s --limit wall=none p").unwrap();
        let l = units::Limits::from_args(&r.limits);
        assert_eq!(l.memory, Some(1 << 30));
        assert_eq!(l.cpu, Some(std::time::Duration::from_secs(90)));
        assert_eq!(l.wall, None);
        assert_eq!(l.procs, units::Limits::default().procs);
    }
}
