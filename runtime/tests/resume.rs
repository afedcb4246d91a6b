//! Runs that are killed, and go on: whatever the moment, the video is the one of an undisturbed run,
//! bit for bit.
//!
//! Long, because each way that a run ends, or that its folder is spoiled, begins with the same run.

mod support;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::LazyLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

const STEPS: usize = 6;
/// Kills at random times.
const KILLS: usize = 44;

/// The demo model, made once for all tests.
static MODEL: LazyLock<TempDir> = LazyLock::new(support::demo);

/// A folder for one test: its home, its outputs.
struct Place(TempDir);

impl Place {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_gguf-video"));
        command.args(arguments).env("GGUF_VIDEO_HOME", self.path("home"));
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    /// A run of the demo into `output`, kept in `run`.
    fn run(&self, output: &str, run: &str) -> Command {
        self.run_with(MODEL.path(), output, run)
    }

    /// With another copy of the model. Prompt and seed make a clip that passes the judge.
    fn run_with(&self, model: &Path, output: &str, run: &str) -> Command {
        let mut command =
            self.command(&["run", "--threads", "1", "--preview", "none", "--no-preflight"]);
        command.args(["--prompt", "a big red ball moving right on a black background"]);
        command.args(["--size", "64x64", "--frames", "5", "--seed", "3"]);
        command.args(["--steps", &STEPS.to_string(), "--model"]).arg(model);
        command.arg("-o").arg(self.path(output)).arg("--run-folder").arg(self.path(run));
        command
    }

    /// `command` in a shell where no file may grow beyond a limit.
    fn limited(&self, kilobytes: u32, command: Command) -> Command {
        let mut shell = Command::new("bash");
        shell.args(["-c", &format!("trap '' XFSZ; ulimit -f {kilobytes}; exec \"$0\" \"$@\"")]);
        shell.arg(command.get_program()).args(command.get_args());
        shell.env("GGUF_VIDEO_HOME", self.path("home"));
        shell
    }

    fn resume(&self, run: &str) -> Command {
        let mut command = self.command(&["resume", "--preview", "none"]);
        command.arg(self.path(run));
        command
    }

    fn bytes(&self, name: &str) -> Vec<u8> {
        fs::read(self.path(name)).unwrap_or_else(|e| panic!("{name}: {e}"))
    }
}

fn output(mut command: Command) -> Output {
    command.stderr(Stdio::piped()).stdout(Stdio::piped()).output().unwrap()
}

#[track_caller]
fn succeeds(command: Command) -> String {
    let Output { status, stderr, .. } = output(command);
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {said}");
    said
}

/// Steps that are logged in the folder of a run.
fn logged(run: &Path) -> usize {
    fs::read_to_string(run.join("steps.jsonl")).unwrap_or_default().lines().count()
}

fn sigkill(child: &mut Child) {
    // It may have ended meanwhile.
    let _ = child.kill();
    child.wait().unwrap();
}

/// Waits for `happened`, or the end of the process.
fn wait(child: &mut Child, happened: impl Fn() -> bool) {
    let begin = Instant::now();
    while !happened() && child.try_wait().unwrap().is_none() {
        assert!(begin.elapsed() < Duration::from_secs(120), "nothing happens");
        std::thread::sleep(Duration::from_micros(200));
    }
}

