//! The tensors of one model file on one device, immutable once loaded. Long, because a parameter, the
//! scope in which it is looked up and the memory that both keep alive are private to each other.

use super::adapter::{Adapter, Adapters};
use super::graph::Node;
use super::{Capacity, Device, Family, Shape, Storage, dry};
use ggml_sys as sys;
use gguf::DType;
use half::slice::HalfFloatSliceExt;
use half::vec::{HalfBitsVecExt, HalfFloatVecExt};
use half::{bf16, f16};
use std::any::Any;
use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::ffi::{CStr, CString, c_void};
use std::fmt;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::ptr::NonNull;
use std::rc::Rc;
use std::sync::Arc;

/// Why a file's tensors can't be the weights of a model on a device.
#[derive(Debug, thiserror::Error)]
#[expect(missing_docs, reason = "each variant's message says what its fields are")]
pub enum LoadError {
    #[error("{file}: no tensor `{name}`, which this model needs", file = file.display())]
    Missing { file: PathBuf, name: String },
    #[error("{file}: tensor `{name}` is {got:?}, this model expects {expected:?}", file = file.display())]
    Shape { file: PathBuf, name: String, got: Vec<u64>, expected: Vec<i64> },
    #[error("{file}: tensor `{name}` is {dtype}, only {wanted} work there", file = file.display())]
    Type { file: PathBuf, name: String, dtype: DType, wanted: &'static str },
    #[error("{file}: {count} tensors fit nowhere in this model, the first is `{first}`", file = file.display())]
    Unused { file: PathBuf, count: usize, first: String },
    #[error(
        "{file}: {device} has no room for its {bytes} bytes of weights ({free} of {total} are free)",
        file = file.display(), free = capacity.free, total = capacity.total
    )]
    OutOfMemory { file: PathBuf, device: String, bytes: usize, capacity: Capacity },
    #[error("interrupted")]
    Interrupted,
}

/// Metadata of tensors, and the buffer their values lie in.
struct Block {
    ctx: NonNull<sys::ggml_context>,
    buffer: NonNull<sys::ggml_backend_buffer>,
    device: Device,
}

impl Block {
    fn new(
        ctx: NonNull<sys::ggml_context>,
        buffer: NonNull<sys::ggml_backend_buffer>,
        device: Device,
    ) -> Self {
        // SAFETY: the buffer is valid, and from now on this value's own.
        unsafe {
            let weights = sys::GGML_BACKEND_BUFFER_USAGE_WEIGHTS;
            sys::ggml_backend_buffer_set_usage(buffer.as_ptr(), weights);
        }
        let block = Self { ctx, buffer, device };
        let bytes = block.bytes();
        device.book(|usage| usage.weights += bytes);
        block
    }

    fn bytes(&self) -> u64 {
        // SAFETY: the buffer is this value's own.
        unsafe { sys::ggml_backend_buffer_get_size(self.buffer.as_ptr()) as u64 }
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        let bytes = self.bytes();
        self.device.book(|usage| usage.weights -= bytes);
        // SAFETY: made by `Weights::load` or `Scope::owned`, freed once, when no `Param` and no
        // `Graph` holds the store any more.
        unsafe {
            sys::ggml_backend_buffer_free(self.buffer.as_ptr());
            sys::ggml_free(self.ctx.as_ptr());
        }
    }
}

struct Store {
    device: Device,
    by_name: BTreeMap<String, Node>,
    taken: RefCell<BTreeSet<String>>,
    derived: RefCell<Vec<Block>>,
    /// What no module has asked for yet.
    adapters: RefCell<Adapters>,
    _loaded: Block,
    /// The mapping that `_loaded`'s buffer may point into: dropped after it.
    file: Arc<gguf::File>,
}

/// Values on their way to a device.
enum Owned {
    F32(Vec<f32>),
    F16(Vec<f16>),
}

impl Owned {
    fn raw(&self) -> (*const c_void, usize) {
        match self {
            Self::F32(values) => (values.as_ptr().cast(), size_of_val(values.as_slice())),
            Self::F16(values) => (values.as_ptr().cast(), size_of_val(values.as_slice())),
        }
    }
}

/// A loaded model file.
#[derive(Clone)]
pub struct Weights(Rc<Store>);

impl Weights {
    /// [`Weights::load_with`] for those who can wait.
    pub fn load(file: Arc<gguf::File>, device: Device) -> Result<Self, LoadError> {
        Self::load_with(file, device, &mut |_| ControlFlow::Continue(()))
    }

