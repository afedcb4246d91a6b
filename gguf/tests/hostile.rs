//! Files that lie. Every defect that a reader in circulation is known to miss has its file here; each is
//! refused for its own reason, without a panic, a hang or an allocation of the size it claims.
//!
//! `GGUF_SEEDS=FOLDER` keeps the files of up to 4 KiB in a folder, named by their hash: the corpus of
//! `fuzz/`. Long, because a list of all defects is one thing.

use std::error::Error as _;
use std::fs;
use std::hash::{Hash, Hasher};

use gguf::{DType, Defect, Error, File, Metadata, Subject, TensorSpec, Writer};

const F32: u32 = 0;
const Q8_0: u32 = 8;
const I8: u32 = 24;

const BOOL: u32 = 7;
const STRING: u32 = 8;
const ARRAY: u32 = 9;

/// A file assembled field by field, right or wrong.
struct Raw {
    version: [u8; 4],
    tensor_count: Option<u64>,
    entry_count: Option<u64>,
    entries: Vec<Vec<u8>>,
    infos: Vec<Vec<u8>>,
    /// What the header is padded to.
    alignment: u32,
    /// How many bytes of data follow.
    data: usize,
}

fn raw() -> Raw {
    Raw {
        version: 3u32.to_le_bytes(),
        tensor_count: None,
        entry_count: None,
        entries: Vec::new(),
        infos: Vec::new(),
        alignment: 32,
        data: 64,
    }
}

impl Raw {
    fn entry(mut self, key: &[u8], value_type: u32, value: &[u8]) -> Raw {
        self.entries.push([&string(key), &value_type.to_le_bytes()[..], value].concat());
        self
    }

    /// `dims` in the order of the file, innermost first.
    fn tensor(self, name: &str, dims: &[u64], dtype: u32, offset: u64) -> Raw {
        self.info(name.as_bytes(), dims.len() as u32, dims, dtype, offset)
    }

    fn info(mut self, name: &[u8], n_dims: u32, dims: &[u64], dtype: u32, offset: u64) -> Raw {
        let mut info = string(name);
        info.extend(n_dims.to_le_bytes());
        info.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
        info.extend(dtype.to_le_bytes());
        info.extend(offset.to_le_bytes());
        self.infos.push(info);
        self
    }

    fn bytes(&self) -> Vec<u8> {
        let mut file = b"GGUF".to_vec();
        file.extend(self.version);
        file.extend(self.tensor_count.unwrap_or(self.infos.len() as u64).to_le_bytes());
        file.extend(self.entry_count.unwrap_or(self.entries.len() as u64).to_le_bytes());
        file.extend(self.entries.concat());
        file.extend(self.infos.concat());
        file.resize(file.len().next_multiple_of(self.alignment as usize) + self.data, 0);
        file
    }

    fn open(&self) -> Result<File, Error> {
        open(&self.bytes())
    }

    /// The subject and defect that the file is refused for.
    #[track_caller]
    fn refused(&self) -> (Subject, Defect) {
        refused(self.open())
    }
}

fn string(bytes: &[u8]) -> Vec<u8> {
    [&(bytes.len() as u64).to_le_bytes(), bytes].concat()
}

fn array(element_type: u32, len: u64, elements: &[u8]) -> Vec<u8> {
    [&element_type.to_le_bytes()[..], &len.to_le_bytes(), elements].concat()
}

fn open(bytes: &[u8]) -> Result<File, Error> {
    if let Some(seeds) = std::env::var_os("GGUF_SEEDS").filter(|_| bytes.len() <= 4096) {
        let mut hash = std::hash::DefaultHasher::new();
        bytes.hash(&mut hash);
        let name = format!("{:016x}", hash.finish());
        fs::write(std::path::Path::new(&seeds).join(name), bytes).unwrap();
    }
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("hostile.gguf");
    fs::write(&path, bytes).unwrap();
    File::open(path)
}

#[track_caller]
fn refused(result: Result<File, Error>) -> (Subject, Defect) {
    match result {
        Ok(_) => panic!("the file was accepted"),
        Err(Error::Malformed { subject, source, .. }) => (subject, source),
        Err(error) => panic!("the file was refused as {error:?}"),
    }
}

fn key(key: &str) -> Subject {
    Subject::Key(key.to_owned())
}

fn tensor(name: &str) -> Subject {
    Subject::Tensor(name.to_owned())
}

