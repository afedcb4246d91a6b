//! What commands found, for programs: the facts of their tables, as JSON.

use gguf::DType;
use serde_json::{Map, Value, json};

use crate::measure::TensorError;
use crate::report::{FileReport, Report, TensorReport};
use crate::tools::{Compared, Difference, Problem, Verdict};

/// A conversion. Errors are null where nothing was written, or where the type holds every value.
pub(super) fn report(report: &Report) -> Value {
    let files = report.files.iter().map(|one| file(one, report.planned));
    let continued = report.continued.iter().map(|(_, path)| path.display().to_string());
    json!({
        "written": !report.planned,
        "files": files.collect::<Value>(),
        "whole_already": continued.collect::<Value>(),
        "warnings": report.warnings(),
        "notes": report.notes,
    })
}

fn file(file: &FileReport, planned: bool) -> Value {
    let types = file.census().into_iter().map(|(dtype, count)| (dtype.to_string(), count.into()));
    let tensor = |tensor: &TensorReport| {
        let mut shown = json!({
            "name": tensor.name,
            "type": tensor.dtype.to_string(),
            "elements": tensor.elements,
            "bytes": tensor.bytes,
        });
        let known = !planned && tensor.dtype != DType::F32;
        add(&mut shown, known.then_some(&tensor.error));
        shown
    };
    json!({
        "path": file.path.display().to_string(),
        "quant": file.quant.to_string(),
        "bytes": file.file_bytes,
        "bits_per_weight": file.bits_per_weight(),
        "relative_rmse": (!planned).then_some(file.relative_rmse),
        "kept_f16": file.fallbacks,
        "requantized": file.requantized,
        "types": types.collect::<Map<String, Value>>(),
        "tensors": file.tensors.iter().map(tensor).collect::<Value>(),
    })
}

fn add(to: &mut Value, error: Option<&TensorError>) {
    to["relative_rmse"] = error.map(|error| error.relative_rmse).into();
    to["max"] = error.map(|error| error.largest).into();
    to["cosine"] = error.map(|error| error.cosine).into();
}

/// Whether programs can load a file.
pub(super) fn verdicts(verdicts: &[Verdict]) -> Value {
    let verdict = |verdict: &Verdict| {
        json!({
            "program": verdict.consumer.to_string(),
            "loads": verdict.problems.is_empty(),
            "problems": verdict.problems,
            "notes": verdict.notes,
        })
    };
    verdicts.iter().map(verdict).collect()
}

/// How two files differ.
pub(super) fn difference(difference: &Difference) -> Value {
    let shapes = difference.shapes.iter();
    let metadata = difference.metadata.iter();
    let tensor = |tensor: &Compared| {
        let mut shown = json!({
            "name": tensor.name,
            "a": tensor.a.to_string(),
            "b": tensor.b.to_string(),
        });
        add(&mut shown, tensor.error.as_ref());
        shown
    };
    json!({
        "same": difference.is_none(),
        "only_a": difference.only_a,
        "only_b": difference.only_b,
        "shapes": shapes.map(|(name, a, b)| json!({ "name": name, "a": a, "b": b })).collect::<Value>(),
        "metadata": metadata.map(|(key, a, b)| json!({ "key": key, "a": a, "b": b })).collect::<Value>(),
        "tensors": difference.tensors.iter().map(tensor).collect::<Value>(),
    })
}

/// What is wrong with a published folder of so many files.
pub(super) fn problems(files: usize, problems: &[Problem]) -> Value {
    let problem = |problem: &Problem| json!({ "file": problem.file.display().to_string(), "what": problem.what });
    json!({ "files": files, "problems": problems.iter().map(problem).collect::<Value>() })
}
