//! The page of a report, in headless Chromium, as a reader uses it: clicks, keys, both colour schemes, narrow to wide.
//!
//! The pages are made here, and `browser.py` beside this file drives the browser. Pages and screenshots stay in
//! `tmp/report` of the target folder, to be looked at.

mod pages;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The interpreter with selenium. `make test` sets `GRADIX_BROWSER_PYTHON` where there is a Chromium to drive;
/// without it these tests are skipped, and say so.
fn python() -> Option<PathBuf> {
    let python = std::env::var_os("GRADIX_BROWSER_PYTHON").filter(|python| !python.is_empty());
    if python.is_none() {
        eprintln!("SKIPPED: no browser to look at the report with; `make test` sets one up");
    }
    python.map(PathBuf::from)
}

/// Catches a page that is cut off, that a click or a key does not reach, that runs what an example says, loads
/// something, or fails in its script: `browser.py` says which.
#[test]
fn page_serves_a_reader() {
    let Some(python) = python() else { return };
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("report");
    std::fs::create_dir_all(&folder).unwrap();
    for (name, report) in pages::all() {
        std::fs::write(folder.join(format!("{name}.html")), report.to_html()).unwrap();
    }
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/report/browser.py");
    let tests = Command::new(python).arg("-B").arg(script).arg(&folder).output().unwrap();
    assert!(tests.status.success(), "{}", String::from_utf8_lossy(&tests.stderr));
}
