//! `gradix get`

use std::io;

use clap::Args;
use gradix::operators::OperatorError;
use gradix::sketch::SketchSpec;
use gradix::{Example, ExampleRow};
use serde_json::{Map, Value, json};

use super::At;
use crate::failure::{Failure, Result};
use crate::id::{self, Id};
use crate::output::Output;
use crate::table::{Column, Table};

/// Show the rows of examples
///
/// Prints span, source, metadata and norm of each row; with --json, an object for each example, with the norm of each
/// block. If an id is not there, the others are shown and the exit code is 4.
#[derive(Debug, Args)]
#[command(after_help = "Examples:
    gradix get my.gradix 'page 7'
    gradix get my.gradix 'page 7' 'page 8' --json | jq .rows[].source
    gradix get my.gradix '\\xff\\x00' --vectors --json")]
pub struct Get {
    #[command(flatten)]
    at: At,
    /// The ids
    #[arg(required = true, value_name = "ID")]
    ids: Vec<Id>,
    /// Show the values of the rows too, as they are stored
    #[arg(long)]
    vectors: bool,
}

impl Get {
    pub fn run(&self, output: &Output) -> Result {
        let snapshot = self.at.snapshot()?;
        let spec = snapshot.schema().spec();
        let mut missing = Vec::new();
        output.stream(|out| {
            for Id(id) in &self.ids {
                match snapshot.get(id)? {
                    Some(example) if output.is_json() => output.line(out, &self.json(&example, spec))?,
                    Some(example) => self.text(&example, spec, out).map_err(Failure::stdout)?,
                    None => missing.push(id.clone()),
                }
            }
            Ok(())
        })?;
        match missing.is_empty() {
            true => Ok(()),
            false => Err(OperatorError::MissingIds { ids: missing }.into()),
        }
    }

    fn json(&self, example: &Example, spec: &SketchSpec) -> Value {
        let names = || spec.blocks().iter().map(|block| block.name.clone());
        let rows = example.rows.iter().map(|row| {
            let norms: Map<String, Value> = names().zip(row.norms.iter().map(|&norm| norm.into())).collect();
            let mut object = json!({
                "span": row.span,
                "source": row.source,
                "metadata": id::json(&row.metadata),
                "norms": norms,
            });
            if self.vectors
                && let Some(object) = object.as_object_mut()
            {
                let blocks = (0..).map_while(|block| row.sketch.block(block));
                let values: Map<String, Value> = names().zip(blocks.map(Value::from)).collect();
                object.insert("values".into(), values.into());
            }
            object
        });
        json!({"id": id::json(&example.id), "rows": rows.collect::<Vec<_>>()})
    }

    fn text(&self, example: &Example, spec: &SketchSpec, out: &mut dyn io::Write) -> io::Result<()> {
        writeln!(out, "{}", id::shown(&example.id))?;
        let columns = [
            Column::text("  span"),
            Column::text("source"),
            Column::number("norm"),
            Column::text("metadata"),
        ];
        let mut table = Table::new(columns);
        for row in &example.rows {
            let source = row.source.as_deref().map_or("-".into(), |source| id::shown(source.as_bytes()));
            let norm = format!("{:.6}", norm(row));
            table.row(out, vec![format!("  {}", row.span), source, norm, id::shown(&row.metadata)])?;
        }
        table.flush(out)?;
        if self.vectors {
            for row in &example.rows {
                for (block, values) in
                    spec.blocks().iter().zip((0..).map_while(|block| row.sketch.block(block)))
                {
                    let values: Vec<String> = values.iter().map(f32::to_string).collect();
                    writeln!(
                        out,
                        "  {} {}: {}",
                        row.span,
                        id::shown(block.name.as_bytes()),
                        values.join(" ")
                    )?;
                }
            }
        }
        Ok(())
    }
}

/// The length of the whole row.
fn norm(row: &ExampleRow) -> f64 {
    row.norms.iter().map(|&norm| f64::from(norm) * f64::from(norm)).sum::<f64>().sqrt()
}
