//! Runs graphs on one backend.

use super::graph::{Node, Values};
use super::probe::Probe;
use super::{Device, Graph, HostTensor, Precision, Shape, Tensor, log};
use ggml_sys as sys;
use std::ffi::CStr;
use std::ptr::NonNull;

/// Nodes of one graph. A block of the diffusion transformer has about 100; a residual block of the
/// VAE has two convolutions, each of at most `conv::MAX_BANDS` bands of up to 43 nodes.
const MAX_NODES: usize = 65_536;

#[derive(Debug, thiserror::Error)]
pub enum ComputeError {
    #[error("the device has no room for {bytes} more bytes")]
    OutOfMemory { bytes: usize },
    #[error("the device can't be opened")]
    NoDevice,
    #[error("{backend} can't run {op} of shape {shape:?} and type {dtype}, needed at {line}")]
    Unsupported { backend: String, op: String, shape: Shape, dtype: String, line: String },
    #[error("the backend stopped with ggml's status {0}")]
    Failed(i32),
    #[error("the backend reported: {0}")]
    Reported(String),
    #[error("the device computes nonsense: {value} instead of {expected} after a graph")]
    Probe { expected: f32, value: f32 },
    #[error("interrupted")]
    Interrupted,
}

type Observer = Box<dyn FnMut(&str, HostTensor)>;

/// One backend, and the memory its graphs are computed in.
pub struct Executor {
    device: Device,
    // In the order in which they must go.
    probe: Probe,
    allocator: Allocator,
    backend: Backend,
    arena: Vec<u128>,
    precision: Precision,
    observer: Option<Observer>,
}

impl Executor {
    /// `threads`: of the CPU backend; other devices don't look at it.
    pub fn new(device: Device, precision: Precision, threads: usize) -> Result<Self, ComputeError> {
        log::install();
        // SAFETY: the device is registered for the program; the allocator keeps only the buffer
        // type, which is static; the probe goes before its backend.
        unsafe {
            let backend = sys::ggml_backend_dev_init(device.as_ptr(), std::ptr::null());
            let backend = Backend(NonNull::new(backend).ok_or(ComputeError::NoDevice)?);
            if sys::ggml_backend_is_cpu(backend.0.as_ptr()) {
                sys::ggml_backend_cpu_set_n_threads(backend.0.as_ptr(), threads.max(1) as i32);
            }
            let kind = sys::ggml_backend_get_default_buffer_type(backend.0.as_ptr());
            let allocator = sys::ggml_gallocr_new(kind);
            let allocator = Allocator(NonNull::new(allocator).expect("ggml_gallocr_new"));
            let bytes = sys::ggml_tensor_overhead() * (MAX_NODES + 8)
                + sys::ggml_graph_overhead_custom(MAX_NODES, false);
            let arena = vec![0; bytes.div_ceil(16)];
            let probe = Probe::new(backend.0)?;
            // What a backend says while it looks for what the device can do is no failure.
            log::take_error();
            Ok(Self { device, probe, allocator, backend, arena, precision, observer: None })
        }
    }

    pub fn device(&self) -> Device {
        self.device
    }

    /// Hands every [`Tensor::tap`] of later runs to `observer`: parity tests, importance matrices.
    pub fn observe(&mut self, observer: impl FnMut(&str, HostTensor) + 'static) {
        self.observer = Some(Box::new(observer));
    }

    /// Bytes of the compute buffer, which grows to the largest graph so far.
    pub fn compute_bytes(&self) -> usize {
        // SAFETY: the allocator lives as long as `self`, and has one buffer.
        unsafe { sys::ggml_gallocr_get_buffer_size(self.allocator.0.as_ptr(), 0) }
    }

