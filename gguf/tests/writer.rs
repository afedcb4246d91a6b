//! What the writer leaves on the disk: the bytes of the format, or nothing.

use std::error::Error as _;
use std::fs;
use std::path::Path;

use gguf::{DType, Defect, Error, File, Metadata, Subject, TensorSpec, Writer};

fn spec(name: &str, shape: &[u64], dtype: DType) -> TensorSpec {
    TensorSpec { name: name.into(), shape: shape.into(), dtype }
}

fn entries(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn the_bytes_of_the_format() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let mut metadata = Metadata::new();
    metadata.set("flag", true).set("list", vec!["a".to_owned(), "bc".to_owned()]);
    let tensors = vec![spec("m", &[2, 3], DType::I8), spec("v", &[1], DType::F32)];
    let mut writer = Writer::create(&path, &metadata, tensors).unwrap();
    writer.write(&[1, 2, 3, 4, 5, 6]).unwrap();
    writer.write(&[7, 8, 9, 10]).unwrap();
    writer.finish().unwrap();

    let parts: [&[u8]; _] = [
        b"GGUF",
        b"\x03\0\0\0",
        b"\x02\0\0\0\0\0\0\0",
        b"\x02\0\0\0\0\0\0\0",
        b"\x04\0\0\0\0\0\0\0flag",
        b"\x07\0\0\0\x01",
        b"\x04\0\0\0\0\0\0\0list",
        b"\x09\0\0\0\x08\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0a\x02\0\0\0\0\0\0\0bc",
        b"\x01\0\0\0\0\0\0\0m",
        b"\x02\0\0\0\x03\0\0\0\0\0\0\0\x02\0\0\0\0\0\0\0",
        b"\x18\0\0\0\0\0\0\0\0\0\0\0",
        b"\x01\0\0\0\0\0\0\0v",
        b"\x01\0\0\0\x01\0\0\0\0\0\0\0",
        b"\0\0\0\0\x20\0\0\0\0\0\0\0",
    ];
    let mut expected = parts.concat();
    expected.resize(192, 0);
    expected.extend([1, 2, 3, 4, 5, 6]);
    expected.resize(224, 0);
    expected.extend([7, 8, 9, 10]);
    expected.resize(256, 0);
    assert_eq!(fs::read(&path).unwrap(), expected);
}

#[track_caller]
fn refused(metadata: &Metadata, tensors: Vec<TensorSpec>) -> (Subject, Defect) {
    let folder = tempfile::tempdir().unwrap();
    let result = Writer::create(folder.path().join("model.gguf"), metadata, tensors);
    assert_eq!(entries(folder.path()), [""; 0]);
    match result {
        Ok(_) => panic!("the file was accepted"),
        Err(Error::Refused { subject, source, .. }) => (subject, source),
        Err(error) => panic!("the file was refused as {error:?}"),
    }
}

#[test]
fn tensors_that_no_reader_takes() {
    let a = || Subject::Tensor("a".into());
    let tensors = |tensors: &[TensorSpec]| refused(&Metadata::new(), tensors.to_vec());
    let twice = [spec("a", &[1], DType::F32), spec("a", &[2], DType::F32)];
    assert_eq!(tensors(&twice), (a(), Defect::Duplicate));
    let row = Defect::Row { row: 100, dtype: DType::Q4_K };
    assert_eq!(tensors(&[spec("a", &[4, 100], DType::Q4_K)]), (a(), row));
    assert_eq!(tensors(&[spec("a", &[], DType::F32)]), (a(), Defect::Dimensions(0)));
    assert_eq!(tensors(&[spec("a", &[1; 6], DType::F32)]), (a(), Defect::Dimensions(6)));
    assert_eq!(tensors(&[spec("a", &[0], DType::F32)]), (a(), Defect::ZeroDimension));
    let huge = spec("a", &[1 << 62], DType::I8);
    assert_eq!(
        tensors(&[huge, spec("b", &[1 << 62], DType::I8)]),
        (Subject::Tensor("b".into()), Defect::Overflow)
    );
    let name = "n".repeat(128);
    assert_eq!(
        tensors(&[spec(&name, &[1], DType::F32)]),
        (Subject::Tensor(name), Defect::NameLength { length: 128, limit: 127 })
    );
}

