//! The Wan transformer: diffusers' `WanTransformer3DModel` to the names of the original
//! `wan/modules/model.py`, which every other reader of Wan GGUF files expects.
//!
//! diffusers' `scripts/convert_wan_to_diffusers.py` is the way back. Mind `norm2`: it is the
//! original's `norm3`, for diffusers numbers the norms by their place in the block.

use anyhow::{Result, ensure};
use gguf::Metadata;

use super::{Model, Naming, Part, Role, Wanted, joined, matched};
use crate::source::{Config, Folder};

/// Channels of the latents of text to video, in and out.
const CHANNELS: u32 = 16;
/// Latent frames, rows and columns that make a token.
const PATCH: [u64; 3] = [1, 2, 2];
/// Tokens that the text is padded to; fixed in `WanPipeline`.
const TEXT_LENGTH: u32 = 512;
/// The largest model in existence has 40.
const MOST_LAYERS: u64 = 1024;

/// A transformer of the checkpoint, and the part it plays.
struct Expert {
    /// The folder in the checkpoint.
    component: &'static str,
    part: Part,
    /// The value of `wan.expert`.
    role: &'static str,
    /// The folder to write to, and a part of the file's name; empty for a model of one expert.
    label: &'static str,
    guidance_scale: f32,
}

/// The defaults that `wan/configs/wan_t2v_A14B.py` (two experts) and `generate.py` of Wan 2.1 (one)
/// use to sample.
struct Variant {
    name: &'static str,
    steps: u32,
    experts: &'static [Expert],
}

const WAN22_T2V_A14B: Variant = Variant {
    name: "wan2.2-t2v-a14b",
    steps: 40,
    experts: &[
        Expert {
            component: "transformer",
            part: Part::HighNoise,
            role: "high_noise",
            label: "HighNoise",
            guidance_scale: 4.0,
        },
        Expert {
            component: "transformer_2",
            part: Part::LowNoise,
            role: "low_noise",
            label: "LowNoise",
            guidance_scale: 3.0,
        },
    ],
};

const WAN21_T2V: Variant = Variant {
    name: "wan2.1-t2v",
    steps: 50,
    experts: &[Expert {
        component: "transformer",
        part: Part::Single,
        role: "single",
        label: "",
        guidance_scale: 5.0,
    }],
};

/// The one or two transformers.
pub(super) fn models(folder: &Folder, name: &str) -> Result<Vec<Model>> {
    let index = folder.index();
    index.expect("expand_timesteps", false)?;
    ensure!(
        folder.class("image_encoder")?.is_none(),
        "{}: the model takes an image; supported are the text-to-video models",
        index.path().display()
    );
    let boundary = !index.get("boundary_ratio").is_null();
    let variant = if folder.class("transformer_2")?.is_some() {
        &WAN22_T2V_A14B
    } else {
        ensure!(
            !boundary,
            index.wrong("boundary_ratio", "null, as it must be without transformer_2")
        );
        &WAN21_T2V
    };
    let mut sampling = Metadata::new();
    sampling.set("wan.variant", variant.name);
    if variant.experts.len() > 1 {
        sampling.set("wan.boundary_ratio", index.number("boundary_ratio")?);
    }
    sampling.set("wan.flow_shift", flow_shift(folder)?).set("wan.steps", variant.steps);

    let model = |expert: &Expert| {
        folder.expect_class(expert.component, &["WanTransformer3DModel"])?;
        let config = folder.config(expert.component)?;
        let sizes = Sizes::new(&config)?;
        let weights = folder.weights(expert.component, "diffusion_pytorch_model")?;
        let tensors = matched(&weights, Naming::Diffusers, sizes.tensors())?;
        let mut metadata = sampling.clone();
        metadata.set("wan.expert", expert.role).set("wan.guidance_scale", expert.guidance_scale);
        sizes.describe(config.number("eps")?, &mut metadata);
        Ok(Model {
            part: expert.part,
            folder: expert.label,
            architecture: "wan",
            name: named(name, expert.label),
            source_name: folder.name()?,
            metadata,
            weights,
            tensors,
        })
    };
    variant.experts.iter().map(model).collect()
}

/// The file of an expert, by the model's name.
pub(super) fn named(name: &str, label: &str) -> String {
    if label.is_empty() || name.ends_with(&format!("-{label}")) {
        name.to_owned()
    } else {
        format!("{name}-{label}")
    }
}

