//! The custom resources of castgate.dev.
