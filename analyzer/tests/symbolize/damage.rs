//! Stub of later tests.
