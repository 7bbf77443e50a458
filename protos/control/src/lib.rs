//! What the control plane tells an agent: the snapshot.
