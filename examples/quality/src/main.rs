//! Measures how good rankings are, and prints one table: baselines, exact inner products, gradix with and without
//! curvature, and TRAK, on what retraining says (LDS) and on labels that were made wrong. `scripts/quality.sh` builds and
//! runs it.
//!
//! ```text
//! quality [FOLDER [RESULTS]]    FOLDER gets quality.csv and quality.svg (default target/quality);
//!                               RESULTS are the demo's (default target/demo/results.json), left out if not there
//! ```

mod demo;
#[path = "../../../tests/fixtures/digits.rs"]
#[allow(dead_code, reason = "the tests use what this program does not")]
mod digits;
mod exact;
mod indexed;
mod linear;
mod measure;
mod plot;
mod table;
mod trak;

use std::error::Error;
use std::fs;
use std::path::PathBuf;

fn main() -> Result<(), Box<dyn Error>> {
    let mut arguments = std::env::args().skip(1).map(PathBuf::from);
    let folder = arguments.next().unwrap_or_else(|| "target/quality".into());
    let results = arguments.next().unwrap_or_else(|| "target/demo/results.json".into());
    fs::create_dir_all(&folder)?;
    let mut lines = Vec::new();
    for task in ["digits", "flip"] {
        measure::task(task, &mut lines)?;
    }
    if results.exists() {
        lines.extend(demo::lines(&fs::read_to_string(&results)?)?);
    } else {
        println!("no {}: without the demo's tasks (`make demo`)", results.display());
    }
    print!("{}", table::text(&lines));
    fs::write(folder.join("quality.csv"), table::csv(&lines))?;
    fs::write(folder.join("quality.svg"), plot::svg(&lines))?;
    println!("{0}/quality.csv and {0}/quality.svg", folder.display());
    Ok(())
}