#[test]
fn magic_and_version() {
    let mut file = raw().bytes();
    file[..4].copy_from_slice(b"PK\x03\x04");
    assert_eq!(refused(open(&file)), (Subject::Header, Defect::Magic(*b"PK\x03\x04")));

    for version in [0, 1, 4, u32::MAX] {
        let file = Raw { version: version.to_le_bytes(), ..raw() };
        assert_eq!(file.refused(), (Subject::Header, Defect::Version(version)));
    }
    for version in [1u32, 2, 3] {
        let file = Raw { version: version.to_be_bytes(), ..raw() };
        assert_eq!(file.refused(), (Subject::Header, Defect::BigEndian));
    }
    for version in [2u32, 3] {
        let file = Raw { version: version.to_le_bytes(), ..raw() }.open().unwrap();
        assert_eq!(file.version(), version);
    }
}

#[test]
fn counts() {
    for count in [10, 1 << 32, 1 << 62, u64::MAX] {
        let file = Raw { tensor_count: Some(count), ..raw() };
        assert_eq!(
            file.refused(),
            (Subject::Header, Defect::Count { what: "tensors", count, left: 72 })
        );
        let file = Raw { entry_count: Some(count), ..raw() };
        assert_eq!(
            file.refused(),
            (Subject::Header, Defect::Count { what: "metadata entries", count, left: 72 })
        );
    }
}

#[test]
fn keys() {
    let file = raw().entry(b"", BOOL, &[1]);
    assert_eq!(file.refused(), (Subject::Header, Defect::EmptyName));
    let file = raw().entry(b"bad \xff key", BOOL, &[1]);
    assert_eq!(file.refused(), (Subject::Header, Defect::Utf8));
    let file = raw().entry(&[b'k'; 65536], BOOL, &[1]);
    assert_eq!(
        file.refused(),
        (Subject::Header, Defect::NameLength { length: 65536, limit: 65535 })
    );
    raw().entry(&[b'k'; 65535], BOOL, &[1]).open().unwrap();
    let file = raw().entry(b"twice", BOOL, &[1]).entry(b"twice", BOOL, &[0]);
    assert_eq!(file.refused(), (key("twice"), Defect::Duplicate));
}

#[test]
fn values() {
    let file = raw().entry(b"flag", BOOL, &[2]);
    assert_eq!(file.refused(), (key("flag"), Defect::Bool(2)));
    let file = raw().entry(b"flags", ARRAY, &array(BOOL, 3, &[0, 1, 255]));
    assert_eq!(file.refused(), (key("flags"), Defect::Bool(255)));
    for id in [13, 999, u32::MAX] {
        let file = raw().entry(b"odd", id, &[0; 8]);
        assert_eq!(file.refused(), (key("odd"), Defect::ValueType(id)));
        let file = raw().entry(b"odds", ARRAY, &array(id, 1, &[0; 8]));
        assert_eq!(file.refused(), (key("odds"), Defect::ValueType(id)));
    }
    let file = raw().entry(b"text", STRING, &string(b"\xc3\x28"));
    assert_eq!(file.refused(), (key("text"), Defect::Utf8));
    for needed in [1000, 1 << 63, u64::MAX] {
        let file = raw().entry(b"text", STRING, &needed.to_le_bytes());
        let (subject, defect) = file.refused();
        assert_eq!(subject, key("text"));
        assert!(matches!(defect, Defect::Truncated { needed: n, left: 64..96 } if n == needed));
    }
}

#[test]
fn array_lengths() {
    for element_type in (0..13).filter(|&id| id != ARRAY) {
        for len in [1000, 1 << 40, 1 << 61, 1 << 62, u64::MAX] {
            let file = raw().entry(b"list", ARRAY, &array(element_type, len, &[]));
            let (subject, defect) = file.refused();
            assert_eq!(subject, key("list"));
            assert!(
                matches!(defect, Defect::Count { what: "array elements", count, .. } if count == len),
                "{element_type}: {defect}"
            );
        }
    }
    // Five strings could fit in what is left, but the first takes it all and more.
    let file = raw().entry(b"list", ARRAY, &array(STRING, 5, &(1u64 << 62).to_le_bytes()));
    assert!(matches!(file.refused().1, Defect::Truncated { needed, .. } if needed == 1 << 62));
}

#[test]
fn nested_arrays() {
    let deep = array(ARRAY, 1, &[]).repeat(100_000);
    let file = raw().entry(b"deep", ARRAY, &deep);
    assert_eq!(file.refused(), (key("deep"), Defect::NestedArray));
}

#[test]
fn alignments() {
    const KEY: &str = "general.alignment";
    let u32_entry = |n: u32| raw().entry(KEY.as_bytes(), 4, &n.to_le_bytes());
    for alignment in [0, 1, 3, 4, 48, 1 << 17, 1 << 30, u32::MAX] {
        let file = u32_entry(alignment).tensor("a", &[1], F32, 0);
        assert_eq!(file.refused(), (key(KEY), Defect::Alignment(alignment)));
    }
    let file = raw().entry(KEY.as_bytes(), STRING, &string(b"32"));
    assert_eq!(file.refused(), (key(KEY), Defect::AlignmentType { found: "string" }));
    let file = raw().entry(KEY.as_bytes(), 10, &32u64.to_le_bytes());
    assert_eq!(file.refused(), (key(KEY), Defect::AlignmentType { found: "u64" }));

    for alignment in [8, 64, 65536] {
        let bytes = Raw { alignment, ..u32_entry(alignment) }.tensor("a", &[1], F32, 0).bytes();
        let file = open(&bytes).unwrap();
        assert_eq!(file.tensor("a").unwrap().offset, bytes.len() as u64 - 64, "{alignment}");
    }
}

