//! Native code with Cranelift: one host function per region.
//!
//! A promoted slot is a variable of the function, a guest access is a compare with the limit of the
//! address space (where nothing proved it already) and a host access at `base + address`; regions are
//! linked through the table of entry points, so code needs no patching, no relocation and can be kept
//! on disk. Conventions: [`crate::abi`].
//!
//! Invariants: a host address is formed only as `base + address + displacement` with an address that
//! was compared with the limit or lies within twice [`WINDOW`](evm_ir::passes::WINDOW) of guest memory
//! ([`unproven`](evm_ir::passes::unproven)); the guards on both sides are larger than that and a displacement.

mod exits;
mod flow;
mod inline;
mod lower;
mod mem;
mod patch;
mod scalar;
#[cfg(test)]
pub(crate) mod tests;
mod vector;

use crate::abi::Abi;
use cranelift_codegen::control::ControlPlane;
use cranelift_codegen::ir::{AbiParam, Function, Signature, UserFuncName, types};
use cranelift_codegen::isa::{CallConv, OwnedTargetIsa};
use cranelift_codegen::settings::{self, Configurable};
use cranelift_codegen::{Context, isa};
use cranelift_frontend::{FunctionBuilder, FunctionBuilderContext};
use evm_ir::Region;

/// Which instructions of the host compiled code may use.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub enum HostFeatures {
    /// All that this host has and Cranelift knows.
    #[default]
    Native,
    /// x86-64-v2 (SSE4.2, POPCNT, CMPXCHG16B): the same code on every host of the last 15 years.
    V2,
    /// x86-64-v3 (AVX2, BMI, LZCNT).
    V3,
}

impl HostFeatures {
    fn has_avx(self) -> bool {
        match self {
            HostFeatures::Native => std::arch::is_x86_feature_detected!("avx2"),
            HostFeatures::V2 => false,
            HostFeatures::V3 => true,
        }
    }
    fn has_fma(self) -> bool {
        match self {
            HostFeatures::Native => std::arch::is_x86_feature_detected!("fma"),
            HostFeatures::V2 => false,
            HostFeatures::V3 => true,
        }
    }
}

/// What is fixed for a compiler.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct CompilerSettings {
    /// Host instructions.
    pub features: HostFeatures,
    /// A lower bound of `mem_limit` of every guest that will run the code: constant addresses below it are not checked.
    pub min_limit: u64,
    /// Run Cranelift's verifier on each function (tests).
    pub verify: bool,
}

/// How much to spend on one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, Hash)]
pub struct CompileOptions {
    /// Run Cranelift's mid-end, for the hottest regions.
    pub optimize: bool,
    /// The region is precise: the pc reported for a fault must be that of the instruction whose access
    /// faulted, so accesses are not merged into later instructions.
    pub precise: bool,
    /// Keep Cranelift's disassembly and the places that guest instructions came to.
    pub disassemble: bool,
}

/// Compiled code of one region.
#[derive(Clone, Debug, Default)]
pub struct Compiled {
    /// Position independent code; its first byte is the function.
    pub code: Vec<u8>,
    /// Alignment that the code needs.
    pub align: u32,
    /// (offset of a host instruction that can trap, guest pc), ascending.
    pub pcs: Vec<(u32, u64)>,
    /// Guest instructions of the region.
    pub insns: u32,
    /// What was done.
    pub stats: Stats,
    /// The disassembly, if asked for.
    pub text: Option<String>,
    /// (code offset, guest pc of what stands there), ascending, if asked for.
    pub lines: Vec<(u32, u64)>,
}

impl Compiled {
    /// Guest pc of the trap at a code offset.
    pub fn pc_at(&self, offset: u32) -> Option<u64> {
        self.pcs.binary_search_by_key(&offset, |p| p.0).ok().map(|i| self.pcs[i].1)
    }
}

/// Counts of one compilation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stats {
    /// Guest accesses.
    pub accesses: u32,
    /// Limit checks emitted for them.
    pub checks: u32,
    /// Cranelift blocks.
    pub blocks: u32,
}

