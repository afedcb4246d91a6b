//! Hears what the null device would dispatch, and judges it.

use crate::{Chip, cost};
use ggml_sys as sys;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_char, c_int};
use std::fmt;
use std::sync::Mutex;

/// Query rows at which Metal's attention kernel runs out of the 16 bits of its row number.
const ATTENTION_ROWS: i64 = 65_536;
/// Elements at which offsets leave the 32 bits of several kernels.
const ELEMENTS: i64 = 1 << 31;
/// Bytes of memory that a group of threads can share.
const THREADGROUP_MEMORY: usize = 32 * 1024;
/// Seconds of one dispatch, and of one graph: beyond, a display's watchdog ends the program's work.
const DISPATCH: f64 = 0.5;
const SUBMISSION: f64 = 2.0;

/// Something that would fail, or be computed wrong, or make the watchdog bark.
///
/// A node is told by its operation, types and shapes, innermost dimension first; a kernel by its
/// name.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug, Serialize, Deserialize)]
#[expect(missing_docs, reason = "each variant says what is wrong with its node or kernel")]
pub enum Violation {
    /// ggml says that it has no kernel.
    Unsupported { node: String },
    /// ggml would look for a kernel that its library doesn't have.
    MissingKernel { kernel: String },
    /// Norms and softmax read anything as F32.
    NotF32 { node: String },
    /// So many query rows that ggml ends the process: 65,536 or more.
    AttentionRows { node: String },
    /// A tensor of 2^31 elements or more: offsets of 32 bits don't reach its end.
    TooManyElements { node: String },
    /// Accepted by ggml, and there is no such kernel.
    Bf16Activations { node: String },
    /// More than the 32 KiB that a group of threads can share.
    ThreadgroupMemory { kernel: String, bytes: usize },
    /// Above half a second.
    LongDispatch { node: String, milliseconds: u64 },
    /// Above two seconds.
    LongGraph { milliseconds: u64 },
}

/// The longest of something.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Longest {
    /// A node, or the number of a graph; empty before anything was encoded.
    pub what: String,
    /// Estimated, from the chip's rates.
    pub seconds: f64,
}

impl Longest {
    fn see(&mut self, seconds: f64, what: impl FnOnce() -> String) {
        if seconds > self.seconds {
            *self = Self { what: what(), seconds };
        }
    }
}

/// All that was encoded.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// That were given to the backend, but for the probes that follow them.
    pub graphs: u64,
    /// Of all graphs.
    pub nodes: u64,
    /// Of kernels; a node may take several, or none.
    pub dispatches: u64,
    /// How often each kernel would run.
    pub kernels: BTreeMap<String, u64>,
    /// Estimated.
    pub seconds: f64,
    /// Of nodes that are encoded in one go, told by the first of them.
    pub longest_dispatch: Longest,
    /// Of all graphs.
    pub longest_graph: Longest,
    /// Each once.
    pub violations: BTreeSet<Violation>,
}

struct Recorder {
    chip: Chip,
    kernels: BTreeSet<&'static str>,
    device: usize,
    report: Report,
    /// The graph that is being encoded, and its seconds so far.
    graph: (u64, f64),
}

static RECORDER: Mutex<Option<Recorder>> = Mutex::new(None);

#[repr(C)]
struct RawChip {
    name: *const c_char,
    gpu_family: c_int,
    has_tensor: bool,
    memory: usize,
}

#[repr(C)]
struct RawDispatch {
    kernel: *const c_char,
    threadgroup_memory: usize,
    grid: [c_int; 3],
    threads: [c_int; 3],
}

type Observer =
    unsafe extern "C" fn(u64, *const *const sys::ggml_tensor, c_int, *const RawDispatch, c_int);

unsafe extern "C" {
    fn null_metal_register(chip: *const RawChip, observer: Observer) -> sys::ggml_backend_reg_t;
}

/// Adds the null device to ggml's registry, as the Metal device of `chip`. Once a process: ggml's
/// registry can't forget.
pub fn register(chip: Chip) {
    let mut recorder = RECORDER.lock().expect("nothing panics while it holds this");
    assert!(recorder.is_none(), "one chip a process");
    let name = CString::new(chip.name).expect("no NUL in names");
    let raw = RawChip {
        name: name.as_ptr(),
        gpu_family: chip.gpu_family,
        has_tensor: chip.has_tensor,
        memory: chip.memory,
    };
    // SAFETY: the name is copied before this returns; the observer is a plain function.
    let device = unsafe {
        let reg = null_metal_register(&raw, observe);
        sys::ggml_backend_reg_dev_get(reg, 0)
    };
    let kernels = include_str!(concat!(env!("OUT_DIR"), "/kernels.txt")).lines().collect();
    let (report, device) = (Report::default(), device as usize);
    *recorder = Some(Recorder { chip, kernels, device, report, graph: (0, 0.0) });
}

/// What was encoded since the last time.
pub fn take_report() -> Report {
    let mut recorder = RECORDER.lock().expect("nothing panics while it holds this");
    let recorder = recorder.as_mut().expect("registered");
    recorder.close_graph();
    std::mem::take(&mut recorder.report)
}

