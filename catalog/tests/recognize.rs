//! What files are taken for that do not say it: tables of published sizes as files have them.

use catalog::{
    Error, Given, Images, Naming, Part, Recognized, VARIANTS, Wanted, clip, recognize, umt5, wan,
    wan_vae,
};
use gguf::Metadata;
use std::path::Path;

const SMALL: wan::Sizes = wan::Sizes {
    heads: 12,
    dim: 1536,
    ffn_dim: 8960,
    freq_dim: 256,
    text_dim: 4096,
    layers: 2,
    in_channels: 16,
    out_channels: 16,
    image_dim: None,
    image_positions: None,
    vace: None,
};
const LARGE: wan::Sizes = wan::Sizes { heads: 40, dim: 5120, ffn_dim: 13824, ..SMALL };

/// Names and shapes of a file.
type Tensors = Vec<(String, Vec<u64>)>;

fn named(table: &[Wanted], naming: Naming, prefix: &str) -> Tensors {
    table.iter().map(|w| (format!("{prefix}{}", w.named(naming)), w.shape.clone())).collect()
}

fn originals(sizes: &wan::Sizes) -> Tensors {
    named(&sizes.tensors(), Naming::Original, "")
}

fn of(
    file: &str,
    tensors: &Tensors,
    metadata: Option<&Metadata>,
    expert: Option<Part>,
) -> Result<Recognized, Error> {
    let given = Given::new(Path::new(file), tensors.iter().map(|(n, s)| (n.as_str(), &s[..])));
    match metadata {
        Some(metadata) => recognize(&given.with_metadata(metadata), expert),
        None => recognize(&given, expert),
    }
}

#[track_caller]
fn is(file: &str, sizes: &wan::Sizes, variant: &str, part: Part) -> Recognized {
    let found = of(file, &originals(sizes), None, None).unwrap_or_else(|e| panic!("{e}"));
    assert_eq!((found.variant.unwrap().name, found.part), (variant, part), "{file}");
    assert_eq!(found.metadata.string("wan.variant"), Ok(variant));
    found
}

#[test]
fn shapes_and_names_of_files_tell_the_models() {
    let image = wan::Sizes { in_channels: 36, ..LARGE };
    let clip = wan::Sizes { image_dim: Some(1280), ..image.clone() };
    let both = wan::Sizes { image_positions: Some(514), ..clip.clone() };
    let five = wan::Sizes { heads: 24, dim: 3072, in_channels: 48, out_channels: 48, ..SMALL };
    let vace = wan::Sizes { vace: Some((1, 96)), ..SMALL };
    is("model.safetensors", &SMALL, "wan2.1-t2v-1.3b", Part::Single);
    is("model.safetensors", &clip, "wan2.1-i2v-14b", Part::Single);
    is("model.safetensors", &both, "wan2.1-flf2v-14b", Part::Single);
    is("model.safetensors", &vace, "wan2.1-vace-1.3b", Part::Single);
    let found = is("model.safetensors", &five, "wan2.2-ti2v-5b", Part::Single);
    assert_eq!(found.metadata.bool("wan.expand_timesteps"), Ok(true));
    assert_eq!(found.metadata.u32("wan.out_channels"), Ok(48));
    for (file, variant, part) in [
        ("wan2.1_t2v_14B_bf16.safetensors", "wan2.1-t2v-14b", Part::Single),
        ("Wan2_1-T2V-14B_fp8_e4m3fn.safetensors", "wan2.1-t2v-14b", Part::Single),
        ("wan2.2_t2v_high_noise_14B_fp16.safetensors", "wan2.2-t2v-a14b", Part::HighNoise),
        ("Wan2.2-T2V-A14B-LowNoise-Q4_K_M.gguf", "wan2.2-t2v-a14b", Part::LowNoise),
        ("Wan2_2-T2V-A14B_HIGH_fp8.safetensors", "wan2.2-t2v-a14b", Part::HighNoise),
        ("Wan2_2-T2V-A14B-LOW.safetensors", "wan2.2-t2v-a14b", Part::LowNoise),
    ] {
        is(file, &LARGE, variant, part);
    }
    let found = is("i2v_low_noise.safetensors", &image, "wan2.2-i2v-a14b", Part::LowNoise);
    assert_eq!(found.metadata.f32("wan.boundary_ratio"), Ok(0.9));
    assert_eq!(found.metadata.f32("wan.flow_shift"), Ok(5.0));
    assert_eq!(found.metadata.u32("wan.in_channels"), Ok(36));
    assert_eq!(
        found.inferred,
        [
            "Wan2.2 I2V A14B, by the shapes of its tensors",
            "the low-noise expert, by the file's name",
            "flow shift 5, 40 steps and guidance 3.5: the official defaults",
        ]
    );
    let found = of("i2v_low_noise.safetensors", &originals(&image), None, Some(Part::HighNoise));
    let found = found.unwrap();
    assert_eq!(found.part, Part::HighNoise);
    assert_eq!(
        found.doubt.as_deref(),
        Some(
            "taken for the high-noise expert as it was said to be, though its name says low-noise expert"
        )
    );
}

