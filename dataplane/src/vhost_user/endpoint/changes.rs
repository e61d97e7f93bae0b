//! Notes that the state of an endpoint changes, for whoever keeps a copy of it.

/// Counts changes, and tells each one before it happens.
#[derive(Default)]
pub(super) struct Changes {
    pub(super) count: u64,
    pub(super) tell: Option<Box<dyn FnMut() + Send>>,
}

impl Changes {
    /// Something is about to change.
    pub(super) fn note(&mut self) {
        self.count += 1;
        if let Some(tell) = &mut self.tell {
            tell();
        }
    }
}
