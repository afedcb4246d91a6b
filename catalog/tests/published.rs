//! The tables against what is known of the published models.

use catalog::{Naming, VARIANTS, Variant, clip, umt5, wan, wan_vae};
use std::collections::BTreeSet;

const A14B: wan::Sizes = wan::Sizes {
    heads: 40,
    dim: 5120,
    ffn_dim: 13824,
    freq_dim: 256,
    text_dim: 4096,
    layers: 40,
    in_channels: 16,
    out_channels: 16,
    image_dim: None,
    image_positions: None,
    vace: None,
};

fn small(heads: u32, ffn_dim: u32, channels: u32) -> wan::Sizes {
    let (in_channels, out_channels) = (channels, channels);
    let dim = heads * 128;
    wan::Sizes { heads, dim, ffn_dim, layers: 30, in_channels, out_channels, ..A14B }
}

/// Every name once, whichever the naming; how many, and how many elements.
fn census(table: &[catalog::Wanted]) -> (usize, u64) {
    for naming in [Naming::Diffusers, Naming::Original] {
        let names: BTreeSet<&str> = table.iter().map(|wanted| wanted.named(naming)).collect();
        assert_eq!(names.len(), table.len());
    }
    (table.len(), table.iter().map(|wanted| wanted.shape.iter().product::<u64>()).sum())
}

/// Counted by diffusers' and transformers' own classes with the published configurations.
#[test]
fn tables_have_the_published_tensors_and_elements() {
    let image = |positions| wan::Sizes {
        in_channels: 36,
        image_dim: Some(1280),
        image_positions: positions,
        ..A14B
    };
    let transformers = [
        ("T2V-A14B", A14B, 1095, 14_288_491_584),
        ("I2V-A14B", wan::Sizes { in_channels: 36, ..A14B }, 1095, 14_288_901_184),
        ("TI2V-5B", small(24, 14336, 48), 825, 4_999_787_712),
        ("T2V-1.3B", small(12, 8960, 16), 825, 1_418_996_800),
        ("I2V-14B", image(None), 1303, 16_394_878_784),
        ("FLF2V-14B", image(Some(514)), 1304, 16_395_536_704),
    ];
    for (name, sizes, tensors, elements) in transformers {
        assert_eq!(census(&sizes.tensors()), (tensors, elements), "{name}");
    }
    let vaes = [
        (wan_vae::Sizes::wan21(96, 16), 194, 126_892_531),
        (wan_vae::Sizes::wan22(160, 256, 48), 196, 704_688_668),
    ];
    for (sizes, tensors, elements) in vaes {
        assert_eq!(census(&sizes.tensors()), (tensors, elements), "{:?}", sizes.published());
        assert!(sizes.published().is_some());
        let (mean, std) = sizes.statistics().unwrap();
        assert_eq!((mean.len(), std.len()), (sizes.z as usize, sizes.z as usize));
    }
    let clip =
        clip::Sizes { dim: 1280, ffn_dim: 5120, layers: 32, heads: 16, image: 224, patch: 14 };
    assert_eq!(census(&clip.tensors()), (519, 630_766_080));
    let umt5 = umt5::Sizes {
        vocab: 256_384,
        dim: 4096,
        ffn_dim: 10_240,
        heads: 64,
        head_dim: 64,
        layers: 24,
        buckets: 32,
    };
    assert_eq!(census(&umt5.tensors()), (242, 5_680_910_336));
}

#[test]
fn every_variant_has_a_name_of_its_own_and_sizes_that_it_can_make() {
    let names: BTreeSet<&str> = VARIANTS.iter().map(|variant| variant.name).collect();
    assert_eq!(names.len(), VARIANTS.len());
    for variant in VARIANTS {
        let name = variant.name;
        assert_eq!(Variant::named(name), Some(variant));
        // TI2V-5B's tokens are 32 pixels wide, the others' 16.
        let unit = if variant.channels.1 == 48 { 32 } else { 16 };
        assert!(variant.size.0 % unit == 0 && variant.size.1 % unit == 0, "{name}");
        assert_eq!(variant.frames % 4, 1, "{name}");
        assert!(
            variant.two_experts() || variant.guidance_scale == variant.guidance_scale_2,
            "{name}"
        );
    }
}

/// Lines of name in the checkpoint, shape, name in the original code: written from diffusers' classes
/// with the published configurations, and the original names loaded strictly by the original classes.
fn list(tsv: &str) -> BTreeSet<(String, String, String)> {
    let line = |line: &str| {
        let [theirs, shape, ours] = line.split('\t').collect::<Vec<_>>().try_into().unwrap();
        (theirs.to_owned(), shape.to_owned(), ours.to_owned())
    };
    tsv.lines().map(line).collect()
}

fn lines(table: &[catalog::Wanted]) -> BTreeSet<(String, String, String)> {
    let line = |wanted: &catalog::Wanted| {
        let shape: Vec<_> = wanted.shape.iter().map(u64::to_string).collect();
        (wanted.diffusers.clone(), shape.join("x"), wanted.name.clone())
    };
    table.iter().map(line).collect()
}

#[test]
fn names_pair_up_as_in_the_original_code() {
    let vae = wan_vae::Sizes::wan22(160, 256, 48).tensors();
    assert_eq!(lines(&vae), list(include_str!("fixtures/wan22_vae.tsv")));
    // Block 0 stands for all.
    let image = wan::Sizes { in_channels: 36, image_dim: Some(1280), layers: 1, ..A14B };
    assert_eq!(lines(&image.tensors()), list(include_str!("fixtures/wan21_i2v.tsv")));
}
