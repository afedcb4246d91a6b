//! The image encoder of a checkpoint: the vision half of a CLIP.

use anyhow::{Result, ensure};
use catalog::Naming;
use catalog::clip::{self, Sizes};
use gguf::Metadata;
use serde_json::json;

use super::loose::given;
use super::{Family, Model, Part, named, tensors};
use crate::source::{Config, Folder};

/// The real one has 32.
const MOST_LAYERS: u64 = 1024;

pub(super) fn model(folder: &Folder, name: &str) -> Result<Model> {
    // The second has a projection, which is of no use here.
    let classes = ["CLIPVisionModel", "CLIPVisionModelWithProjection"];
    folder.expect_class("image_encoder", &classes)?;
    let config = folder.config("image_encoder")?;
    config.expect_present("hidden_act", "gelu")?;
    config.expect("num_channels", 3)?;
    let sizes = Sizes {
        dim: config.size("hidden_size")?,
        ffn_dim: config.size("intermediate_size")?,
        layers: config.size_up_to("num_hidden_layers", MOST_LAYERS)?,
        heads: config.size("num_attention_heads")?,
        image: config.size("image_size")?,
        patch: config.size("patch_size")?,
    };
    ensure!(
        sizes.layers > 1,
        config.wrong("num_hidden_layers", "at least 2: the last is left out")
    );
    ensure!(
        sizes.dim.is_multiple_of(sizes.heads),
        config.wrong("num_attention_heads", "a divisor of hidden_size")
    );
    ensure!(
        sizes.image.is_multiple_of(sizes.patch),
        config.wrong("patch_size", "a divisor of image_size")
    );
    processor(folder, sizes.image)?;
    let weights = folder.weights("image_encoder", "model")?;
    let mut given = given(&weights);
    clip::tidy(&mut given);
    let tensors = tensors(&weights, given.matched(Naming::Diffusers, sizes.tensors())?)?;
    let mut metadata = Metadata::new();
    sizes.describe(config.number("layer_norm_eps")?, &mut metadata);
    Ok(Model {
        part: Part::ImageEncoder,
        family: Family::Wan,
        name: sizes.published().map_or_else(|| named(name, Part::ImageEncoder), str::to_owned),
        source_name: folder.name()?,
        metadata,
        weights,
        tensors,
    })
}

/// What happens to an image is not in the file, so it must be as in every published model.
fn processor(folder: &Folder, image: u32) -> Result<()> {
    folder.expect_class("image_processor", &["CLIPImageProcessor", "CLIPImageProcessorFast"])?;
    let path = folder.path("image_processor").join("preprocessor_config.json");
    let config = Config::read(path)?;
    config.expect("image_mean", json!([0.481_454_66, 0.457_827_5, 0.408_210_73]))?;
    config.expect("image_std", json!([0.268_629_54, 0.261_302_58, 0.275_777_11]))?;
    // Older versions of transformers write a number.
    for (key, object) in [
        ("size", json!({ "shortest_edge": image })),
        ("crop_size", json!({ "height": image, "width": image })),
    ] {
        if *config.get(key) != json!(image) {
            config.expect(key, object)?;
        }
    }
    // Bicubic.
    config.expect("resample", 3)?;
    ["do_resize", "do_center_crop", "do_rescale", "do_normalize"]
        .into_iter()
        .try_for_each(|key| config.expect(key, true))
}
