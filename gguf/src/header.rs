//! Parses the header of an untrusted file into owned values, or says what is wrong and where.

use std::collections::HashMap;
use std::collections::hash_map::Entry;

use crate::dtype::DType;
use crate::error::{Defect, Subject};
use crate::metadata::Metadata;
use crate::tensor::{
    ALIGNMENT, NAME_BYTES, Tensor, check_dimensions, check_name, padded, tensor_bytes,
};
use crate::value::{ARRAY_ID, Array, Value};

/// The longest key in bytes.
pub(crate) const KEY_BYTES: u64 = 65535;

/// Names the alignment of a file.
pub(crate) const ALIGNMENT_KEY: &str = "general.alignment";

/// The longest header in bytes: far above any real one (a large vocabulary takes about 10 MB), and low
/// enough that a hostile one can't exhaust memory, for parsed entries take more of it than stored ones.
const HEADER_BYTES: usize = 256 << 20;

/// The fewest bytes of a metadata entry: key length, a key of one byte, value type, a value of one byte.
const ENTRY_BYTES: u64 = 8 + 1 + 4 + 1;

/// The fewest bytes of a tensor info: name length, a name of one byte, the number of dimensions, one
/// dimension, element type, offset.
const INFO_BYTES: u64 = 8 + 1 + 4 + 8 + 4 + 8;

/// A header whose every tensor lies inside the file.
pub(crate) struct Header {
    pub(crate) version: u32,
    pub(crate) metadata: Metadata,
    /// In the order of the file, with offsets from the start of the file.
    pub(crate) tensors: Vec<Tensor>,
    /// Positions in `tensors`.
    pub(crate) by_name: HashMap<String, usize>,
}

/// A defect and where it is.
pub(crate) struct Fault {
    pub(crate) offset: u64,
    pub(crate) subject: Subject,
    pub(crate) defect: Defect,
}

impl Header {
    /// Parses and checks the header of `file`, the whole file.
    pub(crate) fn parse(file: &[u8]) -> Result<Header, Fault> {
        let mut cursor = Cursor::new(file);
        let (version, tensor_count, entry_count) =
            parse_start(&mut cursor).map_err(fault(0, Subject::Header))?;

        let mut metadata = Metadata::new();
        let mut alignment = ALIGNMENT;
        for _ in 0..entry_count {
            let offset = cursor.offset();
            let key = parse_new_key(&mut cursor, &metadata).map_err(|(subject, defect)| Fault {
                offset,
                subject,
                defect,
            })?;
            let checked = parse_value(&mut cursor).and_then(|value| {
                if key == ALIGNMENT_KEY {
                    alignment = check_alignment(&value)?;
                }
                Ok(value)
            });
            match checked {
                Ok(value) => metadata.set(key, value),
                Err(defect) => return Err(Fault { offset, subject: Subject::Key(key), defect }),
            };
        }

        let mut infos = Infos { alignment, ..Infos::default() };
        for _ in 0..tensor_count {
            infos.parse_next(&mut cursor)?;
        }
        let data = cursor.offset().next_multiple_of(alignment);
        let Infos { mut tensors, by_name, .. } = infos;
        for tensor in &mut tensors {
            place(tensor, data, file.len() as u64)?;
        }
        Ok(Header { version, metadata, tensors, by_name })
    }
}

/// Magic, version and the two counts; returns version, number of tensors, number of entries.
fn parse_start(cursor: &mut Cursor<'_>) -> Result<(u32, u64, u64), Defect> {
    let magic = cursor.array()?;
    if magic != *b"GGUF" {
        return Err(Defect::Magic(magic));
    }
    let version = cursor.u32()?;
    match version {
        2 | 3 => {}
        // A version below 65536 in the other byte order.
        1.. if version.trailing_zeros() >= 16 => return Err(Defect::BigEndian),
        _ => return Err(Defect::Version(version)),
    }
    let tensors = cursor.u64()?;
    let entries = cursor.u64()?;
    cursor.expect(tensors, INFO_BYTES, "tensors")?;
    cursor.expect(entries, ENTRY_BYTES, "metadata entries")?;
    Ok((version, tensors, entries))
}

fn parse_new_key(
    cursor: &mut Cursor<'_>,
    metadata: &Metadata,
) -> Result<String, (Subject, Defect)> {
    let key = cursor.name(KEY_BYTES).map_err(|defect| (Subject::Header, defect))?;
    match metadata.get(&key) {
        None => Ok(key),
        Some(_) => Err((Subject::Key(key), Defect::Duplicate)),
    }
}

