//! What a file is, told by its tensors' names and shapes, by whatever metadata it has, and, for the
//! experts of Wan 2.2, which nothing else tells apart, by its name.

use gguf::Metadata;
use std::path::Path;

use crate::{Error, Family, Given, Images, Matched, Naming, Part, Variant};
use crate::{clip, hunyuan_video15, umt5, wan, wan_vae};

/// What programs put before the names of the one model that a file holds.
const PREFIXES: [&str; 4] = [
    "model.diffusion_model.",
    "model.high_noise_diffusion_model.",
    "diffusion_model.",
    "transformer.",
];
/// ComfyUI's text encoders carry the tokenizer's model among their tensors.
const SPIECE: &str = "spiece_model";
/// `wan/configs/shared_config.py`, which no shape tells.
const EPSILON: f32 = 1e-6;

/// A file that was recognized.
#[derive(Clone, Debug)]
pub struct Recognized {
    /// What it does.
    pub part: Part,
    /// Whose.
    pub family: Family,
    /// The model, if it is a transformer of Wan's. Other parts are several models'.
    pub variant: Option<&'static Variant>,
    /// Which names its tensors have.
    pub naming: Naming,
    /// What is before the names.
    pub prefix: &'static str,
    /// What files of this part are called where the same one is published with several models.
    pub published: Option<&'static str>,
    /// What a runtime must know, all of it; [`Self::complete`] lets the file's own values stand.
    pub metadata: Metadata,
    /// Every tensor of the part, in the order of the forward pass.
    pub tensors: Vec<Matched>,
    /// Tensors that are no part of it.
    pub ignored: Vec<String>,
    /// What the file itself does not say, in sentences to tell whoever gave it.
    pub inferred: Vec<String>,
    /// What speaks against what it was taken for, in a sentence to warn whoever gave it.
    pub doubt: Option<String>,
}

impl Recognized {
    /// The metadata of the file with whatever it lacks. `wan.variant` and `wan.expert` are what was
    /// recognized, even if the file has them.
    pub fn complete(&self, own: Option<&Metadata>) -> Metadata {
        let mut whole = own.cloned().unwrap_or_default();
        for (key, value) in self.metadata.iter() {
            if whole.get(key).is_none() || matches!(key, "wan.variant" | "wan.expert") {
                whole.set(key, value.clone());
            }
        }
        whole.set("general.architecture", self.part.architecture(self.family));
        whole
    }
}

/// Tells what a file is. `expert` is what a transformer does, where that is known; it outweighs what
/// the file says.
///
/// # Errors
/// Where the tensors are not exactly those of a known part, and [`Error::Ambiguous`] where they could
/// be one expert's or the other's.
pub fn recognize(given: &Given<'_>, expert: Option<Part>) -> Result<Recognized, Error> {
    let mut given = given.clone();
    let marks = [
        "patch_embedding.weight",
        "blocks.0.ffn.0.bias",
        "blocks.0.ffn.net.0.proj.bias",
        "img_in.proj.weight",
    ];
    let begins = |prefix: &&str| marks.iter().any(|mark| given.has(&format!("{prefix}{mark}")));
    if let Some(prefix) = PREFIXES.into_iter().find(begins) {
        given.strip(prefix)?;
    }
    if given.has("blocks.0.self_attn.q.weight") {
        transformer(given, Naming::Original, expert)
    } else if given.has("blocks.0.attn1.to_q.weight") {
        transformer(given, Naming::Diffusers, expert)
    } else if given.has("enc.blk.0.attn_q.weight") {
        text_encoder(given, Naming::Original)
    } else if given.has("encoder.block.0.layer.0.SelfAttention.q.weight") {
        text_encoder(given, Naming::Diffusers)
    } else if given.has("decoder.conv1.weight") {
        vae(given, Naming::Original)
    } else if given.has("decoder.conv_in.weight") && given.has("quant_conv.weight") {
        vae(given, Naming::Diffusers)
    } else if ["", "vision_model."]
        .iter()
        .any(|prefix| given.has(&format!("{prefix}embeddings.class_embedding")))
    {
        image_encoder(given)
    } else if hunyuan_video15::is(&given) {
        hunyuan_video15(given, expert)
    } else if let Some(whose) = hunyuan_video15::other_names(&given) {
        Err(Error::HunyuanVideo15 { file: given.path.to_owned(), whose })
    } else {
        let first = given.names().take(4).map(str::to_owned).collect();
        Err(Error::Unknown { file: given.path.to_owned(), first })
    }
}

