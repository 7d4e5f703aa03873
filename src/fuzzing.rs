//! The door through which the fuzz targets (`tests/fuzz`), and the test that replays their corpora, reach private code.
//!
//! Each entry is an inherent function of [`Door`] that stands beside the private function it opens, so nothing becomes
//! more visible for its sake and no room has to know another. Entries pass on what they are given and hand back what
//! comes; what must be true of that is stated in `tests/fuzz/src`. Nothing here is part of the library's interface, and
//! no other code of the gateway may call it.

/// The entries: `interpret`, `sign`, `timeout` and `status`.
#[derive(Debug)]
pub enum Door {}
