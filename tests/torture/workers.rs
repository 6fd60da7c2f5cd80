//! Other processes of this program: what dies, hangs or must be counted alone runs in one of them.

use std::collections::BTreeMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::panic::AssertUnwindSafe;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use crate::check::{Failure, failure};

const ROLE: &str = "GRADIX_TORTURE_ROLE";
const ARGUMENTS: &str = "GRADIX_TORTURE_ARGUMENTS";
/// How long one case may take before it counts as hanging: a hundred times what one takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);
/// So many failures of each kind are printed.
const SHOWN: u64 = 3;

/// A number from the environment, for long runs.
pub fn setting(name: &str, default: u64) -> u64 {
    match std::env::var(name) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{name}={text} is not a number")),
        Err(_) => default,
    }
}

/// When to end early, if the environment limits the seconds.
pub fn deadline() -> Option<Instant> {
    match setting("GRADIX_TORTURE_LIMIT", 0) {
        0 => None,
        seconds => Some(Instant::now() + Duration::from_secs(seconds)),
    }
}

/// A new folder in memory, if there is one to have.
pub fn scratch() -> tempfile::TempDir {
    let memory = PathBuf::from("/dev/shm");
    tempfile::Builder::new()
        .prefix("gradix-torture")
        .tempdir_in(memory)
        .or_else(|_| tempfile::tempdir())
        .unwrap()
}

/// If this process was started by [`start`]: its role and arguments.
pub fn role() -> Option<(String, Vec<String>)> {
    let role = std::env::var(ROLE).ok()?;
    let arguments = std::env::var(ARGUMENTS).unwrap_or_default();
    Some((role, arguments.split('\n').map(Into::into).collect()))
}

/// Starts another process of this program: its test `worker`, which does what the role says.
pub fn start(role: &str, arguments: &[String]) -> Child {
    Command::new(std::env::current_exe().unwrap())
        .args(["worker", "--exact", "--nocapture", "--test-threads=1"])
        .env("RUST_BACKTRACE", "0")
        .env(ROLE, role)
        .env(ARGUMENTS, arguments.join("\n"))
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap()
}

/// What a worker tells: counts, and failures by kind.
#[derive(Debug, Default)]
pub struct Tally {
    pub counts: BTreeMap<String, u64>,
    pub failures: BTreeMap<String, u64>,
}

impl Tally {
    pub fn count(&mut self, what: &str, by: u64) {
        *self.counts.entry(what.into()).or_default() += by;
    }

    pub fn of(&self, what: &str) -> u64 {
        self.counts.get(what).copied().unwrap_or_default()
    }

    /// Runs a case, whose panic is a failure too.
    pub fn case(&mut self, name: impl FnOnce() -> String, case: impl FnOnce() -> Result<(), Failure>) {
        let done = std::panic::catch_unwind(AssertUnwindSafe(case));
        let done = done.unwrap_or_else(|_| Err(failure("panic", "its message stands above")));
        if let Err(Failure { kind, message }) = done {
            self.fail(kind, &format!("{}: {message}", name()));
        }
    }

    pub fn fail(&mut self, kind: &str, message: &str) {
        let count = self.failures.entry(kind.into()).or_default();
        *count += 1;
        if *count <= SHOWN {
            say(&format!("@shown {kind}: {}", message.replace('\n', " ")));
        }
    }

    /// Tells all to the process that started this one.
    pub fn tell(&self) {
        for (what, count) in &self.counts {
            say(&format!("@count {count} {what}"));
        }
        for (kind, count) in &self.failures {
            say(&format!("@failures {count} {kind}"));
        }
        say("@done");
    }

    fn hear(&mut self, line: &str) {
        let Some(rest) = line.strip_prefix('@') else { return };
        if let Some((word, rest)) = rest.split_once(' ') {
            match (word, rest.split_once(' ')) {
                ("shown", _) => println!("  {rest}"),
                ("count", Some((count, what))) => self.count(what, count.parse().unwrap()),
                ("failures", Some((count, kind))) => {
                    *self.failures.entry(kind.into()).or_default() += count.parse::<u64>().unwrap();
                }
                _ => {}
            }
        }
    }
}

impl std::fmt::Display for Tally {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let counts: Vec<String> = self.counts.iter().map(|(what, count)| format!("{count} {what}")).collect();
        let failures: u64 = self.failures.values().sum();
        write!(f, "{}; {failures} failures {:?}", counts.join(", "), self.failures)
    }
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{line}").unwrap();
    out.flush().unwrap();
}

/// Tells that a case begins, so that a crash or a hang can be told from which one it was.
pub fn begin(case: &str) {
    say(&format!("@case {case}"));
}

/// Runs a worker for each list of arguments, at the same time, and adds up what they tell. One that dies, or is
/// silent for too long, is a failure.
pub fn run(role: &str, arguments: &[Vec<String>]) -> Tally {
    let mut tally = Tally::default();
    let (sender, receiver) = channel();
    let mut children = Vec::new();
    for (number, arguments) in arguments.iter().enumerate() {
        let mut child = start(role, arguments);
        let (mut out, mut complaints) =
            (BufReader::new(child.stdout.take().unwrap()), child.stderr.take().unwrap());
        let lines = sender.clone();
        std::thread::spawn(move || {
            let mut line = String::new();
            while out.read_line(&mut line).is_ok_and(|count| count > 0) {
                // The receiver is gone only if the test has failed already.
                let _ = lines.send((number, line.trim_end().to_owned()));
                line.clear();
            }
        });
        let complaints = std::thread::spawn(move || {
            let mut text = Vec::new();
            let _ = complaints.read_to_end(&mut text);
            String::from_utf8_lossy(&text).into_owned()
        });
        children.push((child, complaints, String::from("start"), false));
    }
    drop(sender);
    let mut silent = false;
    loop {
        match receiver.recv_timeout(PATIENCE) {
            Ok((number, line)) => {
                if let Some(case) = line.strip_prefix("@case ") {
                    children[number].2 = case.into();
                } else if line == "@done" {
                    children[number].3 = true;
                } else {
                    tally.hear(&line);
                }
            }
            Err(RecvTimeoutError::Disconnected) => break,
            Err(RecvTimeoutError::Timeout) => {
                silent = true;
                break;
            }
        }
    }
    for (mut child, complaints, case, done) in children {
        if silent && child.try_wait().unwrap().is_none() {
            child.kill().unwrap();
            tally.fail("hang", &format!("nothing for {} s in {case}", PATIENCE.as_secs()));
        }
        let status = child.wait().unwrap();
        let complaints = complaints.join().unwrap();
        if !silent && (!done || !status.success()) {
            tally.fail("died", &format!("{status} (signal {:?}) in {case}: {complaints}", status.signal()));
        } else if !tally.failures.is_empty() && !complaints.is_empty() {
            println!("  a worker's complaints: {}", &complaints[..complaints.len().min(3000)]);
        }
    }
    tally
}
