//! Random rows in real segments, and what a ranking of them must be: decoded and summed row by row,
//! straight from the specification, and sorted as a whole.

use std::sync::Arc;

use half::f16;
use roaring::RoaringBitmap;
use uuid::Uuid;

use crate::codec::{self, Encoding};
use crate::curvature::{Conditioner, Curvature, CurvatureError};
use crate::random::Random;
use crate::scan::{
    CancelToken, ExampleRows, Feedback, Grouping, Hit, Lookup, Metric, RowLengths, Scan, ScanError,
    SpanFilter,
};
use crate::schema::Schema;
use crate::segment::storage::{MemoryStorage, Storage};
use crate::segment::{
    EncodedRow, Identity, LiveSegment, Origin, RowEncoder, RowTags, SegmentReader, SegmentWriter, Span,
    file_name,
};
use crate::sketch::Sketch;

/// Mostly numbers whose sums tie, some that round, some tiny.
fn number(random: &mut Random) -> f32 {
    match random.below(8) {
        0..=4 => [0.0, 1.0, -1.0, 0.5, -0.0][random.below(5)],
        5 => random.below(1 << 20) as f32 / 999_999.0 - 0.5,
        6 => random.below(1 << 20) as f32 * 1e-20,
        _ => -3.7e3,
    }
}

#[derive(Debug, Clone)]
pub struct RefRow {
    pub id: Vec<u8>,
    pub span: Span,
    pub source: Option<String>,
    pub dead: bool,
    pub encoded: EncodedRow,
    pub segment: usize,
}

impl RefRow {
    pub fn is_zero(&self) -> bool {
        self.encoded.norms.iter().all(|&norm| norm == 0.0)
    }
}

/// What a scan is asked for, in a form that both sides understand.
#[derive(Debug, Clone)]
pub struct Request {
    pub top_k: usize,
    pub bottom_k: usize,
    pub metric: Metric,
    pub grouping: Grouping,
    pub blocks: Vec<usize>,
    /// One for each block of the schema.
    pub weights: Vec<f64>,
    pub spans: SpanFilter,
    pub ids: Option<Vec<usize>>,
    pub excluded: Vec<usize>,
    pub sources: Option<Vec<usize>>,
}

impl Request {
    pub fn all(blocks: usize) -> Self {
        Self {
            top_k: 0,
            bottom_k: 0,
            metric: Metric::InnerProduct,
            grouping: Grouping::Rows,
            blocks: (0..blocks).collect(),
            weights: vec![1.0; blocks],
            spans: SpanFilter::All,
            ids: None,
            excluded: Vec::new(),
            sources: None,
        }
    }

    pub fn source_names(&self) -> Option<Vec<String>> {
        Some(self.sources.as_ref()?.iter().map(|i| format!("source {i}")).collect())
    }
}

pub struct Data {
    pub schema: Schema,
    pub segments: Vec<LiveSegment>,
    /// In the order of segments and rows.
    pub rows: Vec<RefRow>,
    pub feedback: Feedback,
    /// Whether ids cannot be looked up.
    pub is_gone: bool,
    storage: Arc<MemoryStorage>,
    identity: Arc<Identity>,
    seed: u64,
}

/// Ids that do not come in the order of their numbers.
fn id(example: usize) -> Vec<u8> {
    format!("{:03}-{example}", example * 37 % 101).into_bytes()
}

impl Data {
    /// Examples of one to four rows, some of them deleted, in up to `segments` segments.
    pub fn new(schema: &Schema, seed: u64, examples: usize, segments: usize) -> Self {
        let mut random = Random(seed);
        let mut rows = Vec::new();
        for example in 0..examples {
            let count = if random.below(2) == 0 { 1 } else { 1 + random.below(4) };
            let (dead, twin) = (random.below(5) == 0, random.below(4) == 0);
            for row in 0..count {
                let encoded = match rows.last() {
                    Some(RefRow { encoded, .. }) if twin => encoded.clone(),
                    _ => encode(schema, &mut random),
                };
                let start = random.below(5) as u32;
                rows.push(RefRow {
                    id: id(example),
                    span: if count == 1 || row == 0 { Span::WHOLE } else { Span::tokens(start, start + 1) },
                    source: Some(random.below(3)).filter(|&source| source > 0).map(|i| format!("source {i}")),
                    dead,
                    encoded,
                    segment: example * segments / examples,
                });
            }
        }
        Self::write(schema, rows, seed)
    }