    /// Makes `file`'s tensors usable on `device`: straight from the mapping where the device can,
    /// so that nothing is copied until a page is touched; else by a copy. `uploaded` hears how many
    /// more bytes are there, and may end it.
    pub fn load_with(
        file: Arc<gguf::File>,
        device: Device,
        uploaded: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        Self::load_some(file, device, &|_| true, uploaded)
    }

    /// [`Weights::load_with`] for a model that makes [`Scope::derived`] tensors of most of its file, or
    /// skips them: only the `needed` tensors, by name, come to the device as they are.
    pub fn load_some(
        file: Arc<gguf::File>,
        device: Device,
        needed: &dyn Fn(&str) -> bool,
        uploaded: &mut dyn FnMut(u64) -> ControlFlow<()>,
    ) -> Result<Self, LoadError> {
        let tensors: Vec<_> = file.tensors().iter().filter(|t| needed(&t.name)).collect();
        let all = tensors.len() == file.tensors().len();
        // SAFETY: a `no_alloc` context holds only metadata; the buffer goes before `file` does.
        unsafe {
            let ctx = context(tensors.len());
            let node = |t: &&gguf::Tensor| new_tensor(ctx, &t.name, t.dtype, folded(&t.shape));
            let nodes: Vec<Node> = tensors.iter().map(node).collect();
            // Files of other formats needn't align their tensors.
            let aligned = file.tensors().iter().all(|t| t.offset.is_multiple_of(ALIGNMENT));
            let maps = device.maps_files() && aligned && all;
            let buffer = if maps {
                map(&file, device, &nodes)
            } else {
                let kind = dry::buffer_type(device);
                let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(ctx.as_ptr(), kind);
                let bytes = || tensors.iter().map(|t| t.bytes as usize).sum();
                NonNull::new(buffer).ok_or_else(|| no_room(&file, device, bytes()))
            };
            let block = match buffer {
                Ok(buffer) => Block::new(ctx, buffer, device),
                Err(error) => {
                    sys::ggml_free(ctx.as_ptr());
                    return Err(error);
                }
            };
            let mut by_name = BTreeMap::new();
            for (t, &node) in tensors.iter().zip(&nodes) {
                if !maps && !device.is_dry() {
                    upload(node, file.data(t), uploaded)?;
                }
                by_name.insert(t.name.clone(), node);
            }
            Ok(Self(Rc::new(Store {
                device,
                by_name,
                taken: RefCell::default(),
                derived: RefCell::default(),
                adapters: RefCell::default(),
                _loaded: block,
                file,
            })))
        }
    }

    /// Has `adapters` change the tensors they name, in every model that is made of these weights next.
    pub fn adapt(&self, adapters: Adapters) {
        *self.0.adapters.borrow_mut() = adapters;
    }

    /// The top of the name tree, below which names are whole.
    pub fn root(&self) -> Scope<'_> {
        Scope { weights: self, prefix: String::new() }
    }

    /// Fails if the file holds tensors that no module asked for: a wrong name is found at load,
    /// not in the video.
    ///
    /// # Panics
    /// If adapters are left that change no tensor: who made them looked their names up.
    pub fn expect_all_used(&self) -> Result<(), LoadError> {
        let left = self.0.adapters.borrow();
        assert!(left.is_empty(), "adapters of no tensor: {:?}", left.keys());
        let taken = self.0.taken.borrow();
        let names = self.0.file.tensors().iter().map(|t| &t.name);
        let unused: Vec<_> = names.filter(|n| !taken.contains(*n)).collect();
        let Some(first) = unused.first() else { return Ok(()) };
        let first = first.to_string();
        Err(LoadError::Unused { file: self.0.file.path().to_owned(), count: unused.len(), first })
    }
}

/// A place in the name tree: `blocks.3.self_attn`.
#[derive(Clone)]
pub struct Scope<'w> {
    weights: &'w Weights,
    prefix: String,
}