fn parse_value(cursor: &mut Cursor<'_>) -> Result<Value, Defect> {
    Ok(match cursor.u32()? {
        0 => Value::U8(u8::from_le_bytes(cursor.array()?)),
        1 => Value::I8(i8::from_le_bytes(cursor.array()?)),
        2 => Value::U16(u16::from_le_bytes(cursor.array()?)),
        3 => Value::I16(i16::from_le_bytes(cursor.array()?)),
        4 => Value::U32(cursor.u32()?),
        5 => Value::I32(i32::from_le_bytes(cursor.array()?)),
        6 => Value::F32(f32::from_le_bytes(cursor.array()?)),
        7 => Value::Bool(parse_bool(cursor.array()?)?),
        8 => Value::String(cursor.string()?),
        ARRAY_ID => Value::Array(parse_array(cursor)?),
        10 => Value::U64(cursor.u64()?),
        11 => Value::I64(i64::from_le_bytes(cursor.array()?)),
        12 => Value::F64(f64::from_le_bytes(cursor.array()?)),
        id => return Err(Defect::ValueType(id)),
    })
}

fn parse_array(cursor: &mut Cursor<'_>) -> Result<Array, Defect> {
    let id = cursor.u32()?;
    let len = cursor.u64()?;
    Ok(match id {
        0 => Array::U8(cursor.elements(len, u8::from_le_bytes)?),
        1 => Array::I8(cursor.elements(len, i8::from_le_bytes)?),
        2 => Array::U16(cursor.elements(len, u16::from_le_bytes)?),
        3 => Array::I16(cursor.elements(len, i16::from_le_bytes)?),
        4 => Array::U32(cursor.elements(len, u32::from_le_bytes)?),
        5 => Array::I32(cursor.elements(len, i32::from_le_bytes)?),
        6 => Array::F32(cursor.elements(len, f32::from_le_bytes)?),
        7 => {
            let bools = cursor.elements(len, parse_bool)?;
            Array::Bool(bools.into_iter().collect::<Result<_, _>>()?)
        }
        8 => {
            cursor.expect(len, 8, "array elements")?;
            // Grows with what is there: a lie about the length costs nothing.
            let mut strings = Vec::new();
            for _ in 0..len {
                strings.push(cursor.string()?);
            }
            Array::String(strings)
        }
        ARRAY_ID => return Err(Defect::NestedArray),
        10 => Array::U64(cursor.elements(len, u64::from_le_bytes)?),
        11 => Array::I64(cursor.elements(len, i64::from_le_bytes)?),
        12 => Array::F64(cursor.elements(len, f64::from_le_bytes)?),
        id => return Err(Defect::ValueType(id)),
    })
}

fn parse_bool([byte]: [u8; 1]) -> Result<bool, Defect> {
    match byte {
        0 => Ok(false),
        1 => Ok(true),
        _ => Err(Defect::Bool(byte)),
    }
}

fn check_alignment(value: &Value) -> Result<u64, Defect> {
    match *value {
        Value::U32(n) if n.is_power_of_two() && (8..=65536).contains(&n) => Ok(n.into()),
        Value::U32(n) => Err(Defect::Alignment(n)),
        ref other => Err(Defect::AlignmentType { found: other.type_name() }),
    }
}

/// The tensor infos read so far.
#[derive(Default)]
struct Infos {
    alignment: u64,
    tensors: Vec<Tensor>,
    by_name: HashMap<String, usize>,
    /// Where the data of the next tensor begins, in bytes from the start of the data.
    end: u64,
}

