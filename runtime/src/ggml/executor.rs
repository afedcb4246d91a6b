//! Runs graphs on one backend. Long, because what happens to a graph, and in which order, is one
//! function, to be read from its top to its end.

use super::graph::{Guard, Node, Taps, Values, Write};
use super::probe::Probe;
use super::work::Work;
use super::{Device, Graph, HostTensor, Limits, Precision, Shape, Tensor};
use super::{dry, log, optimize, table};
use ggml_sys as sys;
use std::ffi::CStr;
use std::ptr::NonNull;

/// Nodes of one graph. A block of the diffusion transformer has about 100; a residual block of the
/// VAE has two convolutions, each of at most `conv::MAX_BANDS` bands of up to 43 nodes.
const MAX_NODES: usize = 65_536;

/// Why a graph wasn't computed, or why its results can't be trusted.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum ComputeError {
    #[error("the device has no room for {bytes} more bytes")]
    OutOfMemory { bytes: usize },
    #[error("the device can't be opened")]
    NoDevice,
    #[error("{device} can't run {op} of shape {shape:?} and type {dtype}, needed at {line}: {why}")]
    Unsupported {
        device: String,
        op: String,
        shape: Shape,
        dtype: String,
        line: String,
        why: &'static str,
    },
    #[error("the backend stopped with ggml's status {0}")]
    Failed(i32),
    #[error("the backend reported: {0}")]
    Reported(String),
    #[error("the device computes nonsense: {value} instead of {expected} after a graph")]
    Probe { expected: f32, value: f32 },
    #[error("`{tensor}` holds values that are no numbers on {device}")]
    NotFinite { tensor: String, device: String },
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
    limits: Limits,
    /// See [`table::alignment`].
    alignment: usize,
    observer: Option<(Taps, Observer)>,
    examining: bool,
    #[cfg(feature = "faults")]
    fault: Option<super::fault::Planted>,
    /// Bytes of the compute buffer, and of the backend itself, that are booked.
    booked: usize,
    done: Done,
}

