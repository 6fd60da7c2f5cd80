//! Files of `torch.save`: zip archives, uncompressed, of a pickle and the numbers it refers to.

use std::io::BufReader;
use std::path::Path;

use zip::CompressionMethod;
use zip::read::ZipArchive;
use zip::result::ZipError;

use super::super::input::{DataFile, malformed, unsupported};
use super::super::pickle::{self, Pickle};
use super::super::{FormatError, Number};
use super::files;
use super::numbers::{Checksum, Numbers};

/// How a file of torch before 1.6 begins: a pickle of this long integer.
const OLD: [u8; 14] = [0x80, 2, 0x8a, 10, 0x6c, 0xfc, 0x9c, 0x46, 0xf9, 0x20, 0x6a, 0xa8, 0x50, 0x19];

/// A file with one tensor.
pub(super) struct TensorFile {
    numbers: Numbers,
    /// The byte at which the storage begins.
    start: u64,
    tensor: pickle::Tensor,
}

impl TensorFile {
    pub fn open(path: &Path) -> Result<Self, FormatError> {
        let mut archive = Archive::open(path)?;
        let bytes = archive.pickle()?;
        let tensor = archive.parse(&bytes)?.tensor();
        let tensor =
            tensor.map_err(|what| unsupported(path, format!("{what}, where a tensor is expected")))?;
        let name = format!("{}/data/{}", archive.root, tensor.storage);
        let Some(storage) = archive.member(&name)? else {
            return Err(malformed(path, archive.file.length, format!("the archive has no {name:?}")));
        };
        if u128::from(storage.length) != u128::from(tensor.elements) * tensor.number.bytes() as u128 {
            let what = format!("a storage of {} bytes for {} numbers", storage.length, tensor.elements);
            return Err(malformed(path, storage.start, what));
        }
        let checksum = storage.checksum.map(|expected| Checksum {
            expected,
            next: storage.start,
            end: storage.start + storage.length,
            hasher: crc32fast::Hasher::new(),
        });
        Ok(Self {
            numbers: Numbers::new(archive.file, tensor.number, checksum),
            start: storage.start,
            tensor,
        })
    }

    pub fn path(&self) -> &Path {
        self.numbers.path()
    }

    pub fn number(&self) -> Number {
        self.tensor.number
    }

    pub fn shape(&self) -> &[u64] {
        &self.tensor.shape
    }

    /// Appends all numbers of the tensor, in the order of its dimensions.
    pub fn read(&mut self, values: &mut Vec<f32>) -> Result<(), FormatError> {
        let rows = self.tensor.shape.first().copied().unwrap_or(1);
        self.read_range(0, rows, values)
    }

    /// Appends those whose first index is one of the `count` from `first` on.
    pub fn read_range(&mut self, first: u64, count: u64, values: &mut Vec<f32>) -> Result<(), FormatError> {
        let mut shape = self.tensor.shape.clone();
        let mut offset = self.tensor.offset;
        if let (Some(size), Some(stride)) = (shape.first_mut(), self.tensor.strides.first()) {
            *size = count.min(size.saturating_sub(first));
            offset += first * stride;
        }
        if shape.contains(&0) {
            return Ok(());
        }
        // The last dimensions along which numbers are neighbours are read at once.
        let mut run = 1;
        let mut outer: Vec<_> = shape.iter().copied().zip(self.tensor.strides.iter().copied()).collect();
        while let Some((size, _)) = outer.pop_if(|(size, stride)| *stride == run || *size == 1) {
            run *= size;
        }
        let width = self.tensor.number.bytes() as u64;
        let runs: u64 = outer.iter().map(|(size, _)| size).product();
        for place in 0..runs {
            let (mut rest, mut at) = (place, offset);
            for (size, stride) in outer.iter().rev() {
                at += rest % size * stride;
                rest /= size;
            }
            self.numbers.read(self.start + at * width, run as usize, values)?;
        }
        Ok(())
    }
}

/// Whether a file holds an empty dictionary.
pub(super) fn is_empty(path: &Path) -> Result<bool, FormatError> {
    let mut archive = Archive::open(path)?;
    let bytes = archive.pickle()?;
    Ok(archive.parse(&bytes)?.is_empty_dictionary())
}

