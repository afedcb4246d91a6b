//! HunyuanVideo 1.5's tables against diffusers' classes with the published configuration: lists of name
//! in the checkpoint, shape, name in the file and, of the transformer, the row of the file's tensor at
//! which the first one stands; behind the last row it goes on at the first. `d` is the model's width,
//! `t` and `i` are the encoders'; block 0 stands for all.

use catalog::hunyuan_video15::{Made, Piece, Sizes};
use catalog::{Error, Family, Given, Part, Wanted, hunyuan_video15_vae, recognize};
use gguf::Metadata;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// `720p_t2v`, and every other published one but those with mean flow.
const PUBLISHED: Sizes =
    Sizes { heads: 16, layers: 54, text_dim: 3584, image_dim: 1152, mean_flow: false };

/// A number of the list.
fn number(text: &str, sizes: &Sizes) -> u64 {
    let times = |of: &str| if of.is_empty() { 1 } else { of.parse().unwrap() };
    match text {
        "t" => sizes.text_dim.into(),
        "i" => sizes.image_dim.into(),
        _ => match text.strip_suffix('d') {
            Some(of) => times(of) * u64::from(sizes.dim()),
            None => text.parse().unwrap(),
        },
    }
}

fn elements(shape: &[u64]) -> u64 {
    shape.iter().product()
}

fn count(table: &[Wanted]) -> (usize, u64) {
    (table.len(), table.iter().map(|wanted| elements(&wanted.shape)).sum())
}

#[test]
fn tables_have_the_published_tensors_and_elements() {
    assert_eq!(count(&PUBLISHED.diffusers()), (1801, 8_326_608_160));
    // Four tensors less for each q, k and v of 54 blocks' two streams and two refiner blocks.
    assert_eq!(count(&PUBLISHED.tensors()), (1801 - 4 * 110, 8_326_608_160));
    let mean_flow = Sizes { mean_flow: true, ..PUBLISHED };
    let d = 2048;
    let more = 256 * d + d + d * d + d;
    assert_eq!(count(&mean_flow.diffusers()), (1805, 8_326_608_160 + more));
    for naming in [catalog::Naming::Diffusers, catalog::Naming::Original] {
        let table = match naming {
            catalog::Naming::Diffusers => mean_flow.diffusers(),
            catalog::Naming::Original => mean_flow.tensors(),
        };
        let names: BTreeSet<&str> = table.iter().map(|wanted| wanted.named(naming)).collect();
        assert_eq!(names.len(), table.len());
    }
    let vae = hunyuan_video15_vae::Sizes { channels: [128, 256, 512, 1024, 1024] };
    assert_eq!(count(&vae.tensors()), (218, 1_260_634_115));
    assert_eq!(vae.published(), Some("hunyuanvideo15_vae"));
}

#[test]
fn every_row_stands_where_the_original_code_has_it() {
    // All sizes differ, so that none can stand for another.
    for sizes in
        [PUBLISHED, Sizes { heads: 3, layers: 1, text_dim: 40, image_dim: 24, ..PUBLISHED }]
    {
        let wanted = sizes.diffusers();
        let shapes: BTreeMap<&str, &[u64]> =
            wanted.iter().map(|wanted| (&*wanted.diffusers, &*wanted.shape)).collect();
        let made = sizes.made();
        let mut lines = 0;
        for line in include_str!("fixtures/hunyuan_video15.tsv").lines() {
            let [theirs, shape, name, row]: [&str; 4] =
                line.split('\t').collect::<Vec<_>>().try_into().unwrap();
            let shape: Vec<u64> = shape.split('x').map(|n| number(n, &sizes)).collect();
            assert_eq!(shapes[theirs], shape, "{theirs}");
            let Made { wanted, pieces } =
                made.iter().find(|made| made.wanted.name == name).expect(name);
            let (mut at, mut rows_found) = (0, 0);
            for Piece { diffusers, rows } in pieces {
                if diffusers == theirs {
                    let expected = (rows.start + number(row, &sizes)) % wanted.shape[0];
                    assert_eq!(at, expected, "{theirs}, rows {rows:?}");
                    rows_found += rows.end - rows.start;
                }
                at += rows.end - rows.start;
            }
            assert_eq!(rows_found, shape[0], "{theirs}");
            assert_eq!(at, wanted.shape[0], "{name}");
            lines += 1;
        }
        // 60 tensors outside the double blocks, of which refiner block 0 stands for two.
        let others = wanted.iter().filter(|w| w.diffusers.contains(".refiner_blocks.1."));
        assert_eq!(lines + others.count(), wanted.len() - (sizes.layers as usize - 1) * 32);
    }
}