/// What an executor has done so far.
#[derive(Clone, Copy, PartialEq, Debug, Default)]
pub struct Done {
    /// Of all nodes; dry runs count as if they had been computed.
    pub work: Work,
    /// Graphs that the device has kernels for, whether or not their runs went well.
    pub graphs: u64,
    /// Of all these graphs, views and reshapes included.
    pub nodes: u64,
    /// Of one graph, by the device's guessed rates.
    pub longest_seconds: f64,
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
            let allocator = sys::ggml_gallocr_new(dry::buffer_type(device));
            let allocator = Allocator(NonNull::new(allocator).expect("ggml_gallocr_new"));
            let room = MAX_NODES + optimize::MOST_WISHES;
            let bytes = sys::ggml_tensor_overhead() * (room + 8)
                + sys::ggml_graph_overhead_custom(room, false);
            let arena = vec![0; bytes.div_ceil(16)];
            let probe = Probe::new(backend.0)?;
            // What a backend says while it looks for what the device can do is no failure.
            log::take_error();
            let limits = Limits::of(device, threads);
            let alignment = table::alignment(device);
            let (observer, booked, done) = (None, device.overhead(), Done::default());
            device.book(|usage| usage.compute += booked as u64);
            Ok(Self {
                device,
                probe,
                allocator,
                backend,
                arena,
                precision,
                limits,
                alignment,
                observer,
                examining: false,
                #[cfg(feature = "faults")]
                fault: None,
                booked,
                done,
            })
        }
    }

    /// What it was made for.
    pub fn device(&self) -> Device {
        self.device
    }

    /// Where its graphs cut long operations; [`Limits::of`] its device, unless they were set.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Has later graphs cut long operations at `limits`.
    pub fn set_limits(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// Since it was made.
    pub fn done(&self) -> Done {
        self.done
    }

    /// Hands every [`Tensor::tap`] of later runs to `observer`: for parity tests.
    pub fn observe(&mut self, observer: impl FnMut(&str, HostTensor) + 'static) {
        self.observer = Some((Taps::Observed, Box::new(observer)));
    }

    /// Hands to `observer` what each matrix of later runs is multiplied with, by the matrix's name:
    /// the number of rows, and the sum over them of each channel's square. For importance matrices.
    pub fn observe_squares(&mut self, mut observer: impl FnMut(&str, u64, &[f32]) + 'static) {
        let split = move |name: &str, sums: HostTensor| {
            // Results of graphs are shown, too, under names that ggml makes up.
            let Some((rows, name)) = name.split_once(' ') else { return };
            if let Ok(rows) = rows.parse() {
                observer(name, rows, &sums.data);
            }
        };
        self.observer = Some((Taps::Squared, Box::new(split)));
    }

    /// Whether every [`Tensor::tap`] of later runs is looked at, so that
    /// [`ComputeError::NotFinite`] names the first value that isn't finite. Slower; nothing is
    /// observed meanwhile.
    pub fn examine(&mut self, examining: bool) {
        self.examining = examining;
    }

    /// Makes later runs go wrong where `fault` says so.
    #[cfg(feature = "faults")]
    pub fn plant(&mut self, fault: super::fault::Planted) {
        self.fault = Some(fault);
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
            let room = MAX_NODES + optimize::MOST_WISHES;
            let cgraph = sys::ggml_new_graph_custom(ctx.0.as_ptr(), room, false);
            let order = NonNull::new(cgraph).expect("room was reserved");
            let taps = match (self.examining, &self.observer) {
                (true, _) => Taps::Examined,
                (false, Some((taps, _))) => *taps,
                (false, None) => Taps::Ignored,
            };
            let (family, alignment) = (self.device.family(), self.alignment);
            let graph =
                Graph::new(ctx.0, order, self.limits, family, alignment, self.precision, taps);
            let result = build(&graph).map(Tensor::contiguous);
            if let Some(result) = result {
                sys::ggml_set_output(result.raw.as_ptr());
                graph.settle(result.raw);
            }
            // All values first, then the copies into states: a state's readers run before its writer.
            let writes = graph.writes.take();
            for Write { value, .. } in &writes {
                graph.settle(*value);
            }
            for Write { value, target, line, guard } in &writes {
                let copy = graph.node(|c| sys::ggml_cpy(c, value.as_ptr(), target.as_ptr()));
                graph.name_line(copy.raw, line);
                graph.settle(copy.raw);
                if let Some(name) = guard {
                    graph.guard(copy, name.clone());
                }
            }
            self.check_support(&graph, cgraph)?;
            self.account(cgraph);
            let allocated = optimize::allocate(self.backend.0, self.allocator.0, ctx.0, cgraph);
            self.book();
            if !allocated {
                return Err(ComputeError::OutOfMemory { bytes: self.compute_bytes() });
            }
            if self.device.is_dry() {
                return Ok(
                    result.map(|t| HostTensor::new(t.shape(), vec![0.0; t.shape().elements()]))
                );
            }
            for (node, values) in graph.inputs.borrow().iter() {
                upload(*node, values);
            }
            #[cfg(feature = "faults")]
            let fault = super::fault::before(&mut self.fault, &writes)?;
            let status = sys::ggml_backend_graph_compute(self.backend.0.as_ptr(), cgraph);
            if status != sys::GGML_STATUS_SUCCESS {
                return Err(
                    log::take_error().map_or(ComputeError::Failed(status), ComputeError::Reported)
                );
            }
            self.probe.check(self.backend.0)?;
            #[cfg(feature = "faults")]
            super::fault::after(fault, &writes);
            self.check_guards(&graph)?;
            if let Some((_, observer)) = &mut self.observer {
                let tapped = graph.tapped.borrow();
                for t in nodes(cgraph).filter(|t| tapped.contains(t)) {
                    let name = CStr::from_ptr(t.as_ref().name.as_ptr()).to_string_lossy();
                    observer(&name, download(t));
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
        let family = self.device.family();
        // SAFETY: by contract; names and descriptions are static strings.
        unsafe {
            for t in nodes(cgraph) {
                let why = table::refusal(family, t).or_else(|| {
                    let yes = sys::ggml_backend_supports_op(self.backend.0.as_ptr(), t.as_ptr());
                    (!yes).then_some("ggml has no kernel for it there")
                });
                let Some(why) = why else { continue };
                let text = |s| CStr::from_ptr(s).to_string_lossy().into_owned();
                return Err(ComputeError::Unsupported {
                    device: self.device.name(),
                    op: text(sys::ggml_op_desc(t.as_ptr())),
                    shape: Shape::from_ne(t.as_ref().ne),
                    dtype: text(sys::ggml_type_name(t.as_ref().type_)),
                    line: graph.line(t).map_or_else(String::new, ToString::to_string),
                    why,
                });
            }
        }
        Ok(())
    }

    /// # Safety
    /// `graph` has been computed.
    unsafe fn check_guards(&self, graph: &Graph) -> Result<(), ComputeError> {
        for Guard { name, sum } in graph.guards.borrow().iter() {
            // SAFETY: by contract; the sum is one contiguous F32 value.
            let sum = unsafe { download(*sum) }.data[0];
            if !sum.is_finite() {
                let (tensor, device) = (name.clone(), self.device.name());
                return Err(ComputeError::NotFinite { tensor, device });
            }
        }
        Ok(())
    }

    /// # Safety
    /// `cgraph` is a live graph.
    unsafe fn account(&mut self, cgraph: *mut sys::ggml_cgraph) {
        let mut work = Work::default();
        // SAFETY: by contract.
        unsafe { nodes(cgraph).for_each(|node| work += Work::of(node)) };
        let done = &mut self.done;
        done.work += work;
        done.graphs += 1;
        // SAFETY: by contract.
        done.nodes += unsafe { sys::ggml_graph_n_nodes(cgraph) } as u64;
        done.longest_seconds = done.longest_seconds.max(self.limits.rates.seconds(work));
    }

    /// Keeps the books on the compute buffer, which grows.
    fn book(&mut self) {
        let bytes = self.compute_bytes() + self.device.overhead();
        let grown = (bytes - self.booked) as u64;
        self.device.book(|usage| usage.compute += grown);
        self.booked = bytes;
    }
}

impl Drop for Executor {
    fn drop(&mut self) {
        let bytes = self.booked as u64;
        self.device.book(|usage| usage.compute -= bytes);
    }
}

/// # Safety
/// `cgraph` is a live graph, which doesn't change meanwhile.
unsafe fn nodes(cgraph: *mut sys::ggml_cgraph) -> impl Iterator<Item = Node> {
    // SAFETY: by contract; indices are below the count.
    let count = unsafe { sys::ggml_graph_n_nodes(cgraph) };
    // SAFETY: as above.
    (0..count)
        .map(move |i| unsafe { NonNull::new(sys::ggml_graph_node(cgraph, i)).expect("a node") })
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
