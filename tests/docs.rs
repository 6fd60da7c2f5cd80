//! The shell blocks of `docs/*.md` and of README.md run as they stand: block after block, in one folder for each page,
//! with the program `gradix` on the path, and a `python3` with numpy where there is one. Blocks that begin with
//! `` ```sh no-run `` are for readers only.
#![cfg(unix)]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

/// The shell blocks of a page that are run, and the line in which each begins.
fn blocks(page: &str) -> Vec<(usize, String)> {
    let (mut blocks, mut open) = (Vec::new(), None::<(usize, bool, String)>);
    for (line, text) in (1..).zip(page.lines()) {
        let fence = text.trim_start();
        match &mut open {
            Some((first, runs, block)) if fence.starts_with("```") => {
                if *runs {
                    blocks.push((*first, std::mem::take(block)));
                }
                open = None;
            }
            Some((_, _, block)) => {
                block.push_str(text);
                block.push('\n');
            }
            None if fence.starts_with("```") => open = Some((line, fence == "```sh", String::new())),
            None => {}
        }
    }
    assert!(open.is_none(), "a block has no end");
    blocks
}

/// The interpreter with numpy. `make test` sets one of these; without them the system's, if it has numpy.
fn python() -> Option<PathBuf> {
    for name in ["GRADIX_PYTHON_TABLES", "GRADIX_PYTHON"] {
        if let Some(python) = std::env::var_os(name) {
            return Some(python.into());
        }
    }
    let probe =
        Command::new("python3").args(["-c", "import numpy, sys; print(sys.executable)"]).output().ok()?;
    probe.status.success().then(|| String::from_utf8(probe.stdout).unwrap().trim().into())
}

/// Runs the blocks of a page; what went wrong, if something did.
fn run(name: &str, page: &str, python: Option<&Path>) -> Result<(), String> {
    let blocks = blocks(page);
    if blocks.is_empty() {
        return Ok(());
    }
    if python.is_none() && blocks.iter().any(|(_, block)| block.contains("python3")) {
        eprintln!("SKIPPED: {name}: no python3 with numpy; `make test` sets one up");
        return Ok(());
    }
    let folder = tempfile::tempdir().unwrap();
    let programs = folder.path().join("programs");
    let work = folder.path().join("work");
    fs::create_dir(&programs).unwrap();
    fs::create_dir(&work).unwrap();
    symlink(env!("CARGO_BIN_EXE_gradix"), programs.join("gradix")).unwrap();
    if let Some(python) = python {
        // A link would lose the interpreter's environment.
        let script = format!("#!/bin/sh\nexec '{}' \"$@\"\n", python.display());
        fs::write(programs.join("python3"), script).unwrap();
        Command::new("chmod").arg("+x").arg(programs.join("python3")).status().unwrap();
    }
    // Says where it is, so that a failure has a line.
    let mut script = "set -euo pipefail\n".to_owned();
    for (line, block) in &blocks {
        script.push_str(&format!("echo '# {name}:{line}' >&2\n{block}"));
    }
    fs::write(folder.path().join("script"), script).unwrap();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut all = vec![programs];
    all.extend(std::env::split_paths(&path));
    let output = Command::new("bash")
        .arg(folder.path().join("script"))
        .current_dir(&work)
        .env("PATH", std::env::join_paths(all).unwrap())
        .env("HOME", &work)
        .env_remove("NO_COLOR")
        .stdin(Stdio::null())
        .output()
        .unwrap();
    match output.status.success() {
        true => Ok(()),
        false => Err(format!(
            "{name}: {}\n{}\n{}",
            output.status,
            String::from_utf8_lossy(&output.stdout),
            String::from_utf8_lossy(&output.stderr)
        )),
    }
}

/// Catches a command in the documentation that does not exist any more, or does not do what the page goes on with.
#[test]
fn shell_blocks_run() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let listed = fs::read_dir(root.join("docs")).unwrap().map(|entry| entry.unwrap().path());
    let mut pages: Vec<PathBuf> =
        listed.filter(|path| path.extension().is_some_and(|ending| ending == "md")).collect();
    pages.push(root.join("README.md"));
    pages.sort();
    let python = python();
    let ran = pages.iter().map(|path| {
        let name = path.strip_prefix(root).unwrap().display().to_string();
        run(&name, &fs::read_to_string(path).unwrap(), python.as_deref())
    });
    let failed: Vec<String> = ran.filter_map(Result::err).collect();
    assert!(failed.is_empty(), "{}", failed.join("\n\n"));
}

/// Catches blocks that are run though the page says that they are not, and a failure that nobody notices.
#[test]
fn blocks_that_fail_are_found() {
    let page = "```sh\ntrue\n```\n\n```sh no-run\nfalse\n```\n```rust\nfalse\n```\n";
    assert_eq!(blocks(page), [(1, "true\n".to_owned())]);
    assert!(run("page", page, None).is_ok());
    let error =
        run("page", "text\n```sh\ngradix --version\n```\n```sh\ngradix stats nowhere | cat\n```\n", None);
    assert!(
        error.as_ref().is_err_and(|error| error.contains("# page:5") && error.contains("nowhere")),
        "{error:?}"
    );
}