    /// One row that has `code` among its `f32` codes, as no writer of gradix would write it.
    pub fn crafted(schema: &Schema, code: f32) -> Self {
        let mut encoded = encode(schema, &mut Random(1));
        encoded.codes[..4].copy_from_slice(&code.to_le_bytes());
        let row = RefRow { id: id(1), span: Span::WHOLE, source: None, dead: false, encoded, segment: 0 };
        Self::write(schema, vec![row], 1)
    }

    fn write(schema: &Schema, rows: Vec<RefRow>, seed: u64) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let identity = Identity { index: Uuid::from_u128(1), schema: schema.clone(), schema_digest: [7; 32] };
        let identity = Arc::new(identity);
        let mut segments = Vec::new();
        for part in rows.chunk_by(|a, b| a.segment == b.segment) {
            let segment = Uuid::from_u128(100 + segments.len() as u128);
            let shared: Arc<dyn Storage> = Arc::clone(&storage) as _;
            let mut writer =
                SegmentWriter::create(shared, Arc::clone(&identity), segment, Origin::default()).unwrap();
            for example in part.chunk_by(|a, b| a.id == b.id) {
                let tags = |row: &'_ RefRow| (row.span, row.source.clone());
                let tags: Vec<_> = example.iter().map(tags).collect();
                let rows = example.iter().zip(&tags).map(|(row, (span, source))| {
                    (&row.encoded, RowTags { span: *span, source: source.as_deref(), metadata: b"" })
                });
                writer.push(&example[0].id, rows.collect::<Vec<_>>().into_iter()).unwrap();
            }
            writer.seal().unwrap();
            let dead = part.iter().zip(0..).filter(|(row, _)| row.dead).map(|(_, i)| i);
            let dead: RoaringBitmap = dead.collect();
            let reader = SegmentReader::open(&*storage, &identity, segment).unwrap();
            segments.push(LiveSegment { reader: Arc::new(reader), dead: Arc::new(dead) });
        }
        // Ordinals, without segments that have no examples.
        let mut rows = rows;
        let mut ordinal = 0;
        for i in 0..rows.len() {
            let next = i + 1 < rows.len() && rows[i + 1].segment != rows[i].segment;
            rows[i].segment = ordinal;
            ordinal += usize::from(next);
        }
        Self {
            is_gone: false,
            schema: schema.clone(),
            segments,
            rows,
            feedback: Feedback::default(),
            storage,
            identity,
            seed,
        }
    }

    /// The same segments, with one byte of the first block's codes of one of them changed.
    pub fn with_flipped_code(&self, segment: usize) -> Self {
        let storage = Arc::new(MemoryStorage::new());
        let mut segments = Vec::new();
        for (i, live) in self.segments.iter().enumerate() {
            let name = file_name(live.reader.segment());
            let file = self.storage.open(&name).unwrap();
            let mut bytes = file.mapped(0..file.len()).unwrap().to_vec();
            if i == segment {
                bytes[4096 + 5] ^= 4;
            }
            let mut file = storage.create(&name).unwrap();
            file.write(&bytes).unwrap();
            file.sync().unwrap();
            let reader = SegmentReader::open(&*storage, &self.identity, live.reader.segment()).unwrap();
            segments.push(LiveSegment { reader: Arc::new(reader), dead: Arc::clone(&live.dead) });
        }
        let (schema, rows, identity) = (self.schema.clone(), self.rows.clone(), Arc::clone(&self.identity));
        let feedback = Feedback::default();
        Self { schema, segments, rows, feedback, is_gone: false, storage, identity, seed: self.seed }
    }

    pub fn queries(&self, count: usize) -> Vec<Sketch> {
        let mut random = Random(self.seed ^ 0xABCD);
        let spec = Arc::new(self.schema.spec().clone());
        let query = |_| {
            let values = (0..spec.dims()).map(|_| number(&mut random)).collect();
            Sketch::dense(Arc::clone(&spec), values).unwrap()
        };
        (0..count).map(query).collect()
    }

    pub fn sources(&self) -> Vec<String> {
        self.rows.iter().filter_map(|row| row.source.clone()).collect()
    }

    fn find(&self, id: &[u8]) -> Option<ExampleRows> {
        let first = self.rows.iter().position(|row| row.id == id && !row.dead)?;
        let segment = self.rows[first].segment;
        let base = self.rows.iter().position(|row| row.segment == segment)?;
        let count = self.rows.iter().filter(|row| row.id == id).count();
        Some(ExampleRows { segment, rows: (first - base) as u32..(first - base + count) as u32 })
    }

    pub fn scan_all<'a>(&'a self, queries: &'a [Sketch]) -> Result<Scan<'a>, ScanError> {
        Scan::new(&self.segments, &self.schema, &self.feedback, self, queries)
    }

    pub fn scan<'a>(&'a self, request: &Request, queries: &'a [Sketch]) -> Scan<'a> {
        let name = |block: usize| self.schema.spec().blocks()[block].name.clone();
        let scan = self.scan_all(queries).unwrap();
        let scan = scan.top_k(request.top_k).bottom_k(request.bottom_k).metric(request.metric);
        let scan = scan.grouping(request.grouping).spans(request.spans);
        let scan = scan.blocks(request.blocks.iter().rev().map(|&block| name(block)));
        let scan = scan.weights(request.blocks.iter().map(|&block| (name(block), request.weights[block])));
        let scan = scan.exclude_ids(request.excluded.iter().map(|&example| id(example)));
        let scan = match &request.ids {
            Some(ids) => scan.ids(ids.iter().map(|&example| id(example))),
            None => scan,
        };
        match request.source_names() {
            Some(names) => scan.sources(names),
            None => scan,
        }
    }

    /// Proponents and opponents of each query.
    pub fn rank(&self, request: &Request, queries: &[Sketch]) -> Vec<(Vec<Hit>, Vec<Hit>)> {
        let rank = |query: &Sketch| {
            let hits = self.every(request, query);
            let sorted = |sign: f64, k: usize| {
                let mut hits = hits.clone();
                // Stable: equal scores and ids stay in row order.
                hits.sort_by(|a, b| {
                    (sign * b.score).partial_cmp(&(sign * a.score)).unwrap().then_with(|| a.id.cmp(&b.id))
                });
                hits.truncate(k);
                hits
            };
            (sorted(1.0, request.top_k), sorted(-1.0, request.bottom_k))
        };
        queries.iter().map(rank).collect()
    }

    /// All rows that take part, or examples if they are grouped, in row order.
    pub fn every(&self, request: &Request, query: &Sketch) -> Vec<Hit> {
        let names = request.source_names();
        let wanted = |ids: &[usize], row: &RefRow| ids.iter().any(|&example| id(example) == row.id);
        let takes_part = |row: &&RefRow| {
            let span = match request.spans {
                SpanFilter::All => true,
                SpanFilter::Whole => row.span == Span::WHOLE,
                SpanFilter::Tokens => row.span != Span::WHOLE,
                SpanFilter::Overlapping(s) => {
                    (s.start..s.end).any(|t| (row.span.start..row.span.end).contains(&t))
                }
            };
            let source =
                names.as_ref().is_none_or(|names| row.source.as_ref().is_some_and(|s| names.contains(s)));
            let included = request.ids.as_ref().is_none_or(|ids| wanted(ids, row));
            !row.dead && span && source && included && !wanted(&request.excluded, row)
        };
        let rows: Vec<&RefRow> = self.rows.iter().filter(takes_part).collect();
        let mut hits: Vec<Hit> = Vec::new();
        let mut grouped = 0;
        for row in &rows {
            let score = self.score(request, query, row);
            let (id, span, source) = (row.id.clone(), row.span, row.source.clone());
            match hits.last_mut() {
                Some(last) if request.grouping != Grouping::Rows && last.id == id => {
                    grouped += 1;
                    if request.grouping == Grouping::Sum {
                        last.score += score;
                        last.span = Span::WHOLE;
                    } else if score > last.score {
                        (last.score, last.span, last.source) = (score, span, source);
                    }
                }
                _ => hits.push(Hit { id, score, span, source, metadata: None }),
            }
        }
        assert_eq!(hits.len() + grouped, rows.len());
        hits
    }

    fn score(&self, request: &Request, query: &Sketch, row: &RefRow) -> f64 {
        let (mut score, mut of_query, mut of_row) = (0f64, 0f64, 0f64);
        let (mut offset, encodings) = (0, self.schema.encodings());
        for (block, &encoding) in encodings.iter().enumerate() {
            let numbers = query.block(block).unwrap();
            let codes = &row.encoded.codes[offset..];
            offset += self.schema.stride(block);
            if !request.blocks.contains(&block) {
                continue;
            }
            let weight = request.weights[block];
            score += weight * block_score(encoding, codes, row.encoded.scales[block], numbers);
            let norms = (f64::from(codec::norm(numbers)), f64::from(row.encoded.norms[block]));
            of_query += weight * (norms.0 * norms.0);
            of_row += weight * (norms.1 * norms.1);
        }
        match request.metric {
            Metric::Cosine if of_query == 0.0 || of_row == 0.0 => 0.0,
            Metric::Cosine => score / (of_query.sqrt() * of_row.sqrt()),
            Metric::InnerProduct => score,
            Metric::UnitRows | Metric::Relative if of_row == 0.0 => 0.0,
            Metric::UnitRows | Metric::Relative => score / of_row.sqrt(),
        }
    }
}