/// What a file's name says of the expert in it; every publisher of two has it there.
pub fn expert_named(name: &str) -> Option<Part> {
    let name = name.to_lowercase();
    let plain = plain(&name);
    let says = |word: &str| {
        // "HIGH" alone means the expert in names of Wan 2.2 only.
        let alone = || name.split(|c: char| !c.is_ascii_alphanumeric()).any(|part| part == word);
        plain.contains(&format!("{word}noise")) || plain.contains("wan22") && alone()
    };
    match (says("high"), says("low")) {
        (true, false) => Some(Part::HighNoise),
        (false, true) => Some(Part::LowNoise),
        _ => None,
    }
}

/// Letters and digits: publishers differ in what they put between.
fn plain(name: &str) -> String {
    name.to_lowercase().chars().filter(char::is_ascii_alphanumeric).collect()
}

fn file_name(path: &Path) -> String {
    path.file_name().unwrap_or_default().to_string_lossy().into_owned()
}

/// Whether a model has tensors of these sizes, whatever its width and its number of blocks.
fn fits(variant: &Variant, sizes: &wan::Sizes) -> bool {
    variant.channels == (sizes.in_channels, sizes.out_channels)
        && variant.image_encoder == sizes.image_dim.is_some()
        && (variant.images == Images::FirstAndLast) == sizes.image_positions.is_some()
        && (variant.images == Images::Control) == sizes.vace.is_some()
}

/// Models and experts that have these shapes: nothing in them tells one transformer from one of two.
fn candidates(
    given: &Given<'_>,
    sizes: &wan::Sizes,
) -> Result<Vec<(&'static Variant, Part)>, Error> {
    let of = |two: bool| {
        Variant::nearest(sizes.dim, |v| v.two_experts() == two && fits(v, sizes)).into_iter()
    };
    let mut found: Vec<_> = of(false).map(|variant| (variant, Part::Single)).collect();
    let experts = [Part::HighNoise, Part::LowNoise];
    found.extend(of(true).flat_map(|variant| experts.map(|part| (variant, part))));
    if found.is_empty() {
        let &wan::Sizes { in_channels: inputs, out_channels: outputs, .. } = sizes;
        let beside = match (sizes.image_dim, sizes.vace) {
            (_, Some(_)) => " and VACE's blocks",
            (Some(_), None) => " and attention to an image",
            (None, None) => "",
        };
        return Err(Error::Channels { file: given.path.to_owned(), inputs, outputs, beside });
    }
    Ok(found)
}