unsafe extern "C" fn observe(
    graph: u64,
    nodes: *const *const sys::ggml_tensor,
    n_nodes: c_int,
    dispatches: *const RawDispatch,
    n_dispatches: c_int,
) {
    let mut recorder = RECORDER.lock().expect("nothing panics while it holds this");
    // SAFETY: the null device calls with arrays of these lengths; nodes are alive during the call.
    unsafe {
        let nodes = std::slice::from_raw_parts(nodes, n_nodes as usize);
        let nodes: Vec<_> = nodes.iter().filter_map(|node| node.as_ref()).collect();
        let dispatches = match n_dispatches {
            0 => &[],
            n => std::slice::from_raw_parts(dispatches, n as usize),
        };
        recorder.as_mut().expect("registered").see(graph, &nodes, dispatches);
    }
}

impl Recorder {
    fn close_graph(&mut self) {
        let (graph, seconds) = std::mem::take(&mut self.graph);
        self.report.longest_graph.see(seconds, || format!("graph {graph}"));
        if seconds > SUBMISSION {
            let milliseconds = (seconds * 1e3) as u64;
            self.report.violations.insert(Violation::LongGraph { milliseconds });
        }
    }

    fn see(&mut self, graph: u64, nodes: &[&sys::ggml_tensor], dispatches: &[RawDispatch]) {
        if graph != self.graph.0 {
            self.close_graph();
            self.graph = (graph, 0.0);
            self.report.graphs += 1;
        }
        let seconds = nodes.iter().map(|node| cost::seconds(&self.chip, node)).sum::<f64>();
        self.graph.1 += seconds;
        let report = &mut self.report;
        report.seconds += seconds;
        report.nodes += nodes.len() as u64;
        report.dispatches += dispatches.len() as u64;
        report.longest_dispatch.see(seconds, || describe(nodes[0]));
        if seconds > DISPATCH {
            let (node, milliseconds) = (describe(nodes[0]), (seconds * 1e3) as u64);
            report.violations.insert(Violation::LongDispatch { node, milliseconds });
        }
        for dispatch in dispatches {
            // SAFETY: the null device keeps kernel names as long as its library.
            let kernel = unsafe { CStr::from_ptr(dispatch.kernel) }.to_string_lossy();
            if !self.kernels.contains(&*kernel) {
                let kernel = kernel.to_string();
                report.violations.insert(Violation::MissingKernel { kernel });
            }
            if dispatch.threadgroup_memory > THREADGROUP_MEMORY {
                let (kernel, bytes) = (kernel.to_string(), dispatch.threadgroup_memory);
                report.violations.insert(Violation::ThreadgroupMemory { kernel, bytes });
            }
            *report.kernels.entry(kernel.into_owned()).or_default() += 1;
        }
        for node in nodes {
            self.judge(node);
        }
    }

    fn judge(&mut self, node: &sys::ggml_tensor) {
        // SAFETY: sources of a live node are alive.
        let sources = || node.src.iter().filter_map(|s| unsafe { s.as_ref() });
        let first = sources().next();
        let mut note = |violation: fn(String) -> Violation| {
            self.report.violations.insert(violation(describe(node)));
        };
        // SAFETY: the device lives as long as the program.
        let supported = unsafe {
            sys::ggml_backend_dev_supports_op(self.device as sys::ggml_backend_dev_t, node)
        };
        if !supported {
            note(|node| Violation::Unsupported { node });
        }
        let large = |t: &sys::ggml_tensor| {
            // SAFETY: the tensor that a view looks into is alive.
            let whole = unsafe { t.view_src.as_ref() }.unwrap_or(t);
            [t, whole].into_iter().any(|t| t.ne.iter().product::<i64>() >= ELEMENTS)
        };
        if large(node) || sources().any(large) {
            note(|node| Violation::TooManyElements { node });
        }
        match node.op {
            sys::GGML_OP_NORM
            | sys::GGML_OP_RMS_NORM
            | sys::GGML_OP_GROUP_NORM
            | sys::GGML_OP_L2_NORM
            | sys::GGML_OP_SOFT_MAX
                if first.is_some_and(|x| x.type_ != sys::GGML_TYPE_F32) =>
            {
                note(|node| Violation::NotF32 { node });
            }
            sys::GGML_OP_FLASH_ATTN_EXT if first.is_some_and(|q| q.ne[1] >= ATTENTION_ROWS) => {
                note(|node| Violation::AttentionRows { node });
            }
            sys::GGML_OP_MUL_MAT
                if sources().nth(1).is_some_and(|x| x.type_ == sys::GGML_TYPE_BF16) =>
            {
                note(|node| Violation::Bf16Activations { node });
            }
            _ => {}
        }
    }
}

/// An operation with its operands' shapes, innermost dimension first.
fn describe(node: &sys::ggml_tensor) -> String {
    // SAFETY: ggml's names are static strings.
    let text = |name| unsafe { CStr::from_ptr(name) }.to_string_lossy();
    // SAFETY: the node is alive.
    let op = text(unsafe { sys::ggml_op_desc(node) });
    let mut line = format!("{op} {}", Operand(node));
    // SAFETY: sources of a live node are alive.
    for source in node.src.iter().filter_map(|s| unsafe { s.as_ref() }) {
        line += &format!(" < {}", Operand(source));
    }
    line
}

struct Operand<'a>(&'a sys::ggml_tensor);

impl fmt::Display for Operand<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // SAFETY: ggml's type names are static strings.
        let dtype = unsafe { CStr::from_ptr(sys::ggml_type_name(self.0.type_)) };
        write!(f, "{} {:?}", dtype.to_string_lossy(), self.0.ne)
    }
}
