//! How much of a device's memory this thread's tensors take.

use super::Device;
use std::cell::RefCell;
use std::collections::HashMap;

/// Bytes by purpose. On devices that map files, weights are memory of the page cache.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Usage {
    /// Tensors of model files, and layouts made of them.
    pub weights: u64,
    /// What lives from one graph to the next.
    pub states: u64,
    /// What lives within one graph.
    pub compute: u64,
}

impl Usage {
    /// All but the weights.
    pub fn working(self) -> u64 {
        self.states + self.compute
    }

    /// Weights included, even those that are only mapped.
    pub fn total(self) -> u64 {
        self.weights + self.working()
    }
}

thread_local! {
    /// Now, and at the time of the most.
    static BOOKS: RefCell<HashMap<Device, (Usage, Usage)>> = RefCell::default();
}

impl Device {
    /// What this thread holds on this device.
    pub fn usage(self) -> Usage {
        BOOKS.with_borrow(|books| books.get(&self).map(|(now, _)| *now).unwrap_or_default())
    }

    /// What was held when it was the most since [`Device::forget_peak`].
    pub fn peak_usage(self) -> Usage {
        BOOKS.with_borrow(|books| books.get(&self).map(|(_, peak)| *peak).unwrap_or_default())
    }

    /// Lets [`Device::peak_usage`] begin anew, at what this thread holds now.
    pub fn forget_peak(self) {
        BOOKS.with_borrow_mut(|books| {
            let (now, peak) = books.entry(self).or_default();
            *peak = *now;
        });
    }

    pub(super) fn book(self, change: impl FnOnce(&mut Usage)) {
        BOOKS.with_borrow_mut(|books| {
            let (now, peak) = books.entry(self).or_default();
            change(now);
            if now.total() > peak.total() {
                *peak = *now;
            }
        });
    }
}
