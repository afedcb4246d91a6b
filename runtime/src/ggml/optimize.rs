//! Lets a backend put a graph's nodes into the order that suits it, and then lays the graph out in
//! memory. ggml does this in its scheduler, which an executor of one backend doesn't need.

use super::graph::Node;
use ggml_sys as sys;
use std::ffi::c_void;
use std::ptr::NonNull;

/// Wishes of one graph: what the executor keeps room for.
pub(super) const MOST_WISHES: usize = 8192;

/// A backend's wish to keep a tensor's memory until a later node has been computed.
struct Dependency {
    tensor: Node,
    until: Node,
}

/// Gives every node of `graph` an address; false if the device has no room.
///
/// # Safety
/// `graph` lives in `ctx` and was made for `backend`; `allocator` works for it.
pub(super) unsafe fn allocate(
    backend: NonNull<sys::ggml_backend>,
    allocator: NonNull<sys::ggml_gallocr>,
    ctx: NonNull<sys::ggml_context>,
    graph: *mut sys::ggml_cgraph,
) -> bool {
    let mut wishes: Vec<Dependency> = Vec::new();
    // SAFETY: by contract; the backend calls `wish` with tensors of this graph and our own vector,
    // and only within this call. The array of nodes has room for more, as its maker reserved.
    unsafe {
        if let Some(optimize) = backend.as_ref().iface.graph_optimize {
            let mut params = sys::ggml_backend_graph_optimize_params {
                add_alloc_dep: Some(wish),
                user_data: (&raw mut wishes).cast(),
            };
            optimize(backend.as_ptr(), graph, &raw mut params);
        }
        if wishes.is_empty() {
            return lay_out(allocator, graph);
        }
        assert!(wishes.len() <= MOST_WISHES, "the backend has {} wishes", wishes.len());
        // A node that computes nothing, put behind `until`, reads the tensor: the allocator can't
        // free it before. Afterwards the order no longer matters for memory, and these go last.
        let count = sys::ggml_graph_n_nodes(graph) as usize;
        let computed = std::slice::from_raw_parts(sys::ggml_graph_nodes(graph), count).to_vec();
        let mut ordered = Vec::with_capacity(count + wishes.len());
        let mut readers = Vec::with_capacity(wishes.len());
        for &node in &computed {
            ordered.push(node);
            for wish in wishes.iter().filter(|wish| wish.until.as_ptr() == node) {
                let reader = sys::ggml_new_tensor_1d(ctx.as_ptr(), sys::GGML_TYPE_F32, 1);
                (*reader).src[0] = wish.tensor.as_ptr();
                ordered.push(reader);
                readers.push(reader);
            }
        }
        for &reader in &readers {
            sys::ggml_graph_add_node(graph, reader);
        }
        let places = std::slice::from_raw_parts_mut(sys::ggml_graph_nodes(graph), ordered.len());
        places.copy_from_slice(&ordered);
        let allocated = lay_out(allocator, graph);
        let (first, last) = places.split_at_mut(count);
        first.copy_from_slice(&computed);
        last.copy_from_slice(&readers);
        allocated
    }
}

/// Plans anew, then gives addresses. Left to itself, ggml takes the last graph's plan for every graph
/// of as many nodes and leaves and of no larger tensors, whatever reads what: a result would be put
/// over values that are still needed.
///
/// # Safety
/// As [`allocate`].
unsafe fn lay_out(allocator: NonNull<sys::ggml_gallocr>, graph: *mut sys::ggml_cgraph) -> bool {
    // SAFETY: by contract.
    unsafe {
        sys::ggml_gallocr_reserve(allocator.as_ptr(), graph)
            && sys::ggml_gallocr_alloc_graph(allocator.as_ptr(), graph)
    }
}

/// # Safety
/// Called by a backend with what [`allocate`] gave it.
unsafe extern "C" fn wish(
    wishes: *mut c_void,
    tensor: *mut sys::ggml_tensor,
    until: *mut sys::ggml_tensor,
) {
    // SAFETY: by contract.
    let wishes = unsafe { &mut *wishes.cast::<Vec<Dependency>>() };
    let (tensor, until) = (NonNull::new(tensor), NonNull::new(until));
    wishes.push(Dependency {
        tensor: tensor.expect("ggml names a tensor"),
        until: until.expect("ggml names a node"),
    });
}

#[cfg(test)]
mod tests {
    use crate::ggml::{Device, Executor, HostTensor, Precision};

    /// The first graph works in place. The second has as many nodes and needs no more memory, and
    /// would overwrite what it has yet to read.
    #[test]
    fn no_graph_is_laid_out_as_the_one_before_it() {
        let mut exec = Executor::new(Device::cpu(), Precision::Native, 1).unwrap();
        let x = HostTensor::new([40, 30], (0..1200).map(|i| i as f32).collect::<Vec<_>>());
        let _ = exec.compute(|g| (g.input(&x) * 3.0).silu() + 1.0).unwrap();
        let turned = exec.compute(|g| g.input(&x).permute([1, 0])).unwrap();
        for (i, &value) in turned.data.iter().enumerate() {
            assert_eq!(value, x.data[i % 40 * 30 + i / 40], "value {i}");
        }
    }
}
