//! Many examples in many segments, by a process that may have 256 open files and 2 GiB of data: the time, memory
//! and descriptors of each operation, and what each grows with.
//!
//! Three indexes are built, by a process each: with a third of the examples in a third of the segments, with all
//! of them in a third of the segments, and with all in all. From the first to the second only examples are
//! added, from the second to the third only segments; so the growth with either is told apart, as an exponent. The
//! last columns are what 10^8 examples in 20,000 segments would take if each term goes on by its slope: an
//! estimate, not a measurement (`>` where an exponent above 1.3 says that it does not).
//!
//! - `GRADIX_SCALE_EXAMPLES` (default 200,000; 10000000 for the full size) and `GRADIX_SCALE_SEGMENTS` (100;
//!   2000);
//! - `GRADIX_SCALE_FILES` (256) and `GRADIX_SCALE_MIB` (2048): the limits;
//! - `GRADIX_BENCH_FOLDER`: where the indexes are built.
//!
//! An operation that fails has its error in the table, and the others go on. Memory is the growth of the peak of
//! resident memory while the operation runs, mapped pages of files included.

#[cfg(not(target_os = "linux"))]
fn main() {
    println!("this benchmark sets limits and reads /proc: Linux only");
}

#[cfg(target_os = "linux")]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    linux::main()
}

#[cfg(target_os = "linux")]
mod linux {
    use std::error::Error;
    use std::fs;
    use std::io::{BufRead as _, BufReader};
    use std::path::Path;
    use std::process::{Command, Stdio};
    use std::time::{Duration, Instant};

    use gradix::sketch::{Sketch, SketchSpec};
    use gradix::{AppendError, CompactOptions, Encoding, GcOptions, Index, Row, Schema, Writer};

    type Outcome<T = ()> = Result<T, Box<dyn Error>>;

    const ROLE: &str = "GRADIX_SCALE_ROLE";
    const DIMS: u32 = 16;
    const BATCH: u64 = 4096;
    /// The ids that each lookup asks for.
    const LOOKUPS: u64 = 1000;
    const LARGE: f64 = 1e8;
    const LARGE_SEGMENTS: f64 = 20_000.0;

    pub fn main() -> Outcome {
        match std::env::var(ROLE).as_deref() {
            Ok("run") => run(),
            Ok("reader") => read(),
            _ => compare(),
        }
    }

    fn number(name: &str, default: u64) -> Outcome<u64> {
        std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
    }

    /// What one operation took.
    #[derive(Debug, Clone, Copy, PartialEq)]
    struct Cost {
        seconds: f64,
        mib: f64,
        files: u64,
    }

    /// The operations of one size: name, and cost or error.
    type Table = Vec<(String, Result<Cost, String>)>;

