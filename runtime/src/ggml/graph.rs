//! A computation being described. Nodes are bump-allocated in the executor's arena; nothing is
//! computed while a graph is built.

use super::{DeviceTensor, Family, HostTensor, Limits, Param, Shape, Storage, optimize};
use ggml_sys as sys;
use std::any::Any;
use std::cell::RefCell;
use std::fmt;
use std::panic::Location;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

pub(super) type Node = NonNull<sys::ggml_tensor>;

/// How closely a run follows F32 arithmetic.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Precision {
    /// As fast as the backend can: matrix products in the weight's own type, table GELU.
    #[default]
    Native,
    /// Every weight is widened to F32 first and every function is computed in F32: what a
    /// comparison with the reference needs.
    Strict,
    /// As [`Precision::Strict`], with operands of products and attention rounded to F16 first, as
    /// GPUs do: what tells a GPU's rounding from its faults.
    Halved,
}

pub(super) enum Values {
    F32(Arc<[f32]>),
    I32(Vec<i32>),
}

/// A value on its way into a state.
pub(super) struct Write {
    pub(super) value: Node,
    /// A view of the part of the state that it replaces.
    pub(super) target: Node,
    pub(super) line: &'static Location<'static>,
    /// What it is called, where it is guarded.
    pub(super) guard: Option<String>,
}

/// A sum that is a number only if all of its terms are.
pub(super) struct Guard {
    pub(super) name: String,
    pub(super) sum: Node,
}

/// What becomes of [`Tensor::tap`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Taps {
    /// They cost nothing.
    Ignored,
    /// The observer gets their values.
    Observed,
    /// Each is guarded, to find the first that isn't finite.
    Examined,
    /// The observer gets what linear layers are given, squared and summed: [`Tensor::fed_to`].
    Squared,
}

/// Memory that several nodes of a graph fill and read in turn.
struct Scratch {
    memory: Node,
    /// The node that reads it last so far: the next user must come after.
    reader: Option<Node>,
}

/// The nodes of one computation.
pub struct Graph {
    pub(super) ctx: NonNull<sys::ggml_context>,
    /// The nodes in the order in which they will run, as far as it is settled.
    pub(super) order: NonNull<sys::ggml_cgraph>,
    pub(super) inputs: RefCell<Vec<(Node, Values)>>,
    pub(super) writes: RefCell<Vec<Write>>,
    pub(super) precision: Precision,
    pub(super) taps: Taps,
    pub(super) guards: RefCell<Vec<Guard>>,
    /// The nodes that the observer gets.
    pub(super) tapped: RefCell<Vec<Node>>,
    limits: Limits,
    /// What computes it: see `table`.
    pub(super) family: Family,
    /// Where operands of matrix products must begin: see `table::alignment`.
    pub(super) alignment: usize,
    scratch: RefCell<Option<Scratch>>,
    lines: RefCell<Vec<(Node, &'static Location<'static>)>>,
    kept: RefCell<Vec<Rc<dyn Any>>>,
}

impl Graph {
    /// # Safety
    /// `ctx` is valid for this value's whole life, and freed by nobody else; `order` is an empty
    /// graph in it.
    pub(super) unsafe fn new(
        ctx: NonNull<sys::ggml_context>,
        order: NonNull<sys::ggml_cgraph>,
        limits: Limits,
        family: Family,
        alignment: usize,
        precision: Precision,
        taps: Taps,
    ) -> Self {
        Self {
            ctx,
            order,
            inputs: RefCell::default(),
            writes: RefCell::default(),
            precision,
            taps,
            guards: RefCell::default(),
            tapped: RefCell::default(),
            limits,
            family,
            alignment,
            scratch: RefCell::default(),
            lines: RefCell::default(),
            kept: RefCell::default(),
        }
    }