#[test]
fn killed_after_every_step_and_at_any_time_it_makes_the_same_video() {
    let place = Place::new();
    let begin = Instant::now();
    succeeds(place.run("whole.y4m", "whole"));
    // Warm: the second run knows the device and the files.
    let begin = (begin, Instant::now());
    succeeds(place.run("again.y4m", "again"));
    let whole = begin.1.elapsed();
    let expected = place.bytes("whole.y4m");
    assert_eq!(place.bytes("again.y4m"), expected);

    // At each boundary between two steps.
    let run = place.path("steps");
    let mut child = place.run("steps.y4m", "steps").spawn().unwrap();
    for step in 1..=STEPS {
        wait(&mut child, || logged(&run) >= step);
        sigkill(&mut child);
        // After the last step only the decoding is left, which may have been faster than the kill.
        let whole = place.path("steps.y4m").exists();
        assert!(!whole || step == STEPS, "killed too late to test anything");
        child = place.resume("steps").spawn().unwrap();
    }
    assert!(child.wait().unwrap().success());
    assert_eq!(place.bytes("steps.y4m"), expected);
    assert!(logged(&run) <= 2 * STEPS, "a kill loses one step at most");

    // At random moments.
    let mut state = 7u64;
    let mut random = || {
        state =
            state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (state >> 33) as f64 / (1u64 << 31) as f64
    };
    let (mut kills, mut round) = (0, 0);
    while kills < KILLS {
        round += 1;
        let (video, run) = (format!("random{round}.y4m"), format!("random{round}"));
        let mut child = place.run(&video, &run).spawn().unwrap();
        loop {
            std::thread::sleep(whole.mul_f64(random()));
            if child.try_wait().unwrap().is_some_and(|status| status.success()) {
                break;
            }
            sigkill(&mut child);
            kills += 1;
            // Killed before there was anything to go on with, it begins again.
            let begun = place.path(&run).join("run.json").exists();
            let mut next = if begun { place.resume(&run) } else { place.run(&video, &run) };
            child = next.spawn().unwrap();
        }
        assert_eq!(place.bytes(&video), expected, "after {kills} kills");
    }
}

#[test]
fn an_interrupted_run_says_how_to_go_on() {
    let place = Place::new();
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let (video, run) = (format!("{signal}.y4m"), format!("{signal}"));
        let mut command = place.run(&video, &run);
        let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
        wait(&mut child, || logged(&place.path(&run)) >= 2);
        kill(Pid::from_raw(child.id() as i32), signal).unwrap();
        let Output { status, stderr, .. } = child.wait_with_output().unwrap();
        let said = String::from_utf8(stderr).unwrap();
        assert_eq!(status.code(), Some(130), "{status}: {said}");
        assert!(said.contains("gguf-video resume"), "{said}");
        assert!(!place.path(&video).exists());
        assert!(!place.path(&format!("{video}.part")).exists());
        succeeds(place.resume(&run));
        assert!(place.path(&video).exists());
    }
}

#[test]
fn a_run_belongs_to_one_process_and_its_folder_to_one_run() {
    let place = Place::new();
    let mut child = place.run("a.y4m", "run").spawn().unwrap();
    wait(&mut child, || logged(&place.path("run")) >= 1);
    kill(Pid::from_raw(child.id() as i32), Signal::SIGSTOP).unwrap();
    let second = output(place.resume("run"));
    kill(Pid::from_raw(child.id() as i32), Signal::SIGCONT).unwrap();
    assert_eq!(second.status.code(), Some(2));
    let said = String::from_utf8(second.stderr).unwrap();
    assert!(said.contains("another process"), "{said}");
    assert!(child.wait().unwrap().success());

    let again = output(place.run("b.y4m", "run"));
    assert_eq!(again.status.code(), Some(2));
    let said = String::from_utf8(again.stderr).unwrap();
    assert!(said.contains("holds a run already"), "{said}");
    let nothing = output(place.resume("nowhere"));
    assert_eq!(nothing.status.code(), Some(2));
    assert!(String::from_utf8(nothing.stderr).unwrap().contains("holds no run"));
}

#[test]
fn a_changed_model_is_refused() {
    let place = Place::new();
    let model = place.path("model");
    copy_folder(MODEL.path(), &model);
    let mut child = place.run_with(&model, "a.y4m", "run").spawn().unwrap();
    wait(&mut child, || logged(&place.path("run")) >= 2);
    sigkill(&mut child);

    // One bit, in the middle of the low-noise expert's weights.
    let low = fs::read_dir(model.join("LowNoise")).unwrap().next().unwrap().unwrap().path();
    let mut bytes = fs::read(&low).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&low, &bytes).unwrap();
    let refused = output(place.resume("run"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("LowNoise") && said.contains("Put the old file back"), "{said}");
    bytes[middle] ^= 1;
    fs::write(&low, &bytes).unwrap();
    succeeds(place.resume("run"));
}