/// Why a region could not be compiled.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The host is none that compiled code can run on.
    #[error("no compiler for this host: {0}")]
    Host(String),
    /// Cranelift refused.
    #[error("cranelift: {0}")]
    Cranelift(String),
    /// An instruction with a type that the back end does not know.
    #[error("{0} on {1} is not supported by the compiler")]
    Unsupported(&'static str, &'static str),
    /// A region that breaks a rule the validator checks.
    #[error("invalid region: {0}")]
    Invalid(&'static str),
}

/// A compiler; not shared between threads, reusable for any number of regions.
pub struct Compiler {
    abi: Abi,
    settings: CompilerSettings,
    plain: OwnedTargetIsa,
    optimizing: OwnedTargetIsa,
    context: Context,
    builder: FunctionBuilderContext,
}

fn make_isa(s: &CompilerSettings, optimize: bool) -> Result<OwnedTargetIsa, Error> {
    let host = |e: &dyn std::fmt::Display| Error::Host(e.to_string());
    let mut f = settings::builder();
    for (k, v) in [
        ("opt_level", if optimize { "speed" } else { "none" }),
        ("regalloc_algorithm", "backtracking"),
        ("enable_pinned_reg", "true"),
        ("preserve_frame_pointers", "true"),
        ("enable_probestack", "false"),
        ("unwind_info", "false"),
        ("enable_verifier", "false"), // see `verify`
        ("is_pic", "true"),
    ] {
        f.set(k, v).map_err(|e| host(&e))?;
    }
    let mut b = isa::lookup_by_name("x86_64").map_err(|e| host(&e))?;
    for name in features(s.features) {
        b.enable(name).map_err(|e| host(&e))?;
    }
    b.finish(settings::Flags::new(f)).map_err(|e| host(&e))
}

/// Cranelift's verifier, but for its rule that a `preserve_all` function returns nothing: on the caller's side a leaf's
/// result is a register that the call defines, as with any convention.
fn verify(f: &Function, isa: &dyn isa::TargetIsa) -> Result<(), Error> {
    let Err(mut e) = cranelift_codegen::verify_function(f, isa) else { return Ok(()) };
    e.0.retain(|e| !e.message.contains("`preserve_all` ABI cannot have return values"));
    if e.0.is_empty() { Ok(()) } else { Err(Error::Cranelift(format!("{e:?}"))) }
}

/// Cranelift's names of the features to use.
fn features(f: HostFeatures) -> Vec<&'static str> {
    const V2: [&str; 6] = ["has_sse3", "has_ssse3", "has_cmpxchg16b", "has_sse41", "has_sse42", "has_popcnt"];
    const V3: [&str; 6] = ["has_avx", "has_avx2", "has_bmi1", "has_bmi2", "has_lzcnt", "has_fma"];
    let mut names = vec![];
    match f {
        HostFeatures::V2 => names.extend(V2),
        HostFeatures::V3 => {
            names.extend(V2);
            names.extend(V3);
        }
        HostFeatures::Native => {
            #[cfg(target_arch = "x86_64")]
            {
                macro_rules! native {
                    ($( $feature:tt $name:literal; )*) => {
                        $( if std::arch::is_x86_feature_detected!($feature) { names.push($name); } )*
                    };
                }
                native! {
                    "sse3" "has_sse3"; "ssse3" "has_ssse3"; "cmpxchg16b" "has_cmpxchg16b"; "sse4.1" "has_sse41";
                    "sse4.2" "has_sse42"; "popcnt" "has_popcnt"; "avx" "has_avx"; "avx2" "has_avx2"; "bmi1" "has_bmi1";
                    "bmi2" "has_bmi2"; "lzcnt" "has_lzcnt"; "fma" "has_fma"; "avx512f" "has_avx512f";
                    "avx512dq" "has_avx512dq"; "avx512vl" "has_avx512vl"; "avx512bitalg" "has_avx512bitalg";
                    "avx512vbmi" "has_avx512vbmi";
                }
            }
        }
    }
    names
}

