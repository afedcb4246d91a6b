//! The judge on a part of its calibration set: no false success, no false alarm.

use e2e::clips::demo::{self, Demo, Order};
use e2e::clips::table::Table;
use e2e::clips::{Class, Clip, drawn};
use e2e::{converted, repository};
use std::rc::Rc;

/// Every clip is judged rightly, and there are as many of each class as there should be.
#[track_caller]
fn check(table: &Table, [good, doubtful, bad]: [usize; 3]) {
    assert!(table.errors().is_empty(), "{:#?}", table.errors());
    let count = |class| table.counts(class)[0];
    assert_eq!([Class::Good, Class::Doubtful, Class::Bad].map(count), [good, doubtful, bad]);
}

#[test]
fn drawn_clips_are_judged_rightly() {
    let mut table = Table::default();
    let shapes = [((128, 128), 33, false), ((128, 128), 1, false), ((144, 128), 5, true)];
    for (size, frames, compressed) in shapes {
        for clip in drawn(size, frames, 1) {
            let clip = if compressed { clip.compressed() } else { clip };
            table.add(&clip, &clip.judge());
        }
    }
    check(&table, [124, 5, 99]);
}

/// What a picture's size is needed for is only reported there; white noise is known at any size.
#[test]
fn small_clips_fail_by_noise_alone() {
    let clips = drawn((64, 64), 33, 1);
    let failed = |clip: &Clip| !clip.judge().passed();
    for clip in clips.iter().filter(|clip| clip.class == Class::Good) {
        assert!(!failed(clip), "{} failed", clip.name);
    }
    let noise = clips.iter().filter(|clip| clip.name.contains("white noise"));
    assert!(noise.clone().count() > 0 && noise.clone().all(failed), "white noise passed");
}

#[test]
fn the_demos_clips_are_judged_rightly() {
    let folder = tempfile::tempdir().unwrap();
    let model = converted(&repository("demo/checkpoint"), folder.path(), "Q8_0");
    let demo = Rc::new(Demo::new(model, 1));
    let (prompt, seed) = demo::PROMPTS[0];
    let order = Order { prompt, side: 128, frames: 5, steps: 20, seed };
    let mut table = Table::default();
    let noise = demo::decoded_noise(&demo, (128, 128), 1, 1);
    let clips = [demo::finished(&demo, "Q8_0", order), noise];
    // The script looks at every step.
    for clip in clips.into_iter().chain(demo::undecided(&demo, order).into_iter().step_by(3)) {
        table.add(&clip, &clip.judge());
    }
    check(&table, [1, 0, 5]);
}
