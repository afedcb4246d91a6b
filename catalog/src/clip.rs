//! The image encoder of Wan 2.1's image-to-video models: the vision half of CLIP ViT-H/14, under the
//! names of transformers' `CLIPVisionModel`, which other programs' files have, too.

use gguf::Metadata;

use crate::table::List;
use crate::{Error, Given, Role, Wanted};

/// Width of the one that is published, which has 16 heads.
const H_DIM: u32 = 1280;
const H_HEADS: u32 = 16;
/// Of the one that is published, where no configuration says it.
pub const EPSILON: f32 = 1e-5;
/// Before the names of the vision half.
const PREFIX: &str = "vision_model.";
/// What files of it are called.
const PUBLISHED: &str = "clip-vision-h";

/// What decides the shapes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sizes {
    /// Width.
    pub dim: u32,
    /// Width of the hidden layer of a feed-forward network.
    pub ffn_dim: u32,
    /// Blocks, the last included, which Wan leaves out.
    pub layers: u32,
    /// Attention heads.
    pub heads: u32,
    /// Rows, and columns, of pixels.
    pub image: u32,
    /// Rows, and columns, of pixels in a patch.
    pub patch: u32,
}

impl Sizes {
    /// From the shapes of a file's tensors.
    ///
    /// # Errors
    /// Where one that tells a size is missing or has another number of dimensions; and where the
    /// heads, which no shape tells, are those of no published model.
    pub fn of(given: &Given<'_>) -> Result<Self, Error> {
        let size =
            |name: &str, dimensions, n| given.size(&format!("{PREFIX}{name}"), dimensions, n);
        let dim = size("embeddings.class_embedding", 1, 0)?;
        let patch = size("embeddings.patch_embedding.weight", 4, 2)?;
        let positions = size("embeddings.position_embedding.weight", 2, 0)?;
        let heads = match (given.number("clipvision.attention.head_count"), dim) {
            (Some(heads), _) => heads,
            (None, H_DIM) => H_HEADS,
            _ => {
                let what = format!("an image encoder {dim} wide; known is ViT-H/14, {H_DIM} wide");
                return Err(Error::Inconsistent { file: given.path.to_owned(), what });
            }
        };
        Ok(Self {
            dim,
            ffn_dim: size("encoder.layers.0.mlp.fc1.weight", 2, 0)?,
            layers: given.count(&format!("{PREFIX}encoder.layers.")),
            heads,
            // One position is the class token's.
            image: (positions - 1).isqrt().saturating_mul(patch),
            patch,
        })
    }

    /// What files of a published one are called; `None` of others.
    pub fn published(&self) -> Option<&'static str> {
        (self.dim == H_DIM).then_some(PUBLISHED)
    }

    /// The metadata that a runtime needs to know the shapes.
    pub fn describe(&self, epsilon: f32, metadata: &mut Metadata) {
        metadata
            .set("clipvision.embedding_length", self.dim)
            .set("clipvision.feed_forward_length", self.ffn_dim)
            .set("clipvision.block_count", self.layers)
            .set("clipvision.attention.head_count", self.heads)
            .set("clipvision.attention.layer_norm_epsilon", epsilon)
            .set("clipvision.image_size", self.image)
            .set("clipvision.patch_size", self.patch);
    }

    /// Every tensor, in the order of the forward pass.
    pub fn tensors(&self) -> Vec<Wanted> {
        let [d, f, patch] = [self.dim, self.ffn_dim, self.patch].map(u64::from);
        let side = u64::from(self.image / self.patch);
        let mut list = List(Vec::new());
        let name = |part: &str| format!("{PREFIX}{part}");
        let mut one = |part: &str, shape: &[u64]| {
            list.one(&name(part), &name(part), shape, Role::Exact);
        };
        one("embeddings.class_embedding", &[d]);
        one("embeddings.patch_embedding.weight", &[d, 3, patch, patch]);
        one("embeddings.position_embedding.weight", &[side * side + 1, d]);
        // Spelt so in transformers.
        list.norm(&name("pre_layrnorm"), &name("pre_layrnorm"), d);
        for n in 0..self.layers {
            let name = |part: &str| name(&format!("encoder.layers.{n}.{part}"));
            list.norm(&name("layer_norm1"), &name("layer_norm1"), d);
            for part in ["q_proj", "k_proj", "v_proj", "out_proj"] {
                let name = name(&format!("self_attn.{part}"));
                list.linear(&name, &name, d, d, Role::Block);
            }
            list.norm(&name("layer_norm2"), &name("layer_norm2"), d);
            list.linear(&name("mlp.fc1"), &name("mlp.fc1"), f, d, Role::Block);
            list.linear(&name("mlp.fc2"), &name("mlp.fc2"), d, f, Role::Block);
        }
        list.norm(&name("post_layernorm"), &name("post_layernorm"), d);
        list.0
    }
}

/// Leaves aside what is known to be of no use to the image encoder, whose names are returned, and puts
/// the prefix before the names that transformers 5 leaves out where there is nothing else.
pub fn tidy(given: &mut Given<'_>) -> Vec<String> {
    let ignored = given.ignore(is_beside);
    if given.has("embeddings.class_embedding") {
        given.begin_with(PREFIX);
    }
    ignored
}

/// Whether a tensor beside the image encoder's is known to be of no use: the text half of CLIP, and
/// what leads to the space that both halves share.
fn is_beside(name: &str) -> bool {
    name.starts_with("text_model.")
        || matches!(
            name,
            "visual_projection.weight"
                | "text_projection.weight"
                | "logit_scale"
                | "vision_model.embeddings.position_ids"
                | "embeddings.position_ids"
        )
}