impl Infos {
    /// Reads the next info; the tensor's offset counts from the start of the data for now.
    fn parse_next(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Fault> {
        let offset = cursor.offset();
        let name = cursor.name(NAME_BYTES).map_err(fault(offset, Subject::Header))?;
        let tensor = check_name(&name).and_then(|()| self.parse_rest(cursor, name.clone()));
        match (tensor, self.by_name.entry(name)) {
            (Ok(tensor), Entry::Vacant(entry)) => {
                entry.insert(self.tensors.len());
                self.tensors.push(tensor);
                Ok(())
            }
            (Ok(tensor), Entry::Occupied(_)) => Err(Fault {
                offset,
                subject: Subject::Tensor(tensor.name),
                defect: Defect::Duplicate,
            }),
            (Err(defect), entry) => {
                Err(Fault { offset, subject: Subject::Tensor(entry.key().clone()), defect })
            }
        }
    }

    fn parse_rest(&mut self, cursor: &mut Cursor<'_>, name: String) -> Result<Tensor, Defect> {
        let dimensions = cursor.u32()?;
        check_dimensions(dimensions.into())?;
        let mut shape = Vec::new();
        for _ in 0..dimensions {
            shape.push(cursor.u64()?);
        }
        shape.reverse();
        let id = cursor.u32()?;
        let dtype = DType::from_id(id).ok_or(Defect::DType(id))?;
        let bytes = tensor_bytes(&shape, dtype)?;
        let offset = cursor.u64()?;
        if !offset.is_multiple_of(self.alignment) {
            return Err(Defect::OffsetAlignment { offset, alignment: self.alignment });
        }
        if offset != self.end {
            return Err(Defect::OffsetOrder { found: offset, expected: self.end });
        }
        let end = offset.checked_add(bytes).ok_or(Defect::Overflow)?;
        self.end = padded(end, self.alignment)?;
        Ok(Tensor { name, shape, dtype, offset, bytes })
    }
}

/// Turns a tensor's offset into one from the start of the file, and checks that the file has its bytes.
fn place(tensor: &mut Tensor, data: u64, file_bytes: u64) -> Result<(), Fault> {
    // No sum wraps: the offset, its end and `data` are each below 2^63.
    tensor.offset += data;
    let end = tensor.offset + tensor.bytes;
    if end > file_bytes {
        return Err(Fault {
            offset: tensor.offset,
            subject: Subject::Tensor(tensor.name.clone()),
            defect: Defect::Data { bytes: tensor.bytes, end, file_bytes },
        });
    }
    Ok(())
}

fn fault(offset: u64, subject: Subject) -> impl FnOnce(Defect) -> Fault {
    move |defect| Fault { offset, subject, defect }
}

/// The bytes of the header not read yet.
struct Cursor<'a> {
    bytes: &'a [u8],
    position: usize,
    /// Whether the file goes on behind `bytes`.
    cut: bool,
}

impl<'a> Cursor<'a> {
    fn new(file: &'a [u8]) -> Self {
        let bytes = &file[..file.len().min(HEADER_BYTES)];
        Cursor { bytes, position: 0, cut: bytes.len() < file.len() }
    }

    fn offset(&self) -> u64 {
        self.position as u64
    }

    fn left(&self) -> u64 {
        (self.bytes.len() - self.position) as u64
    }

    /// Checks that `count` things of at least `size` bytes can follow.
    fn expect(&self, count: u64, size: u64, what: &'static str) -> Result<(), Defect> {
        match count.checked_mul(size) {
            Some(bytes) if bytes <= self.left() => Ok(()),
            _ => Err(Defect::Count { what, count, left: self.left() }),
        }
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Defect> {
        if length > self.left() {
            return Err(if self.cut {
                Defect::HeaderLength { limit: HEADER_BYTES as u64 }
            } else {
                Defect::Truncated { needed: length, left: self.left() }
            });
        }
        let end = self.position + length as usize;
        let taken = &self.bytes[self.position..end];
        self.position = end;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Defect> {
        let mut array = [0; N];
        array.copy_from_slice(self.take(N as u64)?);
        Ok(array)
    }

    fn u32(&mut self) -> Result<u32, Defect> {
        self.array().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Result<u64, Defect> {
        self.array().map(u64::from_le_bytes)
    }

    /// A string that an error can repeat: not empty and not longer than `limit` bytes.
    fn name(&mut self, limit: u64) -> Result<String, Defect> {
        let length = self.u64()?;
        if length == 0 {
            return Err(Defect::EmptyName);
        }
        if length > limit {
            return Err(Defect::NameLength { length, limit });
        }
        self.utf8(length)
    }

    fn string(&mut self) -> Result<String, Defect> {
        let length = self.u64()?;
        self.utf8(length)
    }

    fn utf8(&mut self, length: u64) -> Result<String, Defect> {
        // Copied before it is checked: nobody can change the copy in between, as they can the file.
        String::from_utf8(self.take(length)?.to_vec()).map_err(|_| Defect::Utf8)
    }

    /// The next `len` elements of `N` bytes.
    fn elements<const N: usize, T>(
        &mut self,
        len: u64,
        decode: impl Fn([u8; N]) -> T,
    ) -> Result<Vec<T>, Defect> {
        self.expect(len, N as u64, "array elements")?;
        let (elements, _) = self.take(len * N as u64)?.as_chunks::<N>();
        Ok(elements.iter().map(|&element| decode(element)).collect())
    }
}
