//! Quantized files against F32 files that hold the same dequantized weights: whatever the
//! quantizer lost, the arithmetic on what is left must not differ.

use e2e::{Comparison, converted, fixture, open_model, repository};
use gguf::{DType, File, TensorSpec, Writer};
use gguf_video::ggml::{Device, Executor, HostTensor, Precision};
use gguf_video::pipeline::{
    Checkpoint, Experts, Machine, ModelFolder, Request, Silent, decode, encode, generate,
};
use half::{bf16, f16};
use std::fs;
use std::path::Path;
use std::sync::Arc;

fn f16_at(block: &[u8], at: usize) -> f32 {
    f16::from_le_bytes([block[at], block[at + 1]]).to_f32()
}

/// 32 weights: a scale and 32 signed bytes.
fn q8_0(block: &[u8], out: &mut Vec<f32>) {
    let d = f16_at(block, 0);
    out.extend(block[2..34].iter().map(|&q| d * f32::from(q as i8)));
}

/// 256 weights: a scale for the scales and one for the minima, eight of each in six bits, and
/// 4-bit values, the low halves of 32 bytes before the high ones.
fn q4_k(block: &[u8], out: &mut Vec<f32>) {
    let (d, dmin, packed, values) =
        (f16_at(block, 0), f16_at(block, 2), &block[4..16], &block[16..144]);
    let scale_and_min = |j: usize| match j {
        0..4 => (packed[j] & 63, packed[j + 4] & 63),
        _ => (
            (packed[j + 4] & 15) | (packed[j - 4] >> 6 << 4),
            (packed[j + 4] >> 4) | (packed[j] >> 6 << 4),
        ),
    };
    for j in 0..8 {
        let (scale, min) = scale_and_min(j);
        let bytes = &values[j / 2 * 32..][..32];
        let nibble = |b: &u8| if j % 2 == 0 { b & 15 } else { b >> 4 };
        out.extend(
            bytes
                .iter()
                .map(|b| d * f32::from(scale) * f32::from(nibble(b)) - dmin * f32::from(min)),
        );
    }
}

/// The values of a tensor, by the definition of its type.
fn dequantized(dtype: DType, bytes: &[u8]) -> Vec<f32> {
    let mut out = Vec::new();
    let blocks = bytes.chunks_exact(dtype.block_bytes() as usize);
    match dtype {
        DType::F32 => out.extend(blocks.map(|b| f32::from_le_bytes(b.try_into().unwrap()))),
        DType::F16 => out.extend(blocks.map(|b| f16_at(b, 0))),
        DType::BF16 => out.extend(blocks.map(|b| bf16::from_le_bytes([b[0], b[1]]).to_f32())),
        DType::Q8_0 => blocks.for_each(|b| q8_0(b, &mut out)),
        DType::Q4_K => blocks.for_each(|b| q4_k(b, &mut out)),
        other => panic!("no definition of {other} here"),
    }
    out
}

/// Writes `file` again with every tensor in `dtype`, F32 or one of half the bits; says how many were quantized.
fn rewrite(file: &File, to: &Path, dtype: DType) -> usize {
    fs::create_dir_all(to.parent().unwrap()).unwrap();
    let spec =
        |t: &gguf::Tensor| TensorSpec { name: t.name.clone(), shape: t.shape.clone(), dtype };
    let specs = file.tensors().iter().map(spec).collect();
    let mut writer = Writer::create(to, file.metadata(), specs).unwrap();
    for t in file.tensors() {
        for value in dequantized(t.dtype, file.data(t)) {
            let written = match dtype {
                DType::F16 => writer.write(&f16::from_f32(value).to_le_bytes()),
                DType::BF16 => writer.write(&bf16::from_f32(value).to_le_bytes()),
                _ => writer.write(&value.to_le_bytes()),
            };
            written.unwrap();
        }
    }
    writer.finish().unwrap();
    file.tensors().iter().filter(|t| t.dtype.is_quantized()).count()
}

struct Made {
    prompt: HostTensor,
    latents: HostTensor,
    video: Vec<f32>,
}

fn request() -> Request {
    Request {
        prompt: "a small green square moving left on a gray background".into(),
        negative_prompt: String::new(),
        width: 96,
        height: 64,
        frames: 5,
        steps: 3,
        guidance_scale: 4.0,
        guidance_scale_low: 3.0,
        flow_shift: 3.0,
        seed: 5,
        ..Request::default()
    }
}

fn executor() -> Executor {
    Executor::new(Device::cpu(), Precision::Strict, 1).unwrap()
}

fn make(folder: &ModelFolder) -> Made {
    let (request, mut exec) = (request(), executor());
    let prompts = encode(&mut exec, folder, &request, &mut Silent).unwrap();
    let prompt = prompts.positive.clone();
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone()).unwrap();
    let start = Checkpoint::start(&request, folder.latent_grid().unwrap());
    let latents = experts
        .denoise(&mut exec, &request, &prompts, start, &mut Silent, &mut |_, _| Ok(()))
        .unwrap();
    let mut video = Vec::new();
    let mut push = |frame: &gguf_video::output::Frame| {
        video.extend(frame.rgb.iter().map(|&b| f32::from(b)));
        Ok(())
    };
    decode(&mut exec, folder, latents.clone(), request.frames, &mut Silent, &mut push).unwrap();
    Made { prompt, latents, video }
}

