//! Child processes that try damaged folders, each with limits of time and memory.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::{Mutex, mpsc};
use std::time::Duration;

use super::worker::{SOUND, Use};
use crate::fixtures::indexes::copy_folder;
use crate::lock;

/// How long one case may take. On an idle machine it takes a hundredth of this.
const TIME: Duration = Duration::from_secs(10);

/// What became of a damaged folder.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// All answers were right.
    Unharmed,
    /// A typed error or a finding that names the file and the place.
    Error,
    /// A typed error that does not.
    Vague,
    /// An answer that was never stored, or an acknowledged example that is missing in silence.
    Wrong,
    Hang,
    /// Killed by a signal, or by a panic.
    Died,
    /// Killed by the limit of memory.
    Memory,
    /// A file outside of the index was changed.
    Outside,
}

impl Class {
    pub fn is_bad(self) -> bool {
        !matches!(self, Self::Unharmed | Self::Error)
    }
}

/// One damaged folder.
pub struct Case {
    /// The file, relative to the index; cases are counted by it.
    pub file: String,
    /// What is done to it.
    pub what: String,
    pub how: Use,
    pub damage: Box<dyn Fn(&Path) + Send + Sync>,
}

impl fmt::Debug for Case {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.what)
    }
}

/// A child that waits for cases.
struct Worker {
    child: Child,
    input: ChildStdin,
    lines: mpsc::Receiver<String>,
}

impl Worker {
    fn start(folder: &Path, sound: &Path) -> Self {
        let copy = folder.join("learn");
        let _ = std::fs::remove_dir_all(&copy);
        copy_folder(sound, &copy);
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["folder::child", "--exact", "--nocapture", "--test-threads=1"])
            .env(SOUND, &copy)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let (sender, lines) = mpsc::channel();
        let output = BufReader::new(child.stdout.take().unwrap());
        std::thread::spawn(move || {
            for line in output.lines().map_while(Result::ok) {
                if let Some(line) = line.strip_prefix('@') {
                    let _ = sender.send(line.to_owned());
                }
            }
        });
        let input = child.stdin.take().unwrap();
        let worker = Self { child, input, lines };
        match worker.lines.recv_timeout(TIME * 6) {
            Ok(line) if line == "ready" => worker,
            other => panic!("the child did not start: {other:?}, {}", worker.end().1),
        }
    }

    /// Ends the child: how it ended, and what it said on the standard error.
    fn end(mut self) -> (std::process::ExitStatus, String) {
        drop(self.input);
        // Already dead, or to be.
        std::thread::sleep(Duration::from_millis(20));
        let _ = self.child.kill();
        let mut said = String::new();
        let _ = self.child.stderr.take().unwrap().read_to_string(&mut said);
        (self.child.wait().unwrap(), said)
    }

    /// The outcome, and the child if it can go on.
    fn try_case(mut self, case: &Case, path: &Path) -> (Option<Self>, Class, String) {
        let request = format!("{}\t{}\t{}\n", case.how.to_text(), path.display(), case.file);
        let asked = self.input.write_all(request.as_bytes());
        let answer = if asked.is_ok() {
            self.lines.recv_timeout(TIME)
        } else {
            Err(mpsc::RecvTimeoutError::Disconnected)
        };
        match answer {
            Ok(line) => {
                let (class, message) = line.split_once('\t').unwrap_or((&line, ""));
                let class = match class {
                    "unharmed" => Class::Unharmed,
                    "error" => Class::Error,
                    "vague" => Class::Vague,
                    "wrong" => Class::Wrong,
                    other => panic!("the child said {other}"),
                };
                let message = message.to_owned();
                (Some(self), class, message)
            }
            Err(mpsc::RecvTimeoutError::Timeout) => {
                self.end();
                (None, Class::Hang, format!("no answer within {TIME:?}"))
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => {
                let (status, said) = self.end();
                let memory = said.contains("memory allocation of") || said.contains("bad_alloc");
                let class = if memory { Class::Memory } else { Class::Died };
                let said: String = said
                    .lines()
                    .filter(|line| !line.trim().is_empty())
                    .take(6)
                    .collect::<Vec<_>>()
                    .join(" / ");
                (None, class, format!("{status} (signal {:?}): {said:.600}", status.signal()))
            }
        }
    }
}

