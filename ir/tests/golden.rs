//! Text files: a region, the passes to apply (`; pass: …`), and what comes out. `EVM_BLESS=1` writes the
//! results into the files.

mod common;

use evm_ir::passes::{AtFaults, OptLevel, dead_code, dead_puts, optimize, promote, simplify};
use evm_ir::{parse, validate};

const LINE: &str = "----";

#[test]
fn golden() {
    let bless = std::env::var_os("EVM_BLESS").is_some();
    let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests");
    let mut seen = 0;
    for entry in std::fs::read_dir(dir).expect("tests folder") {
        let path = entry.expect("entry").path();
        if path.extension().is_none_or(|e| e != "evmir") {
            continue;
        }
        seen += 1;
        let text = std::fs::read_to_string(&path).expect("readable");
        let (input, want) = text.split_once(LINE).unwrap_or((&text, ""));
        let mut r =
            parse(input, &common::LAYOUT, common::HELPERS).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        validate(&r).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        for pass in input.lines().filter_map(|l| l.strip_prefix("; pass: ")) {
            match pass.trim() {
                "simplify" => simplify(&mut r),
                "dead_puts" => dead_puts(&mut r, false),
                "dead_puts precise" => dead_puts(&mut r, true),
                "dead_code" => dead_code(&mut r),
                "promote" => promote(&mut r, AtFaults::Lost),
                "promote kept" => promote(&mut r, AtFaults::Kept(|_| Default::default())),
                "promote precise" => promote(&mut r, AtFaults::Spilled),
                "interp" => optimize(&mut r, OptLevel::Interp),
                "full" => optimize(&mut r, OptLevel::Full),
                "precise" => optimize(&mut r, OptLevel::Precise),
                other => panic!("{}: no pass {other}", path.display()),
            }
            validate(&r).unwrap_or_else(|e| panic!("{} after {pass}: {e}", path.display()));
        }
        let got = r.to_string();
        if bless {
            let input = input.trim_end();
            std::fs::write(&path, format!("{input}\n{LINE}\n{got}")).expect("writable");
        } else {
            assert_eq!(got.trim(), want.trim(), "{}", path.display());
        }
    }
    assert!(seen >= 5);
}
