//! `gradix recover`

use std::path::PathBuf;

use clap::Args;
use gradix::{Index, LeftOutReason, RecoverError};

use crate::failure::{Failure, Result};
use crate::output::Output;
use crate::units::of;

/// Build a lost manifest anew
///
/// Builds the folder `manifest` of an index from its segments, each of which is verified. For an index whose manifest is lost or
/// damaged, and of which there is no copy. Move what is left of the manifest away first: nothing is overwritten or removed. Takes
/// about as long as `gradix verify`, and can be repeated if it is interrupted.
#[derive(Debug, Args)]
#[command(after_help = "What cannot come back:
    deletions      deleted examples are there again, unless a compaction has dropped them
    generations    all but the last
    commits        their times and payloads
    artifacts      what `gradix fit` made, which it makes again

Examples:
    mv my.gradix/manifest my.gradix-manifest.damaged
    gradix recover my.gradix
    gradix verify my.gradix")]
pub struct Recover {
    /// The index
    index: PathBuf,
}

impl Recover {
    pub fn run(&self, output: &Output) -> Result {
        let recovery = match Index::recover(&self.index) {
            Err(error @ RecoverError::ManifestExists { .. }) => {
                let index = self.index.display();
                let hint = format!(
                    "`mv {index}/manifest {index}-manifest.damaged`, if it is lost or damaged; or take a copy of the index"
                );
                return Err(Failure::from(error).hint(hint));
            }
            other => other?,
        };
        output.result(&recovery, || {
            let mut text = format!(
                "recovered generation {}: {}, {}, from {}\n",
                recovery.generation,
                of(recovery.examples, "example"),
                of(recovery.rows, "row"),
                of(recovery.segments.len() as u64, "segment")
            );
            for left_out in &recovery.left_out {
                let why = match &left_out.reason {
                    LeftOutReason::OtherName => "its name is not that of a segment".to_owned(),
                    LeftOutReason::Unusable { error } => error.clone(),
                    LeftOutReason::Damaged { findings } => {
                        let all: Vec<&str> = findings.iter().map(|finding| &finding.message[..]).collect();
                        all.join("; ")
                    }
                    LeftOutReason::NotCommitted { generation } => {
                        format!("of generation {generation}, which was never committed")
                    }
                    _ => "for a reason that is not known here".to_owned(),
                };
                text.push_str(&format!("left out: {}: {why}\n", left_out.file));
            }
            if recovery.committed.is_none() {
                text.push_str("the file COMMITTED is lost too: rows of a commit that was never acknowledged may be among them\n");
            }
            if recovery.ambiguous > 0 {
                let rows = of(recovery.ambiguous, "example");
                text.push_str(&format!("{rows} with several versions of which it is not known which is the last\n"));
            }
            text.push_str("lost: deletions, earlier generations, times and payloads of commits, what was fitted\n");
            text
        })
    }
}
