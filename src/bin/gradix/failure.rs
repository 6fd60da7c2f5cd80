//! What a command fails with: what, where, and what can be done. The exit code follows from its kind.

use std::error::Error as _;
use std::io;

use gradix::formats::FormatError;
use gradix::{CurvatureError, ErrorKind};

pub type Result<T = (), E = Failure> = std::result::Result<T, E>;

/// Why a command did not do what it was asked for.
#[derive(Debug)]
pub enum Failure {
    /// The library's error, and what was being done, if that is more than the command's name.
    Gradix { error: Box<gradix::Error>, hint: Option<String> },
    /// The command line cannot mean anything.
    Usage(String),
    /// An input does not fit, in a way that is the command's own to find.
    Wrong(String),
    /// A command that found what it looks for, and says so by its exit code: `verify`, and damage.
    Found,
    /// Interrupted; says what was kept.
    Interrupted(String),
    /// A file of the command's own (not of an index, nor of vectors), or stdout.
    Io { what: String, source: io::Error },
    /// Another one, with the place where it was met, and advice that is its own and more.
    In { failure: Box<Self>, place: Option<String>, advice: Option<String> },
}

impl Failure {
    /// Says what can be done about an error, where its kind says too little.
    pub fn hint(self, hint: impl Into<String>) -> Self {
        match self {
            Self::Gradix { error, .. } => Self::Gradix { error, hint: Some(hint.into()) },
            other => other,
        }
    }

    /// Says where it was met: an input, a row.
    pub fn at(self, place: impl Into<String>) -> Self {
        let advice = self.advice().map(str::to_owned);
        Self::In { failure: Box::new(self), place: Some(place.into()), advice }
    }

    /// Says more about what can be done, or about what is kept.
    pub fn and(self, more: String) -> Self {
        let advice = match self.advice() {
            Some(advice) => format!("{advice}; {more}"),
            None => more,
        };
        Self::In { failure: Box::new(self), place: None, advice: Some(advice) }
    }

    /// The error of an append, if it is one.
    pub fn of_append(&self) -> Option<&gradix::AppendError> {
        match self {
            Self::Gradix { error, .. } => match &**error {
                gradix::Error::Append(error) => Some(error),
                _ => None,
            },
            Self::In { failure, .. } => failure.of_append(),
            _ => None,
        }
    }

    /// Says what to do where there is no index.
    pub fn hint_if_missing(self, path: &std::path::Path) -> Self {
        if self.code() != 4 {
            return self;
        }
        let hint = format!("`gradix create {}` makes one", path.display());
        self.hint(hint)
    }