impl Lookup for Data {
    fn find(&self, id: &[u8]) -> Result<Option<ExampleRows>, ScanError> {
        if self.is_gone {
            return Err(ScanError::Lookup { source: "gone".into() });
        }
        Ok(Self::find(self, id))
    }

    fn conditioner(
        &self,
        curvature: &Curvature,
        _blocks: &[usize],
        _cancel: &CancelToken,
    ) -> Result<Conditioner, ScanError> {
        Err(CurvatureError::NotFitted { name: curvature.name.clone() }.into())
    }

    fn self_influence(&self, curvature: &Curvature, _sums: Uuid) -> Result<Arc<dyn RowLengths>, ScanError> {
        Err(CurvatureError::NoSelfInfluence { name: curvature.name.clone() }.into())
    }
}

fn encode(schema: &Schema, random: &mut Random) -> EncodedRow {
    let mut row = EncodedRow::default();
    let zero = random.below(6) == 0;
    for (block, (described, encoding)) in schema.spec().blocks().iter().zip(schema.encodings()).enumerate() {
        let values: Vec<f32> = (0..described.dims).map(|_| if zero { 0.0 } else { number(random) }).collect();
        let mut codes = vec![0; schema.stride(block)];
        let encoded = encoding.encode(&values, &mut codes).unwrap();
        row.codes.extend(codes);
        row.scales.push(encoded.scale);
        row.norms.push(encoded.norm);
    }
    row.tiers = RowEncoder::new(schema).tiers_of(&row);
    row
}

