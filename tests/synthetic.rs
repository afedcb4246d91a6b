//! Model files of real sizes without a real model: for measuring time and memory, and for what
//! looks at graphs alone.

use gguf::{DType, File, Metadata, TensorSpec, Writer};
use gguf_video::pipeline::ModelFolder;
use half::f16;
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
    pub dim: u64,
    pub ffn: u64,
    pub heads: u32,
    pub layers: u32,
    /// `high_noise`, `low_noise` or `single`.
    pub expert: &'static str,
    /// Of the input and of the output.
    pub channels: [u64; 2],
    /// Rows of an image encoder's features that it attends to, if any, and whether they have an embedding
    /// of their position.
    pub image: Option<(u64, bool)>,
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
const TEXT: u64 = 4096;
const FREQUENCY: u64 = 256;
/// Channels of CLIP's features.
const IMAGE: u64 = 1280;

/// A tensor, and whether recipes quantize it.
struct Planned {
    name: String,
    shape: Vec<u64>,
    quantized: bool,
}

#[derive(Default)]
struct List(Vec<Planned>);

impl List {
    fn plain(&mut self, name: String, shape: &[u64]) {
        self.0.push(Planned { name, shape: shape.to_vec(), quantized: false });
    }

    fn matrix(&mut self, name: String, inputs: u64, outputs: u64) {
        self.0.push(Planned { name, shape: vec![outputs, inputs], quantized: true });
    }

    /// With a bias; quantized in the blocks alone.
    fn linear(&mut self, name: &str, inputs: u64, outputs: u64) {
        let quantized = name.starts_with("blocks.");
        self.0.push(Planned {
            name: format!("{name}.weight"),
            shape: vec![outputs, inputs],
            quantized,
        });
        self.plain(format!("{name}.bias"), &[outputs]);
    }

    fn norm(&mut self, name: &str, dim: u64) {
        self.plain(format!("{name}.weight"), &[dim]);
        self.plain(format!("{name}.bias"), &[dim]);
    }

    fn conv(&mut self, name: &str, shape: &[u64]) {
        self.plain(format!("{name}.weight"), shape);
        self.plain(format!("{name}.bias"), &shape[..1]);
    }
}

/// A Wan transformer with block matrices of type `dtype`.
pub fn transformer(path: &Path, sizes: Transformer, dtype: DType, values: Values) -> File {
    let Transformer { dim, ffn, heads, layers, expert, channels: [inputs, outputs], .. } = sizes;
    let mut m = Metadata::new();
    m.set("general.architecture", "wan").set("wan.variant", "synthetic");
    m.set("wan.expert", expert).set("wan.boundary_ratio", 0.875f32);
    m.set("wan.flow_shift", 3f32).set("wan.guidance_scale", 4f32).set("wan.steps", 40u32);
    m.set("wan.attention.head_count", heads).set("wan.block_count", layers);
    m.set("wan.attention.layer_norm_epsilon", 1e-6f32);
    m.set("wan.embedding_length", dim as u32).set("wan.feed_forward_length", ffn as u32);
    m.set("wan.text_length", 512u32).set("wan.text_embedding_length", TEXT as u32);
    m.set("wan.frequency_length", FREQUENCY as u32);
    m.set("wan.in_channels", inputs as u32).set("wan.out_channels", outputs as u32);
    m.set("wan.expand_timesteps", sizes.expand_timesteps);
    if let Some((rows, embedded)) = sizes.image {
        m.set("wan.image_embedding_length", IMAGE as u32);
        if embedded {
            m.set("wan.image_positions", rows as u32);
        }
    }

    let mut list = List::default();
    list.conv("patch_embedding", &[dim, inputs, 1, 2, 2]);
    if let Some((rows, embedded)) = sizes.image {
        if embedded {
            list.plain("img_emb.emb_pos".into(), &[1, rows, IMAGE]);
        }
        list.norm("img_emb.proj.0", IMAGE);
        list.linear("img_emb.proj.1", IMAGE, IMAGE);
        list.linear("img_emb.proj.3", IMAGE, dim);
        list.norm("img_emb.proj.4", dim);
    }
    list.linear("text_embedding.0", TEXT, dim);
    list.linear("text_embedding.2", dim, dim);
    list.linear("time_embedding.0", FREQUENCY, dim);
    list.linear("time_embedding.2", dim, dim);
    list.linear("time_projection.1", dim, 6 * dim);
    for block in 0..layers {
        let at = format!("blocks.{block}");
        for attention in ["self_attn", "cross_attn"] {
            for part in ["q", "k", "v", "o"] {
                list.linear(&format!("{at}.{attention}.{part}"), dim, dim);
            }
            list.plain(format!("{at}.{attention}.norm_q.weight"), &[dim]);
            list.plain(format!("{at}.{attention}.norm_k.weight"), &[dim]);
        }
        if sizes.image.is_some() {
            for part in ["k_img", "v_img"] {
                list.linear(&format!("{at}.cross_attn.{part}"), dim, dim);
            }
            list.plain(format!("{at}.cross_attn.norm_k_img.weight"), &[dim]);
        }
        list.linear(&format!("{at}.ffn.0"), dim, ffn);
        list.linear(&format!("{at}.ffn.2"), ffn, dim);
        list.plain(format!("{at}.norm3.weight"), &[dim]);
        list.plain(format!("{at}.norm3.bias"), &[dim]);
        list.plain(format!("{at}.modulation"), &[1, 6, dim]);
    }
    list.linear("head.head", dim, 4 * outputs);
    list.plain("head.modulation".into(), &[1, 2, dim]);
    write(path, &m, list, dtype, values)
}