struct Archive {
    file: DataFile,
    members: ZipArchive<BufReader<std::fs::File>>,
    /// The folder that all members are in.
    root: String,
}

/// Where the bytes of a member lie.
struct Member {
    start: u64,
    length: u64,
    /// None if torch was told not to compute any.
    checksum: Option<u32>,
}

impl Archive {
    fn open(path: &Path) -> Result<Self, FormatError> {
        let file = files::open(path)?;
        let mut first = [0; OLD.len()];
        let length = first.len().min(usize::try_from(file.length).unwrap_or(usize::MAX));
        file.read_at(first.get_mut(..length).unwrap_or_default(), 0)?;
        if first == OLD {
            let what = "a file as torch wrote it before 1.6 (`_use_new_zipfile_serialization=False`); load it in torch and \
                        save it again";
            return Err(unsupported(path, what));
        }
        let reader = file.file.try_clone().map_err(|source| files::io_error(path, "open", source))?;
        let members = ZipArchive::new(BufReader::new(reader)).map_err(|error| wrong(&file, &error))?;
        let mut roots = members.file_names_raw().filter_map(|name| name.strip_suffix(b"/data.pkl"));
        let root = roots.next().and_then(|root| std::str::from_utf8(root).ok()).map(str::to_owned);
        let Some(root) = root.filter(|_| roots.next().is_none()) else {
            return Err(unsupported(
                path,
                "an archive, but not one of torch.save: it has no data.pkl, or several",
            ));
        };
        drop(roots);
        Ok(Self { file, members, root })
    }

    /// The member of a name; none if there is none.
    fn member(&mut self, name: &str) -> Result<Option<Member>, FormatError> {
        let Some(index) = self.members.index_for_name(name) else { return Ok(None) };
        let member = self.members.by_index_raw(index).map_err(|error| wrong(&self.file, &error))?;
        let (start, length) = (member.data_start().unwrap_or(u64::MAX), member.size());
        if member.compression() != CompressionMethod::Stored || member.encrypted() {
            let what = format!("member {name:?} is compressed or encrypted, which torch does not do");
            return Err(unsupported(&self.file.path, what));
        }
        if start.checked_add(length).is_none_or(|end| end > self.file.length)
            || member.compressed_size() != length
        {
            return Err(malformed(&self.file.path, start, format!("member {name:?} ends behind the file")));
        }
        let checksum = Some(member.crc32()).filter(|checksum| *checksum != 0);
        Ok(Some(Member { start, length, checksum }))
    }

    /// The bytes of a small member that is there.
    fn read(&mut self, name: &str, longest: usize) -> Result<Option<(Member, Vec<u8>)>, FormatError> {
        let Some(member) = self.member(name)? else { return Ok(None) };
        if member.length > longest as u64 {
            let what =
                format!("member {name:?} has {} bytes, where at most {longest} are read", member.length);
            return Err(unsupported(&self.file.path, what));
        }
        let mut bytes = vec![0; member.length as usize];
        self.file.read_at(&mut bytes, member.start)?;
        if member.checksum.is_some_and(|checksum| checksum != crc32fast::hash(&bytes)) {
            let what = format!("member {name:?} has another checksum than the archive says");
            return Err(malformed(&self.file.path, member.start, what));
        }
        Ok(Some((member, bytes)))
    }

    /// The bytes of the pickle.
    fn pickle(&mut self) -> Result<(Member, Vec<u8>), FormatError> {
        let order = self.read(&format!("{}/byteorder", self.root), 16)?;
        if order.is_some_and(|(_, order)| order != b"little") {
            return Err(unsupported(
                &self.file.path,
                "numbers of a machine with another order of bytes than x86",
            ));
        }
        let pickle = self.read(&format!("{}/data.pkl", self.root), pickle::LONGEST)?;
        pickle.ok_or_else(|| unsupported(&self.file.path, "an archive without data.pkl"))
    }

    fn parse<'a>(&self, (member, bytes): &'a (Member, Vec<u8>)) -> Result<Pickle<'a>, FormatError> {
        Pickle::read(bytes)
            .map_err(|error| malformed(&self.file.path, member.start + error.offset as u64, error.what))
    }
}

fn wrong(file: &DataFile, error: &ZipError) -> FormatError {
    malformed(&file.path, file.length, format!("no file of torch.save, or one that is cut off: {error}"))
}