#[test]
fn metadata_that_some_reader_cannot_take() {
    let key = |key: &str| refused(Metadata::new().set(key, true), vec![]).1;
    assert_eq!(key(""), Defect::EmptyName);
    assert_eq!(key("two words"), Defect::NameCharacter(' '));
    assert_eq!(key("größe"), Defect::NameCharacter('ö'));
    assert_eq!(key(&"k".repeat(65536)), Defect::NameLength { length: 65536, limit: 65535 });
    assert_eq!(key("general.alignment"), Defect::ForeignAlignment);

    let mut metadata = Metadata::new();
    metadata.set("general.tags", vec!["video".to_owned()]);
    let kernel = spec("patch_embedding.weight", &[8, 4, 1, 2, 2], DType::F32);
    assert_eq!(
        refused(&metadata, vec![kernel.clone()]),
        (
            Subject::Key("general.tags".into()),
            Defect::ArrayBesideFiveDimensions { tensor: kernel.name }
        )
    );
}

#[test]
fn nothing_is_left_of_an_unfinished_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let create = || {
        let tensors = vec![spec("a", &[4], DType::F32), spec("b", &[2], DType::F32)];
        Writer::create(&path, &Metadata::new(), tensors).unwrap()
    };

    let mut writer = create();
    assert_eq!(entries(folder.path()), ["model.gguf.part"]);
    writer.write(&[0; 10]).unwrap();
    drop(writer);
    assert_eq!(entries(folder.path()), [""; 0]);

    let mut writer = create();
    writer.write(&[0; 16]).unwrap();
    writer.write(&[0; 5]).unwrap();
    let error = writer.finish().unwrap_err();
    assert_eq!(error.to_string(), format!("{}: cannot write tensor \"b\"", path.display()));
    assert_eq!(error.source().unwrap().to_string(), "only 5 of its 8 bytes were written");
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[test]
#[should_panic(expected = "tensor \"a\" takes 16 bytes, got 10 after 8")]
fn a_piece_stays_within_its_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let tensors = vec![spec("a", &[4], DType::F32), spec("b", &[4], DType::F32)];
    let path = folder.path().join("model.gguf");
    let mut writer = Writer::create(path, &Metadata::new(), tensors).unwrap();
    writer.write(&[0; 8]).unwrap();
    let _ = writer.write(&[0; 10]);
}

/// Requantizing a file onto itself: the old one stays readable to the end.
#[test]
fn an_open_file_can_be_replaced() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    let write = |byte: u8| {
        let tensors = vec![spec("a", &[64], DType::I8)];
        let mut writer = Writer::create(&path, &Metadata::new(), tensors).unwrap();
        writer.write(&[byte; 64]).unwrap();
        writer.finish().unwrap();
    };
    write(1);
    let old = File::open(&path).unwrap();
    write(2);
    let new = File::open(&path).unwrap();
    assert_eq!(old.data(&old.tensors()[0]), [1; 64]);
    assert_eq!(new.data(&new.tensors()[0]), [2; 64]);
    assert_eq!(entries(folder.path()), ["model.gguf"]);
}

#[test]
#[cfg(target_os = "linux")]
fn a_full_disk_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    // The device that is always full, under the name that the writer is going to use.
    std::os::unix::fs::symlink("/dev/full", folder.path().join("model.gguf.part")).unwrap();
    let tensors = vec![spec("a", &[1 << 20], DType::F32)];
    let mut writer = Writer::create(&path, &Metadata::new(), tensors).unwrap();
    let error = writer.write(&vec![0; 4 << 20]).unwrap_err();
    drop(writer);
    let Error::Io { action: "write", source, .. } = &error else { panic!("{error:?}") };
    assert_eq!(source.kind(), std::io::ErrorKind::StorageFull);
    assert_eq!(entries(folder.path()), [""; 0]);
}

#[test]
fn a_missing_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("absent").join("model.gguf");
    let error = Writer::create(path, &Metadata::new(), vec![]).unwrap_err();
    assert!(matches!(error, Error::Io { action: "create", .. }), "{error:?}");
}
