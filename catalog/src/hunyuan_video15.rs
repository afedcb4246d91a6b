//! The HunyuanVideo 1.5 transformer: diffusers' `HunyuanVideo15Transformer3DModel`, and the names that
//! its GGUF files have: those of Tencent's `hyvideo/models/transformers/hunyuanvideo_1_5_transformer.py`
//! with q, k and v in one tensor, as in HunyuanVideo 1.0.
//!
//! diffusers' `scripts/convert_hunyuan_video1_5_to_diffusers.py` is the way back. It splits what is
//! joined here, and swaps the halves of the last modulation: diffusers has scale before shift.

use gguf::Metadata;
use std::ops::Range;

use crate::table::List;
use crate::{Error, Given, Naming, Role, Wanted};

/// Channels of a head; programs have the rotary embedding's axes (16, 56, 56) as constants.
pub const HEAD: u32 = 128;
/// Channels of the latents, the condition beside them and its mask.
pub const IN_CHANNELS: u32 = 65;
/// Channels of the velocity.
pub const OUT_CHANNELS: u32 = 32;
/// Blocks of the refiner of text.
pub const REFINER_LAYERS: u32 = 2;
/// Width of ByT5-small, which reads what is to be written in the picture.
pub const BYT5_DIM: u32 = 1472;
/// Width of the layers behind it.
const BYT5_HIDDEN: u64 = 2048;
/// A feed-forward network's hidden layer, in widths of the model.
pub const MLP_RATIO: u32 = 4;
/// Numbers that a timestep becomes at first.
const FREQUENCIES: u64 = 256;
/// Kinds of conditions: text, glyphs, image.
const CONDITIONS: u64 = 3;

/// What decides the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Attention heads of [`HEAD`] channels.
    pub heads: u32,
    /// Blocks.
    pub layers: u32,
    /// Width of the text encoder.
    pub text_dim: u32,
    /// Width of the image encoder's features, which text-to-video models have, too.
    pub image_dim: u32,
    /// Whether it was distilled to few steps by mean flow, and sees where a step ends.
    pub mean_flow: bool,
}

/// Rows of a tensor of diffusers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// The tensor's name.
    pub diffusers: String,
    /// Which of its rows.
    pub rows: Range<u64>,
}

/// A tensor of the file, and the pieces that it is made of, from the first row to the last.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Made {
    /// Where it is made of several tensors, [`Wanted::diffusers`] is the first.
    pub wanted: Wanted,
    /// What it is made of.
    pub pieces: Vec<Piece>,
}

impl Sizes {
    /// From the shapes of a file's tensors.
    ///
    /// # Errors
    /// Where one that tells a size is missing or has another number of dimensions.
    pub fn of(given: &Given<'_>) -> Result<Self, Error> {
        let dim = given.size("img_in.proj.bias", 1, 0)?;
        if !dim.is_multiple_of(HEAD) {
            let what = format!("it is {dim} wide, which is no multiple of {HEAD}, a head's width");
            return Err(Error::Inconsistent { file: given.path.to_owned(), what });
        }
        Ok(Self {
            heads: dim / HEAD,
            layers: given.count("double_blocks."),
            text_dim: given.size("txt_in.input_embedder.weight", 2, 1)?,
            image_dim: given.size("vision_in.proj.0.weight", 1, 0)?,
            mean_flow: given.has("time_r_in.mlp.0.weight"),
        })
    }

    /// The width.
    pub fn dim(&self) -> u32 {
        self.heads * HEAD
    }

