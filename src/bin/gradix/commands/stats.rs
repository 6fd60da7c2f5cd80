//! `gradix stats`

use std::collections::BTreeMap;
use std::io;

use clap::Args;
use gradix::{Encoding, Schema, Stats as Counts};
use serde::Serialize;

use super::At;
use crate::failure::{Failure, Result};
use crate::id;
use crate::output::Output;
use crate::table::{Column, Table};
use crate::units::{bytes, count, of};

/// Count rows and bytes
///
/// Says how many rows an index has, how they are stored, and what its columns, segments and artifacts take on disk. Reads no
/// rows.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix stats my.gradix
    gradix stats my.gradix --blocks --segments
    gradix stats my.gradix --json | jq .rows")]
pub struct Stats {
    #[command(flatten)]
    at: At,
    /// Show the columns of each block
    #[arg(long)]
    blocks: bool,
    /// Show each segment
    #[arg(long)]
    segments: bool,
}

/// What `--json` prints.
#[derive(Serialize)]
struct Printed<'a> {
    uuid: String,
    #[serde(flatten)]
    counts: &'a Counts,
    schema: &'a Schema,
}

impl Stats {
    pub fn run(&self, output: &Output) -> Result {
        let (index, snapshot) = self.at.open()?;
        let counts = snapshot.stats()?;
        let schema = index.schema();
        if output.is_json() {
            let printed = Printed { uuid: index.uuid().to_string(), counts: &counts, schema };
            return output.stream(|out| output.line(out, &printed));
        }
        output.stream(|out| self.text(&counts, schema, out).map_err(Failure::stdout))
    }

    fn text(&self, counts: &Counts, schema: &Schema, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(
            out,
            "{}: {} in {}, {}, generation {}",
            self.at.index.display(),
            of(counts.rows, "row"),
            of(counts.segments.len() as u64, "segment"),
            bytes(counts.bytes),
            counts.generation
        )?;
        if counts.dead_rows > 0 {
            let dead = of(counts.dead_rows, "dead row");
            writeln!(out, "{dead}, which `gradix compact` drops")?;
        }
        writeln!(out, "\nspec      {}", id::shown(schema.spec().to_string().as_bytes()))?;
        writeln!(out, "encoding  {}, {} a row", encodings(schema), bytes(schema.row_bytes() as u64))?;
        if !schema.tiers().is_empty() {
            let tiers: Vec<&str> = schema.tiers().iter().map(|tier| tier.name()).collect();
            writeln!(out, "tiers     {}", tiers.join(", "))?;
        }
        writeln!(out)?;
        self.columns(counts, out)?;
        if !counts.artifacts.is_empty() {
            writeln!(out)?;
            artifacts(counts, out)?;
        }
        if self.segments {
            writeln!(out)?;
            segments(counts, out)?;
        }
        Ok(())
    }

    fn columns(&self, counts: &Counts, out: &mut dyn io::Write) -> io::Result<()> {
        let mut columns: Vec<(String, Option<&str>, u64)> = Vec::new();
        for column in &counts.columns {
            let name = match &column.tier {
                Some(tier) => format!("{} of {tier} tier", column.name),
                None => column.name.clone(),
            };
            let block = column.block.as_deref().filter(|_| self.blocks);
            match columns.iter_mut().find(|(known, of, _)| *known == name && *of == block) {
                Some((_, _, sum)) => *sum += column.bytes,
                None => columns.push((name, block, column.bytes)),
            }
        }
        let mut table = Table::new([
            Column::text("column"),
            Column::number("size"),
            Column::number("share"),
            Column::text("block"),
        ]);
        for (name, block, size) in columns {
            let share = format!("{:.1}%", 100.0 * size as f64 / counts.bytes.max(1) as f64);
            table.row(
                out,
                vec![
                    name,
                    bytes(size),
                    share,
                    block.map_or_else(String::new, |block| id::shown(block.as_bytes())),
                ],
            )?;
        }
        table.flush(out)
    }
}

/// The encodings, each with the number of its blocks if there are several.
fn encodings(schema: &Schema) -> String {
    let mut blocks: BTreeMap<String, u64> = BTreeMap::new();
    for encoding in schema.encodings() {
        *blocks.entry(Encoding::name(*encoding).to_owned()).or_default() += 1;
    }
    let each = blocks.iter().map(|(encoding, &number)| match blocks.len() {
        1 => encoding.clone(),
        _ => format!("{encoding} ({})", of(number, "block")),
    });
    each.collect::<Vec<_>>().join(", ")
}

fn artifacts(counts: &Counts, out: &mut dyn io::Write) -> io::Result<()> {
    let mut table = Table::new([
        Column::text("artifact"),
        Column::number("size"),
        Column::number("rows"),
        Column::number("uncovered"),
        Column::number("stale"),
    ]);
    for artifact in &counts.artifacts {
        let covered = &artifact.covered;
        table.row(
            out,
            vec![
                artifact.name.clone(),
                bytes(artifact.bytes),
                count(covered.rows),
                count(covered.uncovered),
                count(covered.stale),
            ],
        )?;
    }
    table.flush(out)
}

fn segments(counts: &Counts, out: &mut dyn io::Write) -> io::Result<()> {
    let mut table = Table::new([
        Column::text("segment"),
        Column::number("added"),
        Column::number("rows"),
        Column::number("dead"),
        Column::number("examples"),
        Column::number("groups"),
        Column::number("size"),
    ]);
    for segment in &counts.segments {
        table.row(
            out,
            vec![
                segment.segment.clone(),
                segment.added.to_string(),
                count(segment.rows),
                count(segment.dead_rows),
                count(segment.examples),
                count(segment.row_groups),
                bytes(segment.bytes),
            ],
        )?;
    }
    table.flush(out)
}