#[test]
fn the_vae_is_renamed_as_in_the_original_code() {
    let table = hunyuan_video15_vae::Sizes { channels: [128, 256, 512, 1024, 1024] }.tensors();
    let line = |wanted: &Wanted| {
        let shape: Vec<_> = wanted.shape.iter().map(u64::to_string).collect();
        format!("{}\t{}\t{}", wanted.diffusers, shape.join("x"), wanted.name)
    };
    let found: BTreeSet<String> = table.iter().map(line).collect();
    let list = include_str!("fixtures/hunyuan_video15_vae.tsv").lines().map(str::to_owned);
    assert_eq!(found, list.collect());
}

type Tensors = Vec<(String, Vec<u64>)>;

fn of(tensors: &Tensors, metadata: Option<&Metadata>) -> Result<catalog::Recognized, Error> {
    let list = tensors.iter().map(|(name, shape)| (name.as_str(), &shape[..]));
    let given = Given::new(Path::new("some.gguf"), list);
    match metadata {
        Some(metadata) => recognize(&given.with_metadata(metadata), None),
        None => recognize(&given, None),
    }
}

#[test]
fn files_are_told_by_their_tensors() {
    let small = Sizes { heads: 2, layers: 3, text_dim: 32, image_dim: 16, mean_flow: true };
    let named = |prefix: &str| -> Tensors {
        let table = small.tensors();
        table.iter().map(|w| (format!("{prefix}{}", w.name), w.shape.clone())).collect()
    };
    // It has no experts, so nobody can have asked for one of them.
    let tensors = named("");
    let given = Given::new(
        Path::new("some.gguf"),
        tensors.iter().map(|(name, shape)| (name.as_str(), &shape[..])),
    );
    let error = recognize(&given, Some(Part::HighNoise)).unwrap_err();
    assert!(matches!(error, Error::NoExpert { .. }), "{error}");
    for prefix in ["", "model.diffusion_model."] {
        let found = of(&named(prefix), None).unwrap();
        assert_eq!((found.family, found.part), (Family::HunyuanVideo15, Part::Single));
        assert_eq!((found.variant, found.prefix), (None, prefix));
        assert_eq!(found.tensors.len(), small.tensors().len());
        assert!(found.inferred[0].contains("HunyuanVideo 1.5"), "{:?}", found.inferred);
        assert_eq!(found.metadata.u32("hyvid.block_count"), Ok(3));
        let whole = found.complete(None);
        assert_eq!(whole.string("general.architecture"), Ok("hyvid"));
    }

    // A folded kernel of a GGUF file.
    let mut folded = named("");
    let patch = folded.iter_mut().find(|(name, _)| name == "img_in.proj.weight").unwrap();
    patch.1 = vec![256 * 65, 1, 1, 1];
    of(&folded, Some(&Metadata::new())).unwrap();
    of(&folded, None).unwrap_err();

    let mut cut = named("");
    cut.retain(|(name, _)| name != "cond_type_embedding.weight");
    let error = of(&cut, None).unwrap_err().to_string();
    assert!(error.contains("missing: cond_type_embedding.weight"), "{error}");

    // HunyuanVideo 1.0 has blocks of another kind, too.
    let mut older = named("");
    older.push(("single_blocks.0.linear1.weight".into(), vec![7 * 256, 256]));
    assert!(matches!(of(&older, None), Err(Error::Unknown { .. })));
}

#[test]
fn other_names_are_told_what_they_are() {
    let theirs: Tensors =
        PUBLISHED.diffusers().into_iter().map(|w| (w.diffusers, w.shape)).collect();
    let split = ["byt5_in.fc1.weight", "double_blocks.0.img_attn_q.weight"];
    let comfy = ["byt5_in.fc1.weight", "double_blocks.0.img_attn.qkv.weight"];
    let list = |names: [&str; 2]| names.map(|name| (name.to_owned(), vec![1])).to_vec();
    for (tensors, whose) in
        [(theirs, "diffusers'"), (list(split), "Tencent's"), (list(comfy), "ComfyUI's")]
    {
        let error = of(&tensors, None).unwrap_err().to_string();
        for part in [whose, "HunyuanVideo 1.5", "model_index.json", "gguf-video doesn't run"] {
            assert!(error.contains(part), "{part:?} is not in: {error}");
        }
    }
}