impl<'w> Scope<'w> {
    /// The place `name` below this one; a number is the name of a place in a list.
    pub fn at(&self, name: impl fmt::Display) -> Scope<'w> {
        Scope { weights: self.weights, prefix: self.join(&name) }
    }

    /// The tensor `name`, which must have exactly `shape`, with what is added to it. Of five dimensions,
    /// the outer two come as one. What isn't a matrix comes in F32: half-precision values are no
    /// operands of sums on every device.
    pub fn param<const N: usize>(&self, name: &str, shape: [i64; N]) -> Result<Param, LoadError> {
        const { assert!(N <= 5) };
        let added = self.take_adapters(name);
        let half = self.dtype(name).is_some_and(|t| matches!(t, DType::F16 | DType::BF16));
        if added.is_empty() && (N == 2 || !half) {
            return self.stored(name, &shape);
        }
        let to = folded(&shape.map(|d| d as u64));
        self.derived(name, &shape, to.full(), Storage::F32, |mut values| {
            added.iter().for_each(|a| a.add_to(&mut values, shape[0] as usize));
            values
        })
    }

    fn dtype(&self, name: &str) -> Option<DType> {
        self.weights.0.file.tensor(&self.join(&name)).map(|tensor| tensor.dtype)
    }

    /// The tensor `name` as it lies in the file. Of other types than those that can be computed with
    /// there, ggml ends the program.
    pub(super) fn stored(&self, name: &str, shape: &[i64]) -> Result<Param, LoadError> {
        let tensor = self.take(name, shape)?;
        let matrix = shape.len() == 2 && is_multiplied(tensor.dtype);
        if !matrix && !FLOATS.contains(&tensor.dtype) {
            let wanted =
                if shape.len() == 2 { "F32, F16, BF16 and quantized types" } else { FLOAT_NAMES };
            return Err(self.wrong_type(name, tensor.dtype, wanted));
        }
        let store = &self.weights.0;
        let raw = store.by_name.get(&self.join(&name));
        let raw = *raw.unwrap_or_else(|| panic!("`{}` isn't on the device", self.join(&name)));
        Ok(Param { raw, store: store.clone() })
    }

    /// A tensor of `to` made at load from the values of `name`, which must have `shape`: the layout
    /// that a kernel wants.
    pub fn derived<const N: usize>(
        &self,
        name: &str,
        shape: &[i64],
        to: [i64; N],
        storage: Storage,
        make: impl FnOnce(Vec<f32>) -> Vec<f32>,
    ) -> Result<Param, LoadError> {
        if self.is_dry() {
            self.take(name, shape)?;
            return self.owned(&self.join(&name), to.into(), storage, None);
        }
        let values = make(self.values(name, shape)?);
        self.owned(&self.join(&name), to.into(), storage, Some(values))
    }

    /// How this scope's device wants [`Scope::derived`] operands of matrix products.
    pub fn operands(&self) -> Storage {
        self.weights.0.device.operands()
    }

    /// F32 values that the file keeps in its metadata.
    pub fn constant<const N: usize>(
        &self,
        shape: [i64; N],
        values: Vec<f32>,
    ) -> Result<Param, LoadError> {
        self.owned("constant", shape.into(), Storage::F32, Some(values))
    }

    /// What is added to the tensor `name`; each change is asked for once.
    pub(super) fn take_adapters(&self, name: &str) -> Vec<Adapter> {
        let mut adapters = self.weights.0.adapters.borrow_mut();
        adapters.remove(&self.join(&name)).unwrap_or_default()
    }

    pub(super) fn is_dry(&self) -> bool {
        self.weights.0.device.is_dry()
    }

    /// Without `values`, they are unknown: in dry runs.
    pub(super) fn owned(
        &self,
        name: &str,
        shape: Shape,
        storage: Storage,
        values: Option<Vec<f32>>,
    ) -> Result<Param, LoadError> {
        let store = &self.weights.0;
        let values = values.map(|values| {
            assert_eq!(values.len(), shape.elements(), "`{name}` of {shape:?}");
            match storage {
                Storage::F32 => Owned::F32(values),
                Storage::F16 => Owned::F16(Vec::from_f32_slice(&values)),
            }
        });
        // SAFETY: as in `load`, with a buffer that ggml allocates.
        let (block, raw) = unsafe {
            let ctx = context(1);
            let raw = new_tensor(ctx, name, storage.dtype(), shape);
            let kind = dry::buffer_type(store.device);
            let buffer = sys::ggml_backend_alloc_ctx_tensors_from_buft(ctx.as_ptr(), kind);
            let Some(buffer) = NonNull::new(buffer) else {
                let bytes = sys::ggml_nbytes(raw.as_ptr());
                sys::ggml_free(ctx.as_ptr());
                return Err(no_room(&store.file, store.device, bytes));
            };
            if let (Some(values), false) = (values, store.device.is_dry()) {
                let (data, bytes) = values.raw();
                sys::ggml_backend_tensor_set(raw.as_ptr(), data, 0, bytes);
            }
            (Block::new(ctx, buffer, store.device), raw)
        };
        store.derived.borrow_mut().push(block);
        Ok(Param { raw, store: store.clone() })
    }

    /// Says that this model knows the tensors below here and doesn't need them.
    pub fn skip(&self) {
        let prefix = format!("{}.", self.prefix);
        let mut taken = self.weights.0.taken.borrow_mut();
        let names = self.weights.0.file.tensors().iter().map(|t| &t.name);
        taken.extend(names.filter(|n| n.starts_with(&prefix)).cloned());
    }

    /// The values of a small tensor on the host.
    fn values(&self, name: &str, shape: &[i64]) -> Result<Vec<f32>, LoadError> {
        let tensor = self.take(name, shape)?;
        let bytes = self.weights.0.file.data(tensor);
        // Machines that ggml runs on have the byte order of the file.
        let halves = || bytemuck::pod_collect_to_vec::<u8, u16>(bytes);
        Ok(match tensor.dtype {
            DType::F32 => bytemuck::pod_collect_to_vec(bytes),
            DType::F16 => halves().reinterpret_into::<f16>().to_f32_vec(),
            DType::BF16 => halves().reinterpret_into::<bf16>().to_f32_vec(),
            dtype => return Err(self.wrong_type(name, dtype, FLOAT_NAMES)),
        })
    }

    fn wrong_type(&self, name: &str, dtype: DType, wanted: &'static str) -> LoadError {
        let file = self.weights.0.file.path().to_owned();
        LoadError::Type { file, name: self.join(&name), dtype, wanted }
    }

    fn take(&self, name: &str, expected: &[i64]) -> Result<&'w gguf::Tensor, LoadError> {
        let name = self.join(&name);
        let file = &self.weights.0.file;
        let path = || file.path().to_owned();
        let Some(tensor) = file.tensor(&name) else {
            return Err(LoadError::Missing { file: path(), name });
        };
        if !tensor.shape.iter().map(|&d| d as i64).eq(expected.iter().copied()) {
            let (got, expected) = (tensor.shape.clone(), expected.to_vec());
            return Err(LoadError::Shape { file: path(), name, got, expected });
        }
        self.weights.0.taken.borrow_mut().insert(name);
        Ok(tensor)
    }

    pub(super) fn join(&self, name: &impl fmt::Display) -> String {
        if self.prefix.is_empty() { name.to_string() } else { format!("{}.{name}", self.prefix) }
    }
}