    /// What of the metadata follows from the shapes.
    pub fn describe(&self, metadata: &mut Metadata) {
        metadata
            .set("hyvid.version", "1.5")
            .set("hyvid.block_count", self.layers)
            .set("hyvid.embedding_length", self.dim())
            .set("hyvid.feed_forward_length", MLP_RATIO * self.dim())
            .set("hyvid.attention.head_count", self.heads)
            .set("hyvid.text_embedding_length", self.text_dim)
            .set("hyvid.glyph_embedding_length", BYT5_DIM)
            .set("hyvid.image_embedding_length", self.image_dim)
            .set("hyvid.in_channels", IN_CHANNELS)
            .set("hyvid.out_channels", OUT_CHANNELS);
        if self.mean_flow {
            metadata.set("hyvid.mean_flow", true);
        }
    }

    /// Every tensor of the file, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<Wanted> {
        self.made().into_iter().map(|made| made.wanted).collect()
    }

    /// Every tensor of a checkpoint in diffusers layout. [`Wanted::name`] is the one of the file that
    /// it becomes a part of.
    pub fn diffusers(&self) -> Vec<Wanted> {
        let mut list: Vec<Wanted> = Vec::new();
        for Made { wanted, pieces } in self.made() {
            for Piece { diffusers, rows } in pieces {
                // The pieces of a tensor follow each other.
                match list.last_mut().filter(|last| last.diffusers == diffusers) {
                    Some(last) => last.shape[0] += rows.end - rows.start,
                    None => {
                        let mut one = Wanted { diffusers, ..wanted.clone() };
                        one.shape[0] = rows.end - rows.start;
                        list.push(one);
                    }
                }
            }
        }
        list
    }

    /// Every tensor of the file with what it is made of, in the order of the forward pass.
    pub fn made(&self) -> Vec<Made> {
        let d = u64::from(self.dim());
        let [text, image] = [self.text_dim, self.image_dim].map(u64::from);
        let mut table = Table(Vec::new());
        table.whole(|list| {
            let [inputs, outputs] = [IN_CHANNELS, OUT_CHANNELS].map(u64::from);
            list.conv("x_embedder.proj", "img_in.proj", &[d, inputs, 1, 1, 1]);
            list.timestep("time_embed.timestep_embedder", "time_in", d);
            if self.mean_flow {
                list.timestep("time_embed.timestep_embedder_r", "time_r_in", d);
            }
            // Not a linear layer, so no program unpacks it.
            let shape = [CONDITIONS, d];
            list.one("cond_type_embed.weight", "cond_type_embedding.weight", &shape, Role::Exact);
            list.byt5(d);
            list.image_projection(d, image);
            list.linear("proj_out", "final_layer.linear", outputs, d, Role::Linear);
            list.text(d, text);
        });
        table.swapped("norm_out.linear", "final_layer.adaLN_modulation.1", d);
        for n in 0..REFINER_LAYERS {
            table.refiner_block(
                &format!("context_embedder.token_refiner.refiner_blocks.{n}"),
                &format!("txt_in.individual_token_refiner.blocks.{n}"),
                d,
            );
        }
        for n in 0..self.layers {
            table.block(&format!("transformer_blocks.{n}"), &format!("double_blocks.{n}"), d);
        }
        table.0
    }
}

impl List {
    /// `TimestepEmbedding`.
    fn timestep(&mut self, theirs: &str, ours: &str, d: u64) {
        for (theirs, ours, inputs) in [
            (format!("{theirs}.linear_1"), format!("{ours}.mlp.0"), FREQUENCIES),
            (format!("{theirs}.linear_2"), format!("{ours}.mlp.2"), d),
        ] {
            self.linear(&theirs, &ours, d, inputs, Role::Linear);
        }
    }

    /// `HunyuanVideo15ByT5TextProjection`.
    fn byt5(&mut self, d: u64) {
        let byt5 = u64::from(BYT5_DIM);
        self.norm("context_embedder_2.norm", "byt5_in.layernorm", byt5);
        for (theirs, ours, outputs, inputs) in [
            ("linear_1", "fc1", BYT5_HIDDEN, byt5),
            ("linear_2", "fc2", BYT5_HIDDEN, BYT5_HIDDEN),
            ("linear_3", "fc3", d, BYT5_HIDDEN),
        ] {
            let names = (format!("context_embedder_2.{theirs}"), format!("byt5_in.{ours}"));
            self.linear(&names.0, &names.1, outputs, inputs, Role::Linear);
        }
    }