/// Sizes of a Wan VAE.
#[derive(Clone, Copy, Debug)]
pub struct Vae {
    pub base: u64,
    pub decoder_base: u64,
    pub z: u64,
    /// Blocks that add their input to their result, and pixels in patches of 2x2.
    pub residual: bool,
}

impl Vae {
    pub const WAN21: Self = Self { base: 96, decoder_base: 96, z: 16, residual: false };
    pub const WAN22: Self = Self { base: 160, decoder_base: 256, z: 48, residual: true };

    fn pixels(self) -> u64 {
        if self.residual { 12 } else { 3 }
    }

    /// Block `i` of `level`, where a level has so many blocks.
    fn block(self, side: &str, list: &str, a_level: u64, [level, i]: [u64; 2]) -> String {
        match self.residual {
            false => format!("{side}.{list}.{}", level * a_level + i),
            true => format!("{side}.{list}.{level}.{list}.{i}"),
        }
    }
}

/// Encoder and decoder of a Wan VAE.
pub fn vae(path: &Path, sizes: Vae, values: Values) -> File {
    let Vae { base, decoder_base, z, residual } = sizes;
    let mut m = Metadata::new();
    m.set("general.architecture", "wanvae").set("wanvae.base_dim", base as u32);
    m.set("wanvae.z_dim", z as u32).set("wanvae.num_res_blocks", 2u32);
    m.set("wanvae.dim_mult", "1,2,4,4").set("wanvae.temporal_downsample", "false,true,true");
    m.set("wanvae.latents_mean", vec!["0"; z as usize].join(","));
    m.set("wanvae.latents_std", vec!["1"; z as usize].join(","));
    if residual {
        m.set("wanvae.decoder_base_dim", decoder_base as u32);
        m.set("wanvae.is_residual", true).set("wanvae.patch_size", 2u32);
    }
    let mut list = List::default();
    list.conv("conv1", &[2 * z, 2 * z, 1, 1, 1]);
    list.conv("conv2", &[z, z, 1, 1, 1]);
    list.vae_encoder(sizes);
    list.vae_decoder(sizes);
    write(path, &m, list, DType::F32, values)
}