    /// Runs the three sizes and prints the table.
    fn compare() -> Outcome {
        let (examples, segments) =
            (number("GRADIX_SCALE_EXAMPLES", 200_000)?, number("GRADIX_SCALE_SEGMENTS", 100)?);
        let sizes = [(examples / 3, segments / 3), (examples, segments / 3), (examples, segments)];
        let tables = sizes.map(|(examples, segments)| start(examples, segments.max(1)));
        let [small, wide, full] = tables;
        let (small, wide, full) = (small?, wide?, full?);
        println!("\n{examples} examples in {segments} segments");
        println!(
            "{:<44} {:>10} {:>9} {:>6} | {:>9} {:>9} | {:>9} {:>9} | {:>10} {:>9}",
            "operation",
            "seconds",
            "MiB",
            "files",
            "time ~ n^",
            "segs^",
            "MiB ~ n^",
            "segs^",
            "s at 1e8",
            "MiB"
        );
        let cost = |table: &Table, name: &str| {
            table.iter().find(|(found, _)| found == name).and_then(|(_, cost)| cost.clone().ok())
        };
        let ratio = |sizes: [u64; 2]| sizes[1] as f64 / sizes[0].max(1) as f64;
        let by = [ratio([sizes[0].0, sizes[1].0]), ratio([sizes[1].1, sizes[2].1])];
        for (name, found) in &full {
            let found = match found {
                Ok(found) => *found,
                Err(error) => {
                    println!("{name:<44} {error}");
                    continue;
                }
            };
            print!("{name:<44} {:>10.4} {:>9.1} {:>6}", found.seconds, found.mib, found.files);
            let (Some(small), Some(wide)) = (cost(&small, name), cost(&wide, name)) else {
                println!(" | failed at another size");
                continue;
            };
            let mut estimates = Vec::new();
            let costs = [small, wide, found];
            // Below the last number it is noise.
            let measured = [(costs.map(|cost| cost.seconds), 0.01), (costs.map(|cost| cost.mib), 4.0)];
            for ([small, wide, full], noise) in measured {
                let exponent = |from: f64, to: f64, by: f64| (to.max(noise) / from.max(noise)).ln() / by.ln();
                let exponents = [exponent(small, wide, by[0]), exponent(wide, full, by[1])];
                print!(" | {:>9.2} {:>9.2}", exponents[0], exponents[1]);
                // Each term by its slope; what grows faster than that is an underestimate.
                let slope = |from: f64, to: f64, over: u64| ((to - from) / over.max(1) as f64).max(0.0);
                let of_examples = slope(small, wide, sizes[1].0 - sizes[0].0);
                let of_segments = slope(wide, full, sizes[2].1 - sizes[1].1);
                let more = of_examples * (LARGE - examples as f64)
                    + of_segments * (LARGE_SEGMENTS - segments as f64);
                let steep = exponents.iter().any(|&exponent| exponent > 1.3);
                estimates.push(format!("{}{:.1}", if steep { ">" } else { "" }, full + more));
            }
            println!(" | {:>10} {:>9}", estimates[0], estimates[1]);
        }
        Ok(())
    }

