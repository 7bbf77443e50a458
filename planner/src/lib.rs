//! Manifests to agent snapshots, purely.