/// A file outside of the index that nothing may change.
pub const VICTIM: &str = "victim";
pub const VICTIM_HOLDS: &[u8] = b"what the user keeps elsewhere";

/// Counts of each class by file.
#[derive(Debug, Default)]
pub struct Outcome {
    pub counts: BTreeMap<String, BTreeMap<Class, usize>>,
    pub bad: Vec<String>,
}

/// Tries all cases; each gets a copy of `sound` in a folder of its own, next to the victim.
pub fn try_all(sound: &Path, scratch: &Path, cases: Vec<Case>) -> Outcome {
    let only = std::env::var("GRADIX_DAMAGE_ONLY").unwrap_or_default();
    let cases: VecDeque<Case> =
        cases.into_iter().filter(|case| format!("{case:?}").contains(&only)).collect();
    let queue = Mutex::new(cases);
    let outcome = Mutex::new(Outcome::default());
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (queue, outcome) = (&queue, &outcome);
            let folder = scratch.join(format!("thread-{thread}"));
            scope.spawn(move || {
                std::fs::create_dir(&folder).unwrap();
                let mut worker = None;
                loop {
                    let Some(case) = lock(queue).pop_front() else { break };
                    let home = folder.join("case");
                    std::fs::create_dir(&home).unwrap();
                    let path: PathBuf = home.join("x.gradix");
                    copy_folder(sound, &path);
                    std::fs::write(home.join(VICTIM), VICTIM_HOLDS).unwrap();
                    (case.damage)(&path);
                    let ready = worker.take().unwrap_or_else(|| Worker::start(&folder, sound));
                    let (left, mut class, mut message) = ready.try_case(&case, &path);
                    worker = left;
                    let victim = std::fs::read(home.join(VICTIM)).unwrap_or_default();
                    if victim != VICTIM_HOLDS {
                        class = Class::Outside;
                        message = format!("the file outside now has {} bytes; {message}", victim.len());
                    }
                    std::fs::remove_dir_all(&home).unwrap();
                    let mut outcome = lock(outcome);
                    *outcome.counts.entry(group(&case.file)).or_default().entry(class).or_default() += 1;
                    let line = format!("{class:?}: {case:?}: {message}");
                    if std::env::var_os("GRADIX_DAMAGE_LIST").is_some() {
                        println!("{line}");
                    }
                    if class.is_bad() {
                        outcome.bad.push(line);
                    }
                }
                if let Some(worker) = worker {
                    worker.end();
                }
            });
        }
    });
    outcome.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// The kind of file, without its number.
fn group(file: &str) -> String {
    let name = file.rsplit('/').next().unwrap_or(file);
    match name {
        name if name.ends_with(".seg") => "*.seg".into(),
        name if name.ends_with(".sst") => "*.sst".into(),
        name if name.ends_with(".log") => "*.log".into(),
        name if name.starts_with("LOG.") => "LOG".into(),
        name => name.split_once('-').map_or(name, |(kind, _)| kind).to_owned(),
    }
}

impl Outcome {
    /// Prints the counts, and fails if there is a bad one.
    #[track_caller]
    pub fn assert_good(self, what: &str, at_least: usize) {
        let mut all = BTreeMap::<Class, usize>::new();
        for (file, counts) in &self.counts {
            println!("{what}: {file:12} {counts:?}");
            for (class, count) in counts {
                *all.entry(*class).or_default() += count;
            }
        }
        let tried: usize = all.values().sum();
        println!("{what}: {tried} cases {all:?}");
        if std::env::var_os("GRADIX_DAMAGE_ONLY").is_none() {
            assert!(tried >= at_least, "only {tried} cases were tried");
        }
        let shown = self.bad.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert!(self.bad.is_empty(), "{} of {tried} cases are bad:\n{shown}", self.bad.len());
    }
}