    /// Values that are copied to the device when the graph runs.
    #[track_caller]
    pub fn input<'g>(&'g self, host: &HostTensor) -> Tensor<'g> {
        self.upload(sys::GGML_TYPE_F32, host.shape, Values::F32(host.data.clone()))
    }

    /// A vector of positions or row numbers, I32 on the device.
    #[track_caller]
    pub fn indices(&self, values: impl Into<Vec<i32>>) -> Tensor<'_> {
        let values = values.into();
        self.upload(sys::GGML_TYPE_I32, Shape::from([values.len() as i64]), Values::I32(values))
    }

    #[track_caller]
    fn upload(&self, dtype: sys::ggml_type, shape: Shape, values: Values) -> Tensor<'_> {
        // SAFETY: `ctx` is valid, and `node` has checked its room.
        let t = self.node(|ctx| unsafe {
            let t = sys::ggml_new_tensor(ctx, dtype, 4, shape.to_ne().as_ptr());
            sys::ggml_set_input(t);
            t
        });
        self.inputs.borrow_mut().push((t.raw, values));
        t
    }

    /// A weight or a state as a tensor of this graph.
    pub fn read<'g>(&'g self, source: impl Operand<'g>) -> Tensor<'g> {
        source.in_graph(self)
    }

    /// F32 memory of this run that starts undefined: a target for [`Tensor::set`].
    #[track_caller]
    pub fn uninitialized(&self, shape: impl Into<Shape>) -> Tensor<'_> {
        self.memory(shape.into(), Storage::F32)
    }

    #[track_caller]
    fn memory(&self, shape: Shape, storage: Storage) -> Tensor<'_> {
        let ne = shape.to_ne();
        // SAFETY: `ctx` is valid, and `node` has checked its room.
        self.node(|ctx| unsafe { sys::ggml_new_tensor(ctx, storage.ggml_type(), 4, ne.as_ptr()) })
    }

    /// Memory that this graph's convolutions share. It is free again once the tensor given to
    /// [`Graph::release_scratch`] has been computed; until then nobody may ask for it.
    #[track_caller]
    pub(super) fn scratch(&self, shape: impl Into<Shape>, storage: Storage) -> Tensor<'_> {
        let shape = shape.into();
        let elements = shape.elements() as i64;
        let old = self.scratch.borrow_mut().take();
        let fits = |s: &Scratch| {
            // SAFETY: nodes live as long as the graph.
            let memory = unsafe { s.memory.as_ref() };
            memory.ne[0] >= elements && memory.type_ == storage.ggml_type()
        };
        let Scratch { memory, reader } = old.filter(fits).unwrap_or_else(|| Scratch {
            memory: self.memory([elements].into(), storage).raw,
            reader: None,
        });
        let view = Tensor { raw: memory, graph: self }.narrow4(3, 0..elements).reshape(shape);
        if let Some(raw) = reader {
            let _ = Tensor { raw, graph: self }.before(view);
        }
        *self.scratch.borrow_mut() = Some(Scratch { memory, reader });
        view
    }

    /// `reader` is the last node that reads the scratch memory handed out before.
    pub(super) fn release_scratch(&self, reader: Tensor<'_>) {
        let mut scratch = self.scratch.borrow_mut();
        scratch.as_mut().expect("scratch was asked for").reader = Some(reader.raw);
    }

    /// Stores `value` in `state` when all nodes of this graph have been computed: reads of
    /// `state` in the same graph still see what was there before.
    #[track_caller]
    pub fn write<'g>(&'g self, state: &DeviceTensor, value: Tensor<'g>) {
        assert_eq!(state.shape(), value.shape(), "write: the state has another shape");
        self.write_at(state, [0; 4], value);
    }

    /// [`Graph::write`] for the part of `state` that begins at `at`, of all four dimensions.
    #[track_caller]
    pub fn write_at<'g>(&'g self, state: &DeviceTensor, at: [i64; 4], value: Tensor<'g>) {
        self.push_write(state, at, value, None, Location::caller());
    }

    /// [`Graph::write_at`] of F32 values which must all be finite: else the run of the graph fails
    /// with [`super::ComputeError::NotFinite`] for `name`. They are read once more for that.
    #[track_caller]
    pub fn write_finite<'g>(
        &'g self,
        state: &DeviceTensor,
        at: [i64; 4],
        value: Tensor<'g>,
        name: impl fmt::Display,
    ) {
        self.push_write(state, at, value, Some(name.to_string()), Location::caller());
    }

    fn push_write<'g>(
        &'g self,
        state: &DeviceTensor,
        at: [i64; 4],
        value: Tensor<'g>,
        guard: Option<String>,
        line: &'static Location<'static>,
    ) {
        let target = self.read(state).part(at, value.shape());
        let (value, target) = (value.raw, target.raw);
        self.writes.borrow_mut().push(Write { value, target, line, guard });
    }

    /// Guards `value`, which is F32, as `name`.
    pub(super) fn guard(&self, value: Tensor<'_>, name: String) {
        let sum = value.total();
        // SAFETY: the node is alive until the graph is gone.
        unsafe { sys::ggml_set_output(sum.raw.as_ptr()) };
        self.settle(sum.raw);
        self.guards.borrow_mut().push(Guard { name, sum: sum.raw });
    }

    /// Where this graph cuts long operations.
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Adds what `make` builds in the arena. The one place where nodes are born.
    #[track_caller]
    pub(super) fn node(
        &self,
        make: impl FnOnce(*mut sys::ggml_context) -> *mut sys::ggml_tensor,
    ) -> Tensor<'_> {
        let ctx = self.ctx.as_ptr();
        // ggml would abort the process on a full arena, so ask first; no op makes more than 8 nodes.
        // What a backend adds when it orders the graph must fit as well.
        // SAFETY: `ctx` is valid.
        let room = unsafe { sys::ggml_get_mem_size(ctx) - sys::ggml_used_mem(ctx) };
        // SAFETY: no arguments, no state.
        let overhead = unsafe { sys::ggml_tensor_overhead() };
        let kept = 8 + optimize::MOST_WISHES;
        assert!(room > kept * overhead, "the graph is full: raise executor::MAX_NODES");
        let raw = NonNull::new(make(ctx)).expect("ggml ops return their node");
        self.name_line(raw, Location::caller());
        Tensor { raw, graph: self }
    }

    /// `node` and all that it needs run before everything that isn't settled yet. Left to itself,
    /// ggml would put what a store reads before the store that precedes it: pieces that are stored one
    /// after the other would all be in memory at once.
    pub(super) fn settle(&self, node: Node) {
        // SAFETY: both live in `ctx`.
        unsafe { sys::ggml_build_forward_expand(self.order.as_ptr(), node.as_ptr()) }
    }

    /// Says which line of a model `node` stands for.
    pub(super) fn name_line(&self, node: Node, line: &'static Location<'static>) {
        self.lines.borrow_mut().push((node, line));
    }

    /// The line of the model that made `node`, as far as it is known.
    pub(super) fn line(&self, node: Node) -> Option<&'static Location<'static>> {
        self.lines.borrow().iter().rev().find(|(n, _)| *n == node).map(|(_, line)| *line)
    }

    fn keep(&self, owner: Rc<dyn Any>) {
        let mut kept = self.kept.borrow_mut();
        if !kept.iter().any(|k| Rc::ptr_eq(k, &owner)) {
            kept.push(owner);
        }
    }
}