    /// Builds a graph, computes it, and brings its result to the host.
    pub fn compute(
        &mut self,
        build: impl for<'g> FnOnce(&'g Graph) -> Tensor<'g>,
    ) -> Result<HostTensor, ComputeError> {
        Ok(self.run(|g| Some(build(g)))?.expect("one result was asked for"))
    }

    /// Builds and computes a graph whose results stay on the device ([`Graph::write`]).
    pub fn update(&mut self, build: impl for<'g> FnOnce(&'g Graph)) -> Result<(), ComputeError> {
        self.run(|g| {
            build(g);
            None
        })?;
        Ok(())
    }

    fn run(
        &mut self,
        build: impl for<'g> FnOnce(&'g Graph) -> Option<Tensor<'g>>,
    ) -> Result<Option<HostTensor>, ComputeError> {
        // SAFETY: the context borrows `arena`, which outlives it within this call, and `&mut self`
        // keeps a second run from reusing it. Inputs, weights and states that the graph refers to
        // are kept by `graph` until the end of the call.
        unsafe {
            let ctx = Context(
                NonNull::new(sys::ggml_init(sys::ggml_init_params {
                    mem_size: self.arena.len() * 16,
                    mem_buffer: self.arena.as_mut_ptr().cast(),
                    no_alloc: true,
                }))
                .expect("ggml_init"),
            );
            let graph = Graph::new(ctx.0, self.device, self.precision, self.observer.is_some());
            let result = build(&graph).map(Tensor::contiguous);

            let cgraph = sys::ggml_new_graph_custom(ctx.0.as_ptr(), MAX_NODES, false);
            if let Some(result) = result {
                sys::ggml_set_output(result.raw.as_ptr());
                sys::ggml_build_forward_expand(cgraph, result.raw.as_ptr());
            }
            // All values first, then the copies into states: a state's readers run before its writer.
            let writes = graph.writes.take();
            for (value, _) in &writes {
                sys::ggml_build_forward_expand(cgraph, value.as_ptr());
            }
            for (value, state) in &writes {
                let copy = graph.node(|c| sys::ggml_cpy(c, value.as_ptr(), state.raw().as_ptr()));
                sys::ggml_build_forward_expand(cgraph, copy.raw.as_ptr());
            }
            self.check_support(&graph, cgraph)?;
            if !sys::ggml_gallocr_alloc_graph(self.allocator.0.as_ptr(), cgraph) {
                return Err(ComputeError::OutOfMemory { bytes: self.compute_bytes() });
            }
            for (node, values) in graph.inputs.borrow().iter() {
                upload(*node, values);
            }
            let status = sys::ggml_backend_graph_compute(self.backend.0.as_ptr(), cgraph);
            if status != sys::GGML_STATUS_SUCCESS {
                return Err(
                    log::take_error().map_or(ComputeError::Failed(status), ComputeError::Reported)
                );
            }
            self.probe.check(self.backend.0)?;
            if let Some(observer) = &mut self.observer {
                for i in 0..sys::ggml_graph_n_nodes(cgraph) {
                    let t = NonNull::new(sys::ggml_graph_node(cgraph, i)).expect("a node");
                    let tapped = t.as_ref().flags & sys::GGML_TENSOR_FLAG_OUTPUT as i32 != 0;
                    if tapped && t.as_ref().name[0] != 0 {
                        let name = CStr::from_ptr(t.as_ref().name.as_ptr()).to_string_lossy();
                        observer(&name, download(t));
                    }
                }
            }
            Ok(result.map(|t| download(t.raw)))
        }
    }

    /// # Safety
    /// `cgraph` is a graph of `graph`'s context.
    unsafe fn check_support(
        &self,
        graph: &Graph,
        cgraph: *mut sys::ggml_cgraph,
    ) -> Result<(), ComputeError> {
        // SAFETY: by contract; names and descriptions are static strings.
        unsafe {
            for i in 0..sys::ggml_graph_n_nodes(cgraph) {
                let t = NonNull::new(sys::ggml_graph_node(cgraph, i)).expect("a node");
                if sys::ggml_backend_supports_op(self.backend.0.as_ptr(), t.as_ptr()) {
                    continue;
                }
                let text = |s| CStr::from_ptr(s).to_string_lossy().into_owned();
                return Err(ComputeError::Unsupported {
                    backend: text(sys::ggml_backend_name(self.backend.0.as_ptr())),
                    op: text(sys::ggml_op_desc(t.as_ptr())),
                    shape: Shape::from_ne(t.as_ref().ne),
                    dtype: text(sys::ggml_type_name(t.as_ref().type_)),
                    line: graph.line(t).map_or_else(String::new, ToString::to_string),
                });
            }
        }
        Ok(())
    }
}

/// # Safety
/// `node` is an input of a graph that has been allocated, with as many elements as `values`.
unsafe fn upload(node: Node, values: &Values) {
    let (data, bytes) = match values {
        Values::F32(v) => (v.as_ptr().cast(), size_of_val(&**v)),
        Values::I32(v) => (v.as_ptr().cast(), size_of_val(v.as_slice())),
    };
    // SAFETY: by contract; an input that no node reads has no buffer, and needs no values.
    unsafe {
        if !node.as_ref().buffer.is_null() {
            sys::ggml_backend_tensor_set(node.as_ptr(), data, 0, bytes);
        }
    }
}

/// # Safety
/// `node` is a computed, contiguous F32 tensor.
unsafe fn download(node: Node) -> HostTensor {
    // SAFETY: by contract.
    unsafe {
        let mut data = vec![0f32; sys::ggml_nelements(node.as_ptr()) as usize];
        let bytes = size_of_val(data.as_slice());
        sys::ggml_backend_tensor_get(node.as_ptr(), data.as_mut_ptr().cast(), 0, bytes);
        HostTensor::new(Shape::from_ne(node.as_ref().ne), data)
    }
}

struct Context(NonNull<sys::ggml_context>);

impl Drop for Context {
    fn drop(&mut self) {
        // SAFETY: made in `run`, freed once.
        unsafe { sys::ggml_free(self.0.as_ptr()) }
    }
}

struct Backend(NonNull<sys::ggml_backend>);

impl Drop for Backend {
    fn drop(&mut self) {
        // SAFETY: made in `Executor::new`, freed once.
        unsafe { sys::ggml_backend_free(self.0.as_ptr()) }
    }
}

struct Allocator(NonNull<sys::ggml_gallocr>);

impl Drop for Allocator {
    fn drop(&mut self) {
        // SAFETY: made in `Executor::new`, freed once.
        unsafe { sys::ggml_gallocr_free(self.0.as_ptr()) }
    }
}