    /// `HunyuanVideo15ImageProjection`.
    fn image_projection(&mut self, d: u64, image: u64) {
        self.norm("image_embedder.norm_in", "vision_in.proj.0", image);
        self.linear("image_embedder.linear_1", "vision_in.proj.1", image, image, Role::Linear);
        self.linear("image_embedder.linear_2", "vision_in.proj.3", d, image, Role::Linear);
        self.norm("image_embedder.norm_out", "vision_in.proj.4", d);
    }

    /// `HunyuanVideo15TokenRefiner` without its blocks.
    fn text(&mut self, d: u64, text: u64) {
        let embed = "context_embedder.time_text_embed";
        self.timestep(&format!("{embed}.timestep_embedder"), "txt_in.t_embedder", d);
        for (part, inputs) in [("linear_1", text), ("linear_2", d)] {
            let names =
                (format!("{embed}.text_embedder.{part}"), format!("txt_in.c_embedder.{part}"));
            self.linear(&names.0, &names.1, d, inputs, Role::Linear);
        }
        self.linear("context_embedder.proj_in", "txt_in.input_embedder", d, text, Role::Linear);
    }
}

/// The table while it grows.
struct Table(Vec<Made>);

impl Table {
    /// Tensors that are what they are in diffusers.
    fn whole(&mut self, fill: impl FnOnce(&mut List)) {
        let mut list = List(Vec::new());
        fill(&mut list);
        self.0.extend(list.0.into_iter().map(|wanted| {
            let piece = Piece { diffusers: wanted.diffusers.clone(), rows: 0..wanted.shape[0] };
            Made { wanted, pieces: vec![piece] }
        }));
    }

    /// A linear layer made of several, one below the other.
    fn joined(&mut self, theirs: [String; 3], ours: &str, d: u64, role: Role) {
        for (part, shape, role) in
            [("weight", &[3 * d, d][..], role), ("bias", &[3 * d][..], Role::Exact)]
        {
            let names = theirs.each_ref().map(|theirs| format!("{theirs}.{part}"));
            let wanted = Wanted::new(&names[0], &format!("{ours}.{part}"), shape, role);
            let pieces = names.map(|diffusers| Piece { diffusers, rows: 0..d }).into();
            self.0.push(Made { wanted, pieces });
        }
    }

    /// `AdaLayerNormContinuous`, whose two halves are the other way round.
    fn swapped(&mut self, theirs: &str, ours: &str, d: u64) {
        for (part, shape, role) in
            [("weight", &[2 * d, d][..], Role::Linear), ("bias", &[2 * d], Role::Exact)]
        {
            let diffusers = format!("{theirs}.{part}");
            let wanted = Wanted::new(&diffusers, &format!("{ours}.{part}"), shape, role);
            let pieces = [d..2 * d, 0..d].map(|rows| Piece { diffusers: diffusers.clone(), rows });
            self.0.push(Made { wanted, pieces: pieces.into() });
        }
    }

    /// `HunyuanVideo15IndividualTokenRefinerBlock`. Its modulation is two gates, in the same order.
    fn refiner_block(&mut self, theirs: &str, ours: &str, d: u64) {
        let attention = ["to_q", "to_k", "to_v"].map(|part| format!("{theirs}.attn.{part}"));
        self.joined(attention, &format!("{ours}.self_attn_qkv"), d, Role::Linear);
        let f = u64::from(MLP_RATIO) * d;
        self.whole(|list| {
            for part in ["norm1", "norm2"] {
                list.norm(&format!("{theirs}.{part}"), &format!("{ours}.{part}"), d);
            }
            for (their_part, part, outputs, inputs) in [
                ("attn.to_out.0", "self_attn_proj", d, d),
                ("ff.net.0.proj", "mlp.fc1", f, d),
                ("ff.net.2", "mlp.fc2", d, f),
                ("norm_out.linear", "adaLN_modulation.1", 2 * d, d),
            ] {
                let names = (format!("{theirs}.{their_part}"), format!("{ours}.{part}"));
                list.linear(&names.0, &names.1, outputs, inputs, Role::Linear);
            }
        });
    }