/// One weight. Keeps its file's memory alive.
#[derive(Clone)]
pub struct Param {
    pub(super) raw: Node,
    store: Rc<Store>,
}

impl Param {
    /// In PyTorch order; of five dimensions, the outer two are one.
    pub fn shape(&self) -> Shape {
        // SAFETY: the node lives in a context of `store`.
        Shape::from_ne(unsafe { self.raw.as_ref() }.ne)
    }

    /// As in the file.
    pub(super) fn name(&self) -> String {
        // SAFETY: the node lives in a context of `store`, and has a name that ends.
        let name = unsafe { CStr::from_ptr(self.raw.as_ref().name.as_ptr()) };
        name.to_string_lossy().into_owned()
    }

    pub(super) fn owner(&self) -> Rc<dyn Any> {
        self.store.clone()
    }
}

/// A buffer of `file`'s mapping, in which `nodes` (in the file's order) get their addresses.
///
/// # Safety
/// The buffer must go before `file` does; `nodes` are live tensors of the file's shapes.
unsafe fn map(
    file: &gguf::File,
    device: Device,
    nodes: &[Node],
) -> Result<NonNull<sys::ggml_backend_buffer>, LoadError> {
    let mapping = file.mapping();
    let refused = || no_room(file, device, mapping.len());
    if device.family() == Family::Metal && mapping.len() as u64 > device.capacity().total {
        return Err(refused());
    }
    // SAFETY: the mapping is as long as the reader validated, and all tensors lie inside it; ggml
    // never writes to weights.
    unsafe {
        let buffer = if device.is_dry() {
            dry::buffer(device, mapping.len())
        } else {
            let data = mapping.as_ptr().cast_mut().cast::<c_void>();
            let largest = file.tensors().iter().map(|t| t.bytes).max().unwrap_or(0) as usize;
            let map = sys::ggml_backend_dev_buffer_from_host_ptr;
            let buffer = map(device.as_ptr(), data, mapping.len(), largest);
            let buffer = NonNull::new(buffer).ok_or_else(refused)?;
            // Metal wraps a failed mapping into a buffer around nothing, which can't even be freed.
            if buffer.as_ref().context.is_null() {
                return Err(refused());
            }
            buffer
        };
        let base = sys::ggml_backend_buffer_get_base(buffer.as_ptr()).cast::<u8>();
        for (t, node) in file.tensors().iter().zip(nodes) {
            let address = base.add(t.offset as usize).cast();
            sys::ggml_backend_tensor_alloc(buffer.as_ptr(), node.as_ptr(), address);
        }
        Ok(buffer)
    }
}