/// Leaves those that `like` takes, if there are any.
fn narrow(
    candidates: &mut Vec<(&'static Variant, Part)>,
    like: impl Fn(&(&'static Variant, Part)) -> bool,
) {
    if candidates.iter().any(&like) {
        candidates.retain(like);
    }
}

fn called(part: Part) -> &'static str {
    match part {
        Part::HighNoise => "high-noise expert",
        Part::LowNoise => "low-noise expert",
        _ => "single transformer",
    }
}

/// Which of the candidates it is, and a sentence about how that is known.
fn chosen(
    given: &Given<'_>,
    sizes: &wan::Sizes,
    told: Option<Part>,
) -> Result<(&'static Variant, Part, Option<&'static str>), Error> {
    let mut candidates = candidates(given, sizes)?;
    let named = |key| given.metadata.and_then(|metadata| metadata.string(key).ok());
    let said = match named("wan.expert") {
        Some("high_noise") => Some(Part::HighNoise),
        Some("low_noise") => Some(Part::LowNoise),
        Some("single") => Some(Part::Single),
        _ => None,
    };
    // Some GGUF files keep their first name inside.
    let names = [Some(file_name(given.path)), named("general.name").map(str::to_owned)];
    let names: Vec<String> = names.into_iter().flatten().collect();
    let by_name = || names.iter().find_map(|name| expert_named(name));
    let (part, how) = match (told, said) {
        (Some(part), _) | (None, Some(part)) => (Some(part), None),
        (None, None) => (by_name(), Some("by the file's name")),
    };
    let file = given.path.to_owned();
    if let Some(part) = part {
        let found = candidates.iter().find(|(_, candidate)| *candidate == part);
        let title = candidates[0].0.title;
        let missing = Error::NoExpert { file, title, part: called(part) };
        let &(variant, part) = found.ok_or(missing)?;
        return Ok((variant, part, how));
    }
    let says = |version: &str| names.iter().any(|name| plain(name).contains(&plain(version)));
    narrow(&mut candidates, |(variant, _)| says(variant.version()));
    let off = |(variant, _): &(&Variant, Part)| variant.dim.abs_diff(sizes.dim);
    let least = candidates.iter().map(off).min();
    narrow(&mut candidates, |candidate| Some(off(candidate)) == least);
    match candidates[..] {
        [(variant, part)] => Ok((variant, part, None)),
        _ => {
            let choice = |(variant, part): (&Variant, Part)| {
                format!("{} {}", variant.name, part.expert().unwrap_or_default())
            };
            Err(Error::Ambiguous { file, choices: candidates.into_iter().map(choice).collect() })
        }
    }
}

fn transformer(
    given: Given<'_>,
    naming: Naming,
    expert: Option<Part>,
) -> Result<Recognized, Error> {
    let sizes = wan::Sizes::of(&given, naming)?;
    let tensors = given.matched(naming, sizes.tensors())?;
    let (variant, part, how) = chosen(&given, &sizes, expert)?;
    let mut inferred = Vec::new();
    let lacks = |key: &str| given.metadata.is_none_or(|metadata| metadata.get(key).is_none());
    if lacks("wan.variant") {
        inferred.push(format!("{}, by the shapes of its tensors", variant.title));
    }
    // Nothing else can tell that the two were given for each other.
    let mut doubt = None;
    let named = expert_named(&file_name(given.path)).filter(|named| *named != part);
    if let (Some(named), true) = (named, expert.is_some() && lacks("wan.expert")) {
        doubt = Some(format!(
            "taken for the {} as it was said to be, though its name says {}",
            called(part),
            called(named)
        ));
    }
    if let (Some(how), true) = (how, part != Part::Single) {
        inferred.push(format!("the {}, {how}", called(part)));
    }
    if lacks("wan.flow_shift") {
        let (shift, steps) = (variant.flow_shift, variant.steps);
        let guidance = variant.guidance_of(part);
        inferred.push(format!(
            "flow shift {shift}, {steps} steps and guidance {guidance}: the official defaults"
        ));
    }
    let mut metadata = Metadata::new();
    variant.describe(part, variant.boundary_ratio, variant.flow_shift, &mut metadata);
    sizes.describe(EPSILON, &mut metadata);
    let found = Found { part, naming, metadata, tensors, ignored: Vec::new(), inferred };
    Ok(Recognized { variant: Some(variant), doubt, ..found.finish(&given) })
}

fn text_encoder(mut given: Given<'_>, naming: Naming) -> Result<Recognized, Error> {
    let mut ignored = given.ignore(|name| name == SPIECE);
    if naming == Naming::Diffusers {
        ignored.extend(given.unify("encoder.embed_tokens.weight", "shared.weight"));
    }
    let sizes = umt5::Sizes::of(&given, naming)?;
    let tensors = given.matched(naming, sizes.tensors())?;
    let mut metadata = Metadata::new();
    sizes.describe(umt5::EPSILON, umt5::MAX_DISTANCE, &mut metadata);
    let part = Part::TextEncoder;
    let inferred = match given.metadata.is_none_or(|m| m.get("t5encoder.block_count").is_none()) {
        true => vec!["a UMT5 encoder, by its tensors".into()],
        false => Vec::new(),
    };
    let published = sizes.published();
    let found = Found { part, naming, metadata, tensors, ignored, inferred };
    Ok(Recognized { published, ..found.finish(&given) })
}

fn vae(given: Given<'_>, naming: Naming) -> Result<Recognized, Error> {
    let sizes = wan_vae::Sizes::of(&given, naming)?;
    let tensors = given.matched(naming, sizes.tensors())?;
    let mut metadata = Metadata::new();
    sizes.describe(&mut metadata);
    let mut inferred = Vec::new();
    if given.metadata.is_none_or(|metadata| metadata.get("wanvae.latents_mean").is_none()) {
        let Some((mean, std)) = sizes.statistics() else {
            let what = format!("nothing says the mean of {} channels of latents", sizes.z);
            return Err(Error::Inconsistent { file: given.path.to_owned(), what });
        };
        wan_vae::Sizes::describe_latents(mean, std, &mut metadata);
        let which = if sizes.residual { "2.2's TI2V-5B" } else { "2.1" };
        inferred.push(format!(
            "the VAE of Wan {which}, by its tensors; its latents' mean and deviation are the official ones"
        ));
    }
    let published = sizes.published();
    let part = Part::Vae;
    let found = Found { part, naming, metadata, tensors, ignored: Vec::new(), inferred };
    Ok(Recognized { published, ..found.finish(&given) })
}

fn image_encoder(mut given: Given<'_>) -> Result<Recognized, Error> {
    let ignored = clip::tidy(&mut given);
    let sizes = clip::Sizes::of(&given)?;
    let naming = Naming::Original;
    let tensors = given.matched(naming, sizes.tensors())?;
    let mut metadata = Metadata::new();
    sizes.describe(clip::EPSILON, &mut metadata);
    let heads = "clipvision.attention.head_count";
    let inferred = match given.metadata.is_none_or(|metadata| metadata.get(heads).is_none()) {
        true => vec!["the image encoder of CLIP ViT-H/14, by its tensors".into()],
        false => Vec::new(),
    };
    let published = sizes.published();
    let part = Part::ImageEncoder;
    let found = Found { part, naming, metadata, tensors, ignored, inferred };
    Ok(Recognized { published, ..found.finish(&given) })
}

fn hunyuan_video15(given: Given<'_>, expert: Option<Part>) -> Result<Recognized, Error> {
    if let Some(part) = expert.filter(|part| *part != Part::Single) {
        let (file, title) = (given.path.to_owned(), "HunyuanVideo 1.5");
        return Err(Error::NoExpert { file, title, part: called(part) });
    }
    let (sizes, tensors) = hunyuan_video15::matched(&given)?;
    let mut metadata = Metadata::new();
    sizes.describe(&mut metadata);
    let inferred = match given.metadata.is_none_or(|m| m.get("hyvid.block_count").is_none()) {
        true => vec!["HunyuanVideo 1.5, by its tensors".into()],
        false => Vec::new(),
    };
    let (part, naming) = (Part::Single, Naming::Original);
    let found = Found { part, naming, metadata, tensors, ignored: Vec::new(), inferred };
    Ok(Recognized { family: Family::HunyuanVideo15, ..found.finish(&given) })
}

/// What every part has.
struct Found {
    part: Part,
    naming: Naming,
    metadata: Metadata,
    tensors: Vec<Matched>,
    ignored: Vec<String>,
    inferred: Vec<String>,
}

impl Found {
    fn finish(self, given: &Given<'_>) -> Recognized {
        let Self { part, naming, metadata, tensors, ignored, mut inferred } = self;
        let prefix = given.prefix();
        if !prefix.is_empty() {
            inferred.push(format!("names without {prefix:?}, with which they begin"));
        }
        if naming == Naming::Diffusers {
            inferred.push("names of the original code for those of diffusers".into());
        }
        if !ignored.is_empty() {
            inferred.push(format!("without tensors that it does not need: {}", ignored.join(", ")));
        }
        let (family, variant, published, doubt) = (Family::Wan, None, None, None);
        Recognized {
            part,
            family,
            variant,
            naming,
            prefix,
            published,
            metadata,
            tensors,
            ignored,
            inferred,
            doubt,
        }
    }
}