/// A model whose tensors are those of another in the registry would be called that.
#[test]
fn the_tensors_of_every_variant_tell_it() {
    for variant in VARIANTS {
        let sizes = wan::Sizes {
            heads: variant.dim / 128,
            dim: variant.dim,
            in_channels: variant.channels.0,
            out_channels: variant.channels.1,
            image_dim: variant.image_encoder.then_some(1280),
            image_positions: (variant.images == Images::FirstAndLast).then_some(514),
            vace: (variant.images == Images::Control).then_some((1, 96)),
            ..SMALL
        };
        let parts = match variant.two_experts() {
            true => &[Part::HighNoise, Part::LowNoise][..],
            false => &[Part::Single],
        };
        for &part in parts {
            let found = of("x.safetensors", &originals(&sizes), None, Some(part)).unwrap();
            assert_eq!((found.variant, found.part), (Some(variant), part));
        }
    }
}

#[test]
fn names_with_the_version_of_no_candidate_tell_nothing() {
    let image = wan::Sizes { in_channels: 36, image_dim: Some(1280), ..LARGE };
    is("wan2.2_i2v.safetensors", &image, "wan2.1-i2v-14b", Part::Single);
    // The narrow one of the two is the one transformer.
    is("model.safetensors", &wan::Sizes { dim: 2048, ..SMALL }, "wan2.1-t2v-1.3b", Part::Single);
}

#[test]
fn what_nothing_tells_is_an_error_with_the_choices() {
    let choices = |file: &str, sizes: &wan::Sizes| match of(file, &originals(sizes), None, None) {
        Err(Error::Ambiguous { choices, .. }) => choices,
        other => panic!("{other:?}"),
    };
    let all = ["wan2.1-t2v-14b single", "wan2.2-t2v-a14b high_noise", "wan2.2-t2v-a14b low_noise"];
    assert_eq!(choices("model.safetensors", &LARGE), all);
    assert_eq!(choices("wan2.2_t2v.safetensors", &LARGE), all[1..]);
    // Both, so neither.
    assert_eq!(choices("high_noise_low_noise.safetensors", &LARGE), all);
    let image = wan::Sizes { in_channels: 36, ..LARGE };
    assert_eq!(choices("i2v.safetensors", &image).len(), 2);

    let told = of("i2v.safetensors", &originals(&image), None, Some(Part::HighNoise)).unwrap();
    assert_eq!(told.part, Part::HighNoise);
    let error = of("i2v.safetensors", &originals(&image), None, Some(Part::Single)).unwrap_err();
    let text = "i2v.safetensors: Wan2.2 I2V A14B, which this is, has no single transformer";
    assert_eq!(error.to_string(), text);
    let odd = wan::Sizes { in_channels: 52, ..LARGE };
    let error = of("fun.safetensors", &originals(&odd), None, None).unwrap_err();
    assert!(error.to_string().contains("52 input and 16 output channels is none"), "{error}");
    let odd = wan::Sizes { image_dim: Some(1280), ..SMALL };
    let error = of("x.safetensors", &originals(&odd), None, None).unwrap_err();
    assert!(error.to_string().contains("16 output channels and attention to an image"), "{error}");
}

