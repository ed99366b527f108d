//! What the WebAssembly engine asks of a thread's record.

use super::{LEAVE, Leave, Thread};
use crate::code::space::CodeSpace;
use std::sync::Arc;

impl Thread {
    /// The code space, for the WebAssembly engine.
    pub(crate) fn space(&self) -> Arc<CodeSpace> {
        self.space.clone()
    }
    pub(crate) fn wasm_engine(&self) -> Result<Arc<crate::wasm::WasmEngine>, String> {
        self.engine.wasm()
    }
    /// What stands for the region at `pc`, compiled if it has to be. `None`: it is interpreted.
    pub(crate) fn wasm_code(&mut self, pc: u64) -> Option<u64> {
        if self.space.bits != 64 {
            return None;
        }
        let index = self.engine.entry_index(pc);
        let code = self.space.code(index);
        if code != 0 {
            return Some(code);
        }
        if self.refused.contains(&pc) {
            return None;
        }
        let compiled = self.engine.compile_now(&self.job(pc));
        let code = self.space.code(index);
        if !compiled || code == 0 {
            self.refused.insert(pc);
            return None;
        }
        Some(code)
    }
    /// The engine failed in a way that leaves the guest's state unknown: the job ends.
    pub(crate) fn broken(&mut self, pc: u64, what: String) -> u64 {
        self.engine.report(format!("region {pc:#x}: {what}"));
        self.task.kernel().kill_job(evm_kernel::kernel::EndReason::Failed);
        self.leave = Leave::Exit;
        LEAVE
    }
}