fn check(quant: &str, quantized_tensors: usize) {
    let output = tempfile::tempdir().unwrap();
    let (as_is, widened) = (output.path().join("quantized"), output.path().join("widened"));
    let folder = converted(&repository("demo/checkpoint"), &as_is, quant);
    let files = [
        ("high.gguf", &folder.transformer),
        ("low.gguf", folder.transformer_2.as_ref().unwrap()),
        ("text.gguf", &folder.text_encoder),
        ("vae.gguf", &folder.vae),
    ];
    let widen = |(name, file): &(&str, &Arc<File>)| rewrite(file, &widened.join(name), DType::F32);
    let count = files.iter().map(widen).sum::<usize>();
    assert_eq!(count, quantized_tensors, "tensors in {quant}");

    let (got, expected) = (make(&folder), make(&open_model(&widened)));
    let wide = |v: &[f32]| v.iter().map(|&v| f64::from(v)).collect::<Vec<_>>();
    let mut comparison = Comparison::new(5e-5);
    comparison.check("prompt.embeds", &got.prompt.data, &wide(&expected.prompt.data));
    comparison.check("latents", &got.latents.data, &wide(&expected.latents.data));
    comparison.finish(quant);
    // Eight bits may fall to the other side of a rounding.
    let apart = got.video.iter().zip(&expected.video).filter(|(a, b)| (*a - *b).abs() > 1.0);
    assert_eq!(apart.count(), 0, "values of the video that differ by more than one");
}

/// VAEs are often published in halves, which become what kernels want when they are loaded.
#[test]
fn a_vae_of_halves_decodes_as_its_values_say() {
    let output = tempfile::tempdir().unwrap();
    let mut folder = converted(&repository("demo/checkpoint"), &output.path().join("demo"), "F32");
    let original = folder.vae.clone();
    let start = Checkpoint::start(&request(), folder.latent_grid().unwrap());
    let mut decoded = |vae: &Path| {
        folder.vae = Arc::new(File::open(vae).unwrap());
        let (mut exec, mut frames) = (executor(), Vec::new());
        let mut push = |frame: &gguf_video::output::Frame| {
            frames.push(frame.clone());
            Ok(())
        };
        let latents = start.latents.clone();
        decode(&mut exec, &folder, latents, request().frames, &mut Silent, &mut push).unwrap();
        frames
    };
    for dtype in [DType::F16, DType::BF16] {
        let [halves, widened] =
            ["halves", "widened"].map(|name| output.path().join(format!("{name}-{dtype}.gguf")));
        rewrite(&original, &halves, dtype);
        rewrite(&File::open(&halves).unwrap(), &widened, DType::F32);
        assert_eq!(decoded(&halves), decoded(&widened), "{dtype}");
    }
}

/// A NaN in one weight of the VAE, the last place where it could slip through.
#[test]
fn a_video_of_no_numbers_is_refused() {
    let output = tempfile::tempdir().unwrap();
    let folder = converted(&repository("demo/checkpoint"), &output.path().join("demo"), "F32");
    let path = output.path().join("damaged.gguf");
    let tensor = folder.vae.tensor("decoder.head.2.weight").unwrap().clone();
    let mut bytes = fs::read(folder.vae.path()).unwrap();
    bytes[tensor.offset as usize..][..4].copy_from_slice(&f32::NAN.to_le_bytes());
    fs::write(&path, bytes).unwrap();
    let damaged = ModelFolder { vae: Arc::new(File::open(&path).unwrap()), ..folder };
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let mut pushed = 0;
    let mut push = |_: &gguf_video::output::Frame| {
        pushed += 1;
        Ok(())
    };
    let made = generate(&machine, &damaged, &request(), true, None, &mut Silent, &mut push);
    let error = made.err().unwrap().to_string();
    assert!(error.starts_with("frame 1 of 5 is not a number in"), "{error}");
    assert_eq!(pushed, 0);
}

#[test]
fn files_of_different_models_are_refused() {
    let output = tempfile::tempdir().unwrap();
    let demo = converted(&repository("demo/checkpoint"), &output.path().join("demo"), "Q8_0");
    let xs = converted(&fixture("xs"), &output.path().join("xs"), "Q8_0");
    let mixed = ModelFolder { text_encoder: xs.text_encoder.clone(), ..demo };
    let mut exec = Executor::new(Device::cpu(), Precision::Native, 1).unwrap();
    let error = encode(&mut exec, &mixed, &request(), &mut Silent).err().unwrap().to_string();
    assert!(error.contains("has 64 text channels"), "{error}");
    assert!(error.ends_with("expects 256: the files belong to different models"), "{error}");
}

/// Two experts of 6 blocks with 10 matrices, 3 text blocks with 7, and the token embedding.
const MATRICES: usize = 2 * 6 * 10 + 3 * 7 + 1;

#[test]
fn q8_0_computes_what_its_weights_say() {
    check("Q8_0", MATRICES);
}

#[test]
fn q4_k_computes_what_its_weights_say() {
    check("Q4_K", MATRICES);
}
