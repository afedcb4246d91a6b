//! Importance matrices of each format, and what they do to files.

mod support;

use gguf::{DType, File, Metadata, TensorSpec, Writer};
use std::fs;
use std::path::Path;
use support::{Wan, job_of_file, originals, write_raw};
use to_gguf::{Job, Silent, convert, encode};

const NAME: &str = "blocks.1.ffn.2.weight";
const COLUMNS: usize = 512;

fn importance() -> Vec<f32> {
    (0..COLUMNS).map(|i| if i % 5 == 0 { 100.0 } else { 1.0 + i as f32 / 256.0 }).collect()
}

fn legacy(path: &Path, name: &str, calls: i32, values: &[f32]) {
    let mut bytes = 1i32.to_le_bytes().to_vec();
    bytes.extend((name.len() as i32).to_le_bytes());
    bytes.extend(name.as_bytes());
    bytes.extend(calls.to_le_bytes());
    bytes.extend((values.len() as i32).to_le_bytes());
    bytes.extend(values.iter().flat_map(|value| (value * calls as f32).to_le_bytes()));
    bytes.extend(7i32.to_le_bytes());
    bytes.extend(4i32.to_le_bytes());
    bytes.extend(b"data");
    fs::write(path, bytes).unwrap();
}

fn current(path: &Path, name: &str, values: &[f32]) {
    let mut metadata = Metadata::new();
    metadata
        .set("general.type", "imatrix")
        .set("imatrix.datasets", vec!["data".to_owned()])
        .set("imatrix.chunk_count", 7u32)
        .set("imatrix.chunk_size", 512u32);
    let spec = |part: &str, shape: Vec<u64>| TensorSpec {
        name: format!("{name}.{part}"),
        shape,
        dtype: DType::F32,
    };
    let specs = vec![spec("in_sum2", vec![1, values.len() as u64]), spec("counts", vec![1, 1])];
    let mut writer = Writer::create(path, &metadata, specs).unwrap();
    for value in values {
        writer.write(&(value * 4.0).to_le_bytes()).unwrap();
    }
    writer.write(&4f32.to_le_bytes()).unwrap();
    writer.finish().unwrap();
}

fn original(name: &str) -> Vec<f32> {
    let tensors = Wan::TINY.tensors();
    tensors.iter().find(|tensor| tensor.name == name).unwrap().values("F32")
}

#[test]
fn every_format_weighs_the_same_matrix() {
    let (folder, job) = job_of_file("tiny.safetensors", "Q4_K,Q3_K");
    write_raw(&job.source, &originals(Wan::TINY, ""));
    let path = folder.path().join("imatrix");
    let job = Job { imatrix: vec![path.clone()], force: true, ..job };
    let diffusers = "blocks.1.ffn.net.2.weight";
    let prefixed = format!("model.diffusion_model.{NAME}");
    let write: [&dyn Fn(); 4] = [
        &|| legacy(&path, NAME, 8, &importance()),
        &|| legacy(&path, &prefixed, 2, &importance()),
        &|| current(&path, NAME, &importance()),
        &|| current(&path, diffusers, &importance()),
    ];
    for write in write {
        write();
        convert(&job, &mut Silent).unwrap_or_else(|error| panic!("{error:#}"));
        for dtype in [DType::Q4_K, DType::Q3_K] {
            let file = File::open(job.output.join(format!("Tiny-{dtype}.gguf"))).unwrap();
            let tensor = file.tensor(NAME).unwrap();
            let encoded = |name: &str, weights: Option<&[f32]>| {
                let values = original(name);
                let mut out = vec![0; dtype.row_bytes(values.len() as u64).unwrap() as usize];
                encode(dtype, &values, weights, &mut out);
                out
            };
            assert!(file.data(tensor) == encoded(NAME, Some(&importance())), "{dtype}");
            assert!(file.data(tensor) != encoded(NAME, None), "the weights matter");
            let other = "blocks.0.ffn.2.weight";
            assert!(file.data(file.tensor(other).unwrap()) == encoded(other, None), "{dtype}");
            let m = file.metadata();
            assert_eq!(m.string("quantize.imatrix.file"), Ok("imatrix"));
            assert_eq!(m.string("quantize.imatrix.dataset"), Ok("data"));
            assert_eq!(m.u32("quantize.imatrix.entries_count"), Ok(1));
            assert_eq!(m.u32("quantize.imatrix.chunks_count"), Ok(7));
            assert_eq!(m.string("quantize.imatrix.sha256").unwrap().len(), 64);
        }
    }
}