    /// `HunyuanVideo15TransformerBlock`: the streams of the video and of the text.
    fn block(&mut self, theirs: &str, ours: &str, d: u64) {
        let (video, text) = (["to_q", "to_k", "to_v"], ["add_q_proj", "add_k_proj", "add_v_proj"]);
        let f = u64::from(MLP_RATIO) * d;
        for (stream, norm, qkv, out, norms, ff) in [
            ("img", "norm1", video, "to_out.0", ["norm_q", "norm_k"], "ff"),
            (
                "txt",
                "norm1_context",
                text,
                "to_add_out",
                ["norm_added_q", "norm_added_k"],
                "ff_context",
            ),
        ] {
            let qkv = qkv.map(|part| format!("{theirs}.attn.{part}"));
            self.joined(qkv, &format!("{ours}.{stream}_attn_qkv"), d, Role::Block);
            self.whole(|list| {
                for (their_part, part) in norms.into_iter().zip(["q_norm", "k_norm"]) {
                    let names = (
                        format!("{theirs}.attn.{their_part}.weight"),
                        format!("{ours}.{stream}_attn_{part}.weight"),
                    );
                    list.one(&names.0, &names.1, &[HEAD.into()], Role::Exact);
                }
                for (their_part, part, outputs, inputs) in [
                    (format!("{norm}.linear"), "mod.linear", 6 * d, d),
                    (format!("attn.{out}"), "attn_proj", d, d),
                    (format!("{ff}.net.0.proj"), "mlp.fc1", f, d),
                    (format!("{ff}.net.2"), "mlp.fc2", d, f),
                ] {
                    let names =
                        (format!("{theirs}.{their_part}"), format!("{ours}.{stream}_{part}"));
                    list.linear(&names.0, &names.1, outputs, inputs, Role::Block);
                }
            });
        }
    }
}

/// What the names of a file are that holds this model otherwise than a GGUF file does: only the whole
/// checkpoint in diffusers layout says the rest of what a conversion needs.
pub(crate) fn other_names(given: &Given<'_>) -> Option<&'static str> {
    [
        (
            "context_embedder_2.linear_1.weight",
            "transformer_blocks.0.attn.to_q.weight",
            "diffusers'",
        ),
        ("byt5_in.fc1.weight", "double_blocks.0.img_attn_q.weight", "Tencent's"),
        ("byt5_in.fc1.weight", "double_blocks.0.img_attn.qkv.weight", "ComfyUI's"),
    ]
    .into_iter()
    .find(|(a, b, _)| given.has(a) && given.has(b) && is_alone(given))
    .map(|(_, _, whose)| whose)
}

/// Whether a file in original names holds this model.
pub(crate) fn is(given: &Given<'_>) -> bool {
    given.has("double_blocks.0.img_attn_qkv.weight") && is_alone(given)
}

/// HunyuanVideo 1.0 and HunyuanImage have blocks of another kind behind these.
fn is_alone(given: &Given<'_>) -> bool {
    given.count("single_blocks.") == 0 && given.count("single_transformer_blocks.") == 0
}

/// The matched tensors of a file in original names.
pub(crate) fn matched(given: &Given<'_>) -> Result<(Sizes, Vec<crate::Matched>), Error> {
    let sizes = Sizes::of(given)?;
    let tensors = given.matched(Naming::Original, sizes.tensors())?;
    Ok((sizes, tensors))
}