impl List {
    fn vae_encoder(&mut self, sizes: Vae) {
        let base = sizes.base;
        self.conv("encoder.conv1", &[base, sizes.pixels(), 3, 3, 3]);
        for (level, (inputs, outputs)) in (0..).zip([(1, 1), (1, 2), (2, 4), (4, 4)]) {
            let block = |i| sizes.block("encoder", "downsamples", 3, [level, i]);
            for i in 0..2 {
                let inputs = if i == 0 { inputs } else { outputs };
                self.residual(&block(i), inputs * base, outputs * base);
            }
            let (at, c) = (block(2), outputs * base);
            if level < 3 {
                self.conv(&format!("{at}.resample.1"), &[c, c, 3, 3]);
            }
            if level == 1 || level == 2 {
                self.conv(&format!("{at}.time_conv"), &[c, c, 3, 1, 1]);
            }
        }
        self.middle("encoder", 4 * base);
        self.head("encoder", 4 * base, 2 * sizes.z);
    }

    fn vae_decoder(&mut self, sizes: Vae) {
        let base = sizes.decoder_base;
        self.conv("decoder.conv1", &[4 * base, sizes.z, 3, 3, 3]);
        self.middle("decoder", 4 * base);
        let upsampled = |c: u64| if sizes.residual { c } else { c / 2 };
        let mut inputs = 4 * base;
        for (level, outputs) in (0..).zip([4 * base, 4 * base, 2 * base, base]) {
            let block = |i| sizes.block("decoder", "upsamples", 4, [level, i]);
            for i in 0..3 {
                self.residual(&block(i), inputs, outputs);
                inputs = outputs;
            }
            let (at, c) = (block(3), outputs);
            if level < 3 {
                inputs = upsampled(c);
                self.conv(&format!("{at}.resample.1"), &[inputs, c, 3, 3]);
            }
            if level < 2 {
                self.conv(&format!("{at}.time_conv"), &[2 * c, c, 3, 1, 1]);
            }
        }
        self.head("decoder", base, sizes.pixels());
    }

    fn residual(&mut self, at: &str, i: u64, o: u64) {
        self.plain(format!("{at}.residual.0.gamma"), &[i, 1, 1, 1]);
        self.conv(&format!("{at}.residual.2"), &[o, i, 3, 3, 3]);
        self.plain(format!("{at}.residual.3.gamma"), &[o, 1, 1, 1]);
        self.conv(&format!("{at}.residual.6"), &[o, o, 3, 3, 3]);
        if i != o {
            self.conv(&format!("{at}.shortcut"), &[o, i, 1, 1, 1]);
        }
    }

    fn middle(&mut self, side: &str, c: u64) {
        self.residual(&format!("{side}.middle.0"), c, c);
        self.plain(format!("{side}.middle.1.norm.gamma"), &[c, 1, 1]);
        self.conv(&format!("{side}.middle.1.to_qkv"), &[3 * c, c, 1, 1]);
        self.conv(&format!("{side}.middle.1.proj"), &[c, c, 1, 1]);
        self.residual(&format!("{side}.middle.2"), c, c);
    }

    fn head(&mut self, side: &str, i: u64, o: u64) {
        self.plain(format!("{side}.head.0.gamma"), &[i, 1, 1, 1]);
        self.conv(&format!("{side}.head.2"), &[o, i, 3, 3, 3]);
    }
}