/// The pages of a file that is cut short are gone from memory, too.
#[test]
fn a_model_that_is_cut_short_while_it_runs_is_told() {
    let place = Place::new();
    let model = place.path("model");
    copy_folder(MODEL.path(), &model);
    let mut command = place.command(&["run", "--threads", "1", "--preview", "none"]);
    command.args(["--prompt", "a ball", "--size", "64x64", "--frames", "5", "--steps", "200"]);
    command.args(["--no-preflight", "--model"]).arg(&model).arg("-o").arg(place.path("a.y4m"));
    command.arg("--run-folder").arg(place.path("run")).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    wait(&mut child, || logged(&place.path("run")) >= 2);
    for expert in ["HighNoise", "LowNoise"] {
        let file = fs::read_dir(model.join(expert)).unwrap().next().unwrap().unwrap().path();
        fs::OpenOptions::new().write(true).open(&file).unwrap().set_len(4096).unwrap();
    }
    let Output { status, stderr, .. } = child.wait_with_output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert_eq!(status.code(), Some(1), "{status}: {said}");
    assert!(said.contains("cut short") && said.contains("resume"), "{said}");
    let resumed = output(place.resume("run"));
    assert_eq!(resumed.status.code(), Some(2));
}

/// Deleted or replaced by another file of its name, it stays what it was for those who have it.
#[test]
fn a_model_that_is_deleted_while_it_runs_is_used_to_the_end() {
    let place = Place::new();
    let model = place.path("model");
    copy_folder(MODEL.path(), &model);
    let mut child = place.run_with(&model, "a.y4m", "run").spawn().unwrap();
    wait(&mut child, || logged(&place.path("run")) >= 1);
    fs::remove_dir_all(&model).unwrap();
    assert!(child.wait().unwrap().success());
    assert!(place.path("a.y4m").exists());
}

