//! Against ggml itself: the table of types, and quantized tensors in one piece.
#![expect(unsafe_code, reason = "the reference is C")]

mod support;

use gguf::{DType, File};
use std::ptr;
use support::{Wan, job_of_file, originals, write_raw};
use to_gguf::{Job, QUANTIZED, Recipe, Silent, Types, convert};

#[test]
fn types_are_as_ggml_has_them() {
    let count = DType::ALL.last().unwrap().id() + 1;
    assert_eq!(count as ggml_sys::ggml_type, ggml_sys::GGML_TYPE_COUNT);
    for id in 0..count {
        let theirs = id as ggml_sys::ggml_type;
        // SAFETY: the number is one of ggml's types; the removed ones have sizes of 0.
        let (len, bytes) =
            unsafe { (ggml_sys::ggml_blck_size(theirs), ggml_sys::ggml_type_size(theirs)) };
        let ours = DType::from_id(id);
        let ours = ours.map_or((0, 0), |dtype| (dtype.block_len(), dtype.block_bytes()));
        assert_eq!(ours, (len as u64, bytes as u64), "type {id}");
    }
}

#[test]
fn blocks_are_ggmls() {
    let tensors = Wan::TINY.tensors();
    let source = |name: &str| tensors.iter().find(|tensor| tensor.source == name).unwrap();
    let values = source("blocks.0.ffn.net.2.weight").values("F32");
    let (rows, row) = (256, 512);
    let names: Vec<&str> = QUANTIZED.iter().map(|dtype| dtype.name()).collect();
    let (_folder, job) = job_of_file("tiny.safetensors", &names.join(","));
    write_raw(&job.source, &originals(Wan::TINY, ""));
    let types = Types { recipe: Recipe::Uniform, ..Types::default() };
    let job = Job { types, ..job };
    convert(&job, &mut Silent).unwrap();
    for &dtype in QUANTIZED {
        let mut wanted = vec![0u8; dtype.row_bytes(rows * row).unwrap() as usize];
        // SAFETY: `values` has `rows * row` elements, whose blocks `wanted` has room for.
        let written = unsafe {
            let out = wanted.as_mut_ptr().cast();
            let (rows, row) = (rows as i64, row as i64);
            ggml_sys::ggml_quantize_chunk(
                dtype.id() as ggml_sys::ggml_type,
                values.as_ptr(),
                out,
                0,
                rows,
                row,
                ptr::null(),
            )
        };
        assert_eq!(written, wanted.len(), "{dtype}");
        let file = File::open(job.output.join(format!("Tiny-{dtype}.gguf"))).unwrap();
        let tensor = file.tensor("blocks.0.ffn.2.weight").unwrap();
        assert_eq!(tensor.dtype, dtype);
        assert!(file.data(tensor) == wanted, "{dtype}");
    }
}
