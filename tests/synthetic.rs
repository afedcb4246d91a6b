//! Model files of real sizes without a real model, by the catalog's tables: for measuring time and
//! memory, and for what looks at graphs alone.

use catalog::{Role, Wanted, clip, umt5, wan, wan_vae};
use gguf::{DType, File, Metadata, TensorSpec, Writer};
use gguf_video::pipeline::ModelFolder;
use half::f16;
use std::fs;
use std::path::Path;
use std::sync::Arc;

/// What the tensors hold.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Values {
    /// Numbers about as large as trained weights.
    Random,
    /// Nothing: the file takes no disk.
    Zero,
}

/// Sizes of a Wan transformer.
#[derive(Clone, Copy, Debug)]
pub struct Transformer {
    pub dim: u32,
    pub ffn: u32,
    pub heads: u32,
    pub layers: u32,
    /// `high_noise`, `low_noise` or `single`.
    pub expert: &'static str,
    /// Of the input and of the output.
    pub channels: [u32; 2],
    /// Rows of an image encoder's features that it attends to, if any, and whether they have an embedding
    /// of their position.
    pub image: Option<(u32, bool)>,
    /// Whether each token has a timestep of its own.
    pub expand_timesteps: bool,
}

impl Transformer {
    pub const A14B_HIGH: Self = Self {
        dim: 5120,
        ffn: 13_824,
        heads: 40,
        layers: 40,
        expert: "high_noise",
        channels: [16, 16],
        image: None,
        expand_timesteps: false,
    };
    pub const A14B_LOW: Self = Self { expert: "low_noise", ..Self::A14B_HIGH };
    pub const WAN22_I2V_A14B_HIGH: Self = Self { channels: [36, 16], ..Self::A14B_HIGH };
    pub const WAN22_TI2V_5B: Self = Self {
        dim: 3072,
        ffn: 14_336,
        heads: 24,
        layers: 30,
        expert: "single",
        channels: [48, 48],
        expand_timesteps: true,
        ..Self::A14B_HIGH
    };
    pub const WAN21_1_3B: Self =
        Self { dim: 1536, ffn: 8960, heads: 12, layers: 30, expert: "single", ..Self::A14B_HIGH };
    pub const WAN21_I2V_14B: Self =
        Self { expert: "single", image: Some((257, false)), ..Self::WAN22_I2V_A14B_HIGH };
    pub const WAN21_FLF2V_14B: Self = Self { image: Some((514, true)), ..Self::WAN21_I2V_14B };
}

/// Channels of UMT5's hidden states.
const TEXT: u32 = 4096;
/// Channels of CLIP's features.
const IMAGE: u32 = 1280;
const EPSILON: f32 = 1e-6;

/// A Wan transformer with block matrices of type `dtype`.
pub fn transformer(path: &Path, sizes: Transformer, dtype: DType, values: Values) -> File {
    let mut m = Metadata::new();
    m.set("general.architecture", "wan").set("wan.variant", "synthetic");
    m.set("wan.expert", sizes.expert).set("wan.boundary_ratio", 0.875f32);
    m.set("wan.flow_shift", 3f32).set("wan.guidance_scale", 4f32).set("wan.steps", 40u32);
    m.set("wan.expand_timesteps", sizes.expand_timesteps);
    let table = table(sizes);
    table.describe(EPSILON, &mut m);
    write(path, &m, &table.tensors(), dtype, values)
}

fn table(sizes: Transformer) -> wan::Sizes {
    let Transformer { dim, ffn, heads, layers, channels: [in_channels, out_channels], .. } = sizes;
    wan::Sizes {
        heads,
        dim,
        ffn_dim: ffn,
        freq_dim: 256,
        text_dim: TEXT,
        layers,
        in_channels,
        out_channels,
        image_dim: sizes.image.map(|_| IMAGE),
        image_positions: sizes.image.and_then(|(rows, embedded)| embedded.then_some(rows)),
        vace: None,
    }
}

/// The same in BF16, as a checkpoint in original names. All values are zero and take no disk.
pub fn originals(path: &Path, sizes: Transformer) {
    let (mut header, mut end) = (serde_json::Map::new(), 0);
    for wanted in table(sizes).tensors() {
        let begin = end;
        end += 2 * wanted.shape.iter().product::<u64>();
        let entry = serde_json::json!({"dtype": "BF16", "shape": wanted.shape, "data_offsets": [begin, end]});
        header.insert(wanted.name, entry);
    }
    let json = serde_json::to_vec(&header).unwrap();
    let bytes = [&(json.len() as u64).to_le_bytes()[..], &json].concat();
    fs::write(path, &bytes).unwrap();
    let file = fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(bytes.len() as u64 + end).unwrap();
}

/// Sizes of a Wan VAE.
#[derive(Clone, Copy, Debug)]
pub struct Vae {
    pub base: u32,
    pub decoder_base: u32,
    pub z: u32,
    /// Blocks that add their input to their result, and pixels in patches of 2x2.
    pub residual: bool,
}

impl Vae {
    pub const WAN21: Self = Self { base: 96, decoder_base: 96, z: 16, residual: false };
    pub const WAN22: Self = Self { base: 160, decoder_base: 256, z: 48, residual: true };
}