#[test]
fn metadata_outweighs_names_and_is_completed() {
    let mut own = Metadata::new();
    own.set("general.architecture", "wan").set("general.file_type", 15u32);
    let file = "Wan2.2-T2V-A14B-HighNoise-Q4_K_M.gguf";
    let found = of(file, &originals(&LARGE), Some(&own), None).unwrap();
    let whole = found.complete(Some(&own));
    assert_eq!(whole.u32("general.file_type"), Ok(15));
    assert_eq!(whole.string("wan.expert"), Ok("high_noise"));
    assert_eq!(whole.u32("wan.attention.head_count"), Ok(40));

    own.set("wan.expert", "low_noise")
        .set("wan.flow_shift", 3.0f32)
        .set("wan.variant", "wan2.1-t2v");
    let found = of(file, &originals(&LARGE), Some(&own), None).unwrap();
    let whole = found.complete(Some(&own));
    assert_eq!(found.part, Part::LowNoise);
    assert_eq!(whole.f32("wan.flow_shift"), Ok(3.0));
    // The name that older files of ours have is no model's.
    assert_eq!(whole.string("wan.variant"), Ok("wan2.2-t2v-a14b"));
    assert_eq!(found.inferred, [] as [&str; 0]);
}

#[test]
fn prefixes_and_foreign_names_are_seen_through() {
    let table = SMALL.tensors();
    for (naming, prefix) in [
        (Naming::Original, "model.diffusion_model."),
        (Naming::Diffusers, ""),
        (Naming::Diffusers, "transformer."),
    ] {
        let found = of("x.safetensors", &named(&table, naming, prefix), None, None).unwrap();
        assert_eq!((found.naming, found.prefix), (naming, prefix));
        assert_eq!(found.tensors.len(), table.len());
        for (tensor, wanted) in found.tensors.iter().zip(&table) {
            assert_eq!(&tensor.wanted, wanted);
            assert_eq!(tensor.source, format!("{prefix}{}", wanted.named(naming)));
        }
    }
    let mut twice = named(&table, Naming::Original, "diffusion_model.");
    twice.push(("head.modulation".into(), vec![1, 2, 1536]));
    let error = of("x.safetensors", &twice, None, None).unwrap_err();
    assert!(error.to_string().contains("with and without \"diffusion_model.\""), "{error}");
}

#[test]
fn folded_kernels_and_lost_ones_are_gguf_files_alone() {
    let mut tensors = originals(&SMALL);
    for (name, shape) in &mut tensors {
        match name.as_str() {
            "patch_embedding.weight" => *shape = vec![1536 * 16, 1, 2, 2],
            "head.modulation" => *shape = vec![2, 1536],
            _ => {}
        }
    }
    let own = Metadata::new();
    let found = of("x.gguf", &tensors, Some(&own), None).unwrap();
    let kernel = found.tensors.iter().find(|t| t.source == "patch_embedding.weight").unwrap();
    assert_eq!(kernel.wanted.shape, [1536, 16, 1, 2, 2]);
    assert!(of("x.safetensors", &tensors, None, None).is_err());
}