#[test]
fn tensor_names() {
    let named = |name: &[u8]| raw().info(name, 1, &[1], F32, 0);
    assert_eq!(named(b"").refused(), (Subject::Header, Defect::EmptyName));
    assert_eq!(named(b"\xff").refused(), (Subject::Header, Defect::Utf8));
    assert_eq!(named(b"a\0").refused(), (tensor("a\0"), Defect::NameCharacter('\0')));
    assert_eq!(
        named(&[b'n'; 128]).refused(),
        (Subject::Header, Defect::NameLength { length: 128, limit: 127 })
    );
    // ggml stops at 63 bytes; shared video models have longer names.
    for length in [64, 127] {
        named(&vec![b'n'; length]).open().unwrap();
    }
    let file = raw().tensor("a", &[1], F32, 0).tensor("a", &[1], F32, 32);
    assert_eq!(file.refused(), (tensor("a"), Defect::Duplicate));
}

#[test]
fn shapes() {
    for n_dims in [0, 6, 9, 1_000_000, u32::MAX] {
        let file = raw().info(b"a", n_dims, &[1; 6], F32, 0);
        assert_eq!(file.refused(), (tensor("a"), Defect::Dimensions(n_dims.into())));
    }
    for axis in 0..5 {
        let mut dims = [2; 5];
        dims[axis] = 0;
        assert_eq!(
            raw().tensor("a", &dims, F32, 0).refused(),
            (tensor("a"), Defect::ZeroDimension)
        );
    }
    let row = Defect::Row { row: 33, dtype: DType::Q8_0 };
    assert_eq!(raw().tensor("a", &[33, 32], Q8_0, 0).refused(), (tensor("a"), row));

    let file = raw().tensor("a", &[2, 2, 1, 1, 4], F32, 0).open().unwrap();
    assert_eq!(file.tensor("a").unwrap().shape, [4, 1, 1, 2, 2]);
}

#[test]
fn sizes_that_wrap() {
    let overflows: [(&str, &[u64], u32); 7] = [
        ("negative", &[u64::MAX], I8),
        ("least negative", &[1 << 63], I8),
        ("product", &[1 << 32, 1 << 32], I8),
        ("product past a wrap", &[1 << 31, 1 << 33, 1], F32),
        ("bytes", &[1 << 62], F32),
        ("row times rows", &[1 << 31, 1 << 31], F32),
        ("padding", &[i64::MAX as u64], I8),
    ];
    for (case, dims, dtype) in overflows {
        let file = raw().tensor("a", dims, dtype, 0);
        assert_eq!(file.refused(), (tensor("a"), Defect::Overflow), "{case}");
    }
    // Each is possible alone; their sum is not.
    let file = raw().tensor("a", &[1 << 62], I8, 0).tensor("b", &[1 << 62], I8, 1 << 62);
    assert_eq!(file.refused(), (tensor("b"), Defect::Overflow));
}

#[test]
fn element_types() {
    for id in [4, 5, 31, 32, 33, 36, 37, 38, 43, 999, u32::MAX] {
        let file = raw().tensor("a", &[1], id, 0);
        assert_eq!(file.refused(), (tensor("a"), Defect::DType(id)));
    }
}

#[test]
fn offsets() {
    let second_at = |offset| raw().tensor("a", &[1], F32, 0).tensor("b", &[1], F32, offset);
    second_at(32).open().unwrap();
    let unaligned = Defect::OffsetAlignment { offset: 33, alignment: 32 };
    assert_eq!(second_at(33).refused(), (tensor("b"), unaligned));
    for (case, found) in [("overlap", 0), ("hole", 64), ("past the end", 1 << 62), ("wrap", !31)] {
        let order = Defect::OffsetOrder { found, expected: 32 };
        assert_eq!(second_at(found).refused(), (tensor("b"), order), "{case}");
    }
}