impl Compiler {
    /// A compiler for the guest state described by `abi`.
    pub fn new(abi: Abi, settings: CompilerSettings) -> Result<Compiler, Error> {
        if !cfg!(target_arch = "x86_64") {
            return Err(Error::Host("not x86-64".into()));
        }
        Ok(Compiler {
            abi,
            plain: make_isa(&settings, false)?,
            optimizing: make_isa(&settings, true)?,
            settings,
            context: Context::new(),
            builder: FunctionBuilderContext::new(),
        })
    }

    /// Text that changes whenever the code for the same region may: part of the key of kept code.
    pub fn fingerprint(&self) -> String {
        format!(
            "cranelift {} {:?} {:?} {:?} {}",
            cranelift_codegen::VERSION,
            self.abi,
            self.settings,
            features(self.settings.features),
            crate::abi::FIRST_HELPER
        )
    }

    /// Compile a promoted region. `links` gives the engine-wide entry index of a guest pc.
    pub fn compile(
        &mut self,
        region: &Region,
        options: CompileOptions,
        links: &mut dyn FnMut(u64) -> u32,
    ) -> Result<Compiled, Error> {
        let isa = if options.optimize { &self.optimizing } else { &self.plain };
        self.context.clear();
        let mut sig = Signature::new(CallConv::Tail);
        sig.params.extend([AbiParam::new(types::I64), AbiParam::new(types::I64)]);
        sig.returns.push(AbiParam::new(types::I64));
        self.context.func = Function::with_name_signature(UserFuncName::user(0, 0), sig);
        self.context.set_disasm(options.disassemble);
        let built = lower::Lower::new(
            FunctionBuilder::new(&mut self.context.func, &mut self.builder),
            region,
            &self.abi,
            &self.settings,
            options,
            links,
        )
        .run(isa.frontend_config());
        let (pcs, patches, mut stats) = match built {
            Ok(x) => x,
            Err(e) => {
                // The builder's context is unusable after an unfinished function.
                self.builder = FunctionBuilderContext::new();
                return Err(e);
            }
        };
        stats.blocks = self.context.func.dfg.num_blocks() as u32;
        if self.settings.verify {
            verify(&self.context.func, &**isa)?;
        }
        let code = self
            .context
            .compile(&**isa, &mut ControlPlane::default())
            .map_err(|e| Error::Cranelift(format!("{:?}", e.inner)))?;
        if !code.buffer.relocs().is_empty() {
            return Err(Error::Cranelift("the code has relocations".into()));
        }
        let mut out = Compiled {
            code: code.code_buffer().to_vec(),
            align: code.buffer.alignment.max(16),
            pcs: vec![],
            insns: region.insns,
            stats,
            text: code.vcode.clone(),
            lines: vec![],
        };
        let locs = code.buffer.get_srclocs_sorted();
        if options.disassemble {
            let line = |l: &cranelift_codegen::MachSrcLoc<cranelift_codegen::Final>| {
                let pc = (!l.loc.is_default()).then(|| pcs.get(l.loc.bits() as usize).copied())?;
                Some((l.start, pc?))
            };
            out.lines = locs.iter().filter_map(line).collect();
        }
        for t in code.buffer.traps() {
            let i = locs.partition_point(|l| l.end <= t.offset);
            let pc = locs
                .get(i)
                .filter(|l| l.start <= t.offset && !l.loc.is_default())
                .and_then(|l| pcs.get(l.loc.bits() as usize));
            let Some(pc) = pc else {
                return Err(Error::Cranelift(format!("trap at {:#x} without a location", t.offset)));
            };
            out.pcs.push((t.offset, *pc));
        }
        let ranges = locs
            .iter()
            .filter(|l| !l.loc.is_default())
            .filter_map(|l| Some((l.start as usize..l.end as usize, patches.get(&l.loc.bits())?)));
        for (range, p) in ranges {
            p.apply(&mut out.code[range])?;
        }
        out.pcs.sort_unstable();
        out.pcs.dedup();
        Ok(out)
    }
}
