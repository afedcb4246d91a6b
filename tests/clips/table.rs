//! What the judge said about the calibration set, and how near the thresholds are to its clips.

use super::{Class, Clip};
use gguf_video::judge::{CLIP_RULES, Condition, FRAME_RULES, Measured, Rule, Verdict};
use std::collections::BTreeMap;
use std::fmt::Write;

/// A value and the clip that has it.
type Nearest = Option<(f64, String)>;

#[derive(Default)]
struct Row {
    passed: usize,
    warned: usize,
    failed: usize,
    kinds: BTreeMap<&'static str, usize>,
}

#[derive(Default)]
pub struct Table {
    rows: BTreeMap<(Class, String), Row>,
    errors: Vec<String>,
    /// By rule and condition: the bad clip that is caught most narrowly, and the good one that only
    /// this condition lets pass, most narrowly.
    margins: BTreeMap<(usize, usize), [Nearest; 2]>,
}

impl Table {
    pub fn add(&mut self, clip: &Clip, verdict: &Verdict) {
        let family = clip.name.split(", ").next().expect("a name").to_owned();
        let row = self.rows.entry((clip.class, family)).or_default();
        let outcome = match verdict.name() {
            "passed" => Class::Good,
            "failed" => Class::Bad,
            _ => Class::Doubtful,
        };
        match outcome {
            Class::Good => row.passed += 1,
            Class::Doubtful => row.warned += 1,
            Class::Bad => row.failed += 1,
        }
        for finding in &verdict.findings {
            *row.kinds.entry(finding.kind.name()).or_default() += 1;
        }
        if outcome != clip.class {
            let found: Vec<String> = verdict.findings.iter().map(ToString::to_string).collect();
            let class = clip.class;
            let (name, said) = (&clip.name, verdict.name());
            self.errors.push(format!("{class:?}: {name}: {said} {}", found.join("; ")));
        }
        for (number, rule) in FRAME_RULES.iter().chain(CLIP_RULES).enumerate() {
            let of_frames = number < FRAME_RULES.len();
            let seen =
                if of_frames { &verdict.judged } else { std::slice::from_ref(&verdict.clip) };
            seen.iter().for_each(|measured| self.measure(clip, (number, rule), measured));
        }
    }

    /// Both together.
    pub fn merge(&mut self, other: Self) {
        for (key, more) in other.rows {
            let row = self.rows.entry(key).or_default();
            row.passed += more.passed;
            row.warned += more.warned;
            row.failed += more.failed;
            more.kinds.into_iter().for_each(|(kind, n)| *row.kinds.entry(kind).or_default() += n);
        }
        self.errors.extend(other.errors);
        let rules: Vec<&Rule> = FRAME_RULES.iter().chain(CLIP_RULES).collect();
        for ((rule, index), sides) in other.margins {
            let threshold = rules[rule].all[index].threshold;
            let mine = self.margins.entry((rule, index)).or_default();
            for (nearest, theirs) in mine.iter_mut().zip(sides) {
                if let Some((value, name)) = theirs {
                    keep_nearest(nearest, threshold, value, &name);
                }
            }
        }
    }

    fn measure(&mut self, clip: &Clip, (number, rule): (usize, &Rule), measured: &Measured) {
        for (index, condition) in rule.all.iter().enumerate() {
            let others = rule.all.iter().enumerate().filter(|(i, _)| *i != index);
            if !others.map(|(_, c)| c).all(|c| c.holds(measured)) {
                continue;
            }
            let Some(value) = measured.get(condition.metric) else { continue };
            let side = match (clip.class, condition.holds(measured)) {
                (Class::Good, false) => 1,
                (Class::Bad | Class::Doubtful, true) => 0,
                _ => continue,
            };
            let nearest = &mut self.margins.entry((number, index)).or_default()[side];
            keep_nearest(nearest, condition.threshold, value, &clip.name);
        }
    }

    /// Clips that the judge got wrong.
    pub fn errors(&self) -> &[String] {
        &self.errors
    }

    /// Clips of a class, and how many of them passed, were warned about and failed.
    pub fn counts(&self, class: Class) -> [usize; 4] {
        let rows = self.rows.iter().filter(|((of, _), _)| *of == class);
        rows.fold([0; 4], |[all, passed, warned, failed], (_, r)| {
            let (p, w, f) = (passed + r.passed, warned + r.warned, failed + r.failed);
            [all + r.passed + r.warned + r.failed, p, w, f]
        })
    }

    /// The tables in Markdown.
    pub fn page(&self) -> String {
        let mut page = String::from(
            "## Confusion table\n\n| clips | number | passed | warned | failed |\n|---|---|---|---|---|\n",
        );
        for class in [Class::Good, Class::Doubtful, Class::Bad] {
            let [all, passed, warned, failed] = self.counts(class);
            let class = format!("{class:?}").to_lowercase();
            writeln!(page, "| {class} | {all} | {passed} | {warned} | {failed} |").unwrap();
        }
        page += "\nBy kind of clip:\n\n| class | clip | passed | warned | failed | findings |\n|---|---|---|---|---|---|\n";
        for ((class, family), row) in &self.rows {
            let kinds: Vec<&str> = row.kinds.keys().copied().collect();
            let class = format!("{class:?}").to_lowercase();
            let Row { passed, warned, failed, .. } = row;
            let kinds = kinds.join(", ");
            writeln!(page, "| {class} | {family} | {passed} | {warned} | {failed} | {kinds} |")
                .unwrap();
        }
        page += "\n## Rules and margins\n\nAll conditions of a rule must hold. *Nearest caught*: of the bad and doubtful clips' frames that the rule catches, \
the value nearest to the threshold. *Nearest spared*: of the good clips' frames for which every other condition holds, so that this one alone lets them pass.\n\n\
| rule | condition | nearest caught | nearest spared |\n|---|---|---|---|\n";
        for (number, rule) in FRAME_RULES.iter().chain(CLIP_RULES).enumerate() {
            for (index, condition) in rule.all.iter().enumerate() {
                let [caught, spared] =
                    self.margins.get(&(number, index)).cloned().unwrap_or_default();
                let rule = match (index, rule.fails) {
                    (0, true) => rule.kind.name().to_owned(),
                    (0, false) => format!("{} (warning)", rule.kind.name()),
                    _ => String::new(),
                };
                let (caught, spared) = (shown(caught), shown(spared));
                writeln!(page, "| {rule} | {} | {caught} | {spared} |", line(condition)).unwrap();
            }
        }
        page
    }
}

fn keep_nearest(nearest: &mut Nearest, threshold: f64, value: f64, name: &str) {
    let off = |v: f64| (v - threshold).abs();
    if nearest.as_ref().is_none_or(|(old, _)| off(value) < off(*old)) {
        *nearest = Some((value, name.to_owned()));
    }
}

fn line(condition: &Condition) -> String {
    let Condition { metric, above, threshold, .. } = condition;
    if threshold.is_infinite() {
        return format!("no `{metric}`: too few frames");
    }
    format!("`{metric}` {} {threshold}", if *above { "above" } else { "below" })
}

fn shown(nearest: Nearest) -> String {
    nearest.map_or_else(
        || "none".into(),
        |(value, name)| {
            let digits = if value.abs() < 0.01 { 5 } else { 2 };
            format!("{value:.digits$}: {name}")
        },
    )
}
