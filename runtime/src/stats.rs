//! Counters of a job, for `--stats`.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};

macro_rules! counters {
    ($( $name:ident $doc:literal; )*) => {
        /// Live counters, shared by the threads of an engine.
        #[derive(Default, Debug)]
        pub(crate) struct Counters { $( pub $name: AtomicU64, )* }
        impl Counters {
            pub(crate) fn table(&self) -> Vec<(&'static str, &'static str, u64)> {
                vec![ $( (stringify!($name), $doc, self.$name.load(Ordering::Relaxed)) ),* ]
            }
        }
    };
}
counters! {
    blocks_lifted "basic blocks translated for the interpreter";
    blocks_interpreted "basic blocks interpreted";
    insns_interpreted "guest instructions interpreted";
    blocks_quick "basic blocks compiled by the quick tier, or copied";
    quick_us "microseconds spent on them";
    blocks_kept "basic blocks taken from translations that were kept";
    blocks_refused "basic blocks that the quick tier has no code for";
    regions_compiled "regions compiled by Cranelift";
    regions_kept "regions installed from translations that were kept";
    regions_adopted "regions taken over from another process of the job";
    regions_failed "regions that no back end took (a bug of EVM)";
    insns_compiled "guest instructions in compiled regions";
    regions_copied "regions of copied code";
    insns_copied "guest instructions in them";
    code_bytes "bytes of compiled code";
    compile_us "microseconds spent lifting and compiling regions";
    jit_entries "entries into compiled code from the run loop";
    nested_calls "calls from compiled code to code that was not compiled";
    faults "guest exceptions";
    invalidations "code pages dropped because they changed";
}

impl Counters {
    pub(crate) fn add(c: &AtomicU64, n: u64) {
        c.fetch_add(n, Ordering::Relaxed);
    }
}

/// What a job did, after it ended.
#[derive(Clone, Debug, Default)]
pub struct Stats {
    /// Engine counters: (name, meaning, value).
    pub engine: Vec<(&'static str, &'static str, u64)>,
    /// System calls made: name and count.
    pub syscalls: BTreeMap<String, u64>,
    /// System calls that the kernel does not have: name and count.
    pub unknown_syscalls: BTreeMap<String, u64>,
    /// Guest instructions that were not lifted: text and address.
    pub unlifted: Vec<String>,
    /// How kept translations were used: the folder, or why there is none, and files that were refused.
    pub cache: Vec<String>,
    /// An artifact was given and nothing of it used.
    pub artifact_unused: bool,
    /// Peak resident set of the host process in bytes.
    pub peak_rss: u64,
    /// What the host process had given up.
    pub confinement: crate::Confinement,
    /// Wall time of the job in microseconds.
    pub wall_us: u64,
}