/// `format-spec/encodings.md`, "Scores".
fn block_score(encoding: Encoding, codes: &[u8], scale: f32, query: &[f32]) -> f64 {
    let lanes = |code: &dyn Fn(usize) -> f32| {
        let mut lanes = [0f32; 16];
        for (i, q) in query.iter().enumerate() {
            lanes[i % 16] = code(i).mul_add(*q, lanes[i % 16]);
        }
        for half in [8, 4, 2, 1] {
            for l in 0..half {
                lanes[l] += lanes[l + half];
            }
        }
        f64::from(lanes[0])
    };
    match encoding {
        Encoding::F32 => lanes(&|i| f32::from_le_bytes(codes[4 * i..4 * i + 4].try_into().unwrap())),
        Encoding::F16 => {
            lanes(&|i| f16::from_le_bytes([codes[2 * i], codes[2 * i + 1]]).to_f32()) * f64::from(scale)
        }
        Encoding::I8 => {
            let quantised = codec::quantise_query(query);
            let products = codes.iter().zip(&quantised.codes);
            let sum: i64 = products.map(|(&code, &p)| i64::from(code as i8) * i64::from(p)).sum();
            sum as f64 * (f64::from(scale) * f64::from(quantised.scale))
        }
    }
}

/// Hits with the bits of their scores. Zeros of both signs are one score.
pub fn bits(hits: &[Hit]) -> Vec<(String, u64, Span, Option<String>)> {
    let bits =
        |hit: &Hit| (hit.id_lossy().into_owned(), (hit.score + 0.0).to_bits(), hit.span, hit.source.clone());
    hits.iter().map(bits).collect()
}
