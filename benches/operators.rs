//! What do the operators cost beside the scans that they are made of?
//!
//! Prints one table: the least seconds of three runs that take turns with the scan, the seconds of the scan, and
//! what of the rest is for each unit. `GRADIX_BENCH_ROWS` sets the number of rows (20,000).

use std::ops::ControlFlow;
use std::time::Instant;

use gradix::operators::{BySource, Coreset, Duplicates, Mixture, Objective, Selection};
use gradix::sketch::{Sketch, SketchSpec};
use gradix::{Encoding, Index, Metric, Row, Schema, Snapshot};

#[path = "../tests/fixtures/random.rs"]
#[allow(dead_code, reason = "no program needs all of it")]
mod random;

use random::Random;

type Outcome<T = ()> = Result<T, Box<dyn std::error::Error>>;

const DIMS: u32 = 1024;
const GROUPS: usize = 200;

fn main() -> Outcome {
    let rows = std::env::var("GRADIX_BENCH_ROWS").map_or(Ok(20_000), |rows| rows.parse())?;
    println!("{rows} rows x {DIMS}, {} threads", std::thread::available_parallelism()?);
    println!("{:<44} {:>9} {:>9} {:>24}", "operator", "seconds", "scan", "the rest");
    for encoding in [Encoding::I8, Encoding::F16] {
        let folder = tempfile::tempdir()?;
        let (snapshot, queries) = store(folder.path(), encoding, rows)?;
        operators(&snapshot, &queries, encoding.name())?;
    }
    mixtures()
}

/// Rows around common directions, in eight sources.
fn store(folder: &std::path::Path, encoding: Encoding, rows: usize) -> Outcome<(Snapshot, Vec<Sketch>)> {
    let spec = SketchSpec::dense("bench", "1", [("all", DIMS)]);
    let index = Index::create(folder.join("bench.gradix"), &Schema::new(spec.clone(), encoding)?)?;
    let mut random = Random(1);
    let directions: Vec<_> = (0..GROUPS).map(|_| random.normals(DIMS as usize)).collect();
    let mut around = |group: usize, noise: f32| {
        let noises = random.normals(DIMS as usize);
        let values = directions[group].iter().zip(noises).map(|(x, n)| x + noise * n);
        Sketch::dense(spec.clone(), values.collect())
    };
    let mut writer = index.writer()?;
    for row in 0..rows {
        let sketch = around(row * 7 % GROUPS, [0.2, 0.5, 1.0, 2.0][row % 4])?;
        writer.append_rows(
            format!("{row:08}"),
            &[Row::new(&sketch).source(["a", "b", "c", "d", "e", "f", "g", "h"][row % 8])],
        )?;
    }
    writer.commit()?;
    let queries = (0..64).map(|query| around(query, 0.5)).collect::<Result<_, _>>()?;
    Ok((index.snapshot()?, queries))
}

/// The least seconds of each of two pieces of work that take turns.
fn seconds(
    runs: usize,
    mut first: impl FnMut() -> Outcome,
    mut second: impl FnMut() -> Outcome,
) -> Outcome<(f64, f64)> {
    let mut least = (f64::INFINITY, f64::INFINITY);
    let timed = |work: &mut dyn FnMut() -> Outcome| -> Outcome<f64> {
        let start = Instant::now();
        work()?;
        Ok(start.elapsed().as_secs_f64())
    };
    for _ in 0..runs {
        least = (least.0.min(timed(&mut first)?), least.1.min(timed(&mut second)?));
    }
    Ok(least)
}

fn print(name: &str, encoding: &str, seconds: f64, scan: f64, rest: &str) {
    println!("{:<44} {seconds:>9.3} {scan:>9.3} {rest:>24}", format!("{name}, {encoding}"));
}

fn operators(snapshot: &Snapshot, queries: &[Sketch], encoding: &str) -> Outcome {
    let rows = snapshot.rows() as f64;
    let plain = |count: usize| -> Outcome {
        snapshot.scan(&queries[..count])?.scores(|_| ControlFlow::Continue(()))?;
        Ok(())
    };
    for count in [1, 64] {
        let operator = || {
            BySource::new().run(snapshot.scan(&queries[..count])?)?;
            Ok(())
        };
        let (operator, scan) = seconds(3, operator, || plain(count))?;
        let rest = 1e9 * (operator - scan) / (rows * 1000.0 * count as f64);
        let name = format!("BySource, {count} queries, 1,000 replicates");
        print(&name, encoding, operator, scan, &format!("{rest:.2} ns a score"));
    }
    let operator = || {
        Selection::fraction(0.05).task(0..32).task(32..64).run(snapshot.scan(queries)?)?;
        Ok(())
    };
    let (operator, scan) = seconds(3, operator, || plain(64))?;
    let rest = 1e9 * (operator - scan) / rows;
    print("Selection, 64 queries, 5%", encoding, operator, scan, &format!("{rest:.0} ns a row"));
    for objective in [Objective::Coverage { share: 0.1 }, Objective::FacilityLocation] {
        let mut passes = 0;
        let operator = || {
            passes = Coreset::new(500).objective(objective).choose(|| snapshot.scan(queries))?.passes;
            Ok(())
        };
        let (operator, scan) = seconds(3, operator, || plain(64))?;
        let rest = format!("{passes} passes, {:.1} scans", operator / scan);
        print(&format!("Coreset of 500, {objective:?}"), encoding, operator, scan, &rest);
    }
    // As many rankings of as many queries, of which one in eight is run.
    let spread: Vec<Sketch> = queries.iter().cycle().take(256).cloned().collect();
    let mut found = 0;
    let operator = || {
        found = Duplicates::new(0.95).run(snapshot, |_| ControlFlow::Continue(()))?;
        Ok(())
    };
    let batches = (rows / 256.0).ceil();
    let rankings = || {
        for _ in 0..batches as usize / 8 {
            snapshot.scan(&spread)?.top_k(10).metric(Metric::Cosine).run()?;
        }
        Ok(())
    };
    let (operator, scans) = seconds(1, operator, rankings)?;
    let rest = format!("{:.1} G products/s", rows * rows * f64::from(DIMS) / operator / 1e9);
    print(&format!("Duplicates, {found} pairs"), encoding, operator, 8.0 * scans, &rest);
    Ok(())
}

fn mixtures() -> Outcome {
    let mut random = Random(2);
    for outputs in [2, 50] {
        let mut distribution = || {
            let mut numbers: Vec<f32> = (0..outputs).map(|_| random.uniform().powi(4) as f32).collect();
            let sum: f32 = numbers.iter().sum();
            numbers.iter_mut().for_each(|number| *number /= sum);
            numbers
        };
        let prompts: Vec<Vec<Vec<f32>>> =
            (0..100).map(|_| (0..6).map(|_| distribution()).collect()).collect();
        let start = Instant::now();
        let fit = Mixture::new().replicates(20).fit(&prompts)?;
        let (name, rest) =
            (format!("Mixture, 100 prompts x 5 x {outputs}"), format!("{} iterations", fit.iterations));
        print(&name, "20 replicates", start.elapsed().as_secs_f64(), 0.0, &rest);
    }
    Ok(())
}
