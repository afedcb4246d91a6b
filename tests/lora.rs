//! LoRA files beside the weights, against the same files merged by the converter.

use e2e::{converted, fixture, open_model};
use gguf_video::ggml::{Device, HostTensor, Precision};
use gguf_video::pipeline::noise::Generator;
use gguf_video::pipeline::{
    Checkpoint, Experts, Lora, Machine, ModelFolder, Of, Plan, Request, Silent, encode,
};
use safetensors::Dtype;
use safetensors::tensor::TensorView;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

const RANK: usize = 4;

/// Tensors of an adapter's file.
struct Adapter(BTreeMap<String, (Vec<usize>, Vec<f32>)>);

impl Adapter {
    fn add(&mut self, key: &str, shape: &[usize], scale: f32) {
        let seed = self.0.len() as u64;
        let count = shape.iter().product();
        let values = Generator::new(seed).normal(count).iter().map(|v| scale * v).collect();
        self.0.insert(key.to_owned(), (shape.to_vec(), values));
    }

    fn write(&self, path: PathBuf) -> PathBuf {
        let bytes =
            |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let all: Vec<_> =
            self.0.iter().map(|(k, (shape, v))| (k, shape.clone(), bytes(v))).collect();
        let views = all.iter().map(|(key, shape, bytes)| {
            (key, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap())
        });
        // As diffusers writes it; tensors of alpha outweigh it.
        let header =
            r#"{"transformer.lora_alpha": 6, "transformer.alpha_pattern": {"ffn.2": 2.5}}"#;
        let header = [("lora_adapter_metadata".to_owned(), header.to_owned())];
        std::fs::write(&path, safetensors::serialize(views, Some(header.into())).unwrap()).unwrap();
        path
    }
}

/// Changes of every kind, under names of several tools, for the tiny checkpoint of `fixtures/xs`.
fn adapter(folder: &Path) -> PathBuf {
    let mut adapter = Adapter(BTreeMap::new());
    let (dim, ffn) = (64, 128);
    for (module, up, down, outputs, inputs) in [
        ("lora_unet_blocks_0_self_attn_q", "lora_up.weight", "lora_down.weight", dim, dim),
        ("transformer.blocks.1.ffn.net.0.proj", "lora_B.weight", "lora_A.weight", ffn, dim),
        ("diffusion_model.blocks.0.ffn.2", "lora_up.weight", "lora_down.weight", dim, ffn),
        ("blocks.1.cross_attn.k", "lora_B.weight", "lora_A.weight", dim, dim),
    ] {
        adapter.add(&format!("{module}.{up}"), &[outputs, RANK], 0.3);
        adapter.add(&format!("{module}.{down}"), &[RANK, inputs], 0.1);
    }
    adapter.0.insert("lora_unet_blocks_0_self_attn_q.alpha".into(), (vec![], vec![8.0]));
    adapter.add("diffusion_model.blocks.0.self_attn.o.diff", &[dim, dim], 0.02);
    adapter.add("diffusion_model.blocks.1.self_attn.v.diff_b", &[dim], 0.1);
    adapter.add("diffusion_model.blocks.0.norm3.diff", &[dim], 0.1);
    adapter.add("diffusion_model.blocks.1.diff_m", &[1, 6, dim], 0.05);
    adapter.add("diffusion_model.patch_embedding.diff", &[dim, 16, 1, 2, 2], 0.05);
    adapter.write(folder.join("adapter.safetensors"))
}

fn request(loras: Vec<Lora>) -> Request {
    Request {
        prompt: "A cat and a dog.".into(),
        width: 64,
        height: 48,
        frames: 5,
        steps: 3,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 3.0,
        loras,
        ..Request::default()
    }
}

fn latents(folder: &ModelFolder, request: &Request) -> HostTensor {
    let machine = Machine::on(Device::cpu(), Precision::Strict, 1);
    let mut exec = machine.executor(machine.text).unwrap();
    let conditions = encode(&mut exec, folder, request, &mut Silent).unwrap();
    let experts = Experts::new(folder.transformer.clone(), folder.transformer_2.clone()).unwrap();
    let start = Checkpoint::start(request, folder.latent_grid().unwrap());
    experts
        .denoise(&mut exec, request, &conditions, start, &mut Silent, &mut |_, _| Ok(()))
        .unwrap()
}

