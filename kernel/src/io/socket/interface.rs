//! netdevice(7): the one interface there is, `lo`.

use crate::errno::{Errno, Result};
use evm_memory::Mem;
use libc::{
    SIOCGIFADDR, SIOCGIFBRDADDR, SIOCGIFCONF, SIOCGIFFLAGS, SIOCGIFHWADDR, SIOCGIFINDEX, SIOCGIFMTU, SIOCGIFNETMASK,
};

/// SIOCGIFNAME
const SIOCGIFNAME: u64 = 0x8910;
/// The requests about interfaces.
pub(super) const KNOWN: [u32; 9] = [
    SIOCGIFNAME as u32,
    SIOCGIFCONF as u32,
    SIOCGIFFLAGS as u32,
    SIOCGIFADDR as u32,
    SIOCGIFBRDADDR as u32,
    SIOCGIFNETMASK as u32,
    SIOCGIFMTU as u32,
    SIOCGIFHWADDR as u32,
    SIOCGIFINDEX as u32,
];
/// Size of `struct ifreq`, and where the value is in it.
const REQUEST: u64 = 40;
const VALUE: u64 = 16;
const NAME: [u8; 16] = *b"lo\0\0\0\0\0\0\0\0\0\0\0\0\0\0";
/// UP, LOOPBACK, RUNNING
const FLAGS: u16 = 0x49;
const MTU: u32 = 65_536;

fn address(ip: [u8; 4]) -> [u8; 16] {
    let mut a = [0; 16];
    a[..2].copy_from_slice(&(libc::AF_INET as u16).to_le_bytes());
    a[4..8].copy_from_slice(&ip);
    a
}

/// One of [`KNOWN`].
pub(super) fn ioctl(mem: Mem, cmd: u32, arg: u64) -> Result<u64> {
    let cmd = u64::from(cmd);
    if cmd == SIOCGIFCONF {
        let (room, buf) = (mem.read::<i32>(arg)?, mem.read::<u64>(arg.wrapping_add(8))?);
        let fits = buf == 0 || u64::try_from(room).is_ok_and(|r| r >= REQUEST);
        if buf != 0 && fits {
            mem.fill(buf, REQUEST, 0)?;
            mem.copy_in(buf, &NAME)?;
            mem.copy_in(buf.wrapping_add(VALUE), &address([127, 0, 0, 1]))?;
        }
        mem.write(arg, if fits { REQUEST as u32 } else { 0 })?;
        return Ok(0);
    }
    let at = arg.wrapping_add(VALUE);
    if cmd == SIOCGIFNAME {
        if mem.read::<i32>(at)? != 1 {
            return Err(Errno::ENODEV);
        }
        mem.copy_in(arg, &NAME)?;
        return Ok(0);
    }
    let mut name = [0u8; 16];
    mem.copy_out(arg, &mut name)?;
    if name[..3] != NAME[..3] {
        return Err(Errno::ENODEV);
    }
    match cmd {
        SIOCGIFFLAGS => mem.write(at, FLAGS)?,
        SIOCGIFINDEX => mem.write(at, 1u32)?,
        SIOCGIFMTU => mem.write(at, MTU)?,
        SIOCGIFADDR => mem.copy_in(at, &address([127, 0, 0, 1]))?,
        SIOCGIFBRDADDR => mem.copy_in(at, &address([0, 0, 0, 0]))?,
        SIOCGIFNETMASK => mem.copy_in(at, &address([255, 0, 0, 0]))?,
        _ => {
            // SIOCGIFHWADDR: ARPHRD_LOOPBACK and no address.
            mem.fill(at, 16, 0)?;
            mem.write(at, 772u16)?;
        }
    }
    Ok(0)
}