#[test]
fn matrices_that_cannot_be_right_are_refused() {
    let (folder, job) = job_of_file("tiny.safetensors", "Q4_K");
    write_raw(&job.source, &originals(Wan::TINY, ""));
    let path = folder.path().join("imatrix");
    let job = Job { imatrix: vec![path.clone()], ..job };
    let refused = |part: &str| {
        let error = format!("{:#}", convert(&job, &mut Silent).unwrap_err());
        assert!(error.contains(part), "{part:?} is not in: {error}");
        assert!(!job.output.exists());
    };
    legacy(&path, NAME, 8, &importance());
    let whole = fs::read(&path).unwrap();
    for cut in 1..whole.len() {
        fs::write(&path, &whole[..cut]).unwrap();
        // Files of an older version end before the chunks.
        let older = whole.len() - 12;
        if ![older, older + 4].contains(&cut) {
            assert!(convert(&job, &mut Silent).is_err(), "the first {cut} bytes");
        }
    }
    fs::write(&path, [&whole[..], b"more"].concat()).unwrap();
    refused("4 bytes follow the end");
    fs::write(&path, b"").unwrap();
    refused("4 bytes wanted, 0 left");
    fs::write(&path, [0xff; 64]).unwrap();
    refused("-1 entries");
    legacy(&path, NAME, 8, &importance()[1..]);
    refused("has 511 channels, the matrix 512");
    legacy(&path, "blk.0.ffn_down.weight", 8, &importance());
    refused("none of its matrices is one of Tiny");
    for value in [f32::NAN, -1.0, f32::INFINITY] {
        let mut wrong = importance();
        wrong[77] = value;
        legacy(&path, NAME, 1, &wrong);
        refused("the importance of channel 77 is");
    }
    // Another kind of GGUF file.
    Writer::create(&path, &Metadata::new(), vec![]).unwrap().finish().unwrap();
    refused("another kind of GGUF file");
}

/// What weights do to a fit near the end of F16's range: a smallest value that F16 doesn't have.
#[test]
fn blocks_with_infinite_scales_are_not_written() {
    let (folder, job) = job_of_file("tiny.safetensors", "Q5_1");
    let path = folder.path().join("imatrix");
    legacy(&path, NAME, 1, &importance());
    let mut tensors = originals(Wan::TINY, "");
    let tensor = tensors.iter_mut().find(|tensor| tensor.name == NAME).unwrap();
    let mut state = 1u32;
    let values: Vec<f32> = (0..tensor.bytes.len() / 4)
        .map(|_| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            -65_503.0 + (state >> 24) as f32 * 32.0
        })
        .collect();
    let mut blocks = vec![0; DType::Q5_1.row_bytes(values.len() as u64).unwrap() as usize];
    encode(DType::Q5_1, &values, Some(&importance()), &mut blocks);
    let mut decoded = Vec::new();
    to_gguf::decode(DType::Q5_1, &blocks, &mut decoded);
    assert!(decoded.iter().any(|value| value.is_infinite()), "this is what is to be refused");

    tensor.bytes = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    write_raw(&job.source, &tensors);
    let job = Job { imatrix: vec![path], ..job };
    let error = format!("{:#}", convert(&job, &mut Silent).unwrap_err());
    for part in [NAME, "too large for the scales of Q5_1", "--tensor-type"] {
        assert!(error.contains(part), "{part:?} is not in: {error}");
    }
    assert_eq!(fs::read_dir(&job.output).unwrap().count(), 0, "no file is left");
}