/// Encoder and decoder of a Wan VAE.
pub fn vae(path: &Path, sizes: Vae, values: Values) -> File {
    let Vae { base, decoder_base, z, residual } = sizes;
    let table = match residual {
        true => wan_vae::Sizes::wan22(base, decoder_base, z),
        false => wan_vae::Sizes::wan21(base, z),
    };
    let mut m = Metadata::new();
    m.set("general.architecture", "wanvae");
    table.describe(&mut m);
    wan_vae::Sizes::describe_latents(&vec![0.0; z as usize], &vec![1.0; z as usize], &mut m);
    write(path, &m, &table.tensors(), DType::F32, values)
}

/// The encoder of UMT5-XXL, without a tokenizer.
pub fn umt5_xxl(path: &Path, dtype: DType, values: Values) -> File {
    let table = umt5::Sizes {
        vocab: 256_384,
        dim: TEXT,
        ffn_dim: 10_240,
        heads: 64,
        head_dim: 64,
        layers: 24,
        buckets: 32,
    };
    let mut m = Metadata::new();
    m.set("general.architecture", "t5encoder");
    table.describe(umt5::EPSILON, umt5::MAX_DISTANCE, &mut m);
    write(path, &m, &table.tensors(), dtype, values)
}

/// Wan2.2-T2V-A14B without a weight, its text encoder in a type of its own.
pub fn a14b(folder: &Path, dtype: DType, text: DType) -> ModelFolder {
    let expert =
        |name: &str, sizes| Arc::new(transformer(&folder.join(name), sizes, dtype, Values::Zero));
    ModelFolder {
        transformer: expert("high.gguf", Transformer::A14B_HIGH),
        transformer_2: Some(expert("low.gguf", Transformer::A14B_LOW)),
        text_encoder: Arc::new(umt5_xxl(&folder.join("umt5.gguf"), text, Values::Zero)),
        image_encoder: None,
        vae: Arc::new(vae(&folder.join("vae.gguf"), Vae::WAN21, Values::Zero)),
        inferred: Vec::new(),
        doubts: Vec::new(),
    }
}

/// The vision tower of CLIP ViT-H/14.
pub fn clip_vision_h(path: &Path, values: Values) -> File {
    let (dim, ffn_dim) = (IMAGE, 5120);
    let table = clip::Sizes { dim, ffn_dim, layers: 32, heads: 16, image: 224, patch: 14 };
    let mut m = Metadata::new();
    m.set("general.architecture", "clipvision");
    table.describe(clip::EPSILON, &mut m);
    write(path, &m, &table.tensors(), DType::F16, values)
}

/// Block matrices of type `dtype`, everything else F32.
fn write(path: &Path, m: &Metadata, table: &[Wanted], dtype: DType, values: Values) -> File {
    let of = |wanted: &Wanted| if wanted.role == Role::Block { dtype } else { DType::F32 };
    let spec = |wanted: &Wanted| TensorSpec {
        name: wanted.name.clone(),
        shape: wanted.shape.clone(),
        dtype: of(wanted),
    };
    let mut writer = Writer::create(path, m, table.iter().map(spec).collect()).unwrap();
    let mut state = 1;
    for wanted in table {
        match values {
            Values::Zero => writer.skip().unwrap(),
            Values::Random => {
                let elements = wanted.shape.iter().product::<u64>();
                // Uniform numbers whose variance keeps a layer's results as large as its inputs.
                let scale = match wanted.shape[1..].iter().product::<u64>() {
                    1 => 0.02,
                    inputs => (3.0 / inputs as f32).sqrt(),
                };
                writer.write(&random(of(wanted), elements, scale, &mut state)).unwrap();
            }
        }
    }
    writer.finish().unwrap();
    File::open(path).unwrap()
}

/// Blocks of a tensor before they repeat: real sizes would take a minute to make.
const DISTINCT: u64 = 100_003;

/// Numbers between `-scale` and `scale`: in quantized types the scales are chosen and the quants
/// are any bits.
fn random(dtype: DType, elements: u64, scale: f32, state: &mut u32) -> Vec<u8> {
    let blocks = elements / dtype.block_len();
    let distinct = distinct(dtype, blocks.min(DISTINCT), scale, state);
    let total = (blocks * dtype.block_bytes()) as usize;
    let mut bytes = Vec::with_capacity(total);
    while bytes.len() < total {
        bytes.extend_from_slice(&distinct[..distinct.len().min(total - bytes.len())]);
    }
    bytes
}

fn distinct(dtype: DType, blocks: u64, scale: f32, state: &mut u32) -> Vec<u8> {
    let mut next = || {
        *state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (*state >> 24) as u8
    };
    let mut bytes = Vec::with_capacity((blocks * dtype.block_bytes()) as usize);
    for _ in 0..blocks {
        match dtype {
            DType::F32 => bytes.extend((scale * (f32::from(next()) / 127.5 - 1.0)).to_le_bytes()),
            DType::F16 => {
                let value = f16::from_f32(scale * (f32::from(next()) / 127.5 - 1.0));
                bytes.extend(value.to_le_bytes());
            }
            DType::Q8_0 => {
                bytes.extend(f16::from_f32(scale / 127.0).to_le_bytes());
                bytes.extend((0..32).map(|_| next()));
            }
            DType::Q4_K => {
                // Six-bit scales and minima, about 32 of them; the mean quant is 7.5.
                bytes.extend(f16::from_f32(scale / 256.0).to_le_bytes());
                bytes.extend(f16::from_f32(scale / 32.0).to_le_bytes());
                bytes.extend((0..140).map(|_| next()));
            }
            other => panic!("no random {other} here: F32, F16, Q8_0 and Q4_K are"),
        }
    }
    bytes
}
