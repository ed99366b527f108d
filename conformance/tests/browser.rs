//! The book's page in headless Chromium (Debian package `chromium`), from a plain server of files: a lifted Lua and SQLite answer to what
//! is typed. Skipped, and said so, where there is no Chromium.

use anyhow::{Context, Result, bail, ensure};
use evm_conformance::apps::Place;
use evm_conformance::harness::{self, Trial};
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

/// What the page is asked for, and what it has to show.
const CASES: [(&str, &str, &str); 2] = [
    ("lua", "run=lua&type=print(6*7,_VERSION)&report", "42\tLua 5.4"),
    (
        "sqlite3",
        "run=sqlite3&type=create%20table%20t(a);&type=insert%20into%20t%20values(6),(7);&type=select%20sum(a)%20from%20t;&report",
        "13",
    ),
];

fn chromium() -> Option<&'static str> {
    ["chromium", "chromium-browser", "google-chrome"]
        .into_iter()
        .find(|c| Command::new(c).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok())
}

/// The page as a file of its own, and what belongs to it.
fn site(place: &Place) -> Result<PathBuf> {
    let book = Path::new(env!("CARGO_MANIFEST_DIR")).join("../book/src");
    let to = evm_conformance::target().join("browser-site");
    std::fs::create_dir_all(to.join("browser"))?;
    // Markdown passes HTML through; what is left of it does not matter here.
    let page = std::fs::read_to_string(book.join("browser.md"))?;
    std::fs::write(to.join("index.html"), format!("<!doctype html><meta charset=utf-8><base href=/>{page}"))?;
    for name in ["page.js", "worker.js", "wasi.js", "stdin.js"] {
        std::fs::copy(book.join("browser").join(name), to.join("browser").join(name))?;
    }
    for (program, name) in [("/usr/bin/lua5.4", "lua.wasm"), ("/usr/bin/sqlite3", "sqlite3.wasm")] {
        let out = Command::new(&place.evm)
            .arg("lift")
            .arg("--sysroot")
            .arg(&place.guest.root)
            .args(["--memory", "512MiB", program, "-o"])
            .arg(to.join("browser").join(name))
            .output()?;
        ensure!(out.status.success(), "evm lift: {}", String::from_utf8_lossy(&out.stderr));
    }
    Ok(to)
}

/// Answer one request; what is posted goes to `reports`.
fn serve(mut stream: TcpStream, root: &Path, reports: &Sender<String>) -> Result<()> {
    let mut r = BufReader::new(stream.try_clone()?);
    let (mut first, mut length) = (String::new(), 0);
    r.read_line(&mut first)?;
    loop {
        let mut line = String::new();
        r.read_line(&mut line)?;
        if line.trim().is_empty() {
            break;
        }
        if let Some(n) = line.to_ascii_lowercase().strip_prefix("content-length:") {
            length = n.trim().parse()?;
        }
    }
    let mut words = first.split(' ');
    let (method, path) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
    if method == "POST" {
        let mut body = vec![0; length];
        r.read_exact(&mut body)?;
        reports.send(String::from_utf8_lossy(&body).into_owned())?;
    }
    let path = path.split('?').next().unwrap_or_default().trim_start_matches('/');
    let name = if path.is_empty() { "index.html" } else { path };
    let kind = match name.rsplit('.').next() {
        Some("html") => "text/html",
        Some("js") => "text/javascript",
        Some("wasm") => "application/wasm",
        _ => "text/plain",
    };
    let (status, body) = match std::fs::read(root.join(name)) {
        Ok(b) if !name.contains("..") => ("200 OK", b),
        _ => ("404 Not Found", vec![]),
    };
    write!(
        stream,
        "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n",
        body.len()
    )?;
    Ok(stream.write_all(&body)?)
}

struct Browser(Child);
impl Drop for Browser {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn check(query: &str, wanted: &str) -> Result<()> {
    let Some(chromium) = chromium() else {
        eprintln!("skipped: there is no chromium (apt-get install chromium)");
        return Ok(());
    };
    let root = site(&Place::ready()?)?;
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let port = listener.local_addr()?.port();
    let (send, reports) = channel();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (root, send) = (root.clone(), send.clone());
            // A browser that goes away in the middle is none of our errors.
            std::thread::spawn(move || drop(serve(stream, &root, &send)));
        }
    });
    let profile = evm_conformance::target().join(format!("browser-profile-{port}"));
    let child = Command::new(chromium)
        .args(["--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run"])
        .arg(format!("--user-data-dir={}", profile.display()))
        .arg(format!("http://127.0.0.1:{port}/?{query}"))
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .context(chromium)?;
    let browser = Browser(child);
    let seen = reports.recv_timeout(Duration::from_secs(300));
    drop(browser);
    // Left for the next run to overwrite if the browser still writes.
    let _ = std::fs::remove_dir_all(profile);
    match seen {
        Ok(text) => ensure!(text.contains(wanted), "the page shows:\n{text}"),
        Err(_) => bail!("the page did not get to the program's end"),
    }
    Ok(())
}

fn main() -> ExitCode {
    harness::main(CASES.map(|(name, query, wanted)| Trial::new(name, move || check(query, wanted))).into())
}