/// Types of values that aren't in blocks.
const FLOATS: [DType; 3] = [DType::F32, DType::F16, DType::BF16];
const FLOAT_NAMES: &str = "F32, F16 and BF16";

/// Whether a matrix of `dtype` can be multiplied, and rows be taken of it. Q8_1 and Q8_K are what
/// activations become on the way; integers and F64 are no operands at all, and the CPU would jump to
/// a kernel that isn't there.
fn is_multiplied(dtype: DType) -> bool {
    let on_the_way = matches!(dtype, DType::Q8_1 | DType::Q8_K);
    FLOATS.contains(&dtype) || dtype.is_quantized() && !on_the_way
}

/// Where tensors begin in GGUF files, and where ggml's kernels may expect them.
const ALIGNMENT: u64 = 32;

/// Bytes that are copied between two questions whether to go on.
const PIECE: usize = 64 << 20;

/// # Safety
/// `node` is allocated, and has as many bytes as `data`.
unsafe fn upload(
    node: Node,
    data: &[u8],
    uploaded: &mut dyn FnMut(u64) -> ControlFlow<()>,
) -> Result<(), LoadError> {
    for (i, piece) in data.chunks(PIECE).enumerate() {
        // SAFETY: by contract.
        unsafe {
            let values = piece.as_ptr().cast();
            sys::ggml_backend_tensor_set(node.as_ptr(), values, i * PIECE, piece.len());
        }
        if uploaded(piece.len() as u64).is_break() {
            return Err(LoadError::Interrupted);
        }
    }
    Ok(())
}

fn no_room(file: &gguf::File, device: Device, bytes: usize) -> LoadError {
    let (file, capacity) = (file.path().to_owned(), device.capacity());
    LoadError::OutOfMemory { file, device: device.name(), bytes, capacity }
}

/// ggml has four dimensions; a fifth is multiplied into the outermost.
fn folded(shape: &[u64]) -> Shape {
    let mut full = [1; 4];
    for (i, &d) in shape.iter().rev().enumerate() {
        full[3 - i.min(3)] *= d as i64;
    }
    Shape::from(full)
}

/// A context with room for the metadata of `tensors` tensors.
fn context(tensors: usize) -> NonNull<sys::ggml_context> {
    // SAFETY: plain data in, a checked pointer out.
    let ctx = unsafe {
        sys::ggml_init(sys::ggml_init_params {
            mem_size: sys::ggml_tensor_overhead() * (tensors + 1),
            mem_buffer: std::ptr::null_mut(),
            no_alloc: true,
        })
    };
    NonNull::new(ctx).expect("ggml_init")
}

/// # Safety
/// `ctx` is valid and has room; `shape` fits `dtype`'s blocks, as the reader checked.
unsafe fn new_tensor(
    ctx: NonNull<sys::ggml_context>,
    name: &str,
    dtype: DType,
    shape: Shape,
) -> Node {
    let name = CString::new(name).expect("the reader refuses NUL in names");
    let (dtype, ne) = (dtype.id() as sys::ggml_type, shape.to_ne());
    // SAFETY: by contract; ggml copies the name, cut to its own limit.
    unsafe {
        let t = sys::ggml_new_tensor(ctx.as_ptr(), dtype, 4, ne.as_ptr());
        sys::ggml_set_name(t, name.as_ptr());
        NonNull::new(t).expect("room was reserved")
    }
}