/// The largest difference, relative to the largest value.
fn distance(a: &HostTensor, b: &HostTensor) -> f32 {
    let largest = b.data.iter().fold(0f32, |m, v| m.max(v.abs()));
    a.data.iter().zip(&*b.data).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max) / largest
}

#[test]
fn beside_the_weights_is_as_merged() {
    let folder = tempfile::tempdir().unwrap();
    let path = adapter(folder.path());
    let plain = converted(&fixture("xs"), &folder.path().join("plain"), "F32");
    let merged = |high: Vec<to_gguf::Lora>, low: Vec<to_gguf::Lora>, name: &str| {
        let output = folder.path().join(name);
        let job = to_gguf::Job {
            name: "test".into(),
            loras_high: high,
            loras_low: low,
            ..to_gguf::Job::new(fixture("xs"), &output, &["F32".parse().unwrap()])
        };
        to_gguf::convert(&job, &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{e:#}"));
        open_model(&output)
    };
    let theirs = |strength| vec![to_gguf::Lora { path: path.clone(), strength }];
    let ours = |strength, of| Lora { path: path.clone(), strength, of };

    let without = latents(&plain, &request(vec![]));
    let both = latents(&plain, &request(vec![ours(0.7, Of::All)]));
    let expected = latents(&merged(theirs(0.7), theirs(0.7), "both"), &request(vec![]));
    assert!(distance(&both, &expected) < 2e-5, "{}", distance(&both, &expected));
    assert!(distance(&both, &without) > 1e-2, "the adapter does something");

    // Of two kinds, one on each expert.
    let loras = vec![ours(1.0, Of::HighNoise), ours(-0.5, Of::LowNoise)];
    let each = latents(&plain, &request(loras));
    let expected = latents(&merged(theirs(1.0), theirs(-0.5), "each"), &request(vec![]));
    assert!(distance(&each, &expected) < 2e-5, "{}", distance(&each, &expected));
}

#[test]
fn quantized_weights_stay_as_they_are() {
    let folder = tempfile::tempdir().unwrap();
    let path = adapter(folder.path());
    let model = converted(&fixture("xs"), &folder.path().join("model"), "Q8_0");
    let request = request(vec![Lora { path, strength: 1.0, of: Of::All }]);
    let without = Request { loras: vec![], ..request.clone() };
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let weights = |request: &Request| {
        let plan = Plan::new(&machine, &model, request, None).unwrap();
        plan.experts.iter().map(|part| part.usage.weights).sum::<u64>()
    };
    // Both experts have all of it, in F32.
    let added = weights(&request) - weights(&without);
    let values = 2 * 4 * (RANK * (64 + 64) + 2 * RANK * (64 + 128) + RANK * (64 + 64) + 64 * 64);
    assert!(added as usize >= values && added < 2 * values as u64, "{added} bytes for {values}");
    assert!(distance(&latents(&model, &request), &latents(&model, &without)) > 1e-2);
}

#[test]
fn what_changes_nothing_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let model = converted(&fixture("xs"), &folder.path().join("model"), "F32");
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let refusal = |adapter: &Adapter| {
        let path = adapter.write(folder.path().join("bad.safetensors"));
        let request = request(vec![Lora { path, strength: 1.0, of: Of::All }]);
        let error = Plan::new(&machine, &model, &request, None).unwrap_err();
        format!("{:#}", anyhow::Error::from(error))
    };
    let mut adapter = Adapter(BTreeMap::new());
    adapter.add("double_blocks.0.img_attn.qkv.lora_A.weight", &[RANK, 64], 1.0);
    let said = refusal(&adapter);
    assert!(said.contains("1 of 1 keys change no tensor of this model: double_blocks.0"), "{said}");
    let mut adapter = Adapter(BTreeMap::new());
    adapter.add("blocks.0.self_attn.q.lora_A.weight", &[RANK, 32], 1.0);
    adapter.add("blocks.0.self_attn.q.lora_B.weight", &[64, RANK], 1.0);
    let said = refusal(&adapter);
    assert!(said.contains("do not make a 64 x 64 matrix"), "{said}");
    std::fs::write(folder.path().join("junk.safetensors"), b"junk").unwrap();
    let path = folder.path().join("junk.safetensors");
    let request = request(vec![Lora { path, strength: 1.0, of: Of::All }]);
    assert!(Plan::new(&machine, &model, &request, None).is_err());
}
