//! Writes docs/performance.md from two benchmarks' CSV files and a GPU's figures:
//! `performance TRANSFORMER.csv VAE.csv device/h200`. `script/performance` calls it. The rest it finds
//! out itself: what full-size models would take of Macs, by ggml's Metal encoder and the runtime's own
//! plan.

#[cfg(target_os = "macos")]
fn main() {}

#[cfg(not(target_os = "macos"))]
fn main() {
    page::main();
}

#[cfg(not(target_os = "macos"))]
mod page {
    use e2e::gate;
    use e2e::synthetic;
    use gguf::DType;
    use gguf_video::ggml::Precision;
    use gguf_video::pipeline::{Machine, Plan, Request, choose_device};
    use std::fmt::Write;
    use std::fs;
    use std::path::Path;

    const INTRODUCTION: &str = "\
# Performance

Made by `script/performance`; nothing here is typed by hand but the figures of other programs, which say so.

## On a CPU

A Wan 2.1 model of 1.3B parameters with random weights, two threads. Seconds of one forward pass (one step
without guidance; the fastest of three) beside what a run would have said before it began, and of decoding the clip.
";

    const PEER: &str = "
For comparison, stable-diffusion.cpp (97d29908) with the same shapes and two threads, on another day and a machine of
the same kind, so not a measurement of this page: 7.5 s a step with Q8_0, 4.2 s with Q4_K, 8.5 s with F16 and
19.7 s of decoding at 128x128x5; 30.5 s a step with Q8_0 and 130 s of decoding at 256x256x9.
";

    const GPU: &str = "
## On a GPU

Made by `tests/device/measure` (`tests/device/README.md`), all in one run. The model has the sizes of
Wan 2.2 A14B (one expert) and random weights. *Memory* is the most that the card lost to the program; for diffusers,
what PyTorch allocated. *Planned* is what a run says before it begins. *Ratio* compares the seconds with those of
diffusers in bf16, with the faster of its attention backends.
";

    const METAL: &str = "
## On Macs, estimated

No Mac was measured. ggml's own Metal encoder ran over the real graphs on Linux (`null-metal`), and each dispatch was
given a time from published peak rates: matrix products at 72 % of an M1 Max's 10.4 TFLOP/s and 60 % of an M5 Max's 60,
attention at 45 %, everything else at 70 % of the memory's bandwidth. The dispatches, their sizes and the memory are
facts; the seconds are guesses. *Forward*: one pass of one A14B expert; a guided step is two. *Decode*: the whole
clip. *Beside weights*: everything else that the part holds at its most, with the keys and values of two prompts.

| chip | part | dispatches | longest dispatch | longest graph | seconds | weights | beside weights |
|---|---|---|---|---|---|---|---|
";

    const PLAN: &str = "
## Memory of a run

What `gguf-video run` prints before it begins, for Wan 2.2 T2V A14B on an M1 Max with 64 GB, of which Metal
recommends to use 51.5: 81 frames, 40 steps, guidance. The prompt's encoder has the experts' type. (Weights + everything else.)
";

    #[expect(clippy::print_stdout, reason = "the page")]
    pub(super) fn main() {
        let arguments: Vec<String> = std::env::args().skip(1).collect();
        let [transformer, vae, device] = arguments.as_slice() else {
            panic!("performance TRANSFORMER.csv VAE.csv DEVICE")
        };
        let mut page = INTRODUCTION.to_owned();
        for csv in [transformer, vae] {
            table(&mut page, &fs::read_to_string(csv).unwrap());
        }
        page += PEER;
        page += GPU;
        gpu(&mut page, Path::new(device));
        page += METAL;
        estimates(&mut page);
        page += PLAN;
        plans(&mut page);
        println!("{}", page.trim_end());
    }

    fn table(page: &mut String, csv: &str) {
        let mut lines = csv.lines().map(|line| line.replace(',', " | "));
        let head = lines.next().unwrap().replace('_', " ");
        let rule = "|---".repeat(head.split('|').count());
        writeln!(page, "\n| {head} |\n{rule}|").unwrap();
        lines.for_each(|line| writeln!(page, "| {line} |").unwrap());
    }

    /// Lines of a CSV file without its head and comments, cell by cell.
    fn cells(path: &Path) -> Vec<Vec<String>> {
        let text = fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        let lines = text.lines().filter(|line| !line.starts_with('#')).skip(1);
        lines.map(|line| line.split(',').map(str::to_owned).collect()).collect()
    }