#[test]
fn data_beyond_the_end() {
    let whole = raw().tensor("a", &[9], F32, 0).tensor("b", &[5], F32, 64);
    let bytes = Raw { data: 96, ..whole }.bytes();
    let end = bytes.len() - 12;

    let trailing = [&bytes[..], b"garbage"].concat();
    for accepted in [&trailing[..], &bytes, &bytes[..end]] {
        let file = open(accepted).unwrap();
        assert_eq!(file.data(file.tensor("b").unwrap()).len(), 20);
    }
    let error = open(&bytes[..end - 1]).unwrap_err();
    let offset = end as u64 - 20;
    assert!(error.to_string().ends_with(&format!("bad tensor \"b\" at byte {offset}")), "{error}");
    assert_eq!(
        error.source().unwrap().to_string(),
        format!(
            "its 20 bytes end at byte {end}, but the file ends at byte {}; download it again",
            end - 1
        )
    );
}

#[test]
fn header_without_end() {
    let bytes = raw().entry(b"text", STRING, &(280u64 << 20).to_le_bytes()).bytes();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("sparse.gguf");
    fs::write(&path, bytes).unwrap();
    fs::File::options().write(true).open(&path).unwrap().set_len(300 << 20).unwrap();
    let limit = Defect::HeaderLength { limit: 256 << 20 };
    assert_eq!(refused(File::open(path)), (key("text"), limit));
}

#[test]
fn no_file() {
    let folder = tempfile::tempdir().unwrap();
    for path in [folder.path().join("absent.gguf"), folder.path().to_owned()] {
        assert!(matches!(File::open(path), Err(Error::Io { action: "open", .. })));
    }
}

/// Whoever opened it would wait for somebody to write.
#[cfg(unix)]
#[test]
fn pipes() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("pipe.gguf");
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    let error = File::open(path).unwrap_err();
    assert_eq!(error.source().unwrap().to_string(), "not a regular file");
}

/// A valid file with a value of each kind, a quantized tensor and one of four dimensions; returns its
/// bytes, and how many of them are header and how many there are without the last padding.
fn valid() -> (Vec<u8>, usize, usize) {
    let mut metadata = Metadata::new();
    metadata.set("u8", 1u8).set("i8", -1i8).set("u16", 1u16).set("i16", -1i16);
    metadata.set("u32", 1u32).set("i32", -1i32).set("f32", 0.5f32).set("bool", true);
    metadata.set("u64", 1u64).set("i64", -1i64).set("f64", 0.5f64).set("string", "text");
    metadata.set("general.alignment", 32u32).set("bools", vec![true, false]);
    metadata.set("strings", vec!["a".to_owned(), String::new()]).set("i32s", vec![1i32, 2]);
    let spec = |name: &str, shape: &[u64], dtype| TensorSpec {
        name: name.into(),
        shape: shape.into(),
        dtype,
    };
    let tensors = vec![spec("q", &[2, 32], DType::Q8_0), spec("c", &[2, 1, 1, 3], DType::F16)];

    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("valid.gguf");
    let mut writer = Writer::create(&path, &metadata, tensors).unwrap();
    let header = (writer.file_bytes() - writer.data_bytes()) as usize;
    writer.write(&[7; 68]).unwrap();
    writer.write(&[9; 12]).unwrap();
    writer.finish().unwrap();
    let bytes = fs::read(path).unwrap();
    let whole = bytes.len() - 20;
    (bytes, header, whole)
}

/// Opens variations of a file without a folder for each.
struct Scratch {
    _folder: tempfile::TempDir,
    path: std::path::PathBuf,
}

impl Scratch {
    fn new() -> Scratch {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("scratch.gguf");
        Scratch { _folder: folder, path }
    }

    fn open(&self, bytes: &[u8]) -> Result<File, Error> {
        fs::write(&self.path, bytes).unwrap();
        File::open(&self.path)
    }
}

#[test]
fn every_prefix() {
    let (bytes, _, whole) = valid();
    let scratch = Scratch::new();
    for length in 0..=bytes.len() {
        let result = scratch.open(&bytes[..length]);
        assert_eq!(result.is_ok(), length >= whole, "{length} of {} bytes", bytes.len());
        assert!(length >= whole || matches!(result, Err(Error::Malformed { .. })));
    }
}

#[test]
fn every_flipped_header_byte() {
    let (mut bytes, header, _) = valid();
    let scratch = Scratch::new();
    let (mut accepted, mut refused) = (0, 0);
    for position in 0..header {
        for flip in [1, 2, 4, 8, 16, 32, 64, 128, 255] {
            bytes[position] ^= flip;
            match scratch.open(&bytes) {
                Ok(file) => {
                    accepted += 1;
                    for tensor in file.tensors() {
                        assert_eq!(file.data(tensor).len() as u64, tensor.bytes);
                    }
                }
                Err(Error::Malformed { offset, source, .. }) => {
                    refused += 1;
                    assert!(offset <= bytes.len() as u64, "{source} at byte {offset}");
                }
                Err(error) => panic!("byte {position} ^ {flip}: {error:?}"),
            }
            bytes[position] ^= flip;
        }
    }
    assert!(accepted > 0 && refused > 0, "{accepted} accepted, {refused} refused");
}