#[test]
fn the_other_parts_are_told_in_every_naming() {
    for (sizes, name, key) in [
        (wan_vae::Sizes::wan21(96, 16), "Wan2.1_VAE", None),
        (wan_vae::Sizes::wan22(160, 256, 48), "Wan2.2_VAE", Some(256)),
    ] {
        for naming in [Naming::Diffusers, Naming::Original] {
            let tensors = named(&sizes.tensors(), naming, "");
            let found = of("vae.safetensors", &tensors, None, None).unwrap();
            assert_eq!((found.part, found.naming), (Part::Vae, naming));
            assert_eq!(found.published, Some(name));
            assert_eq!(found.metadata.u32("wanvae.decoder_base_dim").ok(), key);
            assert_eq!(found.metadata.u32("wanvae.patch_size").ok(), key.map(|_| 2));
            assert_eq!(found.metadata.bool("wanvae.is_residual").ok(), key.map(|_| true));
            let mean = found.metadata.string("wanvae.latents_mean").unwrap();
            assert_eq!(mean.split(',').count(), sizes.z as usize);
        }
    }
    let clip =
        clip::Sizes { dim: 1280, ffn_dim: 5120, layers: 32, heads: 16, image: 224, patch: 14 };
    let mut tensors = named(&clip.tensors(), Naming::Original, "");
    let bare = |(name, shape): &(String, Vec<u64>)| {
        (name.strip_prefix("vision_model.").unwrap().to_owned(), shape.clone())
    };
    let found = of("model.safetensors", &tensors.iter().map(bare).collect(), None, None).unwrap();
    assert_eq!(found.tensors[0].source, "embeddings.class_embedding");
    assert_eq!(found.tensors[0].wanted.name, "vision_model.embeddings.class_embedding");
    tensors.push(("visual_projection.weight".into(), vec![1024, 1280]));
    tensors.push(("vision_model.embeddings.position_ids".into(), vec![1, 257]));
    let found = of("clip_vision_h.safetensors", &tensors, None, None).unwrap();
    assert_eq!((found.part, found.tensors.len()), (Part::ImageEncoder, 519));
    assert_eq!(found.ignored.len(), 2);
    assert_eq!(found.metadata.u32("clipvision.image_size"), Ok(224));
    assert_eq!(found.metadata.u32("clipvision.attention.head_count"), Ok(16));

    let umt5 = umt5::Sizes {
        vocab: 256_384,
        dim: 4096,
        ffn_dim: 10_240,
        heads: 64,
        head_dim: 64,
        layers: 24,
        buckets: 32,
    };
    for naming in [Naming::Diffusers, Naming::Original] {
        let mut tensors = named(&umt5.tensors(), naming, "");
        tensors.push(("spiece_model".into(), vec![4_548_313]));
        if naming == Naming::Diffusers {
            let shared = tensors.iter_mut().find(|(name, _)| name == "shared.weight").unwrap();
            shared.0 = "encoder.embed_tokens.weight".into();
        }
        let found = of("umt5.safetensors", &tensors, None, None).unwrap();
        assert_eq!((found.part, found.ignored), (Part::TextEncoder, vec!["spiece_model".into()]));
        assert_eq!(found.metadata.u32("t5encoder.vocab_size"), Ok(256_384));
        assert_eq!(found.published, Some("umt5-xxl-encoder"));
    }
}

#[test]
fn shapes_of_damaged_files_are_errors() {
    let clip =
        clip::Sizes { dim: 1280, ffn_dim: 5120, layers: 1, heads: 16, image: 224, patch: 14 };
    let both =
        wan::Sizes { in_channels: 36, image_dim: Some(1280), image_positions: Some(514), ..SMALL };
    let tables = [
        both.tensors(),
        wan_vae::Sizes::wan22(160, 256, 48).tensors(),
        wan_vae::Sizes::wan21(96, 16).tensors(),
        clip.tensors(),
    ];
    let metadata = Metadata::new();
    for table in tables {
        let whole = named(&table, Naming::Original, "");
        assert!(of("x.gguf", &whole, Some(&metadata), None).is_ok());
        for index in 0..whole.len() {
            for shape in
                [&[][..], &[0], &[1, 1 << 21, 1 << 21, 1 << 21], &[1 << 40, 1 << 40], &[3; 5]]
            {
                let mut damaged = whole.clone();
                damaged[index].1 = shape.to_vec();
                let found = of("x.gguf", &damaged, Some(&metadata), None);
                assert!(found.is_err(), "{} of {shape:?}", damaged[index].0);
            }
        }
    }
}

#[test]
fn what_is_missing_or_too_much_is_named() {
    let mut tensors = originals(&SMALL);
    tensors.retain(|(name, _)| name != "blocks.1.ffn.0.bias");
    tensors.push(("first_stage_model.x".into(), vec![1]));
    let error = of("x.safetensors", &tensors, None, None).unwrap_err().to_string();
    let text = "x.safetensors: tensors are missing: blocks.1.ffn.0.bias; and there are some that \
                the model does not have: first_stage_model.x";
    assert_eq!(error, text);
    let error = of("x.gguf", &vec![("x".into(), vec![2])], None, None).unwrap_err().to_string();
    assert!(error.starts_with("x.gguf: not a Wan transformer"), "{error}");
}
