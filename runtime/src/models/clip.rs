//! CLIP's vision tower (ViT-H/14 in Wan 2.1's image-to-video models), after `CLIPVisionModel` of
//! `transformers/models/clip/modeling_clip.py`: same classes, same tensor names. Shapes in comments: N
//! tokens, C channels.
//!
//! Differs: what Wan takes is the output of the last layer but one, so the last layer and the norm after
//! it are never loaded.

use super::{EPSILON, LARGEST_SIZE, ModelError, Tick, is_epsilon, ticked};
use crate::ggml::{
    ComputeError, DeviceTensor, Executor, Graph, HostTensor, LoadError, Param, Scope, Storage,
    Tensor, Weights,
};
use crate::nn::{LayerNorm, Linear};

/// Colors of a pixel.
const COLORS: i64 = 3;

struct Config {
    dim: i64,
    ffn_dim: i64,
    layers: i64,
    num_heads: i64,
    eps: f32,
    image_size: i64,
    patch_size: i64,
}

impl Config {
    fn new(file: &gguf::File) -> Result<Self, ModelError> {
        let (m, error) = (file.metadata(), ModelError::metadata(file.path()));
        let size = |key| m.u32(key).map(i64::from).map_err(error);
        let config = Self {
            dim: size("clipvision.embedding_length")?,
            ffn_dim: size("clipvision.feed_forward_length")?,
            layers: size("clipvision.block_count")?,
            num_heads: size("clipvision.attention.head_count")?,
            eps: m.f32("clipvision.attention.layer_norm_epsilon").map_err(error)?,
            image_size: size("clipvision.image_size")?,
            patch_size: size("clipvision.patch_size")?,
        };
        let refuse = |key, value: i64, wanted| {
            let (file, value) = (file.path().to_owned(), value.to_string());
            Err(ModelError::Value { file, key, value, wanted })
        };
        let (heads, patch, image) = (config.num_heads, config.patch_size, config.image_size);
        if !is_epsilon(config.eps) {
            let (file, value) = (file.path().to_owned(), config.eps.to_string());
            let key = "clipvision.attention.layer_norm_epsilon";
            return Err(ModelError::Value { file, key, value, wanted: EPSILON });
        }
        if image > LARGEST_SIZE {
            return refuse("clipvision.image_size", image, "which no encoder has");
        }
        if heads < 1 || config.dim % heads != 0 {
            let wanted = "which doesn't divide clipvision.embedding_length";
            return refuse("clipvision.attention.head_count", heads, wanted);
        }
        if patch < 1 || image < patch || image % patch != 0 {
            let wanted = "which doesn't divide clipvision.image_size";
            return refuse("clipvision.patch_size", patch, wanted);
        }
        if config.layers < 2 {
            let wanted = "but the last layer but one is needed";
            return refuse("clipvision.block_count", config.layers, wanted);
        }
        Ok(config)
    }

    /// Patches along a side.
    fn side(&self) -> i64 {
        self.image_size / self.patch_size
    }
}

/// `CLIPVisionEmbeddings`.
struct Embeddings {
    class_embedding: Param,
    /// A convolution whose stride is its kernel: a linear layer of patches.
    patch_embedding: Param,
    position_embedding: Param,
}

impl Embeddings {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        let (c, p, n) = (cfg.dim, cfg.patch_size, cfg.side() * cfg.side() + 1);
        let f32 = Storage::F32;
        let kernel = &[c, COLORS, p, p];
        let patch = w.at("patch_embedding");
        Ok(Self {
            class_embedding: w.derived("class_embedding", &[c], [1, c], f32, |v| v)?,
            patch_embedding: patch.derived(
                "weight",
                kernel,
                [c, COLORS * p * p],
                w.operands(),
                |v| v,
            )?,
            position_embedding: w.at("position_embedding").derived(
                "weight",
                &[n, c],
                [n, c],
                f32,
                |v| v,
            )?,
        })
    }

    /// `patches`: `[N - 1, 3 · P · P]`.
    fn forward<'g>(&self, patches: Tensor<'g>) -> Tensor<'g> {
        let class = patches.graph().read(&self.class_embedding);
        let x = class.concat(patches.linear(&self.patch_embedding), 2);
        x + &self.position_embedding
    }
}

/// `CLIPAttention`.
struct Attention {
    q_proj: Linear,
    k_proj: Linear,
    v_proj: Linear,
    out_proj: Linear,
    num_heads: i64,
}

impl Attention {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        let linear = |name: &str| Linear::new(w.at(name), cfg.dim, cfg.dim);
        Ok(Self {
            q_proj: linear("q_proj")?,
            k_proj: linear("k_proj")?,
            v_proj: linear("v_proj")?,
            out_proj: linear("out_proj")?,
            num_heads: cfg.num_heads,
        })
    }

    /// `x`: `[N, C]`.
    fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let ([n, c], h) = (x.dims(), self.num_heads);
        let heads = |t: Tensor<'g>| t.reshape([n, h, c / h]).permute([1, 0, 2]);
        let (q, k, v) = (self.q_proj.forward(x), self.k_proj.forward(x), self.v_proj.forward(x));
        let y = heads(q).attention(heads(k), heads(v));
        self.out_proj.forward(y.reshape([n, c]))
    }
}

