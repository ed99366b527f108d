//! System calls about files: thin wrappers of [`crate::fs`] that read and write the guest's structures.

mod attributes;
mod content;
mod directory;
mod names;
mod open;
mod stat;
mod xattr;

use super::Syscall;
use crate::errno::{Errno, Result};
use crate::fs::node::PATH_MAX;
use crate::task::Task;

type Args = [u64; 6];
const CWD: i32 = libc::AT_FDCWD;
const NOFOLLOW: u32 = libc::AT_SYMLINK_NOFOLLOW as u32;
const EMPTY: u32 = libc::AT_EMPTY_PATH as u32;

/// Read a path argument. EFAULT, ENAMETOOLONG.
pub(crate) fn path(task: &Task, addr: u64) -> Result<Vec<u8>> {
    task.mem().read_cstr(addr, PATH_MAX - 1)?.ok_or(Errno::ENAMETOOLONG)
}
fn known(flags: u32, all: u32) -> Result<()> {
    if flags & !all == 0 { Ok(()) } else { Err(Errno::EINVAL) }
}
fn masked(task: &Task, mode: u64) -> u32 {
    mode as u32 & 0o7777 & !task.fs().umask()
}

fn unsupported(_: &mut Task, _: Args) -> Result<u64> {
    Err(Errno::EOPNOTSUPP)
}
fn forbidden(_: &mut Task, _: Args) -> Result<u64> {
    Err(Errno::EPERM)
}

macro_rules! table {
    ($($nr:ident $name:ident $args:literal $f:expr;)*) => {
        /// The system calls of this module.
        pub static TABLE: &[Syscall] = &[
            $( Syscall { nr: libc::$nr as u32, name: stringify!($name), args: $args, f: $f }, )*
        ];
    };
}
table! {
    SYS_open open "sxo" open::open;
    SYS_openat openat "dsxo" open::openat;
    SYS_openat2 openat2 "dspu" open::openat2;
    SYS_creat creat "so" open::creat;
    SYS_stat stat "sp" stat::stat;
    SYS_lstat lstat "sp" stat::lstat;
    SYS_fstat fstat "fp" stat::fstat;
    SYS_newfstatat newfstatat "dspx" stat::newfstatat;
    SYS_statx statx "dsxxp" stat::statx;
    SYS_access access "so" stat::access;
    SYS_faccessat faccessat "dso" stat::faccessat;
    SYS_faccessat2 faccessat2 "dsox" stat::faccessat2;
    SYS_mkdir mkdir "so" names::mkdir;
    SYS_mkdirat mkdirat "dso" names::mkdirat;
    SYS_mknod mknod "sox" names::mknod;
    SYS_mknodat mknodat "dsox" names::mknodat;
    SYS_symlink symlink "ss" names::symlink;
    SYS_symlinkat symlinkat "sds" names::symlinkat;
    SYS_rmdir rmdir "s" names::rmdir;
    SYS_unlink unlink "s" names::unlink;
    SYS_unlinkat unlinkat "dsx" names::unlinkat;
    SYS_rename rename "ss" names::rename;
    SYS_renameat renameat "dsds" names::renameat;
    SYS_renameat2 renameat2 "dsdsx" names::renameat2;
    SYS_link link "ss" names::link;
    SYS_linkat linkat "dsdsx" names::linkat;
    SYS_readlink readlink "spd" names::readlink;
    SYS_readlinkat readlinkat "dspd" names::readlinkat;
    SYS_chmod chmod "so" attributes::chmod;
    SYS_fchmod fchmod "fo" attributes::fchmod;
    SYS_fchmodat fchmodat "dso" attributes::fchmodat;
    SYS_fchmodat2 fchmodat2 "dsox" attributes::fchmodat2;
    SYS_chown chown "sdd" attributes::chown;
    SYS_lchown lchown "sdd" attributes::lchown;
    SYS_fchown fchown "fdd" attributes::fchown;
    SYS_fchownat fchownat "dsddx" attributes::fchownat;
    SYS_utime utime "sp" attributes::utime;
    SYS_utimes utimes "sp" attributes::utimes;
    SYS_futimesat futimesat "dsp" attributes::futimesat;
    SYS_utimensat utimensat "dspx" attributes::utimensat;
    SYS_truncate truncate "sl" content::truncate;
    SYS_ftruncate ftruncate "fl" content::ftruncate;
    SYS_fallocate fallocate "fxll" content::fallocate;
    SYS_getdents getdents "fpU" directory::getdents;
    SYS_getdents64 getdents64 "fpU" directory::getdents64;
    SYS_chdir chdir "s" directory::chdir;
    SYS_fchdir fchdir "f" directory::fchdir;
    SYS_getcwd getcwd "pu" directory::getcwd;
    SYS_umask umask "o" directory::umask;
    SYS_statfs statfs "sp" stat::statfs;
    SYS_fstatfs fstatfs "fp" stat::fstatfs;
    SYS_sync sync "" content::sync;
    SYS_fsync fsync "f" content::fsync;
    SYS_fdatasync fdatasync "f" content::fdatasync;
    SYS_syncfs syncfs "f" content::syncfs;
    SYS_sync_file_range sync_file_range "fllx" content::sync_file_range;
    SYS_fadvise64 fadvise64 "flld" content::fadvise64;
    SYS_readahead readahead "flu" content::readahead;
    SYS_flock flock "fx" content::flock;
    SYS_setxattr setxattr "sspux" xattr::setxattr;
    SYS_lsetxattr lsetxattr "sspux" xattr::lsetxattr;
    SYS_fsetxattr fsetxattr "fspux" xattr::fsetxattr;
    SYS_getxattr getxattr "sspu" xattr::getxattr;
    SYS_lgetxattr lgetxattr "sspu" xattr::lgetxattr;
    SYS_fgetxattr fgetxattr "fspu" xattr::fgetxattr;
    SYS_listxattr listxattr "spu" xattr::listxattr;
    SYS_llistxattr llistxattr "spu" xattr::llistxattr;
    SYS_flistxattr flistxattr "fpu" xattr::flistxattr;
    SYS_removexattr removexattr "ss" xattr::removexattr;
    SYS_lremovexattr lremovexattr "ss" xattr::lremovexattr;
    SYS_fremovexattr fremovexattr "fs" xattr::fremovexattr;
    SYS_name_to_handle_at name_to_handle_at "dsppx" unsupported;
    SYS_open_by_handle_at open_by_handle_at "dpx" forbidden;
    SYS_mount mount "sssXp" forbidden;
    SYS_umount2 umount2 "sx" forbidden;
    SYS_pivot_root pivot_root "ss" forbidden;
    SYS_chroot chroot "s" directory::chroot;
    SYS_memfd_create memfd_create "sx" open::memfd_create;
    SYS_copy_file_range copy_file_range "fpfpux" content::copy_file_range;
}
