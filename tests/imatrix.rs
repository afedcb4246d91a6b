//! Importance matrices: what the runtime gathers is what the matrices were multiplied with, and the
//! converter takes it.

use e2e::{Taps, converted, repository};
use gguf::File;
use gguf_video::ggml::{Device, Precision};
use gguf_video::pipeline::{Checkpoint, Collector, Experts, Machine, Request, Silent, encode};
use std::collections::BTreeMap;
use std::path::Path;

fn request() -> Request {
    Request {
        prompt: "a big red ball moving right on a black background".into(),
        width: 64,
        height: 64,
        frames: 5,
        steps: 3,
        guidance_scale: 4.0,
        guidance_scale_low: 4.0,
        flow_shift: 3.0,
        ..Request::default()
    }
}

fn values(file: &File, name: &str) -> Vec<f32> {
    let tensor = file.tensor(name).unwrap_or_else(|| panic!("no {name}"));
    file.data(tensor).chunks_exact(4).map(|b| f32::from_le_bytes(b.try_into().unwrap())).collect()
}

/// `blocks.N.ffn.0` is multiplied with what the tap `blocks.N.norm2` shows.
#[test]
fn sums_are_those_of_the_activations() {
    let folder = tempfile::tempdir().unwrap();
    let model = converted(&repository("demo/checkpoint"), folder.path(), "F32");
    let machine = Machine::on(Device::cpu(), Precision::Native, 1);
    let request = request();
    let mut exec = machine.executor(machine.text).unwrap();
    let conditions = encode(&mut exec, &model, &request, &mut Silent).unwrap();

    let mut collector = Collector::default();
    collector.clip(&machine, &model, &request, &conditions, &mut Silent).unwrap();
    let written = collector.write(&folder.path().join("demo.gguf"), true, "one prompt").unwrap();
    let names: Vec<_> = written.iter().map(|p| p.file_name().unwrap().to_str().unwrap()).collect();
    assert_eq!(names, ["demo-HighNoise.gguf", "demo-LowNoise.gguf"]);

    // The same run once more, with all taps.
    let experts = Experts::new(model.transformer.clone(), model.transformer_2.clone()).unwrap();
    let taps = Taps::default();
    let mut exec = machine.executor(machine.transformer).unwrap();
    exec.observe(taps.observer());
    let start = Checkpoint::start(&request, model.latent_grid().unwrap());
    let schedule = request.schedule().unwrap();
    let mut seen: [BTreeMap<String, (f64, Vec<f64>)>; 2] = Default::default();
    experts
        .denoise(&mut exec, &request, &conditions, start, &mut Silent, &mut |step, _| {
            // The boundary of the demo's experts.
            let own = usize::from(schedule.timesteps[step.index] < 875.0);
            for (name, value) in taps.take() {
                let Some(block) = name.strip_suffix(".norm2") else { continue };
                let [rows, channels] = value.shape.dims();
                let entry = seen[own].entry(format!("{block}.ffn.0.weight")).or_default();
                entry.0 += rows as f64;
                entry.1.resize(channels as usize, 0.0);
                for (i, v) in value.data.iter().enumerate() {
                    entry.1[i % channels as usize] += f64::from(*v) * f64::from(*v);
                }
            }
            Ok(())
        })
        .unwrap();

    for (path, seen) in written.iter().zip(&seen) {
        let file = File::open(path).unwrap();
        assert!(!seen.is_empty());
        for (name, (rows, squares)) in seen {
            assert_eq!(values(&file, &format!("{name}.counts")), [*rows as f32], "{name}");
            let got = values(&file, &format!("{name}.in_sum2"));
            assert_eq!(got.len(), squares.len());
            for (got, expected) in got.iter().zip(squares) {
                let off = (f64::from(*got) - expected).abs();
                assert!(off <= 1e-4 * expected.max(1e-6), "{name}: {got} instead of {expected}");
            }
        }
        // Every matrix of the blocks was used.
        let high = &model.transformer;
        for tensor in
            high.tensors().iter().filter(|t| t.name.starts_with("blocks.") && t.shape.len() == 2)
        {
            assert!(file.tensor(&format!("{}.in_sum2", tensor.name)).is_some(), "{}", tensor.name);
        }
    }
    taken(&written[0], &written[1]);
}

/// The converter's files say which matrix weighed their errors.
fn taken(high: &Path, low: &Path) {
    let output = tempfile::tempdir().unwrap();
    let quants = ["Q4_K".parse().unwrap()];
    let job = to_gguf::Job {
        name: "test".into(),
        imatrix_high: Some(high.to_owned()),
        imatrix_low: Some(low.to_owned()),
        ..to_gguf::Job::new(repository("demo/checkpoint"), output.path(), &quants)
    };
    to_gguf::convert(&job, &mut to_gguf::Silent).unwrap_or_else(|e| panic!("{e:#}"));
    let file = File::open(output.path().join("LowNoise/test-LowNoise-Q4_K.gguf")).unwrap();
    let metadata = file.metadata();
    assert_eq!(metadata.string("quantize.imatrix.file").unwrap(), "demo-LowNoise.gguf");
    assert_eq!(metadata.string("quantize.imatrix.dataset").unwrap(), "one prompt");
    assert_eq!(metadata.u32("quantize.imatrix.chunks_count").unwrap(), 1);
}
