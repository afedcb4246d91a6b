//! What is written is what is read: any metadata, any tensors, in pieces of any length.

use std::collections::BTreeMap;
use std::fs;

use gguf::{Array, DType, File, Metadata, TensorSpec, Value, Writer};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::select;

fn value() -> impl Strategy<Value = Value> {
    prop_oneof![
        any::<u8>().prop_map(Value::from),
        any::<i8>().prop_map(Value::from),
        any::<u16>().prop_map(Value::from),
        any::<i16>().prop_map(Value::from),
        any::<u32>().prop_map(Value::from),
        any::<i32>().prop_map(Value::from),
        proptest::num::f32::ANY.prop_map(Value::from),
        any::<bool>().prop_map(Value::from),
        any::<String>().prop_map(Value::from),
        any::<u64>().prop_map(Value::from),
        any::<i64>().prop_map(Value::from),
        proptest::num::f64::ANY.prop_map(Value::from),
        array(),
    ]
}

fn array() -> impl Strategy<Value = Value> {
    prop_oneof![
        vec(any::<u8>(), 0..9).prop_map(Value::from),
        vec(any::<i8>(), 0..9).prop_map(Value::from),
        vec(any::<u16>(), 0..9).prop_map(Value::from),
        vec(any::<i16>(), 0..9).prop_map(Value::from),
        vec(any::<u32>(), 0..9).prop_map(Value::from),
        vec(any::<i32>(), 0..9).prop_map(Value::from),
        vec(proptest::num::f32::ANY, 0..9).prop_map(Value::from),
        vec(any::<bool>(), 0..9).prop_map(Value::from),
        vec(any::<String>(), 0..9).prop_map(Value::from),
        vec(any::<u64>(), 0..9).prop_map(Value::from),
        vec(any::<i64>(), 0..9).prop_map(Value::from),
        vec(proptest::num::f64::ANY, 0..9).prop_map(Value::from),
    ]
}

/// Type and shape; names come from the map around it.
fn tensor() -> impl Strategy<Value = (DType, Vec<u64>)> {
    (select(DType::ALL), vec(1u64..4, 1..=5)).prop_map(|(dtype, mut shape)| {
        *shape.last_mut().unwrap() *= dtype.block_len();
        (dtype, shape)
    })
}

fn content() -> impl Strategy<Value = (Metadata, Vec<TensorSpec>)> {
    let keys = "[a-z][a-zA-Z0-9._-]{0,40}";
    let names = "[^\0]{1,31}";
    (btree_map(keys, value(), 0..12), btree_map(names, tensor(), 0..6)).prop_map(
        |(entries, tensors): (BTreeMap<_, _>, BTreeMap<_, _>)| {
            let five = tensors.values().any(|(_, shape)| shape.len() == 5);
            let mut metadata = Metadata::new();
            for (key, value) in entries {
                if !(five && matches!(value, Value::Array(_))) {
                    metadata.set(key, value);
                }
            }
            let tensors = tensors
                .into_iter()
                .map(|(name, (dtype, shape))| TensorSpec { name, shape, dtype })
                .collect();
            (metadata, tensors)
        },
    )
}

/// Equal bit for bit, NaN included.
fn same(a: &Value, b: &Value) -> bool {
    match (a, b) {
        (Value::F32(a), Value::F32(b)) => a.to_bits() == b.to_bits(),
        (Value::F64(a), Value::F64(b)) => a.to_bits() == b.to_bits(),
        (Value::Array(Array::F32(a)), Value::Array(Array::F32(b))) => {
            a.iter().map(|n| n.to_bits()).eq(b.iter().map(|n| n.to_bits()))
        }
        (Value::Array(Array::F64(a)), Value::Array(Array::F64(b))) => {
            a.iter().map(|n| n.to_bits()).eq(b.iter().map(|n| n.to_bits()))
        }
        _ => a == b,
    }
}

proptest! {
    #[test]
    fn files_round_trip((metadata, specs) in content(), piece in 1usize..5000, seed: u8) {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("model.gguf");
        let byte = |index: usize| (index as u8).wrapping_mul(31).wrapping_add(seed);

        let mut writer = Writer::create(&path, &metadata, specs.clone()).unwrap();
        let file_bytes = writer.file_bytes();
        let mut written = Vec::new();
        while let Some(spec) = writer.current() {
            let rows = spec.shape.iter().rev().skip(1).product::<u64>();
            let size = rows * spec.dtype.row_bytes(*spec.shape.last().unwrap()).unwrap();
            let data: Vec<u8> = (0..size as usize).map(|i| byte(i + written.len())).collect();
            for piece in data.chunks(piece) {
                writer.write(piece).unwrap();
            }
            written.push(data);
        }
        writer.finish().unwrap();

        let file = File::open(&path).unwrap();
        prop_assert_eq!(file.version(), 3);
        prop_assert_eq!(file.mapping().len() as u64, file_bytes);
        prop_assert_eq!(file.metadata().len(), metadata.len());
        for ((key, value), (found_key, found)) in metadata.iter().zip(file.metadata().iter()) {
            prop_assert_eq!(key, found_key);
            prop_assert!(same(value, found), "{}: {:?} became {:?}", key, value, found);
        }
        prop_assert_eq!(file.tensors().len(), specs.len());
        let mut end = None;
        for ((spec, tensor), data) in specs.iter().zip(file.tensors()).zip(&written) {
            prop_assert_eq!(&tensor.name, &spec.name);
            prop_assert_eq!(&tensor.shape, &spec.shape);
            prop_assert_eq!(tensor.dtype, spec.dtype);
            prop_assert_eq!(tensor.elements(), spec.shape.iter().product::<u64>());
            prop_assert_eq!(tensor.offset % 32, 0);
            prop_assert!(end.is_none_or(|end| tensor.offset == end));
            prop_assert_eq!(file.data(tensor), &data[..]);
            prop_assert_eq!(file.tensor(&spec.name), Some(tensor));
            let data_end = (tensor.offset + tensor.bytes) as usize;
            let padded = data_end.next_multiple_of(32);
            prop_assert!(file.mapping()[data_end..padded].iter().all(|&byte| byte == 0));
            end = Some(padded as u64);
        }
        prop_assert_eq!(end.unwrap_or(file_bytes), file_bytes);
        prop_assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