    /// Runs one size in a process of its own, and shows its lines as they come.
    fn start(examples: u64, segments: u64) -> Outcome<Table> {
        println!("\n{examples} examples in {segments} segments: seconds, MiB, files");
        let mut child = Command::new(std::env::current_exe()?)
            .env(ROLE, "run")
            .env("GRADIX_SCALE_EXAMPLES", examples.to_string())
            .env("GRADIX_SCALE_SEGMENTS", segments.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let mut table = Table::new();
        for line in BufReader::new(child.stdout.take().ok_or("no output")?).lines() {
            let line = line?;
            println!("  {}", line.replace('\t', "  "));
            let parts: Vec<&str> = line.split('\t').collect();
            let cost = match parts[..] {
                [_, seconds, mib, files] => {
                    Ok(Cost { seconds: seconds.parse()?, mib: mib.parse()?, files: files.parse()? })
                }
                _ => Err(parts[1..].join(" ")),
            };
            table.push((parts[0].to_owned(), cost));
        }
        let status = child.wait()?;
        if !status.success() {
            println!("  {status}");
        }
        Ok(table)
    }

    fn set_limits() -> Outcome {
        let files = number("GRADIX_SCALE_FILES", 256)?;
        let bytes = number("GRADIX_SCALE_MIB", 2048)? << 20;
        for (resource, most) in [(libc::RLIMIT_NOFILE, files), (libc::RLIMIT_DATA, bytes)] {
            let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
            // SAFETY: `limit` is a valid rlimit for the time of the call, which only reads it.
            if unsafe { libc::setrlimit(resource, &raw const limit) } != 0 {
                return Err(std::io::Error::last_os_error().into());
            }
        }
        Ok(())
    }

    /// A number of KiB in /proc/self/status.
    fn memory(field: &str) -> Outcome<f64> {
        let status = fs::read_to_string("/proc/self/status")?;
        let line = status.lines().find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        let kib = line.and_then(|line| line.trim().strip_suffix(" kB")).ok_or("no such field")?;
        Ok(kib.trim().parse()?)
    }

    fn measure_cost<T>(work: impl FnOnce() -> Outcome<T>) -> Outcome<(T, Cost)> {
        // Sets the peak to what is resident now.
        fs::write("/proc/self/clear_refs", "5")?;
        let before = memory("VmRSS")?;
        let start = Instant::now();
        let done = work()?;
        let seconds = start.elapsed().as_secs_f64();
        let mib = (memory("VmHWM")? - before).max(0.0) / 1024.0;
        let files = fs::read_dir("/proc/self/fd")?.count() as u64;
        Ok((done, Cost { seconds, mib, files }))
    }

    fn told(error: &dyn Error) -> String {
        let mut text = error.to_string();
        let mut source = error.source();
        while let Some(cause) = source {
            text = format!("{text}: {cause}");
            source = cause.source();
        }
        text.replace(['\t', '\n'], " ")
    }

    /// Prints the cost of an operation, or its error.
    fn measure<T>(name: &str, work: impl FnOnce() -> Outcome<T>) -> Option<T> {
        match measure_cost(work) {
            Ok((done, Cost { seconds, mib, files })) => {
                println!("{name}\t{seconds:.6}\t{mib:.3}\t{files}");
                Some(done)
            }
            Err(error) => {
                println!("{name}\tfailed: {}", told(&*error));
                None
            }
        }
    }

    /// Ids in no order, so that neighbours in the manifest are not neighbours in time.
    fn id(i: u64) -> String {
        format!("{:016x}", i.wrapping_mul(0x9E37_79B9_7F4A_7C15))
    }

    fn spec() -> SketchSpec {
        SketchSpec::dense("scale", "1", [("all", DIMS)])
    }

    fn sketch(i: u64) -> Outcome<Sketch> {
        let values = (0..u64::from(DIMS)).map(|dim| {
            let x = (i * 31 + dim + 1).wrapping_mul(0xBF58_476D_1CE4_E5B9);
            (x >> 40) as f32 / (1u32 << 23) as f32 - 1.0
        });
        Ok(Sketch::dense(spec(), values.collect())?)
    }

    /// Appends the examples of a range.
    fn append(writer: &mut Writer, range: std::ops::Range<u64>) -> Outcome {
        let mut next = range.start;
        while next < range.end {
            let numbers = next..range.end.min(next + BATCH);
            next = numbers.end;
            let sketches = numbers.clone().map(sketch).collect::<Outcome<Vec<_>>>()?;
            let batch: Vec<_> = numbers.zip(&sketches).map(|(i, sketch)| (id(i), Row::new(sketch))).collect();
            writer.append_batch(&batch)?;
        }
        Ok(())
    }

    /// Builds an index of one size and does everything with it.
    fn run() -> Outcome {
        set_limits()?;
        let (examples, segments) = (number("GRADIX_SCALE_EXAMPLES", 0)?, number("GRADIX_SCALE_SEGMENTS", 1)?);
        let folder = match std::env::var_os("GRADIX_BENCH_FOLDER") {
            Some(folder) => tempfile::tempdir_in(folder)?,
            None => tempfile::tempdir()?,
        };
        let path = folder.path().join("scale.gradix");
        let index = Index::create(&path, &Schema::new(spec(), Encoding::I8)?)?;
        let built = measure("build", || {
            let mut writer = index.writer()?;
            for segment in 0..segments {
                append(&mut writer, segment * examples / segments..(segment + 1) * examples / segments)?;
                writer.commit()?;
            }
            Ok(())
        });
        drop(index);
        built.ok_or("there is nothing to measure")?;

        let index = measure("open", || Ok(Index::open(&path)?)).ok_or("cannot open the index")?;
        read_and_rank(&index, examples);
        let writer = measure("open the writer", || Ok(index.writer()?));
        if let Some(mut writer) = writer {
            change(&index, &mut writer, examples);
            // What it holds goes before the recovery, which needs its lock.
            measure("close the writer", || {
                drop(writer);
                Ok(())
            });
        }
        drop(index);
        fs::rename(path.join("manifest"), path.join("lost"))?;
        let recovered = measure("recover a lost manifest", || Ok(Index::recover(&path)?));
        if let Some(recovery) = recovered {
            if !recovery.left_out.is_empty() {
                println!("left out by the recovery\tfailed: {} segments", recovery.left_out.len());
            }
            measure("open and snapshot after it", || Ok(Index::open(&path)?.snapshot()?.rows()));
        }
        Ok(())
    }

    fn read_and_rank(index: &Index, examples: u64) {
        let Some(snapshot) = measure("snapshot, the first", || Ok(index.snapshot()?)) else { return };
        measure("snapshot, with its segments open", || Ok(index.snapshot()?));
        measure("get 1000 ids that exist", || {
            for i in 0..LOOKUPS {
                let id = id(i * 7919 % examples);
                if snapshot.get(&id)?.is_none() {
                    return Err(format!("{id} is missing").into());
                }
            }
            Ok(())
        });
        measure("get 1000 ids that do not", || {
            for i in 0..LOOKUPS {
                if snapshot.get(id(1 << 40 | i))?.is_some() {
                    return Err("an id that nobody has appended".into());
                }
            }
            Ok(())
        });
        measure("scan for the top 10 of one query", || {
            let ranking = snapshot.scan(&[sketch(5)?])?.top_k(10).run()?;
            match ranking.proponents(0).len() {
                10 => Ok(()),
                found => Err(format!("{found} hits").into()),
            }
        });
    }

    fn change(index: &Index, writer: &mut Writer, examples: u64) {
        let more = (examples / 10).max(1);
        measure("refuse 1000 ids that exist", || {
            for i in 0..LOOKUPS {
                match writer.append(id(i * 7919 % examples), &sketch(i)?) {
                    Err(AppendError::DuplicateId { .. }) => {}
                    other => return Err(format!("{other:?}").into()),
                }
            }
            Ok(())
        });
        measure("append n/10 examples", || append(writer, examples..examples + more));
        measure("commit n/10 examples", || Ok(writer.commit()?));
        measure("snapshot after the commit", || Ok(index.snapshot()?.rows()));
        measure("delete n/100 examples, scattered", || {
            for i in 0..examples / 100 {
                writer.delete(id(i * 100))?;
            }
            Ok(())
        });
        measure("commit n/100 deletions", || Ok(writer.commit()?));
        measure("snapshot after the deletions", || Ok(index.snapshot()?.rows()));
        measure("collect nothing", || Ok(writer.gc(GcOptions::default())?));
        in_another_process(index);
        measure("verify", || match index.verify()? {
            report if report.is_sound() => Ok(()),
            report => Err(report.findings[0].message.clone().into()),
        });
        measure("compact into few segments", || Ok(writer.compact(CompactOptions::default())?));
        measure("snapshot after the compaction", || Ok(index.snapshot()?.rows()));
        measure("collect all that is old", || Ok(writer.gc(GcOptions::default().grace(Duration::ZERO))?));
        measure("snapshot after the collection", || Ok(index.snapshot()?.rows()));
    }

    /// A reader beside the writer, whose costs are its own.
    fn in_another_process(index: &Index) {
        let reader = std::env::current_exe().and_then(|program| {
            Command::new(program).env(ROLE, "reader").env("GRADIX_SCALE_PATH", index.path()).output()
        });
        match reader {
            Ok(output) => print!("{}", String::from_utf8_lossy(&output.stdout)),
            Err(error) => println!("another process\tfailed: {}", told(&error)),
        }
    }

    fn read() -> Outcome {
        set_limits()?;
        let path = std::env::var_os("GRADIX_SCALE_PATH").ok_or("no path")?;
        let index = measure("open beside the writer, another process", || Ok(Index::open(Path::new(&path))?));
        let index = index.ok_or("cannot open the index")?;
        measure("snapshot beside the writer, another process", || Ok(index.snapshot()?.rows()));
        Ok(())
    }
}