/// The encoder of UMT5-XXL, without a tokenizer.
pub fn umt5_xxl(path: &Path, dtype: DType, values: Values) -> File {
    const LAYERS: u32 = 24;
    const FFN: u64 = 10_240;
    const HEADS: u64 = 64;
    const VOCABULARY: u64 = 256_384;
    let mut m = Metadata::new();
    m.set("general.architecture", "t5encoder").set("t5encoder.block_count", LAYERS);
    m.set("t5encoder.embedding_length", TEXT as u32)
        .set("t5encoder.feed_forward_length", FFN as u32);
    m.set("t5encoder.attention.head_count", HEADS as u32);
    m.set("t5encoder.attention.key_length", (TEXT / HEADS) as u32);
    m.set("t5encoder.vocab_size", VOCABULARY as u32);
    m.set("t5encoder.attention.relative_buckets_count", 32u32);
    m.set("t5encoder.attention.layer_norm_rms_epsilon", 1e-6f32);
    let mut list = List::default();
    list.matrix("token_embd.weight".into(), TEXT, VOCABULARY);
    for layer in 0..LAYERS {
        let at = format!("enc.blk.{layer}");
        list.plain(format!("{at}.attn_norm.weight"), &[TEXT]);
        for part in ["q", "k", "v", "o"] {
            list.matrix(format!("{at}.attn_{part}.weight"), TEXT, TEXT);
        }
        list.plain(format!("{at}.attn_rel_b.weight"), &[32, HEADS]);
        list.plain(format!("{at}.ffn_norm.weight"), &[TEXT]);
        list.matrix(format!("{at}.ffn_gate.weight"), TEXT, FFN);
        list.matrix(format!("{at}.ffn_up.weight"), TEXT, FFN);
        list.matrix(format!("{at}.ffn_down.weight"), FFN, TEXT);
    }
    list.plain("enc.output_norm.weight".into(), &[TEXT]);
    write(path, &m, list, dtype, values)
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
    }
}

/// The vision tower of CLIP ViT-H/14.
pub fn clip_vision_h(path: &Path, values: Values) -> File {
    const DIM: u64 = 1280;
    const FFN: u64 = 5120;
    const LAYERS: u32 = 32;
    let mut m = Metadata::new();
    m.set("general.architecture", "clipvision").set("clipvision.block_count", LAYERS);
    m.set("clipvision.embedding_length", DIM as u32);
    m.set("clipvision.feed_forward_length", FFN as u32);
    m.set("clipvision.attention.head_count", 16u32);
    m.set("clipvision.attention.layer_norm_epsilon", 1e-5f32);
    m.set("clipvision.image_size", 224u32).set("clipvision.patch_size", 14u32);
    let mut list = List::default();
    let embeddings = "vision_model.embeddings";
    list.plain(format!("{embeddings}.class_embedding"), &[DIM]);
    list.plain(format!("{embeddings}.patch_embedding.weight"), &[DIM, 3, 14, 14]);
    list.plain(format!("{embeddings}.position_embedding.weight"), &[257, DIM]);
    list.norm("vision_model.pre_layrnorm", DIM);
    for layer in 0..LAYERS {
        let at = format!("vision_model.encoder.layers.{layer}");
        list.norm(&format!("{at}.layer_norm1"), DIM);
        list.norm(&format!("{at}.layer_norm2"), DIM);
        for (part, inputs, outputs) in [
            ("self_attn.q_proj", DIM, DIM),
            ("self_attn.k_proj", DIM, DIM),
            ("self_attn.v_proj", DIM, DIM),
            ("self_attn.out_proj", DIM, DIM),
            ("mlp.fc1", DIM, FFN),
            ("mlp.fc2", FFN, DIM),
        ] {
            list.matrix(format!("{at}.{part}.weight"), inputs, outputs);
            list.plain(format!("{at}.{part}.bias"), &[outputs]);
        }
    }
    list.norm("vision_model.post_layernorm", DIM);
    write(path, &m, list, DType::F16, values)
}

fn write(path: &Path, m: &Metadata, List(list): List, dtype: DType, values: Values) -> File {
    let of = |planned: &Planned| if planned.quantized { dtype } else { DType::F32 };
    let spec = |planned: &Planned| TensorSpec {
        name: planned.name.clone(),
        shape: planned.shape.clone(),
        dtype: of(planned),
    };
    let mut writer = Writer::create(path, m, list.iter().map(spec).collect()).unwrap();
    let mut state = 1;
    for planned in &list {
        match values {
            Values::Zero => writer.skip().unwrap(),
            Values::Random => {
                let elements = planned.shape.iter().product::<u64>();
                // Uniform numbers whose variance keeps a layer's results as large as its inputs.
                let scale = match planned.shape[1..].iter().product::<u64>() {
                    1 => 0.02,
                    inputs => (3.0 / inputs as f32).sqrt(),
                };
                writer.write(&random(of(planned), elements, scale, &mut state)).unwrap();
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