/// The flow shift, if the scheduler is the one that Wan is sampled with, and otherwise as usual.
fn flow_shift(folder: &Folder) -> Result<f32> {
    folder.expect_class("scheduler", &["UniPCMultistepScheduler"])?;
    let config = Config::read(folder.path("scheduler").join("scheduler_config.json"))?;
    config.expect_present("prediction_type", "flow_prediction")?;
    config.expect_present("use_flow_sigmas", true)?;
    config.expect("num_train_timesteps", 1000)?;
    config.expect("solver_order", 2)?;
    config.expect("solver_type", "bh2")?;
    config.expect("predict_x0", true)?;
    config.expect("lower_order_final", true)?;
    config.expect("disable_corrector", serde_json::json!([]))?;
    config.expect("final_sigmas_type", "zero")?;
    for key in [
        "thresholding",
        "use_dynamic_shifting",
        "use_karras_sigmas",
        "use_exponential_sigmas",
        "use_beta_sigmas",
    ] {
        config.expect(key, false)?;
    }
    config.number("flow_shift")
}

/// What decides the shapes.
pub(super) struct Sizes {
    pub(super) heads: u32,
    pub(super) dim: u32,
    pub(super) ffn_dim: u32,
    pub(super) freq_dim: u32,
    pub(super) text_dim: u32,
    pub(super) layers: u32,
    pub(super) in_channels: u32,
    pub(super) out_channels: u32,
    /// Width of an image encoder's features, if the model takes them.
    pub(super) image_dim: Option<u32>,
    /// Positions of image features that have an embedding: first and last frame to video.
    pub(super) image_positions: Option<u32>,
    /// Blocks and input channels of VACE's second stack.
    pub(super) vace: Option<(u32, u32)>,
}

impl Sizes {
    fn new(config: &Config) -> Result<Self> {
        let null = serde_json::Value::Null;
        config.expect("patch_size", PATCH.to_vec())?;
        config.expect("in_channels", CHANNELS)?;
        config.expect("out_channels", CHANNELS)?;
        config.expect("cross_attn_norm", true)?;
        config.expect("qk_norm", "rms_norm_across_heads")?;
        config.expect("image_dim", null.clone())?;
        config.expect("added_kv_proj_dim", null.clone())?;
        config.expect("pos_embed_seq_len", null)?;
        config.expect("rope_max_seq_len", 1024)?;
        let heads = config.size("num_attention_heads")?;
        Ok(Self {
            heads,
            dim: heads * config.size("attention_head_dim")?,
            ffn_dim: config.size("ffn_dim")?,
            freq_dim: config.size("freq_dim")?,
            text_dim: config.size("text_dim")?,
            layers: config.size_up_to("num_layers", MOST_LAYERS)?,
            in_channels: CHANNELS,
            out_channels: CHANNELS,
            image_dim: None,
            image_positions: None,
            vace: None,
        })
    }

    pub(super) fn describe(&self, epsilon: f32, metadata: &mut Metadata) {
        metadata
            .set("wan.block_count", self.layers)
            .set("wan.embedding_length", self.dim)
            .set("wan.feed_forward_length", self.ffn_dim)
            .set("wan.attention.head_count", self.heads)
            .set("wan.attention.layer_norm_epsilon", epsilon)
            .set("wan.text_length", TEXT_LENGTH)
            .set("wan.text_embedding_length", self.text_dim)
            .set("wan.frequency_length", self.freq_dim)
            .set("wan.patch_size", joined(&PATCH));
        if (self.in_channels, self.out_channels) != (CHANNELS, CHANNELS) {
            metadata.set("wan.in_channels", self.in_channels);
            metadata.set("wan.out_channels", self.out_channels);
        }
        if let Some(dim) = self.image_dim {
            metadata.set("wan.image_embedding_length", dim);
        }
        if let Some((layers, channels)) = self.vace {
            metadata.set("wan.vace.block_count", layers).set("wan.vace.in_channels", channels);
        }
    }

    /// Every tensor, in the order of the forward pass.
    pub(super) fn tensors(&self) -> Vec<Wanted> {
        let [d, f] = [self.dim, self.ffn_dim].map(u64::from);
        let [freq, text] = [self.freq_dim, self.text_dim].map(u64::from);
        let [inputs, outputs] = [self.in_channels, self.out_channels].map(u64::from);
        let [pt, ph, pw] = PATCH;
        let mut list = List(Vec::new());
        list.patch("patch_embedding", d, inputs);
        for (theirs, ours, outputs, inputs) in [
            ("time_embedder.linear_1", "time_embedding.0", d, freq),
            ("time_embedder.linear_2", "time_embedding.2", d, d),
            ("time_proj", "time_projection.1", 6 * d, d),
            ("text_embedder.linear_1", "text_embedding.0", d, text),
            ("text_embedder.linear_2", "text_embedding.2", d, d),
        ] {
            let theirs = format!("condition_embedder.{theirs}");
            list.linear(&theirs, ours, outputs, inputs, Role::Linear);
        }
        if let Some(image) = self.image_dim {
            list.image(d, image.into(), self.image_positions.map(u64::from));
        }
        for n in 0..self.layers {
            list.block(&format!("blocks.{n}"), d, f, self.image_dim.is_some());
        }
        if let Some((layers, channels)) = self.vace {
            list.patch("vace_patch_embedding", d, channels.into());
            for n in 0..layers {
                let name = |part: &str| format!("vace_blocks.{n}.{part}");
                if n == 0 {
                    list.linear(&name("proj_in"), &name("before_proj"), d, d, Role::Linear);
                }
                list.block(&format!("vace_blocks.{n}"), d, f, self.image_dim.is_some());
                list.linear(&name("proj_out"), &name("after_proj"), d, d, Role::Linear);
            }
        }
        list.one("scale_shift_table", "head.modulation", &[1, 2, d], Role::Exact);
        list.linear("proj_out", "head.head", pt * ph * pw * outputs, d, Role::Linear);
        list.0
    }
}

