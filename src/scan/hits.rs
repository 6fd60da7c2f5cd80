//! Resolves entries to the hits of a ranking.

use super::error::ScanError;
use super::ranking::Hit;
use super::score::{Best, Entry, Found};
use crate::segment::LiveSegment;

/// A row's location: segment, and row in it.
type Place = (usize, u32);

/// The hits of each query, best first.
type Hits = Vec<Vec<Hit>>;

/// The proponents and the opponents.
pub(super) fn resolve(
    segments: &[LiveSegment],
    found: Found,
    metadata: bool,
) -> Result<(Hits, Hits), ScanError> {
    let mut places = Vec::new();
    let mut of = |bests: Vec<Best>, sign: f64| -> Hits {
        let hit = |entry: Entry| {
            places.push((entry.segment, entry.row));
            let source = segments[entry.segment].reader.source_name(entry.source);
            Hit {
                id: entry.id.into_vec(),
                score: sign * entry.key,
                span: entry.span,
                source: source.map(str::to_owned),
                metadata: None,
            }
        };
        let mut hit = hit;
        bests.into_iter().map(|best| best.into_ranked().into_iter().map(&mut hit).collect()).collect()
    };
    let (mut proponents, mut opponents) = (of(found.top, 1.0), of(found.bottom, -1.0));
    if metadata {
        let hits = proponents.iter_mut().chain(&mut opponents).flatten();
        add_metadata(segments, places.into_iter().zip(hits).collect())?;
    }
    Ok((proponents, opponents))
}

/// Reads the hits' metadata, one row group at a time.
fn add_metadata(segments: &[LiveSegment], mut hits: Vec<(Place, &mut Hit)>) -> Result<(), ScanError> {
    hits.sort_unstable_by_key(|(place, _)| *place);
    let group = |(segment, row): Place| (segment, segments[segment].reader.locate(row).map(|found| found.0));
    for hits in hits.chunk_by_mut(|a, b| group(a.0) == group(b.0)) {
        let ((segment, row), _) = hits[0];
        let reader = &segments[segment].reader;
        let Some((group, _)) = reader.locate(row) else { continue };
        let (metadata, first) = (reader.metadata(group)?, reader.groups()[group].first_row);
        for ((_, row), hit) in hits {
            hit.metadata = Some(metadata.get((*row - first) as usize).to_vec());
        }
    }
    Ok(())
}
