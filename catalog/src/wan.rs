//! The Wan transformer: diffusers' `WanTransformer3DModel` and the names of the original
//! `wan/modules/model.py`, which every reader of Wan GGUF files expects.
//!
//! diffusers' `scripts/convert_wan_to_diffusers.py` is the way back. Mind `norm2`: it is the
//! original's `norm3`, for diffusers numbers the norms by their place in the block.

use gguf::Metadata;

use crate::table::List;
use crate::{Error, Given, Naming, Role, Wanted, joined};

/// Channels of the latents of most models, in and out.
const CHANNELS: u32 = 16;
/// Latent frames, rows and columns that make a token.
pub const PATCH: [u64; 3] = [1, 2, 2];
/// Tokens that the text is padded to; fixed in `WanPipeline`.
const TEXT_LENGTH: u32 = 512;
/// Channels of a head in every model that is published.
const HEAD: u32 = 128;

/// What decides the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Attention heads.
    pub heads: u32,
    /// Width.
    pub dim: u32,
    /// Width of the hidden layer of a feed-forward network.
    pub ffn_dim: u32,
    /// Numbers that a timestep becomes at first.
    pub freq_dim: u32,
    /// Width of the text encoder.
    pub text_dim: u32,
    /// Blocks.
    pub layers: u32,
    /// Channels of the latents and whatever is put beside them.
    pub in_channels: u32,
    /// Channels of the velocity.
    pub out_channels: u32,
    /// Width of an image encoder's features, if the model takes them.
    pub image_dim: Option<u32>,
    /// Positions of image features that have an embedding: first and last frame to video.
    pub image_positions: Option<u32>,
    /// Blocks and input channels of VACE's second stack.
    pub vace: Option<(u32, u32)>,
}

impl Sizes {
    /// From the shapes of a file's tensors.
    ///
    /// # Errors
    /// Where one that tells a size is missing or has another number of dimensions.
    pub fn of(given: &Given<'_>, naming: Naming) -> Result<Self, Error> {
        let by = |ours: &'static str, theirs: &'static str| match naming {
            Naming::Original => ours,
            Naming::Diffusers => theirs,
        };
        let image = by("img_emb.proj.0.weight", "condition_embedder.image_embedder.norm1.weight");
        let positions = by("img_emb.emb_pos", "condition_embedder.image_embedder.pos_embed");
        let time =
            by("time_embedding.0.weight", "condition_embedder.time_embedder.linear_1.weight");
        let text =
            by("text_embedding.0.weight", "condition_embedder.text_embedder.linear_1.weight");
        let dim = given.size("patch_embedding.bias", 1, 0)?;
        let channels = |name: &str| match given.shape(name).map(<[u64]>::len) {
            // A folded kernel has inputs and outputs in one dimension.
            Some(4) if given.metadata.is_some() => Ok(given.size(name, 4, 0)? / dim),
            _ => given.size(name, 5, 1),
        };
        // Some writers lose leading ones.
        let lost = given.shape(positions).map_or(3, <[u64]>::len);
        let vace = match given.count("vace_blocks.") {
            0 => None,
            layers => Some((layers, channels("vace_patch_embedding.weight")?)),
        };
        let heads = given.number("wan.attention.head_count");
        let head = given.size(by("head.head.weight", "proj_out.weight"), 2, 0)?;
        let optional = |name, dimensions, n| {
            given.has(name).then(|| given.size(name, dimensions, n)).transpose()
        };
        Ok(Self {
            heads: heads.unwrap_or((dim / HEAD).max(1)),
            dim,
            ffn_dim: given.size(
                by("blocks.0.ffn.0.weight", "blocks.0.ffn.net.0.proj.weight"),
                2,
                0,
            )?,
            freq_dim: given.size(time, 2, 1)?,
            text_dim: given.size(text, 2, 1)?,
            layers: given.count("blocks."),
            in_channels: channels("patch_embedding.weight")?,
            // Patches are 1 x 2 x 2.
            out_channels: head / 4,
            image_dim: optional(image, 1, 0)?,
            image_positions: optional(positions, lost, lost.saturating_sub(2))?,
            vace,
        })
    }

    /// The metadata that a runtime needs to know the shapes.
    pub fn describe(&self, epsilon: f32, metadata: &mut Metadata) {
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
        if let Some(positions) = self.image_positions {
            metadata.set("wan.image_positions", positions);
        }
        if let Some((layers, channels)) = self.vace {
            metadata.set("wan.vace.block_count", layers).set("wan.vace.in_channels", channels);
        }
    }

    /// Every tensor, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<Wanted> {
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

impl List {
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