/// A node of a [`Graph`]: two words, `Copy`, bound to its graph's life.
#[derive(Clone, Copy)]
#[must_use = "an op only describes a node; unused, it computes nothing"]
pub struct Tensor<'g> {
    pub(super) raw: Node,
    pub(super) graph: &'g Graph,
}

impl<'g> Tensor<'g> {
    /// In PyTorch order, padded with ones on the outside to four dimensions.
    pub fn shape(self) -> Shape {
        // SAFETY: nodes live as long as their graph, which `'g` borrows.
        Shape::from_ne(unsafe { self.raw.as_ref() }.ne)
    }

    /// The innermost `N` dimensions; panics if an outer one isn't 1.
    #[track_caller]
    pub fn dims<const N: usize>(self) -> [i64; N] {
        self.shape().dims()
    }

    /// What it is a node of.
    pub fn graph(self) -> &'g Graph {
        self.graph
    }

    /// Names this value for the observer and for a search for what isn't finite; free without them.
    #[track_caller]
    pub fn tap(self, name: impl fmt::Display) -> Self {
        let t = match self.graph.taps {
            Taps::Ignored | Taps::Squared => return self,
            Taps::Observed => self.contiguous(),
            Taps::Examined => {
                let t = self.contiguous();
                self.graph.guard(t, name.to_string());
                return t;
            }
        };
        t.show(&name.to_string());
        t
    }

    /// Says that this tensor `[.., C]` is what the matrix `weight` is multiplied with. For the observer
    /// of [`super::Executor::observe_squares`], its values are squared and summed over all rows; free
    /// when there is none.
    #[track_caller]
    pub fn fed_to(self, weight: &Param) {
        if self.graph.taps != Taps::Squared {
            return;
        }
        let [.., channels] = self.shape().full();
        let rows = self.shape().elements() as i64 / channels;
        let squares = self.reshape([rows, channels]).squares().permute([1, 0]).contiguous();
        let ones = HostTensor::new([1, rows], vec![1.0; rows as usize]);
        let sums = self.graph.input(&ones).linear(squares);
        sums.show(&format!("{rows} {}", weight.name()));
        self.graph.settle(sums.raw);
    }

    /// Hands this value to the observer as `name`.
    fn show(self, name: &str) {
        let name = std::ffi::CString::new(name).expect("no NUL in tap names");
        // SAFETY: the node is alive for `'g`; ggml copies the name.
        unsafe {
            sys::ggml_set_name(self.raw.as_ptr(), name.as_ptr());
            sys::ggml_set_output(self.raw.as_ptr());
        }
        self.graph.tapped.borrow_mut().push(self.raw);
    }
}

impl fmt::Debug for Tensor<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Tensor{:?}", self.shape())
    }
}

/// What an op takes on its right: a tensor of the same graph, a weight, or state on the device.
pub trait Operand<'g>: Copy {
    /// As a node of `graph`; panics if it is a node of another one.
    fn in_graph(self, graph: &'g Graph) -> Tensor<'g>;
}

impl<'g> Operand<'g> for Tensor<'g> {
    #[track_caller]
    fn in_graph(self, graph: &'g Graph) -> Tensor<'g> {
        assert!(std::ptr::eq(self.graph, graph), "operands belong to different graphs");
        self
    }
}

impl<'g> Operand<'g> for &Param {
    fn in_graph(self, graph: &'g Graph) -> Tensor<'g> {
        graph.keep(self.owner());
        Tensor { raw: self.raw, graph }
    }
}

impl<'g> Operand<'g> for &DeviceTensor {
    fn in_graph(self, graph: &'g Graph) -> Tensor<'g> {
        graph.keep(self.owner());
        Tensor { raw: self.raw(), graph }
    }
}