#[test]
fn a_folder_that_takes_no_files_is_named() {
    let place = Place::new();
    fs::write(place.path("file"), "").unwrap();
    let refused = output(place.run("a.y4m", "file/run"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("file/run"), "{said}");
    let refused = output(place.run("file/a.y4m", "run"));
    let said = String::from_utf8(refused.stderr).unwrap();
    assert_eq!(refused.status.code(), Some(2), "{said}");
    assert!(said.contains("file/a.y4m"), "{said}");
}

fn copy_folder(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let (path, name) = entry.map(|e| (e.path(), e.file_name())).unwrap();
        if path.is_dir() {
            copy_folder(&path, &to.join(name));
        } else {
            fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// A disk that takes no more: files of this process can't grow beyond a limit.
#[test]
fn a_full_disk_loses_nothing_that_was_kept() {
    let place = Place::new();
    succeeds(place.run("whole.y4m", "whole"));
    let limited = |kilobytes: u32, command: Command| output(place.limited(kilobytes, command));
    let state = place.path("whole/state.safetensors").metadata().unwrap().len();
    let video = place.path("whole.y4m").metadata().unwrap().len();
    let limit = (video / 1024).saturating_sub(2) as u32;
    let failed = limited(limit, place.run("full.y4m", "full"));
    let said = String::from_utf8(failed.stderr).unwrap();
    assert_eq!(
        failed.status.code(),
        Some(1),
        "{:?} {state} {video}: {said}",
        failed.status.signal()
    );
    assert!(said.contains("full.y4m") && said.contains("full"), "{said}");
    assert!(!place.path("full.y4m").exists() && !place.path("full.y4m.part").exists());
    succeeds(place.resume("full"));
    assert_eq!(place.bytes("full.y4m"), place.bytes("whole.y4m"));
}

/// A step that can't be kept is no reason to end a run that is whole.
#[test]
fn a_disk_too_full_for_steps_is_a_warning() {
    let place = Place::new();
    // Images are small; the state of a step isn't.
    succeeds(place.run("whole/", "whole.run"));
    let state = place.path("whole.run/state.safetensors").metadata().unwrap().len();
    let limit = (state / 1024).saturating_sub(1) as u32;
    let mut command = place.limited(limit, place.run("images/", "run"));
    let Output { status, stderr, .. } =
        command.stderr(Stdio::piped()).stdout(Stdio::null()).output().unwrap();
    let said = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "{status}: {said}");
    assert!(said.contains("step 1 isn't saved"), "{said}");
    let [images, whole] =
        ["images", "whole"].map(|folder| place.bytes(&format!("{folder}/00004.png")));
    assert_eq!(images, whole);
}

/// The files of a run with `changes` to it, which `resume` refuses without computing anything.
#[track_caller]
fn refused(place: &Place, name: &str, change: impl FnOnce(&Path), expected: &str) {
    let run = place.path(name);
    copy_folder(&place.path("run"), &run);
    fs::remove_file(run.join("state.safetensors")).unwrap();
    change(&run);
    let Output { status, stderr, .. } = output(place.resume(name));
    let said = String::from_utf8(stderr).unwrap();
    assert!(matches!(status.code(), Some(1 | 2)), "{name}: {status}: {said}");
    assert!(said.contains(expected), "{name}: {said}");
    assert!(!said.contains("panicked") && !said.contains('\u{1b}'), "{name}: {said:?}");
}

/// A run's folder may come from somebody else.
#[test]
fn a_run_folder_that_lies_is_refused() {
    let place = Place::new();
    succeeds(place.run("a.y4m", "run"));
    let edit = |key: [&'static str; 2], value: serde_json::Value| {
        move |run: &Path| {
            let path = run.join("run.json");
            let mut record: serde_json::Value =
                serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
            record[key[0]][key[1]] = value;
            fs::write(path, record.to_string()).unwrap();
        }
    };
    refused(&place, "frames", edit(["request", "frames"], 0.into()), "0 frames can't be made");
    let many = 10_000_000_000u64.into();
    refused(&place, "steps", edit(["request", "steps"], many), "from 1 to 1000");
    let shift = 1e300.into();
    refused(&place, "shift", edit(["request", "flow_shift"], shift), "the flow shift is");
    for threads in [0, 1_000_000] {
        let change = edit(["machine", "threads"], threads.into());
        refused(&place, &format!("threads{threads}"), change, "not 1 to 512");
    }
    let device = edit(["machine", "vae"], "\u{1b}[2J".into());
    refused(&place, "device", device, "no device `\\u{1b}[2J`");
    fs::write(place.path("precious"), "precious").unwrap();
    let sheet = place.path("precious").to_str().unwrap().into();
    refused(&place, "sheet", edit(["output", "contact_sheet"], sheet), "whose name ends in .png");

    let conditions = |name: &str, shape: [usize; 4]| {
        let kept = fs::read(place.path("run/conditions.safetensors")).unwrap();
        let kept = SafeTensors::deserialize(&kept).unwrap();
        let zeros = vec![0; 4 * shape.iter().product::<usize>()];
        let mut all = kept.tensors();
        all.retain(|(known, _)| known != name);
        let view = TensorView::new(Dtype::F32, shape.to_vec(), &zeros).unwrap();
        all.push((name.to_owned(), view));
        safetensors::serialize(all, None).unwrap()
    };
    for (what, shape) in [
        ("positive", [1, 1, 8, 128]),
        ("positive", [1, 1, 0, 256]),
        ("positive", [1, 1, 513, 256]),
        ("positive", [2, 3, 4, 256]),
        ("negative", [1, 1, 8, 128]),
        ("image_features", [1, 1, 257, 1280]),
        ("image_channels", [20, 2, 8, 8]),
        ("first_frame", [1, 1, 4, 4]),
    ] {
        let file = conditions(what, shape);
        let name = format!("{what}{shape:?}");
        let change = |run: &Path| fs::write(run.join("conditions.safetensors"), file).unwrap();
        refused(&place, &name, change, &format!("the saved `{what}`"));
    }
    assert_eq!(place.bytes("precious"), b"precious");
}

/// What is kept of a run stays in its folder.
#[test]
fn links_in_a_run_folder_are_not_followed() {
    let place = Place::new();
    succeeds(place.run("a.y4m", "run"));
    let precious = place.path("precious");
    for name in ["steps.jsonl", "state.safetensors.part"] {
        fs::write(&precious, "precious").unwrap();
        let run = place.path(name);
        copy_folder(&place.path("run"), &run);
        for old in ["state.safetensors", "steps.jsonl"] {
            fs::remove_file(run.join(old)).unwrap();
        }
        std::os::unix::fs::symlink(&precious, run.join(name)).unwrap();
        // The video is whole all the same.
        assert!(succeeds(place.resume(name)).contains("warning"));
        assert_eq!(fs::read(&precious).unwrap(), b"precious", "{name}");
    }
}

#[test]
fn pipes_in_a_run_folder_are_not_waited_for() {
    let place = Place::new();
    succeeds(place.run("a.y4m", "run"));
    for name in ["run.json", "conditions.safetensors", "state.safetensors", "lock"] {
        let run = place.path(name);
        copy_folder(&place.path("run"), &run);
        for old in [name, "state.safetensors"] {
            let _ = fs::remove_file(run.join(old));
        }
        assert!(Command::new("mkfifo").arg(run.join(name)).status().unwrap().success());
        let mut child = place.resume(name).spawn().unwrap();
        wait(&mut child, || false);
        assert!(!child.wait().unwrap().success(), "{name}");
    }
}

#[test]
fn how_often_decoding_failed_has_an_end() {
    let place = Place::new();
    succeeds(place.run("a.y4m", "run"));
    fs::write(place.path("run/decode.json"), u32::MAX.to_string()).unwrap();
    succeeds(place.resume("run"));
}

#[test]
fn runs_are_listed_and_cleaned() {
    let place = Place::new();
    let mut command = place.run("a.y4m", "unused");
    // Into the home folder: without the last two arguments.
    let arguments: Vec<_> = command.get_args().map(|a| a.to_owned()).collect();
    command = place.command(&[]);
    command.args(&arguments[..arguments.len() - 2]);
    succeeds(command);
    let listed = output(place.command(&["runs", "--json"]));
    let listed: serde_json::Value = serde_json::from_slice(&listed.stdout).unwrap();
    assert_eq!(listed.as_array().unwrap().len(), 1);
    assert_eq!(listed[0]["state"], "finished");
    assert_eq!((&listed[0]["step"], &listed[0]["steps"]), (&STEPS.into(), &STEPS.into()));
    let cleaned = output(place.command(&["runs", "clean", "--older-than", "1"]));
    assert!(String::from_utf8(cleaned.stdout).unwrap().contains("removed 0 of 1"));
    // Begun in the future, by a clock that has jumped back since.
    let record = PathBuf::from(listed[0]["path"].as_str().unwrap()).join("run.json");
    let mut json: serde_json::Value = serde_json::from_slice(&fs::read(&record).unwrap()).unwrap();
    json["created"] = 99_999_999_999u64.into();
    fs::write(&record, json.to_string()).unwrap();
    let cleaned = output(place.command(&["runs", "clean", "--older-than", "1"]));
    assert!(String::from_utf8(cleaned.stdout).unwrap().contains("removed 0 of 1"));
    let cleaned = output(place.command(&["runs", "clean"]));
    assert!(String::from_utf8(cleaned.stdout).unwrap().contains("removed 1 of 1"));
    assert!(place.path("a.y4m").exists(), "videos stay");
}
