//! /sys: the few files that programs look for, about the virtual machine.

use super::Item::{Dir, File, Many};
use super::{Ctx, Item};
use crate::errno::Result;

fn text(s: impl Into<String>) -> Result<Vec<u8>> {
    Ok(s.into().into_bytes())
}
fn cpus(c: &Ctx) -> i32 {
    c.kernel.config.cpus.max(1) as i32
}
/// All CPUs as a list.
fn cpu_list(c: &Ctx) -> Result<Vec<u8>> {
    text(if cpus(c) == 1 { "0\n".to_string() } else { format!("0-{}\n", cpus(c) - 1) })
}
/// A set of CPUs as words of 32 bits, highest first.
fn mask(c: &Ctx, has: impl Fn(i32) -> bool) -> Result<Vec<u8>> {
    let n = cpus(c);
    let words: Vec<String> = (0..(n + 31) / 32)
        .rev()
        .map(|w| {
            let bits = (0..32).filter(|b| w * 32 + b < n && has(w * 32 + b)).fold(0u32, |m, b| m | 1 << b);
            let width = if w == (n - 1) / 32 { ((n - 1) % 32 / 4 + 1) as usize } else { 8 };
            format!("{bits:0width$x}")
        })
        .collect();
    text(words.join(",") + "\n")
}
fn cpu_mask(c: &Ctx) -> Result<Vec<u8>> {
    mask(c, |_| true)
}
fn own_mask(c: &Ctx) -> Result<Vec<u8>> {
    mask(c, |n| n == c.index)
}
fn own(c: &Ctx) -> Result<Vec<u8>> {
    text(format!("{}\n", c.index))
}

/// The root directory.
pub(super) static ROOT: Item = Dir(
    "",
    &[
        Dir("block", &[]),
        Dir("bus", &[]),
        Dir("class", &[Dir("net", &[Dir("lo", LO)])]),
        Dir("devices", &[Dir("system", &[Dir("cpu", CPU), Dir("node", NODE)])]),
        Dir("fs", &[Dir("cgroup", &[])]),
        Dir(
            "kernel",
            &[Dir(
                "mm",
                &[Dir(
                    "transparent_hugepage",
                    &[
                        File("enabled", 0o444, |_| text("always madvise [never]\n")),
                        File("defrag", 0o444, |_| text("always defer defer+madvise madvise [never]\n")),
                        File("hpage_pmd_size", 0o444, |_| text("2097152\n")),
                    ],
                )],
            )],
        ),
    ],
);

static LO: &[Item] = &[
    File("address", 0o444, |_| text("00:00:00:00:00:00\n")),
    File("flags", 0o444, |_| text("0x9\n")),
    File("ifindex", 0o444, |_| text("1\n")),
    File("mtu", 0o444, |_| text("65536\n")),
    File("operstate", 0o444, |_| text("unknown\n")),
    File("type", 0o444, |_| text("772\n")),
];

static CPU: &[Item] = &[
    File("online", 0o444, cpu_list),
    File("possible", 0o444, cpu_list),
    File("present", 0o444, cpu_list),
    File("offline", 0o444, |_| text("\n")),
    File("isolated", 0o444, |_| text("\n")),
    File("kernel_max", 0o444, |_| text("8191\n")),
    Many(
        "cpu",
        cpus,
        &[Dir(
            "topology",
            &[
                File("core_id", 0o444, own),
                File("physical_package_id", 0o444, |_| text("0\n")),
                File("thread_siblings", 0o444, own_mask),
                File("core_cpus", 0o444, own_mask),
                File("core_siblings", 0o444, cpu_mask),
                File("package_cpus", 0o444, cpu_mask),
                File("thread_siblings_list", 0o444, own),
                File("core_cpus_list", 0o444, own),
                File("core_siblings_list", 0o444, cpu_list),
                File("package_cpus_list", 0o444, cpu_list),
            ],
        )],
    ),
];

static NODE: &[Item] = &[
    File("online", 0o444, |_| text("0\n")),
    File("possible", 0o444, |_| text("0\n")),
    File("has_cpu", 0o444, |_| text("0\n")),
    File("has_memory", 0o444, |_| text("0\n")),
    Many("node", |_| 1, &[File("cpulist", 0o444, cpu_list), File("cpumap", 0o444, cpu_mask)]),
];