    fn gpu(page: &mut String, folder: &Path) {
        let reference = cells(&folder.join("diffusers.csv"));
        let device = fs::read_to_string(folder.join("diffusers.csv")).unwrap();
        let device = device.lines().next().unwrap().trim_start_matches("# ");
        writeln!(page, "\nThe card and the reference: {device}.\n").unwrap();
        *page +=
            "| part | clip | program, weights | seconds | ratio | planned | memory | planned |\n";
        *page += "|---|---|---|---|---|---|---|---|\n";
        let best = |part: &str, clip: &str| {
            let rows = reference.iter().filter(|r| r[0].starts_with(part) && r[1] == clip);
            rows.map(|r| r[3].parse::<f64>().unwrap()).min_by(f64::total_cmp)
        };
        let ratio = |part, clip: &str, seconds: &str| {
            let seconds: f64 = seconds.parse().unwrap();
            best(part, clip).map_or_else(String::new, |best| format!("{:.2}", seconds / best))
        };
        for row in &reference {
            let [part, clip, weights, seconds, memory] = row.as_slice() else { panic!("{row:?}") };
            writeln!(
                page,
                "| {part} | {clip} | diffusers, {weights} | {seconds} | | | {memory} GB | |"
            )
            .unwrap();
        }
        for row in cells(&folder.join("forward.csv")) {
            let [clip, dtype, _, _, _, seconds, planned, memory, room] = row.as_slice() else {
                panic!("{row:?}")
            };
            let ratio = ratio("forward", clip, seconds);
            writeln!(
                page,
                "| forward | {clip} | gguf-video, {dtype} | {seconds} | {ratio} | {planned} | {memory} GB | {room} GB |"
            )
            .unwrap();
        }
        for row in cells(&folder.join("steps.csv")) {
            let [clip, dtype, .., seconds] = row.as_slice() else { panic!("{row:?}") };
            writeln!(page, "| guided step | {clip} | gguf-video, {dtype} | {seconds} | | | | |")
                .unwrap();
        }
        for row in cells(&folder.join("decode.csv")) {
            let [clip, _, _, seconds, _, memory] = row.as_slice() else { panic!("{row:?}") };
            let ratio = ratio("decode", clip, seconds);
            writeln!(
                page,
                "| decode | {clip} | gguf-video, F16 | {seconds} | {ratio} | | {memory} GB | |"
            )
            .unwrap();
        }
        *page += "\nWhere the GPU's time of two guided steps at 832x480x81 with Q8_0 goes, the loading of kernels included:\n\n```\n";
        *page += &fs::read_to_string(folder.join("profile.txt")).unwrap();
        *page += "```\n\nHow far two blocks at 832x480x1 are from the CPU's F32:\n";
        table(page, &fs::read_to_string(folder.join("errors.csv")).unwrap());
    }

    fn estimates(page: &mut String) {
        let gate = std::env::current_exe().unwrap().with_file_name("metal-gate");
        for (chip, name) in [("m1-max", "M1 Max"), ("m5-max", "M5 Max")] {
            for (case, part) in [
                ("t2v-a14b:832x480x81:Q8_0", "forward, 832x480x81, Q8_0"),
                ("t2v-a14b:1280x720x81:Q8_0", "forward, 1280x720x81, Q8_0"),
                ("t2v-a14b:1280x720x121:Q4_K", "forward, 1280x720x121, Q4_K"),
                ("vae:832x480x81", "decode, 832x480x81"),
                ("vae:1280x720x81", "decode, 1280x720x81"),
                ("umt5:Q8_0", "prompt of 512 tokens, Q8_0"),
            ] {
                let seen = gate::run(&gate, chip, case).unwrap();
                let report = seen.report;
                assert!(report.violations.is_empty(), "{chip}, {case}: {:?}", report.violations);
                let (dispatch, graph) =
                    (report.longest_dispatch.seconds, report.longest_graph.seconds);
                let gb = |bytes: u64| bytes as f64 / 1e9;
                let (weights, working) = (gb(seen.weights), gb(seen.working));
                let (dispatches, seconds) = (report.dispatches, seen.seconds);
                writeln!(
                    page,
                    "| {name} | {part} | {dispatches} | {dispatch:.2} s | {graph:.2} s | {seconds:.1} | {weights:.1} GB | {working:.1} GB |"
                )
                .unwrap();
            }
        }
        *page += "\nOf a clip's decoding, the dispatches are those of its first five frames, which hold every graph that there is.\n";
    }

    fn plans(page: &mut String) {
        null_metal::register(null_metal::M1_MAX);
        let machine = Machine::on(choose_device("metal").unwrap(), Precision::Native, 1);
        for (quant, dtype) in [("Q4_K", DType::Q4_K), ("Q8_0", DType::Q8_0)] {
            let folder = tempfile::tempdir().unwrap();
            let model = synthetic::a14b(folder.path(), dtype, dtype);
            for (width, height) in [(832, 480), (1280, 720)] {
                let plan = Plan::new(&machine, &model, &request(width, height), None).unwrap();
                writeln!(page, "\n{quant}, {width}x{height}:\n\n```\n{plan}\n```").unwrap();
            }
        }
    }

    fn request(width: usize, height: usize) -> Request {
        Request {
            prompt: String::new(),
            negative_prompt: String::new(),
            width,
            height,
            frames: 81,
            steps: 40,
            guidance_scale: 4.0,
            guidance_scale_low: 3.0,
            flow_shift: 12.0,
            seed: 0,
            ..Request::default()
        }
    }
}
