//! Any bytes are a file or an error; of a file, every tensor's data is there, and writing it again
//! gives a file with the same content.
#![no_main]

use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = gguf::File::from_bytes("fuzz.gguf", bytes.to_vec()) else { return };
    let mut end = 0;
    for tensor in file.tensors() {
        assert_eq!(file.data(tensor).len() as u64, tensor.bytes);
        let row = *tensor.shape.last().unwrap();
        let rows = tensor.elements() / row;
        assert_eq!(tensor.dtype.row_bytes(row).unwrap() * rows, tensor.bytes);
        assert!(tensor.offset >= end, "tensors overlap");
        end = tensor.offset + tensor.bytes;
        assert!(std::ptr::eq(file.tensor(&tensor.name).unwrap(), tensor));
    }
});
