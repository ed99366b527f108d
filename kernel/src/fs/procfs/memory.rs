//! /proc/pid/mem: the memory of a process as a file.

use super::ProcNode;
use crate::errno::{Errno, Result};
use crate::file::{File, Stat};
use crate::fs::node::Node;
use crate::mm::Mm;
use crate::wait::Blocking;
use std::any::Any;
use std::sync::Arc;

/// An open one.
pub(super) struct Memory {
    /// As it was when it was opened; `None` of a process without one.
    pub mm: Option<Arc<Mm>>,
    pub node: ProcNode,
}

impl Memory {
    /// What of a range is in one go: up to the end of its first page.
    fn chunk(pos: u64, len: usize) -> usize {
        len.min((4096 - pos % 4096) as usize)
    }
}

impl File for Memory {
    fn read(&self, _: &dyn Blocking, pos: u64, buf: &mut [u8], _: bool) -> Result<usize> {
        let Some(mm) = &self.mm else { return Ok(0) };
        let mut done = 0;
        while done < buf.len() {
            let at = pos.wrapping_add(done as u64);
            let n = Memory::chunk(at, buf.len() - done);
            match mm.mem().copy_out(at, &mut buf[done..done + n]) {
                Ok(()) => done += n,
                Err(_) if done > 0 => break,
                Err(_) => return Err(Errno::EIO),
            }
        }
        Ok(done)
    }
    fn write(&self, _: &dyn Blocking, pos: u64, buf: &[u8], _: bool) -> Result<usize> {
        let Some(mm) = &self.mm else { return Ok(0) };
        let mut done = 0;
        while done < buf.len() {
            let at = pos.wrapping_add(done as u64);
            let n = Memory::chunk(at, buf.len() - done);
            match mm.write_for_other(at, &buf[done..done + n]) {
                Ok(()) => done += n,
                Err(_) if done > 0 => break,
                Err(_) => return Err(Errno::EIO),
            }
        }
        Ok(done)
    }
    fn seekable(&self) -> bool {
        true
    }
    fn stat(&self) -> Result<Stat> {
        self.node.stat()
    }
    fn as_any(&self) -> &dyn Any {
        self
    }
}