/// `CLIPEncoderLayer`, with its `CLIPMLP`.
struct EncoderLayer {
    layer_norm1: LayerNorm,
    self_attn: Attention,
    layer_norm2: LayerNorm,
    fc1: Linear,
    fc2: Linear,
}

impl EncoderLayer {
    fn new(w: Scope<'_>, cfg: &Config) -> Result<Self, LoadError> {
        Ok(Self {
            layer_norm1: LayerNorm::new(w.at("layer_norm1"), cfg.dim, cfg.eps)?,
            self_attn: Attention::new(w.at("self_attn"), cfg)?,
            layer_norm2: LayerNorm::new(w.at("layer_norm2"), cfg.dim, cfg.eps)?,
            fc1: Linear::new(w.at("mlp.fc1"), cfg.dim, cfg.ffn_dim)?,
            fc2: Linear::new(w.at("mlp.fc2"), cfg.ffn_dim, cfg.dim)?,
        })
    }

    /// `x`: `[N, C]`.
    fn forward<'g>(&self, x: Tensor<'g>) -> Tensor<'g> {
        let x = x + self.self_attn.forward(self.layer_norm1.forward(x));
        let y = self.fc1.forward(self.layer_norm2.forward(x)).gelu_erf();
        x + self.fc2.forward(y)
    }
}

/// `CLIPVisionModel`, up to the last layer but one.
pub struct ImageEncoder {
    embeddings: Embeddings,
    /// Spelt so in the reference.
    pre_layrnorm: LayerNorm,
    layers: Vec<EncoderLayer>,
    config: Config,
}

impl ImageEncoder {
    /// Refuses a file with missing, misshapen or unknown tensors. The last layer and the norm after it
    /// are known, and not needed.
    pub fn new(weights: &Weights, file: &gguf::File) -> Result<Self, ModelError> {
        let (w, config) = (weights.root().at("vision_model"), Config::new(file)?);
        let layers = w.at("encoder.layers");
        let last = config.layers - 1;
        layers.at(last).skip();
        w.at("post_layernorm").skip();
        let model = Self {
            embeddings: Embeddings::new(w.at("embeddings"), &config)?,
            pre_layrnorm: LayerNorm::new(w.at("pre_layrnorm"), config.dim, config.eps)?,
            layers: (0..last)
                .map(|i| EncoderLayer::new(layers.at(i), &config))
                .collect::<Result<_, _>>()?,
            config,
        };
        weights.expect_all_used()?;
        Ok(model)
    }

    /// Channels of the features.
    pub fn dim(&self) -> i64 {
        self.config.dim
    }

    /// Pixels along a side of an image.
    pub fn image_size(&self) -> i64 {
        self.config.image_size
    }

    /// Ticks of one [`ImageEncoder::encode`].
    pub fn ticks(&self) -> u64 {
        self.layers.len() as u64
    }

    /// Normalized pixels `[S, S, 3]` of an image of [`ImageEncoder::image_size`] to features `[N, C]`, the
    /// class token's first.
    pub fn encode(
        &self,
        exec: &mut Executor,
        pixels: &HostTensor,
        tick: Tick,
    ) -> Result<HostTensor, ComputeError> {
        let (side, size) = (self.config.side(), self.config.image_size);
        assert_eq!(pixels.shape.dims(), [size, size, COLORS], "encode: pixels");
        let patches = patches(pixels, self.config.patch_size);
        let shape = [side * side + 1, self.config.dim];
        let x = DeviceTensor::new(exec.device(), shape, Storage::F32)?;
        exec.update(|g| {
            let y = self.pre_layrnorm.forward(self.embeddings.forward(g.input(&patches)));
            g.write(&x, y.tap("image_encoder.embeddings"));
        })?;
        for (i, layer) in self.layers.iter().enumerate() {
            exec.update(|g: &Graph| {
                let y = layer.forward(g.read(&x));
                g.write(&x, y.tap(format_args!("image_encoder.blocks.{i}")));
            })?;
            ticked(tick)?;
        }
        exec.compute(|g| g.read(&x))
    }
}

/// Pixels `[S, S, 3]` as rows of patches `[N, 3 · P · P]`, colors outermost, as the kernel has them.
fn patches(pixels: &HostTensor, p: i64) -> HostTensor {
    let [size, ..] = pixels.shape.dims::<3>();
    let side = size / p;
    let mut values = Vec::with_capacity(pixels.data.len());
    for (top, left) in (0..side).flat_map(|y| (0..side).map(move |x| (y * p, x * p))) {
        for color in 0..COLORS {
            for y in top..top + p {
                let pixel = |x: i64| pixels.data[((y * size + x) * COLORS + color) as usize];
                values.extend((left..left + p).map(pixel));
            }
        }
    }
    HostTensor::new([side * side, COLORS * p * p], values)
}