    /// A file that could not be read or written.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        |source| Self::Io { what, source }
    }

    /// Stdout could not be written.
    pub fn stdout(source: io::Error) -> Self {
        Self::Io { what: "write to stdout".into(), source }
    }

    /// Whether nobody reads stdout any more, which is no failure.
    pub fn is_closed_pipe(&self) -> bool {
        let closed = |error: &io::Error| error.kind() == io::ErrorKind::BrokenPipe;
        match self {
            Self::Io { source, .. } => closed(source),
            Self::In { failure, .. } => failure.is_closed_pipe(),
            Self::Gradix { error, .. } => of_file(error).is_some_and(closed),
            _ => false,
        }
    }

    /// The exit code, as `gradix --help` lists it.
    pub fn code(&self) -> u8 {
        match self {
            Self::Found => 1,
            Self::Usage(_) => 2,
            Self::Wrong(_) => 3,
            Self::Interrupted(_) => 130,
            Self::In { failure, .. } => failure.code(),
            Self::Io { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => 4,
                io::ErrorKind::AlreadyExists => 5,
                _ => 8,
            },
            Self::Gradix { error, .. } => match error.kind() {
                ErrorKind::Io
                    if of_file(error).is_some_and(|cause| cause.kind() == io::ErrorKind::NotFound) =>
                {
                    4
                }
                ErrorKind::InvalidInput => 3,
                ErrorKind::NotFound => 4,
                ErrorKind::AlreadyExists => 5,
                ErrorKind::Busy => 6,
                ErrorKind::Damaged => 7,
                ErrorKind::Newer | ErrorKind::Unsupported => 9,
                ErrorKind::InvalidState | ErrorKind::Poisoned | ErrorKind::Expired => 10,
                ErrorKind::Cancelled => 130,
                // `Io`, and kinds that come later.
                _ => 8,
            },
        }
    }

    /// The name of its kind, for programs.
    pub fn kind(&self) -> &'static str {
        match self.code() {
            1 => "found",
            2 => "usage",
            3 => "invalid_input",
            4 => "not_found",
            5 => "already_exists",
            6 => "busy",
            7 => "damaged",
            9 => "unsupported",
            10 => "invalid_state",
            130 => "interrupted",
            _ => "io",
        }
    }

    /// What went wrong, with all that caused it; a line.
    pub fn message(&self) -> String {
        match self {
            Self::Found => String::new(),
            Self::In { failure, place: Some(place), .. } => format!("{place}: {}", failure.message()),
            Self::In { failure, place: None, .. } => failure.message(),
            Self::Usage(what) | Self::Wrong(what) | Self::Interrupted(what) => what.clone(),
            Self::Io { what, source } => format!("cannot {what}: {source}"),
            Self::Gradix { error, .. } => {
                let mut message = error.to_string();
                let mut cause = error.source();
                while let Some(source) = cause {
                    message.push_str(": ");
                    message.push_str(&source.to_string());
                    cause = source.source();
                }
                message
            }
        }
    }

    /// What can be done about it.
    pub fn advice(&self) -> Option<&str> {
        let (error, hint) = match self {
            Self::Gradix { error, hint } => (error, hint),
            Self::In { advice, .. } => return advice.as_deref(),
            _ => return None,
        };
        if let Some(hint) = hint {
            return Some(hint);
        }
        if let Some(advice) = of_curvature(error) {
            return Some(advice);
        }
        Some(match error.kind() {
            ErrorKind::Busy => "another process writes to the index; run this again when it is done",
            ErrorKind::Damaged if matches!(**error, gradix::Error::Format(_)) => {
                "the file is cut off or damaged, or not of this format: make it or copy it again"
            }
            ErrorKind::Damaged => {
                "`gradix verify` lists all damage of an index; restore it from a copy, or `gradix recover` it"
            }
            ErrorKind::Newer => "it was written by a later gradix: update this one",
            ErrorKind::Expired => "`gradix log` lists the generations that there are",
            ErrorKind::Poisoned => "what was committed is intact: look at the disk, then run this again",
            _ => return None,
        })
    }
}

/// The system's error, if a file of vectors is what could not be read or written.
fn of_file(error: &gradix::Error) -> Option<&io::Error> {
    match error {
        gradix::Error::Format(FormatError::Io { source, .. }) => Some(source),
        _ => None,
    }
}

/// What can be done about a curvature that cannot be used.
fn of_curvature(error: &gradix::Error) -> Option<&'static str> {
    let mut cause: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = cause {
        if let Some(error) = error.downcast_ref::<CurvatureError>() {
            return match error {
                CurvatureError::NotFitted { .. } => {
                    Some("`gradix fit` makes it; `gradix stats` lists those that there are")
                }
                CurvatureError::Missing { .. } => {
                    Some("`gradix fit` brings it up to date; --allow-uncovered takes it as it is")
                }
                CurvatureError::NoCurvature => Some("give --curvature"),
                CurvatureError::NoSelfInfluence { .. } | CurvatureError::RowsWithoutSelfInfluence { .. } => {
                    Some("`gradix fit --self-influence` computes it, with the same --kappa and --rank")
                }
                _ => None,
            };
        }
        cause = error.source();
    }
    None
}

impl<E: Into<gradix::Error>> From<E> for Failure {
    fn from(error: E) -> Self {
        Self::Gradix { error: Box::new(error.into()), hint: None }
    }
}
