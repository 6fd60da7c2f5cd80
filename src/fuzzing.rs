//! Entry points to private code for the fuzz targets. Compiled only with `--cfg fuzzing`.

use uuid::Uuid;

use crate::artifact::{ArtifactError, ArtifactKind, ArtifactReader, ArtifactWriter, Region, file_name};
use crate::codec::Encoding;
use crate::schema::Schema;
use crate::segment::Identity;
use crate::segment::storage::{MemoryStorage, Storage};
use crate::sketch::SketchSpec;

/// See [`crate::manifest::fuzz_record`].
pub fn manifest_record(kind: u8, bytes: &[u8]) {
    crate::manifest::fuzz_record(kind, bytes);
}

const ARTIFACT: Uuid = Uuid::from_bytes([2; 16]);

/// Of one block of three dims.
fn identity() -> Option<Identity> {
    let spec = SketchSpec::dense("fuzz", "v1", [("all", 3)]);
    let schema = Schema::new(spec, Encoding::F32).ok()?;
    Some(Identity { index: Uuid::from_bytes([1; 16]), schema, schema_digest: [3; 32] })
}

fn bytes_of(storage: &MemoryStorage) -> Option<Vec<u8>> {
    let file = storage.open(&file_name(ARTIFACT)).ok()?;
    file.mapped(0..file.len()).map(<[u8]>::to_vec)
}

/// A sound file with sums, and one with self-influence.
pub fn sound_artifact(sums: bool) -> Option<Vec<u8>> {
    let (storage, identity) = (MemoryStorage::new(), identity()?);
    let kind = if sums { ArtifactKind::Sums } else { ArtifactKind::SelfInfluence };
    let mut writer = ArtifactWriter::create(&storage, &identity, ARTIFACT, kind).ok()?;
    if sums {
        let region = Region { dims: 3, rows: 2, power: 5.0, ..Region::default() };
        writer.push_f64(&region, &[1.0, -2.0, 4.0, 0.5, 1e300, 3.0]).ok()?;
    } else {
        for segment in [7, 8] {
            let segment = Uuid::from_bytes([segment; 16]);
            let region =
                Region { segment, rank: 4, rows: 5, kappa: 2.0, sums: ARTIFACT, ..Region::default() };
            writer.push_f32(&region, &[1.0, 0.0, 1e30, 1e-40, 7.0]).ok()?;
        }
    }
    writer.seal().ok()?;
    bytes_of(&storage)
}

/// Reads a file of any bytes in all ways, and returns whether it is sound. What is read must then be all that the file
/// says: written again, it has the same bytes.
pub fn check_artifact(bytes: &[u8]) -> bool {
    let storage = MemoryStorage::new();
    let put = || {
        storage.create(&file_name(ARTIFACT)).and_then(|mut file| file.write(bytes).and_then(|()| file.sync()))
    };
    let (Ok(()), Some(identity)) = (put(), identity()) else { return false };
    let Ok(reader) = ArtifactReader::open(&storage, &identity, ARTIFACT) else { return false };
    let mut findings = 0;
    reader.verify(|_| findings += 1);
    assert_eq!(reader.bytes(), bytes.len() as u64);
    assert!(reader.sha256().is_ok());
    let written = write_again(&reader, &identity);
    if let Ok(written) = &written
        && bytes[24..40] == [0; 16]
    {
        assert_eq!(written.as_deref(), Some(bytes));
    }
    // A number that is not finite is found when it is used.
    assert!(written.is_err() || findings == 0, "{findings} findings in what can be read");
    written.is_ok()
}

fn write_again(reader: &ArtifactReader, identity: &Identity) -> Result<Option<Vec<u8>>, ArtifactError> {
    let storage = MemoryStorage::new();
    let mut writer = ArtifactWriter::create(&storage, identity, ARTIFACT, reader.kind())?;
    for (ordinal, region) in reader.regions().enumerate() {
        match reader.kind() {
            ArtifactKind::Sums => {
                assert!(reader.f32s(ordinal, 0..0).is_err());
                writer.push_f64(region, &reader.f64s(ordinal)?)?;
            }
            ArtifactKind::SelfInfluence => {
                assert!(reader.f64s(ordinal).is_err());
                let all = reader.f32s(ordinal, 0..region.count)?;
                // Rows from the middle are the same.
                let some = region.count / 3..region.count - region.count / 4;
                let (start, end) = (some.start as usize, some.end as usize);
                assert_eq!(reader.f32s(ordinal, some)?, all[start..end]);
                assert!(reader.f32s(ordinal, 0..region.count + 1).is_err());
                writer.push_f32(region, &all)?;
            }
        }
    }
    writer.seal()?;
    Ok(bytes_of(&storage))
}

/// Reads a pickle. If it is a tensor with numbers, the place of the last one in its storage and the storage's length.
#[cfg(feature = "formats")]
pub fn tensor_of_pickle(bytes: &[u8]) -> Option<(u64, u64)> {
    let tensor = crate::formats::pickle::Pickle::read(bytes).ok()?.tensor().ok()?;
    let ways =
        tensor.shape.iter().zip(&tensor.strides).map(|(size, stride)| Some(size.checked_sub(1)? * stride));
    let way: u64 = ways.sum::<Option<u64>>()?;
    Some((tensor.offset + way, tensor.elements))
}
