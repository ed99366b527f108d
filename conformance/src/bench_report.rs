//! A bench's report as a line, a table and a plot.

use crate::bench::{Figures, Report, Times};
use std::fmt::Write as _;

fn ratio(t: &Times, f: Option<Figures>) -> Option<f64> {
    f.map(|f| f.cpu / t.native.cpu)
}

/// Geometric mean of the ratios to native CPU time, of the cases that are not about start-up.
pub fn mean(r: &Report, of: impl Fn(&Times) -> Option<Figures>) -> Option<f64> {
    let logs: Vec<f64> = r.cases.iter().filter(|t| !t.start).filter_map(|t| ratio(t, of(t))).map(f64::ln).collect();
    (!logs.is_empty()).then(|| (logs.iter().sum::<f64>() / logs.len() as f64).exp())
}

/// One case as a line for the terminal.
pub fn line(t: &Times) -> String {
    let show = |f: Option<Figures>| match f {
        Some(f) => format!("{:8.3} s {:6.2}x {:5.0} MiB", f.cpu, f.cpu / t.native.cpu, f.peak),
        None => "–".into(),
    };
    let mut s = format!("{:24} {:8.3} s {:5.0} MiB | {}", t.name, t.native.cpu, t.native.peak, show(t.evm));
    if t.qemu.is_some() {
        let _ = write!(s, " | {}", show(t.qemu));
    }
    for e in &t.errors {
        let _ = write!(s, "\n    {e}");
    }
    s
}

/// The table for the book.
pub fn markdown(r: &Report) -> String {
    let mut s = format!(
        "CPU time (user and system, the fastest of {} runs in turn) on {}. In brackets: multiples of native.\n\n\
         | case | native | evm | qemu-user | peak memory: native, evm |\n|---|---|---|---|---|\n",
        r.rounds, r.machine
    );
    let show = |t: &Times, f: Option<Figures>| match f {
        Some(f) => format!("{:.3} s ({:.2})", f.cpu, f.cpu / t.native.cpu),
        None => "–".into(),
    };
    for t in &r.cases {
        let peak = t.evm.map_or("–".into(), |f| format!("{:.0}", f.peak));
        let (evm, qemu) = (show(t, t.evm), show(t, t.qemu));
        let _ =
            writeln!(s, "| {} | {:.3} s | {evm} | {qemu} | {:.0}, {peak} MiB |", t.name, t.native.cpu, t.native.peak);
    }
    let show = |m: Option<f64>| m.map_or("–".into(), |m| format!("**{m:.2}**"));
    let _ = writeln!(s, "| geometric mean | | {} | {} | |", show(mean(r, |t| t.evm)), show(mean(r, |t| t.qemu)));
    s
}

const ROW: f64 = 30.0;
const LEFT: f64 = 190.0;
const WIDTH: f64 = 560.0;

/// A plot of the ratios: bars on a logarithmic scale.
pub fn svg(r: &Report, title: &str) -> String {
    let ratios = |t: &Times| [ratio(t, t.evm), ratio(t, t.qemu)];
    let most = r.cases.iter().flat_map(ratios).flatten().fold(4.0, f64::max).log2().ceil();
    // From half of native time to the first power of two above all.
    let x = |v: f64| LEFT + WIDTH * (v.max(0.5).log2() + 1.0) / (most + 1.0);
    let bottom = 50.0 + ROW * r.cases.len() as f64;
    let mut s = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{0}\" height=\"{1}\" viewBox=\"0 0 {0} {1}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"#fff\"/>\n\
         <text x=\"10\" y=\"20\" font-size=\"15\">{title}</text>\n",
        LEFT + WIDTH + 60.0,
        bottom + 40.0
    );
    for p in -1..=most as i32 {
        let (v, at) = (f64::from(p).exp2(), x(f64::from(p).exp2()));
        let color = if p == 0 { "#000" } else { "#ddd" };
        let _ = writeln!(
            s,
            "<line x1=\"{at:.1}\" x2=\"{at:.1}\" y1=\"40\" y2=\"{bottom:.1}\" stroke=\"{color}\"/>\
             <text x=\"{at:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{v}</text>",
            bottom + 16.0
        );
    }
    for (n, t) in r.cases.iter().enumerate() {
        let y = 46.0 + ROW * n as f64;
        let _ = writeln!(s, "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>", LEFT - 8.0, y + 15.0, t.name);
        for (k, (v, color)) in ratios(t).into_iter().zip(["#2a6fbb", "#bbb"]).enumerate() {
            let Some(v) = v else { continue };
            let (from, to) = (x(1.0).min(x(v)), x(1.0).max(x(v)));
            let top = y + 11.0 * k as f64;
            let _ = writeln!(
                s,
                "<rect x=\"{from:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"10\" fill=\"{color}\"/>\
                 <text x=\"{:.1}\" y=\"{:.1}\" font-size=\"10\">{v:.2}</text>",
                (to - from).max(1.0),
                to + 4.0,
                top + 9.0
            );
        }
    }
    let _ = writeln!(
        s,
        "<text x=\"{LEFT}\" y=\"{:.1}\">CPU time in multiples of native: \
         <tspan fill=\"#2a6fbb\">evm</tspan>, <tspan fill=\"#888\">qemu-user</tspan></text>\n</svg>",
        bottom + 34.0
    );
    s
}