/// The table while it grows.
struct List(Vec<Wanted>);

impl List {
    fn one(&mut self, theirs: &str, ours: &str, shape: &[u64], role: Role) {
        self.0.push(Wanted::new(theirs, ours, shape, role));
    }

    fn linear(&mut self, theirs: &str, ours: &str, outputs: u64, inputs: u64, role: Role) {
        for (part, shape, role) in
            [("weight", &[outputs, inputs][..], role), ("bias", &[outputs], Role::Exact)]
        {
            self.one(&format!("{theirs}.{part}"), &format!("{ours}.{part}"), shape, role);
        }
    }

    fn norm(&mut self, theirs: &str, ours: &str, d: u64) {
        for part in ["weight", "bias"] {
            let names = [theirs, ours].map(|module| format!("{module}.{part}"));
            self.one(&names[0], &names[1], &[d], Role::Exact);
        }
    }

    fn patch(&mut self, name: &str, d: u64, channels: u64) {
        let [pt, ph, pw] = PATCH;
        let [weight, bias] = ["weight", "bias"].map(|part| format!("{name}.{part}"));
        self.one(&weight, &weight, &[d, channels, pt, ph, pw], Role::Exact);
        self.one(&bias, &bias, &[d], Role::Exact);
    }

    /// `WanImageEmbedding`, the original's `MLPProj`.
    fn image(&mut self, d: u64, image: u64, positions: Option<u64>) {
        let theirs = |part: &str| format!("condition_embedder.image_embedder.{part}");
        if let Some(positions) = positions {
            let shape = [1, positions, image];
            self.one(&theirs("pos_embed"), "img_emb.emb_pos", &shape, Role::Exact);
        }
        self.norm(&theirs("norm1"), "img_emb.proj.0", image);
        self.linear(&theirs("ff.net.0.proj"), "img_emb.proj.1", image, image, Role::Linear);
        self.linear(&theirs("ff.net.2"), "img_emb.proj.3", d, image, Role::Linear);
        self.norm(&theirs("norm2"), "img_emb.proj.4", d);
    }

    /// `WanTransformerBlock`; its two other norms have no weights.
    fn block(&mut self, block: &str, d: u64, f: u64, image: bool) {
        let name = |part: &str| format!("{block}.{part}");
        self.one(&name("scale_shift_table"), &name("modulation"), &[1, 6, d], Role::Exact);
        self.attention(&name("attn1"), &name("self_attn"), d);
        self.norm(&name("norm2"), &name("norm3"), d);
        let (theirs, ours) = (name("attn2"), name("cross_attn"));
        self.attention(&theirs, &ours, d);
        if image {
            for (their_part, part) in [("add_k_proj", "k_img"), ("add_v_proj", "v_img")] {
                let names = (format!("{theirs}.{their_part}"), format!("{ours}.{part}"));
                self.linear(&names.0, &names.1, d, d, Role::Block);
            }
            let names =
                (format!("{theirs}.norm_added_k.weight"), format!("{ours}.norm_k_img.weight"));
            self.one(&names.0, &names.1, &[d], Role::Exact);
        }
        self.linear(&name("ffn.net.0.proj"), &name("ffn.0"), f, d, Role::Block);
        self.linear(&name("ffn.net.2"), &name("ffn.2"), d, f, Role::Block);
    }

    fn attention(&mut self, theirs: &str, ours: &str, d: u64) {
        for (their_part, part) in [("to_q", "q"), ("to_k", "k"), ("to_v", "v"), ("to_out.0", "o")] {
            let names = (format!("{theirs}.{their_part}"), format!("{ours}.{part}"));
            self.linear(&names.0, &names.1, d, d, Role::Block);
        }
        for part in ["norm_q.weight", "norm_k.weight"] {
            let names = [theirs, ours].map(|module| format!("{module}.{part}"));
            self.one(&names[0], &names[1], &[d], Role::Exact);
        }
    }
}
